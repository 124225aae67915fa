package fleet

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"golang.org/x/sync/errgroup"

	"github.com/fairway-project/fairway/activities"
	"github.com/fairway-project/fairway/workflows"
)

// Watch implements workflows.Watch.
type Watch struct {
	Temporal client.Client
	// Every is the time between two looks, of which an actor has to know how long it may believe one;
	// default 1 m.
	Every time.Duration
	// Health looks at a cluster once. It must not heartbeat, and end with its context.
	Health func(ctx context.Context, cluster string) (workflows.Health, error)
}

var _ workflows.Watch = (*Watch)(nil)

// Bounds of a look.
const (
	lookWithin   = 20 * time.Second // at a cluster
	mostProblems = 3                // of a cluster that are told
	mostText     = 200              // characters of each
	goodAtLeast  = 10 * time.Second
)

// LookAtHealth implements workflows.Watch. What cannot be found out is a problem of the cluster, or a block
// of the fleet: nothing counts as healthy or unblocked that was not seen to be.
func (w *Watch) LookAtHealth(ctx context.Context, _ workflows.LookAtHealth) (workflows.LookedAt, error) {
	defer beating(ctx)()
	ctx, cancel := stopping(ctx)
	defer cancel()
	began := time.Now()
	var looked workflows.LookedAt
	channels, err := running(ctx, w.Temporal, `WorkflowType = "Channel"`)
	if err != nil {
		return looked, cmp.Or(context.Cause(ctx), err)
	}
	watched, problems := w.watched(ctx, slices.Sorted(maps.Keys(channels)))
	if len(watched) > 0 {
		fleet := w.blocked(ctx, "the fleet", workflows.FleetID)
		slots := make(chan struct{}, atOnce) // of all channels together
		var mu sync.Mutex
		var group sync.WaitGroup
		for channel, wanted := range watched {
			group.Go(func() {
				health := w.look(ctx, slots, wanted.Clusters)
				health.At, health.Blocked = began, fleet
				health.GoodSeconds = int64(max(2*(cmp.Or(w.Every, time.Minute)+time.Since(began)), goodAtLeast) / time.Second)
				err := w.tell(ctx, channel, wanted, health)
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					problems = append(problems, err.Error())
				}
				looked.Clusters += len(health.Clusters)
				for _, cluster := range health.Clusters {
					if len(cluster.Problems) > 0 {
						looked.Unhealthy = append(looked.Unhealthy, cluster.Cluster)
					}
				}
			})
		}
		group.Wait()
	}
	if ctx.Err() != nil {
		return looked, context.Cause(ctx)
	}
	slices.Sort(problems)
	slices.Sort(looked.Unhealthy)
	looked.Problems = problems
	return looked, nil
}

// watched asks the actors of channels what they want to know, and leaves out those that want nothing. One
// that does not answer keeps the others from nothing.
func (w *Watch) watched(ctx context.Context, ids []string) (watched map[string]workflows.Watched, problems []string) {
	var mu sync.Mutex
	watched = map[string]workflows.Watched{}
	var group errgroup.Group
	group.SetLimit(atOnce)
	for _, id := range ids {
		group.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, lookWithin)
			defer cancel()
			var wanted workflows.Watched
			_, err := query(ctx, w.Temporal, id, workflows.WatchedQuery, &wanted)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				problems = append(problems, err.Error())
			} else if len(wanted.Clusters) > 0 || wanted.Soaks {
				watched[id] = wanted
			}
			return nil
		})
	}
	_ = group.Wait()
	return watched, problems
}

// look looks at clusters, a few at a time.
func (w *Watch) look(ctx context.Context, slots chan struct{}, clusters []string) workflows.ChannelHealth {
	health := workflows.ChannelHealth{Clusters: make([]workflows.ClusterHealth, len(clusters))}
	var group sync.WaitGroup
	for i, id := range clusters {
		group.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			if ctx.Err() == nil {
				health.Clusters[i] = w.cluster(ctx, id)
			}
		})
	}
	group.Wait()
	return health
}

func (w *Watch) cluster(ctx context.Context, id string) workflows.ClusterHealth {
	looking, cancel := context.WithTimeout(ctx, lookWithin)
	defer cancel()
	seen := workflows.ClusterHealth{Cluster: id}
	health, err := w.Health(looking, id)
	switch {
	case looking.Err() != nil:
		seen.Problems = []string{fmt.Sprintf("It does not answer within %s.", lookWithin)}
	case err != nil:
		seen.Problems = []string{"Its health is not known: " + err.Error()}
	case !health.Healthy && len(health.Problems) == 0:
		seen.Problems = []string{"It is not healthy."}
	default:
		seen.Problems = health.Problems
	}
	if more := len(seen.Problems) - mostProblems; more > 0 {
		seen.Problems = append(slices.Clone(seen.Problems[:mostProblems-1]), fmt.Sprintf("There are %d more problems.", more+1))
	}
	for i, problem := range seen.Problems {
		seen.Problems[i] = brief(problem)
	}
	seen.Blocked = w.blocked(ctx, "cluster "+id, workflows.ClusterID(id))
	return seen
}

// blocked is why a cluster or the fleet is blocked as a whole, by blocks of its own; empty if it is not. An
// actor that does not exist blocks nothing.
func (w *Watch) blocked(ctx context.Context, what, actor string) string {
	ctx, cancel := context.WithTimeout(ctx, lookWithin)
	defer cancel()
	var holding []workflows.Block
	var err error
	if actor == workflows.FleetID {
		var fleet workflows.ScopeBlocks
		_, err = query(ctx, w.Temporal, actor, workflows.BlocksQuery, &fleet)
		holding = fleet.At(time.Now(), "")
	} else {
		var cluster workflows.ClusterState
		_, err = query(ctx, w.Temporal, actor, workflows.StateQuery, &cluster)
		holding = cluster.Holding(time.Now(), "")
	}
	if err != nil {
		return brief(fmt.Sprintf("whether %s is blocked is not known: %v", what, err))
	}
	var reasons []string
	for _, block := range holding {
		reasons = append(reasons, block.String())
	}
	return brief(strings.Join(reasons, "; "))
}

// tell hands a look to the actor of a channel. One without clusters is told only what it does not know.
func (w *Watch) tell(ctx context.Context, actor string, wanted workflows.Watched, health workflows.ChannelHealth) error {
	if ctx.Err() != nil || (len(wanted.Clusters) == 0 && wanted.Blocked == health.Blocked) {
		return nil // what was not looked at is no news
	}
	if err := w.Temporal.SignalWorkflow(ctx, actor, "", workflows.HealthName, health); err != nil {
		return fmt.Errorf("telling workflow %s about health: %w", actor, err)
	}
	return nil
}

// brief keeps what clusters and people say from filling histories. It is on one line and without what a
// terminal obeys, as actors keep it, so that what one knows already can be told.
func brief(text string) string {
	text = strings.TrimSpace(strings.Map(func(r rune) rune {
		switch {
		case unicode.IsGraphic(r):
			return r
		case unicode.IsSpace(r):
			return ' '
		}
		return -1
	}, text))
	if runes := []rune(text); len(runes) > mostText {
		return string(runes[:mostText-1]) + "…"
	}
	return text
}

// stopping is a context that ends when its worker stops, too.
func stopping(ctx context.Context) (context.Context, func()) {
	working, cancel := context.WithCancelCause(ctx)
	stop := activity.GetWorkerStopChannel(ctx)
	go func() {
		select {
		case <-working.Done():
		case <-stop:
			cancel(activities.ErrStopping)
		}
	}()
	return working, func() { cancel(nil) }
}
