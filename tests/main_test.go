package tests

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"go.temporal.io/sdk/client"
	"golang.org/x/sync/errgroup"

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
	os.Exit(run(m))
}

func run(m *testing.M) (code int) {
	var err error
	if dir, err = os.MkdirTemp("", "fairway-tests-"); err != nil {
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
	group.Go(func() error { return product.Build(groupCtx, "..", program("")) })
	group.Go(func() error { return startLab(groupCtx) })
	err = group.Wait()
	if theLab != nil {
		defer func() {
			if err := theLab.Stop(); err != nil && code == 0 {
				code = fail(err)
			}
		}()
	}
	if err != nil {
		return fail(err)
	}
	defer temporal.Close()
	stopActors, err := startActors(ctx, temporal, busy, outcast)
	if err != nil {
		return fail(err)
	}
	defer stopActors()
	return m.Run()
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, err)
	return 1
}

func startLab(ctx context.Context) (err error) {
	theLab, err = lab.Start(ctx, lab.Options{
		Dir: filepath.Join(dir, "lab"), Clusters: []string{busy, outcast}, Out: os.Stderr,
	})
	if err != nil {
		return err
	}
	scaling = autoscaling.NewFromConfig(theLab.AWSConfig())
	temporal, err = client.DialContext(ctx, client.Options{
		HostPort: theLab.Direct("temporal"), Namespace: lab.TemporalNamespace, Logger: product.Silence{},
	})
	if err != nil {
		return fmt.Errorf("connecting to Temporal: %w", err)
	}
	for _, cluster := range []string{busy, outcast} {
		if watched[cluster], err = newWitness(ctx, cluster); err != nil {
			return fmt.Errorf("watching cluster %s: %w", cluster, err)
		}
	}
	return nil
}

func program(name string) string { return filepath.Join(dir, "bin", name) }

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
