package rollout

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Decision is what may happen to a channel's clusters now.
type Decision struct {
	// Allow are the ids of waiting clusters that may go on, in the order of the waves.
	Allow []string
	// Wave is how many waves have been let go on.
	Wave int
	// Next is when the next wave may go on; zero if that is not known yet, or there is none.
	Next time.Time
	// Stopped is why no more clusters are let go on; empty if they are.
	Stopped string
	// Unhealthy is why the next wave waits although the one before has baked: who has not been seen to
	// be healthy since then. Overdue is when people are to hear of it: until then somebody may only not
	// have looked yet. Zero: at once.
	Unhealthy string
	Overdue   time.Time
	// Holding are the ids of those who Unhealthy is about.
	Holding []string
}

// Next decides from where the members stand now. It needs no memory: a new head sets all members
// that are not on it to Waiting, which begins anew. A wave may go on when the one before is over and
// has baked: canaries are over when all are Done, other waves also where the rest is held by a block
// of a single cluster, or has failed and MaxFailed allows it. With Settings.Health all that are Done in the
// waves before must not be Sick, and must have been seen to be healthy since the bake of their wave ended.
func Next(s Settings, members []Member, now time.Time) Decision {
	d := Decision{Stopped: stopped(s, members)}
	waves := Waves(s, members)
	for i, wave := range waves {
		if d.Stopped != "" {
			if slices.ContainsFunc(wave, func(m Member) bool { return m.State != Waiting }) {
				d.Wave = i + 1
			}
			continue
		}
		d.Wave = i + 1
		over, since := true, int64(0)
		for _, m := range wave {
			if m.State == Waiting {
				d.Allow = append(d.Allow, m.ID)
			}
			settled, at := m.settled(s, i == 0)
			over, since = over && settled, max(since, at)
		}
		if !over {
			return d
		}
		due := time.Unix(since, 0).Add(time.Duration(s.BakeSeconds) * time.Second)
		if waiting(waves[i+1:]) && now.Before(due) {
			d.Next = due
			return d
		}
		if !s.Health || !waiting(waves[i+1:]) {
			continue
		}
		if d.await(waves[:i+1], due); d.Unhealthy != "" {
			return d
		}
	}
	return d
}

// Overdue is how long after a bake a look at the health of clusters may come, before people are told that
// a rollout waits for it.
const Overdue = 5 * time.Minute

// await finds out whether the next wave has to wait for the health of waves that have baked: the last of
// them until due. Each of the others has been seen to be healthy at the end of its own bake.
func (d *Decision) await(waves [][]Member, due time.Time) {
	var sick, unseen []string
	for i, wave := range waves {
		for _, m := range wave {
			switch {
			case m.State != Done || m.Forgiven:
				continue
			case m.Sick != "":
				sick = append(sick, fmt.Sprintf("%s: %s", m.ID, strings.TrimSuffix(m.Sick, ".")))
			case i == len(waves)-1 && m.HealthyUnix < due.Unix():
				unseen = append(unseen, m.ID)
			default:
				continue
			}
			d.Holding = append(d.Holding, m.ID)
		}
	}
	switch {
	case len(sick) > 0:
		d.Unhealthy = fmt.Sprintf("%s not healthy (%s): mend them, or resume the rollout in spite of it", number(sick, "is", "are"), named(sick, "; "))
	case len(unseen) > 0:
		d.Unhealthy = fmt.Sprintf("%s not been seen to be healthy since the bake ended at %s (%s)",
			number(unseen, "has", "have"), due.UTC().Format(time.RFC3339), named(unseen, ", "))
		d.Overdue = due.Add(Overdue)
	}
}

// Waves sorts members into waves: the canaries, then groups as the settings size them. The least
// critical go first, of equal ones by their ids.
func Waves(s Settings, members []Member) [][]Member {
	if len(members) == 0 {
		return nil
	}
	sorted := slices.SortedFunc(slices.Values(members), func(a, b Member) int {
		return cmp.Or(cmp.Compare(a.Criticality, b.Criticality), cmp.Compare(a.ID, b.ID))
	})
	var canaries, rest []Member
	for _, m := range sorted {
		if m.Canary || m.Criticality <= s.CanaryLevel {
			canaries = append(canaries, m)
		} else {
			rest = append(rest, m)
		}
	}
	if len(canaries) == 0 {
		canaries, rest = rest[:1], rest[1:]
	}
	waves := [][]Member{canaries}
	for i, total := 0, len(rest); len(rest) > 0; i++ {
		size := len(rest)
		if len(s.Groups) > 0 {
			size = min(size, s.Groups[min(i, len(s.Groups)-1)].of(total))
		}
		waves = append(waves, rest[:size])
		rest = rest[size:]
	}
	return waves
}

// of is how many of some clusters the group takes, at least one.
func (g Group) of(clusters int) int {
	if g.Percent > 0 {
		return max(1, clusters*g.Percent/100)
	}
	return max(1, g.Count)
}

// heldAtLeast keeps a block of a moment from letting the next wave go on where nothing bakes.
const heldAtLeast = 60

// settled says whether the next wave need not wait for the member, and since when that is so.
func (m Member) settled(s Settings, canary bool) (bool, int64) {
	switch {
	case m.State == Done:
		return true, m.SinceUnix
	case m.State == Waiting:
		return false, 0
	case m.Forgiven:
		return true, m.FailedUnix
	case canary: // one that is held or has failed has proved nothing
		return false, 0
	case m.FailedUnix > 0:
		return true, m.FailedUnix
	case m.HeldUnix > 0:
		return true, m.HeldUnix + max(0, heldAtLeast-int64(s.BakeSeconds))
	}
	return false, 0
}

func waiting(waves [][]Member) bool {
	return slices.ContainsFunc(waves, func(wave []Member) bool {
		return slices.ContainsFunc(wave, func(m Member) bool { return m.State == Waiting })
	})
}

// mostNamed bounds how many clusters a text names.
const mostNamed = 10

func stopped(s Settings, members []Member) string {
	var failed []string
	for _, m := range members {
		if m.FailedUnix > 0 && !m.Forgiven {
			failed = append(failed, m.ID)
		}
	}
	if len(failed) <= s.MaxFailed {
		return ""
	}
	return fmt.Sprintf("%s failed (%s), and max_failed is %d: mend them, or resume the rollout without them", number(failed, "has", "have"), named(failed, ", "), s.MaxFailed)
}

// number is such as "1 cluster has" or "2 clusters have".
func number(clusters []string, one, more string) string {
	if len(clusters) == 1 {
		return "1 cluster " + one
	}
	return fmt.Sprintf("%d clusters %s", len(clusters), more)
}

func named(clusters []string, separator string) string {
	slices.Sort(clusters)
	text := strings.Join(clusters[:min(len(clusters), mostNamed)], separator)
	if more := len(clusters) - mostNamed; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}
