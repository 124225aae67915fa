package workflows

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"
)

// BlocksQuery asks the actor of the fleet or of a channel for its ScopeBlocks; it is answered with
// less than StateQuery is, since it is asked before each step of each cluster.
const BlocksQuery = "blocks"

func checkBlock(request BlockRequest) error {
	if strings.TrimSpace(request.Reason) == "" {
		return temporal.NewApplicationError("a block needs a reason: others will ask for it", InvalidInput)
	}
	if request.For == "" {
		return nil
	}
	if lasts, err := time.ParseDuration(request.For); err != nil || lasts <= 0 {
		return temporal.NewApplicationError(fmt.Sprintf("for is %q; must be a duration such as 4h", request.For), InvalidInput)
	}
	return nil
}

// hearBlocks takes blocks that come by signal, and makes the most of those that are not understood: somebody
// wants to stop something, and better all of it than nothing.
func hearBlocks(ctx workflow.Context, selector workflow.Selector, do func(BlockRequest)) {
	hearAny(ctx, selector, BlockName, func(request BlockRequest, err error) {
		if err = cmp.Or(err, checkBlock(request)); err != nil {
			workflow.GetLogger(ctx).Error("a block was not understood, and blocks everything", "error", err)
			request.Reason, request.For, request.Pool = strings.TrimSpace(request.Reason+" (not understood: "+forPeople(err.Error())+")"), "", ""
		}
		do(request)
	})
}

// handle lets people block and lift, by signals that the selector receives and by updates, and
// answers BlocksQuery. Scope is as in Block; changed is called after each change.
func (s *ScopeBlocks) handle(ctx workflow.Context, selector workflow.Selector, scope string, changed func(workflow.Context)) error {
	block := func(ctx workflow.Context, request BlockRequest) Block {
		added := s.add(workflow.Now(ctx), scope, request)
		changed(ctx)
		return added
	}
	unblock := func(ctx workflow.Context, request UnblockRequest) []Block {
		lifted := s.lift(workflow.Now(ctx), request)
		changed(ctx)
		return lifted
	}
	hearBlocks(ctx, selector, func(request BlockRequest) { block(ctx, request) })
	hear(ctx, selector, UnblockName, func(request UnblockRequest) { unblock(ctx, request) })
	if err := workflow.SetQueryHandler(ctx, BlocksQuery, func() (ScopeBlocks, error) { return *s, nil }); err != nil {
		return err
	}
	if err := workflow.SetUpdateHandlerWithOptions(ctx, BlockName,
		func(ctx workflow.Context, request BlockRequest) (Block, error) { return block(ctx, request), nil },
		workflow.UpdateHandlerOptions{Validator: checkBlock, Description: "change nothing until this is lifted or expires"},
	); err != nil {
		return err
	}
	return workflow.SetUpdateHandlerWithOptions(ctx, UnblockName,
		func(ctx workflow.Context, request UnblockRequest) ([]Block, error) { return unblock(ctx, request), nil },
		workflow.UpdateHandlerOptions{
			Validator: func(request UnblockRequest) error {
				if request.ID != "" && !slices.ContainsFunc(s.Holding, func(b Block) bool { return b.ID == request.ID }) {
					return temporal.NewApplicationError(fmt.Sprintf("the %s has no block %q", scope, request.ID), InvalidInput)
				}
				return nil
			},
			Description: "lift a block, or all of them",
		})
}

func (s *ScopeBlocks) add(now time.Time, scope string, request BlockRequest) Block {
	s.tidy(now)
	s.Given++
	block := newBlock(s.Given, now, scope, request)
	s.Holding = append(s.Holding, block)
	return block
}

func (s *ScopeBlocks) lift(now time.Time, request UnblockRequest) (lifted []Block) {
	s.tidy(now)
	s.Holding, lifted = lift(s.Holding, now, request)
	s.Ended = append(s.Ended, lifted...)
	return lifted
}

func (s *ScopeBlocks) tidy(now time.Time) { s.Holding, s.Ended = tidied(s.Holding, s.Ended, now) }

// newBlock is the block with a number that a request asks for.
func newBlock(given int, now time.Time, scope string, request BlockRequest) Block {
	block := Block{
		ID: fmt.Sprintf("block-%d", given), Scope: scope, Pool: request.Pool, Reason: request.Reason,
		By: cmp.Or(request.By, nobody), Since: now,
	}
	if lasts, err := time.ParseDuration(request.For); err == nil {
		block.Until = now.Add(lasts)
	}
	return block
}

// lift takes out the blocks that a request means. The registry's can be lifted only there.
func lift(holding []Block, now time.Time, request UnblockRequest) (left, lifted []Block) {
	lifted = []Block{}
	left = slices.DeleteFunc(holding, func(b Block) bool {
		if (request.ID != "" && b.ID != request.ID) || (request.Pool != "" && b.Pool != request.Pool) || b.Scope == registryBlock {
			return false
		}
		b.Until = now
		lifted = append(lifted, b)
		return true
	})
	return left, lifted
}

// tidied moves blocks that have expired to the ended ones, and forgets those of long ago.
func tidied(holding, ended []Block, now time.Time) (left, over []Block) {
	left = slices.DeleteFunc(holding, func(b Block) bool {
		expired := !b.Until.IsZero() && !now.Before(b.Until)
		if expired {
			ended = append(ended, b)
		}
		return expired
	})
	return left, slices.DeleteFunc(ended, func(b Block) bool { return now.Sub(b.Until) > longestDrain })
}

// At lists the blocks that hold at a time, for a pool; an empty one means the whole scope.
func (s ScopeBlocks) At(at time.Time, pool string) []Block {
	return slices.DeleteFunc(slices.Clone(s.Holding), func(b Block) bool { return !b.Holds(at, pool) })
}

// details is a paragraph for people; empty where nothing is blocked.
func (s ScopeBlocks) details(scope string) string {
	if len(s.Holding) == 0 {
		return ""
	}
	lines := fmt.Sprintf("The %s is **blocked**; an expired block stays in this list until the next change:\n", scope)
	for _, b := range s.Holding {
		what := "all of it"
		if b.Pool != "" {
			what = "pools named " + b.Pool
		}
		lines += fmt.Sprintf("\n- `%s`, %s: %s", b.ID, what, b)
	}
	return lines
}
