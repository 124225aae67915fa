package config

// checkTests looks at the tests of pull requests, and at what they need from other sections.
func (c *Config) checkTests(report func(field, format string, args ...any)) {
	c.E2E.Check(report)
	if !c.E2E.Configured() {
		return
	}
	if c.Repository.URL == "" {
		report("e2e", "has nothing to test: repository.url is missing")
	}
	if len(c.Pipeline.Channels) == 0 {
		report("e2e", "tests pull requests into channels, of which pipeline.channels has none")
	}
	if !c.Forge.Configured() {
		report("e2e", "tests pull requests, which needs a forge; set forge.kind")
	}
}
