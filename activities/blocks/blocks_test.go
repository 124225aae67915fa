package blocks

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/workflows"
)

// actors answers queries by workflow id; an error is answered as it is, what is missing is unknown.
type actors struct {
	client.Client
	mu    sync.Mutex
	asked []string
	state map[string]any
}

func (a *actors) QueryWorkflow(_ context.Context, id, _, name string, _ ...any) (converter.EncodedValue, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked = append(a.asked, id+"?"+name)
	switch state := a.state[id].(type) {
	case nil:
		return nil, serviceerror.NewNotFound("no such workflow")
	case error:
		return nil, state
	default:
		payloads, err := converter.GetDefaultDataConverter().ToPayloads(state)
		return client.NewValue(payloads), err
	}
}

func blocked(scope, reason string) workflows.Block {
	return workflows.Block{ID: "block-1", Scope: scope, Reason: reason, By: "anna", Since: time.Now().Add(-time.Hour)}
}

func TestAClusterIsBlockedByFleetChannelAndItself(t *testing.T) {
	ended := blocked("channel dev", "over")
	ended.Until = time.Now().Add(-time.Minute)
	following := workflows.ClusterState{Cluster: "a", Blocks: []workflows.Block{blocked("", "own")}, Updates: workflows.ClusterUpdates{Want: &workflows.Want{Channel: "dev"}}}
	registered := func(context.Context, string) (string, error) { return "dev", nil }
	down := errors.New("down")
	for rule, c := range map[string]struct {
		state   map[string]any
		channel func(context.Context, string) (string, error)
		refusal string // of the check; empty if nothing is blocked
		kind    string
	}{
		"nobody is known": {refusal: ""},
		"itself":          {state: map[string]any{"cluster/a": following}, refusal: "cluster a is blocked by anna: own", kind: workflows.Blocked},
		"the fleet":       {state: map[string]any{"fleet": workflows.ScopeBlocks{Holding: []workflows.Block{blocked("fleet", "freeze")}}}, refusal: "cluster a is blocked by anna (fleet): freeze", kind: workflows.Blocked},
		"the channel that its actor knows": {
			state:   map[string]any{"cluster/a": workflows.ClusterState{Updates: following.Updates}, "channel/dev": workflows.ScopeBlocks{Holding: []workflows.Block{blocked("channel dev", "bad")}}},
			refusal: "cluster a is blocked by anna (channel dev): bad", kind: workflows.Blocked,
		},
		"the channel of the registry": {
			state: map[string]any{"channel/dev": workflows.ScopeBlocks{Holding: []workflows.Block{blocked("channel dev", "bad")}}}, channel: registered,
			refusal: "cluster a is blocked by anna (channel dev): bad", kind: workflows.Blocked,
		},
		"not by another channel":        {state: map[string]any{"channel/beta": workflows.ScopeBlocks{Holding: []workflows.Block{blocked("channel beta", "bad")}}}, channel: registered},
		"not by what is over":           {state: map[string]any{"channel/dev": workflows.ScopeBlocks{Ended: []workflows.Block{ended}}}, channel: registered},
		"a fleet that does not answer":  {state: map[string]any{"fleet": down}, refusal: "workflow fleet does not answer: down", kind: workflows.Unreachable},
		"a channel that does not":       {state: map[string]any{"channel/dev": down}, channel: registered, refusal: "workflow channel/dev does not answer", kind: workflows.Unreachable},
		"a cluster that does not":       {state: map[string]any{"cluster/a": down}, refusal: "workflow cluster/a does not answer", kind: workflows.Unreachable},
		"a registry that does not":      {channel: func(context.Context, string) (string, error) { return "", down }, refusal: "down", kind: workflows.Unreachable},
		"an answer that is no such one": {state: map[string]any{"fleet": []string{"nonsense"}}, refusal: "workflow fleet does not answer", kind: workflows.Unreachable},
	} {
		t.Run(rule, func(t *testing.T) {
			for _, asker := range []Asker{{Temporal: &actors{state: c.state}, Channel: c.channel}, NewAsker(&actors{state: c.state}, c.channel)} {
				err := asker.Check(context.Background(), "a", "worker")
				if c.refusal == "" {
					require.NoError(t, err)
					continue
				}
				var typed *temporal.ApplicationError
				require.ErrorAs(t, err, &typed)
				require.Equal(t, c.kind, typed.Type())
				require.ErrorContains(t, err, c.refusal)
			}
		})
	}
}

func TestBlockedTimeCountsEveryScopeOnce(t *testing.T) {
	now := time.Now()
	past := blocked("fleet", "over")
	past.Until = now.Add(-30 * time.Minute)
	asker := Asker{Temporal: &actors{state: map[string]any{
		"cluster/a": workflows.ClusterState{Blocks: []workflows.Block{{Since: now.Add(-40 * time.Minute), By: "ben", Reason: "x"}}},
		"fleet":     workflows.ScopeBlocks{Ended: []workflows.Block{past}},
	}}}
	state, err := asker.State(context.Background(), "a")
	require.NoError(t, err)
	require.InDelta(t, time.Hour, state.BlockedBetween(now.Add(-2*time.Hour), now, "worker"), float64(time.Second))
}

func TestThoseWhoAskAtTheSameTimeShareARequestThatBeginsAfterwards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r rounds[int64]
		var ordered, requests atomic.Int64 // what an order has changed so far, as a request sees it at its beginning
		fetch := func(context.Context) (int64, error) {
			requests.Add(1)
			seen := ordered.Load()
			time.Sleep(time.Second) // the answer takes its time
			return seen, nil
		}
		var callers sync.WaitGroup
		for i := range 200 {
			callers.Go(func() {
				time.Sleep(time.Duration(i) * 10 * time.Millisecond)
				before := ordered.Add(1)
				seen, err := r.ask(t.Context(), "fleet", fetch)
				require.NoError(t, err)
				require.GreaterOrEqual(t, seen, before, "what was ordered before one asks is in the answer")
			})
		}
		callers.Wait()
		require.LessOrEqual(t, requests.Load(), int64(4), "2 s of callers, 1 s for a request")
	})
}

func TestACallerThatGoesAwayLeavesTheOthersTheirAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r rounds[int]
		fetch := func(ctx context.Context) (int, error) {
			time.Sleep(time.Minute)
			return 7, ctx.Err()
		}
		impatient, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var callers sync.WaitGroup
		callers.Go(func() {
			_, err := r.ask(impatient, "fleet", fetch)
			require.ErrorIs(t, err, context.DeadlineExceeded)
		})
		callers.Go(func() {
			answer, err := r.ask(t.Context(), "fleet", fetch)
			require.NoError(t, err)
			require.Equal(t, 7, answer)
		})
		callers.Wait()
		time.Sleep(2 * time.Minute) // a request that the impatient one was to get the answer of
	})
}

func TestAClusterOfATestIsHeldByItselfOnly(t *testing.T) {
	everybody := map[string]any{
		"fleet": errors.New("down"), "channel/dev": workflows.ScopeBlocks{Holding: []workflows.Block{blocked("channel dev", "bad")}},
	}
	asker := NewAsker(&actors{state: everybody}, func(context.Context, string) (string, error) { return "dev", nil })
	asker.Apart = func(cluster string) bool { return cluster == "e2e-1" }
	require.NoError(t, asker.Check(t.Context(), "e2e-1", ""))
	require.Error(t, asker.Check(t.Context(), "dev-1", ""))
	everybody["cluster/e2e-1"] = workflows.ClusterState{
		Blocks: []workflows.Block{blocked("", "own")}, Updates: workflows.ClusterUpdates{Want: &workflows.Want{Channel: "dev"}},
	}
	require.ErrorContains(t, asker.Check(t.Context(), "e2e-1", ""), "cluster e2e-1 is blocked by anna: own")
}
