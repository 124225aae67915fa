package testsuites

import (
	"errors"
	"fmt"

	"go.temporal.io/sdk/temporal"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/fairway-project/fairway/workflows"
)

// explain types an error of a request to the API server.
func (r *run) explain(doing string, err error) error {
	var typed *temporal.ApplicationError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &typed):
		return err
	case apierrors.IsUnauthorized(err), apierrors.IsForbidden(err):
		return temporal.NewApplicationError(cut(fmt.Sprintf("cluster %s: %s: the API server refuses: %v", r.cluster.ID, doing, err))+
			"; check the credentials (kubernetes.access) and deploy/kubernetes/rbac-manifests.yaml", workflows.AccessDenied)
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err):
		return temporal.NewApplicationError(cut(fmt.Sprintf("cluster %s: %s: %v", r.cluster.ID, doing, err)), workflows.InvalidInput)
	default: // no answer, or one that says that the server is in trouble
		return temporal.NewApplicationError(cut(fmt.Sprintf("cluster %s: %s: %v", r.cluster.ID, doing, err)), workflows.Unreachable)
	}
}
