package pullrequests

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/e2e"
	"github.com/fairway-project/fairway/workflows"
)

// Ten pull requests share two places; the hotfix that comes last overtakes those that wait. No other test runs
// beside this one, as it would wait behind the ten.
func TestTenPullRequestsShareTwoPlaces(t *testing.T) {
	var requests []*request
	for i := range 10 {
		r := open(t, queueChannel, fmt.Sprintf("queued-%d", i), fmt.Sprintf("Change %d", i), harmless(fmt.Sprintf("queued-%d", i)))
		if i == 9 {
			r.label("hotfix")
		} else {
			r.label()
		}
		requests = append(requests, r)
	}
	waited, most := false, 0 // places taken at a time
	var begun []time.Time    // when each got its place
	for _, r := range requests {
		require.Eventually(t, func() bool {
			var state workflows.TestQueueState // a fresh one: what is missing in an answer would stay as it was
			if answer, err := temporal.QueryWorkflow(t.Context(), workflows.TestQueueID, "", workflows.StateQuery); err == nil && answer.Get(&state) == nil {
				given := 0
				for _, entry := range state.Entries {
					if entry.Given != nil {
						given++
					}
				}
				most = max(most, given)
				waited = waited || len(state.Entries) > limit
			}
			last, found := report(t.Context(), r.id())
			return found && last.Phase == e2e.Done
		}, 3*patience, 500*time.Millisecond)
		last := ends(t, r.id())
		require.Equal(t, e2e.Passed, last.Verdict)
		for _, phase := range last.Phases {
			if phase.Phase == e2e.Creating {
				begun = append(begun, phase.Began)
			}
		}
		gone(t, r.cluster())
	}
	require.Len(t, begun, 10)
	require.True(t, begun[9].Before(begun[8]), "the hotfix has overtaken the one that came before it")
	require.Equal(t, limit, most, "places were taken at a time")
	require.True(t, waited, "some had to wait")
	require.Contains(t, fairway(t, "e2e", "list"), requests[9].cluster())
}
