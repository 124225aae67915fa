package blocks

import (
	"context"
	"fmt"
	"time"

	"go.temporal.io/sdk/temporal"
	"golang.org/x/sync/errgroup"

	"github.com/fairway-project/fairway/workflows"
)

// Channels are the blocks of the fleet and of channels that hold now; those of their clusters are not
// asked for. An actor that does not exist blocks nothing. If one does not answer, nothing may be
// changed.
func (a Asker) Channels(ctx context.Context, channels ...string) ([]workflows.Block, error) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	ids := []string{workflows.FleetID}
	for _, name := range channels {
		ids = append(ids, workflows.ChannelID(name))
	}
	answers := make([]workflows.ScopeBlocks, len(ids)) // shared with others
	group, ctx := errgroup.WithContext(ctx)
	for i, id := range ids {
		group.Go(func() (err error) {
			answers[i], err = a.scope(ctx, id)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, temporal.NewApplicationError(fmt.Sprintf("asking whether the fleet or a channel is blocked: %v", err), workflows.Unreachable)
	}
	var holding []workflows.Block
	for _, answer := range answers {
		holding = append(holding, answer.At(time.Now(), "")...)
	}
	return holding, nil
}
