package workflows

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/rollout"
)

// Names of the query and the update that only a channel's actor has, besides StateQuery,
// BlocksQuery, BlockName and UnblockName.
const (
	SyncedQuery = "synced"
	ResumeName  = "resume"
)

// ChannelSynced is what SyncFleet has to know of a channel's actor; the answer to SyncedQuery.
type ChannelSynced struct {
	Commit string `json:"commit"`
	// Landing is the newest landing that it knows; empty if none. Landings after it are to be told.
	Landing string `json:"landing,omitempty"`
	// Merged is the newest landing of each other channel that a promotion has brought here.
	Merged map[string]string `json:"merged,omitempty"`
	// Digest of the last ChannelSync, without its landings.
	Digest string `json:"digest"`
	// Clusters are the ids of all members, Open the members that are not on the head.
	Clusters []string         `json:"clusters"`
	Open     []rollout.Member `json:"open,omitempty"`
}

// ResumeRequest lets a rollout go on that failures have stopped.
type ResumeRequest struct {
	Reason string `json:"reason"`
	By     string `json:"by,omitempty"`
}

// A batch of clusters is told at a time, and again after a while if that took too long.
const (
	tellBatch  = 50
	tellWithin = 5 * time.Minute
	tellAgain  = time.Minute
)

// Channel is the actor of one channel. It holds the channel's blocks, knows which of its clusters
// has got how far on the way to the channel's head, and lets them go on in waves (rollout.Next). It
// lives for months, in runs of a limited length; a state with nothing but the name begins a new one.
func Channel(ctx workflow.Context, state ChannelState) error {
	c := &channelActor{ChannelState: state}
	selector := workflow.NewSelector(ctx)
	if err := c.handle(ctx, selector); err != nil {
		return err
	}
	workflow.GoNamed(ctx, "signals", func(ctx workflow.Context) {
		for {
			selector.Select(ctx)
		}
	})
	for {
		c.news = false
		c.decide(ctx)
		c.observe(workflow.Now(ctx))
		c.show(ctx)
		c.announce(ctx)
		if wants := c.wants(); len(wants) > 0 && !workflow.Now(ctx).Before(c.tellAt) {
			if err := c.deliver(ctx, wants); err != nil {
				return err
			}
			continue
		}
		c.arm(ctx, c.due(workflow.Now(ctx)))
		over := func() bool {
			info := workflow.GetInfo(ctx)
			return (info.GetCurrentHistoryLength() >= clusterHistory || info.GetContinueAsNewSuggested()) &&
				!selector.HasPending() && workflow.AllHandlersFinished(ctx) && c.busy == 0
		}
		if err := workflow.Await(ctx, func() bool { return c.news || c.rang() || over() }); err != nil {
			return err
		}
		if !c.news && over() {
			return workflow.NewContinueAsNewError(ctx, Channel, c.ChannelState)
		}
	}
}

type channelActor struct {
	ChannelState
	news   bool      // something may have to be decided anew
	busy   int       // messages to people that are on their way
	notes  []note    // that people have yet to be sent
	tellAt time.Time // when clusters are told again after that has failed

	alarm   workflow.Future // the one timer; nil without one
	alarmAt time.Time
	silence workflow.CancelFunc
	shown   *bool // whether the search attributes say that the channel is blocked
}

func (c *channelActor) scope() string { return "channel " + c.Channel }

func (c *channelActor) handle(ctx workflow.Context, selector workflow.Selector) error {
	if err := c.Blocks.handle(ctx, selector, c.scope(), c.learn); err != nil {
		return err
	}
	hear(ctx, selector, SyncName, func(sync ChannelSync) {
		if sync.Channel != c.Channel {
			workflow.GetLogger(ctx).Error("what was meant for another channel is left out", "channel", sync.Channel)
			return
		}
		c.land(workflow.Now(ctx), &sync)
		c.sync(workflow.Now(ctx), sync)
		c.learn(ctx)
	})
	hear(ctx, selector, ReportName, func(report ClusterReport) {
		c.report(workflow.Now(ctx), report)
		c.learn(ctx)
	})
	c.hearHealth(ctx, selector)
	c.hearPromotions(ctx, selector)
	if err := workflow.SetQueryHandler(ctx, StateQuery, func() (ChannelState, error) { return c.ChannelState, nil }); err != nil {
		return err
	}
	if err := workflow.SetQueryHandler(ctx, SyncedQuery, func() (ChannelSynced, error) { return c.synced(), nil }); err != nil {
		return err
	}
	if err := workflow.SetQueryHandler(ctx, WatchedQuery, func() (Watched, error) { return c.watched(), nil }); err != nil {
		return err
	}
	if err := c.handleLift(ctx); err != nil {
		return err
	}
	return workflow.SetUpdateHandlerWithOptions(ctx, ResumeName,
		func(ctx workflow.Context, _ ResumeRequest) ([]string, error) { return c.forgive(ctx), nil },
		workflow.UpdateHandlerOptions{Validator: c.checkResume, Description: "let the rollout go on in spite of the clusters that have failed, or are not healthy, so far"})
}

// learn has what was heard decided about, as soon as clusters are not being told something. The soak
// clock goes by it at once.
func (c *channelActor) learn(ctx workflow.Context) {
	c.news = true
	c.observe(workflow.Now(ctx))
}

func (c *channelActor) checkResume(request ResumeRequest) error {
	if strings.TrimSpace(request.Reason) == "" {
		return temporal.NewApplicationError("going on in spite of failures needs a reason: it stays in the history", InvalidInput)
	}
	if c.Unhealthy == "" && !slices.ContainsFunc(c.Members, Member.fails) {
		return temporal.NewApplicationError(fmt.Sprintf("no cluster of channel %s has failed on the way to its head, and none that is not healthy holds up others", c.Channel), InvalidInput)
	}
	return nil
}

func (m Member) fails() bool { return m.FailedUnix > 0 && !m.Forgiven }

func (c *channelActor) forgive(ctx workflow.Context) []string {
	holding := c.next(ctx).Holding
	var forgiven []string
	for i := range c.Members {
		if c.Members[i].fails() || slices.Contains(holding, c.Members[i].ID) {
			c.Members[i].Forgiven = true
			forgiven = append(forgiven, c.Members[i].ID)
		}
	}
	c.news = true
	return forgiven
}

func (c *channelActor) synced() ChannelSynced {
	s := ChannelSynced{Commit: c.Commit, Landing: c.newest(), Merged: c.merged(), Digest: c.Digest, Clusters: make([]string, len(c.Members))}
	for i, m := range c.Members {
		s.Clusters[i] = m.ID
		if m.State != rollout.Done {
			s.Open = append(s.Open, m.Member)
		}
	}
	return s
}

// sync takes over what registry and repository say. Clusters that are new to the channel wait for
// their waves; those that left it are forgotten, and their actors left alone.
func (c *channelActor) sync(now time.Time, s ChannelSync) {
	if s.Problem != "" { // the head is not known: the one that was stays wanted
		s.Commit, s.Title = c.Commit, c.Title
	} else if s.Commit != c.Commit {
		c.Since = now
	}
	if s.Keep {
		for _, known := range c.Clusters {
			if !slices.ContainsFunc(s.Clusters, func(each ChannelCluster) bool { return each.ID == known.ID }) {
				s.Clusters = append(s.Clusters, known)
			}
		}
	}
	slices.SortFunc(s.Clusters, func(a, b ChannelCluster) int { return cmp.Compare(a.ID, b.ID) })
	members := make([]Member, len(s.Clusters))
	for i := range s.Clusters {
		cluster := &s.Clusters[i]
		before, m := c.find(cluster.ID)
		members[i] = follow(now, before, m, cluster)
		cluster.Lost = false // it is news, not a state
	}
	c.ChannelSync, c.Members = s, members
}

// find returns what was known of a cluster before; nothing if it is new.
func (c *channelActor) find(id string) (*ChannelCluster, *Member) {
	i := slices.IndexFunc(c.Members, func(m Member) bool { return m.ID == id })
	if i < 0 {
		return nil, nil
	}
	return &c.Clusters[i], &c.Members[i] // both are sorted alike
}

// follow says where a cluster stands after a sync: before and was are nil if it is new, next is
// completed by what is wanted as before.
func follow(now time.Time, before *ChannelCluster, was *Member, next *ChannelCluster) Member {
	if was == nil {
		before = &ChannelCluster{}
		was = &Member{Member: rollout.Member{State: rollout.Waiting, SinceUnix: now.Unix()}, Tell: true, Current: next.Want.Current}
	}
	if next.Want.Version == "" {
		next.Want.Version = before.Want.Version
	}
	m, want, wanted := *was, next.Want, before.Want
	m.Cluster = next.Cluster
	m.Current = cmp.Or(m.Current, want.Current) // its update may not have said yet what it has made of it
	becomes := func(state rollout.State) {
		if m.State != state {
			m.State, m.SinceUnix = state, now.Unix()
		}
		m.FailedUnix, m.Forgiven, m.Problem = 0, false, ""
		if want.Block == "" { // it says anew whether a block of its own holds it
			m.HeldUnix = 0
		}
	}
	m.Tell = m.Tell || want.Block != wanted.Block || want.Lifecycle != wanted.Lifecycle
	switch {
	case want.Block != "" && m.HeldUnix == 0:
		m.HeldUnix = now.Unix()
	case want.Block == "" && wanted.Block != "":
		m.HeldUnix = 0
	}
	switch reached := want.Version != "" && want.Current == want.Version; {
	case aside(want.Lifecycle) && (want.Lifecycle != wanted.Lifecycle || want.Version != wanted.Version):
		becomes(rollout.Waiting) // let go at once, whatever the waves say
		m.Tell = true
	case reached && m.State != rollout.Updating && m.State != rollout.Done && !aside(want.Lifecycle):
		m.Current = want.Current
		m.Tell = m.Tell || want.Version != wanted.Version
		becomes(rollout.Done)
	case want.Version == wanted.Version:
		if next.Lost && (m.State == rollout.Updating || m.State == rollout.Allowed) {
			m.State, m.SinceUnix, m.Tell = rollout.Allowed, now.Unix(), true
		}
	case reached && m.State == rollout.Done: // on it already, such as after a revert
		m.Tell, m.Forgiven = true, false
		m.SinceUnix = now.Unix()
	case commitOf(want.Version) != commitOf(wanted.Version):
		// What was let go on the way to the head before, and has not got there, is not tried again.
		m.Tell = m.Tell || (m.State != rollout.Waiting && m.State != rollout.Done)
		becomes(rollout.Waiting)
		m.SinceUnix = now.Unix()
	case m.State != rollout.Waiting: // the entry was edited, which concerns this cluster alone
		m.Tell = true
		becomes(rollout.Allowed)
		m.SinceUnix = now.Unix()
	}
	return m
}

// aside says that a cluster is made or removed, and so is no part of the waves.
func aside(lifecycle registry.LifecycleStatus) bool {
	return lifecycle == registry.Requested || lifecycle == registry.DecommissionRequested
}

func commitOf(version string) string {
	commit, _, _ := strings.Cut(version, "#")
	return commit
}

// clocks is by how much those of Temporal's servers, which the actors go by, may differ.
const clocks = time.Minute

// mostProblem bounds what is kept of what is wrong with a cluster, in characters.
const mostProblem = 300

// report takes over what a cluster's actor says. What is about another version than the wanted one,
// or older than what is known, is no news.
func (c *channelActor) report(now time.Time, r ClusterReport) {
	cluster, m := c.find(r.Cluster)
	if m == nil {
		return // it has left the channel
	}
	at := r.At
	if at.IsZero() || at.After(now) {
		at = now
	}
	if r.Current != "" {
		m.Current = r.Current
	}
	m.Broken = forPeople(r.Broken)
	switch {
	case r.Version != cluster.Want.Version:
		switch {
		case m.State == rollout.Done && r.State == rollout.Done && m.Current != cluster.Want.Version:
			m.State, m.SinceUnix, m.Tell = rollout.Waiting, now.Unix(), true // an older update ended only now
		case m.State != rollout.Waiting:
			m.Tell = true // it was told what is wanted, but goes by something older that got to it later
		}
		return
	case r.State == rollout.Waiting, at.Before(time.Unix(m.SinceUnix, 0).Add(-clocks)) && r.State != rollout.Done:
		return
	}
	if m.State != r.State {
		if m.State == rollout.Done || r.State == rollout.Done {
			m.Forgiven = false // that was about what it has left behind
		}
		m.State, m.SinceUnix = r.State, at.Unix()
	}
	m.Problem = clip(r.Problem, mostProblem)
	switch {
	case r.State == rollout.Done:
		m.FailedUnix, m.HeldUnix = 0, 0
	case r.State == rollout.Failed && m.FailedUnix == 0:
		m.FailedUnix = at.Unix()
	}
	switch {
	case r.Held && m.HeldUnix == 0:
		m.HeldUnix = at.Unix()
	case !r.Held && cluster.Want.Block == "":
		m.HeldUnix = 0
	}
}

// decide lets clusters go on, unless the channel is blocked.
func (c *channelActor) decide(ctx workflow.Context) {
	now := workflow.Now(ctx)
	for i := range c.Members {
		c.Members[i].Wave = -1
	}
	for wave, members := range rollout.Waves(c.Settings, c.waved()) {
		for _, each := range members {
			_, m := c.find(each.ID)
			m.Wave = wave
		}
	}
	d := c.next(ctx)
	c.Wave, c.Next, c.Stopped, c.Unhealthy, c.Overdue = d.Wave, d.Next, d.Stopped, d.Unhealthy, d.Overdue
	if c.Problem != "" {
		c.Next, c.Stopped, c.Unhealthy, c.Overdue = time.Time{}, c.Problem, "", time.Time{}
	}
	blocked := len(c.Blocks.At(now, "")) > 0
	for i := range c.Members {
		m, want := &c.Members[i], c.Clusters[i].Want
		goes := m.Wave < 0 || (c.Stopped == "" && slices.Contains(d.Allow, m.ID))
		switch {
		case m.State == rollout.Waiting && goes && !blocked && want.Version != "":
			m.State, m.SinceUnix, m.Tell = rollout.Allowed, now.Unix(), true
		case m.State == rollout.Allowed && m.Tell && blocked: // it has not been told yet
			m.State, m.SinceUnix = rollout.Waiting, now.Unix()
		}
	}
}

// waved are the clusters that go in waves.
func (c *channelActor) waved() (members []rollout.Member) {
	for i, m := range c.Members {
		if !aside(c.Clusters[i].Want.Lifecycle) {
			members = append(members, m.Member)
		}
	}
	return members
}

// wants is what is to be told next, one batch of it.
func (c *channelActor) wants() []Want {
	var wants []Want
	for i, m := range c.Members {
		if m.Tell && c.Clusters[i].Want.Version != "" && len(wants) < tellBatch {
			wants = append(wants, c.want(i))
		}
	}
	return wants
}

func (c *channelActor) want(i int) Want {
	want := c.Clusters[i].Want
	want.Hold = c.Members[i].State == rollout.Waiting
	return want
}

// deliver tells clusters what is wanted. What changes meanwhile is told by the next call.
func (c *channelActor) deliver(ctx workflow.Context, wants []Want) error {
	told := workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		ScheduleToCloseTimeout: tellWithin,
		HeartbeatTimeout:       heartbeatTimeout,
		RetryPolicy:            patient,
		Summary:                fmt.Sprintf("tell %d clusters what is wanted", len(wants)),
	})
	var untold []string
	err := workflow.ExecuteActivity(told, "TellClusters", TellClusters{Wants: wants}).Get(ctx, &untold)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		workflow.GetLogger(ctx).Error("clusters were not told what is wanted; they will be", "error", err)
		c.tellAt = workflow.Now(ctx).Add(tellAgain)
		return nil
	}
	if len(untold) > 0 {
		c.tellAt = workflow.Now(ctx).Add(tellAgain)
	}
	for i := range c.Members {
		if slices.Contains(wants, c.want(i)) && !slices.Contains(untold, c.Members[i].ID) {
			c.Members[i].Tell = false
		}
	}
	return nil
}

// due is when something changes by itself; zero if nothing does.
func (c *channelActor) due(now time.Time) time.Time {
	var due time.Time
	soonest := func(at time.Time) {
		if at.After(now) && (due.IsZero() || at.Before(due)) {
			due = at
		}
	}
	soonest(c.Next)
	soonest(c.Overdue)
	soonest(c.tellAt)
	for _, b := range c.Blocks.Holding {
		soonest(b.Until)
	}
	return due
}

// arm has the one timer ring at a time, or sooner: it is left alone if it would.
func (c *channelActor) arm(ctx workflow.Context, at time.Time) {
	if c.rang() {
		c.alarm = nil
	}
	if at.IsZero() || (c.alarm != nil && !at.Before(c.alarmAt)) {
		return
	}
	if c.alarm != nil {
		c.silence()
	}
	timer, cancel := workflow.WithCancel(ctx)
	c.alarm = workflow.NewTimerWithOptions(timer, at.Sub(workflow.Now(ctx)), workflow.TimerOptions{Summary: "next wave, or the end of a block"})
	c.alarmAt, c.silence = at, cancel
}

func (c *channelActor) rang() bool { return c.alarm != nil && c.alarm.IsReady() }

func (c *channelActor) show(ctx workflow.Context) {
	workflow.SetCurrentDetails(ctx, c.details(workflow.Now(ctx)))
	if blocked := len(c.Blocks.Holding) > 0; c.shown == nil || *c.shown != blocked {
		c.shown = &blocked
		// It fails only if the namespace lacks the attributes, which the worker checks at its start.
		_ = workflow.UpsertTypedSearchAttributes(ctx, ChannelAttribute.ValueSet(c.Channel), BlockedAttribute.ValueSet(blocked))
	}
}

// details is what the Temporal UI shows.
func (c *channelActor) details(now time.Time) string {
	if c.Commit == "" {
		return strings.TrimSpace(fmt.Sprintf("Nothing is known yet of the head of channel `%s`. %s\n\n%s", c.Channel, c.Problem, c.Blocks.details(c.scope())))
	}
	count := map[rollout.State]int{}
	var failed []string
	for _, m := range c.Members {
		count[m.State]++
		if m.FailedUnix > 0 && len(failed) < 10 {
			failed = append(failed, fmt.Sprintf("\n- `%s`: %s", m.ID, firstLine(m.Problem)))
		}
	}
	title := ""
	if c.Title != "" {
		title = " (" + firstLine(c.Title) + ")"
	}
	text := fmt.Sprintf("Channel `%s` is at `%s`%s since %s. Of %d clusters %d are on it, %d are being updated, %d may begin, %d wait for their wave and %d have failed. %d waves have been let go on",
		c.Channel, c.Commit, title, c.Since.UTC().Format(time.RFC3339), len(c.Members), count[rollout.Done], count[rollout.Updating],
		count[rollout.Allowed], count[rollout.Waiting], count[rollout.Failed], c.Wave)
	if !c.Next.IsZero() {
		text += ", the next one may at " + c.Next.UTC().Format(time.RFC3339)
	}
	text += "."
	switch {
	case c.Stopped != "":
		text += "\n\n**Stopped**: " + c.Stopped
	case c.Unhealthy != "":
		text += "\n\n**Waits for health**: " + c.Unhealthy
	}
	if blocked := c.Blocks.details(c.scope()); blocked != "" {
		text += "\n\n" + blocked
	}
	if len(failed) > 0 {
		text += "\n\nFailed, of those at most ten:\n" + strings.Join(failed, "")
	}
	for _, more := range []string{c.soakDetails(now), c.revertDetails()} {
		if more != "" {
			text += "\n\n" + more
		}
	}
	return text
}
