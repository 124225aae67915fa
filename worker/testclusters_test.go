package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/calendar"
	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/e2e"
	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/roll"
	"github.com/fairway-project/fairway/rollout"
)

func TestClustersOfTestsWaitForNobodyAndGoBackToNothing(t *testing.T) {
	c, err := config.Parse("fairway.yaml", []byte("registry: {file: r}\nkubernetes: {kubeconfig: k}\nupdate: {rollback: true}\n"))
	require.NoError(t, err)
	now := time.Now()
	c.Update.Freezes = []calendar.Freeze{{Name: "sale", From: now.Add(-time.Hour), To: now.Add(time.Hour)}}
	for _, test := range []struct {
		name, id string
		tests    bool
		apart    bool
	}{
		{"a cluster of a test", "e2e-7-abc", true, true},
		{"a cluster of the registry", "dev-1", true, false},
		{"the same name where nothing is tested", "e2e-7-abc", false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			c.E2E.Accounts = nil
			if test.tests {
				c.E2E.Accounts = []e2e.Account{{Account: "aws:1", Region: "r"}}
			}
			conduct, cluster := conductOf(c), registry.Cluster{ID: test.id, Environment: "test"}
			update, err := conduct.Update(cluster)
			require.NoError(t, err)
			require.Equal(t, []bool{test.apart, test.apart, test.apart}, []bool{!update.Rollback, !update.Windowed, update.Limits == rollout.Limits{}})
			pools, err := conduct.Roll(cluster, "worker")
			require.NoError(t, err)
			require.Equal(t, test.apart, pools.Limits == roll.Limits{})
			hours, err := conduct.Calendar(cluster)
			require.NoError(t, err)
			open, _ := hours.OpenAt(now)
			require.Equal(t, test.apart, open)
		})
	}
}
