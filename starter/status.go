package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"golang.org/x/sync/errgroup"
	"golang.org/x/term"

	"github.com/fairway-project/fairway/rollout"
	"github.com/fairway-project/fairway/workflows"
)

// fleetStatus is what `fairway status` shows.
type fleetStatus struct {
	Channels []channelStatus `json:"channels"`
	Updating []updateStatus  `json:"updating"`
	Failed   []failedStatus  `json:"failed"`
	Blocked  []blockStatus   `json:"blocked"`
	Rolls    []rollStatus    `json:"rolls"`
	// Promotions are those under way.
	Promotions []listedPromotion `json:"promotions"`
	// Turns are the nodes that are replaced now, as the limits across clusters count them.
	Turns []workflows.Turn `json:"turns"`
	// Silent are workflows that did not answer in time: what they know is missing here.
	Silent []string `json:"silent,omitempty"`
}

// blockStatus is a block and what it holds: the cluster is empty for a channel and the fleet.
type blockStatus struct {
	Cluster string `json:"cluster,omitempty"`
	workflows.Block
}

// updateStatus is an update under way.
type updateStatus struct {
	Cluster string               `json:"cluster"`
	Channel string               `json:"channel,omitempty"`
	Kind    workflows.UpdateKind `json:"kind,omitempty"`
	Version string               `json:"version,omitempty"`
	Phase   string               `json:"phase"`
	Step    string               `json:"step"`
	Started time.Time            `json:"started"`
	// Nodes and Done are those of the pools that are rolled; Left is the time that these still need,
	// empty where it is not known.
	Nodes int    `json:"nodes,omitempty"`
	Done  int    `json:"nodes_done,omitempty"`
	Left  string `json:"left,omitempty"`
	// Waits is true while it waits for a maintenance window or for its turn.
	Waits    bool     `json:"waits,omitempty"`
	WaitsFor []string `json:"waits_for,omitempty"`
}

// failedStatus is a cluster whose last attempt failed.
type failedStatus struct {
	Cluster string    `json:"cluster"`
	Channel string    `json:"channel"`
	Since   time.Time `json:"since"`
	Version string    `json:"version,omitempty"` // wanted
	Problem string    `json:"problem"`
}

type rollStatus struct {
	Workflow string    `json:"workflow"`
	Started  time.Time `json:"started"`
	Progress string    `json:"progress"`
	Nodes    counts    `json:"nodes"`
	// Notes are nodes in quarantine, fallbacks and bad replacements.
	Notes    []string `json:"notes,omitempty"`
	WaitsFor []string `json:"waits_for,omitempty"`
	// Queueing means that the limits across clusters keep it waiting.
	Queueing bool `json:"queueing,omitempty"`

	left time.Duration // that it still needs; 0 if that is not known
}

func (c *cli) statusCommand() *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the fleet by channel, and what is under way, promoted, blocked or failed",
		Long: `Show the fleet by channel: its head, how many clusters are on it, and which of the others
has not changed its state (waiting, updating, failed) for the longest, with its version; whether it was
set back, so that nothing is promoted into it; then what is being updated and promoted, what has
failed and what is blocked, by whom, why and until when; then the rolls of pools, and which nodes the limits across clusters let go.

--watch shows it again and again until interrupted: redrawn on a terminal, and otherwise whenever
something changes, with -o json as one line each.`,
		Example: "  fairway status\n  fairway status --watch\n  fairway status -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			conn, err := c.connect(cmd.Context())
			if err != nil {
				return err
			}
			defer conn.Close()
			if watch {
				return c.watchStatus(cmd, conn)
			}
			var status fleetStatus
			if err := patiently(cmd.ErrOrStderr(), "asks clusters and channels", func() (err error) {
				status, err = conn.status(cmd.Context())
				return err
			}); err != nil {
				return err
			}
			return c.print(cmd.OutOrStdout(), status, status.show)
		},
	}
	cmd.Flags().BoolVar(&watch, "watch", false, "show it again whenever something changes")
	return cmd
}

// watchEvery is the time between two looks.
const watchEvery = 2 * time.Second

// watchStatus shows the status until it is interrupted. An outage in between ends nothing.
func (c *cli) watchStatus(cmd *cobra.Command, conn *connection) error {
	out := cmd.OutOrStdout()
	file, ok := out.(*os.File)
	redraw := ok && term.IsTerminal(int(file.Fd())) && c.output != "json"
	w := &watching{out: out, redraw: redraw, json: c.output == "json"}
	for first, look := true, time.Tick(watchEvery); ; first = false {
		status, err := conn.status(cmd.Context())
		switch {
		case cmd.Context().Err() != nil:
			return cmd.Context().Err()
		case err != nil && first:
			return err
		case err != nil:
			fmt.Fprintf(cmd.ErrOrStderr(), "fairway: %v; looking again\n", err)
		default:
			if err := w.show(status, time.Now()); err != nil {
				return err
			}
		}
		select {
		case <-cmd.Context().Done():
			return cmd.Context().Err()
		case <-look:
		}
	}
}

// watching shows a status anew.
type watching struct {
	out          io.Writer
	redraw, json bool
	last         []byte
}

func (w *watching) show(status fleetStatus, now time.Time) error {
	told, err := json.Marshal(status)
	if err != nil {
		return err
	}
	if !w.redraw && bytes.Equal(told, w.last) {
		return nil
	}
	w.last = told
	if w.json {
		_, err := fmt.Fprintf(w.out, "%s\n", told)
		return err
	}
	var text bytes.Buffer
	if err := (&cli{output: "table"}).print(&text, status, status.show); err != nil {
		return err
	}
	before, after := "", "\n"
	if w.redraw {
		before, after = "\x1b[H\x1b[2J\x1b[3J", ""
	}
	_, err = fmt.Fprintf(w.out, "%s%s\n%s%s", before, now.Local().Format(time.DateTime), text.String(), after)
	return err
}

func (s fleetStatus) show(t *table) {
	showChannels(t, s.Channels)
	s.showUpdating(t)
	s.showPromoting(t)
	if len(s.Failed) > 0 {
		t.line("")
		t.row("FAILED", "CHANNEL", "SINCE", "WANTED", "PROBLEM")
		for _, each := range s.Failed {
			t.row(each.Cluster, each.Channel, age(each.Since), shortVersion(each.Version), cut(problemText(each.Cluster, each.Problem), 160))
		}
		t.flush()
	}
	if len(s.Blocked) > 0 {
		t.line("")
		t.row("BLOCKED", "POOL", "BY", "SINCE", "UNTIL", "BLOCK", "REASON")
		for _, block := range s.Blocked {
			until := ""
			if !block.Until.IsZero() {
				until = block.Until.Local().Format(time.DateTime)
			}
			t.row(block.what(), cmp.Or(block.Pool, "all"), block.By, age(block.Since), until, block.ID, cut(block.Reason, 120))
		}
		t.flush()
	}
	if len(s.Rolls) > 0 {
		t.line("")
		t.row("UNDER WAY", "SINCE", "NODES", "PROGRESS")
		for _, roll := range s.Rolls {
			t.row(roll.Workflow, age(roll.Started), roll.Nodes, roll.Progress)
			for _, line := range slices.Concat(roll.Notes, roll.WaitsFor) {
				t.row("", "", "", "  "+line)
			}
		}
		t.flush()
	}
	if len(s.Rolls)+len(s.Updating)+len(s.Promotions) == 0 {
		t.line("\nNothing is under way.")
	}
	if line := s.limits(); line != "" {
		t.line("\n%s", line)
	}
	if len(s.Silent) > 0 {
		t.line("\nNo worker answered for %s: %s. What is known of them is missing here.", counted(len(s.Silent), "workflow"), strings.Join(s.Silent[:min(len(s.Silent), 5)], ", "))
	}
}

// showUpdating shows the updates under way, and those that only wait by what they wait for.
func (s fleetStatus) showUpdating(t *table) {
	waiting := map[string][]string{}
	var reasons []string
	heading := false
	for _, each := range s.Updating {
		if each.Waits {
			reason := each.waitsFor()
			if _, known := waiting[reason]; !known {
				reasons = append(reasons, reason)
			}
			waiting[reason] = append(waiting[reason], each.Cluster)
			continue
		}
		if !heading {
			heading = true
			t.line("")
			t.row("UPDATING", "KIND", "TO", "SINCE", "PHASE", "NODES", "LEFT", "STEP")
		}
		nodes := ""
		if each.Nodes > 0 {
			nodes = fmt.Sprintf("%d of %d", each.Done, each.Nodes)
		}
		t.row(each.Cluster, each.Kind, shortVersion(each.Version), age(each.Started), each.Phase, nodes, each.Left, cut(each.Step, 80))
		for _, line := range each.WaitsFor {
			t.row("", "", "", "", "", "", "", "  "+cut(line, 120))
		}
	}
	t.flush()
	if len(reasons) > 0 {
		t.line("")
		t.row("WAITING", "CLUSTERS", "FOR")
		for _, reason := range reasons {
			names := waiting[reason]
			shown := strings.Join(names[:min(len(names), listedWaiting)], ", ")
			if more := len(names) - listedWaiting; more > 0 {
				shown += fmt.Sprintf(" and %d more", more)
			}
			t.row(len(names), shown, cut(reason, 120))
		}
		t.flush()
	}
}

// showPromoting shows the promotions under way, and what they wait for.
func (s fleetStatus) showPromoting(t *table) {
	if len(s.Promotions) == 0 {
		return
	}
	t.line("")
	t.row("PROMOTING", "SINCE", "PHASE", "PULL REQUEST", "TITLE")
	for _, each := range s.Promotions {
		t.row(each.ID, age(each.Began), cmp.Or(each.Phase, unanswered), cmp.Or(each.URL, numberText(each.PullRequest)), cut(each.Title, 80))
		for _, wait := range each.WaitsFor {
			t.row("", "", "", "", "  "+cut(attempts.ReplaceAllString(wait, ""), 120))
		}
	}
	t.flush()
}

// listedWaiting is how many clusters are named that wait for the same.
const listedWaiting = 4

// attempts begin what is told of an activity that is tried again.
var attempts = regexp.MustCompile(`^attempt \d+, because `)

// waitsFor is what an update waits for, in words that are the same for all that wait for the same.
func (u updateStatus) waitsFor() string {
	if len(u.WaitsFor) == 0 {
		return u.Step
	}
	return attempts.ReplaceAllString(u.WaitsFor[0], "")
}

// what names what a block holds.
func (b blockStatus) what() string {
	if b.Cluster == "" {
		return b.Scope
	}
	if b.Scope == "registry" {
		return b.Cluster + " (registry)"
	}
	return b.Cluster
}

// gathering collects a status; many questions are answered at the same time.
type gathering struct {
	*connection
	mutex  sync.Mutex
	status fleetStatus
}

func (g *gathering) silent(id string) {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	g.status.Silent = append(g.status.Silent, id)
}

// status asks for everything at the same time: without a worker each question takes until its
// deadline. What does not answer is named, and hides nothing else.
func (c *connection) status(ctx context.Context) (fleetStatus, error) {
	g := &gathering{connection: c, status: fleetStatus{
		Channels: []channelStatus{}, Updating: []updateStatus{}, Failed: []failedStatus{}, Blocked: []blockStatus{}, Rolls: []rollStatus{}, Turns: []workflows.Turn{},
		Promotions: []listedPromotion{},
	}}
	clusters, err := c.clusters(ctx)
	if err != nil {
		return g.status, err
	}
	g.status.Channels = channelsOf(clusters)
	var group errgroup.Group
	var fleet, blocked []blockStatus
	group.Go(func() error { return c.addChannels(ctx, g.status.Channels) })
	group.Go(func() (err error) {
		fleet, err = g.fleet(ctx)
		return err
	})
	group.Go(func() (err error) {
		blocked, err = g.blockedClusters(ctx)
		return err
	})
	group.Go(func() error { return g.updates(ctx) })
	group.Go(func() error { return g.rolls(ctx) })
	group.Go(func() error { return g.promoting(ctx) })
	if err := group.Wait(); err != nil {
		return g.status, err
	}
	g.status.Blocked = append(g.status.Blocked, fleet...)
	for _, channel := range g.status.Channels {
		if channel.answer == noAnswer {
			g.status.Silent = append(g.status.Silent, workflows.ChannelID(channel.Channel))
		}
		for _, block := range channel.Blocks {
			g.status.Blocked = append(g.status.Blocked, blockStatus{"", block})
		}
		g.status.Failed = append(g.status.Failed, channel.failed()...)
	}
	g.status.Blocked = append(g.status.Blocked, blocked...)
	slices.Sort(g.status.Silent)
	g.status.join(clusters)
	return g.status, nil
}

// failed lists the clusters of a channel whose last attempt failed.
func (s channelStatus) failed() (out []failedStatus) {
	for _, member := range s.members {
		if member.State == rollout.Failed {
			out = append(out, failedStatus{Cluster: member.ID, Channel: s.Channel, Since: time.Unix(member.SinceUnix, 0), Version: s.Head, Problem: cmp.Or(member.Problem, "no reason was told")})
		}
	}
	return out
}

// join adds to updates what rolls of their pools know better.
func (s *fleetStatus) join(clusters []workflows.ClusterInfo) {
	channels := map[string]string{}
	for _, cluster := range clusters {
		channels[cluster.ID] = cluster.Channel
	}
	for i := range s.Updating {
		update := &s.Updating[i]
		update.Channel = channels[update.Cluster]
		var left time.Duration
		known := true
		for _, roll := range s.Rolls {
			if cluster, _, _ := strings.Cut(strings.TrimPrefix(roll.Workflow, workflows.ClusterID("")), "/pool/"); cluster != update.Cluster {
				continue
			}
			update.Nodes, update.Done = update.Nodes+roll.Nodes.Total, update.Done+roll.Nodes.Done
			left, known = max(left, roll.left), known && (roll.left > 0 || roll.Nodes.Done == roll.Nodes.Total)
		}
		held := slices.ContainsFunc(s.Blocked, func(b blockStatus) bool {
			return b.Cluster == update.Cluster || b.Cluster == "" && (b.Scope == "fleet" || b.Scope == "channel "+update.Channel)
		})
		if update.Phase == "pools" && known && left > 0 && !held {
			update.Left = "about " + short(left)
		}
	}
}

// fleet asks the fleet's actor for its blocks and for who replaces nodes now.
func (g *gathering) fleet(ctx context.Context) (blocked []blockStatus, err error) {
	var state workflows.FleetState
	if _, err := g.query(ctx, workflows.FleetID, "", workflows.StateQuery, &state); err != nil {
		g.silent(workflows.FleetID)
		return nil, ctx.Err()
	}
	g.status.Turns = append(g.status.Turns, state.Turns...)
	for _, block := range holding(state.Blocks.Holding, "fleet", time.Now()) {
		blocked = append(blocked, blockStatus{"", block})
	}
	return blocked, nil
}

// blockedClusters asks the actors of those clusters that have blocks, expired ones included.
func (g *gathering) blockedClusters(ctx context.Context) (out []blockStatus, err error) {
	var names []string
	if err := g.running(ctx, "WorkflowType = 'Cluster' AND Blocked = true", func(each *workflow.WorkflowExecutionInfo) {
		names = append(names, strings.TrimPrefix(each.Execution.WorkflowId, workflows.ClusterID("")))
	}); err != nil {
		return nil, err
	}
	slices.Sort(names)
	found := make([][]workflows.Block, len(names))
	var group errgroup.Group
	group.SetLimit(asking)
	for i, name := range names {
		group.Go(func() error {
			var err error
			if found[i], err = g.blocks(ctx, name); err != nil {
				g.silent(workflows.ClusterID(name))
			}
			return ctx.Err()
		})
	}
	err = group.Wait()
	for i, name := range names {
		for _, block := range found[i] {
			out = append(out, blockStatus{name, block})
		}
	}
	return out, err
}

// updates asks the updates that run.
func (g *gathering) updates(ctx context.Context) error {
	var found []updateStatus
	if err := g.running(ctx, "WorkflowType = 'UpdateCluster'", func(each *workflow.WorkflowExecutionInfo) {
		cluster := strings.TrimSuffix(strings.TrimPrefix(each.Execution.WorkflowId, workflows.ClusterID("")), "/update")
		found = append(found, updateStatus{Cluster: cluster, Started: each.StartTime.AsTime()})
	}); err != nil {
		return err
	}
	slices.SortFunc(found, func(a, b updateStatus) int { return strings.Compare(a.Cluster, b.Cluster) })
	var group errgroup.Group
	group.SetLimit(asking)
	for i := range found {
		group.Go(func() error {
			update := &found[i]
			id := workflows.UpdateClusterID(update.Cluster)
			var progress workflows.UpdateProgress
			if _, err := g.query(ctx, id, "", workflows.ProgressQuery, &progress); err != nil {
				update.Phase, update.Step = "unknown", unanswered
				return ctx.Err()
			}
			update.learn(progress)
			if update.Phase != "pools" { // rolls say for themselves what they wait for
				update.WaitsFor = g.waitsFor(ctx, id)
			}
			return nil
		})
	}
	err := group.Wait()
	g.mutex.Lock()
	defer g.mutex.Unlock()
	g.status.Updating = append(g.status.Updating, found...)
	return err
}

// learn takes over where an update stands.
func (u *updateStatus) learn(progress workflows.UpdateProgress) {
	u.Kind, u.Version, u.Phase, u.Step = progress.Kind, progress.Version, progress.Phase, currentSteps(progress)
	u.Waits = progress.Phase == "waiting"
	for _, pool := range progress.Pools {
		if pool.State != "rolling" { // the roll itself knows better
			u.Nodes, u.Done = u.Nodes+pool.Nodes, u.Done+pool.Replaced
		}
	}
}

// rolls asks the rolls that run.
func (g *gathering) rolls(ctx context.Context) error {
	var rolls []rollStatus
	if err := g.running(ctx, "WorkflowType = 'RollPool'", func(each *workflow.WorkflowExecutionInfo) {
		rolls = append(rolls, rollStatus{Workflow: each.Execution.WorkflowId, Started: each.StartTime.AsTime()})
	}); err != nil {
		return err
	}
	slices.SortFunc(rolls, func(a, b rollStatus) int { return strings.Compare(a.Workflow, b.Workflow) })
	var group errgroup.Group
	group.SetLimit(32)
	for i := range rolls {
		roll := &rolls[i]
		group.Go(func() error {
			progress, answered := g.rollProgress(ctx, roll.Workflow)
			if !answered {
				roll.Progress = unanswered
				return ctx.Err()
			}
			roll.Progress, roll.Nodes, roll.Notes = stepOf(progress), countsOf(progress), notesOf(progress)
			roll.Queueing, roll.WaitsFor = progress.Phase == "queueing", g.waitsFor(ctx, roll.Workflow)
			roll.left = extrapolate(progress, time.Now())
			return nil
		})
	}
	err := group.Wait()
	g.mutex.Lock()
	defer g.mutex.Unlock()
	g.status.Rolls = append(g.status.Rolls, rolls...)
	return err
}

// promoting asks the promotions that run.
func (g *gathering) promoting(ctx context.Context) error {
	found, err := g.runningPromotions(ctx)
	g.mutex.Lock()
	defer g.mutex.Unlock()
	g.status.Promotions = append(g.status.Promotions, found...)
	for _, each := range found {
		if each.Phase == "" {
			g.status.Silent = append(g.status.Silent, each.Workflow)
		}
	}
	return err
}

// extrapolate is the time that a roll still needs if it goes on as it went until the last node was done;
// 0 while nothing is done, and where something holds it up.
func extrapolate(progress workflows.RollProgress, now time.Time) time.Duration {
	done := countsOf(progress)
	if done.Done == 0 || done.Done >= done.Total {
		return 0
	}
	measured, last := paceOf(progress), progress.Started
	for _, node := range progress.Nodes {
		if node.State == workflows.Replaced && node.Ended.After(last) {
			last = node.Ended
		}
		if busy := node.State == workflows.Replacing || node.State == workflows.Surging; busy && now.Sub(node.Began) > measured.Node+measured.Node/2 {
			return 0
		}
	}
	return max(0, last.Sub(progress.Started)/time.Duration(done.Done)*time.Duration(done.Total-done.Done)-now.Sub(last))
}

// limits says how many nodes are replaced and how many rolls wait for that; nothing where no
// limit binds.
func (s fleetStatus) limits() string {
	nodes, rolls, waiting := 0, 0, 0
	for _, turn := range s.Turns {
		if !strings.HasSuffix(turn.Holder, "/update") { // that is a turn of a cluster
			nodes, rolls = nodes+turn.Nodes, rolls+1
		}
	}
	for _, roll := range s.Rolls {
		if roll.Queueing {
			waiting++
		}
	}
	if waiting == 0 {
		return ""
	}
	return fmt.Sprintf("The limits across clusters bind: %s being replaced by %s, and %s waiting for a turn.",
		isAre(nodes, "node"), counted(rolls, "roll"), isAre(waiting, "roll"))
}

func isAre(count int, what string) string { return countVerb(count, what, "is", "are") }

// running visits the workflows that run and match a query.
func (c *connection) running(ctx context.Context, query string, visit func(*workflow.WorkflowExecutionInfo)) error {
	var page []byte
	for {
		running, err := c.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{
			Query: query + " AND ExecutionStatus = 'Running'", NextPageToken: page,
		})
		if err != nil {
			return fmt.Errorf("listing what is under way: %w", err)
		}
		for _, each := range running.Executions {
			visit(each)
		}
		if page = running.NextPageToken; len(page) == 0 {
			return nil
		}
	}
}
