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

// pastUpdates is how many updates a cluster's actor remembers.
const pastUpdates = 20

// registryBlock is id and scope of the block that the config item cluster_update_block is.
const registryBlock = "registry"

// hear takes wanted versions, and the ends of updates.
func (c *clusterActor) hear(ctx workflow.Context, selector workflow.Selector) {
	hear(ctx, selector, WantName, func(want Want) { c.want(ctx, want) })
	hear(ctx, selector, UpdatedName, func(outcome UpdateOutcome) { c.ended(ctx, outcome) })
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
	report.Broken = c.Updates.broken()
	report.At = workflow.Now(ctx)
	c.busy++
	defer func() { c.busy-- }()
	if err := workflow.SignalExternalWorkflow(ctx, ChannelID(want.Channel), "", ReportName, report).Get(ctx, nil); err != nil && ctx.Err() == nil {
		workflow.GetLogger(ctx).Info("the channel's actor was not told", "channel", want.Channel, "error", err)
	}
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
