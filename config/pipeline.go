package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/fairway-project/fairway/promotion"
)

// Forge is where the pull requests of the configuration repository are.
type Forge struct {
	// Kind is "github" or "gitea"; without one there are no promotions by pull request, and no statuses.
	Kind string `yaml:"kind" validate:"omitempty,oneof=github gitea"`
	// URL is the address of the forge such as https://git.example.org; default for GitHub is
	// https://github.com. Other addresses with kind github are of GitHub Enterprise.
	URL string `yaml:"url" validate:"required_if=Kind gitea"`
	// Repository is owner/name; default is the path of repository.url.
	Repository string `yaml:"repository"`
	// TokenEnv (an environment variable) or TokenFile hold a token; App is a GitHub App instead.
	TokenEnv  string `yaml:"token_env" validate:"excluded_with=TokenFile"`
	TokenFile string `yaml:"token_file"`
	App       *App   `yaml:"app"`
	// Timeout bounds one request; default 30 s.
	Timeout time.Duration `yaml:"timeout" validate:"gte=0"`
}

// App is a GitHub App.
type App struct {
	ID           int64 `yaml:"id" validate:"required"`
	Installation int64 `yaml:"installation" validate:"required"`
	// KeyFile is the file of the private key, as PEM. Relative paths start at fairway.yaml.
	KeyFile string `yaml:"key_file" validate:"required"`
}

// Configured says whether there is a forge.
func (f Forge) Configured() bool { return f.Kind != "" }

// Address is where the forge is, without a slash at its end.
func (f Forge) Address() string {
	if f.URL == "" && f.Kind == "github" {
		return "https://github.com"
	}
	return strings.TrimRight(f.URL, "/")
}

// ForgeRepository is owner/name of the configuration repository on its forge.
func (c Config) ForgeRepository() (owner, name string, err error) {
	text := c.Forge.Repository
	if text == "" {
		text = repositoryPath(c.Repository.URL)
		if forge, err := url.Parse(c.Forge.Address()); err == nil { // which may not be at the root of its host
			text = strings.TrimPrefix(text, strings.Trim(forge.Path, "/")+"/")
		}
	}
	parts := repositoryName.FindStringSubmatch(text)
	if parts == nil {
		return "", "", errors.New("must be owner/name of the repository")
	}
	return parts[1], parts[2], nil
}

var repositoryName = regexp.MustCompile(`^([A-Za-z0-9_][A-Za-z0-9._-]*)/([A-Za-z0-9._-]*[A-Za-z0-9_-])$`)

// repositoryPath is the path of an address of a repository, such as team/config.
func repositoryPath(address string) string {
	var found string
	if parsed, err := url.Parse(address); err == nil && parsed.Host != "" {
		found = parsed.Path
	} else if host, after, colon := strings.Cut(address, ":"); colon && !strings.Contains(host, "/") {
		found = after
	}
	return strings.TrimSuffix(strings.Trim(found, "/"), ".git")
}

// promotionFiles are the files that forge and gates name.
func (c *Config) promotionFiles() []*string {
	files := []*string{&c.Forge.TokenFile}
	if c.Forge.App != nil {
		files = append(files, &c.Forge.App.KeyFile)
	}
	for i := range c.Pipeline.Edges {
		for j := range c.Pipeline.Edges[i].Gates {
			gate := &c.Pipeline.Edges[i].Gates[j]
			if gate.Prometheus != nil {
				files = append(files, &gate.Prometheus.TokenFile)
			}
			if gate.HTTP != nil {
				files = append(files, &gate.HTTP.TokenFile)
			}
		}
	}
	return files
}

func (c *Config) checkPipeline(report func(field, format string, args ...any)) {
	c.Pipeline.Check(report)
	c.checkForge(report)
	if len(c.Pipeline.Edges) == 0 {
		return
	}
	if c.Repository.URL == "" {
		report("pipeline", "has nothing to promote: repository.url is missing")
	}
	if c.Forge.Configured() {
		return
	}
	for i, edge := range c.Pipeline.Edges {
		at := fmt.Sprintf("pipeline.edges[%d]", i)
		if edge.Mode == promotion.ByPullRequest {
			report(at+".mode", "is %q, which needs a forge; set forge.kind", edge.Mode)
		}
		if len(edge.PersonFor) > 0 {
			report(at+".person_for", "opens pull requests, which needs a forge; set forge.kind")
		}
		for j, gate := range edge.Gates {
			if gate.Status != "" {
				report(fmt.Sprintf("%s.gates[%d].status", at, j), "is kept by a forge; set forge.kind")
			}
		}
	}
}

func (c *Config) checkForge(report func(field, format string, args ...any)) {
	f := c.Forge
	if !f.Configured() {
		if f.URL != "" || f.Repository != "" || f.TokenEnv != "" || f.TokenFile != "" || f.App != nil {
			report("forge.kind", "is missing; must be github or gitea")
		}
		return
	}
	if f.URL != "" {
		if problem := badForge(f.URL); problem != "" {
			report("forge.url", "%s", problem)
		}
	}
	switch {
	case f.App != nil && f.Kind != "github":
		report("forge.app", "is for kind github; %s takes token_env or token_file", f.Kind)
	case f.App != nil && (f.TokenEnv != "" || f.TokenFile != ""):
		report("forge.app", "cannot be set together with a token; take token_env and token_file out, or app")
	case f.App == nil && f.TokenEnv == "" && f.TokenFile == "":
		report("forge", "has no credentials; name them by token_env, token_file or, on GitHub, app")
	}
	if c.Repository.URL == "" {
		report("forge", "has no repository: repository.url is missing")
	} else if _, _, err := c.ForgeRepository(); err != nil {
		if f.Repository != "" {
			report("forge.repository", "is %.120q; %v", f.Repository, err)
		} else {
			report("forge.repository", "cannot be told from repository.url; %v", err)
		}
	}
}

func isLocal(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// badForge says what is wrong with the address of a forge; it is not shown, since it may hold a secret.
func badForge(address string) string {
	parsed, err := url.Parse(address)
	switch {
	case err != nil || parsed.Hostname() == "" || parsed.Scheme != "http" && parsed.Scheme != "https" || parsed.RawQuery != "" || parsed.Fragment != "":
		return "must be an address such as https://git.example.org"
	case parsed.User != nil:
		return "has credentials in it; take them out and name them by token_env or token_file"
	case parsed.Scheme == "http" && !isLocal(parsed.Hostname()):
		return "has http, which is accepted for this machine only; use https"
	}
	return ""
}
