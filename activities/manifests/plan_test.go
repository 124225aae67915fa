package manifests_test

import (
	"net/http"
	"strings"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairway-project/fairway/render"
)

func testPlan(s *scene) {
	s.manifest("a/objects.yaml", strings.Join([]string{
		"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: same, namespace: NS}\ndata: {key: value}",
		"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: changed, namespace: NS}\ndata: {key: old, other: stays}",
		"apiVersion: v1\nkind: Secret\nmetadata: {name: secret, namespace: NS}\nstringData: {password: hunter2, user: anna}",
		"apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: NS}\nspec: {selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, image: 'example.org/c:1'}]}}}",
	}, "\n---\n"))
	_, err := s.apply()
	s.must(err)
	s.release.Manifests[1].Object.Object["data"] = map[string]any{"key": "new", "other": "stays"}
	s.release.Manifests[2].Object.Object["stringData"] = map[string]any{"password": "correct horse", "user": "anna"}
	s.manifest("b/new.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: NS-later}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: inside, namespace: NS-later}\ndata: {key: value}")
	s.configMap("doomed")
	s.release.Deletions = render.Deletions{PostApply: []render.Deletion{{Name: "doomed", Namespace: s.namespace, Kind: "ConfigMap", Line: 4}}}

	s.forget()
	planned, err := s.plan()
	s.must(err)
	actions := map[string]string{}
	for name, change := range planned {
		actions[strings.ReplaceAll(name, s.namespace, "NS")] = change.Action
	}
	require.Equal(s, map[string]string{
		"ConfigMap NS/same": "unchanged", "ConfigMap NS/changed": "change", "Secret NS/secret": "change", "Deployment NS/web": "unchanged",
		"Namespace NS-later": "create", "ConfigMap NS-later/inside": "create", "ConfigMap NS/doomed": "delete",
	}, actions)
	changed := planned["ConfigMap "+s.namespace+"/changed"]
	require.Equal(s, "@@ -1,6 +1,6 @@\n apiVersion: v1\n data:\n-  key: old\n+  key: new\n   other: stays\n kind: ConfigMap\n metadata:\n", changed.Diff)
	require.Equal(s, "cluster/manifests/a/objects.yaml:6", changed.File)
	secret := planned["Secret "+s.namespace+"/secret"].Diff
	require.Contains(s, secret, "-  password: (hidden, before)\n+  password: (hidden, after)\n   user: (hidden)\n")
	require.Contains(s, planned["ConfigMap "+s.namespace+"-later/inside"].Diff, "+  key: value\n")
	for _, change := range planned {
		for _, leak := range []string{"aHVudGVyMg", "hunter2", "correct", "managedFields", "resourceVersion"} {
			require.NotContains(s, change.Diff, leak)
		}
	}

	require.Zero(s, s.count("POST", "PUT", "DELETE"))
	require.True(s, s.exists("doomed"))
	require.Equal(s, "old", s.get(configMaps, "changed").Object["data"].(map[string]any)["key"])
	_, err = s.client.CoreV1().Namespaces().Get(s.Context(), s.namespace+"-later", metav1.GetOptions{})
	require.Error(s, err)

	s.fault = func(request *http.Request) *http.Response {
		if request.Method == http.MethodPatch && request.URL.Query().Get("dryRun") != "All" {
			s.Errorf("a plan writes: %s", request.URL)
		}
		return nil
	}
	_, err = s.plan()
	s.must(err)
}
