package config

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/fairway-project/fairway/drain"
	"github.com/fairway-project/fairway/registry"
)

// Drain says how gently nodes are emptied: by default, and by the environment of a cluster.
type Drain struct {
	Gentleness `yaml:",inline"`
	// Environments override single settings for the clusters of an environment.
	Environments map[string]Gentleness `yaml:"environments" validate:"dive"`
}

// Gentleness holds the settings of a drain. What an environment leaves out is as by default.
type Gentleness struct {
	// ImplicitBudgetPercent is the share of a replicated workload without a budget that may be
	// unavailable at a time because of us; at least one pod. Default 25; 0 means no limit.
	ImplicitBudgetPercent *int `yaml:"implicit_budget_percent" validate:"omitempty,gte=0,lte=100"`
	// JobsWithin is how long pods of Jobs may go on before they are evicted; default 1 h.
	JobsWithin *time.Duration `yaml:"jobs_within" validate:"omitempty,gte=0"`
	// Unmanaged is "hold" (default) or "evict": what happens to pods that no controller brings back.
	Unmanaged *string `yaml:"unmanaged" validate:"omitempty,oneof=hold evict"`
	// LocalData is "evict" (default) or "hold": what happens to pods with emptyDir volumes.
	LocalData *string `yaml:"local_data" validate:"omitempty,oneof=hold evict"`
	// ForceAfter is the time from the beginning of a drain after which pods that cannot leave are
	// deleted; default 72 h, and 8 h in the environment "test". 0 means never.
	ForceAfter *time.Duration `yaml:"force_after" validate:"omitempty,gte=0"`
	// WarnBefore is how long before that events announce it; default 12 h, and 1 h in "test".
	WarnBefore *time.Duration `yaml:"warn_before" validate:"omitempty,gte=0"`
	// ForceInterval lies between two forced pods of a node, and of a budget; default 5 m.
	ForceInterval *time.Duration `yaml:"force_interval" validate:"omitempty,gte=0"`
	// SiblingsReady is how long the other pods of a budget have to have been ready before one is
	// forced; default 1 h.
	SiblingsReady *time.Duration `yaml:"siblings_ready" validate:"omitempty,gte=0"`
	// Deadline is the time from the beginning of a drain after which siblings no longer postpone a
	// force; default 96 h, and 12 h in "test". 0 means that they always do.
	Deadline *time.Duration `yaml:"deadline" validate:"omitempty,gte=0"`
	// OnBlock is what happens to a node that is being drained when a block begins: "cordoned"
	// (default) leaves it as it is, "uncordon" lets pods onto it until the block ends.
	OnBlock *string `yaml:"on_block" validate:"omitempty,oneof=cordoned uncordon"`
	// DetachWithin is how long an empty node waits for its volumes to be detached before its
	// instance is ended; default 5 m. 0 means that nobody waits.
	DetachWithin *time.Duration `yaml:"detach_within" validate:"omitempty,gte=0"`
}

// testing are the defaults for the environment "test".
var testing = Gentleness{ForceAfter: new(8 * time.Hour), WarnBefore: new(time.Hour), Deadline: new(12 * time.Hour)}

const hold, evict = "hold", "evict"

// Policy is how the nodes of a cluster's pool are drained. An item of the pool wins over one of
// the cluster, that one over the environment, and that over the rest of the configuration.
func (d Drain) Policy(cluster registry.Cluster, pool string) (drain.Policy, error) {
	var byPool, byCluster Gentleness
	if err := items(cluster, pool, "drain", &byPool, &byCluster); err != nil {
		return drain.Policy{}, err
	}
	own, standard := d.Environments[cluster.Environment], Gentleness{}
	if cluster.Environment == "test" {
		standard = testing
	}
	layers := []Gentleness{byPool, byCluster, own, standard, d.Gentleness}
	p := drain.Policy{
		ImplicitBudget:  *first(layers, func(g Gentleness) *int { return g.ImplicitBudgetPercent }),
		JobsWithin:      *first(layers, func(g Gentleness) *time.Duration { return g.JobsWithin }),
		HoldUnmanaged:   *first(layers, func(g Gentleness) *string { return g.Unmanaged }) == hold,
		HoldLocalData:   *first(layers, func(g Gentleness) *string { return g.LocalData }) == hold,
		UncordonOnBlock: *first(layers, func(g Gentleness) *string { return g.OnBlock }) == "uncordon",
		DetachWithin:    *first(layers, func(g Gentleness) *time.Duration { return g.DetachWithin }),
		Force: drain.ForcePolicy{
			After:         *first(layers, func(g Gentleness) *time.Duration { return g.ForceAfter }),
			WarnBefore:    *first(layers, func(g Gentleness) *time.Duration { return g.WarnBefore }),
			Interval:      *first(layers, func(g Gentleness) *time.Duration { return g.ForceInterval }),
			SiblingsReady: *first(layers, func(g Gentleness) *time.Duration { return g.SiblingsReady }),
			Deadline:      *first(layers, func(g Gentleness) *time.Duration { return g.Deadline }),
		},
	}
	var problem error
	if byPool != (Gentleness{}) || byCluster != (Gentleness{}) {
		contradictions(p.Force, func(field, text string) {
			problem = fmt.Errorf("registry: cluster %s, pool %s: fairway.drain.%s %s", cluster.ID, pool, field, text)
		})
	}
	return p, problem
}

// first returns what the first layer says that says something; the last one always does.
func first[L, V any](layers []L, get func(L) *V) *V {
	values := make([]*V, len(layers))
	for i, layer := range layers {
		values[i] = get(layer)
	}
	return cmp.Or(values...)
}

// Check reports settings that contradict each other.
func (c *Config) Check(report func(field, format string, args ...any)) {
	check := func(at, environment string) {
		p, err := c.Drain.Policy(registry.Cluster{Environment: environment}, "")
		if err != nil {
			report(at, "%v", err)
			return
		}
		contradictions(p.Force, func(field, problem string) { report(at+"."+field, "%s", problem) })
	}
	check("drain", "")
	for _, environment := range slices.Sorted(maps.Keys(c.Drain.Environments)) {
		check("drain.environments."+environment, environment)
	}
	c.checkUpdate(report)
	c.Notify.check(report)
	c.checkRoll(report)
	c.Registry.check(report)
	c.AWS.check(report)
	c.checkRollout(report)
	c.checkWebhook(report)
	c.checkPipeline(report)
	c.checkTests(report)
}

func contradictions(p drain.ForcePolicy, report func(field, problem string)) {
	if p.Deadline > 0 && p.Deadline < p.After {
		report("deadline", fmt.Sprintf("is %s; must be at least force_after, which is %s", p.Deadline, p.After))
	}
	if p.WarnBefore > p.After {
		report("warn_before", fmt.Sprintf("is %s; must be at most force_after, which is %s", p.WarnBefore, p.After))
	}
}
