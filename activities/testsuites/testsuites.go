// Package testsuites holds the activities that run test suites on throw-away clusters.
package testsuites

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"go.temporal.io/sdk/temporal"
	"k8s.io/client-go/rest"

	"github.com/fairway-project/fairway/activities"
	"github.com/fairway-project/fairway/e2e"
	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/workflows"
)

// Activities implements workflows.TestSuites.
type Activities struct {
	// Clusters tells how API servers are reached; activities/kube does.
	Clusters interface {
		REST(ctx context.Context, name string) (*rest.Config, registry.Cluster, error)
	}
	Settings e2e.Settings
	// File reads a file of a commit of the configuration repository; channels.Mirror.Text does.
	File func(ctx context.Context, commit, name string) (text string, found bool, err error)
	// Store keeps data under a key in the bucket of the cluster's account, and says where that is.
	Store func(ctx context.Context, cluster registry.Cluster, key string, data []byte) (url string, err error)
	// Root is the folder that suites run in folders of; see DefaultRoot and RemoveLeftovers.
	Root string
	// Grace is how long what is told to end may take before it is killed; default 10 s.
	Grace time.Duration
}

var _ workflows.TestSuites = (*Activities)(nil)

// defaultWithin bounds an attempt at a suite that has no limit of its own.
const defaultWithin = time.Hour

// ListSuites implements workflows.TestSuites.
func (a *Activities) ListSuites(context.Context) (workflows.SuitesToRun, error) {
	s := a.Settings
	return workflows.SuitesToRun{
		Suites: s.Suites, Parallel: max(1, s.ParallelSuites), Within: s.Within,
		Load: len(s.Load.URLs) > 0, Workload: s.Workload.Image != "", KeepFailed: s.KeepFailed, KeepAtMost: s.KeepAtMost,
	}, nil
}

// run is a suite that runs.
type run struct {
	*Activities
	in      workflows.RunSuite
	cluster registry.Cluster
	access  *rest.Config // without a timeout; for copies only
	attempt int
	doing   atomic.Value // string, for heartbeats
}

func (r *run) say(format string, args ...any) { r.doing.Store(fmt.Sprintf(format, args...)) }

// RunSuite implements workflows.TestSuites.
func (a *Activities) RunSuite(ctx context.Context, in workflows.RunSuite) (e2e.SuiteResult, error) {
	r := &run{Activities: a, in: in}
	r.say("beginning")
	ctx, end := activities.Working(ctx, r.doing.Load)
	defer end()
	began := time.Now()
	var err error
	if r.access, r.cluster, err = a.Clusters.REST(ctx, in.Request.Cluster); err != nil {
		return e2e.SuiteResult{}, stopped(ctx, err)
	}
	attempt, attempts := r.way()
	if attempt == nil {
		return r.fail("It has no command, job, kubernetes, stateful_set or smoke: see e2e.suites in fairway.yaml."), nil
	}
	var all tally
	var files []file
	for r.attempt = 1; r.attempt <= attempts; r.attempt++ {
		r.say("attempt %d of at most %d", r.attempt, attempts)
		o, err := r.within(ctx, attempt)
		if err != nil {
			return e2e.SuiteResult{}, stopped(ctx, err)
		}
		for _, f := range o.files {
			if attempts > 1 {
				f.name = fmt.Sprintf("attempt-%d/%s", r.attempt, f.name)
			}
			files = append(files, f)
		}
		if all.add(o); all.passed() || o.final {
			break
		}
	}
	result := all.result()
	result.Name, result.Optional = in.Suite.Name, in.Suite.Optional
	r.say("storing its files")
	if result.Results, err = r.storeAll(ctx, files); ctx.Err() != nil {
		return e2e.SuiteResult{}, stopped(ctx, err)
	} else if err != nil { // what the suite has found counts more than its files
		result.Problem = strings.TrimSpace(result.Problem + " Its files could not be stored: " + cut(err.Error()))
	}
	result.Took = time.Since(began)
	return result, nil
}

// attempting is an attempt at a suite. Errors are only of what the suite needs to begin; all else is in the outcome.
type attempting func(context.Context) (outcome, error)

// way is how the suite is run, and how often at most.
func (r *run) way() (attempting, int) {
	s := r.in.Suite
	switch {
	case len(s.Command) > 0:
		return r.command, s.Retries + 1
	case s.Job != nil:
		return r.job, s.Retries + 1
	case s.Kubernetes != nil:
		return r.kubernetes, 1 // it retries single cases by itself
	case s.StatefulSet != nil:
		return r.statefulSet, s.Retries + 1
	case s.Smoke != nil:
		return r.smoke, s.Retries + 1
	}
	return nil, 0
}

// errLate ends an attempt whose time is over.
var errLate = errors.New("its time is over")

func (r *run) limit() time.Duration {
	if r.in.Suite.Within > 0 {
		return r.in.Suite.Within
	}
	return defaultWithin
}

// within gives an attempt its time. Whatever the API server does then, it is the suite that has failed.
func (r *run) within(ctx context.Context, attempt attempting) (outcome, error) {
	limited, cancel := context.WithTimeoutCause(ctx, r.limit(), errLate)
	defer cancel()
	o, err := attempt(limited)
	if ctx.Err() == nil && limited.Err() != nil {
		if why := fmt.Sprintf("It was not over after %s (within).", r.limit()); o.problem == "" {
			o.problem = why
		} else if !strings.Contains(o.problem, why) {
			o.problem = why + " " + o.problem
		}
		return o, nil
	}
	if ctx.Err() != nil {
		return o, ctx.Err()
	}
	return o, err
}

func (r *run) fail(format string, args ...any) e2e.SuiteResult {
	return e2e.SuiteResult{Name: r.in.Suite.Name, Optional: r.in.Suite.Optional, Problem: fmt.Sprintf(format, args...)}
}

// StoreReport implements workflows.TestSuites.
func (a *Activities) StoreReport(ctx context.Context, report e2e.Report) (string, error) {
	if report.Account.Account == "" {
		return "", nil // it ended before it had an account, and with it a bucket
	}
	data, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		return "", temporal.NewNonRetryableApplicationError(fmt.Sprintf("the report of test %s: %v", report.Request.ID, err), workflows.InvalidInput, err)
	}
	// Its lease may be gone, and its entry with it.
	cluster := registry.Cluster{ID: report.Request.Cluster, InfrastructureAccount: report.Account.Account, Region: report.Account.Region}
	url, err := a.Store(ctx, cluster, path.Join("e2e", report.Request.ID, "report.json"), data)
	if err != nil {
		return "", err
	}
	return strings.TrimSuffix(url, "report.json"), nil
}

// file is something to be stored.
type file struct {
	name string // may have folders
	data []byte
}

// storeFor is how long it is tried to store the files of a suite, which may have run for hours.
const storeFor = 3 * time.Minute

// storeAll stores files beside each other and says where.
func (r *run) storeAll(ctx context.Context, files []file) (folder string, err error) {
	for _, f := range files {
		key := path.Join("e2e", r.in.Request.ID, folderName(r.in.Suite.Name), f.name)
		url, err := backoff.Retry(ctx, func() (string, error) {
			url, err := r.Store(ctx, r.cluster, key, f.data)
			var typed *temporal.ApplicationError
			if errors.As(err, &typed) && typed.NonRetryable() {
				return "", backoff.Permanent(err)
			}
			return url, err
		}, backoff.WithMaxElapsedTime(storeFor))
		if err != nil {
			return folder, err
		}
		folder = strings.TrimSuffix(url, f.name)
	}
	return folder, nil
}

// stopped says why an activity ends that was told to, or that its cluster does not let begin.
func stopped(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return activities.Interrupted(ctx, err)
}
