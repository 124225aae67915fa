// Package config reads fairway.yaml, the one file that says how Fairway is set up.
package config

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fairway-project/fairway/calendar"
	"github.com/fairway-project/fairway/e2e"
	"github.com/fairway-project/fairway/promotion"
	"github.com/fairway-project/fairway/strictyaml"
)

// DefaultTaskQueue is the Temporal task queue where nothing else is configured.
const DefaultTaskQueue = "fairway"

// Config is the whole of fairway.yaml. Temporal's address, namespace and credentials are not in
// it: they come from the standard TEMPORAL_* variables or Temporal's own configuration file.
type Config struct {
	// TaskQueue is where the worker and the command line meet; default "fairway".
	TaskQueue  string     `yaml:"task_queue"`
	Registry   Registry   `yaml:"registry"`
	Repository Repository `yaml:"repository"`
	Forge      Forge      `yaml:"forge"`
	Kubernetes Kubernetes `yaml:"kubernetes"`
	AWS        AWS        `yaml:"aws"`
	Replace    Replace    `yaml:"replace"`
	Roll       Roll       `yaml:"roll"`
	Drain      Drain      `yaml:"drain"`
	Limits     Limits     `yaml:"limits"`
	Update     Update     `yaml:"update"`
	Rollout    Rollout    `yaml:"rollout"`
	// Pipeline is which promotions there are; default none.
	Pipeline promotion.Pipeline `yaml:"pipeline"`
	// E2E is how pull requests are tested; default not at all.
	E2E    e2e.Settings `yaml:"e2e"`
	Notify Notify       `yaml:"notify"`
	Worker Worker       `yaml:"worker"`
}

// Kubernetes says how the API servers of clusters are reached.
type Kubernetes struct {
	// Access is where credentials come from: "kubeconfig" (default), "token" or "eks".
	Access string `yaml:"access" validate:"oneof=kubeconfig token eks"`
	// Kubeconfig holds a context for each cluster, named like the cluster's id. Relative paths
	// start at fairway.yaml; default is the environment variable KUBECONFIG.
	Kubeconfig string `yaml:"kubeconfig" validate:"required_if=Access kubeconfig"`
	// TokenFile is the file of a bearer token for the registry's api_server_url, with {cluster} for
	// the cluster's id; read again when it changes. Only for access token.
	TokenFile string `yaml:"token_file" validate:"required_if=Access token"`
	// CAFile is the file of the authorities of API servers, with {cluster} for the cluster's id.
	// Default: those of the system; with access eks, what EKS says of the cluster.
	CAFile string `yaml:"ca_file"`
	// PoolLabel is the label of nodes that names their pool; default "node.kubernetes.io/node-pool".
	PoolLabel string `yaml:"pool_label"`
	// QPS and Burst limit the requests to one API server, all activities of a worker together;
	// defaults are 200 a second and 400.
	QPS   float32 `yaml:"qps" validate:"gt=0"`
	Burst int     `yaml:"burst" validate:"gt=0"`
}

// AWS says how AWS is reached. Credentials come the way the AWS SDKs standardise: environment,
// shared files, web identity or instance role.
type AWS struct {
	// AssumeRole is the role to take on in a cluster's account, with {account} for its number,
	// such as arn:aws:iam::{account}:role/fairway. Default: none.
	AssumeRole string `yaml:"assume_role"`
	// ClusterTag marks the Auto Scaling groups of a cluster, with {cluster} for its id; its value
	// is "owned". Default "kubernetes.io/cluster/{cluster}".
	ClusterTag string `yaml:"cluster_tag"`
	// PoolTag is the tag of an Auto Scaling group that names its pool; default "node.kubernetes.io/node-pool".
	PoolTag string `yaml:"pool_tag"`
	// Bucket holds templates above 51,200 bytes and the registry entries that versions were made from,
	// with {account} and {region}; it is made where it is missing. Default "fairway-{account}-{region}".
	Bucket string `yaml:"bucket"`
	// StackRole is the role that CloudFormation takes on to change stacks, with {account} for the
	// account's number. Default: none, so that the worker itself may do all that templates do.
	StackRole string `yaml:"stack_role"`
	// NetworkTag is the tag key=value of the subnets that clusters of an account use; the values
	// vpc_id, vpc_ipv4_cidr, availability_zones and subnets of templates come from them. Default: those of
	// the account's default VPC.
	NetworkTag string `yaml:"network_tag"`
	// PollInterval is the time between two looks at a group that changes; default 5 s.
	PollInterval time.Duration `yaml:"poll_interval" validate:"gte=0"`
	// QPS and Burst limit the requests to AWS in one account and region, all clusters of a worker
	// together; default 20 and 40.
	QPS   float32 `yaml:"qps" validate:"gt=0"`
	Burst int     `yaml:"burst" validate:"gt=0"`
}

// check refuses tags that do not tell one cluster or pool from another: what carries a cluster's tag is
// deleted with it.
func (a AWS) check(report func(field, format string, args ...any)) {
	if !strings.Contains(a.ClusterTag, "{cluster}") {
		report("aws.cluster_tag", "is %q; must contain {cluster}, since what carries the tag is deleted with the cluster", a.ClusterTag)
	}
	if a.PoolTag == "" {
		report("aws.pool_tag", "is empty; must be the tag that names a pool")
	}
}

// Replace holds the times for replacing a node.
type Replace struct {
	// NodeReadyWithin is how long a new instance may take to become a usable node; default 15 m.
	NodeReadyWithin time.Duration `yaml:"node_ready_within" validate:"gte=0"`
	// Settle is how long a new node has to be Ready, with its DaemonSets running, before it
	// counts; default 30 s.
	Settle time.Duration `yaml:"settle" validate:"gte=0"`
}

// Worker configures the worker process.
type Worker struct {
	// Listen is the address of /metrics, /healthz and /readyz; default 127.0.0.1:9464.
	Listen string `yaml:"listen" validate:"hostname_port"`
	// StopWithin is how long a stopping worker lets its activities finish or hand over; default 30 s.
	StopWithin time.Duration `yaml:"stop_within" validate:"gte=0"`
	Log        Log           `yaml:"log"`
	Webhook    Webhook       `yaml:"webhook"`
	// Deployment is the name of the Temporal worker deployment; default "fairway".
	Deployment string `yaml:"deployment"`
	// Promote makes a starting worker's version the current one of its deployment. Leave it out
	// where something else rolls versions out, such as Temporal's worker controller. Default false.
	Promote bool `yaml:"promote"`
}

// Log configures logging to standard error.
type Log struct {
	// Format is "json" (default) or "console".
	Format string `yaml:"format" validate:"oneof=json console"`
	// Level is "debug", "info" (default), "warn" or "error".
	Level string `yaml:"level" validate:"oneof=debug info warn error"`
}

// Load reads the file at path, or at the environment variable FAIRWAY_CONFIG if path is empty.
// The error names everything that is wrong, with file, line and field.
func Load(path string) (Config, error) {
	if path == "" {
		path = os.Getenv("FAIRWAY_CONFIG")
	}
	if path == "" {
		return Config{}, errors.New("no configuration: name the file with --config or the environment variable FAIRWAY_CONFIG")
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("reading the configuration: %w", err)
	}
	return Parse(path, data)
}

// Parse reads the content of a fairway.yaml; path stands for it in errors, and relative paths in
// it start there.
func Parse(path string, data []byte) (Config, error) {
	c := defaults()
	if err := strictyaml.Decode(path, data, &c); err != nil {
		return Config{}, err
	}
	base := filepath.Dir(path)
	files := []*string{&c.Registry.File, &c.Registry.StatusFile, &c.Registry.TokenFile, &c.Repository.Mirror, &c.Repository.TokenFile, &c.Kubernetes.Kubeconfig, &c.Kubernetes.TokenFile, &c.Kubernetes.CAFile, &c.Notify.URLFile, &c.Notify.SecretFile, &c.Worker.Webhook.SecretFile}
	for _, conduct := range append(slices.Collect(maps.Values(c.Update.Environments)), c.Update.Conduct) {
		if conduct.Alerts != nil {
			files = append(files, &conduct.Alerts.TokenFile)
		}
	}
	files = append(files, c.promotionFiles()...)
	for _, file := range files {
		if *file != "" && !filepath.IsAbs(*file) {
			*file = filepath.Join(base, *file)
		}
	}
	c.Notify.startAt(base)
	return c, nil
}

func defaults() Config {
	return Config{
		TaskQueue: DefaultTaskQueue,
		Registry:  Registry{Timeout: 10 * time.Second},
		Kubernetes: Kubernetes{
			Access:     "kubeconfig",
			Kubeconfig: os.Getenv("KUBECONFIG"),
			PoolLabel:  "node.kubernetes.io/node-pool",
			QPS:        200,
			Burst:      400,
		},
		AWS: AWS{
			ClusterTag:   "kubernetes.io/cluster/{cluster}",
			PoolTag:      "node.kubernetes.io/node-pool",
			Bucket:       "fairway-{account}-{region}",
			PollInterval: 5 * time.Second,
			QPS:          20,
			Burst:        40,
		},
		Replace: Replace{
			NodeReadyWithin: 15 * time.Minute,
			Settle:          30 * time.Second,
		},
		Drain: Drain{Gentleness: Gentleness{
			ImplicitBudgetPercent: new(25), JobsWithin: new(time.Hour), Unmanaged: new(hold), LocalData: new(evict),
			ForceAfter: new(72 * time.Hour), WarnBefore: new(12 * time.Hour), ForceInterval: new(5 * time.Minute),
			SiblingsReady: new(time.Hour), Deadline: new(96 * time.Hour), OnBlock: new("cordoned"), DetachWithin: new(5 * time.Minute),
		}},
		Roll: Roll{Pace: Pace{
			Surge: new("10%"), SpotSurge: new("0"), Unavailable: new("1"), Parallel: new(5), Validate: new(time.Minute), BadReplacements: new(3),
			QuarantineAfter: new(time.Hour), QuarantineLimit: new(3), MaxNodeAge: new(time.Duration(0)),
			Fallbacks:     &[]string{"instance-type", "zone", "smaller-surge"},
			ShortageAfter: new(5 * time.Minute),
		}},
		Limits:     Limits{Fleet: 50, Account: 10, Region: 25},
		Repository: Repository{Timeout: time.Minute, Path: "cluster"},
		Forge:      Forge{Timeout: 30 * time.Second},
		Pipeline:   promotion.Pipeline{Every: time.Minute, Author: "Fairway <fairway@localhost>", BreakingLabels: []string{"breaking", "major", "architectural"}},
		Update: Update{
			Conduct: Conduct{
				ParallelPools: new(2), HealthyWithin: new(15 * time.Minute), Rollback: new(false), Prune: new(false), ManifestsAnytime: new(false),
				Windows: &[]calendar.Window{}, SystemNamespaces: &[]string{"kube-system"}, RetryAfter: new(5 * time.Minute), RetryAtMost: new(2 * time.Hour),
			},
			Limits:    ClusterLimits{Fleet: 10, Account: 5, Region: 5},
			SyncEvery: time.Minute, HealthEvery: time.Minute,
		},
		Rollout: Rollout{Waves: Waves{CanaryLevel: new(-1), Groups: &[]string{"10%", "30%", "100%"}, Bake: new(10 * time.Minute), MaxFailed: new(0), Health: new(true)}},
		E2E:     e2e.Defaults(),
		Notify:  Notify{Timeout: 10 * time.Second},
		Worker: Worker{
			Listen:     "127.0.0.1:9464",
			StopWithin: 30 * time.Second,
			Log:        Log{Format: "json", Level: "info"},
			Deployment: "fairway",
		},
	}
}
