package config

import (
	"maps"
	"slices"
	"time"

	"github.com/fairway-project/fairway/roll"
	"github.com/fairway-project/fairway/rollout"
)

// Settings are how the clusters of a channel follow its head.
func (r Rollout) Settings(channel string) (rollout.Settings, error) {
	layers := []Waves{r.Channels[channel], r.Waves}
	s := rollout.Settings{
		CanaryLevel: *first(layers, func(w Waves) *int { return w.CanaryLevel }),
		BakeSeconds: int(*first(layers, func(w Waves) *time.Duration { return w.Bake }) / time.Second),
		MaxFailed:   *first(layers, func(w Waves) *int { return w.MaxFailed }),
		Health:      *first(layers, func(w Waves) *bool { return w.Health }),
	}
	for _, size := range *first(layers, func(w Waves) *[]string { return w.Groups }) {
		share, err := roll.ParseShare(size)
		if err != nil {
			return s, err
		}
		s.Groups = append(s.Groups, rollout.Group(share))
	}
	return s, nil
}

func (c *Config) checkRollout(report func(field, format string, args ...any)) {
	check := func(at string, w Waves) {
		if w.Groups == nil {
			return
		}
		for _, size := range *w.Groups {
			if share, err := roll.ParseShare(size); err != nil || share == (roll.Share{}) {
				report(at+".groups", "holds %q; each must be a number of clusters such as 3, or a percentage such as 10%%", size)
			}
		}
	}
	check("rollout", c.Rollout.Waves)
	for _, channel := range slices.Sorted(maps.Keys(c.Rollout.Channels)) {
		check("rollout.channels."+channel, c.Rollout.Channels[channel])
	}
}
