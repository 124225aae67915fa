package blocks

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/workflows"
)

func TestWhatHasNotBegunLooksForTheEndOfABlockNowAndThen(t *testing.T) {
	world := &actors{state: map[string]any{"fleet": workflows.ScopeBlocks{Holding: []workflows.Block{blocked("fleet", "freeze")}}}}
	gates := Gates{Asker: NewAsker(world, nil)}
	err := gates.AwaitUnblocked(t.Context(), workflows.AwaitUnblocked{Cluster: "a"})
	var typed *temporal.ApplicationError
	require.ErrorAs(t, err, &typed)
	require.Equal(t, workflows.Blocked, typed.Type())
	require.Equal(t, "cluster a is blocked by anna (fleet): freeze", typed.Message())
	require.Equal(t, temporal.ApplicationErrorCategoryBenign, typed.Category())
	require.Equal(t, 15*time.Second, typed.NextRetryDelay())

	require.ErrorAs(t, gates.AwaitUnblocked(t.Context(), workflows.AwaitUnblocked{Cluster: "a", Pool: "worker"}), &typed)
	require.Equal(t, workflows.BlockCheck, typed.NextRetryDelay(), "a roll goes on sooner")

	pool := blocked("", "load test")
	pool.Pool = "worker"
	world.state = map[string]any{"cluster/a": workflows.ClusterState{Blocks: []workflows.Block{pool}}}
	require.Error(t, gates.AwaitUnblocked(t.Context(), workflows.AwaitUnblocked{Cluster: "a", Pool: "worker"}))
	require.NoError(t, gates.AwaitUnblocked(t.Context(), workflows.AwaitUnblocked{Cluster: "a", Pool: "spot"}))
	require.NoError(t, gates.AwaitUnblocked(t.Context(), workflows.AwaitUnblocked{Cluster: "a"}), "that is for its roll to wait for")

	world.state = nil
	require.NoError(t, gates.AwaitUnblocked(t.Context(), workflows.AwaitUnblocked{Cluster: "a"}))
}
