package config

import "time"

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
