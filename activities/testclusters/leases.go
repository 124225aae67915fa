// Package testclusters holds the activities that keep the leases of clusters that are made for tests, and
// get tests their turn.
package testclusters

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"

	"go.temporal.io/sdk/temporal"
	"golang.org/x/sync/errgroup"

	"github.com/fairway-project/fairway/activities/aws"
	"github.com/fairway-project/fairway/e2e"
	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/workflows"
)

// Leases are kept in the buckets of the accounts in which test clusters are made. It is safe for concurrent
// use, of many workers too.
type Leases struct {
	Bucket   aws.Bucket
	Accounts []e2e.Account

	mu   sync.Mutex
	seen map[string]sighting // by id
}

type sighting struct {
	lease e2e.Lease
	until time.Time
}

// seenFor is how long a lease counts as it was seen. It is asked for with almost every activity.
const seenFor = 3 * time.Second

// attempts at a change of a lease that others change at the same time.
const attempts = 10

// usable are ids of which stacks, buckets and host names can be named.
var usable = regexp.MustCompile(`^` + e2e.Prefix + `[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$`)

// Find returns the lease of a cluster. It may be as it was three seconds ago. What it holds is shared with
// others and must not be changed.
func (l *Leases) Find(ctx context.Context, id string) (lease e2e.Lease, found bool, err error) {
	l.mu.Lock()
	last, known := l.seen[id]
	l.mu.Unlock()
	if known && time.Now().Before(last.until) {
		return last.lease, true, nil
	}
	return l.look(ctx, id)
}

// look is Find as it is now. One that is found is the answer whether or not all accounts do.
func (l *Leases) look(ctx context.Context, id string) (e2e.Lease, bool, error) {
	if !usable.MatchString(id) {
		return e2e.Lease{}, false, nil
	}
	asked := time.Now()
	leases := make([]*e2e.Lease, len(l.Accounts))
	problems := make([]error, len(l.Accounts))
	var group errgroup.Group
	for i, account := range l.Accounts {
		group.Go(func() error {
			leases[i], problems[i] = l.read(ctx, account, id)
			return nil
		})
	}
	_ = group.Wait()
	for _, lease := range leases {
		if lease != nil {
			l.remember(*lease, asked)
			return *lease, true, nil
		}
	}
	l.forget(id)
	for _, err := range problems {
		if err != nil {
			return e2e.Lease{}, false, err // one of them, since Temporal knows the types of single errors only
		}
	}
	return e2e.Lease{}, false, nil
}

// List returns all leases as they are. It fails if any account cannot be read.
func (l *Leases) List(ctx context.Context) ([]e2e.Lease, error) {
	var all []e2e.Lease
	for _, account := range l.Accounts {
		keys, err := l.Bucket.List(ctx, in(account, "of tests"), prefix)
		if err != nil {
			return nil, err
		}
		for _, key := range keys {
			id, named := strings.CutSuffix(strings.TrimPrefix(key, prefix), ".json")
			if !named || !usable.MatchString(id) {
				return nil, invalid("account %s: %s in its bucket (aws.bucket) is no lease; delete it", account.Account, key)
			}
			lease, err := l.read(ctx, account, id)
			if err != nil {
				return nil, err
			}
			if lease != nil { // else it has ended meanwhile, or is of another region's account with the same bucket
				all = append(all, *lease)
			}
		}
	}
	return all, nil
}

// WriteStatus writes what is known of a cluster to its lease, as registry.Registry does.
func (l *Leases) WriteStatus(ctx context.Context, id string, status registry.Status, lifecycle registry.LifecycleStatus) error {
	_, err := l.change(ctx, id, func(lease *e2e.Lease) error {
		from := lease.Cluster.LifecycleStatus
		if lifecycle != "" && lifecycle != from {
			if !from.Moves(lifecycle) {
				return &registry.LifecycleError{Cluster: id, From: from, To: lifecycle}
			}
			lease.Cluster.LifecycleStatus = lifecycle
		}
		lease.Cluster.Status = &status
		return nil
	})
	return err
}

// Tags are those of everything that is made for a cluster.
func (l *Leases) Tags(ctx context.Context, id string) (map[string]string, error) {
	lease, found, err := l.Find(ctx, id)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, gone(id)
	}
	cost := "e2e"
	if lease.Request.Number > 0 {
		cost = fmt.Sprintf("e2e/%d", lease.Request.Number)
	}
	return map[string]string{
		e2e.LeaseTag: id, e2e.OwnerTag: tagValue(lease.Owner), e2e.CostTag: cost,
		e2e.ExpiresTag: lease.Expires.UTC().Format(time.RFC3339),
	}, nil
}

// change changes the lease of a cluster.
func (l *Leases) change(ctx context.Context, id string, edit func(*e2e.Lease) error) (e2e.Lease, error) {
	found, is, err := l.look(ctx, id)
	if err == nil && !is {
		err = gone(id)
	}
	if err != nil {
		return e2e.Lease{}, err
	}
	account := e2e.Account{Account: found.Cluster.InfrastructureAccount, Region: found.Cluster.Region}
	for range attempts {
		var changed e2e.Lease
		asked := time.Now()
		err = l.Bucket.Change(ctx, in(account, id), key(id), func(data []byte) ([]byte, error) {
			lease, err := parse(account, id, data)
			if err == nil && lease == nil {
				err = gone(id)
			}
			if err != nil {
				return nil, err
			}
			changed = *lease
			if err := edit(&changed); err != nil {
				return nil, err
			}
			return json.Marshal(changed)
		})
		if aws.IsMissing(err) {
			return e2e.Lease{}, gone(id)
		}
		if err == nil {
			l.remember(changed, asked)
			return changed, nil
		}
		if !aws.IsOvertaken(err) {
			return e2e.Lease{}, err
		}
	}
	return e2e.Lease{}, temporal.NewApplicationError(err.Error(), workflows.Unreachable)
}

// create writes a new lease, or returns the one that the same workflow has written before.
func (l *Leases) create(ctx context.Context, lease e2e.Lease) (e2e.Lease, error) {
	id := lease.Cluster.ID
	account := e2e.Account{Account: lease.Cluster.InfrastructureAccount, Region: lease.Cluster.Region}
	// It may be in another account: a queue that has begun anew knows nothing of who had what.
	existing, found, err := l.look(ctx, id)
	if err != nil {
		return e2e.Lease{}, err
	}
	if !found {
		data, err := json.Marshal(lease)
		if err != nil {
			return e2e.Lease{}, invalid("cluster %s: encoding its lease: %v", id, err)
		}
		asked := time.Now()
		err = l.Bucket.Create(ctx, in(account, id), key(id), data)
		if err == nil {
			l.remember(lease, asked)
			return lease, nil
		}
		if !aws.IsOvertaken(err) {
			return e2e.Lease{}, err
		}
		if existing, found, err = l.look(ctx, id); err != nil {
			return e2e.Lease{}, err
		}
		if !found { // it ended in between, or is one of another region in the same bucket
			return e2e.Lease{}, temporal.NewApplicationError(fmt.Sprintf("cluster %s: its lease comes and goes", id), workflows.Unreachable)
		}
	}
	if existing.Workflow != lease.Workflow {
		return e2e.Lease{}, invalid("cluster %s: workflow %s has its lease; wait for its end, or see `fairway e2e destroy`", id, existing.Workflow)
	}
	return existing, nil
}

// kept are the prefixes under which things of a cluster are in its bucket, besides its lease.
var kept = []string{"entries/", "templates/"}

// end deletes a lease, and before it what else the bucket has of the cluster.
func (l *Leases) end(ctx context.Context, account e2e.Account, id string) error {
	for _, prefix := range kept {
		keys, err := l.Bucket.List(ctx, in(account, id), prefix+url.PathEscape(id)+"/")
		if err != nil {
			return err
		}
		for _, key := range keys {
			if err := l.Bucket.Delete(ctx, in(account, id), key); err != nil {
				return err
			}
		}
	}
	defer l.forget(id)
	return l.Bucket.Delete(ctx, in(account, id), key(id))
}

// read returns nil if the account has no such lease.
func (l *Leases) read(ctx context.Context, account e2e.Account, id string) (*e2e.Lease, error) {
	data, err := l.Bucket.Get(ctx, in(account, id), key(id))
	if aws.IsMissing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return parse(account, id, data)
}

// parse returns nil for the lease of another region, whose account may have the same bucket.
func parse(account e2e.Account, id string, data []byte) (*e2e.Lease, error) {
	var lease e2e.Lease
	if err := json.Unmarshal(data, &lease); err != nil {
		return nil, invalid("cluster %s: %s in the bucket of account %s (aws.bucket) is no lease: %v; delete it if the cluster is gone", id, key(id), account.Account, err)
	}
	if lease.Cluster.ID != id || lease.Cluster.InfrastructureAccount != account.Account || lease.Workflow == "" {
		return nil, invalid("cluster %s: %s in the bucket of account %s (aws.bucket) is the lease of another cluster or of nobody; delete it if the cluster is gone", id, key(id), account.Account)
	}
	if lease.Cluster.Region != account.Region {
		return nil, nil
	}
	return &lease, nil
}

func (l *Leases) remember(lease e2e.Lease, asked time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	for id, old := range l.seen {
		if now.After(old.until) {
			delete(l.seen, id)
		}
	}
	if l.seen == nil {
		l.seen = map[string]sighting{}
	}
	if until := asked.Add(seenFor); until.After(l.seen[lease.Cluster.ID].until) {
		l.seen[lease.Cluster.ID] = sighting{lease, until}
	}
}

func (l *Leases) forget(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.seen, id)
}

const prefix = "leases/"

func key(id string) string { return prefix + id + ".json" }

// in stands for a cluster of an account where its bucket is asked.
func in(account e2e.Account, id string) registry.Cluster {
	return registry.Cluster{ID: id, InfrastructureAccount: account.Account, Region: account.Region}
}

// unusual are characters that AWS allows in no value of a tag.
var unusual = regexp.MustCompile(`[^\pL\pN _.:/=+@-]`)

// tagValue is text as AWS allows it, which has other ideas of that than forges of user names.
func tagValue(text string) string {
	value := []rune(unusual.ReplaceAllString(text, "_"))
	return string(value[:min(len(value), 256)])
}

func gone(id string) error {
	return temporal.NewNonRetryableApplicationError(
		fmt.Sprintf("cluster %q is that of a test, and has no lease; `fairway e2e list` shows those that have one", id), workflows.ClusterNotFound, nil)
}

func invalid(format string, args ...any) error {
	return temporal.NewNonRetryableApplicationError(fmt.Sprintf(format, args...), workflows.InvalidInput, nil)
}
