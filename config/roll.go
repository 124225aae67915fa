package config

import (
	"maps"
	"slices"
	"time"

	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/roll"
)

// Roll says how pools are rolled: by default, and by the environment of a cluster.
type Roll struct {
	Pace `yaml:",inline"`
	// Environments override single settings for the clusters of an environment.
	Environments map[string]Pace `yaml:"environments" validate:"dive"`
}

// Pace holds the settings of a roll. What an environment leaves out is as by default.
type Pace struct {
	// Surge is how much larger a pool may be for the time of a roll, within its maximum: a number
	// of nodes, or a percentage of them, which is at least one. Default "10%". 0 means that a node
	// is emptied and ended before its replacement is launched.
	Surge *string `yaml:"surge"`
	// SpotSurge is the same for pools of Spot instances; default "0".
	SpotSurge *string `yaml:"spot_surge"`
	// Unavailable is how many nodes may be missing at a time where the surge is 0, as a number or a
	// percentage; at least one. Default "1".
	Unavailable *string `yaml:"unavailable"`
	// Parallel is how many nodes of a pool are replaced at a time; the first one goes alone, then
	// batches double up to this. Default 5. Nodes of the control plane go one at a time.
	Parallel *int `yaml:"parallel" validate:"omitempty,gte=1"`
	// Validate is how long the replacement of the first node has to stay usable, with pods on it,
	// before others follow; default 1 m.
	Validate *time.Duration `yaml:"validate" validate:"omitempty,gte=0"`
	// BadReplacements is how many new instances may fail to become usable nodes before the roll
	// stops; each is replaced until then. Default 3.
	BadReplacements *int `yaml:"bad_replacements" validate:"omitempty,gte=1"`
	// QuarantineAfter is how long a drain may last, blocked time not counted, before the node is
	// left for later and others go on; default 1 h. 0 means for ever.
	QuarantineAfter *time.Duration `yaml:"quarantine_after" validate:"omitempty,gte=0"`
	// QuarantineLimit is how many nodes of a pool may be left for later at a time; default 3.
	QuarantineLimit *int `yaml:"quarantine_limit" validate:"omitempty,gte=0"`
	// MaxNodeAge is the age at which a node is old even if its launch template is the current one;
	// default 0, which means never.
	MaxNodeAge *time.Duration `yaml:"max_node_age" validate:"omitempty,gte=0"`
	// Fallbacks are tried in this order where AWS lacks capacity: "instance-type" (another one of
	// the pool's), "zone" (another one, where no volumes are bound to this one), "on-demand"
	// (instead of Spot), "smaller-surge", "in-place". Default: instance-type, zone, smaller-surge.
	// AWS may replace running Spot instances, without a drain, when a group is told to launch On-Demand.
	Fallbacks *[]string `yaml:"fallbacks" validate:"omitempty,dive,oneof=instance-type zone on-demand smaller-surge in-place"`
	// ShortageAfter is how long AWS may lack capacity before the next fallback is tried; default 5 m.
	ShortageAfter *time.Duration `yaml:"shortage_after" validate:"omitempty,gte=0"`
}

// Limits are numbers of nodes that are replaced at a time over all clusters; 0 means no limit.
type Limits struct {
	Fleet   int `yaml:"fleet" validate:"gte=0"`   // default 50
	Account int `yaml:"account" validate:"gte=0"` // of an AWS account; default 10
	Region  int `yaml:"region" validate:"gte=0"`  // default 25
}

// Settings are how a cluster's pool is rolled. An item of the pool wins over one of the cluster,
// that one over the environment, and that over the rest of the configuration.
func (c Config) Settings(cluster registry.Cluster, pool string) (roll.Settings, error) {
	var byPool, byCluster Pace
	if err := items(cluster, pool, "roll", &byPool, &byCluster); err != nil {
		return roll.Settings{}, err
	}
	layers := []Pace{byPool, byCluster, c.Roll.Environments[cluster.Environment], c.Roll.Pace}
	surge := *first(layers, func(p Pace) *string { return p.Surge })
	if found, known := cluster.Pool(pool); known && found.Spot() {
		surge = *first(layers, func(p Pace) *string { return p.SpotSurge })
	}
	share, err := roll.ParseShare(surge)
	if err != nil {
		return roll.Settings{}, err
	}
	unavailable, err := roll.ParseShare(*first(layers, func(p Pace) *string { return p.Unavailable }))
	if err != nil {
		return roll.Settings{}, err
	}
	s := roll.Settings{
		Surge:           share,
		Unavailable:     unavailable,
		Parallel:        *first(layers, func(p Pace) *int { return p.Parallel }),
		Validate:        *first(layers, func(p Pace) *time.Duration { return p.Validate }),
		BadReplacements: *first(layers, func(p Pace) *int { return p.BadReplacements }),
		QuarantineAfter: *first(layers, func(p Pace) *time.Duration { return p.QuarantineAfter }),
		QuarantineLimit: *first(layers, func(p Pace) *int { return p.QuarantineLimit }),
		MaxAge:          *first(layers, func(p Pace) *time.Duration { return p.MaxNodeAge }),
		ShortageAfter:   *first(layers, func(p Pace) *time.Duration { return p.ShortageAfter }),
		Limits:          roll.Limits(c.Limits),
	}
	for _, kind := range *first(layers, func(p Pace) *[]string { return p.Fallbacks }) {
		s.Fallbacks = append(s.Fallbacks, roll.FallbackKind(kind))
	}
	return s, nil
}

func (c *Config) checkRoll(report func(field, format string, args ...any)) {
	check := func(at string, p Pace) {
		for _, share := range []struct {
			field string
			value *string
		}{{"surge", p.Surge}, {"spot_surge", p.SpotSurge}, {"unavailable", p.Unavailable}} {
			if share.value == nil {
				continue
			}
			if _, err := roll.ParseShare(*share.value); err != nil {
				report(at+"."+share.field, "%v", err)
			}
		}
	}
	check("roll", c.Roll.Pace)
	for _, environment := range slices.Sorted(maps.Keys(c.Roll.Environments)) {
		check("roll.environments."+environment, c.Roll.Environments[environment])
	}
}
