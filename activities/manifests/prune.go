package manifests

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"go.temporal.io/sdk/temporal"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"

	"github.com/fairway-project/fairway/render"
	"github.com/fairway-project/fairway/workflows"
)

// pruneFreely is how many objects are pruned whatever part they are of what there is. More than half
// of what there is rather means that something is wrong with the release.
const pruneFreely = 10

// leftovers are objects that Fairway has applied and that no manifest contains any more.
type leftovers struct {
	targets []target
	kept    []workflows.ObjectChange // that are left although no manifest contains them, and why
	total   int                      // of all that Fairway has applied
	needed  int                      // of these that manifests contain
	kinds   sets.Set[schema.GroupKind]
	stay    sets.Set[schema.GroupKind] // kinds of what is left
	allowed bool                       // however many they are
}

// findLeftovers lists the objects of each kind in the inventory.
func (s *server) findLeftovers(ctx context.Context, release *render.Release) (leftovers, error) {
	inventory, err := s.inventory(ctx)
	if err != nil || inventory == nil {
		return leftovers{}, err
	}
	found := leftovers{allowed: inventory.GetAnnotations()[AllowDeletion] == "true", kinds: kindsIn(inventory), stay: sets.New[schema.GroupKind]()}
	items, problems := s.itemsOf(release)
	if err := problems.err(s.cluster.ID, fmt.Sprintf("%d of %d manifests are wrong", len(problems), len(release.Manifests))); err != nil {
		return leftovers{}, err
	}
	wanted := map[identity]bool{}
	for _, i := range items {
		wanted[i.id] = true
	}
	// The same object may be found under two groups, such as extensions and networking.k8s.io.
	needed := map[types.UID]bool{}
	candidates := map[types.UID]target{}
	for _, kind := range slices.SortedFunc(slices.Values(found.kinds.UnsortedList()), byName) {
		mapping, err := s.kinds().RESTMapping(kind)
		if meta.IsNoMatchError(err) {
			found.stay.Insert(kind) // the kind is gone, or whoever serves it does not answer
			continue
		}
		if err != nil {
			return leftovers{}, invalid("cluster %s: %v", s.cluster.ID, err)
		}
		if err := s.eachMetadata(ctx, mapping, "", metav1.ListOptions{LabelSelector: ours}, func(object *metav1.PartialObjectMetadata) {
			background := metav1.DeletePropagationBackground
			t := targetOf(object, mapping, metav1.DeleteOptions{PropagationPolicy: &background}, 0)
			switch {
			case wanted[t.identity]:
				needed[t.uid] = true
			case metav1.GetControllerOf(object) != nil, traceOf(object).ours == "":
				// A controller has copied the label from what we applied.
			default:
				candidates[t.uid] = t
			}
		}); err != nil {
			return leftovers{}, err
		}
	}
	for uid, t := range candidates {
		if needed[uid] {
			continue
		}
		why, err := s.guard(ctx, t)
		if err != nil {
			return leftovers{}, err
		}
		if why != "" {
			found.stay.Insert(t.GroupKind)
			found.kept = append(found.kept, t.change("unchanged", why))
			continue
		}
		found.targets = append(found.targets, t)
	}
	found.needed, found.total = len(needed), len(needed)+len(candidates)
	slices.SortFunc(found.targets, func(a, b target) int {
		return cmp.Or(compareBool(a.GroupKind == namespaceKind, b.GroupKind == namespaceKind),
			compareBool(a.GroupKind == crdKind, b.GroupKind == crdKind), strings.Compare(a.identity.String(), b.identity.String()))
	})
	slices.SortFunc(found.kept, func(a, b workflows.ObjectChange) int { return strings.Compare(a.Kind+a.Name, b.Kind+b.Name) })
	return found, nil
}

func byName(a, b schema.GroupKind) int { return strings.Compare(a.String(), b.String()) }

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	default:
		return -1
	}
}

// refuse says why so much is not pruned; empty if it is.
func (l leftovers) refuse() string {
	few := len(l.targets) <= pruneFreely || 2*len(l.targets) <= l.total
	if l.allowed || len(l.targets) == 0 || few && l.needed > 0 {
		return ""
	}
	return fmt.Sprintf("pruning would delete %d of the %d objects that Fairway has applied, which is all of them or more than half; "+
		"if that is meant: kubectl -n %s annotate configmap %s %s=true", len(l.targets), l.total, InventoryNamespace, InventoryName, AllowDeletion)
}

// prune deletes what no manifest contains any more. What is guarded stays, and is said to.
func (a *Activities) prune(ctx context.Context, s *server, progress *progress, release *render.Release) ([]workflows.ObjectChange, error) {
	progress.say("looking for what no manifest contains any more")
	found, err := s.findLeftovers(ctx, release)
	if err != nil {
		return nil, err
	}
	if why := found.refuse(); why != "" {
		return nil, temporal.NewApplicationError(fmt.Sprintf("cluster %s: %s", s.cluster.ID, why), workflows.InvalidInput)
	}
	if err := a.remove(ctx, s, progress, found.targets); err != nil {
		return nil, err
	}
	if err := a.shorten(ctx, s, release, found); err != nil {
		return nil, err
	}
	changes := append([]workflows.ObjectChange{}, found.kept...)
	for _, target := range found.targets {
		changes = append(changes, target.change("delete", ""))
	}
	return bounded(changes), nil
}

// shorten takes the kinds out of the inventory that nothing is left of.
func (a *Activities) shorten(ctx context.Context, s *server, release *render.Release, found leftovers) error {
	if found.kinds == nil {
		return nil
	}
	left := found.stay
	for _, manifest := range release.Manifests {
		left.Insert(manifest.Object.GroupVersionKind().GroupKind())
	}
	if !left.Equal(found.kinds) {
		if err := a.Blocks.Check(ctx, s.cluster.ID, ""); err != nil {
			return err
		}
		if err := s.writeInventory(ctx, left); err != nil {
			return err
		}
	}
	if found.allowed {
		return s.spendAllowance(ctx)
	}
	return nil
}
