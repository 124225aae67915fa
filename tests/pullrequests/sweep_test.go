package pullrequests

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/e2e"
	"github.com/fairway-project/fairway/tests/product"
	"github.com/fairway-project/fairway/workflows"
)

// Somebody terminates a test in the Temporal UI, so that nothing of it can clean up. The sweep finds it, asks as it is
// much, and removes it when it is told to.
func TestASweepRemovesWhatATerminatedTestHasLeft(t *testing.T) {
	t.Parallel()
	r := open(t, quietChannel, "terminated", "Change something", harmless("terminated"))
	told(t, "wait", r.cluster())
	r.label()
	reaches(t, r.id(), e2e.Testing)
	r.unlabel() // or the next look would begin it again
	require.NoError(t, temporal.TerminateWorkflow(t.Context(), workflows.TestID(r.id()), "", "by the test"))
	// The sweeps of the schedule ask, since there is more than they may remove by themselves.
	var found workflows.SweepResult
	require.Eventually(t, func() bool {
		out, status, err := command(t.Context(), "sweep", "--dry-run", "--output", "json")
		return err == nil && status == 0 && json.Unmarshal([]byte(out), &found) == nil && len(found.Found) > 1
	}, patience, sometimes)
	for _, each := range found.Found {
		require.Equal(t, r.cluster(), each.Lease)
	}
	_, problems, status, err := product.Execute(t.Context(), env, product.Program("starter"), "sweep")
	require.NoError(t, err)
	require.Equal(t, 1, status, "nobody is there to be asked")
	require.Contains(t, problems, "--at-most")
	require.NotEmpty(t, product.Inventory(t, theLab, r.cluster()), "nothing was removed")
	// Volumes are attached until the instances are gone, so they and the lease are for another sweep.
	require.Eventually(t, func() bool {
		fairway(t, "sweep", "--at-most", "50", "--yes")
		return len(objects(t, "leases/", r.cluster())) == 0
	}, patience, sometimes)
	gone(t, r.cluster())
}
