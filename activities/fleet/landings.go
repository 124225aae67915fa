package fleet

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fairway-project/fairway/promotion"
	"github.com/fairway-project/fairway/workflows"
)

// landingsWithin bounds how long the clusters of all channels wait for the histories of those that have
// moved, most of which is a fetch.
const landingsWithin = 2 * time.Minute

// firstLandings is how many an actor is told that knows none: what is older soaks no more.
const firstLandings = 50

// allLandings adds to each sync what has landed. A channel whose history takes its time keeps no other
// from hearing of its own.
func (m *Messages) allLandings(ctx context.Context, syncs []workflows.ChannelSync, known map[string]workflows.ChannelSynced, heads map[string]string) error {
	ctx, cancel := context.WithTimeout(ctx, landingsWithin)
	defer cancel()
	errs := make([]error, len(syncs))
	var group errgroup.Group
	group.SetLimit(atOnce)
	for i := range syncs {
		group.Go(func() error {
			name := syncs[i].Channel
			errs[i] = m.landings(ctx, &syncs[i], known[name].Landing, heads[name])
			return nil
		})
	}
	_ = group.Wait()
	return errors.Join(errs...)
}

// landings adds to a sync what has landed since the newest landing that the actor knows, which is none that
// it was told of and has not got to. Without an answer the clusters follow the head all the same, and
// the landings come with a later sync.
func (m *Messages) landings(ctx context.Context, sync *workflows.ChannelSync, known, head string) error {
	if m.Landings == nil || head == "" || head == known {
		return nil
	}
	landings, rewritten, err := m.Landings(ctx, sync.Channel, known, head)
	if err != nil {
		return fmt.Errorf("reading what has landed on channel %s: %w", sync.Channel, err)
	}
	most := promotion.MostLandings
	if known == "" {
		most = firstLandings
	}
	sync.Landings, sync.Rewritten = landings[max(0, len(landings)-most):], rewritten
	return nil
}

// targets are the channels that a channel is promoted to.
func (m *Messages) targets(channel string) (names []string) {
	for _, edge := range m.Pipeline.OutOf(channel) {
		names = append(names, edge.To)
	}
	return names
}

// promotions adds to a sync what the actor of a channel has to know of the promotions out of it.
func (m *Messages) promotions(sync *workflows.ChannelSync, known map[string]workflows.ChannelSynced) {
	for _, edge := range m.Pipeline.OutOf(sync.Channel) {
		soak := int64(1) // without a soak, too, somebody has to have seen that the clusters are healthy
		if edge.Soak != nil {
			soak = max(soak, int64(edge.Soak.Round(time.Second)/time.Second))
		}
		sync.SoakSeconds = max(sync.SoakSeconds, soak)
		sync.Promoted = append(sync.Promoted, known[edge.To].Merged[sync.Channel])
	}
}
