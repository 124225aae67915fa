package blocks

import (
	"context"
	"time"

	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/workflows"
)

// Gates implements workflows.Gates.
type Gates struct{ Asker Asker }

var _ workflows.Gates = Gates{}

// lookForEnd is the time between two looks for the end of a block by updates that have not begun: a
// blocked fleet may have a hundred that wait. Rolls are few.
const lookForEnd = 15 * time.Second

// AwaitUnblocked implements workflows.Gates.
func (g Gates) AwaitUnblocked(ctx context.Context, in workflows.AwaitUnblocked) error {
	state, err := g.Asker.State(ctx, in.Cluster)
	if err != nil {
		return err
	}
	every := lookForEnd
	if in.Pool != "" {
		every = workflows.BlockCheck
	}
	refusal := state.Refusal(time.Now(), in.Pool)
	if refusal == "" {
		return nil
	}
	return temporal.NewApplicationErrorWithOptions(refusal, workflows.Blocked,
		temporal.ApplicationErrorOptions{Category: temporal.ApplicationErrorCategoryBenign, NextRetryDelay: every})
}
