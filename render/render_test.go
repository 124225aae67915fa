package render_test

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"strings"
	"testing"
	"testing/fstest"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/render"
	"github.com/fairway-project/fairway/render/rendertest"
)

var sample = os.DirFS("../lab/sample/config/cluster")

func cluster() registry.Cluster {
	return registry.Cluster{
		ID: "dev-1", Alias: "playground", LocalID: "dev-1", Region: "eu-central-1", Environment: "test", Channel: "dev",
		InfrastructureAccount: "aws:123456789012",
		NodePools: []registry.NodePool{
			{Name: "worker", Profile: "worker-default", InstanceTypes: []string{"m5.large"}, MinSize: 3, MaxSize: 6},
			{Name: "master", Profile: "master-default", InstanceTypes: []string{"m5.large"}, MinSize: 1, MaxSize: 2},
		},
		Status: &registry.Status{CurrentVersion: "secret"},
	}
}

func values() map[string]any {
	return map[string]any{
		"vpc_id": "vpc-1", "vpc_ipv4_cidr": "10.16.0.0/16", "availability_zones": []string{"eu-central-1a", "eu-central-1b"},
		"subnets": map[string]string{"eu-central-1a": "subnet-1", "eu-central-1b": "subnet-2"},
	}
}

func input() render.Input {
	return render.Input{Cluster: cluster(), Version: "v#1", Values: values()}
}

const stackYAML = "Metadata: {Tags: {kubernetes.io/cluster/{{.Cluster.ID}}: owned}}\nResources: {Topic: {Type: AWS::SNS::Topic, Properties: {Name: !Ref X}}}\n"

// folder is the least that can be rendered, and other files.
func folder(files map[string]string) fstest.MapFS {
	made := fstest.MapFS{
		"cluster.yaml":                         {Data: []byte(stackYAML)},
		"node-pools/worker-default/stack.yaml": {Data: []byte(stackYAML)},
		"node-pools/master-default/stack.yaml": {Data: []byte(stackYAML)},
	}
	for name, content := range files {
		made[name] = &fstest.MapFile{Data: []byte(content)}
	}
	return made
}

func configMap(name, item string) string {
	return "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: " + name + "\ndata:\n  item: " + item + "\n"
}

// text renders one template, as the user data of a pool.
func text(t *testing.T, template string) (string, error) {
	t.Helper()
	release, err := render.Render(folder(map[string]string{
		"config-defaults.yaml":                    "size: \"24\"\nempty: \"\"\n",
		"node-pools/worker-default/stack.yaml":    stackYAML + "# {{ .Values.UserData }}",
		"node-pools/worker-default/userdata.yaml": template,
	}), input())
	if err != nil {
		return "", err
	}
	_, encoded, _ := strings.Cut(release.Pools[1].Stack.Body, "# ")
	decoded, err := base64.StdEncoding.DecodeString(encoded)
	require.NoError(t, err)
	return string(decoded), nil
}

func TestTheSampleIsRenderedWhole(t *testing.T) {
	release, err := render.Render(sample, input())
	require.NoError(t, err)
	require.Equal(t, "v#1", release.Version)
	require.Equal(t, "v1.36.3", release.Cluster.ConfigItems["kubernetes_version"])
	require.Nil(t, release.Cluster.Status)
	require.Equal(t, []string{"etcd-dev-1", "dev-1"}, []string{release.Stacks[0].Name, release.Stacks[1].Name})
	require.Equal(t, "etcd/stack.yaml", release.Stacks[0].File)
	require.Equal(t, "true", release.Stacks[1].Tags["fairway.dev/control-plane"])
	require.Contains(t, release.Stacks[1].Body, "!GetAtt MasterSecurityGroup.GroupId")
	require.Len(t, release.Pools, 2)
	require.Equal(t, "nodepool-master-dev-1", release.Pools[0].Stack.Name)
	require.True(t, release.Pools[0].ControlPlane)
	require.False(t, release.Pools[1].ControlPlane)
	require.Contains(t, release.Pools[1].Stack.Body, `- "subnet-2"`)
	require.NotContains(t, release.Pools[1].Stack.Body, "CLUSTER_ID", "user data is in base64")
	require.Equal(t, "Namespace", release.Manifests[0].Object.GetKind())
	require.Len(t, release.Deletions.PostApply, 3)
	require.Equal(t, 6, release.Deletions.PostApply[0].Line)
	_, found := release.Stack("nodepool-worker-dev-1")
	require.True(t, found)
}

func TestAReleaseDependsOnItsArgumentsOnly(t *testing.T) {
	big, err := rendertest.Repository(sample, 100, 50)
	require.NoError(t, err)
	first, err := render.Render(big, input())
	require.NoError(t, err)
	in := input()
	in.Cluster.Status = nil
	again, err := render.Render(big, in)
	require.NoError(t, err)
	require.Equal(t, first, again)
}

func TestItemsOfTheEntryWinOverDefaultsAndThoseOfAPoolOverBoth(t *testing.T) {
	in := input()
	in.Cluster.ConfigItems = map[string]string{"b": "entry", "c": "entry"}
	in.Cluster.NodePools[0].ConfigItems = map[string]string{"c": "pool"}
	show := strings.Replace(stackYAML, "Name: !Ref X", `Name: "{{with .NodePool}}{{.ConfigItems.a}} {{.ConfigItems.b}} {{.ConfigItems.c}}{{end}}"`, 1)
	release, err := render.Render(folder(map[string]string{
		"config-defaults.yaml":                 "a: default\nb: default\nc: default\nversion: 1.10\nnothing:\nlong: |\n  two\n  lines\nid: \"{{ .Cluster.ID }}\"\n",
		"node-pools/worker-default/stack.yaml": show,
	}), in)
	require.NoError(t, err)
	require.Contains(t, release.Pools[1].Stack.Body, `"default entry pool"`)
	require.Equal(t, map[string]string{
		"a": "default", "b": "entry", "c": "entry", "version": "1.10", "nothing": "", "long": "two\nlines\n", "id": "dev-1",
	}, release.Cluster.ConfigItems)
	require.Equal(t, map[string]string{"c": "pool"}, release.Cluster.NodePools[0].ConfigItems)
	require.Equal(t, map[string]string{"b": "entry", "c": "entry"}, in.Cluster.ConfigItems, "the argument stays as it is")
}

func TestPoolsOfTheControlPlaneComeFirst(t *testing.T) {
	in := input()
	in.Cluster.ID = "aws:1:dev"
	in.Cluster.NodePools = append(in.Cluster.NodePools, registry.NodePool{
		Name: "special", Profile: "worker-default", ConfigItems: map[string]string{"role": "master"},
	})
	release, err := render.Render(folder(nil), in)
	require.NoError(t, err)
	var stacks []string
	for _, pool := range release.Pools {
		stacks = append(stacks, pool.Stack.Name)
	}
	require.Equal(t, []string{"nodepool-master-aws-1-dev", "nodepool-special-aws-1-dev", "nodepool-worker-aws-1-dev"}, stacks)
	require.Equal(t, "aws-1-dev", release.Stacks[0].Name)
}

func TestManifestsAreOrderedByWhatOthersNeedThenByPath(t *testing.T) {
	crd := "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: crd}\n"
	release, err := render.Render(folder(map[string]string{
		"manifests/b/map.yaml":        configMap("b", "x"),
		"manifests/01-a/map.yml":      "# a list\n---\n\n" + "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Secret, metadata: {name: one}}\n- {apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: Secret, metadata: {name: two}}]}\n",
		"manifests/a/map.yaml":        "--- # first\n" + configMap("a1", "x") + "---\n---\n# nothing\n---\nnull\n--- {apiVersion: v1, kind: ConfigMap, metadata: {name: a2}}\n...\n" + configMap("a3", "x"),
		"manifests/a-b/map.yaml":      configMap("a-b", "x"),
		"manifests/z/crd.yaml":        crd + "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: ns}\n",
		"manifests/z/namespaced.yaml": "apiVersion: example.org/v1\nkind: Namespace\nmetadata: {name: other}\n",
		"manifests/z/README.md":       "{{ nothing }}",
		"manifests/z/empty.yaml":      "{{ if false }}" + crd + "{{ end }}",
	}), input())
	require.NoError(t, err)
	var order []string
	for _, m := range release.Manifests {
		order = append(order, fmt.Sprintf("%s:%d %s", strings.TrimPrefix(m.File, "manifests/"), m.Line, m.Object.GetName()))
	}
	require.Equal(t, []string{
		"z/crd.yaml:5 ns", "z/crd.yaml:1 crd", "01-a/map.yml:4 one", "01-a/map.yml:4 two", "a/map.yaml:2 a1", "a/map.yaml:13 a2", "a/map.yaml:15 a3",
		"a-b/map.yaml:1 a-b", "b/map.yaml:1 b", "z/namespaced.yaml:1 other",
	}, order)
}

func TestObjectsAndDeletionsNameTheLineOfTheSource(t *testing.T) {
	release, err := render.Render(folder(map[string]string{
		"manifests/a/a.yaml":       "# {{ indent 2 \"a\\nb\" | replace \"\\n\" \"\\n#\" }}\n{{ range $i := 2 }}\n---\n# next\napiVersion: v1\nkind: A\nmetadata: {name: a{{ $i }}}\n{{ end }}---\n" + configMap("b", "x"),
		"manifests/deletions.yaml": "{{ if true }}\n\n{{ end }}{{/* a\ncomment */}}\npre_apply:\n{{ range 2 }}\n- {kind: A, name: a}\n{{ end }}",
	}), input())
	require.NoError(t, err)
	require.Equal(t, []int{5, 5, 9}, []int{release.Manifests[0].Line, release.Manifests[1].Line, release.Manifests[2].Line})
	require.Equal(t, []int{7, 7}, []int{release.Deletions.PreApply[0].Line, release.Deletions.PreApply[1].Line})
}

func TestObjectsAreReadAsTheAPIServerReadsThem(t *testing.T) {
	release, err := render.Render(folder(map[string]string{"manifests/a/a.yaml": "apiVersion: v1\nkind: A\nmetadata: {name: a}\nspec: {whole: 3, half: 0.5, on: true, text: \"3\", same: &x [1], again: *x}\n"}), input())
	require.NoError(t, err)
	require.Equal(t, map[string]any{
		"whole": int64(3), "half": 0.5, "true": true, "text": "3", "same": []any{int64(1)}, "again": []any{int64(1)},
	}, release.Manifests[0].Object.Object["spec"])
}

func TestDeletionsAreReadWithTheirDefaults(t *testing.T) {
	release, err := render.Render(folder(map[string]string{"manifests/deletions.yaml": `
pre_apply:
- {name: a, kind: Deployment, namespace: shop, has_owner: false, propagation_policy: Orphan, grace_period_seconds: 0, api_version: apps/v1}
post_apply:
- labels: {application: "{{ .Cluster.Alias }}"}
  kind: ConfigMap
- selector: a in (b,c),!d
  kind: Secret
`}), input())
	require.NoError(t, err)
	no, zero := false, int64(0)
	require.Equal(t, render.Deletions{
		PreApply: []render.Deletion{{Name: "a", Kind: "Deployment", Namespace: "shop", HasOwner: &no, PropagationPolicy: "Orphan", GracePeriodSeconds: &zero, APIVersion: "apps/v1", Line: 3}},
		PostApply: []render.Deletion{
			{Labels: map[string]string{"application": "playground"}, Kind: "ConfigMap", Namespace: "kube-system", Line: 5},
			{Selector: "a in (b,c),!d", Kind: "Secret", Namespace: "kube-system", Line: 7},
		},
	}, release.Deletions)
}

func TestWhatIsWrongIsRefusedWithFileLineAndFix(t *testing.T) {
	manifest := func(content string) map[string]string { return map[string]string{"manifests/a/a.yaml": content} }
	deletions := func(entry string) map[string]string {
		return map[string]string{"manifests/deletions.yaml": "post_apply:\n- " + entry + "\n"}
	}
	for name, test := range map[string]struct {
		files map[string]string
		want  string
	}{
		"no such config item":     {manifest("# {{ .Cluster.ID }}\n# {{ .Cluster.ConfigItems.nothing }}"), `manifests/a/a.yaml:2: .Cluster.ConfigItems.nothing: there is no config item "nothing"; give it a default in config-defaults.yaml or a value in the cluster's registry entry`},
		"no such value":           {manifest("# {{ .Values.nothing }}"), `manifests/a/a.yaml:1: .Values.nothing: there is no "nothing" here`},
		"no such field":           {manifest("# {{ .Cluster.Nothing }}"), `manifests/a/a.yaml:1: .Cluster.Nothing: there is no field "Nothing" here`},
		"no method":               {manifest(`# {{ .Cluster.Pool "worker" }}`), `manifests/a/a.yaml:1: .Cluster.Pool: there is no field "Pool" here`},
		"no pool":                 {manifest("# {{ .NodePool.Name }}"), `manifests/a/a.yaml:1: .NodePool.Name: there is a node pool in node-pools/ only`},
		"no such function":        {manifest("\n# {{ env \"HOME\" }}"), `manifests/a/a.yaml:2: function "env" not defined`},
		"no check of ours":        {manifest("{{ _leave 1 }}"), `manifests/a/a.yaml:1: function "_leave" not defined`},
		"a failing function":      {manifest("\n# {{ parseInt64 \"x\" }}"), `manifests/a/a.yaml:2: parseInt64 "x": strconv.ParseInt: parsing "x": invalid syntax`},
		"no template":             {manifest("{{ if }}"), "manifests/a/a.yaml:1: missing value for if"},
		"broken default":          {map[string]string{"config-defaults.yaml": "a: {{ .Cluster.ConfigItems.b }}"}, `config-defaults.yaml:1: .Cluster.ConfigItems.b: there is no config item "b"`},
		"default that is a list":  {map[string]string{"config-defaults.yaml": "a: b\nc: [d]"}, "config-defaults.yaml:2: c: is no text; config items are texts"},
		"default that comes back": {map[string]string{"config-defaults.yaml": "a: b\na: c"}, `config-defaults.yaml:2: the key "a" is in line 1 already`},
		"defaults without keys":   {map[string]string{"config-defaults.yaml": "- a"}, "config-defaults.yaml:1: must be keys with values"},
		"two documents":           {map[string]string{"config-defaults.yaml": "a: b\n---\nc: d"}, "config-defaults.yaml:3: begins another YAML document"},

		"a file out of place":   {map[string]string{"manifests/a.yaml": "x"}, "manifests/a.yaml: is in no application's folder; manifests are manifests/<application>/<name>.yaml"},
		"a file too deep":       {map[string]string{"manifests/a/b/c.yaml": "x"}, "manifests/a/b/c.yaml: is in no application's folder"},
		"no YAML":               {manifest(configMap("a", "x") + "---\na: b\n c: d\n"), "manifests/a/a.yaml:9: is no YAML: mapping values are not allowed in this context"},
		"no YAML of a template": {manifest("{{ if true }}{{ end }}\na: [\n"), "is no YAML: did not find expected node content"},
		"a duplicate key":       {manifest("a: b\na: c\n"), `manifests/a/a.yaml:2: is no YAML: key "a" already set in map`},
		"no object":             {manifest("\n- a"), "manifests/a/a.yaml:2: is no Kubernetes object: must be keys with values"},
		"no version":            {manifest("kind: A\nmetadata: {name: a}"), "manifests/a/a.yaml:1: apiVersion: is missing"},
		"a strange version":     {manifest("apiVersion: a/b/c\nkind: A\nmetadata: {name: a}"), `manifests/a/a.yaml:1: apiVersion: is "a/b/c"; must be such as v1 or apps/v1`},
		"no kind":               {manifest("apiVersion: v1\nmetadata: {name: a}"), "manifests/a/a.yaml:1: kind: is missing"},
		"no name":               {manifest("apiVersion: v1\nkind: A\nmetadata: {name: \"\"}"), "manifests/a/a.yaml:1: metadata.name: is missing"},
		"a number as name":      {manifest("apiVersion: v1\nkind: A\nmetadata: {name: 5}"), "manifests/a/a.yaml:1: metadata.name: must be text"},
		"text as metadata":      {manifest("apiVersion: v1\nkind: A\nmetadata: x"), "manifests/a/a.yaml:1: metadata.name: must be text"},
		"a generated name":      {manifest("apiVersion: v1\nkind: A\nmetadata: {generateName: a}"), "manifests/a/a.yaml:1: metadata.generateName: would make another object by each update; give it a name"},
		"a number as label":     {manifest("apiVersion: v1\nkind: A\nmetadata: {name: a, labels: {b: 5}}"), "manifests/a/a.yaml:1: metadata.labels.b: must be text; put it in quotes"},
		"a list of texts":       {manifest("apiVersion: v1\nkind: List\nitems: [a]"), "manifests/a/a.yaml:1: items[0]: is no Kubernetes object"},
		"the same object twice": {map[string]string{"manifests/a/a.yaml": configMap("a", "x"), "manifests/b/b.yaml": "---\n" + strings.Replace(configMap("a", "x"), "  name", "  namespace: default\n  name", 1)}, "manifests/b/b.yaml:2: ConfigMap default/a is in manifests/a/a.yaml:1 already"},

		"deletion without kind":         {deletions("name: a"), "manifests/deletions.yaml:2: post_apply[0].kind: is missing"},
		"deletion of everything":        {deletions("kind: A"), "manifests/deletions.yaml:2: post_apply[0]: must have exactly one of name, labels and selector; has none"},
		"deletion of two things":        {deletions("{kind: A, name: a, labels: {b: c}}"), "has name and labels"},
		"deletion with a bad selector":  {deletions("{kind: A, selector: 'a b'}"), `post_apply[0].selector: is "a b"; must be a selector`},
		"deletion with a bad label":     {deletions("{kind: A, labels: {'a b': c}}"), "post_apply[0].labels: are no labels"},
		"deletion with a bad policy":    {deletions("{kind: A, name: a, propagation_policy: Ghost}"), `post_apply[0].propagation_policy: is "Ghost"; must be one of Orphan, Background, Foreground`},
		"deletion with a negative time": {deletions("{kind: A, name: a, grace_period_seconds: -1}"), "post_apply[0].grace_period_seconds: is -1; must be at least 0"},
		"merged deletions":              {map[string]string{"manifests/deletions.yaml": "post_apply: []\n<<: {pre_apply: [{kind: A, name: a}]}"}, "manifests/deletions.yaml:2: is a merge; write out what it stands for"},
		"deletion with a merged name":   {deletions("{kind: A, <<: {name: a}}"), "manifests/deletions.yaml:2: is a merge"},
		"deletion with a strange key":   {deletions("{kind: A, name: a, nane: b}"), "manifests/deletions.yaml:2: post_apply[0].nane: is no known key"},

		"a stack of nobody": {map[string]string{"etcd/stack.yaml": "Resources: {A: {Type: B}}"}, "etcd/stack.yaml: Metadata.Tags: lacks `kubernetes.io/cluster/dev-1: owned`, by which Fairway finds the stacks of a cluster"},
		"a stack of another cluster": {map[string]string{"cluster.yaml": "Metadata: {Tags: {kubernetes.io/cluster/dev-1: owned, kubernetes.io/cluster/prod: owned}}\nResources: {A: {}}"},
			"cluster.yaml: Metadata.Tags.kubernetes.io/cluster/prod: is the mark of another cluster"},
		"a stack of nothing":         {map[string]string{"cluster.yaml": "Metadata: {Tags: {}}"}, "cluster.yaml: Resources: is missing"},
		"a stack with aliases":       {map[string]string{"cluster.yaml": stackYAML + "A: &a b\nC: *a\n"}, "cluster.yaml:4: is an alias; write out what it stands for"},
		"a stack with one key twice": {map[string]string{"cluster.yaml": stackYAML + "Outputs:\n  A: b\n  A: c\n"}, `cluster.yaml:5: the key "A" is in line 4 already`},
		"a stack that is too long":   {map[string]string{"cluster.yaml": stackYAML + "# " + strings.Repeat("x", 1<<20)}, "CloudFormation takes at most 1048576"},
		"a tag that is a list":       {map[string]string{"cluster.yaml": "Metadata: {Tags: {a: [b]}}\nResources: {A: {}}"}, "cluster.yaml:1: Metadata.Tags.a: must be text"},

		"a hash of itself":           {manifest(`# {{ manifestHash "a.yaml" }}`), `manifests/a/a.yaml:1: manifestHash "a.yaml": "a.yaml" is being rendered for this very file`},
		"a hash of nothing":          {manifest(`# {{ manifestHash "b.yaml" }}`), `"b.yaml" cannot be rendered: manifests/a/b.yaml: is missing`},
		"a hash of something else":   {manifest(`# {{ manifestHash "../../cluster.yaml" }}`), `"../../cluster.yaml" is not in manifests/`},
		"a hash outside the folder":  {manifest(`# {{ manifestHash "../../../../etc/passwd" }}`), "is not in manifests/"},
		"a hash of something broken": {map[string]string{"manifests/a/a.yaml": `# {{ manifestHash "b.yaml" }}`, "manifests/a/b.yaml": "# {{ .Values.x }}"}, `"b.yaml" cannot be rendered: manifests/a/b.yaml:1: .Values.x: there is no "x" here`},
	} {
		t.Run(name, func(t *testing.T) {
			release, err := render.Render(folder(test.files), input())
			require.Nil(t, release)
			require.ErrorContains(t, err, test.want)
			var problem render.Problem
			require.ErrorAs(t, err, &problem)
		})
	}
}

func TestProblemsOfTheOutputNameTheLineOfTheSource(t *testing.T) {
	source := `# {{/* nothing */}}
{{- define "entry" }}
{{ . }}: x
{{- end }}
apiVersion: v1
{{- range 3 }}
{{ template "entry" . }}
{{- end }}
kind: A
metadata:
  labels: {}
{{ indent 2 "a: b\nname: 5" }}
--- # next
{{ if true }}apiVersion: v1{{ end }}
name: x
name: y
`
	_, err := render.Render(folder(map[string]string{
		"manifests/a/a.yaml":       source,
		"manifests/deletions.yaml": "{{ if true }}\n\n{{ range 3 }}\n{{ end }}{{ end }}\npost_apply:\n{{- range 2 }}\n- kind: A\n  {{ . | printf \"n%dme\" }}: x\n{{- end }}\n",
	}), input())
	require.EqualError(t, err, `manifests/a/a.yaml:5: metadata.name: must be text (in line 2 of what the template renders)
manifests/a/a.yaml:16: is no YAML: key "name" already set in map (in line 17 of what the template renders)
manifests/deletions.yaml:8: post_apply[0].n0me: is no known key; there are api_version, grace_period_seconds, has_owner, kind, labels, name, namespace, propagation_policy, selector (in line 9 of what the template renders)
manifests/deletions.yaml:8: post_apply[1].n1me: is no known key; there are api_version, grace_period_seconds, has_owner, kind, labels, name, namespace, propagation_policy, selector (in line 11 of what the template renders)`)
}

func TestWhatIsMissingIsNamed(t *testing.T) {
	files := folder(nil)
	delete(files, "cluster.yaml")
	delete(files, "node-pools/worker-default/stack.yaml")
	_, err := render.Render(files, input())
	require.EqualError(t, err, "cluster.yaml: is missing\n"+
		`node-pools/worker-default/stack.yaml: is missing: pool "worker" has the profile "worker-default"; there are master-default`)

	in := input()
	in.Cluster.NodePools[0].Profile = ".."
	_, err = render.Render(folder(map[string]string{"stack.yaml": stackYAML}), in)
	require.ErrorContains(t, err, `node-pools/../stack.yaml: is missing`)

	in = input()
	in.Cluster.ID = "dev.1"
	_, err = render.Render(folder(nil), in)
	require.ErrorContains(t, err, `cluster.yaml: its stack would be called "dev.1", which CloudFormation does not allow`)
}

func TestAllBrokenFilesAreToldAtOnce(t *testing.T) {
	files := map[string]string{
		"cluster.yaml": "{{ .Values.x }}",
		"node-pools/worker-default/userdata.yaml": "{{ .Values.x }}",
		"manifests/deletions.yaml":                "pre_apply: [{}]",
	}
	_, err := render.Render(folder(files), input())
	require.EqualError(t, err, `cluster.yaml:1: .Values.x: there is no "x" here
node-pools/worker-default/userdata.yaml:1: .Values.x: there is no "x" here
manifests/deletions.yaml:1: pre_apply[0]: must have exactly one of name, labels and selector; has none
manifests/deletions.yaml:1: pre_apply[0].kind: is missing`)

	for i := range 30 {
		files[fmt.Sprintf("manifests/a/%02d.yaml", i)] = "{{ .Values.x }}"
	}
	_, err = render.Render(folder(files), input())
	require.Equal(t, 21, len(strings.Split(err.Error(), "\n")))
	require.ErrorContains(t, err, "\nand 14 more")
}

func TestProblemsCanBeTold(t *testing.T) {
	for _, content := range []string{
		"{{ range 1.5 }}" + strings.Repeat("x\n", 100_000) + "{{ end }}",
		"{{ parseInt64 \"" + strings.Repeat("x", 100_000) + "\" }}",
		"{{ parseInt64 \"\xff\x1b[31m\" }}",
		strings.Repeat("a", 100_000) + ": 1\n" + strings.Repeat("a", 100_000) + ": 1\n",
		"apiVersion: v1\nkind: A\nmetadata: {name: a, labels: {\"\\e[31m\": 5}}",
		strings.Repeat("---\na\n", 100_000),
	} {
		_, err := render.Render(folder(map[string]string{"manifests/a/a.yaml": content}), input())
		require.ErrorContains(t, err, "manifests/a/a.yaml:")
		require.Less(t, len(err.Error()), 21*1000)
		require.True(t, utf8.ValidString(err.Error()))
		require.NotContains(t, err.Error(), "\x1b")
	}
}

func TestLinksAreNotFollowed(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.CopyFS(dir, folder(map[string]string{"manifests/a/a.yaml": ""})))
	require.NoError(t, os.Symlink("/etc/passwd", dir+"/manifests/a/b.yaml"))
	require.NoError(t, os.Symlink("a", dir+"/manifests/c"))
	require.NoError(t, os.Symlink("/etc/passwd", dir+"/config-defaults.yaml"))
	require.NoError(t, os.Symlink("nowhere", dir+"/unrelated"))
	_, err := render.Render(os.DirFS(dir), input())
	require.EqualError(t, err, "config-defaults.yaml: is a symbolic link, which is not followed; put a copy of the file in its place")
	require.NoError(t, os.Remove(dir+"/config-defaults.yaml"))
	require.NoError(t, os.Symlink("/etc/passwd", dir+"/manifests/deletions.yaml"))
	_, err = render.Render(os.DirFS(dir), input())
	for _, file := range []string{"manifests/a/b.yaml", "manifests/c", "manifests/deletions.yaml"} {
		require.ErrorContains(t, err, file+": is a symbolic link")
	}
	require.NotContains(t, err.Error(), "unrelated")

	require.NoError(t, os.RemoveAll(dir+"/manifests"))
	require.NoError(t, os.Remove(dir+"/cluster.yaml"))
	require.NoError(t, os.Rename(dir+"/node-pools", dir+"/pools"))
	require.NoError(t, os.Symlink("pools", dir+"/node-pools"))
	require.NoError(t, os.Symlink("../x", dir+"/cluster.yaml"))
	_, err = render.Render(os.DirFS(dir), input())
	require.ErrorContains(t, err, "cluster.yaml: is a symbolic link")
	require.ErrorContains(t, err, "node-pools/worker-default/stack.yaml: is missing")
}

// failing cannot read one of its files.
type failing struct {
	fstest.MapFS
	file string
}

func (f failing) Open(name string) (fs.File, error) {
	if name == f.file {
		return nil, &fs.PathError{Op: "open", Path: name, Err: errors.New("the disk is gone")}
	}
	return f.MapFS.Open(name)
}

func (f failing) ReadDir(name string) ([]fs.DirEntry, error) {
	if name == f.file {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: errors.New("the disk is gone")}
	}
	return f.MapFS.ReadDir(name)
}

func TestAFileThatCannotBeReadIsNoProblemOfTheConfiguration(t *testing.T) {
	for _, file := range []string{"cluster.yaml", "manifests/a/a.yaml", "config-defaults.yaml", ".", "manifests/b", "manifests/a/text"} {
		_, err := render.Render(failing{folder(map[string]string{"config-defaults.yaml": "", "manifests/a/a.yaml": "# {{ manifestHash \"text\" }}", "manifests/a/text": "", "manifests/b/b.yaml": "{{"}), file}, input())
		require.ErrorContains(t, err, "the disk is gone", file)
		require.False(t, errors.As(err, new(render.Problem)), file)
	}
}

func TestAHashIsThatOfTheRenderedManifest(t *testing.T) {
	release, err := render.Render(folder(map[string]string{
		"manifests/a/a.yaml":  configMap("a", `"{{ manifestHash "b.yaml" }}"`),
		"manifests/a/b.yaml":  configMap("b", `"{{ "../c/text" | manifestHash }}"`),
		"manifests/c/text":    "of {{ .Cluster.ID }}",
		"manifests/c/also.md": "{{ is never rendered",
	}), input())
	require.NoError(t, err)
	item := func(i int) string {
		text, _, err := unstructured.NestedString(release.Manifests[i].Object.Object, "data", "item")
		require.NoError(t, err)
		return text
	}
	require.Len(t, release.Manifests, 2)
	b := fmt.Sprintf("%x", sha256.Sum256([]byte("of dev-1")))
	require.Equal(t, b, item(1))
	require.Equal(t, fmt.Sprintf("%x", sha256.Sum256([]byte(configMap("b", `"`+b+`"`)))), item(0))
}

func TestFunctions(t *testing.T) {
	for template, want := range map[string]string{
		`{{ .ID }} {{ .Cluster.ID }}`:                                                                         "dev-1 dev-1",
		`{{ .Region }} {{ .Alias }}`:                                                                          "eu-central-1 playground",
		`{{ index .ConfigItems "nothing" }}{{ .ConfigItems.size }}`:                                           "24",
		`{{ len .NodePools }} {{ range .Cluster.NodePools }}{{ .Name }}{{ end }}`:                             "2 workermaster",
		`{{ .NodePool.Name }} {{ range .Values.availability_zones }}{{ . | azID }} {{ end }}.`:                "worker 1a 1b .",
		`{{ azCount .Values.subnets }} {{ azCount .Values.availability_zones }}`:                              "2 2",
		`{{ base64 "ab" }} {{ base64Decode "YWI=" }}`:                                                         "YWI= ab",
		`{{ range $i, $part := split "a,b" "," }}{{ $i }}{{ $part }}{{ end }}{{ split "" "," }}`:              "0a1b[]",
		`{{ split "c,b" "," | join "; " }} {{ join "," (keys .Values.subnets) }} {{ join "-" (list 1 "a") }}`: "c; b eu-central-1a,eu-central-1b 1-a",
		`{{ replace "a" "bb" "aca" }} {{ "b" | replace "b" "" }}`:                                             "bbcbb ",
		`{{ indent 2 "a" }}|{{ "a" | nindent 1 }}`:                                                            "  a|\n a",
		`{{ quote "a\"b" }} {{ quote 5 }}`:                                                                    `"a\"b" "5"`,
		`{{ lower "aB" }}{{ upper "aB" }}{{ trim " a " }}`:                                                    "abABa",
		`{{ trimPrefix "v" "v1" }}{{ "1m" | trimSuffix "m" }}`:                                                "11",
		`{{ hasPrefix "ab" "a" }} {{ hasSuffix "ab" "a" }} {{ contains "ab" "b" }}`:                           "true false true",
		`{{ default "a" .ConfigItems.empty }} {{ .ConfigItems.size | default "a" }} {{ default 1 0 }}`:        "a 24 1",
		`{{ $d := dict "a" 1 "b" (list 2) }}{{ $d.a }}{{ index $d.b 0 }}`:                                     "12",
		`{{ append (list 1) 2 3 }} {{ append .Values.availability_zones "c" | len }}`:                         "[1 2 3] 3",
		`{{ toJson (dict "a" "<") }} {{ yaml (dict "a" (list 1)) }}`:                                          "{\"a\":\"<\"} a:\n- 1",
		`{{ sha256 "a" }}`: "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb",
		`{{ parseInt64 .ConfigItems.size | add 1 }} {{ sub "3" 1 }} {{ mul 2 3 }} {{ div 7 2 }} {{ mod 7 2 }}`:                                              "25 2 6 3 1",
		`{{ sumQuantities "1" "500m" "-200m" }} {{ sumQuantities "1Gi" "512Mi" }}`:                                                                          "1300m 1536Mi",
		`{{ scaleQuantity "4" 0.014 }} {{ scaleQuantity "16Gi" 0.5 }}`:                                                                                      "56m 8Gi",
		`{{ semverCompare ">=1.30" "v1.36.3" }} {{ semverCompare "~1.30" "1.31.0" }}`:                                                                       "true false",
		`{{ accountID .InfrastructureAccount }} {{ .InfrastructureAccount | getAWSAccountID }}`:                                                             "123456789012 123456789012",
		`{{ awsValidID "aws:1:a" }} {{ mountUnitName "/mnt/data" }}`:                                                                                        "aws__1__a mnt-data",
		`{{ asgSize 6 (len .Values.availability_zones) }}`:                                                                                                  "3",
		`{{ with splitHostPort "a:80" }}{{ .Host }} {{ .Port }}{{ end }}`:                                                                                   "a 80",
		`{{ extractEndpointHosts "https://b:1,a:2,http://a" }}`:                                                                                             "[a b]",
		`{{ range portRanges "80,1-9" }}{{ .FromPort }}-{{ .ToPort }} {{ end }}.`:                                                                           "80-80 1-9 .",
		`{{ range sgIngressRanges "10.1.2.3/8:1-2,udp:0.0.0.0/0:53" }}{{ .Protocol }} {{ .CIDR }} {{ .FromPort }} {{ .ToPort }};{{ end }}`:                  "tcp 10.0.0.0/8 1 2;udp 0.0.0.0/0 53 53;",
		`{{ nthAddressFromCIDR "10.0.0.7/8" 10 }} {{ nthAddressFromCIDR "fd00::/8" 1 }}`:                                                                    "10.0.0.10 fd00::1",
		`{{ nodeCIDRMaxNodes 24 10 }} {{ nodeCIDRMaxNodesPodCIDR 15 25 0 }} {{ nodeCIDRMaxPods 25 3 }} {{ nodeCIDRMaxPods 24 8 }}`:                          "246 1024 67 110",
		`{{ printf "%05.1f|%-4s|%[1]v|%%" 1.25 "a" }} {{ print 1 "a" }} {{ println 1 }}.`:                                                                   "001.2|a   |1.25|% 1a 1\n.",
		`{{ html "<" }} {{ js "'" }} {{ urlquery "a b" }}`:                                                                                                  `&lt; \' a+b`,
		`{{ define "t" }}[{{ . }}]{{ end }}{{ template "t" 1 }}{{ range 3 }}{{ if eq . 1 }}{{ continue }}{{ end }}{{ template "t" . }}{{ else }}x{{ end }}`: "[1][0][2]",
	} {
		t.Run(template, func(t *testing.T) {
			got, err := text(t, template)
			require.NoError(t, err)
			require.Equal(t, want, got)
		})
	}
}

func TestFunctionsRefuseWhatTheyCannotDo(t *testing.T) {
	for template, want := range map[string]string{
		`{{ base64Decode "?" }}`:                         "illegal base64",
		`{{ accountID "aws" }}`:                          `"aws" is no account such as aws:123456789012`,
		`{{ asgSize 5 2 }}`:                              "a pool of 5 nodes cannot be shared out evenly among 2 groups",
		`{{ asgSize 5 0 }}`:                              "among 0 groups",
		`{{ div 1 0 }}`:                                  "cannot be divided by 0",
		`{{ mod 1 0 }}`:                                  "cannot be divided by 0",
		`{{ add 1 .Values }}`:                            "is no whole number",
		`{{ dict "a" }}`:                                 "needs a value for each key",
		`{{ dict "a" 1 "a" 2 }}`:                         `has the key "a" twice`,
		`{{ dict 1 1 }}`:                                 "key 1 is no text",
		`{{ keys 1 }}`:                                   "int has no keys",
		`{{ join "," 1 }}`:                               "int is no list",
		`{{ indent -1 "a" }}`:                            "cannot indent by -1",
		`{{ portRanges "9-1" }}`:                         `"9-1" is no port or range of ports`,
		`{{ portRanges "70000" }}`:                       "is no port",
		`{{ sgIngressRanges "a" }}`:                      "is not [tcp:|udp:]<CIDR>:<port>[-<port>]",
		`{{ sgIngressRanges "icmp:0.0.0.0/0:1" }}`:       "is not [tcp:|udp:]",
		`{{ extractEndpointHosts "" }}`:                  "has no host",
		`{{ splitHostPort "a" }}`:                        "missing port",
		`{{ nodeCIDRMaxPods 8 0 }}`:                      "nodes have a network of /24 to /28, not /8",
		`{{ nodeCIDRMaxNodesPodCIDR 8 24 0 }}`:           "pods have a network of /14 to /16, not /8",
		`{{ nthAddressFromCIDR "10.0.0.0/30" 4 }}`:       "has no address 4",
		`{{ nthAddressFromCIDR "10.0.0.0/8" 99999999 }}`: "is not between 0 and 65536",
		`{{ sumQuantities "much" }}`:                     `"much" is no quantity such as 500m or 2Gi`,
		`{{ sumQuantities "1e-100000000" }}`:             "is no quantity",
		`{{ scaleQuantity "1" 0.0 }}`:                    "must be more than 0",
		`{{ scaleQuantity "9E" 1e9 }}`:                   "is too much",
		`{{ semverCompare "?" "1" }}`:                    "improper constraint",
		`{{ semverCompare ">1" "x" }}`:                   `"x": invalid semantic version`,
		`{{ publicKey "x" }}`:                            "the private key is no PEM block",
		`{{ certificateExpiry "x" }}`:                    "the certificate is no PEM block",
		`{{ mountUnitName "a" }}`:                        "is no absolute path",
		`{{ printf "%p" .Values }}`:                      `"%p" is not supported`,
		`{{ printf "%*d" 5 5 }}`:                         `"%*d" is not supported`,
		`{{ call .ID }}`:                                 "non-function",
	} {
		t.Run(template, func(t *testing.T) {
			_, err := text(t, template)
			require.ErrorContains(t, err, want)
			require.ErrorContains(t, err, "node-pools/worker-default/userdata.yaml:1: ")
		})
	}
}

func TestValuesOfTheCallerStayAsTheyAre(t *testing.T) {
	in := input()
	before := maps.Clone(in.Values)
	_, err := render.Render(sample, in)
	require.NoError(t, err)
	require.Equal(t, before, in.Values)
}

func BenchmarkRender(b *testing.B) {
	files, err := rendertest.Repository(sample, 300, 450)
	require.NoError(b, err)
	for b.Loop() {
		release, err := render.Render(files, input())
		require.NoError(b, err)
		require.Greater(b, len(release.Manifests), 300)
		require.Len(b, release.Cluster.ConfigItems, 450)
	}
}

func TestAGeneratedRepositoryOf300ManifestsRendersInTwoSeconds(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, rendertest.Write(dir, sample, 300, 450))
	start := time.Now()
	release, err := render.Render(os.DirFS(dir), input())
	require.NoError(t, err)
	require.Less(t, time.Since(start), 2*time.Second)
	require.Len(t, release.Cluster.ConfigItems, 450)
	files := map[string]bool{}
	for _, m := range release.Manifests {
		files[m.File] = true
	}
	require.Len(t, files, 300)
}
