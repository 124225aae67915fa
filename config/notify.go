package config

import (
	"fmt"
	"path"
	"path/filepath"
	"strconv"
	"time"
)

// Notify says whom to tell about clusters that are updated, pods that are about to be forced, nodes
// in quarantine, rolls that stopped, and the like. Secrets are named, never written here.
type Notify struct {
	// URLEnv is the environment variable, and URLFile the file, that holds the address of a
	// webhook. It gets a POST with a JSON object for each notification. Default: none. Relative
	// paths start at fairway.yaml.
	URLEnv  string `yaml:"url_env" validate:"excluded_with=URLFile"`
	URLFile string `yaml:"url_file"`
	// SecretEnv or SecretFile hold the key of the HMAC-SHA256 in the header X-Fairway-Signature.
	SecretEnv  string `yaml:"secret_env" validate:"excluded_with=SecretFile"`
	SecretFile string `yaml:"secret_file"`
	// Kinds restricts what the webhook is told: force-soon, forced, quarantined, fallback,
	// roll-begins, roll-stopped, roll-done, update-begins, update-done, update-failed, update-cancelled, rolled-back,
	// rollout-stopped, stray-landing, channel-reverted, test-not-torn-down, swept, sweep-asks. Default: all.
	Kinds []string `yaml:"kinds" validate:"dive,oneof=force-soon forced quarantined fallback roll-begins roll-stopped roll-done update-begins update-done update-failed update-cancelled rolled-back rollout-stopped stray-landing channel-reverted test-not-torn-down swept sweep-asks"`
	// Routes lead to chat, mail and other services. A notification takes every route that matches,
	// and the webhook besides.
	Routes []Route `yaml:"routes" validate:"dive"`
	// Timeout bounds one attempt; default 10 s.
	Timeout time.Duration `yaml:"timeout" validate:"gte=0"`
}

// Route is a service and what it is told. A restriction that is left out lets everything pass; the
// patterns are those of a shell, such as "team-*".
type Route struct {
	// Name stands for the route in errors, since its address is a secret. Unique.
	Name string `yaml:"name" validate:"required"`
	// URLEnv is the environment variable, or URLFile the file, that holds the service's address in
	// the form of Shoutrrr, such as slack://, teams://, smtp:// or generic+https://.
	URLEnv  string `yaml:"url_env" validate:"required_without=URLFile,excluded_with=URLFile"`
	URLFile string `yaml:"url_file"`
	// Owners are patterns for the owner of the cluster, or of the pod that the notification is about.
	Owners []string `yaml:"owners"`
	// Environments and Channels are patterns for those of the cluster.
	Environments []string `yaml:"environments"`
	Channels     []string `yaml:"channels"`
	// Kinds are as those of Notify.
	Kinds []string `yaml:"kinds" validate:"dive,oneof=force-soon forced quarantined fallback roll-begins roll-stopped roll-done update-begins update-done update-failed update-cancelled rolled-back rollout-stopped stray-landing channel-reverted test-not-torn-down swept sweep-asks"`
}

// Configured says whether there is anybody to tell.
func (n Notify) Configured() bool { return n.URLEnv != "" || n.URLFile != "" || len(n.Routes) > 0 }

// startAt has relative paths of routes start at a folder.
func (n Notify) startAt(folder string) {
	for i := range n.Routes {
		if file := &n.Routes[i].URLFile; *file != "" && !filepath.IsAbs(*file) {
			*file = filepath.Join(folder, *file)
		}
	}
}

func (n Notify) check(report func(field, format string, args ...any)) {
	names := map[string]int{}
	for i, route := range n.Routes {
		at := "notify.routes[" + strconv.Itoa(i) + "]"
		if first, taken := names[route.Name]; taken {
			report(at+".name", "%q is the name of routes[%d] already", route.Name, first)
		} else {
			names[route.Name] = i
		}
		for _, each := range []struct {
			field    string
			patterns []string
		}{{"owners", route.Owners}, {"environments", route.Environments}, {"channels", route.Channels}} {
			for j, pattern := range each.patterns {
				if _, err := path.Match(pattern, ""); err != nil {
					report(fmt.Sprintf("%s.%s[%d]", at, each.field, j), "is %q, whose brackets or backslashes are wrong", pattern)
				}
			}
		}
	}
}
