package manifests

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/fairway-project/fairway/activities/kube"
	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/render"
	"github.com/fairway-project/fairway/workflows"
)

// stage is an API server that says what a test wants it to say.
type stage struct {
	*httptest.Server
	forced []bool // of each apply
}

func (s *stage) REST(context.Context, string) (*rest.Config, registry.Cluster, error) {
	return &rest.Config{Host: s.URL}, registry.Cluster{ID: "dev-1"}, nil
}

// applyOne applies a ConfigMap or Deployment to a server that answers with a status and an object, and
// lists one node.
func applyOne(t *testing.T, manifest, annotations string, respond func(force bool) (int, any)) (*stage, *application) {
	t.Helper()
	s := &stage{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if request.Method == http.MethodGet {
			_, _ = fmt.Fprintf(w, `{"kind":"PartialObjectMetadataList","apiVersion":"meta.k8s.io/v1","items":[{"metadata":{"name":"node-1","annotations":%s}}]}`, annotations)
			return
		}
		force := request.URL.Query().Get("force") == "true"
		s.forced = append(s.forced, force)
		code, body := respond(force)
		w.WriteHeader(code)
		require.NoError(t, json.NewEncoder(w).Encode(body))
	}))
	t.Cleanup(s.Close)
	connected, err := (&Activities{Clusters: s}).connect(t.Context(), "dev-1")
	require.NoError(t, err)
	o := object(t, manifest)
	kind := o.GroupVersionKind()
	plural, _ := meta.UnsafeGuessKindToResource(kind)
	i := &item{Manifest: render.Manifest{File: "a.yaml", Line: 1, Object: o}, object: o, mapping: &meta.RESTMapping{Resource: plural, GroupVersionKind: kind, Scope: meta.RESTScopeNamespace}}
	require.NoError(t, i.tidy())
	i.id.GroupKind, i.id.Name = kind.GroupKind(), o.GetName()
	r := &application{taken: notes{}, server: connected, gate: func(context.Context) error { return nil }, progress: &progress{}, items: []*item{i}}
	require.NoError(t, r.applyItem(t.Context(), i))
	return s, r
}

func conflictingWith(managers ...string) (int, any) {
	status := metav1.Status{Status: metav1.StatusFailure, Reason: metav1.StatusReasonConflict, Code: http.StatusConflict, Details: &metav1.StatusDetails{}}
	status.Kind, status.APIVersion = "Status", "v1"
	for _, manager := range managers {
		status.Details.Causes = append(status.Details.Causes, metav1.StatusCause{
			Type: metav1.CauseTypeFieldManagerConflict, Field: ".spec.replicas", Message: fmt.Sprintf("conflict with %q with subresource \"scale\" using apps/v1", manager),
		})
	}
	return http.StatusConflict, status
}

func TestWhatIsBeingDeletedIsNotTakenForApplied(t *testing.T) {
	_, r := applyOne(t, `{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}`, "{}", func(bool) (int, any) {
		return http.StatusOK, map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{
			"name": "a", "deletionTimestamp": "2026-05-06T12:00:00Z", "finalizers": []string{"example.org/hold"}}}
	})
	require.Len(t, r.problems, 1)
	require.Equal(t, workflows.Unreachable, r.problems[0].kind)
	require.Equal(t, "ConfigMap default/a: is being deleted, and is applied again when it is gone; what holds it: example.org/hold", r.problems[0].text)
	require.Zero(t, r.applied)
}

func TestWhoseFieldsAreTakenAway(t *testing.T) {
	surged := fmt.Sprintf(`{%q: "[{\"namespace\":\"default\",\"deployment\":\"a\"}]"}`, kube.SurgedWorkloads)
	for name, test := range map[string]struct {
		force, nodes string
		conflicts    []string
		forced       []bool
		problem      string
	}{
		"nobody's":                   {"true", "{}", nil, []bool{false}, ""},
		"another's":                  {"false", "{}", []string{"anna"}, []bool{false}, workflows.Conflict},
		"another's, by force":        {"true", "{}", []string{"anna"}, []bool{false, true}, ""},
		"our own":                    {"false", "{}", []string{FieldManager}, []bool{false, true}, ""},
		"ours and another's":         {"false", "{}", []string{FieldManager, "anna"}, []bool{false}, workflows.Conflict},
		"a drain's":                  {"false", surged, []string{FieldManager}, []bool{false}, workflows.Unreachable},
		"a drain's, by force":        {"true", surged, []string{FieldManager}, []bool{false}, workflows.Unreachable},
		"another's during one, too":  {"true", surged, []string{"anna"}, []bool{false, true}, ""},
		"one's that is called alike": {"false", "{}", []string{FieldManager + "-2"}, []bool{false}, workflows.Conflict},
	} {
		t.Run(name, func(t *testing.T) {
			manifest := fmt.Sprintf(`{apiVersion: apps/v1, kind: Deployment, metadata: {name: a, annotations: {%s: %q}}, spec: {replicas: 1}}`, ForceConflicts, test.force)
			s, r := applyOne(t, manifest, test.nodes, func(force bool) (int, any) {
				if len(test.conflicts) > 0 && !force {
					return conflictingWith(test.conflicts...)
				}
				return http.StatusOK, map[string]any{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": map[string]any{"name": "a"}}
			})
			require.Equal(t, test.forced, s.forced)
			if test.problem == "" {
				require.Empty(t, r.problems)
				require.Equal(t, 1, r.applied.Changed)
				return
			}
			require.Len(t, r.problems, 1)
			require.Equal(t, test.problem, r.problems[0].kind)
		})
	}
}

// blocked answers each question about blocks with the next of these.
type blocked []error

func (b *blocked) Check(context.Context, string, string) error {
	answer := (*b)[0]
	*b = (*b)[1:]
	return answer
}

func TestABlockHoldsBeforeTheNextManifest(t *testing.T) {
	sale := errors.New("sale until Sunday")
	_, r := applyOne(t, "{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: default}}", "{}", func(bool) (int, any) {
		return http.StatusOK, map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "a", "namespace": "default"}}
	})
	r.gate = (&Activities{Blocks: &blocked{nil, sale}}).gate("dev-1")
	require.NoError(t, r.applyItem(t.Context(), r.items[0]))
	require.ErrorIs(t, r.applyItem(t.Context(), r.items[0]), sale)
}
