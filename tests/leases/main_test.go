package leases

import (
	"context"
	"flag"
	"os"
	"testing"
	"time"

	"go.temporal.io/sdk/client"

	"github.com/fairway-project/fairway/activities/aws"
	"github.com/fairway-project/fairway/activities/testclusters"
	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/e2e"
	"github.com/fairway-project/fairway/lab"
	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/tests/product"
)

// What all tests share.
var (
	theLab   *lab.Lab
	settings config.Config
	temporal client.Client
	clusters *testclusters.Clusters // in this process, besides those of the worker
)

var account = e2e.Account{Account: "aws:123456789012", Region: "eu-central-1"}

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(product.Main("../..", "leases", lab.Options{Clusters: []string{"dev-1"}}, func(ctx context.Context, l *lab.Lab, folder string) (int, error) {
		theLab = l
		if err := startProduct(ctx, folder); err != nil {
			return 0, err
		}
		defer temporal.Close()
		return m.Run(), nil
	}))
}

func startProduct(ctx context.Context, folder string) (err error) {
	if temporal, err = product.Dial(ctx, theLab); err != nil {
		return err
	}
	env := theLab.Env()
	if settings, err = config.Load(env["FAIRWAY_CONFIG"]); err != nil {
		return err
	}
	settings.E2E.Accounts = []e2e.Account{account}
	settings.E2E.Within, settings.E2E.KeepAtMost = time.Hour, time.Hour
	settings.E2E.Prices.Hour = map[string]float64{"m5.large": 3600}
	settings.E2E.Cluster.APIServerURL = "https://{cluster}.fleet.internal"
	settings.E2E.Cluster.Tags = map[string]string{"cost-centre": "tests"}
	settings.E2E.Cluster.NodePools = []registry.NodePool{
		{Name: "master", Profile: "master-default", InstanceTypes: []string{"m5.large"}, MinSize: 1, MaxSize: 2},
		{Name: "worker", Profile: "worker-default", InstanceTypes: []string{"m5.large"}, MinSize: 3, MaxSize: 4},
		{Name: "worker-data", Profile: "worker-data", InstanceTypes: []string{"m5.large"}, MinSize: 3, MaxSize: 4},
	}
	for _, name := range []string{"AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} {
		if err := os.Setenv(name, env[name]); err != nil {
			return err
		}
	}
	accounts := &aws.Accounts{Settings: settings.AWS}
	clusters = &testclusters.Clusters{
		Leases:   &testclusters.Leases{Bucket: aws.Bucket{Accounts: accounts}, Accounts: settings.E2E.Accounts},
		Settings: settings.E2E, Uses: accounts.Uses, Registered: func(context.Context, string) (bool, error) { return false, nil },
	}
	_, err = product.StartWorker(ctx, theLab, settings, env)
	return err
}
