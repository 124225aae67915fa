package lab

import (
	"fmt"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/fairway-project/fairway/e2e"
	"github.com/fairway-project/fairway/registry"
)

// ConformanceSuite is the suite of those conformance cases of upstream that need no container to run and
// pass on a cluster of the lab: see docs/lab.md for what is left out and why.
func (l *Lab) ConformanceSuite() e2e.Suite {
	return e2e.Suite{
		Name: "conformance", Within: 10 * time.Minute, Retries: 1,
		Kubernetes: &e2e.KubernetesSuite{
			// The lab has one version of Kubernetes, so there is no {version} to choose by.
			Binary: l.bin("e2e.test"), Ginkgo: l.bin("ginkgo"), Processes: conformanceProcesses,
			Focus: conformanceFocus, Skip: strings.Join(conformanceSkips, "|"), Arguments: conformanceArguments,
		},
	}
}

const (
	conformanceProcesses = 16
	conformanceFocus     = `(\[sig-(api-machinery|apps|auth|architecture|instrumentation|network|scheduling)\]|` +
		`\[sig-node\] (ConfigMap should (run|fail)|Lease|PodTemplates|Pods should (delete|patch|run)|RuntimeClass|Secrets should (fail|patch))).*\[Conformance\]`
)

var (
	conformanceSkips = []string{
		`\[Serial\]|\[Slow\]`,
		// A container would have to answer...
		`ebhook|Aggregator|FieldSelectors|sig-network\] (DNS|HostPort|Networking|Proxy)|Services should (be able|have session|serve)|specified in multiple|serve a basic image`,
		// ...to print something...
		`OIDC|should mount|into pods|projected`,
		// ...to end, or to fail.
		`sig-apps\] (Job|StatefulSet)|proportional`,
		// These take more than a minute.
		`CronJob should (replace|schedule)|Definition Watch|resourcequota status`,
		// These have not been tried.
		`best effort|terminating scopes`,
	}
	conformanceArguments = []string{
		"-provider=skeleton",
		"-allowed-not-ready-nodes=-1", // control planes have a taint, and are counted
	}
)

// testSettings is the `e2e` part of Fairway's configuration: clusters like those of the sample fleet, but
// with as few nodes as its applications fit on, in its account.
func (l *Lab) testSettings() (string, error) {
	settings := map[string]any{
		"every":    "5s",
		"within":   "20m",
		"accounts": []e2e.Account{{Account: "aws:" + awsAccount, Region: awsRegion, Limit: 2}},
		"cluster": map[string]any{
			// Only a name: the lab's kubeconfig has a context for every cluster, and it leads to where the
			// API server really listens.
			"api_server_url": "https://{cluster}.e2e.internal", "environment": "test", "owner": "team/platform", "provider": "zalando-aws",
			"config_items": map[string]string{
				// legacy-license-server never lets go by itself.
				"fairway.drain.force_after": "20s", "fairway.drain.warn_before": "5s", "fairway.drain.force_interval": "5s",
				"fairway.drain.siblings_ready": "5s", "fairway.drain.deadline": "1m",
			},
			"node_pools": []registry.NodePool{
				testPool("master", "master-default", 1, "m5.large"),
				testPool("worker", "worker-default", 3, "m5.large", "m5a.large"),
				testPool("worker-data", "worker-data", 1, "m5.large", "m5a.large"),
			},
			"tags": map[string]string{"team": "platform"},
		},
		"workload": map[string]any{"image": "registry.fairway.test/unnoticing:1", "storage_class": "zonal", "ready_within": "2m"},
		"suites":   []e2e.Suite{{Name: "smoke", Within: 2 * time.Minute, Smoke: &e2e.SmokeSuite{}}, l.ConformanceSuite()},
		"prices": map[string]any{
			"hour": map[string]float64{"m5.large": 0.115, "m5a.large": 0.104}, "control_plane": 0.1,
		},
		"ui":    l.TemporalUIURL() + "/namespaces/" + TemporalNamespace,
		"sweep": map[string]any{"every": "30s"},
	}
	data, err := yaml.MarshalWithOptions(map[string]any{"e2e": settings}, yaml.IndentSequence(true), yaml.OmitEmpty())
	if err != nil {
		return "", fmt.Errorf("the part e2e: %w", err)
	}
	return string(data), nil
}

func testPool(name, profile string, size int, types ...string) registry.NodePool {
	return registry.NodePool{
		Name: name, Profile: profile, InstanceTypes: types, MinSize: size, MaxSize: size + 1, DiscountStrategy: "none",
	}
}
