package e2e

import (
	"fmt"
	"maps"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/fairway-project/fairway/prose"
	"github.com/fairway-project/fairway/registry"
)

// Configured says whether pull requests are tested.
func (s Settings) Configured() bool { return len(s.Accounts) > 0 }

// Check reports everything that is wrong with the settings, by the path of the field in fairway.yaml such as
// e2e.suites[2].name. What the tags of the fields say is checked by strictyaml.
func (s Settings) Check(report func(field, format string, args ...any)) {
	in := func(field, format string, args ...any) { report("e2e."+field, format, args...) }
	for _, each := range [][2]string{{"label", s.Label}, {"hotfix_label", s.HotfixLabel}, {"status", s.Status}} {
		field, text := each[0], each[1]
		switch {
		case text == "" && field == "hotfix_label": // then a base alone makes a hotfix
		case text == "" && !s.Configured():
		case prose.BadName(text) != "":
			in(field, "is %.120q; %s", text, prose.BadName(text))
		}
	}
	if s.Label != "" && strings.EqualFold(s.Label, s.HotfixLabel) {
		in("hotfix_label", "is %q, as label is; every pull request would be a hotfix", s.HotfixLabel)
	}
	if s.KeepFailed > s.KeepAtMost {
		in("keep_failed", "is %s; must be at most keep_at_most, which is %s", s.KeepFailed, s.KeepAtMost)
	}
	s.checkAccounts(in)
	s.Cluster.check(s.Configured(), in)
	s.Workload.check(in)
	s.Load.check(in)
	s.checkSuites(in)
	s.Prices.check(in)
	for i, zone := range s.Sweep.HostedZones {
		if !hostedZone.MatchString(zone) {
			in(fmt.Sprintf("sweep.hosted_zones[%d]", i), "is %.120q; must be the id of a zone, such as Z0123456789ABC", zone)
		}
	}
	if !s.Configured() {
		return
	}
	notZero(map[string]bool{"every": s.Every == 0, "within": s.Within == 0, "parallel_suites": s.ParallelSuites == 0}, in)
}

var (
	account    = regexp.MustCompile(`^aws:[0-9]{12}$`)
	region     = regexp.MustCompile(`^[a-z]{2}(-[a-z]+)+-[0-9]+$`)
	hostedZone = regexp.MustCompile(`^[A-Z0-9]{1,32}$`)
	// suiteName is part of paths of files and objects.
	suiteName   = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	environment = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

func (s Settings) checkAccounts(report func(field, format string, args ...any)) {
	for i, each := range s.Accounts {
		at := fmt.Sprintf("accounts[%d]", i)
		if each.Account != "" && !account.MatchString(each.Account) {
			report(at+".account", "is %.120q; must be an account such as aws:123456789012", each.Account)
		}
		if each.Region != "" && !region.MatchString(each.Region) {
			report(at+".region", "is %.120q; must be a region such as eu-central-1", each.Region)
		}
		for j, other := range s.Accounts[:i] {
			if other.Account == each.Account && other.Region == each.Region {
				report(at, "is %s in %s once more; it is accounts[%d] already", each.Account, each.Region, j)
			}
		}
	}
}

func (s Shape) check(needed bool, report func(field, format string, args ...any)) {
	registry.CheckPools("cluster.node_pools", s.NodePools, report)
	switch {
	case s.APIServerURL == "" && needed:
		report("cluster.api_server_url", "is missing; say where API servers of test clusters answer, with {cluster} for the cluster's id")
	case s.APIServerURL == "":
	case badURL(s.APIServerURL) != "":
		report("cluster.api_server_url", "%s", badURL(s.APIServerURL))
	case !strings.Contains(s.APIServerURL, "{cluster}"):
		report("cluster.api_server_url", "is %.120q; must contain {cluster}, since each test has a cluster of its own", s.APIServerURL)
	}
	if needed && s.Environment == "" {
		report("cluster.environment", "is missing; must be one such as test")
	}
	if needed && len(s.NodePools) == 0 {
		report("cluster.node_pools", "is missing; without nodes nothing can be upgraded")
	}
	for _, key := range slices.Sorted(maps.Keys(s.Tags)) {
		switch {
		case strings.HasPrefix(key, "fairway.dev/"), strings.HasPrefix(strings.ToLower(key), "aws:"):
			report("cluster.tags", "has the key %.120q, which is for Fairway or AWS itself to write", key)
		case key == "" || len(key) > 128 || len(s.Tags[key]) > 256:
			report("cluster.tags", "has the key %.120q; AWS takes keys of 1 to 128 and values of at most 256 bytes", key)
		}
	}
}

func (w Workload) check(report func(field, format string, args ...any)) {
	if w.Image == "" {
		return // none is started
	}
	if strings.ContainsFunc(w.Image, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }) {
		report("workload.image", "is %.120q; must be the name of an image", w.Image)
	}
	if len(validation.IsDNS1123Label(w.Namespace)) > 0 {
		report("workload.namespace", "is %.120q; must be the name of a namespace: lower-case letters, digits and dashes", w.Namespace)
	}
	if size, err := resource.ParseQuantity(w.Storage); err != nil || size.Sign() <= 0 {
		report("workload.storage", "is %.120q; must be a size such as 1Gi", w.Storage)
	}
	notZero(map[string]bool{"port": w.Port == 0, "replicas": w.Replicas == 0, "ready_within": w.ReadyWithin == 0}, func(field, format string, args ...any) { report("workload."+field, format, args...) })
}

func (l Load) check(report func(field, format string, args ...any)) {
	for i, address := range l.URLs {
		if problem := badURL(address); address != "" && problem != "" {
			report(fmt.Sprintf("load.urls[%d]", i), "%s", problem)
		}
	}
	if len(l.URLs) == 0 {
		return
	}
	notZero(map[string]bool{"rate": l.Rate == 0, "timeout": l.Timeout == 0, "answers_within": l.AnswersWithin == 0}, func(field, format string, args ...any) { report("load."+field, format, args...) })
}

func (s Settings) checkSuites(report func(field, format string, args ...any)) {
	names := map[string]int{}
	for i, suite := range s.Suites {
		at := fmt.Sprintf("suites[%d]", i)
		first, taken := names[suite.Name]
		switch {
		case suite.Name == "": // told by the tag
		case !suiteName.MatchString(suite.Name):
			report(at+".name", "is %.120q, and becomes part of paths; use lower-case letters, digits and dashes, at most 63", suite.Name)
		case taken:
			report(at+".name", "is %q, which is the name of suites[%d] already", suite.Name, first)
		default:
			names[suite.Name] = i
		}
		suite.check(s, func(field, format string, args ...any) {
			report(strings.TrimSuffix(at+"."+field, "."), format, args...)
		})
	}
}

func (s Suite) check(settings Settings, report func(field, format string, args ...any)) {
	var kinds []string
	if len(s.Command) > 0 {
		kinds = append(kinds, "command")
		if strings.TrimSpace(s.Command[0]) == "" {
			report("command[0]", "is empty; must be the program that is run")
		}
	}
	if s.Job != nil {
		kinds = append(kinds, "job")
		if s.Job.File != "" && !filepath.IsLocal(s.Job.File) {
			report("job.file", "is %.120q; must be the path of a file in the configuration repository", s.Job.File)
		}
	}
	if s.Kubernetes != nil {
		kinds = append(kinds, "kubernetes")
		for _, each := range [][2]string{{"focus", s.Kubernetes.Focus}, {"skip", s.Kubernetes.Skip}} {
			if _, err := regexp.Compile(each[1]); err != nil {
				report("kubernetes."+each[0], "is no regular expression: %v", err)
			}
		}
	}
	if s.StatefulSet != nil {
		kinds = append(kinds, "stateful_set")
		if settings.Workload.Image == "" {
			report("stateful_set", "looks after the StatefulSet of the workload, of which there is none; set e2e.workload.image")
		}
	}
	if s.Smoke != nil {
		kinds = append(kinds, "smoke")
		for i, address := range s.Smoke.URLs {
			if problem := badURL(address); problem != "" {
				report(fmt.Sprintf("smoke.urls[%d]", i), "%s", problem)
			}
		}
	}
	switch len(kinds) {
	case 0:
		report("", "runs nothing; set one of command, job, kubernetes, stateful_set and smoke")
	case 1:
	default:
		report("", "sets %s; a suite is one thing, so make several suites of it", strings.Join(kinds, " and "))
	}
	for i, name := range s.Env {
		switch {
		case len(s.Command) == 0:
			report(fmt.Sprintf("env[%d]", i), "has no effect: only a command gets environment variables")
		case !environment.MatchString(name):
			report(fmt.Sprintf("env[%d]", i), "is %.120q; must be the name of an environment variable of the worker", name)
		}
	}
}

func (p Prices) check(report func(field, format string, args ...any)) {
	for _, kind := range slices.Sorted(maps.Keys(p.Hour)) {
		if p.Hour[kind] < 0 {
			report("prices.hour", "has %v for %.120q; must be at least 0", p.Hour[kind], kind)
		}
	}
}

// notZero reports fields that are 0, always in the same order.
func notZero(zero map[string]bool, report func(field, format string, args ...any)) {
	for _, field := range slices.Sorted(maps.Keys(zero)) {
		if zero[field] {
			report(field, "is 0; must be more than 0")
		}
	}
}

// badURL says what is wrong with an address; it is not shown, since it may hold a secret.
func badURL(address string) string {
	filled := strings.ReplaceAll(address, "{cluster}", "cluster")
	parsed, err := url.Parse(filled)
	switch {
	case strings.ContainsAny(filled, "{}"):
		return "has braces in it; there is {cluster}, other braces have to be written as %7B and %7D"
	case err != nil || parsed.Hostname() == "" || parsed.Scheme != "http" && parsed.Scheme != "https":
		return "must be an address such as https://{cluster}.example.org"
	case parsed.User != nil:
		return "has credentials in it; take them out"
	}
	return ""
}
