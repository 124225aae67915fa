package pullrequests

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/e2e"
)

// The worker dies once in every phase of one test, and Temporal with it in one. No other test runs beside this one:
// their suites would begin anew each time.
func TestATestSurvivesTheDeathOfItsWorkerInEachPhase(t *testing.T) {
	r := open(t, quietChannel, "crashes", "Change the nodes", nil)
	r.more("Change them really", otherNodes(t, r, quietChannel))
	held := told(t, "wait", r.cluster())
	r.label()
	for _, phase := range []string{e2e.Queued, e2e.Creating, e2e.Loading, e2e.Upgrading, e2e.Testing, e2e.Removing} {
		if phase == e2e.Queued { // may be over at once
			if last, found := report(t.Context(), r.id()); !found || last.Phase != phase {
				continue
			}
		}
		reaches(t, r.id(), phase)
		require.NoError(t, worker.Kill())
		if phase == e2e.Testing {
			require.NoError(t, theLab.Part("temporal").Kill())
			require.NoError(t, theLab.Part("temporal").Restart(t.Context()))
		}
		require.NoError(t, worker.Restart(t.Context()))
		if phase == e2e.Testing {
			held()
		}
	}
	last := ends(t, r.id())
	require.Equal(t, e2e.Passed, last.Verdict, last.Problem)
	require.Empty(t, last.Upgrade.Violations)
	gone(t, r.cluster())
}
