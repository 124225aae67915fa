package pullrequests

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/fairway-project/fairway/activities/failures"
	"github.com/fairway-project/fairway/channels"
	"github.com/fairway-project/fairway/e2e"
	"github.com/fairway-project/fairway/forge"
	"github.com/fairway-project/fairway/prose"
	"github.com/fairway-project/fairway/workflows"
)

// ResolveTest implements workflows.PullRequests. Whoever runs the command may write here: it is a member's wish, also for
// the pull request of a stranger.
func (a *Activities) ResolveTest(ctx context.Context, in workflows.ResolveTest) (request e2e.Request, err error) {
	ctx, end := failures.Begin(ctx, "resolving what is to be tested")
	defer end(&err)
	if err := a.needRepository(); err != nil {
		return request, err
	}
	switch refs := in.Base != "" || in.Head != ""; {
	case in.Number < 0, in.Number == 0 && !refs, in.Number > 0 && refs:
		return request, failures.Invalid("a test is of a pull request or of two refs: give --pr N or --ref BASE..HEAD")
	case in.Keep < 0 || a.Settings.KeepAtMost > 0 && in.Keep > a.Settings.KeepAtMost:
		return request, failures.Invalid("clusters are kept for %s at most; see e2e.keep_at_most", a.Settings.KeepAtMost)
	}
	heads, err := a.Repository.Heads(ctx)
	if err != nil {
		return request, err
	}
	if in.Number > 0 {
		request, err = a.ofPullRequest(ctx, in.Number, heads)
	} else {
		request, err = a.ofRefs(ctx, in.Base, in.Head, heads)
	}
	if err != nil {
		return e2e.Request{}, err
	}
	if in.Commit != "" && in.Commit != request.Head {
		return e2e.Request{}, failures.Invalid("the head is commit %s by now and not %s, which you were shown; look at it, and run the test again", prose.Short(request.Head), prose.Short(in.Commit))
	}
	request.By, request.Keep, request.ByHand = prose.Line(in.By, prose.Title), in.Keep, true
	return request, nil
}

func (a *Activities) ofPullRequest(ctx context.Context, number int, heads map[string]string) (e2e.Request, error) {
	if err := a.needForge(); err != nil {
		return e2e.Request{}, err
	}
	pr, err := a.Forge.PullRequest(ctx, number)
	switch {
	case errors.Is(err, forge.ErrNotFound):
		return e2e.Request{}, failures.Invalid("there is no pull request %d", number)
	case err != nil:
		return e2e.Request{}, err
	case pr.State != forge.Open:
		return e2e.Request{}, failures.Invalid("pull request %d is %s; test its commits by --ref BASE..HEAD", number, pr.State)
	}
	if err := a.channel(pr.Base, heads); err != nil {
		return e2e.Request{}, err
	}
	if _, err := a.commit(ctx, pr.HeadCommit); err != nil {
		return e2e.Request{}, err
	}
	return e2e.RequestOf(a.Settings, a.Pipeline, convert(pr), heads[pr.Base]), nil
}

func (a *Activities) ofRefs(ctx context.Context, base, head string, heads map[string]string) (e2e.Request, error) {
	if err := a.channel(base, heads); err != nil {
		return e2e.Request{}, err
	}
	commit, err := a.commit(ctx, head)
	if err != nil {
		return e2e.Request{}, err
	}
	if commit == heads[base] {
		return e2e.Request{}, failures.Invalid("%s is where %s is already, so there is nothing to upgrade", prose.Line(head, prose.Title), base)
	}
	title, err := a.Repository.Title(ctx, commit)
	if err != nil {
		return e2e.Request{}, err
	}
	return e2e.Request{
		ID: e2e.TestOf(0, commit), Cluster: e2e.ClusterOf(0, commit), Title: prose.Line(title, prose.Title), Channel: base, Base: heads[base], Head: commit,
	}, nil
}

// channel wants a branch to be one of the pipeline.
func (a *Activities) channel(branch string, heads map[string]string) error {
	switch {
	case !slices.Contains(a.Pipeline.Channels, branch):
		return failures.Invalid("%q is no channel, and only what is to get into one is tested; there are: %s", prose.Line(branch, prose.Title), strings.Join(a.Pipeline.Channels, ", "))
	case heads[branch] == "":
		return failures.Invalid("the configuration repository has no branch %s", branch)
	}
	return nil
}

// commit is what a ref stands for. The mirror has it then.
func (a *Activities) commit(ctx context.Context, ref string) (string, error) {
	commit, err := a.Repository.Resolve(ctx, ref)
	if errors.Is(err, channels.ErrUnknown) || errors.Is(err, channels.ErrGone) {
		return "", failures.Invalid("%q cannot be tested: %s", prose.Line(ref, prose.Title), failures.Text(err))
	}
	return commit, err
}
