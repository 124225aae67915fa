package testclusters

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	querypb "go.temporal.io/api/query/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/activities/activitytest"
	"github.com/fairway-project/fairway/activities/aws"
	"github.com/fairway-project/fairway/e2e"
	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/workflows"
)

var (
	now     = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	account = e2e.Account{Account: "aws:123456789012", Region: "eu-central-1"}
)

func settings() e2e.Settings {
	return e2e.Settings{
		Accounts: []e2e.Account{account}, Within: 6 * time.Hour, KeepAtMost: 24 * time.Hour,
		Cluster: e2e.Shape{
			APIServerURL: "https://{cluster}.example.org", Environment: "test", Owner: "team/platform", ConfigItems: map[string]string{"a": "b"},
			NodePools: []registry.NodePool{{Name: "worker", Profile: "worker-default", InstanceTypes: []string{"m5.large"}, MinSize: 1, MaxSize: 2}},
		},
		Prices: e2e.Prices{Currency: "USD", Hour: map[string]float64{"m5.large": 2}, ControlPlane: 1},
	}
}

func requireError(t *testing.T, err error, kind string, final bool, text string) {
	t.Helper()
	var told *temporal.ApplicationError
	require.ErrorAs(t, err, &told)
	require.Equal(t, kind, told.Type())
	require.Equal(t, final, told.NonRetryable())
	require.Contains(t, told.Message(), text)
}

func TestALeaseIsRefusedBeforeAnythingIsWritten(t *testing.T) {
	for rule, test := range map[string]struct {
		change func(*Clusters, *workflows.LeaseCluster)
		want   string
	}{
		"an id of no test": {change: func(_ *Clusters, in *workflows.LeaseCluster) { in.Request.Cluster = "dev-1" }, want: "the id of a test's cluster is e2e- with"},
		"an id for a path": {change: func(_ *Clusters, in *workflows.LeaseCluster) { in.Request.Cluster = "e2e-../../x" }, want: "the id of a test's cluster"},
		"an id that is too long": {change: func(_ *Clusters, in *workflows.LeaseCluster) {
			in.Request.Cluster += "-0123456789012345678901234567890123456789"
		}, want: "the id of a test's cluster"},
		"nobody":                {change: func(_ *Clusters, in *workflows.LeaseCluster) { in.Workflow = "" }, want: "no workflow is given"},
		"an account of others":  {change: func(_ *Clusters, in *workflows.LeaseCluster) { in.Account.Account = "aws:1" }, want: "is none of e2e.accounts"},
		"a region of others":    {change: func(_ *Clusters, in *workflows.LeaseCluster) { in.Account.Region = "us-east-1" }, want: "is none of e2e.accounts"},
		"a shape without a URL": {change: func(c *Clusters, _ *workflows.LeaseCluster) { c.Settings.Cluster.APIServerURL = "" }, want: "api_server_url: is missing"},
		"a name of the registry": {change: func(c *Clusters, _ *workflows.LeaseCluster) {
			c.Registered = func(context.Context, string) (bool, error) { return true, nil }
		}, want: "the registry has a cluster of that name"},
	} {
		t.Run(rule, func(t *testing.T) {
			c := &Clusters{Settings: settings(), Registered: func(context.Context, string) (bool, error) { return false, nil }}
			in := workflows.LeaseCluster{Request: e2e.Request{Cluster: "e2e-7-abc", Channel: "dev"}, Account: account, Workflow: "e2e/7/abc"}
			test.change(c, &in)
			_, err := c.LeaseCluster(t.Context(), in) // there is no bucket: it would panic
			requireError(t, err, workflows.InvalidInput, true, test.want)
		})
	}
}

func TestTheEntryOfALeaseIsThatOfTheConfiguredShape(t *testing.T) {
	c := &Clusters{Settings: settings()}
	entry := c.entry(workflows.LeaseCluster{Request: e2e.Request{Cluster: "e2e-7-abc", Channel: "dev"}, Account: account})
	require.Equal(t, registry.Cluster{
		ID: "e2e-7-abc", LocalID: "e2e-7-abc", APIServerURL: "https://e2e-7-abc.example.org", Channel: "dev", ConfigItems: map[string]string{"a": "b"},
		Environment: "test", InfrastructureAccount: "aws:123456789012", Region: "eu-central-1", LifecycleStatus: registry.Requested,
		NodePools: []registry.NodePool{{
			Name: "worker", Profile: "worker-default", InstanceTypes: []string{"m5.large"}, MinSize: 1, MaxSize: 2, DiscountStrategy: "none",
		}},
		Owner: "team/platform", Provider: "zalando-aws",
	}, entry)
	require.Empty(t, c.Settings.Cluster.NodePools[0].DiscountStrategy, "what is configured stays")
}

func TestWhatABucketHoldsIsALeaseOrRefused(t *testing.T) {
	for what, test := range map[string]struct{ data, want string }{
		"no JSON":                {`{"cluster":`, "is no lease"},
		"nothing":                {``, "is no lease"},
		"another cluster's":      {`{"cluster":{"id":"e2e-8","infrastructure_account":"aws:123456789012","region":"eu-central-1"},"workflow":"w"}`, "of another cluster or of nobody"},
		"another account's":      {`{"cluster":{"id":"e2e-7","infrastructure_account":"aws:1","region":"eu-central-1"},"workflow":"w"}`, "of another cluster or of nobody"},
		"nobody's":               {`{"cluster":{"id":"e2e-7","infrastructure_account":"aws:123456789012","region":"eu-central-1"}}`, "of another cluster or of nobody"},
		"a lease":                {`{"cluster":{"id":"e2e-7","infrastructure_account":"aws:123456789012","region":"eu-central-1"},"workflow":"w"}`, ""},
		"another region's lease": {`{"cluster":{"id":"e2e-7","infrastructure_account":"aws:123456789012","region":"us-east-1"},"workflow":"w"}`, ""},
	} {
		t.Run(what, func(t *testing.T) {
			lease, err := parse(account, "e2e-7", []byte(test.data))
			if test.want != "" {
				requireError(t, err, workflows.InvalidInput, true, test.want)
				return
			}
			require.NoError(t, err)
			require.Equal(t, what == "a lease", lease != nil)
		})
	}
}

func TestTheCostIsThatOfInstancesAndTheControlPlaneUntilNow(t *testing.T) {
	prices := settings().Prices
	cost := estimate(prices, now.Add(-4*time.Hour), []aws.Use{
		{Type: "m5.large", From: now.Add(-3 * time.Hour)},
		{Type: "m5.large", From: now.Add(-3 * time.Hour), To: now.Add(-time.Hour)},
		{Type: "m5.large", From: now.Add(time.Hour)},                         // clocks differ
		{Type: "x9.huge", From: now.Add(-time.Hour), To: now.Add(time.Hour)}, // they do
		{Type: "x9.huge", From: now.Add(-time.Hour)},
	}, now)
	require.Equal(t, e2e.Cost{Currency: "USD", Amount: 4 + 2*5, Hours: 7, Unpriced: []string{"x9.huge"}}, cost)
}

func TestTagsHaveNoCharactersThatAWSRefuses(t *testing.T) {
	for owner, want := range map[string]string{"anna": "anna", "dépendabot[bot]": "dépendabot_bot_", "a<b>\n": "a_b__", "team/x@y.org": "team/x@y.org"} {
		require.Equal(t, want, tagValue(owner))
	}
	long := make([]rune, 300)
	for i := range long {
		long[i] = 'ü'
	}
	require.Len(t, []rune(tagValue(string(long))), 256)
}

// queue remembers what the actor is told, and answers with err.
type queue struct {
	client.Client
	signal  string
	entry   workflows.TestQueueEntry
	options client.StartWorkflowOptions
	state   workflows.TestQueueState
	closed  bool
	err     error
}

func (q *queue) SignalWithStartWorkflow(_ context.Context, id, signal string, arg any, options client.StartWorkflowOptions, workflow any, args ...any) (client.WorkflowRun, error) {
	if id != workflows.TestQueueID || workflow != "TestQueue" {
		return nil, errors.New("not the queue")
	}
	q.signal, q.entry, q.options, q.state = signal, arg.(workflows.TestQueueEntry), options, args[0].(workflows.TestQueueState)
	return nil, q.err
}

func (q *queue) SignalWorkflow(_ context.Context, id, run, signal string, arg any) error {
	if id != workflows.TestQueueID || run != "" {
		return errors.New("not the queue")
	}
	q.signal, q.entry = signal, arg.(workflows.TestQueueEntry)
	return q.err
}

func (q *queue) QueryWorkflowWithOptions(_ context.Context, in *client.QueryWorkflowWithOptionsRequest) (*client.QueryWorkflowWithOptionsResponse, error) {
	if in.WorkflowID != workflows.TestQueueID || in.RunID != "" || in.QueryType != workflows.StateQuery || in.QueryRejectCondition != enumspb.QUERY_REJECT_CONDITION_NOT_OPEN {
		return nil, errors.New("not the queue")
	}
	if q.closed {
		return &client.QueryWorkflowWithOptionsResponse{QueryRejected: &querypb.QueryRejected{}}, q.err
	}
	return &client.QueryWorkflowWithOptionsResponse{QueryResult: q}, q.err
}

func (q *queue) HasValue() bool { return true }
func (q *queue) Get(into any) error {
	*into.(*workflows.TestQueueState) = workflows.TestQueueState{Entries: []workflows.TestQueueEntry{q.entry}}
	return nil
}

func TestWhoHasAPlaceIsAskedOfTheQueue(t *testing.T) {
	told := &queue{entry: workflows.TestQueueEntry{Request: e2e.Request{ID: "7/abc"}, Since: now}}
	ask := Entries(told)
	entries, err := ask(t.Context())
	require.NoError(t, err)
	require.Equal(t, []workflows.TestQueueEntry{told.entry}, entries)
	told.closed = true
	entries, err = ask(t.Context())
	require.NoError(t, err)
	require.Empty(t, entries, "a queue that somebody has ended gives no places")
	told.err = serviceerror.NewNotFound("no such workflow")
	entries, err = ask(t.Context())
	require.NoError(t, err, "where nothing was tested nobody has a place")
	require.Empty(t, entries)
	told.err = errors.New("down")
	_, err = ask(t.Context())
	requireError(t, err, workflows.Unreachable, false, "asking the queue of tests who has a place: down")
}

func TestAQueueIsToldTheAccountsAndStartedIfNeedBe(t *testing.T) {
	told := &queue{}
	configured := []e2e.Account{account, {Account: "aws:2", Region: "r", Limit: 5}}
	q := &Queue{Temporal: told, TaskQueue: "fairway", Accounts: configured}
	entry := workflows.TestQueueEntry{Request: e2e.Request{ID: "7/abc"}, Since: now}
	require.NoError(t, q.EnterTestQueue(t.Context(), entry))
	require.Equal(t, workflows.EnterName, told.signal)
	require.Equal(t, "7/abc", told.entry.Request.ID)
	require.Equal(t, []int{2, 5}, []int{told.entry.Accounts[0].Limit, told.entry.Accounts[1].Limit})
	require.Equal(t, told.entry.Accounts, told.state.Accounts)
	require.Zero(t, configured[0].Limit)
	require.Equal(t, "fairway", told.options.TaskQueue)
	require.Equal(t, enumspb.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING, told.options.WorkflowIDConflictPolicy)

	require.NoError(t, q.LeaveTestQueue(t.Context(), entry))
	require.Equal(t, workflows.LeaveName, told.signal)
	told.err = serviceerror.NewNotFound("no such workflow")
	require.NoError(t, q.LeaveTestQueue(t.Context(), entry), "who is not there has left")
	told.err = errors.New("down")
	requireError(t, q.LeaveTestQueue(t.Context(), entry), workflows.Unreachable, false, "test 7/abc: leaving the queue of tests: Temporal says: down")
	requireError(t, q.EnterTestQueue(t.Context(), entry), workflows.Unreachable, false, "test 7/abc: entering the queue")
}

func TestAnAccountThatIsNotConfiguredAnyMoreHasNoLeaseThatIsGone(t *testing.T) {
	c := &Clusters{Settings: settings(), Leases: &Leases{}}
	in := workflows.ChangeLease{Cluster: "e2e-1-abc", Account: e2e.Account{Account: "aws:999999999999", Region: account.Region}, Lifecycle: string(registry.DecommissionRequested)}
	for _, change := range []any{c.ChangeLease, c.EndLease} {
		requireError(t, activitytest.Worker{}.Run(change, in, nil), workflows.InvalidInput, true, "is none of e2e.accounts; an account stays there until all of its test clusters are gone")
	}
}
