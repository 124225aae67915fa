package pullrequests

import (
	"context"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"code.gitea.io/sdk/gitea"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/fairway-project/fairway/e2e"
	"github.com/fairway-project/fairway/tests/product"
	"github.com/fairway-project/fairway/workflows"
)

// as is somebody's way to the forge.
func as(t *testing.T, token string) *gitea.Client { return product.As(t, theLab, token) }

func owner() string { return theLab.Forge().Owner }
func repo() string  { return theLab.Forge().Repository }

// request is a pull request of the author's.
type request struct {
	product.Clone
	number int64
	branch string
	head   string
}

// open opens a pull request with a commit that gives files a content.
func open(t *testing.T, base, branch, title string, files map[string]string) *request {
	t.Helper()
	r := &request{Clone: product.NewClone(t, theLab), branch: branch}
	r.Git("checkout", "--quiet", "--detach", "origin/"+base)
	r.head = r.Commit(branch, title, files)
	made, _, err := as(t, theLab.Forge().AuthorToken).CreatePullRequest(owner(), repo(), gitea.CreatePullRequestOption{Base: base, Head: branch, Title: title})
	require.NoError(t, err)
	r.number = made.Index
	return r
}

// more pushes another commit to the branch of the pull request.
func (r *request) more(title string, files map[string]string) {
	r.Helper()
	r.head = r.Push(r.branch, title, files)
}

// label has the second user label it: with more labels than the one that has it tested, if they are given.
func (r *request) label(more ...string) {
	r.Helper()
	client := as(r.T, theLab.Forge().ReviewerToken)
	ids := []int64{r.labelID(client, label)}
	for _, name := range more {
		ids = append(ids, r.labelID(client, name))
	}
	_, _, err := client.AddIssueLabels(owner(), repo(), r.number, gitea.IssueLabelsOption{Labels: ids})
	require.NoError(r, err)
}

// close has the second user close it.
func (r *request) close() {
	r.Helper()
	closed := gitea.StateClosed
	_, _, err := as(r.T, theLab.Forge().ReviewerToken).EditPullRequest(owner(), repo(), r.number, gitea.EditPullRequestOption{State: &closed})
	require.NoError(r, err)
}

func (r *request) unlabel() {
	r.Helper()
	client := as(r.T, theLab.Forge().ReviewerToken)
	_, err := client.DeleteIssueLabel(owner(), repo(), r.number, r.labelID(client, label))
	require.NoError(r, err)
}

// labelID finds a label, or makes it.
func (r *request) labelID(client *gitea.Client, name string) int64 {
	r.Helper()
	find := func() int64 {
		labels, _, err := client.ListRepoLabels(owner(), repo(), gitea.ListLabelsOptions{})
		require.NoError(r, err)
		for _, each := range labels {
			if each.Name == name {
				return each.ID
			}
		}
		return 0
	}
	if id := find(); id != 0 {
		return id
	}
	_, _, err := as(r.T, theLab.Forge().OperatorToken).CreateLabel(owner(), repo(), gitea.CreateLabelOption{Name: name, Color: "#0e8a16"})
	require.NoError(r, err)
	return find()
}

// status is that of the tests on a commit: state and description; empty without one.
func status(t *testing.T, commit string) (gitea.StatusState, string) {
	t.Helper()
	list, _, err := as(t, theLab.Forge().OperatorToken).ListStatuses(owner(), repo(), commit, gitea.ListStatusesOption{})
	require.NoError(t, err)
	var newest *gitea.Status
	for _, each := range list {
		if each.Context == statusContext && (newest == nil || each.ID > newest.ID) {
			newest = each
		}
	}
	if newest == nil {
		return "", ""
	}
	return newest.State, newest.Description
}

// awaitStatus waits for a state of the head's status, in a description with a text.
func awaitStatus(t *testing.T, commit string, state gitea.StatusState, text string) {
	t.Helper()
	var last gitea.StatusState
	var said string
	defer func() {
		if t.Failed() {
			t.Logf("the status of %.8s is %q: %s", commit, last, said)
		}
	}()
	require.Eventually(t, func() bool {
		last, said = status(t, commit)
		return last == state && strings.Contains(said, text)
	}, patience, 200*time.Millisecond, "the status of %.8s does not become %s with %q", commit, state, text)
}

// says waits until the one comment of Fairway's contains texts, and returns it.
func (r *request) says(texts ...string) string {
	r.Helper()
	var last []string
	require.Eventually(r, func() bool {
		last = product.Comments(r.T, theLab, r.number)
		if len(last) != 1 {
			return false
		}
		for _, text := range texts {
			if !strings.Contains(last[0], text) {
				return false
			}
		}
		return true
	}, patience, 300*time.Millisecond, "the comment does not say %q", texts)
	return last[0]
}

// id is that of the test of a head, cluster that of its cluster.
func (r *request) id() string { return itoa(r.number) + "/" + r.head }

func (r *request) cluster() string { return e2e.Prefix + itoa(r.number) + "-" + r.head[:7] }

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

// report is where a test stands; false if there is none that answers.
func report(ctx context.Context, id string) (r e2e.Report, found bool) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	answer, err := temporal.QueryWorkflow(ctx, workflows.TestID(id), "", workflows.ProgressQuery)
	return r, err == nil && answer.Get(&r) == nil
}

// reaches waits until a test is in a phase.
func reaches(t *testing.T, id, phase string) (last e2e.Report) {
	t.Helper()
	require.Eventually(t, func() bool {
		var found bool
		last, found = report(t.Context(), id)
		return found && last.Phase == phase
	}, patience, 100*time.Millisecond, "test %s does not reach phase %s", id, phase)
	return last
}

// ends waits until the workflow of a test has ended, and returns its report.
func ends(t *testing.T, id string) (last e2e.Report) {
	t.Helper()
	require.Eventually(t, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		description, err := temporal.DescribeWorkflowExecution(ctx, workflows.TestID(id), "")
		return err == nil && description.WorkflowExecutionInfo.Status != enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING
	}, patience, 200*time.Millisecond, "test %s does not end", id)
	require.NoError(t, temporal.GetWorkflow(t.Context(), workflows.TestID(id), "").Get(t.Context(), &last))
	return last
}

// gone proves that nothing of a cluster is left: on AWS, no process, no access, no lease, no file.
func gone(t *testing.T, cluster string) {
	t.Helper()
	require.Empty(t, product.Inventory(t, theLab, cluster), "nothing is left on AWS")
	require.Eventually(t, func() bool { return product.NoParts(theLab, cluster) }, patience, 200*time.Millisecond, "its control plane is gone")
	require.Eventually(t, func() bool {
		access, err := clientcmd.LoadFromFile(env["KUBECONFIG"])
		return err == nil && access.Contexts[cluster] == nil
	}, patience, 200*time.Millisecond, "its access is gone")
	require.Empty(t, objects(t, "leases/", cluster), "its lease is gone")
	suites, err := filepath.Glob(filepath.Join(dir, ".cache", "*", cluster+"*"))
	require.NoError(t, err)
	require.Empty(t, suites, "no folder with a kubeconfig is left")
}

// objects are the keys that begin with something and have something in them, of all buckets.
func objects(t *testing.T, prefix, part string) (keys []string) {
	t.Helper()
	client := s3.NewFromConfig(theLab.AWSConfig(), func(o *s3.Options) { o.UsePathStyle = true })
	buckets, err := client.ListBuckets(t.Context(), nil)
	require.NoError(t, err)
	for _, bucket := range buckets.Buckets {
		out, err := client.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: bucket.Name, Prefix: &prefix})
		require.NoError(t, err)
		for _, object := range out.Contents {
			if strings.Contains(*object.Key, part) {
				keys = append(keys, *object.Key)
			}
		}
	}
	return keys
}

// fairway runs the command line, which has to succeed.
func fairway(t *testing.T, args ...string) string {
	t.Helper()
	return product.Fairway(t, patience, env, args...)
}
