package registry_test

import (
	"encoding/json"
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/registry"
)

const commit = "5e7a9b1c3d5e7f9a1b3c5d7e9f1a3b5c7d9e1f3a"

func parseOne(t *testing.T, content string) registry.Cluster {
	t.Helper()
	clusters, err := registry.Parse("registry.yaml", []byte(content))
	require.NoError(t, err)
	require.Len(t, clusters, 1)
	return clusters[0]
}

// The value was computed by other means, from the canonical form in docs/registry.md. If it changes,
// every cluster of every fleet is rolled out to anew.
func TestTheHashOfAnEntryNeverChanges(t *testing.T) {
	require.Equal(t, "e7691ff6295c2d230d7123422b11969683e3827e", parseOne(t, valid).Hash())
	require.Equal(t, commit+"#e7691ff6295c2d230d7123422b11969683e3827e", registry.Version(commit, parseOne(t, valid)))
}

func TestTheHashIsThatOfWhatAnEntryMeans(t *testing.T) {
	base := parseOne(t, valid)
	same := map[string]func(*registry.Cluster){
		"status":                    func(c *registry.Cluster) { c.Status = &registry.Status{CurrentVersion: "x"} },
		"default of local id":       func(c *registry.Cluster) { c.LocalID = "" },
		"default of provider":       func(c *registry.Cluster) { c.Provider = "" },
		"default of lifecycle":      func(c *registry.Cluster) { c.LifecycleStatus = "" },
		"default of discount":       func(c *registry.Cluster) { c.NodePools[0].DiscountStrategy = "" },
		"requested becomes ready":   func(c *registry.Cluster) { c.LifecycleStatus = registry.Requested },
		"empty config items":        func(c *registry.Cluster) { c.ConfigItems = map[string]string{} },
		"empty config items (pool)": func(c *registry.Cluster) { c.NodePools[0].ConfigItems = map[string]string{} },
	}
	for name, change := range same {
		t.Run("same: "+name, func(t *testing.T) {
			c := base
			c.NodePools = slices.Clone(base.NodePools)
			change(&c)
			require.Equal(t, base.Hash(), c.Hash())
		})
	}
	seen := map[string]string{base.Hash(): "as it was"}
	for name, change := range map[string]func(*registry.Cluster){
		"id":                     func(c *registry.Cluster) { c.ID, c.LocalID = "dev-2", "dev-1" },
		"alias":                  func(c *registry.Cluster) { c.Alias = "leek" },
		"local id":               func(c *registry.Cluster) { c.LocalID = "x" },
		"API server":             func(c *registry.Cluster) { c.APIServerURL = "https://other" },
		"channel":                func(c *registry.Cluster) { c.Channel = "alpha" },
		"criticality":            func(c *registry.Cluster) { c.CriticalityLevel = 1 },
		"environment":            func(c *registry.Cluster) { c.Environment = "production" },
		"account":                func(c *registry.Cluster) { c.InfrastructureAccount = "aws:2" },
		"to be decommissioned":   func(c *registry.Cluster) { c.LifecycleStatus = registry.DecommissionRequested },
		"owner":                  func(c *registry.Cluster) { c.Owner = "anchor" },
		"provider":               func(c *registry.Cluster) { c.Provider = "zalando-eks" },
		"region":                 func(c *registry.Cluster) { c.Region = "us-east-1" },
		"config item":            func(c *registry.Cluster) { c.ConfigItems = map[string]string{"a": "b"} },
		"empty config item":      func(c *registry.Cluster) { c.ConfigItems = map[string]string{"a": ""} },
		"pool's name":            func(c *registry.Cluster) { c.NodePools[0].Name = "x" },
		"pool's profile":         func(c *registry.Cluster) { c.NodePools[0].Profile = "x" },
		"pool's types":           func(c *registry.Cluster) { c.NodePools[0].InstanceTypes = []string{"m5.large", "a1.large"} },
		"pool's types in order":  func(c *registry.Cluster) { c.NodePools[0].InstanceTypes = []string{"a1.large", "m5.large"} },
		"pool's smallest size":   func(c *registry.Cluster) { c.NodePools[0].MinSize = 0 },
		"pool's largest size":    func(c *registry.Cluster) { c.NodePools[0].MaxSize = 60 },
		"pool's discount":        func(c *registry.Cluster) { c.NodePools[0].DiscountStrategy = "spot" },
		"pool's config item":     func(c *registry.Cluster) { c.NodePools[0].ConfigItems = map[string]string{"a": "b"} },
		"another pool":           func(c *registry.Cluster) { c.NodePools = append(c.NodePools, registry.NodePool{Name: "two"}) },
		"no pool":                func(c *registry.Cluster) { c.NodePools = nil },
		"other <, > and & in it": func(c *registry.Cluster) { c.ConfigItems = map[string]string{"a": "<>&"} },
	} {
		t.Run("other: "+name, func(t *testing.T) {
			c := base
			c.NodePools = slices.Clone(base.NodePools)
			change(&c)
			hash := c.Hash()
			require.Equal(t, hash, c.Hash())
			require.Empty(t, seen[hash], "it is that of another entry")
			seen[hash] = name
		})
	}
}

func TestDecommissioningDoesNotChangeTheVersionAtItsEnd(t *testing.T) {
	c := parseOne(t, valid)
	c.LifecycleStatus = registry.DecommissionRequested
	before := c.Hash()
	c.LifecycleStatus = registry.Decommissioned
	require.Equal(t, before, c.Hash())
}

func TestHashingLeavesTheEntryAlone(t *testing.T) {
	c := registry.Cluster{ID: "a", NodePools: []registry.NodePool{{Name: "p"}}, Status: &registry.Status{}}
	c.Hash()
	require.Empty(t, c.LocalID)
	require.Empty(t, c.NodePools[0].DiscountStrategy)
	require.NotNil(t, c.Status)
}

func TestTheOrderOfKeysDoesNotMatter(t *testing.T) {
	one := parseOne(t, valid+"  config_items: {b: \"2\", a: \"1\", c: \"\"}\n")
	two := parseOne(t, `clusters:
- config_items:
    c: ""
    a: "1"
    b: "2"
  node_pools:
  - {max_size: 6, min_size: 3, instance_types: [m5.large], profile: worker-default, name: worker, config_items: {}}
  region: eu-central-1
  infrastructure_account: aws:123456789012
  environment: test
  channel: dev
  api_server_url: https://dev-1.example.org
  alias: kale
  id: dev-1
`)
	require.Equal(t, one.Hash(), two.Hash())
	for range 20 { // maps have another order each time
		one.ConfigItems = maps.Clone(one.ConfigItems)
		require.Equal(t, two.Hash(), one.Hash())
	}
	encoded, err := json.Marshal(one)
	require.NoError(t, err)
	var three registry.Cluster
	require.NoError(t, json.Unmarshal(encoded, &three))
	require.Equal(t, two.Hash(), three.Hash(), "it came through JSON")
}

func TestAVersionIsTakenApart(t *testing.T) {
	c := parseOne(t, valid)
	of, hash, err := registry.ParseVersion(registry.Version(commit, c))
	require.NoError(t, err)
	require.Equal(t, commit, of)
	require.Equal(t, c.Hash(), hash)
	for _, wrong := range []string{
		"", "#", commit, commit + "#", "#" + hash, commit + "#" + hash + "#" + hash, commit + "#" + hash + "\n",
		commit[:12] + "#" + hash, commit + "#" + hash[:7], "--upload-pack=x#" + hash, "main#" + hash,
	} {
		_, _, err := registry.ParseVersion(wrong)
		require.Error(t, err, "%q", wrong)
	}
}
