// Package testload holds what runs on a test cluster while it is updated and must not notice: a workload,
// a load, and a witness of what happens to pods and their budgets.
package testload

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/fairway-project/fairway/activities"
	"github.com/fairway-project/fairway/e2e"
	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/workflows"
)

// Activities implements workflows.TestWorkloads.
type Activities struct {
	// Clusters tells how API servers are reached; activities/kube does.
	Clusters interface {
		REST(ctx context.Context, name string) (*rest.Config, registry.Cluster, error)
	}
	// Workload and Load are as configured, defaults filled in.
	Workload e2e.Workload
	Load     e2e.Load
}

var _ workflows.TestWorkloads = (*Activities)(nil)

// retryEvery is the time between two attempts at something that does not answer.
const retryEvery = time.Second

// answerWithin bounds a request that is no watch.
const answerWithin = 30 * time.Second

// client is access to a cluster without a limit for watches, whose connections are made within the one for
// answers by client-go itself.
func (a *Activities) client(ctx context.Context, cluster string) (kubernetes.Interface, error) {
	access, entry, err := a.Clusters.REST(ctx, cluster)
	if err != nil {
		return nil, err
	}
	client, err := kubernetes.NewForConfig(access)
	if err != nil {
		return nil, invalid("cluster %s: building a client: %v", entry.ID, err)
	}
	return client, nil
}

func invalid(format string, args ...any) error {
	return temporal.NewApplicationError(fmt.Sprintf(format, args...), workflows.InvalidInput)
}

// explain types an error of a request to an API server.
func explain(cluster, doing string, err error) error {
	var typed *temporal.ApplicationError
	switch {
	case err == nil, errors.As(err, &typed), errors.Is(err, context.Canceled):
		return err
	case apierrors.IsUnauthorized(err), apierrors.IsForbidden(err):
		return temporal.NewApplicationError(fmt.Sprintf(
			"cluster %s: %s: the API server refuses: %v; check the credentials (kubernetes.access) and deploy/kubernetes/rbac-manifests.yaml", cluster, doing, err), workflows.AccessDenied)
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err):
		return invalid("cluster %s: %s: %v; check e2e.workload", cluster, doing, err)
	default:
		return temporal.NewApplicationError(fmt.Sprintf("cluster %s: %s: %v", cluster, doing, err), workflows.Unreachable)
	}
}

// lasting says whether an error stays until a person changes something.
func lasting(err error) bool {
	var typed *temporal.ApplicationError
	return errors.As(err, &typed) && (typed.Type() == workflows.AccessDenied || typed.Type() == workflows.InvalidInput || typed.NonRetryable())
}

func unhealthy(format string, args ...any) error {
	return temporal.NewNonRetryableApplicationError(fmt.Sprintf(format, args...), workflows.Unhealthy, nil)
}

// pause waits, or says why the work ends.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// remembered is what an attempt before this one has heartbeated. What cannot be read is as if it were not there.
func remembered[T any](ctx context.Context) (state T, found bool) {
	if !activity.HasHeartbeatDetails(ctx) {
		return state, false
	}
	if err := activity.GetHeartbeatDetails(ctx, &state); err != nil {
		activity.GetLogger(ctx).Warn("what was known before a crash cannot be read", "error", err)
		var nothing T
		return nothing, false
	}
	return state, true
}

// waiting is when an activity began to wait, whatever attempts it took, and what it waits for.
type waiting struct {
	Since time.Time `json:"since"`
	For   string    `json:"for"`
}

// since is the beginning of the first attempt, as a worker that dies makes nobody patient.
func since(ctx context.Context) time.Time {
	if before, found := remembered[waiting](ctx); found && !before.Since.IsZero() {
		return before.Since
	}
	return time.Now()
}

func stopping(ctx context.Context) bool { return errors.Is(context.Cause(ctx), activities.ErrStopping) }

func ofCluster(text, cluster string) string { return strings.ReplaceAll(text, "{cluster}", cluster) }
