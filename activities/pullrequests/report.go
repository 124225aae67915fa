package pullrequests

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"strings"

	"go.temporal.io/sdk/activity"

	"github.com/fairway-project/fairway/activities/failures"
	"github.com/fairway-project/fairway/e2e"
	"github.com/fairway-project/fairway/forge"
)

// ReportTest implements workflows.PullRequests. The comment is about the present head of the pull request only: what is
// said of an older one late is only in the status of that one.
func (a *Activities) ReportTest(ctx context.Context, report e2e.Report) (err error) {
	ctx, end := failures.Begin(ctx, "reporting test "+report.Request.ID)
	defer end(&err)
	if a.Forge == nil { // tests of refs go without one
		return nil
	}
	request := report.Request
	var pr forge.PullRequest
	if request.Number > 0 {
		if pr, err = a.Forge.PullRequest(ctx, request.Number); errors.Is(err, forge.ErrNotFound) {
			activity.GetLogger(ctx).Warn("the pull request of a test is gone", "test", request.ID)
			pr, err = forge.PullRequest{}, nil
		}
		if err != nil {
			return err
		}
	}
	state, err := a.state(ctx, report, pr)
	if err != nil {
		return err
	}
	err = a.Forge.SetStatus(ctx, request.Head, forge.Status{Context: a.Settings.StatusOf(request.Channel), State: state, Description: e2e.Summary(report), URL: a.link(report)})
	if errors.Is(err, forge.ErrNotFound) || errors.Is(err, forge.ErrInvalid) && request.Head != pr.HeadCommit { // nobody has that commit any more
		activity.GetLogger(ctx).Warn("the forge does not know the head of a test", "test", request.ID, "error", err)
		err = nil
	}
	if err != nil || pr.Number == 0 || pr.HeadCommit != request.Head {
		return err
	}
	err = a.Forge.Comment(ctx, pr.Number, commentMarker, e2e.Comment(report))
	if errors.Is(err, forge.ErrNotFound) {
		return nil
	}
	return err
}

// state is that of the commit status. A test that was cancelled says nothing about its head, and another look may begin
// it again: it is pending. It would be begun again at once, too, where a person has ended it and all else is as
// before; there that is final, until the label is set anew.
func (a *Activities) state(ctx context.Context, report e2e.Report, pr forge.PullRequest) (forge.StatusState, error) {
	switch report.Verdict {
	case e2e.Passed:
		return forge.Success, nil
	case e2e.Failed:
		return forge.Failure, nil
	case e2e.Cancelled:
	default:
		return forge.Pending, nil
	}
	labelled := slices.ContainsFunc(pr.Labels, func(label string) bool { return strings.EqualFold(label, a.Settings.Label) })
	if pr.State != forge.Open || !labelled || pr.HeadCommit != report.Request.Head || pr.Base != report.Request.Channel {
		return forge.Pending, nil
	}
	event, found, err := a.Forge.Labelled(ctx, pr.Number, a.Settings.Label)
	if err != nil {
		return "", err
	}
	if found && len(report.Phases) > 0 && event.At.After(report.Phases[0].Began) { // removed, and set again meanwhile
		return forge.Pending, nil
	}
	return forge.Failure, nil
}

// link leads to the workflow, or to the pull request where no UI is configured.
func (a *Activities) link(report e2e.Report) string {
	if a.Settings.UI == "" || report.Workflow == "" || report.Run == "" {
		return report.Request.URL
	}
	return strings.TrimRight(a.Settings.UI, "/") + workflowPage(report.Workflow) + url.PathEscape(report.Run) + "/history"
}

// workflowPage is the part of an address of the UI that names a workflow.
func workflowPage(id string) string { return "/workflows/" + url.PathEscape(id) + "/" }
