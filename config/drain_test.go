package config_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/drain"
	"github.com/fairway-project/fairway/registry"
)

func TestHowGentlyADrainIs(t *testing.T) {
	production := drain.Policy{
		ImplicitBudget: 25, JobsWithin: time.Hour, HoldUnmanaged: true, DetachWithin: 5 * time.Minute,
		Force: drain.ForcePolicy{After: 72 * time.Hour, WarnBefore: 12 * time.Hour, Interval: 5 * time.Minute, SiblingsReady: time.Hour, Deadline: 96 * time.Hour},
	}
	test := production
	test.Force.After, test.Force.WarnBefore, test.Force.Deadline = 8*time.Hour, time.Hour, 12*time.Hour
	never := production
	never.Force.After, never.Force.WarnBefore, never.Force.Deadline = 0, 0, 0
	own := production
	own.ImplicitBudget, own.JobsWithin, own.HoldUnmanaged, own.HoldLocalData = 0, 0, false, true
	own.Force = drain.ForcePolicy{After: 10 * time.Second, WarnBefore: 5 * time.Second, Interval: time.Second, SiblingsReady: 2 * time.Second, Deadline: time.Minute}

	const everything = `
implicit_budget_percent: 0, jobs_within: 0s, unmanaged: evict, local_data: hold, force_after: 10s, warn_before: 5s,
force_interval: 1s, siblings_ready: 2s, deadline: 1m`
	for rule, c := range map[string]struct {
		content, environment string
		want                 drain.Policy
	}{
		"three days in production":                        {"", "production", production},
		"as in production in an environment of one's own": {"", "staging", production},
		"eight hours on test clusters":                    {"", "test", test},
		"all of it can be set":                            {"drain: {" + everything + "}\n", "production", own},
		"all of it can be set by environment":             {"drain: {environments: {staging: {" + everything + "}}}\n", "staging", own},
		"an environment's settings are its own":           {"drain: {environments: {staging: {" + everything + "}}}\n", "production", production},
		"0 means never":                                   {"drain: {force_after: 0s, warn_before: 0s, deadline: 0s}\n", "production", never},
	} {
		t.Run(rule, func(t *testing.T) {
			c0, err := config.Parse("fairway.yaml", []byte(minimal+c.content))
			require.NoError(t, err)
			policy, err := c0.Drain.Policy(registry.Cluster{Environment: c.environment}, "")
			require.NoError(t, err)
			require.Equal(t, c.want, policy)
		})
	}
}

func TestTimesOfADrainThatContradictEachOtherAreRefused(t *testing.T) {
	for content, want := range map[string]string{
		"drain:\n  force_after: 100h\n":                                 "fairway.yaml:6: drain.deadline: is 96h0m0s; must be at least force_after, which is 100h0m0s",
		"drain:\n  force_after: 1h\n":                                   "fairway.yaml:6: drain.warn_before: is 12h0m0s; must be at most force_after, which is 1h0m0s",
		"drain:\n  environments:\n    test:\n      deadline: 1h\n":      "fairway.yaml:8: drain.environments.test.deadline: is 1h0m0s; must be at least force_after, which is 8h0m0s",
		"drain:\n  implicit_budget_percent: 101\n":                      "fairway.yaml:6: drain.implicit_budget_percent: is 101; must be at most 100",
		"drain:\n  environments:\n    test:\n      unmanaged: delete\n": `fairway.yaml:8: drain.environments.test.unmanaged: is "delete"; must be one of hold, evict`,
		"drain:\n  environments:\n    test:\n      forceafter: 1h\n":    "fairway.yaml:8: ",
	} {
		_, err := config.Parse("fairway.yaml", []byte(minimal+content))
		require.ErrorContains(t, err, want)
	}
}
