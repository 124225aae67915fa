package tests

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/stretchr/testify/require"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/e2e"
	"github.com/fairway-project/fairway/lab"
	"github.com/fairway-project/fairway/promotion"
	"github.com/fairway-project/fairway/tests/product"
)

// worker is a fairway-worker on a task queue of its own, which reaches the outside world through
// proxies of its own.
type worker struct {
	*lab.Part
	name string // of its task queue and deployment
	env  map[string]string
	// Endpoints to disturb this worker by.
	aws, kubernetes string
	registry        string // file
	kubeconfig      string // file
}

// startWorker starts a worker for a cluster. Settings change its configuration and environment.
func startWorker(t *testing.T, cluster string, settings ...func(*config.Config, map[string]string)) *worker {
	t.Helper()
	w := newWorker(t, cluster, settings...)
	w.start(t)
	return w
}

func newWorker(t *testing.T, cluster string, settings ...func(*config.Config, map[string]string)) *worker {
	t.Helper()
	name := nameOf(t)
	home := filepath.Join(dir, "workers", name)
	require.NoError(t, os.MkdirAll(home, 0o755))
	w := &worker{name: name, env: theLab.Env(), registry: filepath.Join(home, "registry.yaml"), kubeconfig: filepath.Join(home, "kubeconfig")}
	var err error
	w.aws, err = theLab.Branch("aws", name)
	require.NoError(t, err)
	w.kubernetes, err = theLab.Branch("kubernetes/"+cluster, name)
	require.NoError(t, err)

	c, err := config.Load(w.env["FAIRWAY_CONFIG"])
	require.NoError(t, err)
	registry, err := os.ReadFile(c.Registry.File)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(w.registry, registry, 0o644))
	access, err := clientcmd.LoadFromFile(c.Kubernetes.Kubeconfig)
	require.NoError(t, err)
	access.Clusters[cluster].Server = "https://" + theLab.Proxied(w.kubernetes)
	require.NoError(t, clientcmd.WriteToFile(*access, w.kubeconfig))

	c.TaskQueue, c.Worker.Deployment = name, name
	c.Registry.File, c.Kubernetes.Kubeconfig = w.registry, w.kubeconfig
	c.Repository, c.Forge, c.Pipeline, c.E2E = config.Repository{}, config.Forge{}, promotion.Pipeline{}, e2e.Defaults() // these clusters follow no channel
	c.Worker.Listen = fmt.Sprintf("127.0.0.1:%d", freePort(t))
	w.env["AWS_ENDPOINT_URL"] = "http://" + theLab.Proxied(w.aws)
	w.env["FAIRWAY_CONFIG"] = filepath.Join(home, "fairway.yaml")
	for _, set := range settings {
		set(&c, w.env)
	}
	data, err := yaml.Marshal(c)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(w.env["FAIRWAY_CONFIG"], data, 0o644))
	return w
}

// start starts the worker as a part of the lab, which has all that is needed to kill it.
func (w *worker) start(t *testing.T) {
	t.Helper()
	c, err := config.Load(w.env["FAIRWAY_CONFIG"])
	require.NoError(t, err)
	w.Part, err = theLab.Run(t.Context(), lab.Process{
		Name:       "worker/" + w.name,
		Command:    []string{product.Program("worker")},
		Env:        product.Environment(w.env),
		StopWithin: c.Worker.StopWithin + 10*time.Second,
		Ready:      func(ctx context.Context) error { return product.Answers(ctx, "http://"+c.Worker.Listen+"/readyz") },
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the end of the worker's log:\n%s", w.Tail(40))
		}
		require.NoError(t, w.Kill())
	})
}

func (w *worker) kill(t *testing.T) {
	t.Helper()
	require.NoError(t, w.Kill())
}

func (w *worker) restart(t *testing.T) {
	t.Helper()
	require.NoError(t, w.Restart(t.Context()))
}

// fairway runs the command line as an operator of this worker.
func (w *worker) fairway(t *testing.T, args ...string) answer {
	t.Helper()
	return fairway(t, w.env, args...)
}

// answer is what a program printed and the status it ended with.
type answer struct {
	stdout, stderr string
	status         int
	took           time.Duration
}

func fairway(t *testing.T, env map[string]string, args ...string) answer {
	t.Helper()
	return execute(t, env, product.Program("starter"), args...)
}

// execute runs a program to its end.
func execute(t *testing.T, env map[string]string, program string, args ...string) answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	start := time.Now()
	stdout, stderr, status, err := product.Execute(ctx, env, program, args...)
	require.NoError(t, err)
	return answer{stdout, stderr, status, time.Since(start)}
}

var lastPort atomic.Int32

// freePort finds a port that stays free while its worker is dead: below those that the kernel
// lends to outgoing connections, and below those of the lab. Where it begins to look depends on the
// process: another one may run these tests on the same machine.
func freePort(t *testing.T) int {
	t.Helper()
	const first, ports = 13000, 2000
	for tried := 0; ; tried++ {
		require.Less(t, tried, ports, "no free port is left")
		port := first + (37*os.Getpid()+int(lastPort.Add(1)))%ports
		if listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			require.NoError(t, listener.Close())
			return port
		}
	}
}
