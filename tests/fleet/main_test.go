package fleet

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	"go.temporal.io/sdk/client"

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
	os.Exit(product.Main("../..", "fleet", lab.Options{}, func(ctx context.Context, l *lab.Lab, folder string) (int, error) {
		theLab, dir = l, folder
		if err := startProduct(ctx); err != nil {
			return 0, err
		}
		defer temporal.Close()
		return m.Run(), nil
	}))
}

// startProduct starts the registry server with the sample fleet in it, and the worker.
func startProduct(ctx context.Context) (err error) {
	scaling, stacks = autoscaling.NewFromConfig(theLab.AWSConfig()), cloudformation.NewFromConfig(theLab.AWSConfig())
	if temporal, err = product.Dial(ctx, theLab); err != nil {
		return err
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
	worker, err = product.StartWorker(ctx, theLab, c, env)
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
	address, err := product.FreeAddress()
	if err != nil {
		return err
	}
	registryURL = "http://" + address
	server, err = theLab.Run(ctx, lab.Process{
		Name: "registry",
		Command: []string{product.Program("starter"), "registry", "serve", "--listen", address, "--database", filepath.Join(dir, "registry.db"),
			"--tokens-file", tokens, "--import", file},
		Ready: func(ctx context.Context) error { return product.Answers(ctx, registryURL+"/healthz") },
	})
	return err
}

func randomText() string { return rand.Text()[:8] }
