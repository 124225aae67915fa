package pullrequests

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"go.temporal.io/sdk/client"

	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/e2e"
	"github.com/fairway-project/fairway/lab"
	"github.com/fairway-project/fairway/promotion"
	"github.com/fairway-project/fairway/tests/product"
)

// What all tests share.
var (
	theLab   *lab.Lab
	dir      string // of everything that a run of the tests leaves behind
	env      map[string]string
	worker   *lab.Part
	temporal client.Client
	hookURL  string // where the worker takes webhooks
)

const hookSecret = "secret-of-forge-and-worker"

// Channels of the tests, each with its own.
const (
	wholeChannel  = "dev"
	afterWhole    = "after-dev"
	quietChannel  = "quiet"
	queueChannel  = "queued"
	limit         = 2
	patience      = 12 * time.Minute // tests wait for each other's places
	sometimes     = time.Second
	label         = "ready-to-test"
	statusContext = "fairway/e2e"
)

func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "20"); err != nil {
		panic(err)
	}
	os.Exit(product.Main("../..", "pullrequests", lab.Options{Clusters: []string{}}, func(ctx context.Context, l *lab.Lab, folder string) (int, error) {
		theLab, dir = l, folder
		if err := startProduct(ctx); err != nil {
			return 0, err
		}
		defer temporal.Close()
		seen := places{tests: map[string]bool{}}
		watching, end := context.WithCancel(ctx)
		defer end()
		go seen.watch(watching)
		code := m.Run()
		if err := seen.judge(flag.Lookup("test.run").Value.String() == ""); err != nil && code == 0 {
			return 1, err
		}
		if os.Getenv("FAIRWAY_RECORD") != "" {
			return code, record(ctx)
		}
		return code, nil
	}))
}

// record keeps the histories of what the tests have had run; see tests/record.
func record(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "go", "run", "./tests/record")
	cmd.Dir, cmd.Stdout, cmd.Stderr = "../..", os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), product.Environment(env)...)
	return cmd.Run()
}

// startProduct starts the worker with the suites of the tests, and makes the schedules.
func startProduct(ctx context.Context) (err error) {
	if temporal, err = product.Dial(ctx, theLab); err != nil {
		return err
	}
	env = theLab.Env()
	env["HOOK_SECRET"] = hookSecret
	env["HOME"] = dir // below which suites get their folders
	c, err := config.Load(env["FAIRWAY_CONFIG"])
	if err != nil {
		return err
	}
	c.Worker.Webhook.SecretEnv = "HOOK_SECRET"
	if c.Worker.Webhook.Listen, err = product.FreeAddress(); err != nil {
		return err
	}
	hookURL = "http://" + c.Worker.Webhook.Listen + "/hooks/sync"
	probe, err := writeProbe()
	if err != nil {
		return err
	}
	c.Pipeline = promotion.Pipeline{Every: 4 * time.Second, Author: "Fairway <fairway@fairway.test>", Channels: []string{wholeChannel, afterWhole, quietChannel, queueChannel}}
	c.Pipeline.Edges = []promotion.Edge{{
		From: wholeChannel, To: afterWhole, Mode: promotion.Merge, Soak: new(time.Second),
		Gates: []promotion.Gate{{Name: "e2e", Status: statusContext}},
	}}
	for i := range c.E2E.Accounts {
		c.E2E.Accounts[i].Limit = limit
	}
	c.E2E.Every = 2 * time.Second
	c.E2E.Sweep.Every, c.E2E.Sweep.Grace, c.E2E.Sweep.AtMost = 5*time.Second, time.Second, 1 // so that each sweep of more asks
	c.E2E.Load.URLs = []string{theLab.IngressURL() + "/{cluster}/fairway-e2e/fairway-e2e-web/"}
	c.E2E.Load.Rate, c.E2E.Load.AtLeast = 30, 20
	conformance := theLab.ConformanceSuite()
	conformance.Channels = []string{wholeChannel}
	c.E2E.Suites = []e2e.Suite{
		conformance,
		{Name: "stateful-set", StatefulSet: &e2e.StatefulSetSuite{}, Channels: []string{wholeChannel}},
		{Name: "smoke", Smoke: &e2e.SmokeSuite{}, Channels: []string{wholeChannel}},
		{Name: "job", Job: &e2e.JobSuite{File: jobFile}, Channels: []string{wholeChannel}},
		{Name: "probe", Command: []string{probe, "{cluster}", "{reports}"}, Within: 5 * time.Minute},
	}
	if err := product.MakeBranches(ctx, theLab, c.Pipeline.Channels); err != nil {
		return err
	}
	if err := withoutLegacy(ctx, c.Pipeline.Channels); err != nil {
		return err
	}
	if worker, err = product.StartWorker(ctx, theLab, c, env); err != nil {
		return err
	}
	if out, status, err := command(ctx, "schedule", "apply"); err != nil || status != 0 {
		return fmt.Errorf("fairway schedule apply ends with %d: %w\n%s", status, err, out)
	}
	return nil
}

// withoutLegacy removes the application from channels that lets no node go unless it is forced.
func withoutLegacy(ctx context.Context, channels []string) error {
	clone, err := os.MkdirTemp(dir, "legacy-")
	if err != nil {
		return err
	}
	steps := [][]string{{"clone", "--quiet", product.Remote(theLab), "."}}
	for _, channel := range channels {
		steps = append(steps,
			[]string{"checkout", "--quiet", "--detach", "origin/" + channel},
			[]string{"rm", "--quiet", "-r", "cluster/manifests/legacy-license-server"},
			[]string{"commit", "--quiet", "-m", "Retire the license server"},
			[]string{"push", "--quiet", "origin", "HEAD:refs/heads/" + channel})
	}
	for _, args := range steps {
		if _, err := product.Git(ctx, clone, args...); err != nil {
			return err
		}
	}
	return nil
}

// writeProbe writes a suite that each test tells what to do, by files named after its cluster: "wait-"
// keeps it from ending, "fail-" has it fail.
func writeProbe() (string, error) {
	path := filepath.Join(dir, "probe")
	return path, os.WriteFile(path, []byte(`#!/bin/sh
set -eu
while [ -e '`+dir+`'/wait-"$1" ]; do sleep 0.2; done
failure=
[ ! -e '`+dir+`'/fail-"$1" ] || failure='<failure message="the page is @everyone blank &lt;/details&gt;"/>'
cat > "$2/junit.xml" <<end
<testsuite name="probe" tests="1"><testcase classname="probe" name="the shop opens">$failure</testcase></testsuite>
end
test -s "$KUBECONFIG"
test -z "$failure"
`), 0o755)
}

// told has the probe of a cluster do something until the test ends, or the returned function is called.
func told(t *testing.T, what, cluster string) (end func()) {
	t.Helper()
	path := filepath.Join(dir, what+"-"+cluster)
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	end = func() { _ = os.Remove(path) }
	t.Cleanup(end)
	return end
}

// command runs the command line.
func command(ctx context.Context, args ...string) (out string, status int, err error) {
	return product.Command(ctx, patience, env, args...)
}
