package manifests

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// notes say of objects what was applied to them and what the API server has noted about our fields
// then, as a digest of both. Who changes one of our fields takes it from us, which managedFields show: an
// object that is still as noted need not be applied again (docs/decisions/0016). They are kept beside
// the inventory's kinds; without them everything is applied.
type notes map[string]string

const (
	notesKey     = "applied"
	notesManager = FieldManager + "-notes" // of its own, so that neither takes the other's fields away
	// notesLimit is how large they may become in bytes; an object may have 1 MiB.
	notesLimit = 700 << 10
)

// notesIn are those of an inventory. What cannot be read counts as none.
func notesIn(inventory *unstructured.Unstructured) notes {
	read := notes{}
	if inventory != nil {
		text, _, _ := unstructured.NestedString(inventory.Object, "data", notesKey)
		if json.Unmarshal([]byte(text), &read) != nil {
			return notes{}
		}
	}
	return read
}

func (i *item) noteKey() string { return i.id.GroupKind.String() + " " + i.id.title() }

// note is the digest; empty for what has to be applied each time. A digest of a secret would tell whoever
// reads it that the secret is the same.
func (i *item) note(of trace) string {
	if i.secret() || of.ours == "" || of.unsettled {
		return ""
	}
	manifest, err := json.Marshal(i.object.Object) // keys are sorted
	if err != nil {
		return ""
	}
	sum := sha256.New()
	for _, part := range []string{string(manifest), string(of.uid), of.ours} {
		sum.Write([]byte(part))
		sum.Write([]byte{0})
	}
	return base64.RawURLEncoding.EncodeToString(sum.Sum(nil)[:16])
}

// noted says whether an object is as it was noted.
func (r *application) noted(i *item) bool {
	before, known := r.before[i.id]
	return known && i.mapping != nil && r.notes[i.noteKey()] != "" && r.notes[i.noteKey()] == i.note(before)
}

// strike takes out the notes about what is going to be changed, before it is: whole seconds alone tell
// two changes apart.
func (r *application) strike(ctx context.Context) error {
	left := notes{}
	for _, i := range r.items {
		if r.noted(i) {
			left[i.noteKey()] = r.notes[i.noteKey()]
		}
	}
	return r.writeNotes(ctx, left)
}

// keep notes all that was applied.
func (r *application) keep(ctx context.Context) error {
	now := notes{}
	size := 0
	for _, i := range r.items {
		if note := r.taken[i.noteKey()]; note != "" && size < notesLimit {
			now[i.noteKey()] = note
			size += len(i.noteKey()) + len(note) + len(`"":"",`)
		}
	}
	return r.writeNotes(ctx, now)
}

func (r *application) writeNotes(ctx context.Context, now notes) error {
	if maps.Equal(r.notes, now) {
		return nil
	}
	if err := r.gate(ctx); err != nil {
		return err
	}
	text, err := json.Marshal(now)
	if err != nil {
		return invalid("cluster %s: %v", r.cluster.ID, err)
	}
	object := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap",
		"metadata": map[string]any{"name": InventoryName, "namespace": InventoryNamespace},
		"data":     map[string]any{notesKey: string(text)},
	}}
	_, err = r.dynamic.Resource(corev1.SchemeGroupVersion.WithResource("configmaps")).Namespace(InventoryNamespace).
		Apply(ctx, InventoryName, object, metav1.ApplyOptions{FieldManager: notesManager, Force: true})
	if err != nil {
		return r.explain(ctx, "writing ConfigMap "+InventoryNamespace+"/"+InventoryName, err)
	}
	r.notes = now
	return nil
}
