package pullrequests

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"code.gitea.io/sdk/gitea"
	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/e2e"
)

// jobFile is the Job that the suite of this name runs, as the head has it.
const jobFile = "e2e/job.yaml"

const userData = "cluster/node-pools/worker-default/userdata.yaml"

// otherNodes is a change that has nodes replaced.
func otherNodes(t *testing.T, r *request, base string) map[string]string {
	t.Helper()
	return map[string]string{userData: r.File(base, userData) + "\n# of " + r.branch + "\n"}
}

// The second user labels a pull request: it gets a cluster on its base, which is upgraded to its head and
// tested; the result is on the forge, what the gate of the next promotion asks for too, and nothing is left.
func TestAPullRequestIsTestedOnAClusterOfItsOwn(t *testing.T) {
	t.Parallel()
	r := open(t, wholeChannel, "nodes-change", "Change the nodes", nil)
	files := otherNodes(t, r, wholeChannel)
	files[jobFile] = "apiVersion: batch/v1\nkind: Job\nmetadata: {name: check}\nspec:\n  template:\n    spec:\n      restartPolicy: Never\n      containers: [{name: main, image: 'example.org/{version}'}]\n"
	r.more("Change them really", files)
	r.label()
	awaitStatus(t, r.head, gitea.StatusPending, "")
	r.says(r.head[:7])
	reaches(t, r.id(), e2e.Upgrading)
	reaches(t, r.id(), e2e.Testing)
	awaitStatus(t, r.head, gitea.StatusSuccess, "")

	last := ends(t, r.id())
	require.Equal(t, e2e.Passed, last.Verdict, last.Problem)
	require.GreaterOrEqual(t, last.Upgrade.Nodes, 2, "its nodes were replaced")
	require.Positive(t, last.Upgrade.Evictions)
	require.Empty(t, last.Upgrade.Violations)
	require.Greater(t, last.Load.Good, int64(100))
	require.Zero(t, last.Load.Bad, "%v", last.Load.Errors)
	require.Positive(t, last.Cost.Amount)
	suites := map[string]e2e.SuiteResult{}
	for _, suite := range last.Suites {
		suites[suite.Name] = suite
	}
	require.Len(t, suites, 5)
	require.True(t, suites["job"].Passed, "%+v", suites["job"])
	require.GreaterOrEqual(t, suites["conformance"].Ran, 60, "cases of upstream's conformance suite")
	text := r.says("passed", "stateful-set", "smoke", "evict", "s3://")
	t.Log(text)
	gone(t, r.cluster())
	kept := strings.Join(objects(t, "e2e/", r.head), "\n")
	require.Contains(t, kept, "/report.json")
	require.Contains(t, kept, "/probe/junit.xml")
	require.Regexp(t, `/conformance/.*log`, kept)
	require.Contains(t, fairway(t, "e2e", "logs", r.id()), "/conformance/")
	require.Contains(t, fairway(t, "e2e", "logs", r.id(), "--suite", "conformance"), " Passed | 0 Failed")
	fairway(t, "e2e", "logs", r.id(), "--download", filepath.Join(dir, "results"))
	require.FileExists(t, filepath.Join(dir, "results", "probe", "junit.xml"))
	require.FileExists(t, filepath.Join(dir, "results", "report.json"))
	require.Contains(t, fairway(t, "e2e", "describe", r.id()), "passed")

	// It is merged; the gate of the promotion that comes next finds the status.
	_, _, err := as(t, theLab.Forge().ReviewerToken).MergePullRequest(owner(), repo(), r.number, gitea.MergePullRequestOption{Style: gitea.MergeStyleMerge})
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		r.Fetch()
		return strings.Contains(r.Git("branch", "--remotes", "--contains", r.head), "origin/"+afterWhole)
	}, patience, 500*time.Millisecond, "it is promoted")
}
