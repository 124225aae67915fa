package promotions

import (
	"context"
	"errors"

	"github.com/fairway-project/fairway/channels"
	"github.com/fairway-project/fairway/promotion"
	"github.com/fairway-project/fairway/prose"
)

// Branches that Fairway makes. They are its own: what it finds at another commit than it has put there
// somebody has worked on, and it is left alone.

// ownBranches is what their names begin with.
const ownBranches = "fairway/"

// pinned is the branch that keeps the pull request of a promotion on its candidate.
func pinned(edge promotion.Edge, candidate string) string {
	return ownBranches + "promote/" + edge.Name() + "/" + prose.Short(candidate)
}

// conflicted is the branch of the pull request in which people resolve the conflicts of an edge.
func conflicted(edge promotion.Edge) string { return ownBranches + "conflict/" + edge.Name() }

// reverting is the branch of the pull request that sets a channel back.
func reverting(revert promotion.Revert) string { return ownBranches + "revert/" + revert.ID }

// pin has a branch of Fairway's at a commit. What others have put there stays, and is returned as where the
// branch is; earlier says of such a commit whether Fairway has put it there before.
func (a *Activities) pin(ctx context.Context, branch, commit, at string, earlier func(string) (bool, error)) (string, error) {
	if at == commit {
		return commit, nil
	}
	if at != "" {
		if own, err := earlier(at); err != nil || !own {
			return at, err
		}
	}
	return commit, a.Repository.Reset(ctx, branch, commit, at)
}

// sweep deletes a branch unless there is something on it that a head lacks: work of people.
func (a *Activities) sweep(ctx context.Context, branch, at, head string) error {
	if at == "" { // the forge has forgotten where it was
		return nil
	}
	contained, err := a.Repository.Contains(ctx, at, head)
	if err == nil && contained {
		err = a.Repository.DeleteBranch(ctx, branch, at)
	}
	if errors.Is(err, channels.ErrMoved) || errors.Is(err, channels.ErrGone) { // nothing of ours
		return nil
	}
	return err
}
