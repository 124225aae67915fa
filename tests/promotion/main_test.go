package promotion

import (
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"go.temporal.io/sdk/client"

	"github.com/fairway-project/fairway/calendar"
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

// cluster follows dev. All other channels have no clusters, and soak from the landing.
const cluster = "dev-1"

const hookSecret = "secret-of-forge-and-worker"

func TestMain(m *testing.M) {
	flag.Parse()
	// Each test has channels of its own, and waits for them most of the time.
	if err := flag.Set("test.parallel", "20"); err != nil {
		panic(err)
	}
	os.Exit(product.Main("../..", "promotion", lab.Options{Clusters: []string{cluster}}, func(ctx context.Context, l *lab.Lab, folder string) (int, error) {
		theLab, dir = l, folder
		if err := startProduct(ctx); err != nil {
			return 0, err
		}
		defer temporal.Close()
		return m.Run(), nil
	}))
}

// startProduct starts the worker with the pipeline of the tests, and makes the schedules.
func startProduct(ctx context.Context) (err error) {
	if temporal, err = product.Dial(ctx, theLab); err != nil {
		return err
	}
	env = theLab.Env()
	env["HOOK_SECRET"] = hookSecret
	c, err := config.Load(env["FAIRWAY_CONFIG"])
	if err != nil {
		return err
	}
	c.Worker.Webhook.SecretEnv = "HOOK_SECRET"
	if c.Worker.Webhook.Listen, err = product.FreeAddress(); err != nil {
		return err
	}
	hookURL = "http://" + c.Worker.Webhook.Listen + "/hooks/sync"
	if err := theLab.StartPrometheus(ctx, lab.Prometheus{Targets: []string{smoke.Listener.Addr().String()}}); err != nil {
		return err
	}
	c.Update.SyncEvery, c.Update.HealthEvery = 4*time.Second, 4*time.Second
	c.Pipeline, c.E2E = pipeline(), e2e.Defaults()
	if err := product.MakeBranches(ctx, theLab, c.Pipeline.Channels); err != nil {
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

// pipeline is that of all tests: each has channels of its own, whose names begin alike.
func pipeline() promotion.Pipeline {
	p := promotion.Pipeline{Every: 8 * time.Second, Author: "Fairway <fairway@fairway.test>"}
	edge := func(from, to string, mode promotion.Mode, change func(*promotion.Edge)) {
		e := promotion.Edge{From: from, To: to, Mode: mode, Soak: new(time.Second)}
		if change != nil {
			change(&e)
		}
		p.Edges = append(p.Edges, e)
		for _, name := range []string{from, to} {
			if !slices.Contains(p.Channels, name) {
				p.Channels = append(p.Channels, name)
			}
		}
	}
	approved := func(automerge bool) func(*promotion.Edge) {
		return func(e *promotion.Edge) {
			e.PullRequest = promotion.PullRequest{
				Approvals: new(1), Reviewers: []string{"reviewer"}, Labels: []string{"promotion"}, Automerge: automerge,
			}
		}
	}
	edge("dev", "alpha", promotion.Merge, func(e *promotion.Edge) { e.Soak = new(4 * time.Second) })
	edge("alpha", "stable", promotion.ByPullRequest, approved(true))
	edge("once-dev", "once-alpha", promotion.Merge, nil)
	edge("race-dev", "race-alpha", promotion.Merge, nil)
	edge("conflict-dev", "conflict-alpha", promotion.Merge, nil)
	edge("review-alpha", "review-stable", promotion.ByPullRequest, approved(true))
	edge("refuse-alpha", "refuse-stable", promotion.ByPullRequest, approved(false))
	edge("hot-dev", "hot-alpha", promotion.Merge, nil)
	edge("hot-alpha", "hot-stable", promotion.ByPullRequest, approved(true))
	edge("revert-dev", "revert-alpha", promotion.Merge, nil)
	edge("revert-alpha", "revert-stable", promotion.ByPullRequest, approved(false))
	edge("gate-dev", "gate-alpha", promotion.Merge, func(e *promotion.Edge) {
		e.Gates = []promotion.Gate{
			{Name: "e2e", Status: "fairway/e2e"},
			{Name: "errors", Prometheus: &promotion.MetricGate{
				URL: theLab.PrometheusURL(), Query: `shop_errors{channel="{from}"}`, Threshold: "< 0.01", For: 3 * time.Second,
			}},
			{Name: "smoke", HTTP: &promotion.HTTPGate{URL: smoke.URL + "/{from}/{candidate}"}},
		}
	})
	edge("block-dev", "block-alpha", promotion.Merge, nil)
	edge("hook-alpha", "hook-stable", promotion.ByPullRequest, approved(true))
	edge("newer-alpha", "newer-stable", promotion.ByPullRequest, func(e *promotion.Edge) {
		approved(true)(e)
		e.PullRequest.Supersede = promotion.Unapproved
	})
	edge("night-dev", "night-alpha", promotion.Merge, func(e *promotion.Edge) {
		e.Freezes = []calendar.Freeze{{Name: "sale", From: time.Now().Add(-time.Hour), To: time.Now().Add(time.Hour)}}
	})
	edge("class-dev", "class-alpha", promotion.Merge, func(e *promotion.Edge) { e.PersonFor = []promotion.Class{promotion.NodesRoll} })
	edge("fleet-dev", "fleet-alpha", promotion.Merge, nil)
	edge("gone-dev", "gone-alpha", promotion.Merge, func(e *promotion.Edge) { e.Soak = new(time.Hour) })
	return p
}
