package fleet

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"

	"github.com/fairway-project/fairway/workflows"
)

// watching are actors of channels that want to know about clusters.
func watching(wanted map[string]workflows.Watched) *actors {
	a := &actors{
		channels: map[string]workflows.ChannelSynced{}, clusters: map[string]workflows.ClusterState{}, down: map[string]bool{},
		watched: wanted, health: map[string]workflows.ChannelHealth{},
	}
	for channel := range wanted {
		a.channels[channel] = workflows.ChannelSynced{}
	}
	return a
}

func lookAt(t *testing.T, a client.Client, health func(context.Context, string) (workflows.Health, error)) (workflows.LookedAt, error) {
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestActivityEnvironment()
	w := &Watch{Temporal: a, Every: 30 * time.Second, Health: health}
	env.RegisterActivity(w)
	answer, err := env.ExecuteActivity(w.LookAtHealth, workflows.LookAtHealth{})
	var looked workflows.LookedAt
	if err == nil {
		require.NoError(t, answer.Get(&looked))
	}
	return looked, err
}

func TestOnlyThoseWhoWantToKnowAreToldAboutHealth(t *testing.T) {
	a := watching(map[string]workflows.Watched{"dev": {}, "beta": {Soaks: true, Clusters: []string{"a", "b", "c", "d", "e"}}, "lone": {Soaks: true}, "idle": {}})
	var asked sync.Map
	answers := map[string]func() (workflows.Health, error){
		"a": func() (workflows.Health, error) { return workflows.Health{Healthy: true}, nil },
		"b": func() (workflows.Health, error) {
			return workflows.Health{Problems: []string{strings.Repeat("é", 500), "2", "3", "4", "5"}}, nil
		},
		"c": func() (workflows.Health, error) { return workflows.Health{}, errors.New("no such cluster") },
		"d": func() (workflows.Health, error) { return workflows.Health{}, nil },
		"e": func() (workflows.Health, error) { return workflows.Health{Healthy: true}, nil },
	}
	a.clusters["a"] = workflows.ClusterState{Blocks: []workflows.Block{{Reason: "load test", By: "anna"}, {Pool: "worker", Reason: "only a pool"}}}
	a.down["cluster/e"] = true
	began := time.Now()
	looked, err := lookAt(t, a, func(_ context.Context, id string) (workflows.Health, error) {
		asked.Store(id, true)
		return answers[id]()
	})
	require.NoError(t, err)
	require.Equal(t, workflows.LookedAt{Clusters: 5, Unhealthy: []string{"b", "c", "d"}}, looked)
	require.Equal(t, []string{"channel/beta health"}, a.told, "nothing is new for a channel without clusters")
	health := a.health["channel/beta"]
	require.WithinDuration(t, began, health.At, time.Second)
	require.EqualValues(t, 60, health.GoodSeconds, "as long as two looks")
	require.Empty(t, health.Blocked)
	require.Equal(t, workflows.ClusterHealth{Cluster: "a", Blocked: "blocked by anna: load test"}, health.Clusters[0])
	require.Equal(t, []string{strings.Repeat("é", 199) + "…", "2", "There are 3 more problems."}, health.Clusters[1].Problems)
	require.Equal(t, []string{"Its health is not known: no such cluster"}, health.Clusters[2].Problems)
	require.Equal(t, []string{"It is not healthy."}, health.Clusters[3].Problems)
	require.Equal(t, "whether cluster e is blocked is not known: asking workflow cluster/e what it knows: down", health.Clusters[4].Blocked)

	a.blocks = workflows.ScopeBlocks{Holding: []workflows.Block{{Scope: "fleet", Reason: "freeze", By: "ben"}}}
	a.told = nil
	_, err = lookAt(t, a, func(context.Context, string) (workflows.Health, error) { return workflows.Health{Healthy: true}, nil })
	require.NoError(t, err)
	require.ElementsMatch(t, []string{"channel/beta health", "channel/lone health"}, a.told)
	require.Equal(t, "blocked by ben (fleet): freeze", a.health["channel/lone"].Blocked)

	a.watched["lone"] = workflows.Watched{Soaks: true, Blocked: "blocked by ben (fleet): freeze"}
	a.watched["beta"], a.told = workflows.Watched{}, nil
	_, err = lookAt(t, a, nil)
	require.NoError(t, err)
	require.Empty(t, a.told)

	// The actor keeps no more than one line of it.
	a.blocks.Holding[0].Reason = "freeze:\n\x1b[31mall of it" + strings.Repeat(" é", 100)
	_, err = lookAt(t, a, nil)
	require.NoError(t, err)
	require.Len(t, a.told, 1)
	told := a.health["channel/lone"].Blocked
	require.True(t, strings.HasPrefix(told, "blocked by ben (fleet): freeze: [31mall of it é"), told)
	require.Len(t, []rune(told), 200)
	a.watched["lone"], a.told = workflows.Watched{Soaks: true, Blocked: told}, nil
	_, err = lookAt(t, a, nil)
	require.NoError(t, err)
	require.Empty(t, a.told, "it knows")

	a.watched["lone"], a.requests = workflows.Watched{}, 0
	looked, err = lookAt(t, a, nil)
	require.NoError(t, err)
	require.Zero(t, looked)
	require.Equal(t, 6, a.requests, "a list in two pages and a query for each channel, and nothing else")
}

func TestAChannelThatIsNotReachedKeepsNoOtherFromHearingAboutHealth(t *testing.T) {
	wanted := workflows.Watched{Soaks: true, Clusters: []string{"a"}}
	a := watching(map[string]workflows.Watched{"dev": wanted, "beta": wanted, "stable": wanted})
	a.down["channel/dev"], a.down["channel/beta!"], a.down["fleet"] = true, true, true
	healthy := func(context.Context, string) (workflows.Health, error) { return workflows.Health{Healthy: true}, nil }
	looked, err := lookAt(t, a, healthy)
	require.NoError(t, err)
	require.Equal(t, []string{"channel/stable health"}, a.told)
	require.Equal(t, []string{"asking workflow channel/dev what it knows: down", "telling workflow channel/beta about health: down"}, looked.Problems)
	require.Contains(t, a.health["channel/stable"].Blocked, "whether the fleet is blocked is not known")

	a.down["visibility"] = true
	_, err = lookAt(t, a, healthy)
	var typed *temporal.ApplicationError
	require.ErrorAs(t, err, &typed)
	require.Equal(t, workflows.Unreachable, typed.Type())
}

func TestClustersThatDoNotAnswerHoldUpALookForAWhileOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ids []string
		for i := range 30 {
			ids = append(ids, fmt.Sprintf("c%02d", i))
		}
		w := &Watch{Health: func(ctx context.Context, id string) (workflows.Health, error) {
			if id < "c12" {
				<-ctx.Done()
				return workflows.Health{}, ctx.Err()
			}
			time.Sleep(time.Second)
			return workflows.Health{Healthy: true}, nil
		}, Temporal: watching(nil)}
		var now, most atomic.Int64
		look := w.Health
		w.Health = func(ctx context.Context, id string) (workflows.Health, error) {
			if n := now.Add(1); n > most.Load() {
				most.Store(n)
			}
			defer now.Add(-1)
			return look(ctx, id)
		}
		began := time.Now()
		health := w.look(t.Context(), make(chan struct{}, atOnce), ids)
		require.LessOrEqual(t, time.Since(began), 45*time.Second)
		require.EqualValues(t, atOnce, most.Load())
		require.Equal(t, []string{"It does not answer within 20s."}, health.Clusters[3].Problems)
		require.Empty(t, health.Clusters[29].Problems)
	})
}

func TestALookThatIsStoppedTellsNobody(t *testing.T) {
	a := watching(map[string]workflows.Watched{"dev": {Soaks: true, Clusters: []string{"a", "b"}}})
	stop, once := make(chan struct{}), sync.Once{}
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestActivityEnvironment()
	env.SetWorkerStopChannel(stop)
	w := &Watch{Temporal: a, Health: func(ctx context.Context, _ string) (workflows.Health, error) {
		once.Do(func() { close(stop) })
		<-ctx.Done()
		return workflows.Health{}, ctx.Err()
	}}
	env.RegisterActivity(w)
	_, err := env.ExecuteActivity(w.LookAtHealth, workflows.LookAtHealth{})
	require.ErrorContains(t, err, "the worker stops")
	require.Empty(t, a.told)
}
