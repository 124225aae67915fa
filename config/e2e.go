package config

import (
	"fmt"
	"slices"
	"strings"
)

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
	for i, suite := range c.E2E.Suites {
		for j, channel := range suite.Channels {
			if len(c.Pipeline.Channels) > 0 && !slices.Contains(c.Pipeline.Channels, channel) {
				report(fmt.Sprintf("e2e.suites[%d].channels[%d]", i, j), "is %.120q, which is no channel of the pipeline; there are %s", channel, strings.Join(c.Pipeline.Channels, ", "))
			}
		}
	}
	if !c.Forge.Configured() {
		report("e2e", "tests pull requests, which needs a forge; set forge.kind")
	}
}
