package config_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/roll"
)

func TestHowAPoolIsRolled(t *testing.T) {
	standard := roll.Settings{
		Surge: roll.Share{Percent: 10}, Unavailable: roll.Share{Count: 1}, Parallel: 5, Validate: time.Minute, BadReplacements: 3,
		QuarantineAfter: time.Hour, QuarantineLimit: 3, ShortageAfter: 5 * time.Minute,
		Fallbacks: []roll.FallbackKind{roll.OtherType, roll.OtherZone, roll.SmallerSurge},
		Limits:    roll.Limits{Fleet: 50, Account: 10, Region: 25},
	}
	with := func(change func(*roll.Settings)) roll.Settings {
		s := standard
		change(&s)
		return s
	}
	for rule, c := range map[string]struct {
		content           string
		discount          string
		ofCluster, ofPool map[string]string
		want              roll.Settings
	}{
		"by default, by a tenth": {want: standard},
		"spot pools in place":    {discount: "spot", want: with(func(s *roll.Settings) { s.Surge = roll.Share{} })},
		"an environment wins over the rest": {
			content: "roll: {surge: 3, environments: {test: {surge: 50%, max_node_age: 720h, fallbacks: []}}}\n",
			want: with(func(s *roll.Settings) {
				s.Surge, s.MaxAge, s.Fallbacks = roll.Share{Percent: 50}, 720*time.Hour, nil
			}),
		},
		"an item of the cluster wins over its environment": {
			content:   "roll: {environments: {test: {surge: 3, parallel: 2}}}\n",
			ofCluster: map[string]string{"fairway.roll.surge": "4", "unrelated": "{}"},
			want:      with(func(s *roll.Settings) { s.Surge, s.Parallel = roll.Share{Count: 4}, 2 }),
		},
		"an item of the pool wins over the cluster's": {
			ofCluster: map[string]string{"fairway.roll.quarantine_after": "2h", "fairway.roll.parallel": "7"},
			ofPool:    map[string]string{"fairway.roll.parallel": "1"},
			want:      with(func(s *roll.Settings) { s.QuarantineAfter, s.Parallel = 2*time.Hour, 1 }),
		},
	} {
		t.Run(rule, func(t *testing.T) {
			parsed, err := config.Parse("fairway.yaml", []byte(minimal+c.content))
			require.NoError(t, err)
			settings, err := parsed.Settings(registry.Cluster{ID: "dev-1", Environment: "test", ConfigItems: c.ofCluster, NodePools: []registry.NodePool{
				{Name: "worker", DiscountStrategy: c.discount, ConfigItems: c.ofPool},
			}}, "worker")
			require.NoError(t, err)
			require.Equal(t, c.want, settings)
		})
	}
}

func TestWrongSettingsOfARollAreRefusedWithTheirPlace(t *testing.T) {
	for content, want := range map[string]string{
		"roll:\n  surge: many\n": `fairway.yaml:6: roll.surge: is "many"; must be a number of nodes such as 3, or a percentage such as 10%`,
		"roll:\n  environments:\n    test:\n      spot_surge: 101%\n": `fairway.yaml:8: roll.environments.test.spot_surge: is "101%"`,
		"roll:\n  fallbacks: [wish]\n":                                `is "wish"; must be one of instance-type, zone, on-demand, smaller-surge, in-place`,
		"roll:\n  parallel: 0\n":                                      "fairway.yaml:6: roll.parallel: is 0; must be at least 1",
	} {
		_, err := config.Parse("fairway.yaml", []byte(minimal+content))
		require.ErrorContains(t, err, want)
	}

	parsed, err := config.Parse("fairway.yaml", []byte(minimal))
	require.NoError(t, err)
	for key, want := range map[string]string{
		"fairway.roll.surges":   "registry: cluster dev-1: config_items: fairway.roll:1: surges: is no known key",
		"fairway.roll.parallel": `parallel: is "many"; must be a whole number`,
	} {
		_, err := parsed.Settings(registry.Cluster{ID: "dev-1", ConfigItems: map[string]string{key: "many"}}, "worker")
		require.ErrorContains(t, err, want)
	}
	_, err = parsed.Drain.Policy(registry.Cluster{ID: "dev-1", ConfigItems: map[string]string{"fairway.drain.force_after": "1h"}}, "worker")
	require.ErrorContains(t, err, "fairway.drain.warn_before is 12h0m0s; must be at most force_after, which is 1h0m0s")
}
