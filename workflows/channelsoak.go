package workflows

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fairway-project/fairway/promotion"
)

// mostShown bounds lists for people.
const mostShown = 5

// land takes the landings out of a sync and into the soak. People hear of those on a channel that others
// are promoted to which came neither by a promotion nor as a hotfix; not of the line's past, the first time.
func (c *channelActor) land(now time.Time, s *ChannelSync) {
	landings, rewritten := s.Landings, s.Rewritten
	s.Landings, s.Rewritten = nil, false // news, not a state
	if len(landings) == 0 {
		return
	}
	soak := &c.Promotions.Soak
	var strays []promotion.Landing
	for i := range landings {
		each := &landings[i]
		each.Title, each.Author = forPeople(each.Title), forPeople(each.Author)
		if (each.Kind == promotion.Mixed || each.Kind == promotion.Direct) && len(soak.Landings) > 0 && soak.Index(each.Commit) < 0 {
			strays = append(strays, *each)
		}
		c.restored(*each)
	}
	var reverted []string // ends of ranges, without which nobody could tell what contains them
	for _, revert := range c.Promotions.Reverts {
		reverted = append(reverted, revert.Head, revert.Commit)
	}
	soak.Land(now, landings, rewritten, reverted...)
	if len(strays) > 0 {
		c.notes = append(c.notes, note{strays[len(strays)-1].Commit, StrayLanding, c.stray(strays)})
	}
}

// restored completes the newest revert that waited for people to merge its pull request.
func (c *channelActor) restored(landing promotion.Landing) {
	if landing.Kind != promotion.Reverted {
		return
	}
	for i := range slices.Backward(c.Promotions.Reverts) {
		if revert := &c.Promotions.Reverts[i]; revert.Commit == "" && revert.PullRequest > 0 && revert.Lifted.IsZero() {
			revert.Commit = landing.Commit
			return
		}
	}
}

// stray says what has landed in a way that is not meant to be.
func (c *channelActor) stray(landings []promotion.Landing) string {
	var each []string
	for _, l := range landings[max(0, len(landings)-mostShown):] {
		how := "without a pull request"
		if l.Kind == promotion.Mixed {
			how = "with changes of another channel and changes of its own"
		}
		each = append(each, fmt.Sprintf("%s by %s %s", commitName(l.Commit, l.Title), l.Author, how))
	}
	text := fmt.Sprintf("What has landed on channel %s is neither a promotion nor a hotfix: %s", c.Channel, strings.Join(each, "; "))
	if more := len(landings) - len(each); more > 0 {
		text += fmt.Sprintf("; and %d before that", more)
	}
	return text + "."
}

// observe has the soak clock go by what is known of the clusters now.
func (c *channelActor) observe(now time.Time) { c.Promotions.Soak.Observe(now, c.view(now)) }

func (c *channelActor) view(now time.Time) promotion.View {
	var v promotion.View
	for _, b := range c.Blocks.At(now, "") {
		v.Held = append(v.Held, forPeople(b.String()))
	}
	if c.Looked.Blocked != "" {
		v.Held = append(v.Held, c.Looked.Blocked)
	}
	if c.Stopped != "" {
		v.Held = append(v.Held, c.Stopped)
	}
	for i, m := range c.Members {
		if aside(c.Clusters[i].Want.Lifecycle) {
			continue
		}
		cluster := promotion.ClusterView{ID: m.ID, Commit: commitOf(m.Current), Problem: c.problem(now, i)}
		if good := c.goodUntil(m); cluster.Problem == "" && (v.Fresh.IsZero() || good.Before(v.Fresh)) {
			v.Fresh = good
		}
		v.Clusters = append(v.Clusters, cluster)
	}
	if len(v.Clusters) > 0 && v.Fresh.IsZero() {
		v.Fresh = now
	}
	return v
}

// problem is why a cluster does not count as healthy and unblocked; empty if it does.
func (c *channelActor) problem(now time.Time, i int) string {
	m, want := c.Members[i], c.Clusters[i].Want
	switch good := c.goodUntil(m); {
	case m.FailedUnix > 0: // also if a person lets the rollout go on
		return strings.TrimSuffix("an update has failed: "+forPeople(m.Problem), ": ")
	case m.Broken != "": // also if a new head is wanted since
		return "an update has failed, and none has mended it since: " + m.Broken
	case want.Block != "":
		return "it is blocked: " + forPeople(want.Block)
	case m.Blocked != "":
		return "it is blocked: " + m.Blocked
	case m.HeldUnix > 0:
		return "a block keeps it from going on"
	case m.Sick != "":
		return "it is not healthy: " + m.Sick
	case good.IsZero():
		return "it has not been seen to be healthy yet"
	case !now.Before(good):
		return "it has not been seen to be healthy since " + time.Unix(m.HealthyUnix, 0).UTC().Format(time.RFC3339)
	}
	return ""
}

// newest is the newest landing that is known; empty if none is.
func (c *channelActor) newest() string {
	if known := len(c.Promotions.Soak.Landings); known > 0 {
		return c.Promotions.Soak.Landings[known-1].Commit
	}
	return ""
}

// soaks says whether something may be promoted from here: it soaks, or waits for something else, for which
// the clusters have to stay healthy.
func (c *channelActor) soaks() bool {
	newest := c.newest()
	return newest != "" && slices.ContainsFunc(c.Promoted, func(has string) bool { return has != newest })
}

// soakDetails is a paragraph for people; empty where nothing is promoted from here.
func (c *channelActor) soakDetails(now time.Time) string {
	soak := c.Promotions.Soak.At(now)
	if c.SoakSeconds == 0 || len(soak.Landings) == 0 {
		return ""
	}
	needed := time.Duration(c.SoakSeconds) * time.Second
	text := "**Soak**: "
	if len(soak.Held) > 0 {
		text += "the clock stands still: " + strings.Join(soak.Held, "; ") + "."
	} else {
		text += "the clock runs."
	}
	var lines []string
	for i := len(soak.Landings) - 1; i >= 0 && len(lines) < mostShown; i-- {
		l, soaked := soak.Landings[i], soak.Soaked(i).Truncate(time.Second)
		switch name := fmt.Sprintf("\n- `%s` %s", l.Commit[:min(12, len(l.Commit))], l.Title); {
		case !l.Ran:
			lines = append(lines, name+": not on every cluster")
		case soaked < needed:
			lines = append(lines, fmt.Sprintf("%s: %s of %s", name, soaked, needed))
		default:
			lines = append(lines, fmt.Sprintf("%s: has soaked for %s", name, needed))
			i = 0 // so have those before
		}
	}
	return text + "\n" + strings.Join(lines, "")
}
