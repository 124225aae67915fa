package manifests

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"

	"go.temporal.io/sdk/temporal"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"

	"github.com/fairway-project/fairway/workflows"
)

// What Fairway has applied is an ApplySet as in Kubernetes' KEP 3659: every object carries a label,
// and a ConfigMap names the kinds that there may be objects of. The ConfigMap is written before the
// objects, and shortened after they are gone, so that a crash leaves nothing out.
const (
	InventoryName      = "fairway-inventory"
	InventoryNamespace = metav1.NamespaceSystem

	partOf     = "applyset.kubernetes.io/part-of"
	setLabel   = "applyset.kubernetes.io/id"
	kindsNote  = "applyset.kubernetes.io/contains-group-kinds"
	toolNote   = "applyset.kubernetes.io/tooling"
	ourTooling = "fairway/v1"
)

// inventoryID is made from the ConfigMap's name, namespace, kind and group, as the KEP says.
var (
	inventoryID = applySetID(InventoryName, InventoryNamespace, "ConfigMap", "")
	ours        = partOf + "=" + inventoryID // a selector
)

// ownInventory is the ConfigMap.
var ownInventory = identity{schema.GroupKind{Kind: "ConfigMap"}, types.NamespacedName{Namespace: InventoryNamespace, Name: InventoryName}}

func applySetID(name, namespace, kind, group string) string {
	sum := sha256.Sum256([]byte(strings.Join([]string{name, namespace, kind, group}, ".")))
	return fmt.Sprintf("applyset-%s-v1", base64.RawURLEncoding.EncodeToString(sum[:]))
}

// inventory is the ConfigMap; nil if there is none.
func (s *server) inventory(ctx context.Context) (*unstructured.Unstructured, error) {
	object, err := s.dynamic.Resource(corev1.SchemeGroupVersion.WithResource("configmaps")).Namespace(InventoryNamespace).
		Get(ctx, InventoryName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, s.explain(ctx, "reading ConfigMap "+InventoryNamespace+"/"+InventoryName, err)
	}
	if tool := object.GetAnnotations()[toolNote]; tool != "" && !strings.HasPrefix(tool, "fairway/") {
		return nil, temporal.NewApplicationError(fmt.Sprintf("cluster %s: ConfigMap %s/%s belongs to %q; Fairway keeps its inventory there: delete or rename the other's",
			s.cluster.ID, InventoryNamespace, InventoryName, shorten(tool, 100)), workflows.Conflict)
	}
	return object, nil
}

// kindsIn are the kinds that an inventory names.
func kindsIn(inventory *unstructured.Unstructured) sets.Set[schema.GroupKind] {
	kinds := sets.New[schema.GroupKind]()
	if inventory == nil {
		return kinds
	}
	for text := range strings.SplitSeq(inventory.GetAnnotations()[kindsNote], ",") {
		if text = strings.TrimSpace(text); text != "" {
			kinds.Insert(schema.ParseGroupKind(text))
		}
	}
	return kinds
}

// enlist adds kinds to the inventory, and returns its notes. It costs one request if they are in it.
func (s *server) enlist(ctx context.Context, kinds sets.Set[schema.GroupKind], gate gate) (notes, error) {
	inventory, err := s.inventory(ctx)
	if err != nil {
		return nil, err
	}
	known, noted := kindsIn(inventory), notesIn(inventory)
	if inventory != nil && known.IsSuperset(kinds) {
		return noted, nil
	}
	if err := gate(ctx); err != nil {
		return nil, err
	}
	return noted, s.writeInventory(ctx, known.Union(kinds))
}

func (s *server) writeInventory(ctx context.Context, kinds sets.Set[schema.GroupKind]) error {
	var names []string
	for kind := range kinds {
		names = append(names, kind.String())
	}
	slices.Sort(names)
	object := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap",
		"metadata": map[string]any{
			"name": InventoryName, "namespace": InventoryNamespace,
			"labels":      map[string]any{setLabel: inventoryID},
			"annotations": map[string]any{kindsNote: strings.Join(names, ","), toolNote: ourTooling},
		},
	}}
	_, err := s.dynamic.Resource(corev1.SchemeGroupVersion.WithResource("configmaps")).Namespace(InventoryNamespace).
		Apply(ctx, InventoryName, object, metav1.ApplyOptions{FieldManager: FieldManager, Force: true})
	return s.explain(ctx, "writing ConfigMap "+InventoryNamespace+"/"+InventoryName, err)
}

// spendAllowance takes the mark off that allowed one pruning.
func (s *server) spendAllowance(ctx context.Context) error {
	patch := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:null}}}`, AllowDeletion)
	_, err := s.dynamic.Resource(corev1.SchemeGroupVersion.WithResource("configmaps")).Namespace(InventoryNamespace).
		Patch(ctx, InventoryName, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: FieldManager})
	return s.explain(ctx, "writing ConfigMap "+InventoryNamespace+"/"+InventoryName, err)
}
