package tests

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"go.temporal.io/sdk/client"

	"github.com/fairway-project/fairway/lab"
	"github.com/fairway-project/fairway/tests/product"
)

// What all tests share.
var (
	theLab   *lab.Lab
	dir      string // of everything that a run of the tests leaves behind
	temporal client.Client
	scaling  *autoscaling.Client
	watched  = map[string]*witness{} // by cluster
)

// The clusters of the lab. Tests have node pools of their own, so that many share a cluster; the
// one whose API server dies is for that.
const (
	busy    = "dev-1"
	outcast = "alpha-1"
)

func TestMain(m *testing.M) {
	flag.Parse()
	// Tests wait for machines most of the time, so there may be more of them than processors.
	if err := flag.Set("test.parallel", "10"); err != nil {
		panic(err)
	}
	os.Exit(product.Main("..", "tests", lab.Options{Clusters: []string{busy, outcast}}, func(ctx context.Context, l *lab.Lab, folder string) (int, error) {
		theLab, dir = l, folder
		if err := prepare(ctx); err != nil {
			return 0, err
		}
		defer temporal.Close()
		stopActors, err := startActors(ctx, temporal, busy, outcast)
		if err != nil {
			return 0, err
		}
		defer stopActors()
		return m.Run(), nil
	}))
}

// prepare connects to what the tests watch.
func prepare(ctx context.Context) (err error) {
	scaling = autoscaling.NewFromConfig(theLab.AWSConfig())
	if temporal, err = product.Dial(ctx, theLab); err != nil {
		return err
	}
	for _, cluster := range []string{busy, outcast} {
		if watched[cluster], err = newWitness(ctx, cluster); err != nil {
			return fmt.Errorf("watching cluster %s: %w", cluster, err)
		}
	}
	return nil
}

// nameOf turns the name of a test into one for its pool, namespace and task queue.
func nameOf(t *testing.T) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r - 'A' + 'a'
		}
		return '-'
	}, strings.TrimPrefix(t.Name(), "Test"))
	return strings.Trim(name[max(0, len(name)-48):], "-")
}
