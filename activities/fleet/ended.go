package fleet

import (
	"context"
	"errors"
	"fmt"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/workflows"
)

var _ workflows.Rolls = (*Activities)(nil)

// lookForEnd is the time between two looks at a workflow whose end is waited for.
const lookForEnd = 15 * time.Second

// AwaitEnd implements workflows.Rolls.
func (a *Activities) AwaitEnd(ctx context.Context, in workflows.AwaitEnd) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	description, err := a.Temporal.DescribeWorkflow(ctx, in.Workflow, "")
	unknown := (*serviceerror.NotFound)(nil)
	switch {
	case errors.As(err, &unknown):
		return nil
	case err != nil:
		return temporal.NewApplicationError(fmt.Sprintf("asking whether workflow %s runs: %v", in.Workflow, err), workflows.Unreachable)
	case description.Status != enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING:
		return nil
	}
	return temporal.NewApplicationErrorWithOptions(fmt.Sprintf("workflow %s is still running", in.Workflow), workflows.StillRunning,
		temporal.ApplicationErrorOptions{Category: temporal.ApplicationErrorCategoryBenign, NextRetryDelay: lookForEnd})
}
