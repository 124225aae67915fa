package testload

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"

	"github.com/fairway-project/fairway/activities/activitytest"
	"github.com/fairway-project/fairway/e2e"
	"github.com/fairway-project/fairway/workflows"
)

func serve(t *testing.T, handle http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewServer(handle)
	t.Cleanup(server.Close)
	return server.URL
}

// cancelledAfter is no deadline: the SDK would take that for a timeout of the activity.
func cancelledAfter(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	time.AfterFunc(d, cancel)
	return ctx
}

// loadFor holds a load for a while and cancels it then.
func loadFor(t *testing.T, d time.Duration, load e2e.Load) (result e2e.LoadResult) {
	t.Helper()
	ctx := cancelledAfter(t, d)
	require.NoError(t, activitytest.Worker{Context: ctx}.Run((&Activities{Load: load}).HoldLoad, workflows.OnTestCluster{Cluster: "e2e-1-abc"}, &result))
	return result
}

func TestALoadCountsEveryAnswerAtItsRateAndEndsWithAResultWhenCancelled(t *testing.T) {
	var asked atomic.Int64
	address := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/e2e-1-abc/" {
			t.Errorf("asked for %s", r.URL.Path)
		}
		if asked.Add(1)%10 == 0 {
			http.Error(w, "no endpoints\nsecond line", http.StatusServiceUnavailable)
		}
	})
	began := time.Now()
	r := loadFor(t, 2*time.Second, e2e.Load{URLs: []string{address + "/{cluster}/"}, Rate: 100, Timeout: time.Second, ErrorRatio: 0.00001})
	require.Equal(t, asked.Load(), r.Good+r.Bad)
	require.Less(t, float64(r.Good+r.Bad), 100*(time.Since(began).Seconds()+1), "no more than the rate, and less on a busy machine")
	require.Greater(t, r.Good+r.Bad, int64(10))
	require.Equal(t, asked.Load()/10, r.Bad)
	require.Equal(t, []string{"503 Service Unavailable: no endpoints"}, r.Errors)
	require.Contains(t, r.Problem, "requests failed")
}

func TestALoadFollowsNoRedirectAndTakesItForAnAnswer(t *testing.T) {
	var followed atomic.Int64
	elsewhere := serve(t, func(http.ResponseWriter, *http.Request) { followed.Add(1) })
	address := serve(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere, http.StatusFound) })
	r := loadFor(t, 300*time.Millisecond, e2e.Load{URLs: []string{address}, Rate: 50, Timeout: time.Second})
	require.Zero(t, r.Bad)
	require.NotZero(t, r.Good)
	require.Zero(t, followed.Load())
}

func TestAnAnswerThatNeverEndsIsABadOne(t *testing.T) {
	address := serve(t, func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write([]byte(strings.Repeat("x", 1000))); err != nil {
				return
			}
		}
	})
	r := loadFor(t, 400*time.Millisecond, e2e.Load{URLs: []string{address}, Rate: 10, Timeout: 300 * time.Millisecond})
	require.Zero(t, r.Good)
	require.NotZero(t, r.Bad)
}

func TestALoadThatNobodyAnswersIsAllBad(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close()
	r := loadFor(t, 300*time.Millisecond, e2e.Load{URLs: []string{server.URL}, Rate: 50, Timeout: time.Second})
	require.Zero(t, r.Good)
	require.Contains(t, r.Errors[0], "connection refused")
}

func TestALoadGoesOnFromItsCountsAfterACrashAndSaysForHowLongItWasAway(t *testing.T) {
	address := serve(t, func(http.ResponseWriter, *http.Request) {})
	ctx := cancelledAfter(t, 300*time.Millisecond)
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestActivityEnvironment()
	env.SetWorkerOptions(worker.Options{BackgroundActivityContext: ctx})
	env.SetHeartbeatDetails(held{Result: e2e.LoadResult{Good: 5000, Bad: 2, Lost: 1, Errors: []string{"old"}}, At: time.Now().Add(-10500 * time.Millisecond)})
	a := &Activities{Load: e2e.Load{URLs: []string{address}, Rate: 50, Timeout: time.Second, ErrorRatio: 1}}
	env.RegisterActivity(a.HoldLoad)
	value, err := env.ExecuteActivity(a.HoldLoad, workflows.OnTestCluster{Cluster: "c"})
	require.NoError(t, err)
	var r e2e.LoadResult
	require.NoError(t, value.Get(&r))
	require.Greater(t, r.Good, int64(5000))
	require.EqualValues(t, 2, r.Bad)
	require.InDelta(t, 12, r.Lost, 1)
	require.Equal(t, []string{"old"}, r.Errors)
}

func TestAWorkerThatStopsHandsItsCountsToTheNext(t *testing.T) {
	address := serve(t, func(http.ResponseWriter, *http.Request) {})
	stop := make(chan struct{})
	time.AfterFunc(300*time.Millisecond, func() { close(stop) })
	var last held
	w := activitytest.Worker{Stopping: stop, Heartbeat: func(details any) { last = details.(held) }}
	err := w.Run((&Activities{Load: e2e.Load{URLs: []string{address}, Rate: 50, Timeout: time.Second}}).HoldLoad, workflows.OnTestCluster{}, nil)
	requireKind(t, err, workflows.Unreachable)
	require.NotZero(t, last.Result.Good)
}

func TestAnAddressThatIsNoneIsRefusedBeforeAnythingIsSent(t *testing.T) {
	for _, each := range []string{"ftp://host/", "host/path", "http://", "http://[::1"} {
		a := &Activities{Load: e2e.Load{URLs: []string{each}, Rate: 1, Timeout: time.Second}}
		requireKind(t, activitytest.Worker{}.Run(a.HoldLoad, workflows.OnTestCluster{}, nil), workflows.InvalidInput)
		requireKind(t, activitytest.Worker{}.Run(a.AwaitLoad, workflows.OnTestCluster{}, nil), workflows.InvalidInput)
	}
}

func TestTheLoadIsAwaitedUntilEachAddressHasAnsweredWell(t *testing.T) {
	var asked atomic.Int64
	slow := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) < 3 {
			w.WriteHeader(http.StatusBadGateway)
		}
	})
	quick := serve(t, func(http.ResponseWriter, *http.Request) {})
	a := &Activities{Load: e2e.Load{URLs: []string{quick, slow}, Rate: 1, Timeout: time.Second, AnswersWithin: time.Minute}}
	require.NoError(t, activitytest.Worker{}.Run(a.AwaitLoad, workflows.OnTestCluster{}, nil))
	require.EqualValues(t, 3, asked.Load())
}

func TestALoadWithoutAGoodAnswerInTimeNamesAddressAndAnswer(t *testing.T) {
	address := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "no endpoints", http.StatusServiceUnavailable)
	})
	a := &Activities{Load: e2e.Load{URLs: []string{address}, Rate: 1, Timeout: time.Second, AnswersWithin: time.Millisecond}}
	err := activitytest.Worker{}.Run(a.AwaitLoad, workflows.OnTestCluster{Cluster: "c"}, nil)
	requireKind(t, err, workflows.Unhealthy)
	require.ErrorContains(t, err, address+": 503 Service Unavailable: no endpoints")
}

func requireKind(t *testing.T, err error, kind string) {
	t.Helper()
	var typed *temporal.ApplicationError
	require.ErrorAs(t, err, &typed)
	require.Equal(t, kind, typed.Type(), err)
}
