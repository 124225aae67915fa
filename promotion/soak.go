package promotion

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Soak is for how long the landings of a channel have run on all of its clusters, healthy and
// unblocked. The zero value knows no landings and has seen no cluster.
type Soak struct {
	// Landings are of the channel's first-parent line, oldest first; at most MostLandings. Where there have been
	// more, those that have run for long are the fewer, the longer that is.
	Landings []Landing `json:"landings,omitempty"`
	// Clock is for how long altogether the clusters have been healthy and unblocked, up to Until.
	Clock time.Duration `json:"clock,omitempty"`
	Until time.Time     `json:"until,omitzero"`
	// Held is why the clock stands still; empty while it runs.
	Held []string `json:"held,omitempty"`
	// Seen means that there has been a view. Fresh is until when the newest one may be believed; zero: for ever.
	Seen  bool      `json:"seen,omitempty"`
	Fresh time.Time `json:"fresh,omitzero"`
	// Running is what the clusters had at the newest view, sorted; empty for a channel without clusters.
	Running []Running `json:"running,omitempty"`
}

// Running is a commit with the clusters that have it.
type Running struct {
	Commit   string   `json:"commit"`   // empty where it is not known
	Clusters []string `json:"clusters"` // the first few of them
	Count    int      `json:"count"`
}

// MostLandings bounds what a channel remembers.
const MostLandings = 300

// Bounds of what a soak holds for people.
const (
	mostHeld   = 10
	mostNamed  = 3
	mostText   = 300 // bytes of a reason
	mostTitle  = 120 // bytes
	mostPerson = 60  // bytes
)

// ClusterView is a cluster of a channel.
type ClusterView struct {
	ID string
	// Commit is what its current version is of, until an update has ended that of before; may be empty.
	Commit string
	// Problem is why it does not count as healthy and unblocked: an update has failed, it is sick or blocked, or has
	// not been looked at. Empty otherwise.
	Problem string
}

// View is what is known of the clusters of a channel at a time.
type View struct {
	// Clusters that are being made or removed are left out: they prove nothing.
	Clusters []ClusterView
	// Held are the blocks of the channel and the fleet.
	Held []string
	// Fresh is until when the view may be believed; zero: for ever, which only is right without clusters.
	Fresh time.Time
}

// Land takes landings in, oldest first, whose times are now. What is known already keeps its time and its
// clock. Rewritten means that they are the newest of the line, not those that are new since the newest that
// is known: what is on both lines keeps its clock too, what is only on the old one is forgotten. What
// is in keep is not forgotten for there being too many.
func (s *Soak) Land(now time.Time, landings []Landing, rewritten bool, keep ...string) {
	s.count(now)
	kept := slices.Clone(s.Landings)
	fresh := landings
	if rewritten {
		// Two lines that meet in a commit are the same before it.
		kept = nil
		if i := slices.IndexFunc(landings, func(l Landing) bool { return s.Index(l.Commit) >= 0 }); i >= 0 {
			kept = slices.Clone(s.Landings[:s.Index(landings[i].Commit)])
		}
	} else {
		for i, landing := range slices.Backward(landings) {
			if s.Index(landing.Commit) >= 0 { // told twice, or in part
				fresh = landings[i+1:]
				break
			}
		}
	}
	for _, landing := range fresh {
		if landing.Commit == "" {
			continue
		}
		if i := s.Index(landing.Commit); i >= 0 {
			known := s.Landings[i]
			known.Kind = cmp.Or(landing.Kind, known.Kind)
			kept = append(kept, known)
			continue
		}
		kept = append(kept, Landing{
			Commit: landing.Commit, Title: cut(landing.Title, mostTitle), Author: cut(landing.Author, mostPerson), At: now, Kind: landing.Kind,
		})
	}
	for len(kept) > MostLandings {
		i := s.spare(kept, keep)
		kept = slices.Delete(kept, i, i+1)
	}
	s.Landings = kept
	s.mark()
}

// spare is which landing is missed least: not the oldest, which on a busy channel may soak for longer than it
// takes for MostLandings to come after it. Of those that every cluster has, it is the one whose neighbours
// began to soak closest to each other, compared with how long ago that was. What clusters run is kept.
func (s *Soak) spare(landings []Landing, keep []string) int {
	needed := func(l Landing) bool {
		return slices.Contains(keep, l.Commit) || slices.ContainsFunc(s.Running, func(r Running) bool { return r.Commit == l.Commit })
	}
	best, least := -1, 0.0
	for i := 1; i < len(landings)-1; i++ {
		before, l, next := landings[i-1], landings[i], landings[i+1]
		if !l.Ran || !next.Ran || needed(l) {
			continue
		}
		if missed := float64(next.Began-before.Began) / float64(s.Clock-l.Began+time.Second); best < 0 || missed < least {
			best, least = i, missed
		}
	}
	if best < 0 {
		best = slices.IndexFunc(landings[:len(landings)-1], func(l Landing) bool { return !l.Ran && !needed(l) })
	}
	return max(best, 0)
}

// Observe counts the time since the last call, as far as the view of then may be believed, and goes by
// this view from now on.
func (s *Soak) Observe(now time.Time, v View) {
	s.count(now)
	s.Seen, s.Fresh, s.Held, s.Running = true, v.Fresh, nil, nil
	running := map[string]*Running{}
	var held, commits []string
	for _, reason := range v.Held {
		held = append(held, cut(reason, mostText))
	}
	if len(v.Clusters) > 0 && v.Fresh.IsZero() {
		held = append(held, "nobody has looked at the clusters yet")
	}
	for _, cluster := range slices.SortedFunc(slices.Values(v.Clusters), func(a, b ClusterView) int { return cmp.Compare(a.ID, b.ID) }) {
		if cluster.Problem != "" {
			held = append(held, cut("cluster "+cluster.ID+": "+cluster.Problem, mostText))
		}
		group := running[cluster.Commit]
		if group == nil {
			group = &Running{Commit: cluster.Commit}
			running[cluster.Commit] = group
			commits = append(commits, cluster.Commit)
		}
		if group.Count++; len(group.Clusters) < mostNamed {
			group.Clusters = append(group.Clusters, cluster.ID)
		}
	}
	if more := len(held) - mostHeld; more > 0 {
		held = append(held[:mostHeld], fmt.Sprintf("and %d more", more))
	}
	s.Held = held
	slices.Sort(commits) // workflows must not go through maps
	for _, commit := range commits {
		s.Running = append(s.Running, *running[commit])
	}
	s.mark()
}

// At is the soak as of now, for reading: a view that has become too old holds the clock.
func (s Soak) At(now time.Time) Soak {
	stale := s.Seen && !s.Fresh.IsZero() && now.After(s.Fresh)
	s.count(now)
	if !s.Seen {
		s.Held = []string{"nobody has looked at the clusters yet"}
	} else if stale && len(s.Held) == 0 {
		s.Held = []string{"no look at the clusters has been heard of since, at the latest, " + s.Fresh.UTC().Format(time.RFC3339)}
	}
	return s
}

// Soaked is for how long a landing has soaked; 0 for one that not every cluster has.
func (s Soak) Soaked(i int) time.Duration {
	if !s.Landings[i].Ran {
		return 0
	}
	return s.Clock - s.Landings[i].Began
}

// Index is where a landing is; -1 if it is not known.
func (s Soak) Index(commit string) int {
	if commit == "" {
		return -1
	}
	return slices.IndexFunc(s.Landings, func(l Landing) bool { return l.Commit == commit })
}

// count brings the clock forward to now. Time after the end of what the view was good for does not
// count, and none is counted twice if now is earlier than at a call before.
func (s *Soak) count(now time.Time) {
	end := now
	if !s.Fresh.IsZero() && s.Fresh.Before(end) {
		end = s.Fresh
	}
	if s.Seen && len(s.Held) == 0 && end.After(s.Until) {
		s.Clock += end.Sub(s.Until)
	}
	if now.After(s.Until) {
		s.Until = now
	}
}

// mark starts the clocks of landings that every cluster has now, and stops those of the others.
func (s *Soak) mark() {
	newest := len(s.Landings) - 1 // that every cluster has
	for _, running := range s.Running {
		newest = min(newest, s.Index(running.Commit))
	}
	for i := range s.Landings {
		landing := &s.Landings[i]
		switch has := s.Seen && i <= newest; {
		case !has:
			landing.Ran, landing.Began = false, 0
		case !landing.Ran:
			landing.Ran, landing.Began = true, s.Clock
		}
	}
}

// lagging says which clusters do not have a landing, for people.
func (s Soak) lagging(i int) string {
	var names []string
	count := 0
	for _, running := range s.Running {
		if s.Index(running.Commit) < i {
			names = append(names, running.Clusters...)
			count += running.Count
		}
	}
	slices.Sort(names)
	names = names[:min(len(names), mostNamed)]
	switch more := count - len(names); {
	case count == 0:
		return ""
	case more > 0:
		return fmt.Sprintf("clusters %s and %d more do not have it yet", strings.Join(names, ", "), more)
	case count == 1:
		return "cluster " + names[0] + " does not have it yet"
	default:
		return "clusters " + strings.Join(names, ", ") + " do not have it yet"
	}
}

// cut shortens a text to some bytes, at the end of a character.
func cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most-len("…")], "") + "…"
}
