package manifests

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.temporal.io/sdk/temporal"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/csaupgrade"
	"k8s.io/client-go/util/retry"

	"github.com/fairway-project/fairway/activities/kube"
	"github.com/fairway-project/fairway/render"
	"github.com/fairway-project/fairway/workflows"
)

var (
	namespaceKind = schema.GroupKind{Kind: "Namespace"}
	secretKind    = schema.GroupKind{Kind: "Secret"}
	crdKind       = schema.GroupKind{Group: "apiextensions.k8s.io", Kind: "CustomResourceDefinition"}
)

// item is a manifest, ready to be applied.
type item struct {
	render.Manifest
	order   int
	object  *unstructured.Unstructured // with the label of the inventory
	mapping *meta.RESTMapping          // nil while its CRD has not been applied
	id      identity
}

func (i *item) problem(kind, format string, args ...any) problem {
	return problem{kind: kind, file: i.File, line: i.Line, text: i.id.String() + ": " + fmt.Sprintf(format, args...), order: i.order}
}

// ApplyManifests implements workflows.Manifests.
func (a *Activities) ApplyManifests(ctx context.Context, in workflows.ManifestsOf) (workflows.Applied, error) {
	ctx, progress, end := begin(ctx)
	defer end()
	progress.say("rendering manifests")
	release, s, err := a.prepare(ctx, in.Cluster, in.Version)
	if err != nil {
		return workflows.Applied{}, err
	}
	items, problems := s.itemsOf(release)
	if err := problems.err(s.cluster.ID, fmt.Sprintf("%d of %d manifests are wrong", len(problems), len(release.Manifests))); err != nil {
		return workflows.Applied{}, err
	}
	run := &application{taken: notes{}, server: s, gate: a.gate(s.cluster.ID), progress: progress, items: items}
	return run.apply(ctx)
}

// prepare renders a version and connects to the cluster, at once.
func (a *Activities) prepare(ctx context.Context, cluster, version string) (*render.Release, *server, error) {
	var release *render.Release
	var s *server
	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		release, err = a.Release(groupCtx, cluster, version)
		return err
	})
	group.Go(func() (err error) {
		if s, err = a.connect(groupCtx, cluster); err != nil {
			return err
		}
		return s.discover(groupCtx)
	})
	if err := group.Wait(); err != nil {
		if ctx.Err() != nil {
			return nil, nil, stopped(ctx)
		}
		return nil, nil, err
	}
	return release, s, nil
}

// application is one pass over all manifests of a release.
type application struct {
	*server
	gate     gate
	progress *progress
	items    []*item
	before   map[identity]trace // objects that Fairway has applied before
	fresh    bool               // CRDs were made or changed: there may be new kinds
	done     atomic.Int32

	mu       sync.Mutex
	problems problems
	applied  workflows.Applied
	notes    notes                        // about what was applied before
	taken    notes                        // about what is applied now
	crds     []*unstructured.Unstructured // that were applied
}

// itemsOf looks up the kinds of all manifests and finds what is wrong without asking for each.
func (s *server) itemsOf(release *render.Release) ([]*item, problems) {
	defined := definedKinds(release)
	var items []*item
	var wrong problems
	seen := map[identity]*item{}
	for order, manifest := range release.Manifests {
		i := &item{Manifest: manifest, order: order, object: manifest.Object.DeepCopy()}
		kind := i.object.GroupVersionKind()
		i.id = identity{kind.GroupKind(), types.NamespacedName{Namespace: i.object.GetNamespace(), Name: i.object.GetName()}}
		report := func(format string, args ...any) {
			wrong = append(wrong, i.problem(workflows.InvalidInput, format, args...))
		}
		if i.id.Name == "" {
			report("metadata.name is missing")
			continue
		}
		if err := asPath(i.id.NamespacedName); err != nil {
			report("%v", err)
			continue
		}
		if i.id == ownInventory {
			report("is where Fairway notes what it has applied; choose another name")
			continue
		}
		mapping, err := s.kinds().RESTMapping(kind.GroupKind(), kind.Version)
		switch {
		case err == nil:
			i.mapping = mapping
		case meta.IsNoMatchError(err) && defined[kind]:
		case meta.IsNoMatchError(err) && s.silence(kind.Group) != nil:
			wrong = append(wrong, i.problem(workflows.Unreachable, "whoever serves %s does not answer: %v", kind.GroupVersion(), s.silence(kind.Group)))
			continue
		case meta.IsNoMatchError(err):
			report("the cluster has no kind %s in %s, and no manifest defines it", kind.Kind, kind.GroupVersion())
			continue
		default:
			report("%v", err)
			continue
		}
		if err := i.tidy(); err != nil {
			report("%v", err)
			continue
		}
		if first := seen[i.id]; first != nil {
			report("is in %s:%d already", first.File, first.Line)
			continue
		}
		seen[i.id] = i
		items = append(items, i)
	}
	return items, wrong
}

// asPath refuses names that would lead a request to something else than an object.
func asPath(name types.NamespacedName) error {
	for _, part := range []string{name.Namespace, name.Name} {
		if wrong := rest.IsValidPathSegmentName(part); len(wrong) > 0 {
			return fmt.Errorf("%q is no name: %s", part, strings.Join(wrong, ", "))
		}
	}
	return nil
}

// tidy gives the object its place and our label, and drops what only the API server may say.
func (i *item) tidy() error {
	for _, field := range []string{"labels", "annotations"} {
		if _, _, err := unstructured.NestedStringMap(i.object.Object, "metadata", field); err != nil {
			return fmt.Errorf("metadata.%s: values must be text; put numbers and true or false into quotes", field)
		}
	}
	for _, field := range []string{"managedFields", "resourceVersion", "uid", "generation", "creationTimestamp", "selfLink"} {
		unstructured.RemoveNestedField(i.object.Object, "metadata", field)
	}
	if i.mapping != nil {
		i.place()
	}
	labels := i.object.GetLabels()
	if labels == nil {
		labels = map[string]string{}
	}
	labels[partOf] = inventoryID
	i.object.SetLabels(labels)
	return nil
}

// place drops the namespace of what has none, and fills in that of what needs one, as kubectl does.
func (i *item) place() {
	switch {
	case i.mapping.Scope.Name() == meta.RESTScopeNameRoot:
		unstructured.RemoveNestedField(i.object.Object, "metadata", "namespace")
	case i.object.GetNamespace() == "":
		i.object.SetNamespace(metav1.NamespaceDefault)
	}
	i.id.Namespace = i.object.GetNamespace()
}

// definedKinds are those of the CRDs of a release.
func definedKinds(release *render.Release) map[schema.GroupVersionKind]bool {
	defined := map[schema.GroupVersionKind]bool{}
	for _, manifest := range release.Manifests {
		object := manifest.Object
		if object.GroupVersionKind().GroupKind() != crdKind {
			continue
		}
		group, _, _ := unstructured.NestedString(object.Object, "spec", "group")
		kind, _, _ := unstructured.NestedString(object.Object, "spec", "names", "kind")
		versions, _, _ := unstructured.NestedSlice(object.Object, "spec", "versions")
		for _, version := range versions {
			if fields, ok := version.(map[string]any); ok {
				name, _, _ := unstructured.NestedString(fields, "name")
				if served, _, _ := unstructured.NestedBool(fields, "served"); served {
					defined[schema.GroupVersionKind{Group: group, Version: name, Kind: kind}] = true
				}
			}
		}
	}
	return defined
}

// phases are namespaces, CRDs, and then one folder after another. What is in one phase is applied
// at the same time.
func phases(items []*item) [][]*item {
	var namespaces, crds []*item
	var rest [][]*item
	folder := ""
	for _, i := range items {
		switch i.id.GroupKind {
		case namespaceKind:
			namespaces = append(namespaces, i)
			continue
		case crdKind:
			crds = append(crds, i)
			continue
		}
		if in := path.Dir(i.File); len(rest) == 0 || in != folder {
			rest, folder = append(rest, nil), in
		}
		rest[len(rest)-1] = append(rest[len(rest)-1], i)
	}
	return append([][]*item{namespaces, crds}, rest...)
}

func (r *application) apply(ctx context.Context) (workflows.Applied, error) {
	if err := r.remember(ctx); err != nil {
		return workflows.Applied{}, err
	}
	if err := r.strike(ctx); err != nil {
		return workflows.Applied{}, err
	}
	for _, phase := range phases(r.items) {
		if len(phase) == 0 {
			continue
		}
		// After the first folder with something wrong nothing more is changed, but what else is wrong
		// is found out, so that a person can mend it all in one go. What passes holds up nothing: the
		// webhook that does not answer may be what a later folder mends.
		dry := r.problems.final()
		if err := r.applyPhase(ctx, phase, dry); err != nil {
			return r.applied, err
		}
		if phase[0].id.GroupKind == crdKind && !dry && !r.problems.final() {
			if err := r.establish(ctx); err != nil {
				return r.applied, err
			}
		}
	}
	if err := r.problems.err(r.cluster.ID, fmt.Sprintf("%d of %d manifests cannot be applied", len(r.problems), len(r.items))); err != nil {
		return r.applied, err
	}
	return r.applied, r.keep(ctx)
}

func (r *application) applyPhase(ctx context.Context, phase []*item, dry bool) error {
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for _, i := range phase {
		if groupCtx.Err() != nil {
			break
		}
		group.Go(func() error {
			r.progress.say("applying %s: %d of %d done", i.File, r.done.Load(), len(r.items))
			if dry {
				return r.try(groupCtx, i)
			}
			return r.applyItem(groupCtx, i)
		})
	}
	err := group.Wait()
	if err != nil && ctx.Err() != nil {
		return stopped(ctx)
	}
	return err
}

// try finds out whether an object would be taken. What depends on something that is not there yet
// cannot be said.
func (r *application) try(ctx context.Context, i *item) error {
	if i.mapping == nil {
		return nil
	}
	_, err := r.send(ctx, i, true, i.forced())
	if ours := only(err, append(legacyManagers.UnsortedList(), FieldManager)...); ours {
		return nil
	}
	if kind, text := judge(err, i.secret()); kind != "" && !apierrors.IsNotFound(err) {
		r.report(i.problem(kind, "%s", text))
	}
	if ctx.Err() != nil {
		return stopped(ctx)
	}
	return nil
}

func (r *application) applyItem(ctx context.Context, i *item) error {
	if r.noted(i) {
		r.pass(i)
		return nil
	}
	if err := r.gate(ctx); err != nil {
		return err
	}
	if err := r.find(ctx, i); err != nil {
		return err
	}
	if i.mapping == nil {
		r.report(i.problem(r.unknown(), "the cluster has no kind %s although its CRD was applied", i.object.GroupVersionKind()))
		return nil
	}
	// Even what is forced is not forced upon a drain, or on fields that can be had peacefully.
	answer, err := r.send(ctx, i, false, false)
	ours := only(err, append(legacyManagers.UnsortedList(), FieldManager)...)
	if conflictWith(err, legacyManagers.UnsortedList()...) && (ours || i.forced()) || err == nil && hasLegacy(answer.object) {
		if answer, err = r.adopt(ctx, i); err != nil && ctx.Err() == nil && conflictsOf(err) == nil {
			return r.explain(ctx, "taking over "+i.id.String(), err)
		}
	}
	if conflictWith(err, FieldManager) {
		surged, asked := r.surged(ctx, i)
		if asked != nil {
			return asked
		}
		if surged {
			r.report(i.problem(workflows.Unreachable, "has one replica more while a node is drained, and is applied afterwards: %v", err))
			return nil
		}
	}
	if only(err, FieldManager) || i.forced() && conflictsOf(err) != nil {
		answer, err = r.send(ctx, i, false, true)
	}
	if err != nil {
		if kind, text := judge(err, i.secret()); kind != "" {
			r.report(i.problem(kind, "%s", text))
			return nil
		}
		return r.explain(ctx, fmt.Sprintf("%s:%d: applying %s", i.File, i.Line, i.id), err)
	}
	if gone := answer.object; gone.GetDeletionTimestamp() != nil {
		// It takes what it is given, and goes nevertheless.
		r.report(i.problem(workflows.Unreachable, "is being deleted, and is applied again when it is gone; what holds it: %s",
			cmp.Or(strings.Join(limited(gone.GetFinalizers()), ", "), "nothing")))
		return nil
	}
	r.count(i, answer)
	return nil
}

// find looks up the kind of an object whose CRD has just been applied.
func (r *application) find(_ context.Context, i *item) error {
	if i.mapping != nil {
		return nil
	}
	kind := i.object.GroupVersionKind()
	mapping, err := r.kinds().RESTMapping(kind.GroupKind(), kind.Version)
	if meta.IsNoMatchError(err) {
		return nil
	}
	if err != nil {
		return invalid("cluster %s: %s:%d: %v", r.cluster.ID, i.File, i.Line, err)
	}
	i.mapping = mapping
	i.place()
	return nil
}

// unknown is the kind of problem that a kind is which is not there: its CRD may only be late.
func (r *application) unknown() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.problems) > 0 && !r.problems.final() {
		return workflows.Unreachable
	}
	return workflows.InvalidInput
}

func (i *item) forced() bool { return i.object.GetAnnotations()[ForceConflicts] == "true" }

func (i *item) secret() bool { return i.id.GroupKind == secretKind }

// answer is what the API server makes of an object.
type answer struct {
	object  *unstructured.Unstructured
	created bool
}

// send asks the API server to make an object what its manifest says. It writes nothing if the object
// is that already.
func (s *server) send(ctx context.Context, i *item, dry, force bool) (answer, error) {
	body, err := i.object.MarshalJSON()
	if err != nil {
		return answer{}, invalid("cluster %s: %s:%d: %v", s.cluster.ID, i.File, i.Line, err)
	}
	resource := i.mapping.Resource
	prefix := []string{"/apis", resource.Group, resource.Version}
	if resource.Group == "" {
		prefix = []string{"/api", resource.Version}
	}
	request := s.objects.Patch(types.ApplyYAMLPatchType).AbsPath(prefix...).
		NamespaceIfScoped(i.id.Namespace, i.mapping.Scope.Name() == meta.RESTScopeNameNamespace).
		Resource(resource.Resource).Name(i.id.Name).
		Param("fieldManager", FieldManager).Param("fieldValidation", metav1.FieldValidationStrict).
		Body(body)
	if dry {
		request.Param("dryRun", metav1.DryRunAll)
	}
	if force {
		request.Param("force", "true")
	}
	var code int
	object := &unstructured.Unstructured{}
	if err := request.Do(ctx).StatusCode(&code).Into(object); err != nil {
		return answer{}, err
	}
	return answer{object, code == http.StatusCreated}, nil
}

// ---- objects that kubectl apply made

// legacyManagers are how the fields are marked of what was applied by `kubectl apply` on the client's
// side, or before there were marks.
var legacyManagers = sets.New("kubectl-client-side-apply", "before-first-apply")

// only says whether an error is a conflict with no others than these managers.
func only(err error, managers ...string) bool {
	conflicts := conflictsOf(err)
	return len(conflicts) > 0 && !slices.ContainsFunc(conflicts, func(c metav1.StatusCause) bool { return !isWith(c, managers) })
}

// conflictWith says whether an error is a conflict with one of these managers, and perhaps others.
func conflictWith(err error, managers ...string) bool {
	return slices.ContainsFunc(conflictsOf(err), func(c metav1.StatusCause) bool { return isWith(c, managers) })
}

func isWith(conflict metav1.StatusCause, managers []string) bool {
	return slices.ContainsFunc(managers, func(manager string) bool {
		return strings.HasPrefix(conflict.Message, fmt.Sprintf("conflict with %q", manager))
	})
}

func hasLegacy(object metav1.Object) bool {
	return slices.ContainsFunc(object.GetManagedFields(), func(e metav1.ManagedFieldsEntry) bool {
		return e.Operation == metav1.ManagedFieldsOperationUpdate && legacyManagers.Has(e.Manager) && e.Subresource == ""
	})
}

// adopt hands the fields that kubectl has applied over to us, and applies the object: what its
// manifest does not contain any more goes, as it would with kubectl.
func (r *application) adopt(ctx context.Context, i *item) (answer, error) {
	objects := r.of(i.mapping, i.id.Namespace)
	// Controllers change objects all the time; what the patch was made from has to be what it meets.
	if err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		live, err := objects.Get(ctx, i.id.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		patch, err := csaupgrade.UpgradeManagedFieldsPatch(live, legacyManagers, FieldManager)
		if err != nil || patch == nil {
			return err
		}
		_, err = objects.Patch(ctx, i.id.Name, types.JSONPatchType, patch, metav1.PatchOptions{FieldManager: FieldManager})
		return err
	}); err != nil {
		return answer{}, err
	}
	return r.send(ctx, i, false, false)
}

// ---- objects that a drain has scaled

// surged says whether it is a drain that has changed an object of which Fairway owns a field otherwise: it
// gives lone pods a second replica before they leave, and takes it back. Until then the manifest has to
// wait.
func (r *application) surged(ctx context.Context, i *item) (surged bool, err error) {
	err = r.eachMetadata(ctx, &meta.RESTMapping{Resource: corev1.SchemeGroupVersion.WithResource("nodes"), Scope: meta.RESTScopeRoot}, "",
		metav1.ListOptions{}, func(node *metav1.PartialObjectMetadata) {
			var records []struct{ Namespace, Deployment string }
			if json.Unmarshal([]byte(node.Annotations[kube.SurgedWorkloads]), &records) != nil {
				return
			}
			for _, record := range records {
				surged = surged || i.id.Kind == "Deployment" && record.Namespace == i.id.Namespace && record.Deployment == i.id.Name
			}
		})
	return surged, err
}

// ---- what has changed

// trace is what an object looks like from afar.
type trace struct {
	uid        types.UID
	version    string // of the resource
	generation int64
	ours       string // what our manager owns and since when
	unsettled  bool   // it is being deleted, or kubectl owns some of it
}

func traceOf(object metav1.Object) trace {
	t := trace{
		uid: object.GetUID(), version: object.GetResourceVersion(), generation: object.GetGeneration(),
		unsettled: object.GetDeletionTimestamp() != nil || hasLegacy(object),
	}
	for _, entry := range object.GetManagedFields() {
		if entry.Manager == FieldManager && entry.Operation == metav1.ManagedFieldsOperationApply && entry.Subresource == "" {
			if entry.Time != nil && entry.FieldsV1 != nil {
				t.ours = entry.Time.UTC().Format(time.RFC3339) + entry.FieldsV1.GetRawString()
			}
		}
	}
	return t
}

// same says whether applying has changed nothing. Others may have written the status of an object that
// has one meanwhile, so another version of the resource alone says nothing there.
func (t trace) same(now trace) bool {
	return t.uid == now.uid && (t.version == now.version || t.generation != 0 && t.generation == now.generation && t.ours == now.ours && t.ours != "")
}

func (r *application) count(i *item, answer answer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done.Add(1)
	before, known := r.before[i.id]
	switch {
	case answer.created:
		r.applied.Created++
	case known && before.same(traceOf(answer.object)):
		r.applied.Unchanged++
	default:
		r.applied.Changed++
	}
	r.taken[i.noteKey()] = i.note(traceOf(answer.object))
	if i.id.GroupKind == crdKind {
		r.crds = append(r.crds, answer.object)
		r.fresh = r.fresh || !known || !before.same(traceOf(answer.object))
	}
}

// pass counts what need not be applied.
func (r *application) pass(i *item) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done.Add(1)
	r.applied.Unchanged++
	r.taken[i.noteKey()] = r.notes[i.noteKey()]
}

func (r *application) report(p problem) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done.Add(1)
	r.problems = append(r.problems, p)
}

// remember notes what there is before anything changes: one list for each kind, and the inventory.
func (r *application) remember(ctx context.Context) error {
	r.progress.say("looking at what there is")
	r.before = map[identity]trace{}
	kinds := map[schema.GroupKind]*meta.RESTMapping{}
	all := sets.New[schema.GroupKind]()
	for _, i := range r.items {
		all.Insert(i.id.GroupKind)
		if i.mapping != nil {
			kinds[i.id.GroupKind] = i.mapping
		}
	}
	var mu sync.Mutex
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	group.Go(func() (err error) {
		r.notes, err = r.enlist(groupCtx, all, r.gate)
		return err
	})
	for kind, mapping := range kinds {
		group.Go(func() error {
			return r.eachMetadata(groupCtx, mapping, "", metav1.ListOptions{LabelSelector: ours}, func(object *metav1.PartialObjectMetadata) {
				mu.Lock()
				defer mu.Unlock()
				r.before[identity{kind, types.NamespacedName{Namespace: object.Namespace, Name: object.Name}}] = traceOf(object)
			})
		})
	}
	err := group.Wait()
	if err != nil && ctx.Err() != nil {
		return stopped(ctx)
	}
	return err
}

// ---- CRDs

// establishWithin is how long a CRD may take until its kind can be used.
const establishWithin = time.Minute

// establish waits until the kinds of all CRDs can be used.
func (r *application) establish(ctx context.Context) error {
	deadline := time.Now().Add(establishWithin)
	for n, crd := range r.crds {
		for !established(crd) {
			reason := conditionsOf(crd)
			r.progress.say("waiting until CRD %s is established", crd.GetName())
			if time.Now().After(deadline) {
				return temporal.NewApplicationError(fmt.Sprintf("cluster %s: CRD %s is not established after %s: %s",
					r.cluster.ID, crd.GetName(), establishWithin, shorten(reason, textLimit)), workflows.Unhealthy)
			}
			if err := pause(ctx, 200*time.Millisecond); err != nil {
				return err
			}
			mapping, err := r.kinds().RESTMapping(crdKind)
			if err != nil {
				return invalid("cluster %s: %v", r.cluster.ID, err)
			}
			if crd, err = r.of(mapping, "").Get(ctx, crd.GetName(), metav1.GetOptions{}); err != nil {
				return r.explain(ctx, "reading CRD "+r.crds[n].GetName(), err)
			}
		}
	}
	// An earlier attempt may have applied the CRDs a moment ago.
	for r.fresh || slices.ContainsFunc(r.items, func(i *item) bool { return i.mapping == nil }) {
		if err := r.discover(ctx); err != nil {
			return err
		}
		missing := slices.IndexFunc(r.items, func(i *item) bool {
			kind := i.object.GroupVersionKind()
			_, err := r.kinds().RESTMapping(kind.GroupKind(), kind.Version)
			return err != nil
		})
		if missing < 0 || time.Now().After(deadline) { // what is missing then is reported with its file
			return nil
		}
		r.progress.say("waiting until kind %s can be used", r.items[missing].id.Kind)
		if err := pause(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

func established(crd *unstructured.Unstructured) bool {
	conditions, _, _ := unstructured.NestedSlice(crd.Object, "status", "conditions")
	return slices.ContainsFunc(conditions, func(condition any) bool {
		fields, _ := condition.(map[string]any)
		return fields["type"] == "Established" && fields["status"] == "True"
	})
}

// conditionsOf are those that are not as they should be, for people.
func conditionsOf(object *unstructured.Unstructured) string {
	conditions, _, _ := unstructured.NestedSlice(object.Object, "status", "conditions")
	var texts []string
	for _, condition := range conditions {
		if fields, _ := condition.(map[string]any); fields["status"] != "True" {
			texts = append(texts, fmt.Sprintf("%v is %v: %v", fields["type"], fields["status"], fields["message"]))
		}
	}
	if texts == nil {
		return "it has no conditions yet"
	}
	return strings.Join(texts, "; ")
}
