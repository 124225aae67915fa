package server_test

import (
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/registry/server"
)

type parameter struct {
	Ref  string `yaml:"$ref"`
	Name string
}

type operation struct {
	OperationID string `yaml:"operationId"`
	Parameters  []parameter
	Security    *[]any
}

func described(t *testing.T) (paths map[string]map[string]operation, schemas map[string]map[string]any) {
	t.Helper()
	var raw struct {
		Paths      map[string]map[string]any
		Components struct {
			Schemas map[string]struct{ Properties map[string]any }
		}
	}
	require.NoError(t, yaml.Unmarshal(server.Description(), &raw))
	paths, schemas = map[string]map[string]operation{}, map[string]map[string]any{}
	for path, methods := range raw.Paths {
		paths[path] = map[string]operation{}
		for method, content := range methods {
			if method == "parameters" {
				continue
			}
			encoded, err := yaml.Marshal(content)
			require.NoError(t, err)
			var o operation
			require.NoError(t, yaml.Unmarshal(encoded, &o))
			paths[path][strings.ToUpper(method)] = o
		}
	}
	for name, schema := range raw.Components.Schemas {
		schemas[name] = schema.Properties
	}
	return paths, schemas
}

func TestTheDescriptionNamesExactlyWhatIsServed(t *testing.T) {
	paths, _ := described(t)
	var written, served [][2]string
	ids := map[string]bool{}
	for path, methods := range paths {
		for method, o := range methods {
			written = append(written, [2]string{method, path})
			require.False(t, ids[o.OperationID] || o.OperationID == "", "%s %s", method, path)
			ids[o.OperationID] = true
		}
	}
	served = server.Routes()
	require.ElementsMatch(t, served, written)
	for _, of := range []string{ // of Zalando's description, for generated clients
		"listClusters", "createCluster", "getCluster", "updateCluster", "deleteCluster", "addOrUpdateConfigItem", "deleteConfigItem", "listNodePools",
		"createOrUpdateNodePool", "updateNodePool", "deleteNodePool", "addOrUpdateNodePoolConfigItem", "deleteNodePoolConfigItem",
		"listInfrastructureAccounts", "getInfrastructureAccount",
	} {
		require.True(t, ids[of], of)
	}
}

func TestTheDescriptionHasTheFieldsOfTheModel(t *testing.T) {
	_, schemas := described(t)
	for name, model := range map[string]any{"Cluster": registry.Cluster{}, "Status": registry.Status{}, "ClusterProblem": registry.Problem{}, "NodePool": registry.NodePool{}, "NodePoolUpdate": registry.NodePool{}} {
		want := jsonNames(model)
		if name == "Cluster" {
			want = append(want, "created_at")
		}
		require.ElementsMatch(t, want, slices.Collect(maps.Keys(schemas[name])), name)
	}
	cluster := slices.Collect(maps.Keys(schemas["Cluster"]))
	require.ElementsMatch(t, without(cluster, "status"), slices.Collect(maps.Keys(schemas["WantedCluster"])))
	require.ElementsMatch(t, without(cluster, "created_at"), slices.Collect(maps.Keys(schemas["ClusterUpdate"])))
}

func without(all []string, one string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(name string) bool { return name == one })
}

func jsonNames(model any) (out []string) {
	for _, field := range reflect.VisibleFields(reflect.TypeOf(model)) {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		out = append(out, name)
	}
	return out
}

func TestTheDescriptionNamesTheFiltersThatThereAre(t *testing.T) {
	paths, _ := described(t)
	var names []string
	for _, p := range paths["/kubernetes-clusters"]["GET"].Parameters {
		if p.Name != "" {
			names = append(names, p.Name)
		}
	}
	slices.Sort(names)
	a := start(t, filepath.Join(t.TempDir(), "registry.db"))
	a.refused(400, "there are "+strings.Join(names, ", ")+", verbose", "read", "GET", "/kubernetes-clusters?x=y", "")
}

func TestTheDescriptionIsServed(t *testing.T) {
	a := start(t, filepath.Join(t.TempDir(), "registry.db"))
	r := a.ok("", "GET", "/openapi.yaml", "")
	require.Equal(t, string(server.Description()), r.body)
	require.Equal(t, "application/yaml", r.header.Get("Content-Type"))
}
