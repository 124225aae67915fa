package fleet

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	"github.com/goccy/go-yaml"
	"go.temporal.io/sdk/client"
	"golang.org/x/sync/errgroup"

	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/lab"
	"github.com/fairway-project/fairway/tests/product"
)

// What all tests share.
var (
	theLab *lab.Lab
	dir    string // of everything that a run of the tests leaves behind
	env    map[string]string
	worker *lab.Part
	server *lab.Part
	// registryURL is where the registry server listens; the worker reaches it through a proxy of the
	// tests that can be told to answer otherwise.
	registryURL   string
	registryProxy *interposer
	temporal      client.Client
	scaling       *autoscaling.Client
	stacks        *cloudformation.Client
)

const writeToken, statusToken = "token-of-people", "token-of-fairway"

// bake is the time between two waves.
const bake = 3 * time.Second

func TestMain(m *testing.M) {
	flag.Parse()
	// Each test has clusters of its own, and waits for them most of the time.
	if err := flag.Set("test.parallel", "10"); err != nil {
		panic(err)
	}
	os.Exit(run(m))
}

func run(m *testing.M) (code int) {
	var err error
	if dir, err = os.MkdirTemp("", "fairway-fleet-"); err != nil {
		return fail(err)
	}
	defer func() {
		if code == 0 {
			_ = os.RemoveAll(dir)
			return
		}
		fmt.Fprintf(os.Stderr, "logs and audit logs are in %s\n", filepath.Join(dir, "lab"))
	}()
	ctx := context.Background() // a cold machine builds for a quarter of an hour
	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(func() error { return product.Build(groupCtx, "../..", program("")) })
	group.Go(func() (err error) {
		theLab, err = lab.Start(groupCtx, lab.Options{Dir: filepath.Join(dir, "lab"), Out: os.Stderr})
		return err
	})
	err = group.Wait()
	if theLab != nil {
		defer func() {
			if err := theLab.Stop(); err != nil && code == 0 {
				code = fail(err)
			}
		}()
	}
	if err == nil {
		err = startProduct(ctx)
	}
	if err != nil {
		return fail(err)
	}
	defer temporal.Close()
	return m.Run()
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, err)
	return 1
}

func program(name string) string { return filepath.Join(dir, "bin", name) }

// startProduct starts the registry server with the sample fleet in it, and the worker.
func startProduct(ctx context.Context) (err error) {
	scaling, stacks = autoscaling.NewFromConfig(theLab.AWSConfig()), cloudformation.NewFromConfig(theLab.AWSConfig())
	if temporal, err = client.DialContext(ctx, client.Options{
		HostPort: theLab.Direct("temporal"), Namespace: lab.TemporalNamespace, Logger: product.Silence{},
	}); err != nil {
		return fmt.Errorf("connecting to Temporal: %w", err)
	}
	env = theLab.Env()
	c, err := config.Load(env["FAIRWAY_CONFIG"])
	if err != nil {
		return err
	}
	if err := startRegistry(ctx, c.Registry.File); err != nil {
		return err
	}
	if registryProxy, err = newInterposer(registryURL); err != nil {
		return err
	}
	token := filepath.Join(dir, "registry-token")
	if err := os.WriteFile(token, []byte(statusToken), 0o600); err != nil {
		return err
	}
	c.Registry = config.Registry{URL: registryProxy.URL, TokenFile: token, Timeout: 3 * time.Second}
	c.Update.SyncEvery, c.Update.HealthEvery = 2*time.Second, 2*time.Second
	c.Update.Environments = map[string]config.Conduct{}
	for _, environment := range []string{"production", "test"} {
		c.Update.Environments[environment] = config.Conduct{RetryAfter: new(3 * time.Second), RetryAtMost: new(3 * time.Second)}
	}
	if c.Update.Alerts, err = startPrometheus(ctx); err != nil {
		return err
	}
	c.Update.HealthyWithin = new(90 * time.Second)
	c.Rollout.Bake = new(bake)
	c.Rollout.Channels = map[string]config.Waves{"waves": {Groups: &[]string{"1", "100%"}}}
	c.Replace.Settle, c.Roll.Validate = time.Second, new(time.Second)
	c.Replace.NodeReadyWithin = 20 * time.Second
	c.Roll.BadReplacements = new(2)
	env["FAIRWAY_CONFIG"] = filepath.Join(dir, "fairway.yaml")
	data, err := yaml.Marshal(c)
	if err != nil {
		return err
	}
	if err := os.WriteFile(env["FAIRWAY_CONFIG"], data, 0o644); err != nil {
		return err
	}
	worker, err = theLab.Run(ctx, lab.Process{
		Name: "worker", Command: []string{program("worker")}, Env: product.Environment(env),
		Ready: func(ctx context.Context) error { return product.Answers(ctx, "http://"+c.Worker.Listen+"/readyz") },
	})
	return err
}

func startRegistry(ctx context.Context, file string) error {
	hash := func(token string) string {
		sum := sha256.Sum256([]byte(token))
		return hex.EncodeToString(sum[:])
	}
	tokens := filepath.Join(dir, "tokens.yaml")
	if err := os.WriteFile(tokens, []byte(fmt.Sprintf(`tokens:
  - {name: people, role: write, sha256: %s}
  - {name: fairway, role: status, sha256: %s}
`, hash(writeToken), hash(statusToken))), 0o600); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	address := listener.Addr().String()
	if err := listener.Close(); err != nil {
		return err
	}
	registryURL = "http://" + address
	server, err = theLab.Run(ctx, lab.Process{
		Name: "registry",
		Command: []string{program("starter"), "registry", "serve", "--listen", address, "--database", filepath.Join(dir, "registry.db"),
			"--tokens-file", tokens, "--import", file},
		Ready: func(ctx context.Context) error { return product.Answers(ctx, registryURL+"/healthz") },
	})
	return err
}

func randomText() string { return rand.Text()[:8] }
