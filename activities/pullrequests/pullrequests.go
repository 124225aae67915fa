// Package pullrequests looks which pull requests are to be tested, and reports on them what came of it.
package pullrequests

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/expirable"
	"go.temporal.io/sdk/client"

	"github.com/fairway-project/fairway/activities/failures"
	"github.com/fairway-project/fairway/channels"
	"github.com/fairway-project/fairway/e2e"
	"github.com/fairway-project/fairway/forge"
	"github.com/fairway-project/fairway/promotion"
	"github.com/fairway-project/fairway/workflows"
)

// Activities implements workflows.PullRequests.
type Activities struct {
	Settings e2e.Settings
	Pipeline promotion.Pipeline
	// Repository is the configuration repository; nil if none is configured.
	Repository Repository
	// Forge is where its pull requests are; nil if none is configured.
	Forge Forge
	// Queue are the tests under way, those that wait among them.
	Queue func(context.Context) ([]workflows.TestQueueEntry, error)
	// Temporal reaches these tests.
	Temporal client.Client
	// Now is the time; default time.Now.
	Now func() time.Time

	once    sync.Once
	settled *expirable.LRU[int, settled] // pull requests of which nothing new is expected
}

var _ workflows.PullRequests = (*Activities)(nil)

func (a *Activities) now() time.Time {
	if a.Now != nil {
		return a.Now()
	}
	return time.Now()
}

func (a *Activities) needRepository() error {
	if a.Repository == nil {
		return failures.Invalid("no configuration repository is configured, so there is nothing to test; set repository.url")
	}
	return nil
}

func (a *Activities) needForge() error {
	if a.Forge == nil {
		return failures.Invalid("no forge is configured, so there are no pull requests; set forge.kind")
	}
	return nil
}

// Repository is what tests ask of the configuration repository; see channels.Mirror, which says what each method does.
type Repository interface {
	Heads(context.Context) (map[string]string, error)
	Resolve(ctx context.Context, ref string) (string, error)
	Title(ctx context.Context, commit string) (string, error)
}

// Forge is what tests ask of the forge; see forge.Driver, which says what each method does.
type Forge interface {
	PullRequest(ctx context.Context, number int) (forge.PullRequest, error)
	PullRequests(ctx context.Context, filter forge.Filter) ([]forge.PullRequest, error)
	Labelled(ctx context.Context, number int, label string) (event forge.LabelEvent, found bool, err error)
	PushedAt(ctx context.Context, pr forge.PullRequest) (time.Time, error)
	CanWrite(ctx context.Context, user string) (bool, error)
	Statuses(ctx context.Context, commit string) ([]forge.Status, error)
	SetStatus(ctx context.Context, commit string, status forge.Status) error
	Comment(ctx context.Context, number int, marker, text string) error
}

var (
	_ Repository = (*channels.Mirror)(nil)
	_ Forge      = forge.Driver(nil)
)

// commentMarker marks the one comment that is kept on a pull request.
const commentMarker = "fairway-e2e"
