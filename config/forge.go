package config

import (
	"fmt"
	"net/url"
	"os"
	"strings"

	"github.com/fairway-project/fairway/forge"
)

// Open returns the driver for the forge of a repository, nil without a kind. It asks the forge for nothing.
func (f Forge) Open(repository Repository) (forge.Driver, error) {
	if f.Kind == "" {
		return nil, nil
	}
	owner, name, err := f.repository(repository)
	if err != nil {
		return nil, err
	}
	settings := forge.Settings{Kind: f.Kind, URL: f.URL, Owner: owner, Repository: name, Timeout: f.Timeout}
	switch {
	case f.App != nil:
		settings.App = &forge.App{ID: f.App.ID, Installation: f.App.Installation, Key: func() ([]byte, error) { return os.ReadFile(f.App.KeyFile) }}
	case f.TokenEnv != "" || f.TokenFile != "":
		settings.Token = f.token
	}
	driver, err := forge.New(settings)
	if err != nil {
		return nil, fmt.Errorf("forge: %w", err)
	}
	return driver, nil
}

// repository returns owner and name of the repository on the forge.
func (f Forge) repository(of Repository) (owner, name string, err error) {
	if f.Repository != "" {
		owner, name, _ = strings.Cut(f.Repository, "/")
		if owner == "" || name == "" || strings.Contains(name, "/") {
			return "", "", fmt.Errorf("forge.repository: %q has to be owner/name", f.Repository)
		}
		return owner, name, nil
	}
	path := of.URL
	if address, err := url.Parse(of.URL); err == nil && address.Host != "" {
		path = address.Path
	} else if host, after, found := strings.Cut(of.URL, ":"); found && !strings.Contains(host, "/") {
		path = after // git@example.org:owner/name.git
	}
	parts := strings.Split(strings.Trim(strings.TrimSuffix(strings.TrimRight(path, "/"), ".git"), "/"), "/")
	if len(parts) < 2 {
		return "", "", fmt.Errorf("forge.repository: write owner/name, since the path of repository.url does not tell")
	}
	return parts[len(parts)-2], parts[len(parts)-1], nil
}

// token is read whenever it is used, so that it can be changed.
func (f Forge) token() (string, error) {
	token, where := os.Getenv(f.TokenEnv), "forge.token_env: the environment variable "+f.TokenEnv
	if f.TokenFile != "" {
		content, err := os.ReadFile(f.TokenFile)
		if err != nil {
			return "", fmt.Errorf("forge.token_file: %w", err)
		}
		token, where = string(content), "forge.token_file: "+f.TokenFile
	}
	token = strings.TrimSpace(token)
	if token == "" || strings.ContainsFunc(token, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return "", fmt.Errorf("%s holds no token", where)
	}
	return token, nil
}
