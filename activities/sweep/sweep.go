// Package sweep finds and removes what tests on throw-away clusters have left and nobody owns any more.
package sweep

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/activities"
	"github.com/fairway-project/fairway/activities/aws"
	"github.com/fairway-project/fairway/e2e"
	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/workflows"
)

// Sweep implements workflows.Sweeping.
type Sweep struct {
	Settings e2e.Settings
	Accounts *aws.Accounts
	// Leases are all of the configured accounts.
	Leases func(context.Context) ([]e2e.Lease, error)
	// Running says whether a workflow runs; see the function of this name.
	Running func(ctx context.Context, workflow string) (bool, error)
	// Clusters are those of the registry.
	Clusters func(context.Context) ([]registry.Cluster, error)
	// EndLease removes a lease.
	EndLease func(context.Context, workflows.ChangeLease) error
	// Places are the entries of the queue of tests; Leave takes one out.
	Places func(context.Context) ([]workflows.TestQueueEntry, error)
	Leave  func(context.Context, workflows.TestQueueEntry) error
	// Blocks refuses changes where somebody has blocked them.
	Blocks interface {
		Check(ctx context.Context, cluster, pool string) error
	}
	// GiveUp is how long one thing is tried to be removed; default 10 m. Stacks take as long as they take.
	GiveUp time.Duration
	// Now is the clock; default time.Now.
	Now func() time.Time
}

var _ workflows.Sweeping = (*Sweep)(nil)

// Running asks Temporal whether a workflow runs. One that Temporal does not know does not.
func Running(c client.Client) func(context.Context, string) (bool, error) {
	return func(ctx context.Context, workflow string) (bool, error) {
		description, err := c.DescribeWorkflowExecution(ctx, workflow, "")
		var unknown *serviceerror.NotFound
		if errors.As(err, &unknown) {
			return false, nil
		}
		if err != nil {
			return false, temporal.NewApplicationError(fmt.Sprintf("asking Temporal whether %s runs: %v", workflow, err), workflows.Unreachable)
		}
		switch status := description.GetWorkflowExecutionInfo().GetStatus(); status {
		case enums.WORKFLOW_EXECUTION_STATUS_RUNNING, enums.WORKFLOW_EXECUTION_STATUS_PAUSED, enums.WORKFLOW_EXECUTION_STATUS_CONTINUED_AS_NEW:
			return true, nil
		case enums.WORKFLOW_EXECUTION_STATUS_UNSPECIFIED:
			return false, temporal.NewApplicationError(fmt.Sprintf("Temporal does not say whether %s runs", workflow), workflows.Unreachable)
		default:
			return false, nil
		}
	}
}

// FindOrphans implements workflows.Sweeping. Leases are read after the accounts, so that what was made meanwhile
// is found to have one.
func (s *Sweep) FindOrphans(ctx context.Context, _ workflows.FindOrphans) ([]e2e.Orphan, error) {
	var at atomic.Value
	at.Store("reading leases")
	ctx, stop := activities.Working(ctx, at.Load)
	defer stop()
	before, err := s.owners(ctx, nil)
	if err != nil {
		return nil, cause(ctx, err)
	}
	var all []e2e.Thing
	seen := once{}
	for _, configured := range s.Settings.Accounts {
		a, err := s.open(ctx, configured)
		if err != nil {
			return nil, cause(ctx, err)
		}
		a.once = seen
		at.Store("looking at account " + configured.Account + " in " + configured.Region)
		things, err := a.things(ctx, before)
		if err != nil {
			return nil, cause(ctx, err)
		}
		all = append(all, things...)
	}
	for _, zone := range s.Settings.Sweep.HostedZones {
		if len(s.Settings.Accounts) > 0 && !seen["found "+zone] {
			return nil, invalid("hosted zone %s (e2e.sweep.hosted_zones) is in none of the accounts of e2e.accounts; take it out, or correct its id", zone)
		}
	}
	entries, err := s.Places(ctx)
	var abandoned []workflows.TestQueueEntry
	if err == nil {
		abandoned, err = s.abandoned(ctx, entries)
	}
	if err != nil { // what costs money is not to wait for that
		activity.GetLogger(ctx).Warn("places in the queue of tests are left alone", "error", cause(ctx, err))
	}
	at.Store("reading leases")
	owners, err := s.owners(ctx, nil)
	if err != nil {
		return nil, cause(ctx, err)
	}
	for _, lease := range owners.Leases {
		if a, known := s.Settings.ConfiguredAccount(e2e.Account{Account: lease.Cluster.InfrastructureAccount, Region: lease.Cluster.Region}); known {
			all = append(all, e2e.Thing{Account: a, Kind: "lease", ID: lease.Cluster.ID, Named: lease.Cluster.ID, Made: lease.Made})
		}
	}
	return append(owners.Orphans(all), places(abandoned, owners, all)...), nil
}

// owners reads who owns things: all, or what can own those of one cluster.
func (s *Sweep) owners(ctx context.Context, cluster *string) (e2e.Owners, error) {
	owners := e2e.Owners{Running: map[string]bool{}, ClusterTag: s.Accounts.Settings.ClusterTag, Now: s.now(), Grace: s.Settings.Sweep.Grace}
	clusters, err := s.Clusters(ctx)
	if err != nil {
		return owners, unread("the cluster registry", err)
	}
	owners.Registry = e2e.RegistryNames(clusters)
	leases, err := s.Leases(ctx)
	if err != nil {
		return owners, unread("the leases of test clusters", err)
	}
	for _, lease := range leases {
		if cluster != nil && lease.Cluster.ID != *cluster {
			continue
		}
		if lease.Cluster.ID == "" || lease.Workflow == "" || lease.Made.IsZero() || lease.Expires.IsZero() {
			return owners, invalid("the lease of test cluster %q lacks its cluster, workflow, or times; nothing is swept until somebody has looked at it and at what it covers, and has removed it from the bucket",
				lease.Cluster.ID)
		}
		owners.Leases = append(owners.Leases, lease)
		if owners.Running[lease.Workflow], err = s.Running(ctx, lease.Workflow); err != nil {
			return owners, unread("whether "+lease.Workflow+" runs", err)
		}
	}
	owners.Now = s.now()
	return owners, nil
}

func (s *Sweep) now() time.Time {
	if s.Now != nil {
		return s.Now()
	}
	return time.Now()
}

// entry is the registry entry that a test cluster of an account would have, as far as access to AWS asks for it.
func entry(account e2e.Account, id string) registry.Cluster {
	return registry.Cluster{ID: id, InfrastructureAccount: account.Account, Region: account.Region, LifecycleStatus: registry.DecommissionRequested}
}

func (s *Sweep) giveUp() time.Duration { return cmp.Or(s.GiveUp, 10*time.Minute) }

// ---- errors

func invalid(format string, args ...any) error {
	return temporal.NewNonRetryableApplicationError(fmt.Sprintf(format, args...), workflows.InvalidInput, nil)
}

// unread keeps the type of an error that has one.
func unread(what string, err error) error {
	var typed *temporal.ApplicationError
	if errors.As(err, &typed) || errors.Is(err, context.Canceled) {
		return err
	}
	return temporal.NewApplicationError(fmt.Sprintf("reading %s: %v; nothing is swept without", what, err), workflows.Unreachable)
}

// cause says that the worker stops where that is why something failed.
func cause(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// number of an account, such as 123456789012 of aws:123456789012.
func number(account string) string { return account[strings.LastIndex(account, ":")+1:] }
