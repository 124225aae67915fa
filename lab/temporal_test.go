package lab

import (
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
)

func TestTemporalOutlivesKill(t *testing.T) {
	t.Parallel()
	l := startTemporalAlone(t)
	address, page := l.Direct("temporal"), l.TemporalUIURL()
	c := dialTemporal(t, l)
	_, err := c.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{ID: "waiting", TaskQueue: "later"}, "pause", time.Second)
	require.NoError(t, err)

	part := l.Part("temporal")
	require.NoError(t, part.Kill())
	require.NoError(t, part.Restart(t.Context()))

	require.Equal(t, address, l.Direct("temporal"), "the address moved")
	require.Equal(t, http.StatusOK, statusOf(t, page+"/api/v1/namespaces/"+TemporalNamespace))

	// A client made anew: the old one waits before it connects again.
	c = dialTemporal(t, l)
	w := worker.New(c, "later", worker.Options{})
	w.RegisterWorkflowWithOptions(pause, workflow.RegisterOptions{Name: "pause"})
	require.NoError(t, w.Start())
	defer w.Stop()
	require.NoError(t, c.GetWorkflow(t.Context(), "waiting", "").Get(t.Context(), nil))
}

func TestWorkflowsAreListedBySearchAttributesAtOnce(t *testing.T) {
	t.Parallel()
	l := startTemporalAlone(t)
	c := dialTemporal(t, l)
	var attributes []temporal.SearchAttributeUpdate
	query := "Blocked = true"
	for _, name := range []string{"Cluster", "Pool", "Channel", "Environment", "Phase", "Version"} {
		attributes = append(attributes, temporal.NewSearchAttributeKeyKeyword(name).ValueSet("some"))
		query += " AND " + name + " = 'some'"
	}
	attributes = append(attributes, temporal.NewSearchAttributeKeyBool("Blocked").ValueSet(true))
	_, err := c.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{
		ID: "listed", TaskQueue: "nobody", TypedSearchAttributes: temporal.NewSearchAttributes(attributes...),
	}, "pause", time.Second)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		found, err := c.CountWorkflow(t.Context(), &workflowservice.CountWorkflowExecutionsRequest{Query: query})
		require.NoError(t, err)
		return found.Count == 1
	}, 10*time.Second, 10*time.Millisecond)
}

func TestTemporalKeepsHistoriesForWeeks(t *testing.T) {
	t.Parallel()
	l := startTemporalAlone(t)
	found, err := dialTemporal(t, l).WorkflowService().DescribeNamespace(t.Context(), &workflowservice.DescribeNamespaceRequest{Namespace: TemporalNamespace})
	require.NoError(t, err)
	require.GreaterOrEqual(t, found.Config.WorkflowExecutionRetentionTtl.AsDuration(), 28*24*time.Hour)
	require.Equal(t, enumspb.NAMESPACE_STATE_REGISTERED, found.NamespaceInfo.State)
}

func pause(ctx workflow.Context, d time.Duration) error { return workflow.Sleep(ctx, d) }

// startTemporalAlone is a lab that has nothing but Temporal.
func startTemporalAlone(t *testing.T) *Lab {
	t.Helper()
	require.NoError(t, Build(t.Context(), t.Output(), "temporal-lab"))
	l, err := newLab(Options{Dir: t.TempDir(), Out: t.Output()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Stop()) })
	require.NoError(t, l.startTemporal(t.Context()))
	return l
}

func dialTemporal(t *testing.T, l *Lab) client.Client {
	t.Helper()
	c, err := client.DialContext(t.Context(), client.Options{HostPort: l.TemporalAddress(), Namespace: TemporalNamespace})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

func statusOf(t *testing.T, url string) int {
	t.Helper()
	response, err := http.Get(url)
	require.NoError(t, err)
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	require.NoError(t, err)
	return response.StatusCode
}
