package pullrequests

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/e2e"
	"github.com/fairway-project/fairway/workflows"
)

// Ten pull requests share two places.
func TestTenPullRequestsShareTwoPlaces(t *testing.T) {
	t.Parallel()
	var requests []*request
	for i := range 10 {
		r := open(t, queueChannel, fmt.Sprintf("queued-%d", i), fmt.Sprintf("Change %d", i), harmless(fmt.Sprintf("queued-%d", i)))
		r.label()
		requests = append(requests, r)
	}
	var state workflows.TestQueueState
	waited := false
	for _, r := range requests {
		require.Eventually(t, func() bool {
			if answer, err := temporal.QueryWorkflow(t.Context(), workflows.TestQueueID, "", workflows.StateQuery); err == nil && answer.Get(&state) == nil {
				given := 0
				for _, entry := range state.Entries {
					if entry.Given != nil {
						given++
					}
				}
				require.LessOrEqual(t, given, limit)
				waited = waited || len(state.Entries) > limit
			}
			last, found := report(t.Context(), r.id())
			return found && last.Phase == e2e.Done
		}, 3*patience, 500*time.Millisecond)
		require.Equal(t, e2e.Passed, ends(t, r.id()).Verdict)
		gone(t, r.cluster())
	}
	require.True(t, waited, "some had to wait")
	require.Contains(t, fairway(t, "e2e", "list"), requests[9].cluster())
}
