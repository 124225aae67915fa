// Package e2e holds the rules of tests on throw-away clusters: which pull requests are tested, in what
// order, what a test consists of and how its result reads. It is pure.
package e2e

import (
	"slices"
	"strings"
	"time"

	"github.com/fairway-project/fairway/registry"
)

// Settings are the `e2e` part of fairway.yaml. Without accounts nothing is tested.
type Settings struct {
	// Label of pull requests that are to be tested; default "ready-to-test".
	Label string `yaml:"label"`
	// HotfixLabel puts a pull request before the others, as does a base that other channels are promoted to;
	// default "hotfix".
	HotfixLabel string `yaml:"hotfix_label"`
	// Status is the context of the commit status that a test sets, with {channel} for the base; default "fairway/e2e".
	Status string `yaml:"status"`
	// Every is the time between two looks at the pull requests; default 1 m.
	Every time.Duration `yaml:"every" validate:"gte=0"`
	// Accounts are where test clusters are made, the preferred one first.
	Accounts []Account `yaml:"accounts" validate:"dive"`
	Cluster  Shape     `yaml:"cluster"`
	// Within bounds a test from its cluster's first stack to the last suite; then it has failed. Default 6 h.
	Within time.Duration `yaml:"within" validate:"gte=0"`
	// KeepFailed is for how long the cluster of a failed test is kept; default 0.
	KeepFailed time.Duration `yaml:"keep_failed" validate:"gte=0"`
	// KeepAtMost bounds for how long in all people can have a cluster kept; default 24 h.
	KeepAtMost time.Duration `yaml:"keep_at_most" validate:"gte=0"`
	Workload   Workload      `yaml:"workload"`
	Load       Load          `yaml:"load"`
	Suites     []Suite       `yaml:"suites" validate:"dive"`
	// ParallelSuites is how many suites run at a time on one cluster; default 3.
	ParallelSuites int    `yaml:"parallel_suites" validate:"gte=0"`
	Prices         Prices `yaml:"prices"`
	// UI is the address of the Temporal UI with namespace, such as
	// https://temporal.example.org/namespaces/default, for links; default none.
	UI    string `yaml:"ui" validate:"omitempty,http_url"`
	Sweep Sweep  `yaml:"sweep"`
}

// Account is where test clusters are made. No real cluster belongs there.
type Account struct {
	// Account is as in the registry, such as aws:123456789012.
	Account string `yaml:"account" json:"account" validate:"required"`
	Region  string `yaml:"region" json:"region" validate:"required"`
	// Limit is how many test clusters there may be at a time; default 2.
	Limit int `yaml:"limit" json:"limit" validate:"gte=0"`
}

// Shape is what test clusters are like: the registry entry that they would have.
type Shape struct {
	// APIServerURL is where the API server answers, with {cluster} for the cluster's id.
	APIServerURL string `yaml:"api_server_url"`
	// Environment selects settings such as the time after which pods are forced; default "test".
	Environment string              `yaml:"environment"`
	Owner       string              `yaml:"owner"`
	Provider    string              `yaml:"provider"`
	ConfigItems map[string]string   `yaml:"config_items"`
	NodePools   []registry.NodePool `yaml:"node_pools" validate:"dive"`
	// Tags are written on everything made, besides the lease's; such as a cost centre.
	Tags map[string]string `yaml:"tags"`
}

// Workload is what runs on the cluster during the upgrade and must not notice it.
type Workload struct {
	// Namespace for it; default "fairway-e2e". An empty image means that none is started.
	Namespace string `yaml:"namespace"`
	// Image of an HTTP server that listens on $PORT or Port.
	Image    string `yaml:"image"`
	Port     int    `yaml:"port" validate:"gte=0,lte=65535"` // default 8080
	Replicas int    `yaml:"replicas" validate:"gte=0"`       // of the Deployment and of the StatefulSet; default 3
	// StorageClass of the StatefulSet's volumes; empty means the cluster's default.
	StorageClass string `yaml:"storage_class"`
	Storage      string `yaml:"storage"` // size of each volume; default 1Gi
	// ReadyWithin is how long it may take to be ready; default 10 m.
	ReadyWithin time.Duration `yaml:"ready_within" validate:"gte=0"`
}

// Load is the load that must not notice the upgrade.
type Load struct {
	// URLs are asked in turn, with {cluster} for the cluster's id; none means no load. An answer of 2xx or
	// 3xx is a good one.
	URLs []string `yaml:"urls" validate:"dive,required"`
	// Rate is requests a second in all; default 50.
	Rate int `yaml:"rate" validate:"gte=0"`
	// Timeout of one request; default 5 s.
	Timeout time.Duration `yaml:"timeout" validate:"gte=0"`
	// AnswersWithin is how long the first good answer may take; default 15 m.
	AnswersWithin time.Duration `yaml:"answers_within" validate:"gte=0"`
	// ErrorRatio is how many of all requests may fail; default 0.00001.
	ErrorRatio float64 `yaml:"error_ratio" validate:"gte=0,lte=1"`
	// AtLeast is how many good answers a test needs; default 1000.
	AtLeast int `yaml:"at_least" validate:"gte=0"`
}

// Suite is a test suite: exactly one of Command, Job, Kubernetes, StatefulSet and Smoke.
type Suite struct {
	Name string `yaml:"name" json:"name" validate:"required"`
	// Command is run by the worker without a shell, in an empty folder, with KUBECONFIG, FAIRWAY_CLUSTER,
	// FAIRWAY_VERSION (of Kubernetes), FAIRWAY_REPORTS (a folder for JUnit files) and what Env names. {cluster}, {version} and
	// {reports} in it are filled in. An exit status above 0 is a failure.
	Command []string `yaml:"command" json:"command,omitempty"`
	// Env are names of environment variables of the worker that the command gets; besides PATH and HOME it gets no others.
	Env         []string          `yaml:"env" json:"env,omitempty"`
	Job         *JobSuite         `yaml:"job" json:"job,omitempty"`
	Kubernetes  *KubernetesSuite  `yaml:"kubernetes" json:"kubernetes,omitempty"`
	StatefulSet *StatefulSetSuite `yaml:"stateful_set" json:"stateful_set,omitempty"`
	Smoke       *SmokeSuite       `yaml:"smoke" json:"smoke,omitempty"`
	// Within bounds one attempt; default 1 h.
	Within time.Duration `yaml:"within" json:"within,omitempty" validate:"gte=0"`
	// Retries is how often cases that failed are tried once more; where a suite cannot repeat single cases,
	// all of it is. A case that passes then is flaky and counts as passed. Default 0.
	Retries int `yaml:"retries" json:"retries,omitempty" validate:"gte=0,lte=10"`
	// Channels are the bases of the pull requests that the suite is run for; none means all.
	Channels []string `yaml:"channels" json:"channels,omitempty"`
	// Optional suites are reported and fail nothing.
	Optional bool `yaml:"optional" json:"optional,omitempty"`
}

// JobSuite runs a Kubernetes Job.
type JobSuite struct {
	// File of the configuration repository at the head, with one Job; {cluster} and {version} are filled in.
	File string `yaml:"file" json:"file" validate:"required"`
	// JUnit says where the report is: "log" (of the first container) or "" for none.
	JUnit string `yaml:"junit" json:"junit,omitempty" validate:"omitempty,oneof=log"`
}

// KubernetesSuite runs upstream Kubernetes' e2e.test.
type KubernetesSuite struct {
	// Binary is the path of e2e.test, with {version} for the cluster's, such as v1.36.3.
	Binary string `yaml:"binary" json:"binary" validate:"required"`
	// Ginkgo is the path of the ginkgo command of the same release; without it cases run one after another.
	Ginkgo    string   `yaml:"ginkgo" json:"ginkgo,omitempty"`
	Processes int      `yaml:"processes" json:"processes,omitempty" validate:"gte=0"` // default 10
	Focus     string   `yaml:"focus" json:"focus,omitempty"`                          // regular expression; default \[Conformance\]
	Skip      string   `yaml:"skip" json:"skip,omitempty"`                            // default \[Serial\]|\[Disruptive\]
	Arguments []string `yaml:"arguments" json:"arguments,omitempty"`                  // more of e2e.test
}

// StatefulSetSuite updates the workload's StatefulSet and looks after its volumes.
type StatefulSetSuite struct{}

// SmokeSuite looks whether everything that runs is as it should be.
type SmokeSuite struct {
	// Namespaces whose Deployments, StatefulSets and DaemonSets have to be ready; none means all.
	Namespaces []string `yaml:"namespaces" json:"namespaces,omitempty"`
	// URLs that have to answer with 2xx or 3xx, with {cluster} for the cluster's id.
	URLs []string `yaml:"urls" json:"urls,omitempty"`
}

// Prices are for the estimate of what a test has cost.
type Prices struct {
	Currency string `yaml:"currency"` // default USD
	// Hour is the price of an hour of an instance type.
	Hour map[string]float64 `yaml:"hour"`
	// ControlPlane is the price of an hour of a cluster without its nodes.
	ControlPlane float64 `yaml:"control_plane" validate:"gte=0"`
}

// Sweep says how what nobody owns any more is removed.
type Sweep struct {
	// Every is the time between two sweeps; default 10 m. 0 means never by itself.
	Every time.Duration `yaml:"every" validate:"gte=0"`
	// AtMost is how many things a sweep removes by itself; above that it asks. Default 20.
	AtMost int `yaml:"at_most" validate:"gte=0"`
	// Grace is for how long a lease, or a thing without one, counts as somebody's although nothing says so:
	// the workflow may be about to start, the lease about to be written. Default 10 m.
	Grace time.Duration `yaml:"grace" validate:"gte=0"`
	// HostedZones are ids of Route 53 zones whose records are looked at: those with {cluster} ids in their names.
	HostedZones []string `yaml:"hosted_zones"`
}

// Defaults are the settings where nothing else is configured.
func Defaults() Settings {
	return Settings{
		Label: "ready-to-test", HotfixLabel: "hotfix", Status: "fairway/e2e", Every: time.Minute, Within: 6 * time.Hour, KeepAtMost: 24 * time.Hour,
		Cluster:  Shape{Environment: "test"},
		Workload: Workload{Namespace: "fairway-e2e", Port: 8080, Replicas: 3, Storage: "1Gi", ReadyWithin: 10 * time.Minute},
		Load:     Load{Rate: 50, Timeout: 5 * time.Second, AnswersWithin: 15 * time.Minute, ErrorRatio: 0.00001, AtLeast: 1000},

		ParallelSuites: 3, Prices: Prices{Currency: "USD"}, Sweep: Sweep{Every: 10 * time.Minute, AtMost: 20, Grace: 10 * time.Minute},
	}
}

// StatusOf is the context of the status that tests of pull requests into a channel set.
func (s Settings) StatusOf(channel string) string {
	return strings.ReplaceAll(s.Status, "{channel}", channel)
}

// ConfiguredAccount is the account as it is configured; false if it is none of e2e.accounts.
func (s Settings) ConfiguredAccount(of Account) (Account, bool) {
	at := slices.IndexFunc(s.Accounts, func(a Account) bool { return where(a) == where(of) })
	if at < 0 {
		return Account{}, false
	}
	return s.Accounts[at], true
}
