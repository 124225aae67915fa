package pullrequests

import (
	"testing"

	"code.gitea.io/sdk/gitea"
	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/e2e"
	"github.com/fairway-project/fairway/tests/product"
)

func configMap(name, value string) string {
	return "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: " + name + "\n  namespace: kube-system\ndata:\n  value: \"" + value + "\"\n"
}

// harmless is a change that rolls nothing.
func harmless(name string) map[string]string {
	return map[string]string{"cluster/manifests/" + name + "/config.yaml": configMap(name, "x")}
}

// The cluster of a test that fails goes, but for the time for which a person wants it kept.
func TestASuiteThatFailsIsReportedAndTheClusterGoes(t *testing.T) {
	t.Parallel()
	r := open(t, quietChannel, "failing", "Break the shop", harmless("failing"))
	told(t, "fail", r.cluster())
	held := told(t, "wait", r.cluster())
	r.label()
	reaches(t, r.id(), e2e.Testing)
	fairway(t, "e2e", "keep", r.id(), "--for", "1h")
	held()
	awaitStatus(t, r.head, gitea.StatusFailure, "")
	reaches(t, r.id(), e2e.Kept)
	require.NotEmpty(t, product.Inventory(t, theLab, r.cluster()), "it is kept")
	fairway(t, "e2e", "destroy", r.id(), "--reason", "seen enough", "--yes")
	last := ends(t, r.id())
	require.Equal(t, e2e.Failed, last.Verdict)
	r.says("failed", "the shop opens", "```\nthe page is @everyone blank </details>\n```") // fenced, where nobody is called
	gone(t, r.cluster())
}

func TestAHeadWhoseManifestsAreBrokenFailsTheUpgrade(t *testing.T) {
	t.Parallel()
	r := open(t, quietChannel, "broken", "Break a manifest", map[string]string{
		"cluster/manifests/broken/broken.yaml": "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: broken\n  namespace: kube-system\nspec:\n  replicas: several\n",
	})
	r.label()
	awaitStatus(t, r.head, gitea.StatusFailure, "")
	last := ends(t, r.id())
	require.Equal(t, e2e.Failed, last.Verdict)
	require.Contains(t, last.Problem, "broken")
	gone(t, r.cluster())
}

func TestAPushInTheMiddleEndsTheTestOfTheOldHead(t *testing.T) {
	t.Parallel()
	r := open(t, quietChannel, "pushed", "First", harmless("pushed"))
	held := told(t, "wait", r.cluster())
	r.label()
	reaches(t, r.id(), e2e.Testing)
	old, cluster := r.id(), r.cluster()
	r.more("Second", harmless("pushed-again"))
	require.Equal(t, e2e.Cancelled, ends(t, old).Verdict)
	held()
	gone(t, cluster)
	awaitStatus(t, r.head, gitea.StatusSuccess, "")
	require.Equal(t, e2e.Passed, ends(t, r.id()).Verdict)
	r.says(r.head[:7], "passed")
	gone(t, r.cluster())
}

func TestATestEndsWhenItsLabelIsTakenAway(t *testing.T) {
	t.Parallel()
	r := open(t, quietChannel, "unlabelled", "Change something", harmless("unlabelled"))
	r.label()
	reaches(t, r.id(), e2e.Creating)
	r.unlabel()
	require.Equal(t, e2e.Cancelled, ends(t, r.id()).Verdict)
	gone(t, r.cluster())
}

// Nobody has labelled this one: a person has it tested by hand.
func TestAStackThatCannotBeDeletedAtFirstIsTriedAgain(t *testing.T) {
	t.Parallel()
	r := open(t, quietChannel, "sticky", "Change something", harmless("sticky"))
	require.NoError(t, theLab.FailDeletions(t.Context(), r.cluster(), 1))
	fairway(t, "e2e", "run", "--pr", itoa(r.number), "--yes")
	awaitStatus(t, r.head, gitea.StatusSuccess, "")
	require.Equal(t, e2e.Passed, ends(t, r.id()).Verdict)
	gone(t, r.cluster())
}

func TestAnAPIServerThatDoesNotAnswerKeepsNoClusterUp(t *testing.T) {
	t.Parallel()
	r := open(t, quietChannel, "silent", "Change something", harmless("silent"))
	told(t, "wait", r.cluster())
	r.label()
	reaches(t, r.id(), e2e.Testing)
	require.NoError(t, theLab.PauseCluster(r.cluster()))
	r.close()
	require.Equal(t, e2e.Cancelled, ends(t, r.id()).Verdict)
	gone(t, r.cluster())
}

func TestACommitIsTestedByHandWithoutAPullRequest(t *testing.T) {
	t.Parallel()
	c := product.NewClone(t, theLab)
	c.Git("checkout", "--quiet", "--detach", "origin/"+quietChannel)
	c.Commit("by-hand", "Change something", harmless("by-hand"))
	fairway(t, "e2e", "run", "--ref", quietChannel+"..by-hand", "--wait", "--yes") // which fails if the test does
}
