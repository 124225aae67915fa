package manifests

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/fairway-project/fairway/render"
	"github.com/fairway-project/fairway/workflows"
)

func object(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	json, err := yaml.YAMLToJSON([]byte(text))
	require.NoError(t, err)
	object := &unstructured.Unstructured{}
	require.NoError(t, object.UnmarshalJSON(json))
	return object
}

func TestReasonsOfPodsAreSummedUp(t *testing.T) {
	pod := func(name, status string) unstructured.Unstructured {
		return *object(t, "apiVersion: v1\nkind: Pod\nmetadata: {name: "+name+"}\nstatus: "+status)
	}
	const ready = `{phase: Running, conditions: [{type: Ready, status: "True"}]}`
	for name, test := range map[string]struct {
		pods []unstructured.Unstructured
		want string
	}{
		"all are ready": {[]unstructured.Unstructured{pod("a", ready)}, ""},
		"no image": {[]unstructured.Unstructured{
			pod("a", `{phase: Pending, containerStatuses: [{name: main, state: {waiting: {reason: ImagePullBackOff}}}]}`)},
			"pod a: container main: ImagePullBackOff"},
		"crashes": {[]unstructured.Unstructured{
			pod("a", `{phase: Running, containerStatuses: [{name: main, state: {waiting: {reason: CrashLoopBackOff}}, lastState: {terminated: {reason: OOMKilled, exitCode: 137}}}]}`)},
			"pod a: container main: CrashLoopBackOff after OOMKilled with code 137"},
		"an init container fails": {[]unstructured.Unstructured{
			pod("a", `{phase: Pending, initContainerStatuses: [{name: init, state: {terminated: {reason: Error, exitCode: 2}}}], containerStatuses: [{name: main, state: {waiting: {reason: PodInitializing}}}]}`)},
			"pod a: container init: Error with code 2"},
		"the most frequent first": {[]unstructured.Unstructured{
			pod("a", `{phase: Running, containerStatuses: [{name: main, state: {running: {}}}]}`),
			pod("b", `{phase: Pending, conditions: [{type: PodScheduled, status: "False", message: "0/3 nodes are available"}]}`),
			pod("c", `{phase: Pending, conditions: [{type: PodScheduled, status: "False", message: "0/3 nodes are available"}]}`),
			pod("d", ready), pod("e", `{phase: Succeeded}`)},
			"2 pods such as b: not scheduled: 0/3 nodes are available; pod a: container main runs and is not ready"},
		"nothing said yet": {[]unstructured.Unstructured{pod("a", `{phase: Pending}`)}, "pod a: pending"},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, test.want, reasonsOfPods(test.pods)) })
	}
}

func TestADaemonSetThatOthersRollIsReadyWithOldPods(t *testing.T) {
	const text = `{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: a, generation: 2}, spec: {updateStrategy: {type: %s}},
		status: {observedGeneration: 2, desiredNumberScheduled: 2, currentNumberScheduled: 2, updatedNumberScheduled: 0, numberAvailable: 2, numberReady: 2}}`
	require.Empty(t, notReady(object(t, fmt.Sprintf(text, "OnDelete"))))
	require.Equal(t, "Updated: 0/2", notReady(object(t, fmt.Sprintf(text, "RollingUpdate"))))
}

func TestWhatKstatusTakesForReadyOrWaitsForInVain(t *testing.T) {
	for name, test := range map[string]struct{ object, want string }{
		"a StatefulSet that others roll, without a pod": {`{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: a, generation: 1}, spec: {replicas: 3, updateStrategy: {type: OnDelete}}, status: {observedGeneration: 1, replicas: 3, readyReplicas: 1}}`, "Ready: 1/3"},
		"a StatefulSet that others roll":                {`{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: a, generation: 1}, spec: {replicas: 3, updateStrategy: {type: OnDelete}}, status: {observedGeneration: 1, replicas: 3, readyReplicas: 3, updatedReplicas: 0}}`, ""},
		"a StatefulSet that nobody has seen":            {`{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: a, generation: 2}, spec: {replicas: 3, updateStrategy: {type: OnDelete}}, status: {observedGeneration: 1, replicas: 3, readyReplicas: 3}}`, "StatefulSet generation is 2, but latest observed generation is 1"},
		"a paused Deployment":                           {`{apiVersion: apps/v1, kind: Deployment, metadata: {name: a, generation: 1}, spec: {replicas: 2, paused: true}, status: {observedGeneration: 1, replicas: 2, availableReplicas: 2, conditions: [{type: Progressing, status: Unknown, reason: DeploymentPaused}]}}`, ""},
		"one that never began":                          {`{apiVersion: apps/v1, kind: Deployment, metadata: {name: a, generation: 1}, spec: {replicas: 2, paused: true}, status: {observedGeneration: 1}}`, ""},
		"one whose pods are not there":                  {`{apiVersion: apps/v1, kind: Deployment, metadata: {name: a, generation: 1}, spec: {replicas: 2, paused: true}, status: {observedGeneration: 1, replicas: 2, availableReplicas: 1}}`, "Available: 1/2, and it is paused"},
		"a Pod that has failed":                         {`{apiVersion: v1, kind: Pod, metadata: {name: a}, status: {phase: Failed}}`, "it has failed"},
		"a Pod that is done":                            {`{apiVersion: v1, kind: Pod, metadata: {name: a}, status: {phase: Succeeded}}`, ""},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, test.want, notReady(object(t, test.object))) })
	}
}

func TestADaemonSetMayLackPodsOnNodesThatComeOrGo(t *testing.T) {
	const text = `{apiVersion: apps/v1, kind: %s, metadata: {name: a, generation: %d},
		status: {observedGeneration: 2, desiredNumberScheduled: 5, currentNumberScheduled: 5, updatedNumberScheduled: %d, numberAvailable: %d, numberReady: 4}}`
	for name, test := range map[string]struct {
		kind                string
		generation, updated int
		available, excused  int
		want                bool
	}{
		"no node comes":          {"DaemonSet", 2, 5, 4, 0, false},
		"a node comes":           {"DaemonSet", 2, 5, 4, 1, true},
		"more than the nodes":    {"DaemonSet", 2, 5, 3, 1, false},
		"it is being rolled":     {"DaemonSet", 2, 3, 5, 1, false},
		"its change is not seen": {"DaemonSet", 3, 5, 5, 1, false},
		"a Deployment":           {"Deployment", 2, 5, 5, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, test.want, runsElsewhere(object(t, fmt.Sprintf(text, test.kind, test.generation, test.updated, test.available)), test.excused))
		})
	}
}

func TestADaemonSetThatOthersRollMayLackPodsToo(t *testing.T) {
	require.True(t, runsElsewhere(object(t, `{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: a, generation: 2}, spec: {updateStrategy: {type: OnDelete}},
		status: {observedGeneration: 2, desiredNumberScheduled: 5, currentNumberScheduled: 5, updatedNumberScheduled: 0, numberAvailable: 4, numberReady: 4}}`), 1))
}

func TestWhatTheAPIServerSaysOfOneObjectIsNoTroubleOfItsOwn(t *testing.T) {
	for name, test := range map[string]struct {
		err  error
		kind string
	}{
		"a webhook that does not answer": {apierrors.NewInternalError(errors.New(`failed calling webhook "x": connection refused`)), workflows.Unreachable},
		"a conversion that does not":     {apierrors.NewInternalError(errors.New(`conversion webhook for a.example.org/v1, Kind=A failed: connection refused`)), workflows.Unreachable},
		"too much for etcd":              {apierrors.NewInternalError(errors.New("etcdserver: request is too large")), workflows.InvalidInput},
		"too much on its way there":      {apierrors.NewInternalError(errors.New("rpc error: code = ResourceExhausted desc = trying to send message larger than max (2100000 vs. 2097152)")), workflows.InvalidInput},
		"etcd has no leader":             {apierrors.NewInternalError(errors.New("etcdserver: leader changed")), ""},
		"a storm":                        {apierrors.NewServiceUnavailable("later"), ""},
		"somebody else was faster":       {apierrors.NewConflict(schema.GroupResource{Resource: "pods"}, "a", errors.New("the object has been modified")), ""},
	} {
		t.Run(name, func(t *testing.T) {
			kind, text := judge(test.err, true)
			require.Equal(t, test.kind, kind)
			require.NotContains(t, text, "refused", "it may quote a Secret")
		})
	}
}

func TestPhasesAreNamespacesKindsAndFolders(t *testing.T) {
	var release render.Release
	for _, line := range []string{
		"b/1.yaml ConfigMap", "b/2.yaml Secret", "a/1.yaml ConfigMap", "z/crd.yaml CustomResourceDefinition", "z/ns.yaml Namespace", "a/2.yaml ConfigMap",
	} {
		file, kind, _ := strings.Cut(line, " ")
		version := "v1"
		if kind == crdKind.Kind {
			version = crdKind.Group + "/v1"
		}
		release.Manifests = append(release.Manifests, render.Manifest{File: file, Object: object(t, fmt.Sprintf("{apiVersion: %s, kind: %s, metadata: {name: n}}", version, kind))})
	}
	var items []*item
	for _, manifest := range release.Manifests {
		i := &item{Manifest: manifest}
		i.id.GroupKind = manifest.Object.GroupVersionKind().GroupKind()
		items = append(items, i)
	}
	var got []string
	for _, phase := range phases(items) {
		var files []string
		for _, i := range phase {
			files = append(files, i.File)
		}
		got = append(got, strings.Join(files, " "))
	}
	require.Equal(t, []string{"z/ns.yaml", "z/crd.yaml", "b/1.yaml b/2.yaml", "a/1.yaml a/2.yaml"}, got)
}

func TestDiffsAreBounded(t *testing.T) {
	long := func(value string, lines int) *unstructured.Unstructured {
		data := map[string]any{}
		for i := range lines {
			data[fmt.Sprintf("key-%05d", i)] = value
		}
		return &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "data": data}}
	}
	text := diff(long("a", 1000), long("b", 1000))
	require.LessOrEqual(t, len(text), diffLimit+100)
	require.Regexp(t, `\n\(\d+ more lines\)\n$`, text)
	require.Equal(t, "(too long to compare: 3003 and 3003 lines)\n", diff(long("a", 3000), long("b", 3000)))
	require.Empty(t, diff(long("a", 3000), long("a", 3000)))

	var changes []workflows.ObjectChange
	for range changesLimit {
		changes = append(changes, workflows.ObjectChange{Action: "unchanged"}, workflows.ObjectChange{Action: "change", Diff: strings.Repeat("x", diffLimit)})
	}
	changes = append(changes, workflows.ObjectChange{Action: "delete"})
	changes = bounded(changes)
	require.Len(t, changes, changesLimit+1)
	require.Equal(t, "and 1 more", changes[changesLimit].Name)
	size := 0
	for _, change := range changes {
		size += len(change.Action) + len(change.Diff)
	}
	require.Less(t, size, 1<<20)
}

func TestASecretsValuesNeverShow(t *testing.T) {
	secret := func(extra string) *unstructured.Unstructured {
		return object(t, `{apiVersion: v1, kind: Secret, metadata: {name: s, annotations: {`+lastApplied+`: '{"data":{"old":"b2xk"}}'}}, data: {same: c2FtZQ==, `+extra+`}}`)
	}
	text := diff(secret("old: b2xk, new: YQ=="), secret("new: Yg==, added: YWRkZWQ="))
	for _, value := range []string{"b2xk", "YQ==", "Yg==", "YWRkZWQ=", "c2FtZQ=="} {
		require.NotContains(t, text, value)
	}
	for _, line := range []string{"-  old: (hidden)", "-  new: (hidden, before)", "+  new: (hidden, after)", "+  added: (hidden)", "   same: (hidden)"} {
		require.Contains(t, text, line)
	}
	require.Empty(t, diff(secret("a: YQ=="), secret("a: YQ==")))
	for _, broken := range []string{"stringData: hunter2", "data: [hunter2]", "data: {a: {b: hunter2}}"} {
		require.NotContains(t, diff(nil, object(t, "{apiVersion: v1, kind: Secret, metadata: {name: s}, "+broken+"}")), "hunter2")
	}
}

func TestPruningMostOfWhatThereIsNeedsAWord(t *testing.T) {
	for name, test := range map[string]struct {
		goes, needed, kept int
		allowed            bool
		refused            bool
	}{
		"nothing":                  {0, 0, 0, false, false},
		"a few":                    {10, 1, 0, false, false},
		"half":                     {20, 20, 0, false, false},
		"more than half":           {21, 20, 0, false, true},
		"all, although few":        {3, 0, 0, false, true},
		"all but what is guarded":  {3, 0, 2, false, true},
		"all, and that is allowed": {30, 0, 0, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			l := leftovers{targets: make([]target, test.goes), needed: test.needed, total: test.goes + test.needed + test.kept, allowed: test.allowed}
			require.Equal(t, test.refused, l.refuse() != "")
		})
	}
}

func TestAKindThatIsNotServedMayHaveObjects(t *testing.T) {
	s := &server{mapper: meta.NewDefaultRESTMapper(nil)}
	for status, want := range map[string]bool{"True": true, "False": false} {
		some, err := s.hasInstances(t.Context(), object(t, `{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: as.example.org},
			spec: {group: example.org, names: {kind: A}}, status: {conditions: [{type: Established, status: "`+status+`"}]}}`))
		require.NoError(t, err)
		require.Equal(t, want, some)
	}
}

func TestARefusalIsMissingRightsOnlyIfNobodyObjects(t *testing.T) {
	s := &server{}
	s.cluster.ID = "dev-1"
	forbidden := func(text string) error {
		return apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "x", errors.New(text))
	}
	for name, test := range map[string]struct {
		err  error
		kind string
	}{
		"rights":               {forbidden(`User "fairway" cannot patch resource "pods"`), workflows.AccessDenied},
		"no login":             {apierrors.NewUnauthorized("no"), workflows.AccessDenied},
		"a webhook":            {forbidden(`admission webhook "images.example.org" denied the request: no tag`), workflows.InvalidInput},
		"a policy":             {forbidden(`ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no`), workflows.InvalidInput},
		"pod security":         {forbidden(`violates PodSecurity "restricted:latest"`), workflows.InvalidInput},
		"a webhook that fails": {apierrors.NewInternalError(errors.New(`failed calling webhook "x"`)), workflows.Unreachable},
		"too busy":             {apierrors.NewTooManyRequests("busy", 3), workflows.Unreachable},
		"no answer":            {&url.Error{Op: "Get", URL: "https://x", Err: errors.New("connection refused")}, workflows.Unreachable},
		"a method that it has not": {apierrors.NewMethodNotSupported(schema.GroupResource{Resource: "tokenreviews"}, "list"),
			workflows.InvalidInput},
	} {
		t.Run(name, func(t *testing.T) {
			var typed *temporal.ApplicationError
			require.ErrorAs(t, s.explain(t.Context(), "doing", test.err), &typed)
			require.Equal(t, test.kind, typed.Type())
			require.Contains(t, typed.Message(), "cluster dev-1: doing: ")
		})
	}
}
