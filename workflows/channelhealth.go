package workflows

import (
	"fmt"
	"slices"
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/fairway-project/fairway/rollout"
)

// For how long a look at health may be believed if it does not say so, and at most.
const (
	lookGood       = 3 * time.Minute
	lookGoodAtMost = time.Hour
)

// waitsForHealth marks runs of channels' actors whose waves go by the health of clusters. Histories of
// before have no mark, and go by time alone until the actor's next run.
const waitsForHealth = "waits-for-health"

// hearHealth takes looks at the health of clusters.
func (c *channelActor) hearHealth(ctx workflow.Context, selector workflow.Selector) {
	hear(ctx, selector, HealthName, func(health ChannelHealth) {
		c.look(workflow.Now(ctx), health)
		c.learn(ctx)
	})
}

// look takes over what somebody has seen. What is not newer than what is known is no news.
func (c *channelActor) look(now time.Time, h ChannelHealth) {
	at := h.At
	if at.After(now) { // clocks differ
		at = now
	}
	if !at.After(c.Looked.At) {
		return
	}
	good := int64(lookGood / time.Second)
	if h.GoodSeconds > 0 {
		good = min(h.GoodSeconds, int64(lookGoodAtMost/time.Second))
	}
	c.Looked = Looked{At: at, GoodSeconds: good, Blocked: forPeople(h.Blocked)}
	for _, seen := range h.Clusters {
		_, m := c.find(seen.Cluster)
		if m == nil {
			continue // it has left the channel
		}
		m.Blocked, m.Sick = forPeople(seen.Blocked), ""
		switch more := len(seen.Problems) - 1; {
		case more < 0:
			m.HealthyUnix = at.Unix()
		case more == 0:
			m.Sick = forPeople(seen.Problems[0])
		default:
			m.Sick = fmt.Sprintf("%s (and %d more)", forPeople(seen.Problems[0]), more)
		}
	}
}

// goodUntil is until when it may be believed that a cluster is healthy; the zero time if that was never seen.
func (c *channelActor) goodUntil(m Member) time.Time {
	if m.HealthyUnix == 0 {
		return time.Time{}
	}
	return time.Unix(m.HealthyUnix+c.Looked.GoodSeconds, 0)
}

// watched are the clusters whose health matters now: all where something soaks, those that are on the head
// where others wait for their waves.
func (c *channelActor) watched() Watched {
	w := Watched{Soaks: c.soaks(), Blocked: c.Looked.Blocked}
	bakes := c.bakes()
	for i, m := range c.Members {
		if !aside(c.Clusters[i].Want.Lifecycle) && (w.Soaks || (bakes && m.State == rollout.Done)) {
			w.Clusters = append(w.Clusters, m.ID)
		}
	}
	return w
}

// bakes says whether a wave that is over holds up the next one, or will.
func (c *channelActor) bakes() bool {
	return c.Settings.Health && c.Stopped == "" && slices.ContainsFunc(c.Members, func(m Member) bool { return m.Wave >= 0 && m.State == rollout.Waiting })
}

// next decides who may go on.
func (c *channelActor) next(ctx workflow.Context) rollout.Decision {
	settings := c.Settings
	if settings.Health && workflow.GetVersion(ctx, waitsForHealth, workflow.DefaultVersion, 1) == workflow.DefaultVersion {
		settings.Health = false
	}
	return rollout.Next(settings, c.waved(), workflow.Now(ctx))
}
