package aws_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/activities/activitytest"
	"github.com/fairway-project/fairway/activities/aws"
	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/workflows"
)

func TestABlockOfAPoolHoldsItsStackAndNoOther(t *testing.T) {
	for pool, held := range map[string]bool{"worker": true, "spot": false, "": false} {
		for name, activity := range map[string]func(*aws.Stacks) any{
			"ApplyStack":  func(s *aws.Stacks) any { return s.ApplyStack },
			"DeleteStack": func(s *aws.Stacks) any { return s.DeleteStack },
		} {
			f := &formation{lifecycle: registry.DecommissionRequested, answers: map[string][]string{
				"DescribeStacks": {stackIs("UPDATE_ROLLBACK_COMPLETE")}, "DescribeStackEvents": {"<StackEvents/>"},
				"CreateChangeSet": {"<Id>arn:change</Id>"}, "DeleteChangeSet": {""}, "UpdateTerminationProtection": {""},
				"DescribeChangeSet": {"<Status>FAILED</Status><ExecutionStatus>UNAVAILABLE</ExecutionStatus><StatusReason>No updates are to be performed.</StatusReason>"},
			}}
			stacks := f.activities(t)
			stacks.Blocks = blocks(func(pool string) error {
				if pool == "worker" {
					return temporal.NewApplicationError("pool worker is blocked", workflows.Blocked)
				}
				return nil
			})
			if name == "DeleteStack" && !held {
				continue // what comes after that is tried elsewhere
			}
			of := theStack
			of.Pool = pool
			var worker activitytest.Worker
			err := worker.Run(activity(stacks), of, nil)
			if held {
				requireError(t, err, workflows.Blocked, false, "pool worker is blocked")
			} else {
				require.NoError(t, err, "%s of %q", name, pool)
			}
		}
	}
}
