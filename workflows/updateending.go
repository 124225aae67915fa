package workflows

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/fairway-project/fairway/registry"
)

// final is what the registry says of a cluster that an update went well with.
func (u *updating) final() (registry.Status, registry.LifecycleStatus) {
	switch last := u.in.From; {
	case u.in.Kind == Decommission:
		return registry.Status{LastVersion: u.in.From}, registry.Decommissioned
	case u.in.Kind == Provision:
		return registry.Status{CurrentVersion: u.in.Version, LastVersion: u.in.Last}, registry.Ready
	default:
		if last == u.in.Version || last == "" {
			last = u.in.Last
		}
		return registry.Status{CurrentVersion: u.in.Version, LastVersion: last}, ""
	}
}

func (u *updating) writeStatus(ctx workflow.Context, status registry.Status, lifecycle registry.LifecycleStatus) error {
	return workflow.ExecuteActivity(changing(ctx, "write the status"), "WriteStatus", WriteStatus{Cluster: u.in.Cluster, Status: status, Lifecycle: lifecycle}).Get(ctx, nil)
}

// notify tells the owner, where a hook is configured. A hook that does not answer holds nothing up.
func (u *updating) notify(ctx workflow.Context, kind, text string) {
	if u.plan.Version != "" && !u.plan.Notify { // before there is a plan nobody knows, and Notify finds out
		return
	}
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		StartToCloseTimeout: 10 * time.Second, ScheduleToCloseTimeout: 30 * time.Second, RetryPolicy: patient, Summary: "tell people: " + kind,
	})
	if err := workflow.ExecuteActivity(ctx, "Notify", Notification{
		ID: u.id + "/" + u.run + "/" + kind, Kind: kind, Cluster: u.in.Cluster, Owner: u.plan.Cluster.Owner, Text: text, At: workflow.Now(ctx),
	}).Get(ctx, nil); err != nil {
		workflow.GetLogger(ctx).Warn("nobody was told", "kind", kind, "error", err)
	}
}

func (u *updating) doneText(now time.Time) string {
	took := now.Sub(u.progress.Started).Round(time.Second)
	if u.in.Kind == Decommission {
		return fmt.Sprintf("Cluster %s is decommissioned; that took %s.", u.in.Cluster, took)
	}
	return fmt.Sprintf("Cluster %s has version %s; the update took %s.", u.in.Cluster, short(u.in.Version), took)
}

func (u *updating) cancelText() string {
	text := u.name() + " was cancelled"
	switch {
	case !u.progress.Changed:
		return text + " before anything was changed."
	case u.in.Kind == Decommission:
		return text + "; a part of it may be deleted."
	}
	return text + "; the cluster is between two versions."
}

func (u *updating) failText(err error) string {
	text := fmt.Sprintf("%s failed: %s.", u.name(), strings.TrimSuffix(reasonOf(err), "."))
	switch {
	case u.progress.Restored:
		text += " It is back at version " + short(u.in.From) + "."
	case u.progress.Changed:
		text += " It stopped where it was."
	default:
		text += " Nothing was changed."
	}
	if u.progress.Restored || byPerson(u.progress.Problems) {
		return text + " It is not tried again by itself."
	}
	return text + fmt.Sprintf(" It is tried again in %s.", pauseAfter(u.in.Attempt, u.progress.RetryAfter, u.progress.RetryAtMost))
}

// name is how a sentence about the update begins.
func (u *updating) name() string {
	if u.in.Kind == Decommission {
		return "The decommission of cluster " + u.in.Cluster
	}
	return fmt.Sprintf("The %s of cluster %s to version %s", u.in.Kind, u.in.Cluster, short(u.in.Version))
}

// addProblem records what went wrong, in the form of the registry.
func (u *updating) addProblem(err error) {
	u.progress.Problems = append(u.progress.Problems, registry.Problem{
		Type: "urn:fairway:" + kindOf(err), Title: clip(reasonOf(err), 1000), Instance: u.id + "/" + u.run,
	})
}

// kindOf is the type of an application error.
func kindOf(err error) string {
	var application *temporal.ApplicationError
	if errors.As(err, &application) && application.Type() != "" {
		return application.Type()
	}
	return "Failed"
}
