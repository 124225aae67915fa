package workflows

import (
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/fairway-project/fairway/e2e"
)

// Sweep removes what tests have left that nobody owns any more: what is made of other things before those. More
// than it may remove by itself is left for a person to look at, since then something else may be wrong. One removal
// that fails keeps no other from being tried; the next sweep tries it again.
func Sweep(ctx workflow.Context, in SweepInput) (SweepResult, error) {
	s := &sweeping{SweepResult: SweepResult{Found: []e2e.Orphan{}}}
	if err := workflow.SetQueryHandler(ctx, ProgressQuery, func() (SweepResult, error) { return s.SweepResult, nil }); err != nil {
		return s.SweepResult, err
	}
	if err := workflow.ExecuteActivity(sweeps(ctx, "what does nobody own"), "FindOrphans", FindOrphans{}).Get(ctx, &s.Found); err != nil {
		return s.SweepResult, err
	}
	s.tell(ctx)
	if in.DryRun || len(s.Found) == 0 {
		return s.SweepResult, nil
	}
	if len(s.Found) > in.AtMost {
		s.ask(ctx, in.AtMost)
		return s.SweepResult, nil
	}
	s.remove(ctx)
	after, stop := workflow.NewDisconnectedContext(ctx)
	defer stop()
	s.report(after)
	return s.SweepResult, ctx.Err()
}

type sweeping struct{ SweepResult }

// ask tells people of more than a sweep may remove by itself.
func (s *sweeping) ask(ctx workflow.Context, atMost int) {
	s.Asks = fmt.Sprintf("%d things are owned by nobody, and a sweep removes at most %d by itself, so it has removed nothing. Look at them with `fairway sweep --dry-run`; if they are to go, run `fairway sweep --at-most %d`.",
		len(s.Found), atMost, len(s.Found))
	s.tell(ctx)
	notifyPeople(ctx, Notification{ID: SweepAsks + "/" + fingerprint(s.Found), Kind: SweepAsks, Text: s.Asks + " " + someOf(s.Found), At: workflow.Now(ctx)})
}

// remove takes one kind after the other, and some things of a kind at a time.
func (s *sweeping) remove(ctx workflow.Context) {
	due := s.Found[:min(len(s.Found), removedAtMost)]
	for _, kind := range e2e.Kinds {
		free, wait := workflow.NewSemaphore(ctx, removedAtOnce), workflow.NewWaitGroup(ctx)
		for _, orphan := range due {
			if orphan.Kind != kind {
				continue
			}
			wait.Add(1)
			workflow.Go(ctx, func(ctx workflow.Context) {
				defer wait.Done()
				if free.Acquire(ctx, 1) != nil {
					return
				}
				defer free.Release(1)
				if ctx.Err() == nil {
					s.removeOne(ctx, orphan)
				}
			})
		}
		wait.Wait(ctx)
		if ctx.Err() != nil {
			return
		}
	}
	for _, orphan := range due {
		if !slices.Contains(e2e.Kinds, orphan.Kind) {
			s.Failed = append(s.Failed, SweptOrphan{Orphan: orphan, At: workflow.Now(ctx), Problem: fmt.Sprintf("nobody knows how to remove a %q", orphan.Kind)})
		}
	}
}

// A sweep removes at most removedAtMost things, so that its history stays small, and leaves the rest to the next one.
const (
	removedAtMost = 200
	removedAtOnce = 5
)

func (s *sweeping) removeOne(ctx workflow.Context, orphan e2e.Orphan) {
	err := workflow.ExecuteActivity(sweeps(ctx, "remove "+orphan.Kind+" "+clip(firstLine(orphan.ID), 100)), "RemoveOrphan", orphan).Get(ctx, nil)
	swept := SweptOrphan{Orphan: orphan, At: workflow.Now(ctx)}
	if err != nil {
		swept.Problem = sentenceOf(err)
		s.Failed = append(s.Failed, swept)
		s.tell(ctx)
		return
	}
	s.Removed = append(s.Removed, swept)
	s.tell(ctx)
	if orphan.Kind != "lease" {
		return
	}
	// Whoever held it cannot give back its place any more.
	entry := TestQueueEntry{Request: e2e.Request{Cluster: orphan.Lease}}
	if err := workflow.ExecuteActivity(bounded(ctx, "give back the place of "+orphan.Lease, atLength), "LeaveTestQueue", entry).Get(ctx, nil); err != nil {
		workflow.GetLogger(ctx).Error("the place of a test that is gone was not given back", "cluster", orphan.Lease, "error", err)
	}
}

// report tells people what was removed.
func (s *sweeping) report(ctx workflow.Context) {
	if len(s.Removed) == 0 && len(s.Failed) == 0 {
		return
	}
	removed, failed := orphansOf(s.Removed), orphansOf(s.Failed)
	text := fmt.Sprintf("A sweep has removed %d things that nobody owned. %s", len(removed), someOf(removed))
	if len(failed) > 0 {
		text += fmt.Sprintf(" %d could not be removed; the next sweep tries again. %s The first one: %s", len(failed), someOf(failed), s.Failed[0].Problem)
	}
	info := workflow.GetInfo(ctx).WorkflowExecution
	notifyPeople(ctx, Notification{ID: info.ID + "/" + info.RunID + "/" + Swept, Kind: Swept, Text: strings.TrimSpace(text), At: workflow.Now(ctx)})
}

func orphansOf(swept []SweptOrphan) []e2e.Orphan {
	out := make([]e2e.Orphan, len(swept))
	for i, s := range swept {
		out[i] = s.Orphan
	}
	return out
}

// someOf lists some orphans for people.
func someOf(orphans []e2e.Orphan) string {
	var names []string
	for _, o := range orphans[:min(len(orphans), namedOrphans)] {
		names = append(names, fmt.Sprintf("%s %s (%s)", o.Kind, clip(firstLine(o.ID), 100), firstLine(o.Lease)))
	}
	if len(names) == 0 {
		return ""
	}
	more := ""
	if rest := len(orphans) - len(names); rest > 0 {
		more = fmt.Sprintf(", and %d more", rest)
	}
	return strings.Join(names, ", ") + more + "."
}

const namedOrphans = 20

// fingerprint is the same for the same things, so that people are asked of them once.
func fingerprint(orphans []e2e.Orphan) string {
	var text strings.Builder
	for _, o := range orphans {
		text.WriteString(fmt.Sprintf("%q %q %q %q\n", o.Account.Account, o.Account.Region, o.Kind, o.ID))
	}
	hash := fnv.New64a()
	_, _ = hash.Write([]byte(text.String())) // it never fails
	return fmt.Sprintf("%016x", hash.Sum64())
}

func (s *sweeping) tell(ctx workflow.Context) {
	details := fmt.Sprintf("It has found %d things that nobody owns, and removed %d.", len(s.Found), len(s.Removed))
	if len(s.Failed) > 0 {
		details += fmt.Sprintf(" %d could not be removed, the last one %s %s: %s", len(s.Failed), s.Failed[len(s.Failed)-1].Kind, firstLine(s.Failed[len(s.Failed)-1].ID), s.Failed[len(s.Failed)-1].Problem)
	}
	if s.Asks != "" {
		details = s.Asks
	}
	workflow.SetCurrentDetails(ctx, details)
}

// sweeps is for what heartbeats and may wait for stacks to go. The next sweep tries again what fails.
func sweeps(ctx workflow.Context, summary string) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		ScheduleToCloseTimeout: time.Hour,
		HeartbeatTimeout:       heartbeatTimeout,
		WaitForCancellation:    true,
		RetryPolicy: &temporal.RetryPolicy{
			InitialInterval: 5 * time.Second, BackoffCoefficient: 2, MaximumInterval: time.Minute, MaximumAttempts: 5, NonRetryableErrorTypes: append(slices.Clone(beyondRetry), AccessDenied),
		},
		Summary: summary,
	})
}
