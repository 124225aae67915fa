package manifests_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/fairway-project/fairway/activities/kube"
	"github.com/fairway-project/fairway/activities/manifests"
	"github.com/fairway-project/fairway/render"
	"github.com/fairway-project/fairway/workflows"
)

func testNoChange(s *scene) {
	const folders, each = 30, 10
	for f := range folders {
		for i := range each {
			s.manifest(fmt.Sprintf("app-%02d/%02d.yaml", f, i), fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c-%d-%d, namespace: NS}\ndata: {key: value}", f, i))
		}
	}
	applied, err := s.apply()
	s.must(err)
	require.Equal(s, workflows.Applied{Created: folders * each}, applied)
	before := s.get(configMaps, "c-7-7")

	s.forget()
	began := time.Now()
	applied, err = s.apply()
	s.must(err)
	s.Logf("%d unchanged manifests took %s and %d requests", folders*each, time.Since(began).Round(time.Millisecond), len(s.requests))
	require.Equal(s, workflows.Applied{Unchanged: folders * each}, applied)
	require.LessOrEqual(s, len(s.requests), 2+1+1, "two for the kinds, the inventory, and a list of the one kind")
	require.Equal(s, before, s.get(configMaps, "c-7-7"), "nothing was written")

	_, err = s.dynamic.Resource(configMaps).Namespace(s.namespace).Patch(s.Context(), "c-7-7", types.MergePatchType,
		[]byte(`{"data":{"more":"by somebody else"}}`), metav1.PatchOptions{FieldManager: "anna"})
	s.must(err)
	s.release.Manifests[0].Object.Object["data"] = map[string]any{"key": "other"}
	applied, err = s.apply()
	s.must(err)
	require.Equal(s, workflows.Applied{Changed: 1, Unchanged: folders*each - 1}, applied, "what others own is theirs")

	s.forget()
	_, err = s.dynamic.Resource(configMaps).Namespace(s.namespace).Patch(s.Context(), "c-8-8", types.MergePatchType,
		[]byte(`{"data":{"key":null}}`), metav1.PatchOptions{FieldManager: "anna"})
	s.must(err)
	applied, err = s.apply()
	s.must(err)
	require.Equal(s, workflows.Applied{Changed: 1, Unchanged: folders*each - 1}, applied, "what somebody has taken out of ours is put back")
	value, _, _ := unstructured.NestedString(s.get(configMaps, "c-8-8").Object, "data", "key")
	require.Equal(s, "value", value)
	s.must(s.dynamic.Resource(configMaps).Namespace(s.namespace).Delete(s.Context(), "c-9-9", metav1.DeleteOptions{}))
	applied, err = s.apply()
	s.must(err)
	require.Equal(s, workflows.Applied{Created: 1, Unchanged: folders*each - 1}, applied, "what somebody has deleted is made again")
}

const crontabs = `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: crontabs.NS.example.org}
spec:
  group: NS.example.org
  scope: Namespaced
  names: {plural: crontabs, singular: crontab, kind: CronTab}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {size: {type: integer, maximum: 5}}}}}}`

func testOrder(s *scene) {
	s.manifest("a/tab.yaml", "apiVersion: NS.example.org/v1\nkind: CronTab\nmetadata: {name: tab, namespace: NS-new}\nspec: {size: 3}")
	s.manifest("b/crd.yaml", crontabs)
	s.manifest("c/namespace.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: NS-new, namespace: ignored}")
	s.manifest("d/role.yaml", "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: NS-all}\nrules: [{apiGroups: ['*'], resources: ['*'], verbs: ['*']}]")
	planned, err := s.plan()
	s.must(err)
	require.Equal(s, "create", planned["CronTab "+s.namespace+"-new/tab"].Action)
	applied, err := s.apply()
	s.must(err)
	require.Equal(s, workflows.Applied{Created: 4}, applied)
	s.forget()
	applied, err = s.apply()
	s.must(err)
	require.Equal(s, workflows.Applied{Unchanged: 4}, applied)
	require.LessOrEqual(s, len(s.requests), 4+2+1+4, "a CRD that is established is not waited for")
}

func testConflict(s *scene) {
	s.manifest("a/one.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: one, namespace: NS}\ndata: {key: value}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: two, namespace: NS}\ndata: {key: value}")
	_, err := s.apply()
	s.must(err)
	for _, name := range []string{"one", "two"} {
		_, err = s.dynamic.Resource(configMaps).Namespace(s.namespace).Patch(s.Context(), name, types.MergePatchType,
			[]byte(`{"data":{"key":"edited"}}`), metav1.PatchOptions{FieldManager: "kubectl-edit"})
		s.must(err)
	}
	_, err = s.apply()
	s.requireError(err, workflows.Conflict, "cluster dev-1: 2 of 2 manifests cannot be applied:",
		"cluster/manifests/a/one.yaml:1: ConfigMap "+s.namespace+`/one: .data.key belongs to "kubectl-edit"`,
		"cluster/manifests/a/one.yaml:6: ConfigMap "+s.namespace+"/two: ", manifests.ForceConflicts)
	value, _, _ := unstructured.NestedString(s.get(configMaps, "one").Object, "data", "key")
	require.Equal(s, "edited", value)
	planned, err := s.plan()
	s.must(err)
	require.Equal(s, "conflict", planned["ConfigMap "+s.namespace+"/one"].Action)
	require.Contains(s, planned["ConfigMap "+s.namespace+"/one"].Diff, "kubectl-edit")

	for _, manifest := range s.release.Manifests {
		manifest.Object.SetAnnotations(map[string]string{manifests.ForceConflicts: "true"})
	}
	applied, err := s.apply()
	s.must(err)
	require.Equal(s, workflows.Applied{Changed: 2}, applied)
	value, _, _ = unstructured.NestedString(s.get(configMaps, "one").Object, "data", "key")
	require.Equal(s, "value", value)
}

func testLegacy(s *scene) {
	for _, name := range []string{"differs", "agrees"} {
		_, err := s.dynamic.Resource(configMaps).Namespace(s.namespace).Create(s.Context(), &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": name},
			"data": map[string]any{"key": map[string]any{"differs": "old", "agrees": "value"}[name], "dropped": "long ago"},
		}}, metav1.CreateOptions{FieldManager: "kubectl-client-side-apply"})
		s.must(err)
		s.manifest("a/"+name+".yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: "+name+", namespace: NS}\ndata: {key: value}")
	}
	planned, err := s.plan()
	s.must(err)
	require.Equal(s, "change", planned["ConfigMap "+s.namespace+"/differs"].Action)
	for _, want := range []workflows.Applied{{Changed: 2}, {Unchanged: 2}} {
		applied, err := s.apply()
		s.must(err)
		require.Equal(s, want, applied)
		for _, name := range []string{"differs", "agrees"} {
			require.Equal(s, map[string]any{"key": "value"}, s.get(configMaps, name).Object["data"], "as kubectl apply would have left it")
		}
	}
}

func testInvalid(s *scene) {
	const good = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: good, namespace: NS}"
	s.manifest("a/good.yaml", good)
	s.manifest("b/many.yaml", strings.Join([]string{
		"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: Bad_Name, namespace: NS}",
		"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: field, namespace: NS}\ndatta: {key: value}",
		"apiVersion: v1\nkind: Secret\nmetadata: {name: secret, namespace: NS}\ntype: kubernetes.io/tls\nstringData: {tls.crt: hunter2}",
		"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: lost, namespace: nowhere}",
	}, "\n---\n"))
	s.manifest("c/later.yaml", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: later, namespace: NS}\nspec: {replicas: -1, selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: c}}, spec: {containers: [{name: c, image: i}]}}}")
	s.manifest("d/fine.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: fine, namespace: NS}")
	planned, err := s.plan()
	s.requireError(err, workflows.InvalidInput, "manifests are wrong", "b/many.yaml:1", "b/many.yaml:5", "c/later.yaml:1")
	require.Empty(s, planned)
	_, err = s.apply()
	s.requireError(err, workflows.InvalidInput, "5 of 7 manifests cannot be applied:",
		"cluster/manifests/b/many.yaml:1: ConfigMap "+s.namespace+"/Bad_Name: metadata.name: ",
		"b/many.yaml:5: ConfigMap "+s.namespace+"/field: ", "datta",
		"b/many.yaml:10: Secret "+s.namespace+"/secret: ",
		`b/many.yaml:16: ConfigMap nowhere/lost: there is no namespace "nowhere"`,
		"c/later.yaml:1: Deployment "+s.namespace+"/later: spec.replicas: ")
	require.NotContains(s, err.Error(), "hunter2")
	require.True(s, s.exists("good"), "what comes before is applied")
	require.False(s, s.exists("fine"), "what comes after is only tried")

	s.release.Manifests = nil
	s.manifest("a/kinds.yaml", strings.Join([]string{
		"apiVersion: example.org/v1\nkind: Unheard\nmetadata: {name: of}",
		"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: label, namespace: NS, labels: {version: 1.0}}",
		good, good,
		"apiVersion: v1\nkind: ConfigMap\nmetadata: {generateName: x-, namespace: NS}",
		"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: ../secrets/x, namespace: NS}",
		"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: fairway-inventory, namespace: kube-system}",
	}, "\n---\n"))
	s.forget()
	_, err = s.apply()
	s.requireError(err, workflows.InvalidInput, "6 of 7 manifests are wrong", "is where Fairway notes what it has applied",
		"a/kinds.yaml:1: Unheard of: the cluster has no kind Unheard in example.org/v1, and no manifest defines it",
		"metadata.labels: values must be text", "is in cluster/manifests/a/kinds.yaml:", "metadata.name is missing", `"../secrets/x" is no name`)
	require.Zero(s, s.count("PATCH"), "nothing is applied if that much is known")
}

func testBlock(s *scene) {
	for i := range 3 {
		s.manifest(fmt.Sprintf("a-%d/c.yaml", i), fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c-%d, namespace: NS}", i))
	}
	s.blocked = temporal.NewApplicationError("blocked by anna", workflows.Blocked)
	_, err := s.apply()
	s.requireError(err, workflows.Blocked, "blocked by anna")
	require.False(s, s.exists("c-0"))

	s.blocked = nil
	s.fault = func(request *http.Request) *http.Response {
		if strings.HasSuffix(request.URL.Path, "/c-1") {
			s.blocked = temporal.NewApplicationError("blocked by ben", workflows.Blocked)
		}
		return nil
	}
	_, err = s.apply()
	s.requireError(err, workflows.Blocked, "blocked by ben")
	require.True(s, s.exists("c-1"))
	require.False(s, s.exists("c-2"))

	s.blocked, s.fault = nil, nil
	applied, err := s.apply()
	s.must(err)
	require.Equal(s, workflows.Applied{Created: 1, Unchanged: 2}, applied)
}

func testBusy(s *scene) {
	s.manifest("a/c.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, namespace: NS}")
	for _, code := range []int{http.StatusTooManyRequests, http.StatusServiceUnavailable, http.StatusInternalServerError} {
		s.fault = func(request *http.Request) *http.Response {
			if request.Method != http.MethodPatch || !strings.HasSuffix(request.URL.Path, "/c") {
				return nil
			}
			return answer(code, http.Header{"Retry-After": {"30"}}, fmt.Sprintf(`{"kind":"Status","apiVersion":"v1","status":"Failure","message":"not now","code":%d,"details":{"retryAfterSeconds":30}}`, code))
		}
		began := time.Now()
		_, err := s.apply()
		s.requireError(err, workflows.Unreachable, "not now")
		require.Less(s, time.Since(began), 10*time.Second, "client-go would have slept")
	}
	s.fault = func(request *http.Request) *http.Response {
		return answer(http.StatusForbidden, http.Header{}, `{"kind":"Status","apiVersion":"v1","status":"Failure","message":"no","reason":"Forbidden","code":403}`)
	}
	_, err := s.apply()
	s.requireError(err, workflows.AccessDenied, "deploy/kubernetes/rbac-manifests.yaml")
}

// A drain has given the Deployment a second replica.
func testSurged(s *scene) {
	s.manifest("a/lonely.yaml", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: lonely, namespace: NS}\nspec: {replicas: 1, selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, image: 'example.org/c:1'}]}}}")
	_, err := s.apply()
	s.must(err)
	scale, err := s.client.AppsV1().Deployments(s.namespace).GetScale(s.Context(), "lonely", metav1.GetOptions{})
	s.must(err)
	scale.Spec.Replicas, scale.ResourceVersion = 2, "" // whatever its controller does meanwhile
	_, err = s.client.AppsV1().Deployments(s.namespace).UpdateScale(s.Context(), "lonely", scale, metav1.UpdateOptions{FieldManager: "fairway"})
	s.must(err)
	s.node(s.namespace, false, map[string]string{kube.SurgedWorkloads: fmt.Sprintf(`[{"namespace":%q,"deployment":"lonely"}]`, s.namespace)})
	_, err = s.apply()
	s.requireError(err, workflows.Unreachable, "Deployment "+s.namespace+"/lonely: has one replica more while a node is drained")
	s.release.Manifests[0].Object.SetAnnotations(map[string]string{manifests.ForceConflicts: "true"})
	s.manifest("b/other.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: other, namespace: NS}")
	_, err = s.apply()
	s.requireError(err, workflows.Unreachable, "has one replica more while a node is drained")
	replicas, _, _ := unstructured.NestedInt64(s.get(deployments, "lonely").Object, "spec", "replicas")
	require.EqualValues(s, 2, replicas, "not even force takes it away from the drain")
	require.True(s, s.exists("other"), "nothing else waits for it")

	_, err = s.client.CoreV1().Nodes().Patch(s.Context(), s.namespace, types.MergePatchType,
		fmt.Appendf(nil, `{"metadata":{"annotations":{%q:null}}}`, kube.SurgedWorkloads), metav1.PatchOptions{})
	s.must(err)
	applied, err := s.apply()
	s.must(err)
	require.Equal(s, workflows.Applied{Changed: 1, Unchanged: 1}, applied)
	replicas, _, _ = unstructured.NestedInt64(s.get(deployments, "lonely").Object, "spec", "replicas")
	require.EqualValues(s, 1, replicas)
}

// kubectl has applied the Deployment, and a drain has scaled it since.
func testLegacyAndScaled(s *scene) {
	const lonely = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: lonely, namespace: NS}\nspec: {replicas: 1, selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, image: 'example.org/c:%d'}]}}}"
	s.manifest("a/lonely.yaml", fmt.Sprintf(lonely, 1))
	_, err := s.dynamic.Resource(deployments).Namespace(s.namespace).Create(s.Context(), s.release.Manifests[0].Object, metav1.CreateOptions{FieldManager: "kubectl-client-side-apply"})
	s.must(err)
	scale, err := s.client.AppsV1().Deployments(s.namespace).GetScale(s.Context(), "lonely", metav1.GetOptions{})
	s.must(err)
	scale.Spec.Replicas, scale.ResourceVersion = 2, "" // whatever its controller does meanwhile
	_, err = s.client.AppsV1().Deployments(s.namespace).UpdateScale(s.Context(), "lonely", scale, metav1.UpdateOptions{FieldManager: "fairway"})
	s.must(err)
	s.release.Manifests = nil
	s.manifest("a/lonely.yaml", fmt.Sprintf(lonely, 2))
	applied, err := s.apply()
	s.must(err)
	require.Equal(s, workflows.Applied{Changed: 1}, applied)
	replicas, _, _ := unstructured.NestedInt64(s.get(deployments, "lonely").Object, "spec", "replicas")
	require.EqualValues(s, 1, replicas)
}

// The webhook's own workload may be what a later folder mends.
func testDeadWebhook(s *scene) {
	for _, name := range []string{"first", "second"} {
		s.manifest(name+"/c.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: "+name+", namespace: NS}")
	}
	s.fault = func(request *http.Request) *http.Response {
		if request.Method != http.MethodPatch || !strings.HasSuffix(request.URL.Path, "/first") {
			return nil
		}
		return answer(http.StatusInternalServerError, http.Header{}, `{"kind":"Status","apiVersion":"v1","status":"Failure","message":"Internal error occurred: failed calling webhook \"x\": connection refused","reason":"InternalError","code":500}`)
	}
	_, err := s.apply()
	s.requireError(err, workflows.Unreachable, "1 of 2 manifests cannot be applied:", "first/c.yaml:1: ConfigMap "+s.namespace+`/first: Internal error occurred: failed calling webhook`)
	var typed *temporal.ApplicationError
	require.ErrorAs(s, err, &typed)
	require.Positive(s, typed.NextRetryDelay())
	require.False(s, s.exists("first"))
	require.True(s, s.exists("second"), "what follows is not held up")

	s.fault = nil
	applied, err := s.apply()
	s.must(err)
	require.Equal(s, workflows.Applied{Created: 1, Unchanged: 1}, applied)
}

// An attempt that was cut off has applied a CRD a moment ago.
func testLateKind(s *scene) {
	s.manifest("a/crd.yaml", crontabs)
	_, err := s.apply()
	s.must(err)
	s.manifest("b/tab.yaml", "apiVersion: NS.example.org/v1\nkind: CronTab\nmetadata: {name: tab, namespace: NS}\nspec: {size: 3}")
	transport, err := rest.TransportFor(s.access)
	s.must(err)
	left := 3
	s.fault = func(request *http.Request) *http.Response {
		if left--; request.URL.Path != "/apis" || left < 0 {
			return nil
		}
		response, err := transport.RoundTrip(request)
		s.must(err)
		var groups map[string]any
		s.must(json.NewDecoder(response.Body).Decode(&groups))
		groups["items"] = slices.DeleteFunc(groups["items"].([]any), func(group any) bool {
			name, _, _ := unstructured.NestedString(group.(map[string]any), "metadata", "name")
			return name == s.namespace+".example.org"
		})
		form := response.Header.Get("Content-Type")
		answered := answer(response.StatusCode, http.Header{}, encode(s, groups))
		answered.Header.Set("Content-Type", form)
		return answered
	}
	applied, err := s.apply()
	s.must(err)
	require.Equal(s, workflows.Applied{Created: 1, Unchanged: 1}, applied)
}

// An API server that is extended by another one, which does not answer.
func testSilentGroup(s *scene) {
	services := s.dynamic.Resource(schema.GroupVersionResource{Group: "apiregistration.k8s.io", Version: "v1", Resource: "apiservices"})
	_, err := services.Create(s.Context(), &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": map[string]any{"name": "v1.silent.example.org"},
		"spec": map[string]any{
			"group": "silent.example.org", "version": "v1", "groupPriorityMinimum": int64(100), "versionPriority": int64(100),
			"service": map[string]any{"name": "nobody", "namespace": "default"}, "insecureSkipTLSVerify": true,
		},
	}}, metav1.CreateOptions{})
	s.must(err)
	defer func() { s.must(services.Delete(s.Context(), "v1.silent.example.org", metav1.DeleteOptions{})) }()
	s.manifest("a/thing.yaml", "apiVersion: silent.example.org/v1\nkind: Thing\nmetadata: {name: thing, namespace: NS}")
	s.eventually("the group is known to be silent", func() bool {
		_, err = s.apply()
		var typed *temporal.ApplicationError
		return errors.As(err, &typed) && typed.Type() == workflows.Unreachable
	})
	s.requireError(err, workflows.Unreachable, "a/thing.yaml:1: Thing "+s.namespace+"/thing: whoever serves silent.example.org/v1 does not answer")
	s.release.Deletions.PreApply = []render.Deletion{{Name: "thing", Kind: "Thing", APIVersion: "silent.example.org/v1"}, {Name: "thing", Kind: "Unheard"}}
	_, err = s.remove(workflows.BeforeApply)
	s.requireError(err, workflows.Unreachable, "whoever serves silent.example.org does not answer")

	s.release.Manifests = nil
	s.manifest("a/c.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, namespace: NS}")
	applied, err := s.apply()
	s.must(err)
	require.Equal(s, workflows.Applied{Created: 1}, applied, "others do not need it")
}
