package blocks

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/workflows"
)

func TestBlocksOfTheFleetAndOfChannels(t *testing.T) {
	over, pool := blocked("fleet", "over"), blocked("channel dev", "only a pool")
	over.Until = time.Now().Add(-time.Minute)
	pool.Pool = "worker"
	known := &actors{state: map[string]any{
		"fleet":        workflows.ScopeBlocks{Holding: []workflows.Block{over}},
		"channel/dev":  workflows.ScopeBlocks{Holding: []workflows.Block{pool, blocked("channel dev", "we look")}},
		"channel/beta": workflows.ScopeBlocks{Holding: []workflows.Block{blocked("channel beta", "not asked for")}},
	}}
	for _, asker := range []Asker{{Temporal: known}, NewAsker(known, nil)} {
		holding, err := asker.Channels(t.Context(), "dev", "alpha")
		require.NoError(t, err)
		require.Len(t, holding, 1)
		require.Equal(t, "we look", holding[0].Reason)
		holding, err = asker.Channels(t.Context())
		require.NoError(t, err)
		require.Empty(t, holding)
	}

	for _, id := range []string{"fleet", "channel/dev"} {
		_, err := NewAsker(&actors{state: map[string]any{id: errors.New("down")}}, nil).Channels(t.Context(), "dev")
		var typed *temporal.ApplicationError
		require.ErrorAs(t, err, &typed, "who does not answer may be blocked")
		require.Equal(t, workflows.Unreachable, typed.Type())
	}
}
