package manifests

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.temporal.io/sdk/temporal"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairway-project/fairway/activities"
	"github.com/fairway-project/fairway/workflows"
)

// stopped says why the work of an activity has ended.
func stopped(ctx context.Context) error {
	return activities.Interrupted(ctx, ctx.Err())
}

// explain types an error of a request to the API server.
func (s *server) explain(ctx context.Context, doing string, err error) error {
	var typed *temporal.ApplicationError
	say := func(format string, args ...any) string {
		return shorten(fmt.Sprintf("cluster %s: %s: %s", s.cluster.ID, doing, fmt.Sprintf(format, args...)), textLimit)
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return stopped(ctx)
	case errors.As(err, &typed):
		return err
	case deniedByAdmission(err):
		return invalid("%s", say("%v", err))
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause): // 403, until it is gone
		return temporal.NewApplicationError(say("%v", err), workflows.Unreachable)
	case apierrors.IsUnauthorized(err), apierrors.IsForbidden(err):
		return temporal.NewApplicationError(say("the API server refuses: %v; check the credentials (kubernetes.access) and deploy/kubernetes/rbac-manifests.yaml", err), workflows.AccessDenied)
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err), apierrors.IsMethodNotSupported(err):
		return invalid("%s", say("%v", err))
	case apierrors.IsTooManyRequests(err):
		delay := time.Second
		if seconds, ok := apierrors.SuggestsClientDelay(err); ok {
			delay = time.Duration(seconds) * time.Second
		}
		return temporal.NewApplicationErrorWithOptions(say("the API server is busy: %v", err),
			workflows.Unreachable, temporal.ApplicationErrorOptions{NextRetryDelay: delay})
	default: // no answer, or one that says that the server is in trouble
		return temporal.NewApplicationError(say("%v", err), workflows.Unreachable)
	}
}

// deniedByAdmission tells somebody who does not want an object from missing rights: both are 403.
func deniedByAdmission(err error) bool {
	return apierrors.IsForbidden(err) && slices.ContainsFunc(admissionTexts, func(text string) bool { return strings.Contains(err.Error(), text) })
}

var admissionTexts = []string{"admission webhook", "ValidatingAdmissionPolicy", "violates PodSecurity", "exceeded quota"}

// ---- what is wrong with objects

// Limits of texts: errors become part of histories.
const (
	textLimit    = 1000
	problemLimit = 20
)

// problem is something that a person has to mend, in a manifest or about an object.
type problem struct {
	kind  string // of application error
	file  string
	line  int
	text  string
	order int
}

// problems are collected by many at a time.
type problems []problem

// severity orders kinds of problems: what no retry mends comes last.
var severity = []string{workflows.Unreachable, workflows.Conflict, workflows.InvalidInput}

// final says whether there is a problem that does not pass by itself.
func (ps problems) final() bool {
	return slices.ContainsFunc(ps, func(p problem) bool { return p.kind != workflows.Unreachable })
}

// againAfter is when it is looked again whether problems have passed.
const againAfter = 30 * time.Second

// err sums up what is wrong; nil if nothing is.
func (ps problems) err(cluster, what string) error {
	if len(ps) == 0 {
		return nil
	}
	ps = slices.Clone(ps)
	slices.SortStableFunc(ps, func(a, b problem) int { return cmp.Compare(a.order, b.order) })
	kind := ps[0].kind
	var text strings.Builder
	fmt.Fprintf(&text, "cluster %s: %s:", cluster, what)
	for i, p := range ps {
		if slices.Index(severity, p.kind) > slices.Index(severity, kind) {
			kind = p.kind
		}
		if i < problemLimit {
			fmt.Fprintf(&text, "\n%s:%d: %s", p.file, p.line, shorten(p.text, textLimit))
		}
	}
	if more := len(ps) - problemLimit; more > 0 {
		fmt.Fprintf(&text, "\nand %d more", more)
	}
	options := temporal.ApplicationErrorOptions{}
	if kind == workflows.Unreachable {
		options.NextRetryDelay = againAfter
	}
	return temporal.NewApplicationErrorWithOptions(text.String(), kind, options)
}

func shorten(text string, limit int) string {
	text = strings.ToValidUTF8(text, "?")
	if len(text) <= limit {
		return text
	}
	return strings.ToValidUTF8(text[:limit], "") + " ..."
}

// judge says what is wrong with an object that the API server does not take; empty if the trouble is
// not the object's. What may be quoted of an object are its field names only if it is secret.
func judge(err error, secret bool) (kind, text string) {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return "", ""
	}
	answer := status.Status()
	if conflicts := conflictsOf(err); len(conflicts) > 0 {
		var parts []string
		for _, cause := range conflicts {
			parts = append(parts, fmt.Sprintf("%s belongs to %s", cause.Field, strings.TrimPrefix(cause.Message, "conflict with ")))
		}
		return workflows.Conflict, strings.Join(limited(parts), "; ") +
			"; leave it out of the manifest, or annotate the manifest with " + ForceConflicts + `: "true" to take it over`
	}
	switch {
	case apierrors.IsInvalid(err):
		var parts []string
		hint := ""
		if answer.Details != nil {
			for _, cause := range answer.Details.Causes {
				message := cause.Message
				if secret {
					message = string(cause.Type)
				}
				parts = append(parts, strings.TrimPrefix(cause.Field+": "+message, ": "))
				if strings.Contains(cause.Message, "immutable") {
					hint = "; to replace it, name the object under pre_apply in deletions.yaml"
				}
			}
		}
		if len(parts) == 0 {
			parts = []string{quote(answer.Message, secret)}
		}
		return workflows.InvalidInput, strings.Join(limited(parts), "; ") + hint
	case apierrors.IsBadRequest(err), deniedByAdmission(err), apierrors.IsRequestEntityTooLargeError(err), apierrors.IsMethodNotSupported(err):
		return workflows.InvalidInput, quote(answer.Message, secret)
	case strings.Contains(answer.Message, "failed calling webhook"), strings.Contains(answer.Message, "conversion webhook"):
		return workflows.Unreachable, quote(answer.Message, secret) // it concerns what the webhook is for, and nothing else
	case strings.Contains(answer.Message, "request is too large"), strings.Contains(answer.Message, "message larger than max"):
		return workflows.InvalidInput, quote(answer.Message, secret) // for etcd, answered with 500
	case strings.Contains(answer.Message, "failed to create typed patch object"):
		return workflows.InvalidInput, quote(answer.Message, secret) // a field that the kind does not have, answered with 500
	case apierrors.IsNotFound(err) && answer.Details != nil && answer.Details.Kind == "namespaces":
		return workflows.InvalidInput, fmt.Sprintf("there is no namespace %q, in the cluster or in a manifest", answer.Details.Name)
	}
	return "", ""
}

func quote(message string, secret bool) string {
	if secret {
		return "the API server does not take it; its answer may quote secret values and is left out"
	}
	return message
}

func conflictsOf(err error) []metav1.StatusCause {
	var status apierrors.APIStatus
	if !errors.As(err, &status) || status.Status().Details == nil {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(status.Status().Details.Causes), func(c metav1.StatusCause) bool {
		return c.Type != metav1.CauseTypeFieldManagerConflict
	})
}

func limited(parts []string) []string {
	if len(parts) > problemLimit {
		return append(parts[:problemLimit:problemLimit], fmt.Sprintf("and %d more", len(parts)-problemLimit))
	}
	return parts
}

func isKind(err error, kind string) bool {
	var typed *temporal.ApplicationError
	return errors.As(err, &typed) && typed.Type() == kind
}
