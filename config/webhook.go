package config

// Webhook lets the forge say that something was pushed, so that clusters follow at once.
type Webhook struct {
	// Listen is an address such as 127.0.0.1:9465; without one there is no webhook.
	Listen string `yaml:"listen" validate:"omitempty,hostname_port"`
	// SecretEnv is the environment variable, and SecretFile the file, that holds the key of the
	// HMAC-SHA256 with which the forge signs; at least 16 characters. Relative paths start at fairway.yaml.
	SecretEnv  string `yaml:"secret_env" validate:"excluded_with=SecretFile"`
	SecretFile string `yaml:"secret_file"`
}

func (c *Config) checkWebhook(report func(field, format string, args ...any)) {
	if w := c.Worker.Webhook; w.Listen != "" && w.SecretEnv == "" && w.SecretFile == "" {
		report("worker.webhook", "has no secret_env or secret_file; anybody could start a sync without")
	} else if w.Listen != "" && c.Repository.URL == "" {
		report("worker.webhook", "has nothing to start: no cluster follows a channel without repository.url")
	}
}
