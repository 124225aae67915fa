package workflows

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/rollout"
)

// Waits between failed attempts, where nothing is configured.
const (
	retryAfter  = 5 * time.Minute
	retryAtMost = 2 * time.Hour
)

// pastUpdates is how many updates a cluster's actor remembers.
const pastUpdates = 20

// registryBlock is id and scope of the block that the config item cluster_update_block is.
const registryBlock = "registry"

// hear takes wanted versions, and the ends of updates.
func (c *clusterActor) hear(ctx workflow.Context, selector workflow.Selector) {
	selector.AddReceive(workflow.GetSignalChannel(ctx, WantName), func(channel workflow.ReceiveChannel, _ bool) {
		var want Want
		channel.Receive(ctx, &want)
		c.want(ctx, want)
	})
	selector.AddReceive(workflow.GetSignalChannel(ctx, UpdatedName), func(channel workflow.ReceiveChannel, _ bool) {
		var outcome UpdateOutcome
		channel.Receive(ctx, &outcome)
		c.ended(ctx, outcome)
	})
}

func (c *clusterActor) handleUpdates(ctx workflow.Context) error {
	if err := workflow.SetUpdateHandlerWithOptions(ctx, RollbackName,
		func(ctx workflow.Context, request RollbackRequest) (ClusterUpdates, error) {
			c.rollback(ctx, request)
			return c.Updates, nil
		},
		workflow.UpdateHandlerOptions{Validator: c.checkRollback, Description: "go back to a version, and stay on it until another one is wanted"},
	); err != nil {
		return err
	}
	return workflow.SetUpdateHandlerWithOptions(ctx, UpdateName,
		func(ctx workflow.Context, request UpdateRequest) (ClusterUpdates, error) {
			c.Updates.Asked, c.Updates.Pinned = &request, nil
			c.tell(ctx)
			return c.Updates, nil
		},
		workflow.UpdateHandlerOptions{Validator: c.checkUpdate, Description: "update to the wanted version now, without waiting for the next attempt or the channel's waves"})
}

// follow starts what is due, one update at a time, and has the running one end when another version is
// wanted.
func (c *clusterActor) follow(ctx workflow.Context) {
	for ctx.Err() == nil {
		seen := c.news // before the report: what happens while it is sent has to be told as well
		c.report(ctx)
		now := workflow.Now(ctx)
		in, again := c.Due(now)
		switch {
		case c.Updates.outdated():
			c.supersede(ctx)
		case in != nil && c.child != nil && !c.child.IsReady():
			// The last one has told how it ended, and is about to end.
			_ = workflow.Await(ctx, func() bool { return c.news != seen || c.child.IsReady() })
		case in != nil && now.Before(c.free):
			_, _ = workflow.AwaitWithOptions(ctx, workflow.AwaitOptions{Timeout: c.free.Sub(now), TimerOptions: workflow.TimerOptions{Summary: "until another update has ended"}},
				func() bool { return c.news != seen })
		case in != nil:
			c.start(ctx, *in)
		case again.IsZero():
			_ = workflow.Await(ctx, func() bool { return c.news != seen })
		default:
			_, _ = workflow.AwaitWithOptions(ctx, workflow.AwaitOptions{Timeout: again.Sub(now), TimerOptions: workflow.TimerOptions{Summary: "until an update may begin"}},
				func() bool { return c.news != seen })
		}
	}
}

// want learns what the cluster is to be like.
func (c *clusterActor) want(ctx workflow.Context, want Want) {
	if want.Cluster != c.Cluster || want.Version == "" {
		workflow.GetLogger(ctx).Error("a wanted version was not understood and is left out", "cluster", want.Cluster, "version", want.Version)
		return
	}
	want.Lifecycle = cmp.Or(want.Lifecycle, registry.Ready)
	u := &c.Updates
	if u.Current == "" && len(u.Mixed) == 0 && u.Running == nil && len(u.History) == 0 {
		u.Current, u.Last = want.Current, want.Last // this actor has not seen an update yet
		if want.Current == "" && want.Between != "" {
			u.Mixed = []string{want.Between} // but an earlier one has, which was ended
		}
	}
	switch {
	// What an update has done may not have been read from the registry yet.
	case want.Lifecycle == registry.Requested && u.Current != "":
		want.Lifecycle = registry.Ready
	case want.Lifecycle == registry.DecommissionRequested && u.gone():
		want.Lifecycle = registry.Decommissioned
	}
	if u.Want != nil { // updates may have told them
		want.RetryAfter, want.RetryAtMost = cmp.Or(want.RetryAfter, u.Want.RetryAfter), cmp.Or(want.RetryAtMost, u.Want.RetryAtMost)
	}
	// An item that blocks makes another version too, for as long as it is there.
	if u.Pinned != nil && !want.Hold && want.Block == "" && want.Version != u.Pinned.Not {
		u.Pinned = nil
	}
	u.Want = &want
	c.blockByRegistry(ctx, want.Block)
	c.reported = ClusterReport{} // every want is answered
	c.tell(ctx)
}

// blockByRegistry keeps the block that stands in the cluster's entry.
func (c *clusterActor) blockByRegistry(ctx workflow.Context, reason string) {
	now := workflow.Now(ctx)
	c.tidy(now)
	at := slices.IndexFunc(c.Blocks, func(b Block) bool { return b.Scope == registryBlock })
	switch {
	case at < 0 && reason != "":
		c.Blocks = append(c.Blocks, Block{ID: registryBlock, Scope: registryBlock, Reason: reason, By: "cluster_update_block", Since: now})
	case at >= 0 && reason == "":
		lifted := c.Blocks[at]
		lifted.Until = now
		c.Ended = append(c.Ended, lifted)
		c.Blocks = slices.Delete(c.Blocks, at, at+1)
	case at >= 0:
		c.Blocks[at].Reason = reason
	}
}

func (c *clusterActor) checkRollback(request RollbackRequest) error {
	u := c.Updates
	version := cmp.Or(request.Version, u.before())
	known := u.had()
	switch {
	case strings.TrimSpace(request.Reason) == "":
		return temporal.NewApplicationError("a rollback needs a reason: others will ask for it", InvalidInput)
	case u.Want == nil:
		return temporal.NewApplicationError(fmt.Sprintf("nobody has told yet what version cluster %s is to have", c.Cluster), InvalidInput)
	case u.Want.Lifecycle != registry.Ready:
		return temporal.NewApplicationError(fmt.Sprintf("cluster %s is %s; only one that is ready can go back", c.Cluster, u.Want.Lifecycle), InvalidInput)
	case version == "":
		return temporal.NewApplicationError(fmt.Sprintf("cluster %s has had no version before", c.Cluster), InvalidInput)
	case !slices.Contains(known, version):
		return temporal.NewApplicationError(fmt.Sprintf("cluster %s has not had version %s; it has had %s", c.Cluster, version, strings.Join(known, ", ")), InvalidInput)
	case version == u.Current && u.Running == nil:
		return temporal.NewApplicationError(fmt.Sprintf("cluster %s has version %s", c.Cluster, version), InvalidInput)
	case u.Running != nil && u.Running.Kind == Rollback && u.Running.Version == version && !u.Running.Superseded:
		return temporal.NewApplicationError(fmt.Sprintf("cluster %s goes back to version %s already", c.Cluster, version), InvalidInput)
	}
	return nil
}

func (c *clusterActor) rollback(ctx workflow.Context, request RollbackRequest) {
	u := &c.Updates
	pinned := PinnedVersion{Version: cmp.Or(request.Version, u.before()), Not: u.Want.Version, By: cmp.Or(request.By, nobody), Reason: request.Reason, At: workflow.Now(ctx)}
	if u.Want.Hold { // the channel has not let it go to the wanted version, so it goes back from another
		pinned.Not = cmp.Or(u.Current, newest(u.Mixed), u.Want.Version)
	}
	u.Pinned, u.Asked = &pinned, nil
	if u.Failed != nil && u.Failed.Kind == Rollback {
		u.Failed = nil // a person asks anew
	}
	c.tell(ctx)
}

func newest(versions []string) string {
	if len(versions) == 0 {
		return ""
	}
	return versions[len(versions)-1]
}

func (c *clusterActor) checkUpdate(request UpdateRequest) error {
	u := c.Updates
	switch {
	case strings.TrimSpace(request.Reason) == "":
		return temporal.NewApplicationError("an update needs a reason: others will ask for it", InvalidInput)
	case u.Want == nil:
		return temporal.NewApplicationError(fmt.Sprintf("nobody has told yet what version cluster %s is to have", c.Cluster), InvalidInput)
	case u.Want.Lifecycle == registry.Decommissioned:
		return temporal.NewApplicationError(fmt.Sprintf("cluster %s is decommissioned", c.Cluster), InvalidInput)
	case u.Running != nil && u.Running.Version == u.Want.Version && !u.Running.Superseded:
		return temporal.NewApplicationError(fmt.Sprintf("cluster %s is being updated to version %s already", c.Cluster, u.Want.Version), InvalidInput)
	}
	return nil
}

// start begins an update and waits until it has begun. It is no part of this run of the actor: it tells
// how it has ended by a signal.
func (c *clusterActor) start(ctx workflow.Context, in UpdateClusterInput) {
	c.busy++
	defer func() { c.busy-- }()
	u := &c.Updates
	running := &RunningUpdate{Kind: in.Kind, Version: in.Version, Since: workflow.Now(ctx)}
	asked := u.Asked
	u.Running, u.Asked = running, nil
	child := workflow.ExecuteChildWorkflow(workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{
		WorkflowID:        UpdateClusterID(c.Cluster),
		StaticSummary:     fmt.Sprintf("%s of %s to %s", in.Kind, c.Cluster, short(in.Version)),
		ParentClosePolicy: enumspb.PARENT_CLOSE_POLICY_ABANDON,
		TypedSearchAttributes: temporal.NewSearchAttributes(ClusterAttribute.ValueSet(c.Cluster), ChannelAttribute.ValueSet(u.Want.Channel),
			VersionAttribute.ValueSet(in.Version)),
	}), UpdateCluster, in)
	var execution workflow.Execution
	err := child.GetChildWorkflowExecution().Get(ctx, &execution)
	switch {
	case err == nil:
		running.Run = execution.RunID
		c.child, c.conflicts = child, 0
		workflow.GoNamed(ctx, "end of an update", func(ctx workflow.Context) { c.seeEnd(ctx, running, child) })
	case temporal.IsWorkflowExecutionAlreadyStartedError(err):
		u.Running, u.Asked = nil, asked
		c.makeRoom(ctx, in.Version)
	case ctx.Err() != nil:
		return
	default:
		u.Asked = asked
		c.ended(ctx, lost(running, workflow.Now(ctx), "the update could not be started: "+reasonOf(err), false))
	}
	c.tell(ctx)
}

// makeRoom deals with an update that this run of the actor has not started. Mostly it is about to end,
// and only a moment has to pass. One that somebody else has started is told to end.
func (c *clusterActor) makeRoom(ctx workflow.Context, version string) {
	if c.conflicts == 3 {
		if err := workflow.SignalExternalWorkflow(ctx, UpdateClusterID(c.Cluster), "", SupersedeName, version).Get(ctx, nil); err != nil {
			workflow.GetLogger(ctx).Info("an unknown update was not told to end; it may have ended", "error", err)
		}
	}
	c.free = workflow.Now(ctx).Add(min(time.Second<<min(c.conflicts, 16), 5*time.Minute))
	c.conflicts++
}

// seeEnd notices that an update has ended without a word, such as by a termination. It sees only those
// that this run of the actor has started; the channel's actor notices the others.
func (c *clusterActor) seeEnd(ctx workflow.Context, running *RunningUpdate, child workflow.ChildWorkflowFuture) {
	err := child.Get(ctx, nil)
	if ctx.Err() == nil && c.Updates.Running == running {
		how := "it ended without a word"
		if err != nil {
			how = "it was ended from outside: " + err.Error()
		}
		c.ended(ctx, lost(running, workflow.Now(ctx), how, true))
	}
}

// lost is the outcome of an update that has not told one.
func lost(running *RunningUpdate, now time.Time, how string, changed bool) UpdateOutcome {
	return UpdateOutcome{Run: running.Run, UpdateProgress: UpdateProgress{
		Kind: running.Kind, Version: running.Version, Phase: "failed", Started: running.Since, Ended: now, Changed: changed,
		Steps:    []UpdateStep{{Name: "begin", Began: running.Since, Ended: now}},
		Problems: []registry.Problem{{Type: "urn:fairway:" + Stopped, Title: how}},
	}}
}

// supersede has the running update end at its next safe point.
func (c *clusterActor) supersede(ctx workflow.Context) {
	c.busy++
	defer func() { c.busy-- }()
	running := c.Updates.Running
	kind, version := c.Updates.target()
	if kind == Decommission {
		version = string(Decommission)
	}
	running.Superseded = true
	err := workflow.SignalExternalWorkflow(ctx, UpdateClusterID(c.Cluster), running.Run, SupersedeName, version).Get(ctx, nil)
	if unknown := (*temporal.UnknownExternalWorkflowExecutionError)(nil); errors.As(err, &unknown) && c.Updates.Running == running {
		c.ended(ctx, lost(running, workflow.Now(ctx), "it was ended from outside", true))
	} else if err != nil && ctx.Err() == nil {
		workflow.GetLogger(ctx).Warn("an update was not told that another version is wanted", "error", err)
	}
	c.tell(ctx)
}

// ended learns how an update has ended. The same end may be told twice.
func (c *clusterActor) ended(ctx workflow.Context, o UpdateOutcome) {
	u := &c.Updates
	if o.Run != "" && slices.ContainsFunc(u.History, func(s UpdateSummary) bool { return s.Run == o.Run }) {
		return
	}
	if r := u.Running; r != nil && !r.is(o) {
		workflow.GetLogger(ctx).Info("the end of an update that is not under way is left out", "run", o.Run, "version", o.Version)
		return
	}
	u.Running = nil
	if u.Want != nil {
		u.Want.RetryAfter, u.Want.RetryAtMost = cmp.Or(o.RetryAfter, u.Want.RetryAfter), cmp.Or(o.RetryAtMost, u.Want.RetryAtMost)
	}
	problem := ""
	if len(o.Problems) > 0 {
		problem = o.Problems[0].Title
	}
	u.History = append(u.History, UpdateSummary{
		Kind: o.Kind, Version: o.Version, From: o.From, Began: o.Started, Ended: cmp.Or(o.Ended, workflow.Now(ctx)), Phase: o.Phase,
		Problem: problem, Run: o.Run, By: o.By, Reason: o.Reason, Forced: len(o.Forced),
	})
	u.History = u.History[max(0, len(u.History)-pastUpdates):]
	if o.Phase == "done" {
		u.done(o)
	} else {
		u.undone(o, workflow.Now(ctx))
	}
	c.tell(ctx)
}

// is says whether an outcome is that of the running update.
func (r *RunningUpdate) is(o UpdateOutcome) bool {
	if r.Run != "" && o.Run != "" {
		return r.Run == o.Run
	}
	return r.Version == o.Version
}

// done takes over what a successful update has made of the cluster.
func (u *ClusterUpdates) done(o UpdateOutcome) {
	before := cmp.Or(u.Current, oldest(u.Mixed))
	u.Mixed, u.Failed = nil, nil
	if o.Kind == Decommission {
		u.Current, u.Last, u.Pinned = "", cmp.Or(before, u.Last), nil
		if u.Want != nil {
			u.Want.Lifecycle = registry.Decommissioned
		}
		return
	}
	if before != "" && before != o.Version {
		u.Last = before
	}
	u.Current = o.Version
	if u.Want != nil && u.Want.Lifecycle == registry.Requested {
		u.Want.Lifecycle = registry.Ready
	}
}

// undone takes over what an update has left that did not get to its end.
func (u *ClusterUpdates) undone(o UpdateOutcome, now time.Time) {
	before := cmp.Or(u.Current, oldest(u.Mixed))
	switch {
	case o.Restored:
		u.Current, u.Mixed = before, nil
	case !o.Changed || before == "":
	case o.Kind == Decommission: // a part of it is gone
		u.Mixed, u.Current = []string{before}, ""
	case before != o.Version && o.Version != "":
		mixed := append([]string{before}, slices.DeleteFunc(slices.Clone(u.Mixed), func(v string) bool { return v == before || v == o.Version })...)
		u.Mixed, u.Current = append(mixed, o.Version), ""
	}
	if o.Phase == "superseded" {
		return
	}
	failed := FailedUpdate{Kind: o.Kind, Version: o.Version, Problem: "cancelled", Problems: o.Problems, Attempts: 1, At: now}
	if len(o.Problems) > 0 {
		failed.Problem = o.Problems[0].Title
	}
	if f := u.Failed; f != nil && f.Kind == o.Kind && f.Version == o.Version {
		failed.Attempts = f.Attempts + 1
	}
	if o.Phase != "cancelled" && !o.Restored && (o.Workflow == "" || !byPerson(o.Problems)) { // without a word, it was no decision
		failed.Next = now.Add(u.pause(failed.Attempts))
	}
	u.Failed = &failed
}

// byPerson says whether a person has stopped a part of the update, by the problems that it had.
func byPerson(problems []registry.Problem) bool {
	return slices.ContainsFunc(problems, func(p registry.Problem) bool { return p.Type == "urn:fairway:"+Stopped })
}

// pause is the time until a failed update is tried again.
func (u ClusterUpdates) pause(attempts int) time.Duration {
	if u.Want == nil {
		return pauseAfter(attempts, 0, 0)
	}
	return pauseAfter(attempts, u.Want.RetryAfter, u.Want.RetryAtMost)
}

func pauseAfter(attempts int, after, atMost time.Duration) time.Duration {
	pause, most := cmp.Or(after, retryAfter), cmp.Or(atMost, retryAtMost)
	for ; attempts > 1 && pause < most; attempts-- {
		pause *= 2
	}
	return min(pause, most)
}

func oldest(versions []string) string {
	if len(versions) == 0 {
		return ""
	}
	return versions[0]
}

// report tells the channel's actor where the cluster stands, if that is news.
func (c *clusterActor) report(ctx workflow.Context) {
	want := c.Updates.Want
	if want == nil || want.Channel == "" {
		return
	}
	report := ClusterReport{Cluster: c.Cluster, Version: want.Version, Current: c.Updates.Current}
	report.State, report.Problem = c.Updates.Standing()
	report.Held = report.State != rollout.Done && len(c.Holding(workflow.Now(ctx), "")) > 0
	if report == c.reported {
		return
	}
	c.reported = report
	report.At = workflow.Now(ctx)
	c.busy++
	defer func() { c.busy-- }()
	if err := workflow.SignalExternalWorkflow(ctx, ChannelID(want.Channel), "", ReportName, report).Get(ctx, nil); err != nil && ctx.Err() == nil {
		workflow.GetLogger(ctx).Info("the channel's actor was not told", "channel", want.Channel, "error", err)
	}
}

// Due says which update is to begin now, if one is. Otherwise it says when to look again; zero means
// when something has changed.
func (s ClusterState) Due(now time.Time) (in *UpdateClusterInput, again time.Time) {
	u := s.Updates
	kind, version := u.target()
	if kind == "" || u.Running != nil || u.held(kind) || (u.Asked == nil && kind != Decommission && u.Current == version && !u.blames(kind, version)) {
		return nil, time.Time{}
	}
	if holding := s.Holding(now, ""); len(holding) > 0 {
		for _, b := range holding {
			if b.Until.IsZero() {
				return nil, time.Time{}
			}
			if b.Until.After(again) {
				again = b.Until
			}
		}
		return nil, again
	}
	input := UpdateClusterInput{Cluster: s.Cluster, Kind: kind, Version: version, From: cmp.Or(u.Current, oldest(u.Mixed)), Last: u.Last, Attempt: 1}
	// An update has left the cluster between two versions, so its state is Fairway's own to mend.
	input.Fix = len(u.Mixed) > 0
	if f := u.Failed; f != nil && f.Kind == kind && f.Version == version {
		if u.Asked == nil && (f.Next.IsZero() || now.Before(f.Next)) {
			return nil, f.Next
		}
		input.Attempt = f.Attempts + 1
	}
	if u.Failed != nil {
		input.Problems = u.Failed.Problems
	}
	switch {
	case kind == Rollback:
		input.By, input.Reason = u.Pinned.By, u.Pinned.Reason
	case u.Asked != nil:
		input.By, input.Reason, input.Fix = cmp.Or(u.Asked.By, nobody), u.Asked.Reason, input.Fix || u.Asked.Fix
	}
	return &input, time.Time{}
}

// blames says whether the registry still shows problems with another version, although the cluster has
// the one that is wanted: an update to that finds nothing to do, and says that all is well.
func (u ClusterUpdates) blames(kind UpdateKind, version string) bool {
	return u.Failed != nil && (u.Failed.Version != version || u.Failed.Kind != kind)
}

// target is the update that leads to what is wanted; none if nothing is.
func (u ClusterUpdates) target() (kind UpdateKind, version string) {
	switch {
	case u.Want == nil || u.Want.Lifecycle == registry.Decommissioned:
		return "", ""
	case u.Want.Lifecycle == registry.DecommissionRequested:
		return Decommission, u.Want.Version
	case u.Want.Lifecycle == registry.Requested:
		return Provision, u.Want.Version
	case u.Pinned != nil:
		return Rollback, u.Pinned.Version
	}
	return Upgrade, u.Want.Version
}

// held says whether the channel has not let the cluster go on yet, and nobody else has.
func (u ClusterUpdates) held(kind UpdateKind) bool {
	return u.Want.Hold && u.Asked == nil && (kind == Upgrade || kind == Provision)
}

// outdated says whether the running update is to end because something else is wanted.
func (u ClusterUpdates) outdated() bool {
	kind, version := u.target()
	r := u.Running
	if r == nil || r.Superseded || kind == "" {
		return false
	}
	if kind == Decommission || r.Kind == Decommission { // each ends the other at once, whatever the waves say
		return kind != r.Kind
	}
	// An item that blocks makes another version too, which must not begin before it is gone.
	return version != r.Version && !u.held(kind) && (kind != Upgrade || u.Want.Block == "")
}

// gone says whether the last update has decommissioned the cluster.
func (u ClusterUpdates) gone() bool {
	if len(u.History) == 0 {
		return false
	}
	last := u.History[len(u.History)-1]
	return last.Kind == Decommission && last.Phase == "done"
}

// before is the version that a rollback goes to by default: never the one that a person has gone back
// from, however often they ask.
func (u ClusterUpdates) before() string {
	pinned := u.Pinned
	switch {
	case pinned != nil && u.Current != pinned.Version:
		return pinned.Version // it has not got there yet
	case pinned != nil && u.Last == pinned.Not:
		for _, version := range u.had() {
			if version != u.Current && version != pinned.Not {
				return version
			}
		}
		return ""
	case u.Running != nil || len(u.Mixed) > 0:
		return cmp.Or(u.Current, oldest(u.Mixed))
	}
	return u.Last
}

// had are the versions that the cluster has had, the newest first.
func (u ClusterUpdates) had() (versions []string) {
	add := func(version string) {
		if version != "" && !slices.Contains(versions, version) {
			versions = append(versions, version)
		}
	}
	add(u.Current)
	add(oldest(u.Mixed))
	add(u.Last)
	for _, past := range slices.Backward(u.History) {
		if past.Phase == "done" && past.Kind != Decommission {
			add(past.Version)
		}
		add(past.From)
	}
	return versions
}

// Standing is where the cluster stands on the way to the wanted version, and what is wrong. That a
// person went back from it is a failure too: it is no version for others.
func (u ClusterUpdates) Standing() (state rollout.State, problem string) {
	if u.Want == nil {
		return rollout.Waiting, ""
	}
	switch version := u.Want.Version; {
	case u.Want.Lifecycle == registry.Decommissioned:
		return rollout.Done, ""
	case u.Pinned != nil && u.Pinned.Not == version:
		return rollout.Failed, fmt.Sprintf("%s went back from it to %s: %s", u.Pinned.By, short(u.Pinned.Version), u.Pinned.Reason)
	case u.Running != nil && u.Running.Version == version:
		return rollout.Updating, ""
	case u.Current == version:
		return rollout.Done, ""
	case u.Failed != nil && u.Failed.Version == version:
		return rollout.Failed, u.Failed.Problem
	case u.Want.Hold:
		return rollout.Waiting, ""
	}
	return rollout.Allowed, ""
}

// attributes are what a cluster is listed and filtered by, once its version is known.
func (c *clusterActor) attributes() []temporal.SearchAttributeUpdate {
	if c.Updates.Want == nil {
		return nil
	}
	state, _ := c.Updates.Standing()
	version := VersionAttribute.ValueUnset()
	if c.Updates.Current != "" {
		version = VersionAttribute.ValueSet(c.Updates.Current)
	}
	attributes := []temporal.SearchAttributeUpdate{ChannelAttribute.ValueSet(c.Updates.Want.Channel), PhaseAttribute.ValueSet(string(state)), version}
	if environment := c.Updates.Want.Environment; environment != "" {
		attributes = append(attributes, EnvironmentAttribute.ValueSet(environment))
	}
	return attributes
}

// String says for people where the versions of the cluster stand; nothing before any is wanted.
func (u ClusterUpdates) String() string {
	if u.Want == nil {
		return ""
	}
	has := "has version `" + cmp.Or(u.Current, "unknown") + "`"
	if len(u.Mixed) > 0 {
		has = "is between the versions `" + strings.Join(u.Mixed, "`, `") + "`"
	}
	text := fmt.Sprintf("\n\nIt %s. Channel `%s` wants `%s`", has, u.Want.Channel, u.Want.Version)
	if u.Want.Hold {
		text += ", but has not let it go on yet"
	}
	text += "."
	if p := u.Pinned; p != nil {
		text += fmt.Sprintf(" %s went back to `%s`, where it stays until another version is wanted than `%s`: %s.", p.By, p.Version, p.Not, p.Reason)
	}
	if r := u.Running; r != nil {
		text += fmt.Sprintf(" **%s** to `%s` since %s.", r.Kind, r.Version, r.Since.UTC().Format(time.RFC3339))
	}
	if f := u.Failed; f != nil {
		next := "it is not tried again by itself"
		if !f.Next.IsZero() {
			next = "it is tried again at " + f.Next.UTC().Format(time.RFC3339)
		}
		text += fmt.Sprintf(" Version `%s` failed %d times, last at %s, and %s: %s", f.Version, f.Attempts, f.At.UTC().Format(time.RFC3339), next, f.Problem)
	}
	return text
}
