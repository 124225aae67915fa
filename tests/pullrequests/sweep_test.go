package pullrequests

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/e2e"
	"github.com/fairway-project/fairway/tests/product"
	"github.com/fairway-project/fairway/workflows"
)

// Somebody terminates a test in the Temporal UI, so that nothing of it can clean up.
func TestASweepRemovesWhatATerminatedTestHasLeft(t *testing.T) {
	t.Parallel()
	r := open(t, quietChannel, "terminated", "Change something", harmless("terminated"))
	told(t, "wait", r.cluster())
	r.label()
	reaches(t, r.id(), e2e.Testing)
	r.unlabel() // or the next look would begin it again
	require.NoError(t, temporal.TerminateWorkflow(t.Context(), workflows.TestID(r.id()), "", "by the test"))
	var found workflows.SweepResult
	require.Eventually(t, func() bool {
		out, status, err := command(t.Context(), "sweep", "--dry-run", "--output", "json")
		return err == nil && status == 0 && json.Unmarshal([]byte(out), &found) == nil && len(found.Found) > 0 || len(product.Inventory(t, theLab, r.cluster())) == 0
	}, patience, sometimes)
	require.Eventually(t, func() bool {
		return len(product.Inventory(t, theLab, r.cluster())) == 0 && len(leases(t, r.cluster())) == 0
	}, patience, sometimes, "the sweep removes it all")
	gone(t, r.cluster())
}
