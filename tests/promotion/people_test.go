package promotion

import (
	"strings"
	"testing"
	"time"

	"code.gitea.io/sdk/gitea"
	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/promotion"
	"github.com/fairway-project/fairway/tests/product"
	"github.com/fairway-project/fairway/workflows"
)

func protect(t *testing.T, branch string, contexts ...string) {
	t.Helper()
	_, _, err := as(t, theLab.Forge().OperatorToken).CreateBranchProtection(owner(), repo(), gitea.CreateBranchProtectionOption{
		RuleName: branch, RequiredApprovals: 1, BlockOnRejectedReviews: true, DismissStaleApprovals: true, BlockAdminMergeOverride: true,
		EnableStatusCheck: len(contexts) > 0, StatusCheckContexts: contexts,
	})
	require.NoError(t, err)
}

// A protected branch asks for a status and an approval of exactly what is merged.
func TestAProtectedBranchTakesWhatWasTestedAndApprovedAsItIs(t *testing.T) {
	t.Parallel()
	c := newClone(t)
	protect(t, "review-stable", "fairway/e2e")
	commit := c.Push("review-alpha", "Change something", map[string]string{"cluster/manifests/review/config.yaml": configMap("review", "one")})
	request := opened(t, "review-stable", commit)
	says(t, request.Index, "approv")
	review(t, request.Index, commit, gitea.ReviewStateApproved)
	says(t, request.Index, "status") // which the forge misses
	require.False(t, c.has("review-stable", commit))

	// Somebody pushes to the branch of the pull request: what was approved is not what would be merged.
	c.Fetch()
	c.Git("checkout", "--quiet", "--detach", "origin/"+request.Head.Ref)
	sneaked := c.Commit(request.Head.Ref, "Sneak something in", map[string]string{"cluster/manifests/review/more.yaml": configMap("sneaked", "in")})
	status(t, sneaked, "fairway/e2e", gitea.StatusSuccess)
	says(t, request.Index, sneaked[:7])
	require.False(t, c.has("review-stable", sneaked))

	c.Git("push", "--quiet", "--force", "origin", commit+":refs/heads/"+request.Head.Ref)
	status(t, commit, "fairway/e2e", gitea.StatusSuccess)
	says(t, request.Index, "approv") // the approval is stale by now
	require.Eventually(t, func() bool {
		request, _, err := as(t, theLab.Forge().OperatorToken).GetPullRequest(owner(), repo(), request.Index)
		return err == nil && request.Head.Sha == commit
	}, patience, 200*time.Millisecond)
	review(t, request.Index, commit, gitea.ReviewStateApproved)
	c.arrives("review-stable", commit)
	c.mergedOnce("review-stable", "review-alpha", commit)
	require.False(t, c.has("review-stable", sneaked))
}

// What a person has closed is not proposed again; what lands later is.
func TestARefusedCandidateIsNotProposedAgain(t *testing.T) {
	t.Parallel()
	c := newClone(t)
	commit := c.Push("refuse-alpha", "Nobody wants this", map[string]string{"cluster/manifests/refuse/config.yaml": configMap("refuse", "one")})
	request := opened(t, "refuse-stable", commit)
	closed := gitea.StateClosed
	_, _, err := as(t, theLab.Forge().ReviewerToken).EditPullRequest(owner(), repo(), request.Index, gitea.EditPullRequestOption{State: &closed})
	require.NoError(t, err)
	recorded(t, "refuse-alpha", "refuse-stable", commit, promotion.Refused)
	require.Contains(t, fairway(t, "promote", "refuse-alpha", "refuse-stable", "--dry-run"), "refused")

	next := c.Push("refuse-alpha", "Better this", map[string]string{"cluster/manifests/refuse/config.yaml": configMap("refuse", "two")})
	second := opened(t, "refuse-stable", next)
	require.NotEqual(t, request.Index, second.Index)
	require.Len(t, pullRequests(t, "refuse-stable", gitea.StateAll), 2, "the refused one was not opened again")

	// This edge leaves the merge to people, who do it on the forge.
	review(t, second.Index, next, gitea.ReviewStateApproved)
	says(t, second.Index, "approved")
	require.False(t, c.has("refuse-stable", next))
	merged, _, err := as(t, theLab.Forge().ReviewerToken).MergePullRequest(owner(), repo(), second.Index, gitea.MergePullRequestOption{Style: gitea.MergeStyleMerge})
	require.NoError(t, err)
	require.True(t, merged)
	record := recorded(t, "refuse-alpha", "refuse-stable", next, promotion.Merged)
	require.Equal(t, "reviewer", record.MergedBy)
	require.Equal(t, c.Head("refuse-stable"), record.Merge)
}

// While nobody has approved, a newer candidate takes the place of one that waits.
func TestANewerCandidateTakesThePlaceOfOneThatNobodyHasApproved(t *testing.T) {
	t.Parallel()
	c := newClone(t)
	const file = "cluster/manifests/newer/config.yaml"
	first := c.Push("newer-alpha", "First", map[string]string{file: configMap("newer", "first")})
	request := opened(t, "newer-stable", first)
	second := c.Push("newer-alpha", "Second", map[string]string{file: configMap("newer", "second")})
	recorded(t, "newer-alpha", "newer-stable", first, promotion.Superseded)
	next := opened(t, "newer-stable", second)
	open := pullRequests(t, "newer-stable", gitea.StateOpen)
	require.Len(t, open, 1)
	require.Equal(t, next.Index, open[0].Index)
	require.NotEqual(t, request.Index, next.Index)

	review(t, next.Index, second, gitea.ReviewStateApproved)
	third := c.Push("newer-alpha", "Third", map[string]string{file: configMap("newer", "third")})
	c.arrives("newer-stable", second)
	require.False(t, c.has("newer-stable", third), "what is approved is not replaced")
}

// Manifests go by themselves along this edge; where nodes roll, a person has to look.
func TestAClassOfChangeNeedsAPerson(t *testing.T) {
	t.Parallel()
	c := newClone(t)
	harmless := c.Push("class-dev", "A manifest", map[string]string{"cluster/manifests/class/config.yaml": configMap("class", "x")})
	c.arrives("class-alpha", harmless)
	c.mergedOnce("class-alpha", "class-dev", harmless)
	const userData = "cluster/node-pools/worker-default/userdata.yaml"
	nodes := c.Push("class-dev", "Other nodes", map[string]string{userData: c.File("class-dev", userData) + "\n# other\n"})
	request := opened(t, "class-alpha", nodes)
	require.Contains(t, request.Body, "nodes")
	says(t, request.Index, "approv")
	require.False(t, c.has("class-alpha", nodes))
	review(t, request.Index, nodes, gitea.ReviewStateApproved)
	says(t, request.Index, "approved")
	merged, _, err := as(t, theLab.Forge().ReviewerToken).MergePullRequest(owner(), repo(), request.Index, gitea.MergePullRequestOption{Style: gitea.MergeStyleMerge})
	require.NoError(t, err)
	require.True(t, merged)
	require.Equal(t, promotion.NodesRoll, recorded(t, "class-dev", "class-alpha", nodes, promotion.Merged).Class)
}

// Both channels change the same lines.
func TestAConflictWaitsForPeopleAndRecoversByItself(t *testing.T) {
	t.Parallel()
	c := newClone(t)
	const file = "cluster/manifests/conflict/config.yaml"
	base := c.Push("conflict-dev", "Begin", map[string]string{file: configMap("conflict", "begin")})
	c.arrives("conflict-alpha", base)
	hotfix := c.Push("conflict-alpha", "Mend it on alpha", map[string]string{file: configMap("conflict", "alpha")})
	commit := c.Push("conflict-dev", "Mend it on dev", map[string]string{file: configMap("conflict", "dev")})

	request := opened(t, "conflict-alpha", commit)
	require.Contains(t, request.Body, file)
	require.Contains(t, request.Body, commit[:7])
	require.Contains(t, request.Body, hotfix[:7])
	record := recorded(t, "conflict-dev", "conflict-alpha", commit, promotion.Conflicted)
	require.Equal(t, int(request.Index), record.PullRequest)
	require.Contains(t, fairway(t, "promotion", "list", "--channel", "conflict-alpha"), "conflict")
	require.Equal(t, configMap("conflict", "alpha"), c.File("conflict-alpha", file)+"\n", "nothing was guessed")

	// Somebody makes both sides alike; the next look finds it.
	mended := c.Push("conflict-dev", "Take what alpha has", map[string]string{file: configMap("conflict", "alpha")})
	c.arrives("conflict-alpha", mended)
	require.Eventually(t, func() bool { return len(pullRequests(t, "conflict-alpha", gitea.StateOpen)) == 0 }, patience, 300*time.Millisecond, "the pull request is closed")

	// Another one is resolved by a person on the branch of the pull request.
	c.Push("conflict-alpha", "Again on alpha", map[string]string{file: configMap("conflict", "alpha again")})
	commit = c.Push("conflict-dev", "Again on dev", map[string]string{file: configMap("conflict", "dev again")})
	request = opened(t, "conflict-alpha", commit)
	c.Fetch()
	c.Git("checkout", "--quiet", "--detach", "origin/"+request.Head.Ref)
	_, err := product.Git(t.Context(), c.Dir, "merge", "--quiet", "origin/conflict-alpha")
	require.Error(t, err, "it is a conflict")
	c.Commit(request.Head.Ref, "Resolve", map[string]string{file: configMap("conflict", "both")})
	require.Eventually(t, func() bool {
		merged, _, err := as(t, theLab.Forge().ReviewerToken).MergePullRequest(owner(), repo(), request.Index, gitea.MergePullRequestOption{Style: gitea.MergeStyleMerge})
		return err == nil && merged
	}, patience, time.Second)
	c.arrives("conflict-alpha", commit)
	require.Equal(t, configMap("conflict", "both"), c.File("conflict-alpha", file)+"\n")
	next := c.Push("conflict-dev", "Go on", map[string]string{"cluster/manifests/conflict/next.yaml": configMap("next", "x")})
	c.arrives("conflict-alpha", next)
}

// A fix goes into the last channel first, and comes along the others later by another commit.
func TestAHotfixIsMissedInEarlierChannelsUntilTheyHaveItsContent(t *testing.T) {
	t.Parallel()
	c := newClone(t)
	const file = "cluster/manifests/hot/config.yaml"
	c.Fetch()
	c.Git("checkout", "--quiet", "--detach", "origin/hot-stable")
	fix := c.Commit("hotfix-of-the-day", "Mend what is broken", map[string]string{file: configMap("hot", "mended")})
	client := as(t, theLab.Forge().AuthorToken)
	request, _, err := client.CreatePullRequest(owner(), repo(), gitea.CreatePullRequestOption{Head: "hotfix-of-the-day", Base: "hot-stable", Title: "Mend what is broken"})
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		merged, _, err := as(t, theLab.Forge().ReviewerToken).MergePullRequest(owner(), repo(), request.Index, gitea.MergePullRequestOption{Style: gitea.MergeStyleMerge})
		return err == nil && merged
	}, patience, time.Second)
	knows(t, "hot-stable", c.Head("hot-stable"))
	require.Eventually(t, func() bool { return kindOf(t, "hot-stable", c.Head("hot-stable")) == promotion.Hotfix }, patience, 300*time.Millisecond)
	described := fairway(t, "channel", "describe", "hot-stable")
	require.Contains(t, described, "Mend what is broken")
	require.Contains(t, described, "hot-alpha")

	// The same content in another commit, with something else in it.
	commit := c.Push("hot-dev", "Mend it, and something else", map[string]string{file: configMap("hot", "mended"), "cluster/manifests/hot/else.yaml": configMap("else", "x")})
	c.arrives("hot-alpha", commit)
	lacking := func() string {
		var out struct {
			Lacking []workflows.Lacking `json:"lacking"`
		}
		answers(t, &out, "channel", "describe", "hot-stable")
		var titles []string
		for _, each := range out.Lacking {
			titles = append(titles, each.Title)
		}
		return strings.Join(titles, ", ")
	}
	require.Eventually(t, func() bool { return !strings.Contains(lacking(), "Mend what is broken") }, patience, time.Second, "equal content counts as present")
	merge := c.mergedOnce("hot-alpha", "hot-dev", commit)
	second := opened(t, "hot-stable", merge)
	review(t, second.Index, merge, gitea.ReviewStateApproved)
	c.arrives("hot-stable", merge)
	require.True(t, c.has("hot-stable", fix))
	promoted := c.mergedOnce("hot-stable", "hot-alpha", merge)
	require.Eventually(t, func() bool { return kindOf(t, "hot-stable", promoted) == promotion.Promoted }, patience, 300*time.Millisecond)

	// Somebody merges by hand what is neither promotion nor hotfix.
	source := c.Push("hot-dev", "Something on dev", map[string]string{"cluster/manifests/hot/dev.yaml": configMap("dev", "x")})
	c.Git("checkout", "--quiet", "--detach", "origin/hot-stable")
	c.Git("merge", "--quiet", "--no-ff", "--no-commit", source)
	mixed := c.Commit("hot-stable", "Bring it along with something else", map[string]string{"cluster/manifests/hot/mixed.yaml": configMap("mixed", "x")})
	require.Eventually(t, func() bool { return kindOf(t, "hot-stable", mixed) == promotion.Mixed }, patience, 300*time.Millisecond)
	require.Contains(t, fairway(t, "channel", "describe", "hot-stable"), "Bring it along with something else")
}

// kindOf is how a landing got onto a channel; empty if the channel has not heard of it.
func kindOf(t *testing.T, name, commit string) promotion.Kind {
	t.Helper()
	for _, landing := range channel(t, name).Promotions.Soak.Landings {
		if landing.Commit == commit {
			return landing.Kind
		}
	}
	return ""
}

// A bad change is taken back from a channel. It goes nowhere from there, and nothing follows it until
// a person says so.
func TestARevertStopsTheBadRangeInBothDirections(t *testing.T) {
	t.Parallel()
	c := newClone(t)
	const file = "cluster/manifests/revert/config.yaml"
	good := c.Push("revert-dev", "Good", map[string]string{file: configMap("revert", "good")})
	c.arrives("revert-alpha", good)
	sound := c.mergedOnce("revert-alpha", "revert-dev", good)
	first := opened(t, "revert-stable", sound)
	review(t, first.Index, sound, gitea.ReviewStateApproved)
	merged, _, err := as(t, theLab.Forge().ReviewerToken).MergePullRequest(owner(), repo(), first.Index, gitea.MergePullRequestOption{Style: gitea.MergeStyleMerge})
	require.NoError(t, err)
	require.True(t, merged)
	bad := c.Push("revert-dev", "Bad", map[string]string{file: configMap("revert", "bad")})
	c.arrives("revert-alpha", bad)
	worse := c.mergedOnce("revert-alpha", "revert-dev", bad)
	proposed := opened(t, "revert-stable", worse)

	require.Contains(t, fairway(t, "channel", "revert", "revert-alpha", "--to", sound, "--reason", "it breaks", "--dry-run"), "1")
	require.Equal(t, worse, c.Head("revert-alpha"), "a dry run changes nothing")
	fairway(t, "channel", "revert", "revert-alpha", "--to", sound, "--reason", "it breaks")
	require.Eventually(t, func() bool { return c.File("revert-alpha", file)+"\n" == configMap("revert", "good") }, patience, 300*time.Millisecond)
	require.Contains(t, c.Git("log", "-1", "--format=%B", "origin/revert-alpha"), "it breaks")
	recorded(t, "revert-alpha", "revert-stable", worse, promotion.Withdrawn)
	require.Eventually(t, func() bool {
		request, _, err := as(t, theLab.Forge().OperatorToken).GetPullRequest(owner(), repo(), proposed.Index)
		return err == nil && request.State == gitea.StateClosed && !request.HasMerged
	}, patience, 300*time.Millisecond)
	require.Contains(t, fairway(t, "channel", "describe", "revert-alpha"), "it breaks")

	fix := c.Push("revert-dev", "Take it back here too", map[string]string{file: configMap("revert", "good"), "cluster/manifests/revert/more.yaml": configMap("more", "x")})
	knows(t, "revert-dev", fix)
	require.Contains(t, fairway(t, "promote", "revert-dev", "revert-alpha", "--dry-run"), "revert")
	require.False(t, c.has("revert-alpha", fix))
	fairway(t, "channel", "revert", "revert-alpha", "--lift", "--reason", "dev has taken it back too")
	c.arrives("revert-alpha", fix)
	require.Equal(t, configMap("revert", "good"), c.File("revert-alpha", file)+"\n")
	opened(t, "revert-stable", c.mergedOnce("revert-alpha", "revert-dev", fix))
}
