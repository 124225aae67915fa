package config

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/fairway-project/fairway/e2e"
	"github.com/fairway-project/fairway/registry"
)

// Registry says where the clusters are registered: in a file, or behind a URL.
type Registry struct {
	// File is the path of a registry file, relative to fairway.yaml.
	File string `yaml:"file" validate:"required_without=URL"`
	// StatusFile is where what is known of the clusters in File is kept. Default is beside it:
	// registry.status.yaml for registry.yaml.
	StatusFile string `yaml:"status_file"`
	// URL of a registry server, such as https://registry.example.org: that of `fairway registry serve`
	// or Zalando's.
	URL string `yaml:"url" validate:"omitempty,http_url"`
	// TokenEnv (an environment variable) or TokenFile hold the bearer token for URL. It is read with
	// each request, so that it can be changed.
	TokenEnv  string `yaml:"token_env"`
	TokenFile string `yaml:"token_file"`
	// Timeout bounds one request to URL; default 10 s.
	Timeout time.Duration `yaml:"timeout" validate:"gte=0"`
}

// check reports settings that contradict each other.
func (r Registry) check(report func(field, format string, args ...any)) {
	for _, pair := range []struct{ field, value, other, otherValue string }{
		{"url", r.URL, "file", r.File},
		{"token_env", r.TokenEnv, "file", r.File},
		{"token_file", r.TokenFile, "file", r.File},
		{"token_file", r.TokenFile, "token_env", r.TokenEnv},
		{"status_file", r.StatusFile, "url", r.URL},
	} {
		if pair.value != "" && pair.otherValue != "" {
			report("registry."+pair.field, "cannot be set together with registry.%s", pair.other)
		}
	}
	if _, err := registry.NewClient(r.URL, nil, 0); r.URL != "" && err != nil {
		report("registry.url", "%v", err)
	}
}

// opened are the registries of this process, by their settings. Each is opened once, since it keeps
// what it has read as long as that does not change.
var opened struct {
	sync.Mutex
	registries map[Registry]registry.Registry
}

// Open returns the registry; the same one for the same settings.
func (r Registry) Open() (registry.Registry, error) {
	opened.Lock()
	defer opened.Unlock()
	if known := opened.registries[r]; known != nil {
		return known, nil
	}
	var source registry.Registry = registry.OpenFile(r.File, r.StatusFile)
	if r.URL != "" {
		client, err := registry.NewClient(r.URL, r.token, r.Timeout)
		if err != nil {
			return nil, fmt.Errorf("registry.url: %w", err)
		}
		source = client
	}
	if opened.registries == nil {
		opened.registries = map[Registry]registry.Registry{}
	}
	opened.registries[r] = source
	return source, nil
}

// Clusters reads the registry that the configuration names.
func (r Registry) Clusters(ctx context.Context) (registry.Clusters, error) {
	source, err := r.Open()
	if err != nil {
		return nil, err
	}
	return source.Clusters(ctx)
}

// Clusters reads the registry. Where tests are configured it refuses one with a cluster that would be
// taken for one of theirs.
func (c Config) Clusters(ctx context.Context) (registry.Clusters, error) {
	all, err := c.Registry.Clusters(ctx)
	if err != nil || len(c.E2E.Accounts) == 0 {
		return all, err
	}
	for _, cluster := range all {
		for _, name := range []string{cluster.ID, cluster.Alias} {
			if strings.HasPrefix(name, e2e.Prefix) {
				return nil, fmt.Errorf("registry: cluster %s: %q begins with %s, as the ids of clusters of tests do; rename it, or take e2e.accounts out of fairway.yaml", cluster.ID, name, e2e.Prefix)
			}
		}
	}
	return all, nil
}

// WriteStatus writes what is known of a cluster to the registry; see registry.Registry.
func (r Registry) WriteStatus(ctx context.Context, id string, status registry.Status, lifecycle registry.LifecycleStatus) error {
	source, err := r.Open()
	if err != nil {
		return err
	}
	return source.WriteStatus(ctx, id, status, lifecycle)
}

func (r Registry) token() (string, error) {
	var token, where string
	switch {
	case r.TokenEnv != "":
		token, where = os.Getenv(r.TokenEnv), "registry.token_env: the environment variable "+r.TokenEnv
	case r.TokenFile != "":
		content, err := os.ReadFile(r.TokenFile)
		if err != nil {
			return "", fmt.Errorf("registry.token_file: %w", err)
		}
		token, where = string(content), "registry.token_file: "+r.TokenFile
	default:
		return "", nil
	}
	token = strings.TrimSpace(token)
	if token == "" {
		return "", fmt.Errorf("%s is empty", where)
	}
	if strings.ContainsFunc(token, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return "", fmt.Errorf("%s holds no token: there are characters in it that no token has", where)
	}
	return token, nil
}
