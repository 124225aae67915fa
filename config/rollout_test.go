package config_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/rollout"
)

func TestHowAChannelIsRolledOut(t *testing.T) {
	standard := rollout.Settings{CanaryLevel: -1, Groups: []rollout.Group{{Percent: 10}, {Percent: 30}, {Percent: 100}}, BakeSeconds: 600, Health: true}
	for rule, c := range map[string]struct {
		content string
		want    rollout.Settings
	}{
		"by default in tenths": {"", standard},
		"as configured": {
			`rollout: {canary_level: 1, groups: ["1", "5", "50%"], bake: 90s, max_failed: 2, health: false}`,
			rollout.Settings{CanaryLevel: 1, Groups: []rollout.Group{{Count: 1}, {Count: 5}, {Percent: 50}}, BakeSeconds: 90, MaxFailed: 2},
		},
		"a channel wins over the rest": {
			`rollout: {bake: 90s, max_failed: 2, channels: {dev: {bake: 0s, groups: ["100%"], health: false}, beta: {bake: 9h}}}`,
			rollout.Settings{CanaryLevel: -1, Groups: []rollout.Group{{Percent: 100}}, MaxFailed: 2},
		},
	} {
		t.Run(rule, func(t *testing.T) {
			parsed, err := config.Parse("fairway.yaml", []byte(minimal+c.content+"\n"))
			require.NoError(t, err)
			settings, err := parsed.Rollout.Settings("dev")
			require.NoError(t, err)
			require.Equal(t, c.want, settings)
		})
	}
}

func TestBadRolloutsAndWebhooksAreRefused(t *testing.T) {
	for content, want := range map[string]string{
		`rollout: {groups: ["ten"]}`:                                         `rollout.groups: holds "ten"; each must be a number of clusters`,
		`rollout: {groups: ["0"]}`:                                           `rollout.groups: holds "0"`,
		`rollout: {groups: []}`:                                              "rollout.groups",
		`rollout: {channels: {dev: {groups: ["101%"]}}}`:                     `rollout.channels.dev.groups: holds "101%"`,
		`rollout: {canary_level: -2}`:                                        "rollout.canary_level",
		`rollout: {max_failed: -1}`:                                          "rollout.max_failed",
		`worker: {webhook: {listen: "127.0.0.1:1"}}`:                         "worker.webhook: has no secret_env or secret_file",
		`worker: {webhook: {listen: everywhere, secret_env: X}}`:             "worker.webhook.listen",
		`worker: {webhook: {listen: ":1", secret_env: X, secret_file: "y"}}`: "worker.webhook.secret_env",
	} {
		_, err := config.Parse("fairway.yaml", []byte(minimal+content+"\n"))
		require.ErrorContains(t, err, want, content)
	}
}
