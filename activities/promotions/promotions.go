// Package promotions moves landings from one channel to the next: it chooses, asks gates, merges and
// pushes, and opens and follows pull requests. What has been done it finds in git and on the forge,
// which are the memory: nothing is done twice, whenever the process dies.
package promotions

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/expirable"
	"go.temporal.io/sdk/client"

	"github.com/fairway-project/fairway/activities/failures"
	"github.com/fairway-project/fairway/calendar"
	"github.com/fairway-project/fairway/channels"
	"github.com/fairway-project/fairway/forge"
	"github.com/fairway-project/fairway/promotion"
	"github.com/fairway-project/fairway/prose"
	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/workflows"
)

// Activities implements workflows.Promotions.
type Activities struct {
	Pipeline promotion.Pipeline
	// Repository is the configuration repository; nil if none is configured.
	Repository Repository
	// Folder of the repository that holds the configuration of clusters.
	Folder string
	// Forge is where its pull requests are; nil if none is configured.
	Forge Forge

	// Temporal reaches the actors of channels; TaskQueue is where those run that have to be started.
	Temporal  client.Client
	TaskQueue string
	// Blocks are those of the fleet and of channels that hold now. An error means that nobody knows.
	Blocks func(ctx context.Context, channels ...string) ([]workflows.Block, error)
	// Clusters reads the registry.
	Clusters func(context.Context) (registry.Clusters, error)
	// Now is the time; default time.Now.
	Now func() time.Time

	once    sync.Once
	persons *expirable.LRU[string, workflows.PromotionChoice] // which candidates need a person
}

var _ workflows.Promotions = (*Activities)(nil)

func (a *Activities) now() time.Time {
	if a.Now != nil {
		return a.Now()
	}
	return time.Now()
}

// edge is one of the pipeline.
func (a *Activities) edge(from, to string) (promotion.Edge, error) {
	if edge, found := a.Pipeline.Edge(from, to); found {
		return edge, nil
	}
	var names []string
	for _, each := range a.Pipeline.Edges {
		names = append(names, each.From+" to "+each.To)
	}
	if len(names) == 0 {
		return promotion.Edge{}, failures.Invalid("there are no promotions; list them in pipeline.edges")
	}
	return promotion.Edge{}, failures.Invalid("there is no promotion from %q to %q in pipeline.edges; there are: %s", prose.Line(from, prose.Title), prose.Line(to, prose.Title), prose.Some(names, 20))
}

// heads are the branches of the repository, those that are named among them.
func (a *Activities) heads(ctx context.Context, branches ...string) (map[string]string, error) {
	if err := a.needRepository(); err != nil {
		return nil, err
	}
	heads, err := a.Repository.Heads(ctx)
	if err != nil {
		return nil, err
	}
	for _, branch := range branches {
		if heads[branch] == "" {
			return nil, failures.Invalid("the configuration repository has no branch %q; it has: %s", prose.Line(branch, prose.Title), prose.Some(people(slices.Sorted(maps.Keys(heads))), 20))
		}
	}
	return heads, nil
}

// people leaves out the branches that Fairway itself makes.
func people(branches []string) []string {
	return slices.DeleteFunc(branches, func(branch string) bool { return strings.HasPrefix(branch, ownBranches) })
}

func (a *Activities) needRepository() error {
	if a.Repository == nil {
		return failures.Invalid("no configuration repository is configured; set repository.url")
	}
	return nil
}

func (a *Activities) needForge() error {
	if a.Forge == nil {
		return failures.Invalid("no forge is configured, so there are no pull requests; set forge.kind")
	}
	return nil
}

// closed is why Fairway may not merge along an edge now; empty if it may. Opening is when it may again.
func (a *Activities) closed(edge promotion.Edge) (reason string, opening time.Time) {
	hours := calendar.Calendar{Windows: edge.Windows, Freezes: edge.Freezes}
	now := a.now()
	open, reason := hours.OpenAt(now)
	if open {
		return "", time.Time{}
	}
	opening, ok := hours.NextOpening(now)
	if !ok {
		return sentence(reason + "; it never opens"), opening
	}
	return sentence(fmt.Sprintf("%s; it opens at %s", reason, opening.UTC().Format(time.RFC3339))), opening
}

// Repository is what promotions ask of the configuration repository; see channels.Mirror, which says what
// each method does.
type Repository interface {
	Heads(context.Context) (map[string]string, error)
	Contains(ctx context.Context, ancestor, commit string) (bool, error)
	Landings(ctx context.Context, known, head string, most int) (landings []channels.Commit, rewritten bool, err error)
	Commits(ctx context.Context, base, head string, most int) (commits []channels.Commit, omitted int, err error)
	Changes(ctx context.Context, base, head string) ([]channels.FileChange, error)
	Difference(ctx context.Context, before, after string) ([]channels.FileChange, error)
	Same(ctx context.Context, a, b string) (bool, error)
	Tree(ctx context.Context, commit, folder string) (fs.FS, error)
	Lacking(ctx context.Context, in, from string, most int) ([]channels.Commit, error)
	Brought(ctx context.Context, head, candidate string) (landing channels.Commit, found bool, err error)
	Merge(ctx context.Context, ours, theirs string, n channels.NewCommit) (commit string, err error)
	Restore(ctx context.Context, head, to string, n channels.NewCommit) (commit string, err error)
	Push(ctx context.Context, branch, commit, expected string) error
	Reset(ctx context.Context, branch, commit, expected string) error
	DeleteBranch(ctx context.Context, branch, expected string) error
}

// Forge is what promotions ask of the forge; see forge.Driver, which says what each method does.
type Forge interface {
	PullRequest(ctx context.Context, number int) (forge.PullRequest, error)
	FindPullRequest(ctx context.Context, base, head string) (*forge.PullRequest, error)
	Open(ctx context.Context, wanted forge.NewPullRequest) (forge.PullRequest, error)
	Edit(ctx context.Context, number int, title, body string) error
	Close(ctx context.Context, number int) error
	Merge(ctx context.Context, number int, head, title, message string) (commit string, err error)
	Reviews(ctx context.Context, number int) ([]forge.Review, error)
	Member(ctx context.Context, team, user string) (bool, error)
	CanWrite(ctx context.Context, user string) (bool, error)
	Statuses(ctx context.Context, commit string) ([]forge.Status, error)
	Comment(ctx context.Context, number int, marker, text string) error
	OwnComment(ctx context.Context, number int, marker string) (text string, found bool, err error)
	PullRequestsOf(ctx context.Context, commit string) ([]forge.PullRequest, error)
	CompareURL(base, head string) string
	Self(ctx context.Context) (string, error)
}

var _ Repository = (*channels.Mirror)(nil)
