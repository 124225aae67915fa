package promotions

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.temporal.io/sdk/activity"

	"github.com/fairway-project/fairway/activities/failures"
	"github.com/fairway-project/fairway/channels"
	"github.com/fairway-project/fairway/forge"
	"github.com/fairway-project/fairway/promotion"
	"github.com/fairway-project/fairway/prose"
	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/workflows"
)

// RevertChannel implements workflows.Promotions. The channel's actor is told first, which stops
// promotions of the range; then the content is restored. An attempt that comes after one that died
// finds what that one has told, and what it has pushed or opened.
func (a *Activities) RevertChannel(ctx context.Context, in workflows.RevertChannel) (revert promotion.Revert, err error) {
	ctx, end := failures.Begin(ctx, "setting channel "+in.Channel+" back")
	defer end(&err)
	if strings.TrimSpace(in.Reason) == "" && !in.DryRun {
		return revert, failures.Invalid("setting a channel back needs a reason: others will ask for it")
	}
	heads, err := a.heads(ctx, in.Channel)
	if err != nil {
		return revert, err
	}
	known, err := a.channel(ctx, in.Channel)
	if err != nil {
		return revert, err
	}
	var again time.Duration
	for {
		revert, done, err := a.revertAt(ctx, in, heads[in.Channel], known)
		if err != nil || done {
			return revert, err
		}
		if err := pause(ctx, again); err != nil { // somebody else was faster: what has landed belongs to the range, too
			return revert, err
		}
		again = min(again*2+100*time.Millisecond, 5*time.Second)
		if heads, err = a.heads(ctx, in.Channel); err != nil {
			return revert, err
		}
		if known, err = a.channel(ctx, in.Channel); err != nil {
			return revert, err
		}
	}
}

// revertAt sets a channel back that is at a head; it is not done if the head has moved meanwhile.
func (a *Activities) revertAt(ctx context.Context, in workflows.RevertChannel, head string, known workflows.ChannelState) (revert promotion.Revert, done bool, err error) {
	newest, _, err := a.Repository.Landings(ctx, "", head, promotion.MostLandings) // oldest first
	if err != nil {
		return revert, false, err
	}
	at, err := target(in.Channel, in.To, newest)
	if err != nil {
		return revert, false, err
	}
	to, after := newest[at], newest[at+1:]
	byPullRequest := a.byPullRequest(in.Channel)
	if byPullRequest {
		if err := a.needForge(); err != nil {
			return revert, false, err
		}
	}
	// What has been begun, by an attempt before this one or by another person, is gone on with.
	begun := slices.IndexFunc(known.Promotions.Reverts, func(r promotion.Revert) bool { return r.To == to.SHA && r.Lifted.IsZero() })
	if begun >= 0 {
		revert = known.Promotions.Reverts[begun]
		found, err := a.finished(ctx, in.Channel, &revert, after)
		if err != nil {
			return revert, false, err
		}
		again := false // a person asks once more, since something has landed on top of it
		if found && revert.Commit != "" && revert.At.Before(activity.GetInfo(ctx).ScheduledTime.Truncate(time.Second)) {
			same, err := a.Repository.Same(ctx, head, to.SHA)
			if err != nil {
				return revert, false, err
			}
			again = !same
		}
		if found && !again {
			return a.told(ctx, in, revert, to.Title, nil)
		}
		if again {
			begun = -1
		}
	}
	if begun < 0 {
		revert = promotion.Revert{
			ID: in.Channel + "/" + prose.Short(to.SHA) + "-" + prose.Short(head), To: to.SHA,
			By: cmp.Or(prose.Line(in.By, prose.Title), "somebody"), Reason: prose.Line(in.Reason, prose.Detail), At: a.now().UTC().Truncate(time.Second),
		}
	}
	if len(after) == 0 {
		return revert, false, failures.Invalid("channel %s is at %s already; there is nothing to set back", in.Channel, prose.Short(head))
	}
	revert.Head, revert.Bad = head, make([]string, len(after))
	for i, landing := range after {
		revert.Bad[i] = landing.SHA
	}
	if in.DryRun {
		revert.Detail, err = a.consequences(ctx, in.Channel, revert, byPullRequest, to.Title)
		return revert, true, err
	}
	if err := a.tell(ctx, in.Channel, workflows.RevertedName, revert); err != nil {
		return revert, false, err
	}
	commit, err := a.Repository.Restore(ctx, head, to.SHA, channels.NewCommit{
		Message: revertTitle(revert, in.Channel, to.Title) + "\n\n" + revertMessage(revert), Author: a.Pipeline.Author, At: revert.At,
	})
	if err != nil {
		return revert, false, err
	}
	if !byPullRequest {
		switch err := a.Repository.Push(ctx, in.Channel, commit, head); {
		case err == nil:
			revert.Commit = commit
			return a.told(ctx, in, revert, to.Title, nil)
		case errors.Is(err, channels.ErrMoved), errors.Is(err, channels.ErrGone):
			return revert, false, nil
		case !errors.Is(err, channels.ErrProtected) || a.Forge == nil:
			return revert, false, err
		}
	}
	err = a.propose(ctx, in.Channel, &revert, commit, to.Title)
	return a.told(ctx, in, revert, to.Title, err)
}

// target is the landing that is meant, by its place in the newest ones.
func target(channel, to string, newest []channels.Commit) (int, error) {
	found := -1
	for i, landing := range newest {
		if len(to) < 7 || !strings.HasPrefix(landing.SHA, strings.ToLower(to)) {
			continue
		}
		if found >= 0 {
			return 0, failures.Invalid("several landings of channel %s begin with %s; give more digits", channel, to)
		}
		found = i
	}
	if found < 0 {
		var latest []string
		for _, landing := range newest[max(0, len(newest)-mostNamed):] {
			latest = append(latest, prose.Short(landing.SHA)+" "+prose.Line(landing.Title, 60))
		}
		slices.Reverse(latest)
		return 0, failures.Invalid("%q is none of the newest %d landings of channel %s, which are the first-parent commits of the branch; give seven digits of one at least, such as: %s",
			prose.Line(to, prose.Title), len(newest), channel, strings.Join(latest, "; "))
	}
	return found, nil
}

// finished says whether a revert that was begun has been pushed, or has a pull request that is not closed.
func (a *Activities) finished(ctx context.Context, channel string, revert *promotion.Revert, after []channels.Commit) (bool, error) {
	seen := false
	for _, landing := range after {
		if seen && landing.Trailers[RevertTrailer] == revert.To {
			same, err := a.Repository.Same(ctx, landing.SHA, revert.To) // what a message says is not believed
			if err != nil {
				return false, err
			}
			if same {
				revert.Commit = landing.SHA
				return true, nil
			}
		}
		seen = seen || landing.SHA == revert.Head
	}
	if a.Forge == nil {
		return false, nil
	}
	found, err := a.Forge.FindPullRequest(ctx, channel, reverting(*revert))
	if err != nil || found == nil || found.State == forge.Closed {
		return false, err
	}
	revert.PullRequest = found.Number
	if found.State == forge.Merged {
		revert.Commit = found.Merge
	}
	return true, nil
}

// byPullRequest says whether changes come to a channel by pull request only.
func (a *Activities) byPullRequest(channel string) bool {
	into := a.Pipeline.Into(channel)
	return len(into) > 0 && !slices.ContainsFunc(into, func(e promotion.Edge) bool { return e.Mode == promotion.Merge })
}

// propose opens the pull request of a revert, which has none that is open.
func (a *Activities) propose(ctx context.Context, channel string, revert *promotion.Revert, commit, title string) error {
	branch := reverting(*revert)
	heads, err := a.heads(ctx, channel)
	if err != nil {
		return err
	}
	at, err := a.pin(ctx, branch, commit, heads[branch], func(earlier string) (bool, error) {
		return a.Repository.Same(ctx, earlier, revert.To) // on top of another head
	})
	switch {
	case err != nil:
		return err
	case at != commit:
		return failures.Invalid("branch %s is at %s: somebody has worked on it; merge that, or delete the branch", branch, prose.Short(at))
	}
	opened, err := a.Forge.Open(ctx, forge.NewPullRequest{Head: branch, Base: channel, Title: revertTitle(*revert, channel, title), Body: revertBody(channel, *revert, title)})
	if err != nil {
		return err
	}
	revert.PullRequest = opened.Number
	return nil
}

// told tells the channel's actor where a revert stands, and the person what comes of it.
func (a *Activities) told(ctx context.Context, in workflows.RevertChannel, revert promotion.Revert, title string, err error) (promotion.Revert, bool, error) {
	if err == nil && !in.DryRun {
		err = a.tell(ctx, in.Channel, workflows.RevertedName, revert)
	}
	if err == nil {
		revert.Detail, err = a.consequences(ctx, in.Channel, revert, revert.PullRequest > 0, title)
	}
	return revert, err == nil, err
}

func revertBody(channel string, revert promotion.Revert, title string) string {
	return fmt.Sprintf(`%s has the content of %s %s again with this.

Asked by %s because of %s. %s on the way to %s: none of them is promoted any more, and nothing is promoted into %s until the revert is lifted (fairway channel revert %s --lift --reason R).
`, prose.Code(channel, prose.Title), prose.Code(prose.Short(revert.To), 40), prose.Code(title, prose.Title), prose.Code(revert.By, prose.Title), prose.Code(revert.Reason, prose.Detail),
		prose.Counted(len(revert.Bad), "landing")+" came after it", prose.Code(prose.Short(revert.Head), 40), prose.Code(channel, prose.Title), channel)
}

// consequences says what clusters will do.
func (a *Activities) consequences(ctx context.Context, channel string, revert promotion.Revert, byPullRequest bool, title string) (string, error) {
	clusters, err := a.Clusters(ctx)
	if err != nil {
		return "", fmt.Errorf("reading the cluster registry: %w", err)
	}
	following := 0
	for _, cluster := range clusters {
		if cluster.Channel == channel && cluster.LifecycleStatus != registry.Decommissioned {
			following++
		}
	}
	changes, err := a.Repository.Difference(ctx, revert.Head, revert.To)
	if err != nil {
		return "", err
	}
	impact, err := a.impactOf(ctx, changes, revert.Head, revert.To)
	if err != nil {
		return "", err
	}
	back := fmt.Sprintf("%s (%s)", prose.Short(revert.To), prose.Line(title, prose.Title))
	var texts []string
	switch {
	case byPullRequest && revert.Commit == "" && revert.PullRequest > 0:
		texts = append(texts, fmt.Sprintf("Nothing changes until pull request %d is merged.", revert.PullRequest))
	case byPullRequest && revert.Commit == "":
		texts = append(texts, "Nothing changes until the pull request is merged.")
	}
	switch following {
	case 0:
		texts = append(texts, fmt.Sprintf("No cluster follows %s.", channel))
	case 1:
		texts = append(texts, fmt.Sprintf("Then the one cluster of %s goes to the content of %s, as it does to any landing: within its windows, and not while it is blocked.", channel, back))
	default:
		texts = append(texts, fmt.Sprintf("Then the %d clusters of %s go to the content of %s in waves, as they do to any landing: within their windows, and not while they are blocked. Those that have not left it do nothing but note the new commit.", following, channel, back))
	}
	if following > 0 {
		texts = append(texts, effect(impact.Class))
	}
	return strings.Join(texts, " "), nil
}

func effect(class promotion.Class) string {
	switch class {
	case promotion.ManifestsOnly:
		return "Manifests are applied; no node is replaced."
	case promotion.AddOns:
		return "Manifests are applied, those of add-ons on every node among them; no node is replaced."
	case promotion.NodesRoll:
		return "Nodes may be replaced."
	default:
		return "The stacks of clusters change, and nodes may be replaced."
	}
}
