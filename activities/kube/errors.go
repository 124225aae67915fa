package kube

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"

	"go.temporal.io/sdk/temporal"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/fairway-project/fairway/workflows"
)

func invalid(format string, args ...any) error {
	return temporal.NewApplicationError(fmt.Sprintf(format, args...), workflows.InvalidInput)
}

func notFound(cluster, node string) error {
	return temporal.NewNonRetryableApplicationError(
		fmt.Sprintf("cluster %s has no node %q; `fairway node list %s` shows those that it has", cluster, node, cluster),
		workflows.NodeNotFound, nil)
}

// explain types an error of a request to an API server.
func (c *cluster) explain(doing string, err error) error {
	var typed *temporal.ApplicationError
	var wire *url.Error
	var dial net.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &typed), errors.Is(err, context.Canceled):
		return err
	case apierrors.IsUnauthorized(err), apierrors.IsForbidden(err):
		return temporal.NewApplicationError(
			fmt.Sprintf("cluster %s: %s: the API server refuses: %v; check the credentials (kubernetes.access) and deploy/kubernetes/rbac.yaml", c.id, doing, err),
			workflows.AccessDenied)
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err):
		return invalid("cluster %s: %s: %v", c.id, doing, err)
	case apierrors.IsTooManyRequests(err):
		delay := time.Second
		if seconds, ok := apierrors.SuggestsClientDelay(err); ok {
			delay = time.Duration(seconds) * time.Second
		}
		return temporal.NewApplicationErrorWithOptions(fmt.Sprintf("cluster %s: %s: the API server is busy: %v", c.id, doing, err),
			workflows.Unreachable, temporal.ApplicationErrorOptions{NextRetryDelay: delay})
	case errors.As(err, &wire), errors.As(err, &dial), errors.Is(err, context.DeadlineExceeded):
		return temporal.NewApplicationError(fmt.Sprintf("cluster %s: %s: the API server does not answer: %v", c.id, doing, err), workflows.Unreachable)
	default:
		return fmt.Errorf("cluster %s: %s: %w", c.id, doing, err)
	}
}
