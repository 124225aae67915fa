package config

import (
	"time"

	"github.com/fairway-project/fairway/calendar"
)

// Repository is the git repository whose branches are channels.
type Repository struct {
	// URL is how git reaches it: https, ssh or an absolute path. Without one nothing follows a channel.
	URL string `yaml:"url"`
	// Mirror is the directory of the worker's own copy; default is below the user's cache directory.
	// Relative paths start at fairway.yaml.
	Mirror string `yaml:"mirror"`
	// User, and TokenEnv (an environment variable) or TokenFile, are credentials for https.
	User      string `yaml:"user"`
	TokenEnv  string `yaml:"token_env" validate:"excluded_with=TokenFile"`
	TokenFile string `yaml:"token_file"`
	// Timeout bounds one request to the repository; default 1 m.
	Timeout time.Duration `yaml:"timeout" validate:"gte=0"`
	// Path is the folder of the repository that holds the configuration of clusters; default "cluster".
	Path string `yaml:"path"`
}

// Update says how clusters are updated: by default, and by the environment of a cluster.
type Update struct {
	Conduct `yaml:",inline"`
	// Environments override single settings for the clusters of an environment.
	Environments map[string]Conduct `yaml:"environments" validate:"dive"`
	// Freezes are times in which no cluster is disrupted.
	Freezes []calendar.Freeze `yaml:"freezes" validate:"dive"`
	// Limits are numbers of clusters that are updated at a time; 0 means no limit.
	Limits ClusterLimits `yaml:"limits"`
	// SyncEvery is the time between two looks at the registry and the channels; default 1 m.
	SyncEvery time.Duration `yaml:"sync_every" validate:"gte=0"`
	// HealthEvery is the time between two looks at the health of clusters whose channel waits for it;
	// default 1 m.
	HealthEvery time.Duration `yaml:"health_every" validate:"gte=0"`
}

// Conduct holds the settings of an update. What an environment leaves out is as by default.
// Config items of a cluster such as fairway.update.rollback override them.
type Conduct struct {
	// ParallelPools is how many pools of workers are rolled at a time; default 2.
	ParallelPools *int `yaml:"parallel_pools" validate:"omitempty,gte=1"`
	// HealthyWithin is how long what was applied may take to become ready; default 15 m.
	HealthyWithin *time.Duration `yaml:"healthy_within" validate:"omitempty,gte=0"`
	// Rollback goes back to the last version when an update has failed; default false.
	Rollback *bool `yaml:"rollback"`
	// Prune deletes objects that Fairway has applied and that no manifest contains any more;
	// default false.
	Prune *bool `yaml:"prune"`
	// ManifestsAnytime applies manifests outside of windows and in freezes too; default false.
	ManifestsAnytime *bool `yaml:"manifests_anytime"`
	// Windows are when clusters may be disrupted; default: at any time. As a config item a text such as
	// "mon-fri 22:00-04:00 Europe/Berlin; sat,sun 00:00-24:00 Europe/Berlin", or "anytime".
	Windows *[]calendar.Window `yaml:"windows" validate:"omitempty,dive"`
	// SystemNamespaces are those whose workloads have to be ready for a cluster to be healthy;
	// default: kube-system.
	SystemNamespaces *[]string `yaml:"system_namespaces"`
	// RetryAfter is the time after a failed update until it is tried again; it doubles with each
	// attempt up to RetryAtMost. Defaults 5 m and 2 h, in the environment "test" 1 m and 30 m.
	RetryAfter  *time.Duration `yaml:"retry_after" validate:"omitempty,gte=0"`
	RetryAtMost *time.Duration `yaml:"retry_at_most" validate:"omitempty,gte=0"`
	// Alerts must not fire in a healthy cluster.
	Alerts *Alerts `yaml:"alerts"`
}

// Alerts asks a Prometheus.
type Alerts struct {
	// URL of the Prometheus, with {cluster} for the cluster's id.
	URL string `yaml:"url" validate:"required"`
	// Query is PromQL, with {cluster} for the cluster's id; each series of its result is a problem.
	// Default: ALERTS{alertstate="firing",severity="critical"}.
	Query string `yaml:"query"`
	// TokenEnv or TokenFile hold a bearer token.
	TokenEnv  string `yaml:"token_env" validate:"excluded_with=TokenFile"`
	TokenFile string `yaml:"token_file"`
}

// ClusterLimits are numbers of clusters that are updated at a time; 0 means no limit.
type ClusterLimits struct {
	Fleet   int `yaml:"fleet" validate:"gte=0"`   // default 10
	Account int `yaml:"account" validate:"gte=0"` // of an AWS account; default 5
	Region  int `yaml:"region" validate:"gte=0"`  // default 5
}

// Rollout says how the clusters of a channel follow its head: by default, and by channel.
type Rollout struct {
	Waves `yaml:",inline"`
	// Channels override single settings for a channel.
	Channels map[string]Waves `yaml:"channels" validate:"dive"`
}

// Waves holds the settings of a rollout. What a channel leaves out is as by default.
type Waves struct {
	// CanaryLevel lets clusters whose criticality_level is at most that go first, besides those with
	// the config item rollout_canary: "true". Default -1: none by their level. Where no cluster is a
	// canary, the least critical one is.
	CanaryLevel *int `yaml:"canary_level" validate:"omitempty,gte=-1,lte=100"`
	// Groups are the sizes of the groups after the canaries, each a number of clusters or a
	// percentage; the last one goes on for the rest. Default: "10%", "30%", "100%".
	Groups *[]string `yaml:"groups" validate:"omitempty,min=1"`
	// Bake is how long a group has to be on the new version before the next one may follow; default 10 m.
	Bake *time.Duration `yaml:"bake" validate:"omitempty,gte=0"`
	// MaxFailed is how many clusters may fail before no more follow; default 0: the first one stops
	// the rollout.
	MaxFailed *int `yaml:"max_failed" validate:"omitempty,gte=0"`
	// Health lets the next group follow only when all before it have been seen to be healthy after the
	// bake; default true.
	Health *bool `yaml:"health"`
}
