package promotion_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/promotion"
)

// configuration is a folder of files by their names in it.
type configuration map[string]string

func (c configuration) with(changes configuration) fstest.MapFS {
	tree := fstest.MapFS{}
	for name, text := range c {
		tree[name] = &fstest.MapFile{Data: []byte(text)}
	}
	for name, text := range changes {
		if tree[name] = (&fstest.MapFile{Data: []byte(text)}); text == gone {
			delete(tree, name)
		}
	}
	return tree
}

const gone = "-"

var base = configuration{
	"cluster.yaml":                         `Resources: {A: {B: "{{ .Cluster.ConfigItems.vpc_size }}"}}`,
	"etcd/stack.yaml":                      `Type: '{{ index .Cluster.ConfigItems "etcd_instance_type" }}'`,
	"node-pools/worker-default/stack.yaml": "Disk: {{ .NodePool.ConfigItems.disk }}\n",
	"node-pools/worker-default/files.yaml": "Disk: {{ .NodePool.ConfigItems.disk }}\n",
	"manifests/shop/deployment.yaml":       "kind: Deployment\nreplicas: {{ .Cluster.ConfigItems.shop_replicas }}\n",
	"manifests/shop/config.yaml":           "kind: ConfigMap\n",
	"manifests/agent/daemonset.yaml":       "kind: DaemonSet\nhash: {{ manifestHash \"config.yaml\" }}\nlevel: {{ .Cluster.ConfigItems.agent_level }}\n",
	"manifests/agent/config.yaml":          "kind: ConfigMap\n",
	"manifests/agent/service.yaml":         "kind: Service\n",
	"manifests/deletions.yaml":             "pre_apply: []\n",
	"manifests/db/set.json":                `{"kind": "StatefulSet"}`,
	"manifests/hook/hook.yaml":             "- apiVersion: v1\n  kind: 'MutatingWebhookConfiguration'\n",
	"manifests/types/crd.yaml":             "kind:   CustomResourceDefinition # of shops\n",
	"manifests/skipper/{{x}}[1].yaml":      "kind: {{ if eq .Cluster.ConfigItems.skipper_kind \"daemonset\" }}DaemonSet{{ else }}Deployment{{ end }}\n",
	"manifests/ranging/config.yaml":        "kind: ConfigMap\n{{ range $key, $value := .Cluster.Labels }}{{ end }}\n",
	"config-defaults.yaml": `# defaults
vpc_size: "16"
{{ if eq .Cluster.Environment "production" }}
shop_replicas: "3"
disk: "100Gi"
{{ else }}
shop_replicas: "1"
disk: "20Gi"
{{ end }}
etcd_instance_type: t3.small
agent_level: "{{ .Cluster.ConfigItems.log_level }}"
log_level: info
skipper_kind: deployment
unused: "1"
script: |
  one
  two
`,
}

// defaults are config-defaults.yaml with replacements.
func defaults(replacements ...string) configuration {
	return configuration{"config-defaults.yaml": strings.NewReplacer(replacements...).Replace(base["config-defaults.yaml"])}
}

func TestWhatAChangeMayDo(t *testing.T) {
	for rule, test := range map[string]struct {
		files  string // changed, below cluster/ unless they begin with a slash; renamed ones as old>new
		change configuration
		class  promotion.Class
		why    string
		areas  string
	}{
		"nothing": {"", nil, promotion.ManifestsOnly, "No file of the configuration of clusters changes.", ""},
		"tests and documentation": {
			"/test/e2e.go /README.md README.md .gitignore", nil, promotion.ManifestsOnly, "No file of the configuration of clusters changes.", "outside",
		},
		"an application":          {"manifests/shop/deployment.yaml", nil, promotion.ManifestsOnly, "cluster/manifests/shop/deployment.yaml is a manifest of an application.", "manifests/shop"},
		"a new application":       {"manifests/new/a.yaml", configuration{"manifests/new/a.yaml": "kind: Service"}, promotion.ManifestsOnly, "cluster/manifests/new/a.yaml is a manifest of an application.", "manifests/new"},
		"an agent on every node":  {"manifests/agent/daemonset.yaml", nil, promotion.AddOns, "cluster/manifests/agent/daemonset.yaml contains a DaemonSet.", "manifests/agent"},
		"what an agent hashes":    {"manifests/agent/config.yaml", nil, promotion.AddOns, "cluster/manifests/agent/config.yaml is hashed by manifests/agent/daemonset.yaml, which contains a DaemonSet.", "manifests/agent"},
		"beside an agent":         {"manifests/agent/service.yaml", nil, promotion.ManifestsOnly, "cluster/manifests/agent/service.yaml is a manifest of an application.", "manifests/agent"},
		"an agent that goes":      {"manifests/agent/daemonset.yaml", configuration{"manifests/agent/daemonset.yaml": gone}, promotion.AddOns, "cluster/manifests/agent/daemonset.yaml contains a DaemonSet.", "manifests/agent"},
		"an agent that comes":     {"manifests/shop/deployment.yaml", configuration{"manifests/shop/deployment.yaml": "kind: DaemonSet"}, promotion.AddOns, "cluster/manifests/shop/deployment.yaml contains a DaemonSet.", "manifests/shop"},
		"a database":              {"manifests/db/set.json", nil, promotion.AddOns, "cluster/manifests/db/set.json contains a StatefulSet.", "manifests/db"},
		"a webhook":               {"manifests/hook/hook.yaml", nil, promotion.AddOns, "cluster/manifests/hook/hook.yaml contains a MutatingWebhookConfiguration.", "manifests/hook"},
		"a type":                  {"manifests/types/crd.yaml", nil, promotion.AddOns, "cluster/manifests/types/crd.yaml contains a CustomResourceDefinition.", "manifests/types"},
		"either, by a template":   {"manifests/skipper/{{x}}[1].yaml", nil, promotion.AddOns, "cluster/manifests/skipper/{{x}}[1].yaml contains a DaemonSet.", "manifests/skipper"},
		"deletions":               {"manifests/deletions.yaml", nil, promotion.AddOns, "cluster/manifests/deletions.yaml deletes objects.", "manifests/deletions.yaml"},
		"a profile":               {"node-pools/worker-default/stack.yaml", nil, promotion.NodesRoll, "cluster/node-pools/worker-default/stack.yaml belongs to the profile of node pools.", "node-pools/worker-default"},
		"a profile, by a rename":  {"node-pools/old/stack.yaml>manifests/shop/config.yaml", nil, promotion.NodesRoll, "cluster/node-pools/old/stack.yaml belongs to the profile of node pools.", "manifests/shop node-pools/old"},
		"etcd":                    {"etcd/stack.yaml", nil, promotion.ClusterStack, "cluster/etcd/stack.yaml belongs to the stack of etcd.", "etcd"},
		"the stack":               {"cluster.yaml", nil, promotion.ClusterStack, "cluster/cluster.yaml makes the stack of the cluster.", "cluster.yaml"},
		"the worst counts":        {"manifests/shop/config.yaml cluster.yaml node-pools/worker-default/stack.yaml", nil, promotion.ClusterStack, "cluster/cluster.yaml makes the stack of the cluster.", "cluster.yaml manifests/shop node-pools/worker-default"},
		"something unknown":       {"new.yaml", nil, promotion.NodesRoll, "cluster/new.yaml is none of the files that clusters are known to be made from, so that nodes may roll.", "new.yaml"},
		"a file in place of many": {"etcd", nil, promotion.NodesRoll, "cluster/etcd is none of the files that clusters are known to be made from, so that nodes may roll.", "etcd"},
		"a folder of like name":   {"/clusters/cluster.yaml", nil, promotion.ManifestsOnly, "No file of the configuration of clusters changes.", "outside"},

		"the default of an application": {
			"config-defaults.yaml", defaults(`"3"`, `"4"`), promotion.ManifestsOnly, "cluster/config-defaults.yaml changes shop_replicas, which manifests of applications use.", "config-defaults.yaml",
		},
		"the default of an agent": {
			"config-defaults.yaml", defaults(`agent_level: "{{`, `agent_level: "x{{`), promotion.AddOns, "cluster/config-defaults.yaml changes agent_level, which manifests/agent/daemonset.yaml uses.", "config-defaults.yaml",
		},
		"a default that another is made from": {
			"config-defaults.yaml", defaults("log_level: info", "log_level: debug"), promotion.AddOns, "cluster/config-defaults.yaml changes agent_level, which manifests/agent/daemonset.yaml uses.", "config-defaults.yaml",
		},
		"the default of pools":     {"config-defaults.yaml", defaults("20Gi", "30Gi"), promotion.NodesRoll, "cluster/config-defaults.yaml changes disk, which node-pools/worker-default/files.yaml uses.", "config-defaults.yaml"},
		"the default of etcd":      {"config-defaults.yaml", defaults("t3.small", "t3.large"), promotion.ClusterStack, "cluster/config-defaults.yaml changes etcd_instance_type, which etcd/stack.yaml uses.", "config-defaults.yaml"},
		"the default of the stack": {"config-defaults.yaml", defaults(`"16"`, `"18"`, `"3"`, `"4"`), promotion.ClusterStack, "cluster/config-defaults.yaml changes vpc_size, which cluster.yaml uses.", "config-defaults.yaml"},
		"a default that a condition asks for": {
			"config-defaults.yaml",
			configuration{"config-defaults.yaml": base["config-defaults.yaml"] + "size: \"2\"\n{{ if eq .Cluster.ConfigItems.size \"2\" }}\netcd_size: \"3\"\n{{ end }}\n", "etcd/files.yaml": "{{ .Cluster.ConfigItems.etcd_size }}"},
			promotion.ClusterStack, "cluster/config-defaults.yaml changes etcd_size, which etcd/files.yaml uses.", "config-defaults.yaml",
		},
		"a condition of defaults":  {"config-defaults.yaml", defaults(`"production"`, `"test"`), promotion.NodesRoll, "cluster/config-defaults.yaml changes disk, which node-pools/worker-default/files.yaml uses.", "config-defaults.yaml"},
		"a default that is gone":   {"config-defaults.yaml", defaults("etcd_instance_type: t3.small\n", ""), promotion.ClusterStack, "cluster/config-defaults.yaml changes etcd_instance_type, which etcd/stack.yaml uses.", "config-defaults.yaml"},
		"a default nobody names":   {"config-defaults.yaml", defaults("unused: \"1\"", "unused: \"2\""), promotion.NodesRoll, "cluster/config-defaults.yaml changes unused, which no template names, so that nodes may roll.", "config-defaults.yaml"},
		"a default of many lines":  {"config-defaults.yaml", defaults("  two\n", "  three\n"), promotion.NodesRoll, "cluster/config-defaults.yaml changes script, which no template names, so that nodes may roll.", "config-defaults.yaml"},
		"a variable of defaults":   {"config-defaults.yaml", defaults("# defaults", "{{ $x := 1 }}"), promotion.NodesRoll, "cluster/config-defaults.yaml changes outside of its items, so that nodes may roll.", "config-defaults.yaml"},
		"a comment of defaults":    {"config-defaults.yaml", defaults("# defaults", "# the defaults\n"), promotion.ManifestsOnly, "cluster/config-defaults.yaml changes no item.", "config-defaults.yaml"},
		"a default that its template gave up": {
			"config-defaults.yaml manifests/shop/deployment.yaml",
			configuration{"config-defaults.yaml": defaults("shop_replicas: \"3\"\n", "", "shop_replicas: \"1\"\n", "")["config-defaults.yaml"], "manifests/shop/deployment.yaml": "kind: Deployment"},
			promotion.ManifestsOnly, "cluster/config-defaults.yaml changes shop_replicas, which manifests of applications use.", "config-defaults.yaml manifests/shop",
		},
		"a default that a pool may use by a name it makes up": {
			"config-defaults.yaml",
			configuration{"config-defaults.yaml": defaults(`"3"`, `"4"`)["config-defaults.yaml"], "node-pools/worker-default/userdata.yaml": `{{ range $k, $v := .NodePool.ConfigItems }}{{ end }}`},
			promotion.NodesRoll, "cluster/config-defaults.yaml changes shop_replicas, which node-pools/worker-default/userdata.yaml uses.", "config-defaults.yaml",
		},
	} {
		t.Run(rule, func(t *testing.T) {
			var files []promotion.File
			for name := range strings.FieldsSeq(test.files) {
				old, renamed, found := strings.Cut(name, ">")
				file := promotion.File{Path: inCluster(old)}
				if found {
					file = promotion.File{Path: inCluster(renamed), Before: inCluster(old)}
				}
				files = append(files, file)
			}
			impact := promotion.ImpactOf("cluster", files, base.with(nil), base.with(test.change))
			require.Equal(t, test.why, impact.Why)
			require.Equal(t, test.class, impact.Class)
			var areas []string
			for _, area := range impact.Areas {
				areas = append(areas, area.Name)
			}
			require.Equal(t, test.areas, strings.Join(areas, " "))
		})
	}
}

func inCluster(name string) string {
	if outside, found := strings.CutPrefix(name, "/"); found {
		return outside
	}
	return "cluster/" + name
}

func TestWhatCannotBeReadIsTakenForTheWorse(t *testing.T) {
	for name, class := range map[string]promotion.Class{
		"manifests/shop/config.yaml": promotion.AddOns, "config-defaults.yaml": promotion.NodesRoll, "cluster.yaml": promotion.ClusterStack,
	} {
		require.Equal(t, class, promotion.ImpactOf("cluster", []promotion.File{{Path: "cluster/" + name}}, nil, nil).Class)
		require.Equal(t, class, promotion.ImpactOf("cluster", []promotion.File{{Path: "cluster/" + name}}, base.with(nil), nil).Class)
	}
}

func TestTheConfigurationMayBeTheWholeRepository(t *testing.T) {
	impact := promotion.ImpactOf(".", []promotion.File{{Path: "config-defaults.yaml"}}, base.with(nil), base.with(defaults("20Gi", "30Gi")))
	require.Equal(t, "config-defaults.yaml changes disk, which node-pools/worker-default/files.yaml uses.", impact.Why)
	impact = promotion.ImpactOf("a/b/", []promotion.File{{Path: "a/b/etcd/x.yaml"}}, base.with(nil), base.with(nil))
	require.Equal(t, promotion.ClusterStack, impact.Class)
}

func TestAReportIsBounded(t *testing.T) {
	var files []promotion.File
	for i := range 300 {
		for j := range 40 {
			files = append(files, promotion.File{Path: fmt.Sprintf("cluster/manifests/app-%03d/%s%02d\x1b[31m\u202e.yaml", i, strings.Repeat("long", 100), j)})
		}
	}
	impact := promotion.ImpactOf("cluster", files, base.with(nil), base.with(nil))
	require.Len(t, impact.Areas, 100)
	listed := 0
	for _, area := range impact.Areas {
		require.LessOrEqual(t, len(area.Files), 30)
		listed += len(area.Files) + area.Omitted
		for _, file := range area.Files {
			require.LessOrEqual(t, len(file), 200)
			require.NotContains(t, file, "\x1b")
			require.NotContains(t, file, "\u202e")
		}
	}
	require.Equal(t, len(files), listed)
}

func TestALabelMakesAChangeBreaking(t *testing.T) {
	p := promotion.Pipeline{BreakingLabels: []string{"breaking", "major"}}
	impact := promotion.Impact{Class: promotion.NodesRoll, Why: "A profile."}
	class, why := p.Labelled(impact, []promotion.Change{{Commit: sha("a"), Labels: []string{"minor"}}, {Commit: sha("b"), PullRequest: 12, Labels: []string{"minor", "Major"}}})
	require.Equal(t, promotion.Breaking, class)
	require.Equal(t, "The label Major is on pull request 12.", why)
	class, why = p.Labelled(impact, []promotion.Change{{Commit: sha("a"), Labels: []string{"breaking"}}})
	require.Equal(t, promotion.Breaking, class)
	require.Equal(t, "The label breaking is on commit aaaaaaaaaaaa.", why)
	class, why = p.Labelled(impact, []promotion.Change{{Labels: []string{"breaking-news", ""}}, {}})
	require.Equal(t, promotion.NodesRoll, class)
	require.Equal(t, "A profile.", why)
}

func TestWhichChangesNeedAPerson(t *testing.T) {
	e := promotion.Edge{Mode: promotion.Merge, PersonFor: []promotion.Class{promotion.ClusterStack, promotion.NodesRoll}}
	for class, needs := range map[promotion.Class]bool{
		promotion.ManifestsOnly: false, promotion.AddOns: false, promotion.NodesRoll: true, promotion.ClusterStack: true,
		promotion.Breaking: true, // worse than what is listed
		"":                 true, // not known
		"unheard of":       true,
	} {
		require.Equal(t, needs, e.NeedsPerson(class), class)
		want := promotion.Merge
		if needs {
			want = promotion.ByPullRequest
		}
		require.Equal(t, want, e.ModeFor(class), class)
		require.False(t, promotion.Edge{}.NeedsPerson(class))
		require.Equal(t, promotion.ByPullRequest, promotion.Edge{Mode: promotion.ByPullRequest}.ModeFor(class))
	}
}
