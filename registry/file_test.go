package registry_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/registry"
)

const valid = `clusters:
- id: dev-1
  alias: kale
  api_server_url: https://dev-1.example.org
  channel: dev
  environment: test
  infrastructure_account: aws:123456789012
  region: eu-central-1
  node_pools:
  - name: worker
    profile: worker-default
    instance_types: [m5.large]
    min_size: 3
    max_size: 6
`

func TestAValidEntryIsReadWithItsDefaults(t *testing.T) {
	clusters, err := registry.Parse("registry.yaml", []byte(valid))
	require.NoError(t, err)
	require.Len(t, clusters, 1)
	cluster := clusters[0]
	require.Equal(t, registry.Ready, cluster.LifecycleStatus)
	require.Equal(t, "dev-1", cluster.LocalID)
	require.Equal(t, "zalando-aws", cluster.Provider)
	pool, found := cluster.Pool("worker")
	require.True(t, found)
	require.Equal(t, 6, pool.MaxSize)
}

func TestAClusterIsFoundByIDAndByAlias(t *testing.T) {
	clusters, err := registry.Parse("registry.yaml", []byte(valid))
	require.NoError(t, err)
	for _, name := range []string{"dev-1", "kale"} {
		cluster, err := clusters.Find(name)
		require.NoError(t, err)
		require.Equal(t, "dev-1", cluster.ID)
	}
	_, err = clusters.Find("dev-9")
	require.EqualError(t, err, "cluster \"dev-9\" is not in the registry; `fairway cluster list` shows those that are")
	_, err = clusters.Find("")
	require.Error(t, err)
}

func TestABadRegistryIsRefusedWithFileLineAndField(t *testing.T) {
	second := strings.Replace(strings.TrimPrefix(valid, "clusters:\n"), "kale", "leek", 1)
	for name, test := range map[string]struct {
		content string
		want    []string
	}{
		"duplicate id":      {valid + second, []string{`registry.yaml:15: clusters[1].id: "dev-1" is taken by clusters[0] already`}},
		"alias equals id":   {valid + strings.Replace(strings.Replace(second, "id: dev-1", "id: x", 1), "leek", "dev-1", 1), []string{`clusters[1].alias: "dev-1" is taken by clusters[0]`}},
		"missing field":     {strings.Replace(valid, "  channel: dev\n", "", 1), []string{"registry.yaml:2: clusters[0].channel: is missing"}},
		"two missing":       {strings.Replace(strings.Replace(valid, "  channel: dev\n", "", 1), "  region: eu-central-1\n", "", 1), []string{"clusters[0].channel: is missing", "clusters[0].region: is missing"}},
		"wrong type":        {strings.Replace(valid, "min_size: 3", "min_size: three", 1), []string{"registry.yaml:13: clusters[0].node_pools[0].min_size: is \"three\"; must be a whole number"}},
		"unknown key":       {strings.Replace(valid, "  region:", "  regoin:", 1), []string{"registry.yaml:8: clusters[0].regoin: is no known key; there are alias, "}},
		"duplicate key":     {valid + "    max_size: 7\n", []string{"registry.yaml:15: ", "max_size"}},
		"not a URL":         {strings.Replace(valid, "https://dev-1.example.org", "dev-1", 1), []string{"registry.yaml:4: clusters[0].api_server_url: is \"dev-1\"; must be a URL"}},
		"bad lifecycle":     {valid + "  lifecycle_status: gone\n", []string{"clusters[0].lifecycle_status: is \"gone\"; must be one of requested, ready"}},
		"slash in id":       {strings.Replace(valid, "id: dev-1", "id: dev/1", 1), []string{"clusters[0].id: is \"dev/1\"; use letters"}},
		"max below min":     {strings.Replace(valid, "max_size: 6", "max_size: 2", 1), []string{"registry.yaml:14: clusters[0].node_pools[0].max_size: is 2; must be at least min_size, which is 3"}},
		"no instance type":  {strings.Replace(valid, "[m5.large]", "[]", 1), []string{"node_pools[0].instance_types: is []; must be at least 1"}},
		"two of a pool":     {valid + "  - name: worker\n    profile: p\n    instance_types: [a]\n    min_size: 0\n    max_size: 1\n", []string{`node_pools[1].name: "worker" is the name of node_pools[0] already`}},
		"empty file":        {"", []string{"registry.yaml: clusters: is missing"}},
		"no YAML":           {"clusters: [", []string{"registry.yaml:1: "}},
		"list at the top":   {"- id: dev-1\n", []string{"registry.yaml:1: "}},
		"several documents": {valid + "---\n" + valid, []string{"holds 2 YAML documents"}},
		"anchor bomb":       {bomb(), []string{"registry.yaml"}},
	} {
		t.Run(name, func(t *testing.T) {
			clusters, err := registry.Parse("registry.yaml", []byte(test.content))
			require.Error(t, err)
			require.Nil(t, clusters)
			for _, want := range test.want {
				require.Contains(t, err.Error(), want)
			}
		})
	}
}

// bomb grows a hundred-million-fold if its aliases are expanded into values.
func bomb() string {
	b := &strings.Builder{}
	b.WriteString("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n")
	for i := 1; i < 9; i++ {
		prev := string(rune('0' + i - 1))
		this := string(rune('0' + i))
		b.WriteString("a" + this + ": &a" + this + " [" + strings.TrimSuffix(strings.Repeat("*a"+prev+",", 10), ",") + "]\n")
	}
	b.WriteString("clusters: *a8\n")
	return b.String()
}

func TestAFileThatCannotBeReadIsNamed(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "registry.yaml")
	_, err := registry.File{Path: missing}.Clusters(context.Background())
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorContains(t, err, missing)
}
