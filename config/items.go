package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/strictyaml"
)

// items reads the config items of a pool and of its cluster that override a section, such as
// "fairway.drain.force_after: 24h", into structs of that section's fields.
func items(cluster registry.Cluster, pool, section string, ofPool, ofCluster any) error {
	if err := item(cluster.ConfigItems, section, fmt.Sprintf("registry: cluster %s: config_items", cluster.ID), ofCluster); err != nil {
		return err
	}
	found, _ := cluster.Pool(pool)
	return item(found.ConfigItems, section, fmt.Sprintf("registry: cluster %s: node pool %s: config_items", cluster.ID, pool), ofPool)
}

func item(all map[string]string, section, where string, out any) error {
	prefix := "fairway." + section + "."
	var document strings.Builder
	for _, key := range slices.Sorted(maps.Keys(all)) {
		if field, ours := strings.CutPrefix(key, prefix); ours {
			if strings.ContainsAny(field+all[key], "\n\r:{}#&*!|>'") {
				return fmt.Errorf("%s: %s is %q; must be a plain value", where, key, all[key])
			}
			fmt.Fprintf(&document, "%s: %s\n", field, all[key])
		}
	}
	if document.Len() == 0 {
		return nil
	}
	return strictyaml.Decode(where+": "+strings.TrimSuffix(prefix, "."), []byte(document.String()), out)
}
