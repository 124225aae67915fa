package manifests

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"go.temporal.io/sdk/temporal"
	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-project/fairway/render"
	"github.com/fairway-project/fairway/workflows"
)

// deletionsFile is where deletions come from; errors name it.
const deletionsFile = "deletions.yaml"

// target is an object that is to go.
type target struct {
	identity
	mapping *meta.RESTMapping
	uid     types.UID
	goes    bool // it is being deleted already
	options metav1.DeleteOptions
	line    int // in deletions.yaml; 0 if it is pruned
}

func (t target) change(action, why string) workflows.ObjectChange {
	file := ""
	if t.line > 0 {
		file = fmt.Sprintf("%s:%d", deletionsFile, t.line)
	}
	return workflows.ObjectChange{Action: action, Kind: t.Kind, Name: t.title(), File: file, Diff: why}
}

// DeleteObjects implements workflows.Manifests.
func (a *Activities) DeleteObjects(ctx context.Context, in workflows.DeleteObjects) ([]workflows.ObjectChange, error) {
	ctx, progress, end := begin(ctx)
	defer end()
	progress.say("rendering manifests")
	release, s, err := a.prepare(ctx, in.Cluster, in.Version)
	if err != nil {
		return nil, err
	}
	switch in.When {
	case workflows.BeforeApply:
		return a.deleteNamed(ctx, s, progress, release.Deletions.PreApply)
	case workflows.AfterApply:
		return a.deleteNamed(ctx, s, progress, release.Deletions.PostApply)
	case workflows.Pruning:
		return a.prune(ctx, s, progress, release)
	default:
		return nil, invalid("when is %q; must be %s, %s or %s", in.When, workflows.BeforeApply, workflows.AfterApply, workflows.Pruning)
	}
}

// deleteNamed carries out entries of deletions.yaml. All of them are looked at before the first
// object is deleted.
func (a *Activities) deleteNamed(ctx context.Context, s *server, progress *progress, deletions []render.Deletion) ([]workflows.ObjectChange, error) {
	targets, changes, err := s.named(ctx, deletions)
	if err != nil {
		return nil, err
	}
	if err := s.guardAll(ctx, targets); err != nil {
		return nil, err
	}
	if err := a.remove(ctx, s, progress, targets); err != nil {
		return nil, err
	}
	for _, target := range targets {
		changes = append(changes, target.change("delete", ""))
	}
	return bounded(changes), nil
}

// named finds the objects that entries of deletions.yaml mean. What is not there is fine; where
// that is because of its kind, the changes say so.
func (s *server) named(ctx context.Context, deletions []render.Deletion) ([]target, []workflows.ObjectChange, error) {
	var targets []target
	changes := []workflows.ObjectChange{}
	seen := map[types.UID]bool{}
	for _, deletion := range deletions {
		wrong := func(format string, args ...any) error {
			return invalid("cluster %s: %s:%d: %s", s.cluster.ID, deletionsFile, deletion.Line, fmt.Sprintf(format, args...))
		}
		options, err := deleteOptions(deletion)
		if err != nil {
			return nil, nil, wrong("%v", err)
		}
		mapping, err := s.kindNamed(deletion.Kind, deletion.APIVersion)
		if group := groupOf(deletion); meta.IsNoMatchError(err) && s.silence(group) != nil {
			return nil, nil, s.explain(ctx, fmt.Sprintf("%s:%d: whoever serves %s does not answer", deletionsFile, deletion.Line, group), s.silence(group))
		}
		if meta.IsNoMatchError(err) {
			name := cmp.Or(deletion.Name, deletion.Selector, labels.FormatLabels(deletion.Labels))
			changes = append(changes, workflows.ObjectChange{
				Action: "unchanged", Kind: deletion.Kind, Name: name, File: fmt.Sprintf("%s:%d", deletionsFile, deletion.Line),
				Diff: "the cluster has no such kind, so nothing of it to delete",
			})
			continue
		}
		if err != nil {
			return nil, nil, wrong("kind %q: %v; name its api_version", deletion.Kind, err)
		}
		found, err := s.meant(ctx, deletion, mapping, wrong)
		if err != nil {
			return nil, nil, err
		}
		for _, object := range found {
			if owned := len(object.OwnerReferences) > 0; deletion.HasOwner != nil && *deletion.HasOwner != owned || seen[object.UID] {
				continue
			}
			seen[object.UID] = true
			targets = append(targets, targetOf(object, mapping, options, deletion.Line))
		}
	}
	return targets, changes, nil
}

// groupOf is the group that an entry names, if it does.
func groupOf(deletion render.Deletion) string {
	if version, err := schema.ParseGroupVersion(deletion.APIVersion); err == nil && version.Group != "" {
		return version.Group
	}
	return schema.ParseGroupResource(deletion.Kind).Group
}

// meant finds the objects of one entry, by name or by labels.
func (s *server) meant(ctx context.Context, deletion render.Deletion, mapping *meta.RESTMapping, wrong func(string, ...any) error) ([]*metav1.PartialObjectMetadata, error) {
	namespace := cmp.Or(deletion.Namespace, metav1.NamespaceSystem)
	if err := asPath(types.NamespacedName{Namespace: namespace, Name: deletion.Name}); err != nil {
		return nil, wrong("%v", err)
	}
	if deletion.Name != "" {
		object, err := s.metadataOf(mapping, namespace).Get(ctx, deletion.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil, nil
		}
		if err != nil {
			return nil, s.explain(ctx, fmt.Sprintf("%s:%d: reading %s %s", deletionsFile, deletion.Line, mapping.GroupVersionKind.Kind, deletion.Name), err)
		}
		return []*metav1.PartialObjectMetadata{object}, nil
	}
	selector, err := labels.Parse(deletion.Selector)
	if err != nil {
		return nil, wrong("selector: %v", err)
	}
	equal, err := labels.ValidatedSelectorFromSet(deletion.Labels)
	if err != nil {
		return nil, wrong("labels: %v", err)
	}
	requirements, _ := equal.Requirements()
	selector = selector.Add(requirements...)
	if selector.Empty() { // it would mean all there is
		return nil, wrong("needs a name, labels or a selector")
	}
	var found []*metav1.PartialObjectMetadata
	err = s.eachMetadata(ctx, mapping, namespace, metav1.ListOptions{LabelSelector: selector.String()}, func(object *metav1.PartialObjectMetadata) {
		object.ManagedFields = nil
		found = append(found, object)
	})
	return found, err
}

func targetOf(object *metav1.PartialObjectMetadata, mapping *meta.RESTMapping, options metav1.DeleteOptions, line int) target {
	options.Preconditions = &metav1.Preconditions{UID: &object.UID} // what has its name later is another one
	return target{
		identity: identity{mapping.GroupVersionKind.GroupKind(), types.NamespacedName{Namespace: object.Namespace, Name: object.Name}},
		mapping:  mapping, uid: object.UID, goes: object.DeletionTimestamp != nil, options: options, line: line,
	}
}

// deleteOptions are those of an entry; by default dependents go in the background, as with kubectl.
func deleteOptions(deletion render.Deletion) (metav1.DeleteOptions, error) {
	options := metav1.DeleteOptions{GracePeriodSeconds: deletion.GracePeriodSeconds}
	if grace := deletion.GracePeriodSeconds; grace != nil && *grace < 0 {
		return options, fmt.Errorf("grace_period_seconds is %d; must not be negative", *grace)
	}
	for _, policy := range []metav1.DeletionPropagation{metav1.DeletePropagationBackground, metav1.DeletePropagationForeground, metav1.DeletePropagationOrphan} {
		if strings.EqualFold(cmp.Or(deletion.PropagationPolicy, string(metav1.DeletePropagationBackground)), string(policy)) {
			options.PropagationPolicy = &policy
			return options, nil
		}
	}
	return options, fmt.Errorf("propagation_policy is %q; must be Background, Foreground or Orphan", deletion.PropagationPolicy)
}

// ---- what is not deleted without a mark

var (
	claimKind  = schema.GroupKind{Kind: "PersistentVolumeClaim"}
	volumeKind = schema.GroupKind{Kind: "PersistentVolume"}
)

// guard says why an object must not be deleted; empty if it may.
func (s *server) guard(ctx context.Context, t target) (string, error) {
	loses := ""
	switch t.GroupKind {
	case namespaceKind:
		loses = "all that is in it goes with it"
	case claimKind, volumeKind:
		loses = "its data may go with it"
	case crdKind:
		loses = "all objects of its kind go with it"
	default:
		return "", nil
	}
	if t.goes {
		return "", nil
	}
	live, err := s.of(t.mapping, t.Namespace).Get(ctx, t.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return "", nil
	}
	if err != nil {
		return "", s.explain(ctx, "reading "+t.identity.String(), err)
	}
	if live.GetAnnotations()[AllowDeletion] == "true" {
		return "", nil
	}
	if t.GroupKind == crdKind {
		some, err := s.hasInstances(ctx, live)
		if err != nil || !some {
			return "", err
		}
	}
	return fmt.Sprintf(`%s is not deleted, because %s; if that is meant, annotate it in the cluster with %s: "true"`, t.identity, loses, AllowDeletion), nil
}

func (s *server) hasInstances(ctx context.Context, crd *unstructured.Unstructured) (bool, error) {
	group, _, _ := unstructured.NestedString(crd.Object, "spec", "group")
	kind, _, _ := unstructured.NestedString(crd.Object, "spec", "names", "kind")
	mapping, err := s.kinds().RESTMapping(schema.GroupKind{Group: group, Kind: kind})
	if meta.IsNoMatchError(err) {
		return established(crd), nil // if it has been a kind there may be some, which are only not served
	}
	if err != nil {
		return false, invalid("cluster %s: whether there are objects of CRD %s cannot be found out: %v", s.cluster.ID, crd.GetName(), err)
	}
	list, err := s.metadata.Resource(mapping.Resource).List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return false, s.explain(ctx, "listing "+mapping.Resource.GroupResource().String(), err)
	}
	return len(list.Items) > 0, nil
}

func (s *server) guardAll(ctx context.Context, targets []target) error {
	var refused problems
	for n, t := range targets {
		why, err := s.guard(ctx, t)
		if err != nil {
			return err
		}
		if why != "" {
			refused = append(refused, problem{kind: workflows.InvalidInput, file: deletionsFile, line: t.line, text: why, order: n})
		}
	}
	return refused.err(s.cluster.ID, fmt.Sprintf("%d of %d deletions are refused", len(refused), len(targets)))
}

// ---- deleting

// remove deletes objects and waits until they are gone.
func (a *Activities) remove(ctx context.Context, s *server, progress *progress, targets []target) error {
	gate := a.gate(s.cluster.ID)
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for n, t := range targets {
		if groupCtx.Err() != nil {
			break
		}
		if t.goes {
			continue
		}
		group.Go(func() error {
			progress.say("deleting %s: %d of %d", t.identity, n+1, len(targets))
			if err := gate(groupCtx); err != nil {
				return err
			}
			err := s.of(t.mapping, t.Namespace).Delete(groupCtx, t.Name, t.options)
			if apierrors.IsNotFound(err) || apierrors.IsConflict(err) { // gone, or another one of its name
				return nil
			}
			return s.explain(groupCtx, "deleting "+t.identity.String(), err)
		})
	}
	if err := group.Wait(); err != nil {
		if ctx.Err() != nil {
			return stopped(ctx)
		}
		return err
	}
	return a.awaitGone(ctx, s, progress, targets)
}

// awaitGone waits for what finalizers or a grace period hold.
func (a *Activities) awaitGone(ctx context.Context, s *server, progress *progress, left []target) error {
	within := cmp.Or(a.GoneWithin, 3*time.Minute)
	deadline := time.Now().Add(within)
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		held, err := s.held(ctx, left)
		if err != nil || len(held) == 0 {
			return err
		}
		left = left[:0:0]
		var texts []string
		for _, h := range held {
			left = append(left, h.target)
			texts = append(texts, h.why)
		}
		text := strings.Join(limited(texts), "; ")
		if time.Now().After(deadline) {
			return temporal.NewApplicationError(shorten(fmt.Sprintf("cluster %s: deleted, but not gone after %s: %s", s.cluster.ID, within, text), 10*textLimit), workflows.Unhealthy)
		}
		progress.say("%s", shorten("waiting for "+text, textLimit))
		if err := pause(ctx, wait); err != nil {
			return err
		}
	}
}

type heldTarget struct {
	target
	why string
}

// held are the targets that are still there.
func (s *server) held(ctx context.Context, targets []target) ([]heldTarget, error) {
	var mu sync.Mutex
	var held []heldTarget
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for _, t := range targets {
		group.Go(func() error {
			object, err := s.metadataOf(t.mapping, t.Namespace).Get(groupCtx, t.Name, metav1.GetOptions{})
			if apierrors.IsNotFound(err) || err == nil && object.UID != t.uid {
				return nil
			}
			if err != nil {
				return s.explain(groupCtx, "reading "+t.identity.String(), err)
			}
			why := t.identity.String()
			if len(object.Finalizers) > 0 {
				why += " (held by " + strings.Join(limited(object.Finalizers), ", ") + ")"
			}
			mu.Lock()
			defer mu.Unlock()
			held = append(held, heldTarget{t, why})
			return nil
		})
	}
	err := group.Wait()
	if err != nil && ctx.Err() != nil {
		err = stopped(ctx)
	}
	slices.SortFunc(held, func(a, b heldTarget) int { return strings.Compare(a.why, b.why) })
	return held, err
}
