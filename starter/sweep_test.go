package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/e2e"
	"github.com/fairway-project/fairway/workflows"
)

// untested is a fairway.yaml without tests.
func untested(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fairway.yaml")
	require.NoError(t, os.WriteFile(path, []byte("registry: {file: r}\nkubernetes: {kubeconfig: k}\n"), 0o600))
	return path
}

func TestASweepIsShownAndAsksAboveItsLimit(t *testing.T) {
	orphans := []e2e.Orphan{{Kind: "stack", ID: "e2e-12", Lease: "e2e-12-aaaaaaaa", Why: "its lease is gone"}, {Kind: "volume", ID: "vol-1", Lease: "e2e-12-aaaaaaaa"}}
	f := &fakeTemporal{t: t, ends: map[string]any{}, activities: map[string]any{"ListSuites": workflows.SuitesToRun{}}}
	c := &cli{output: "table"}
	sweep := func(in workflows.SweepInput, result workflows.SweepResult, goOn bool) (string, error) {
		f.begun, f.ends[workflows.SweepID] = nil, result
		cmd, out, _ := typed(t)
		err := c.sweep(cmd, f.connection(), in, func(workflows.SweepResult) bool {
			f.ends[workflows.SweepID] = workflows.SweepResult{Found: orphans, Removed: []workflows.SweptOrphan{{Orphan: orphans[0], At: began}, {Orphan: orphans[1], At: began}}}
			return goOn
		})
		return out.String(), err
	}

	text, err := sweep(workflows.SweepInput{DryRun: true, AtMost: 20}, workflows.SweepResult{Found: orphans}, false)
	require.NoError(t, err)
	requireRow(t, text, "stack", "e2e-12", "e2e-12-aaaaaaaa")
	require.Contains(t, text, "2 things found; nothing has been changed.")
	require.Equal(t, []any{workflows.SweepInput{DryRun: true, AtMost: 20}}, f.begun)

	text, err = sweep(workflows.SweepInput{AtMost: 20}, workflows.SweepResult{Found: []e2e.Orphan{}}, false)
	require.NoError(t, err)
	require.Contains(t, text, "Nothing is left that nobody owns.")

	asks := workflows.SweepResult{Found: orphans, Asks: "2 things are owned by nobody, and a sweep removes at most 1"}
	text, err = sweep(workflows.SweepInput{AtMost: 1}, asks, false)
	require.EqualError(t, err, "nothing was removed: "+asks.Asks)
	require.Contains(t, text, "nothing has been changed")
	require.Len(t, f.begun, 1)

	text, err = sweep(workflows.SweepInput{AtMost: 1, By: "ben"}, asks, true)
	require.NoError(t, err)
	require.Equal(t, []any{workflows.SweepInput{AtMost: 1, By: "ben"}, workflows.SweepInput{AtMost: 2, By: "ben"}}, f.begun, "no more than the person saw")
	require.Contains(t, text, "2 of 2 removed.")

	text, err = sweep(workflows.SweepInput{AtMost: 20}, workflows.SweepResult{Found: orphans, Failed: []workflows.SweptOrphan{{Orphan: orphans[0], Problem: "access denied"}}}, false)
	require.EqualError(t, err, "1 thing could not be removed; the next sweep tries again")
	requireRow(t, text, "stack", "e2e-12", "e2e-12-aaaaaaaa", "no", "access denied")

	f.running = map[string][]string{"Sweep": {workflows.SweepID}}
	_, err = sweep(workflows.SweepInput{}, workflows.SweepResult{}, false)
	requireStatus(t, exitUsage, err)
	require.ErrorContains(t, err, "a sweep is under way already")

	f.running, f.activities["ListSuites"] = nil, temporal.NewApplicationError("unable to find activityType", notRegistered)
	_, err = sweep(workflows.SweepInput{}, workflows.SweepResult{}, false)
	requireStatus(t, exitUsage, err)
	require.Empty(t, f.begun)
}
