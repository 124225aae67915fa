package promotion

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"

	"github.com/fairway-project/fairway/promotion"
	"github.com/fairway-project/fairway/tests/product"
	"github.com/fairway-project/fairway/workflows"
)

// during waits until an activity of an edge's promotion runs.
func during(t *testing.T, from, to, activity string) {
	t.Helper()
	require.Eventually(t, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		description, err := temporal.DescribeWorkflowExecution(ctx, workflows.PromotionID(from, to), "")
		if err != nil {
			return false
		}
		for _, pending := range description.PendingActivities {
			if pending.ActivityType.Name == activity && pending.State == enumspb.PENDING_ACTIVITY_STATE_STARTED {
				return true
			}
		}
		return false
	}, patience, 10*time.Millisecond, "%s of %s-to-%s does not run", activity, from, to)
}

// The forge answers late, so that there is time to die in: before the push, and between the push and
// its record.
func TestAPromotionIsMergedOnceWhateverIsKilledBetweenMergePushAndRecord(t *testing.T) {
	t.Parallel()
	c := newClone(t)
	before := c.Head("once-alpha")
	var commits []string
	for _, moment := range []struct {
		name  string
		await func(commit string)
		die   func()
	}{
		{"worker, while it merges", func(string) { during(t, "once-dev", "once-alpha", "MergePromotion") }, func() { kill(t) }},
		{"worker, once it has pushed", func(string) {
			head := c.Head("once-alpha")
			require.Eventually(t, func() bool { return c.Head("once-alpha") != head }, patience, 5*time.Millisecond)
		}, func() { kill(t) }},
		{"Temporal and worker, while it merges", func(string) { during(t, "once-dev", "once-alpha", "MergePromotion") }, func() {
			require.NoError(t, theLab.Part("temporal").Kill())
			require.NoError(t, worker.Kill())
			require.NoError(t, theLab.Part("temporal").Restart(t.Context()))
			require.NoError(t, worker.Restart(t.Context()))
		}},
	} {
		commit := c.Push("once-dev", "Before the death of "+moment.name, map[string]string{"cluster/manifests/once/" + fmt.Sprint(len(commits)) + ".yaml": configMap("once", "x")})
		moment.await(commit)
		moment.die()
		c.arrives("once-alpha", commit)
		commits = append(commits, commit)
	}
	for _, commit := range commits {
		merge := c.mergedOnce("once-alpha", "once-dev", commit)
		require.Equal(t, merge, recorded(t, "once-dev", "once-alpha", commit, promotion.Merged).Merge)
	}
	line := strings.Fields(c.Git("log", "--first-parent", "--format=%H", before+"..origin/once-alpha"))
	require.Len(t, line, len(commits), "nothing else was pushed")
}

// Others push to the target all the time. Nothing of theirs is lost, and the candidate is merged once.
func TestAPromotionIsMergedAgainstTheHeadOfThatMoment(t *testing.T) {
	t.Parallel()
	c, other := newClone(t), newClone(t)
	commit := c.Push("race-dev", "Race", map[string]string{"cluster/manifests/race/dev.yaml": configMap("race", "dev")})
	var pushed []string
	for i := 0; !c.has("race-alpha", commit); i++ {
		require.Less(t, i, 500, "the promotion never wins")
		other.Fetch()
		other.Git("checkout", "--quiet", "--detach", "origin/race-alpha")
		other.Git("commit", "--quiet", "--allow-empty", "-m", fmt.Sprint("Other ", i))
		if _, err := product.Git(t.Context(), other.Dir, "push", "--quiet", "origin", "HEAD:refs/heads/race-alpha"); err == nil {
			pushed = append(pushed, other.Git("rev-parse", "HEAD"))
		}
		if i > 20 {
			time.Sleep(100 * time.Millisecond) // it has to get in between at some time
		}
	}
	c.mergedOnce("race-alpha", "race-dev", commit)
	require.NotEmpty(t, pushed)
	for _, each := range pushed {
		require.True(t, c.has("race-alpha", each))
	}
}
