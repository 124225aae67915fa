package config

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/fairway-project/fairway/calendar"
	"github.com/fairway-project/fairway/channels"
	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/rollout"
)

// testUpdates are the defaults for the environment "test", whose clusters are there to fail.
var testUpdates = Conduct{RetryAfter: new(time.Minute), RetryAtMost: new(30 * time.Minute)}

// Open prepares the mirror of the repository; nil if no repository is configured. It asks nothing of
// the repository yet.
func (r Repository) Open(ctx context.Context) (*channels.Mirror, error) {
	if r.URL == "" {
		return nil, nil
	}
	mirror := &channels.Mirror{URL: r.URL, Dir: r.Mirror, Timeout: r.Timeout, User: r.User, TokenEnv: r.TokenEnv, TokenFile: r.TokenFile}
	return mirror, mirror.Check(ctx)
}

// UpdateSettings say how a cluster is updated. They are workflows.UpdateSettings, which a value of
// this type can be converted into.
type UpdateSettings struct {
	ParallelPools    int
	HealthyWithin    time.Duration
	Rollback         bool
	Prune            bool
	Windowed         bool
	ManifestsAnytime bool
	Limits           rollout.Limits
	RetryAfter       time.Duration
	RetryAtMost      time.Duration
}

// UpdateSettings are how a cluster is updated. A config item of the cluster wins over the
// environment, and that over the rest of the configuration.
func (c Config) UpdateSettings(cluster registry.Cluster) (UpdateSettings, error) {
	layers, err := c.conduct(cluster)
	if err != nil {
		return UpdateSettings{}, err
	}
	s := UpdateSettings{
		ParallelPools:    *first(layers, func(u Conduct) *int { return u.ParallelPools }),
		HealthyWithin:    *first(layers, func(u Conduct) *time.Duration { return u.HealthyWithin }),
		Rollback:         *first(layers, func(u Conduct) *bool { return u.Rollback }),
		Prune:            *first(layers, func(u Conduct) *bool { return u.Prune }),
		Windowed:         len(*first(layers, windows)) > 0 || len(c.Update.Freezes) > 0,
		ManifestsAnytime: *first(layers, func(u Conduct) *bool { return u.ManifestsAnytime }),
		Limits:           rollout.Limits(c.Update.Limits),
		RetryAfter:       *first(layers, retryAfter),
		RetryAtMost:      *first(layers, retryAtMost),
	}
	if s.RetryAtMost < s.RetryAfter {
		return s, fmt.Errorf("registry: cluster %s: fairway.update.retry_at_most is %s; must be at least retry_after, which is %s", cluster.ID, s.RetryAtMost, s.RetryAfter)
	}
	return s, nil
}

// Calendar says when a cluster may be disrupted.
func (c Config) Calendar(cluster registry.Cluster) (calendar.Calendar, error) {
	layers, err := c.conduct(cluster)
	if err != nil {
		return calendar.Calendar{}, err
	}
	return calendar.Calendar{Windows: *first(layers, windows), Freezes: c.Update.Freezes}, nil
}

// Health says what belongs to a healthy cluster.
type Health struct {
	SystemNamespaces []string
	// Alerts must not fire; nil means that none are asked for.
	Alerts *Alerts
	Prune  bool
}

// Health is what a cluster needs to be healthy.
func (c Config) Health(cluster registry.Cluster) (Health, error) {
	layers, err := c.conduct(cluster)
	if err != nil {
		return Health{}, err
	}
	return Health{
		SystemNamespaces: *first(layers, func(u Conduct) *[]string { return u.SystemNamespaces }),
		Alerts:           first(layers, func(u Conduct) *Alerts { return u.Alerts }),
		Prune:            *first(layers, func(u Conduct) *bool { return u.Prune }),
	}, nil
}

func windows(u Conduct) *[]calendar.Window { return u.Windows }
func retryAfter(u Conduct) *time.Duration  { return u.RetryAfter }
func retryAtMost(u Conduct) *time.Duration { return u.RetryAtMost }

// conduct lists what is said about updates of a cluster, what wins first.
func (c Config) conduct(cluster registry.Cluster) ([]Conduct, error) {
	const windowsItem = "fairway.update.windows" // not of the form of the others
	where := fmt.Sprintf("registry: cluster %s: config_items", cluster.ID)
	own := maps.Clone(cluster.ConfigItems)
	delete(own, windowsItem)
	var byCluster Conduct
	if err := item(own, "update", where, &byCluster); err != nil {
		return nil, err
	}
	if text, found := cluster.ConfigItems[windowsItem]; found {
		parsed, err := calendar.ParseWindows(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %s %w", where, windowsItem, err)
		}
		byCluster.Windows = &parsed
	}
	standard := Conduct{}
	if cluster.Environment == "test" {
		standard = testUpdates
	}
	return []Conduct{byCluster, c.Update.Environments[cluster.Environment], standard, c.Update.Conduct}, nil
}

func (c *Config) checkUpdate(report func(field, format string, args ...any)) {
	check := func(at, environment string, u Conduct) {
		if u.Windows != nil {
			calendar.Calendar{Windows: *u.Windows}.Check(func(field, format string, args ...any) { report(at+"."+field, format, args...) })
		}
		if u.SystemNamespaces != nil && slices.Contains(*u.SystemNamespaces, "") {
			report(at+".system_namespaces", "holds an empty name")
		}
		if u.Alerts != nil && u.Alerts.URL != "" {
			if problem := checkPrometheus(u.Alerts.URL); problem != "" {
				report(at+".alerts.url", "%s", problem)
			}
		}
		layers, _ := c.conduct(registry.Cluster{Environment: environment}) // only items can be wrong
		if after, atMost := *first(layers, retryAfter), *first(layers, retryAtMost); atMost < after {
			report(at+".retry_at_most", "is %s; must be at least retry_after, which is %s", atMost, after)
		}
	}
	check("update", "", c.Update.Conduct)
	for _, environment := range slices.Sorted(maps.Keys(c.Update.Environments)) {
		check("update.environments."+environment, environment, c.Update.Environments[environment])
	}
	calendar.Calendar{Freezes: c.Update.Freezes}.Check(func(field, format string, args ...any) { report("update."+field, format, args...) })
	c.Repository.check(report)
}

func (r Repository) check(report func(field, format string, args ...any)) {
	if folder := path.Clean(r.Path); !fs.ValidPath(folder) {
		report("repository.path", "is %q; must be a folder of the repository such as cluster", r.Path)
	}
	if r.URL == "" {
		return
	}
	if err := channels.CheckURL(r.URL); err != nil {
		report("repository.url", "%v", err)
	}
	if r.User != "" && r.TokenEnv == "" && r.TokenFile == "" {
		report("repository.user", "has no token; name one by token_env or token_file")
	}
}

func checkPrometheus(address string) string {
	parsed, err := url.Parse(strings.ReplaceAll(address, "{cluster}", "cluster"))
	switch {
	case err != nil || parsed.Host == "" || parsed.Scheme != "http" && parsed.Scheme != "https":
		return "must be the address of a Prometheus such as https://prometheus.{cluster}.example.org" // not shown, since it may hold a secret
	case parsed.User != nil:
		return "has credentials in it; take them out and name them by token_env or token_file"
	}
	return ""
}
