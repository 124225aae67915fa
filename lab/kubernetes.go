package lab

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/fairway-project/fairway/e2e"
)

// ClusterOptions change how a control plane runs. The zero value suits tests.
type ClusterOptions struct {
	// StockControllerManager leaves kube-controller-manager and kube-scheduler at their own
	// request limits (20 and 50 a second), which production has and benchmarks compare with.
	// Without it both are practically unlimited.
	StockControllerManager bool
}

// clusterState is a cluster of the lab from the start of its control plane to its end. Its
// ports, keys and tokens stay the same whatever dies in between.
type clusterState struct {
	id      string
	dir     string
	options ClusterOptions

	mu    sync.Mutex // held while the control plane is started or stopped
	ports clusterPorts
	creds *clusterCredentials // nil before the first start
	up    bool                // it has served: it has an endpoint and is in the kubeconfigs
	gone  bool                // it was stopped; a cluster of the same id is another one
}

var clusterID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9:._-]*$`)

// StartCluster starts the control plane and the simulated kubelets of a cluster and returns when
// it serves, with Fairway's access rules applied. It is a no-op on a cluster that runs, and
// starts what is dead of one that was up, with its data and on the same ports. Its parts are
// kubernetes/<id>/etcd, kube-apiserver, kube-controller-manager, kube-scheduler and kwok.
func (l *Lab) StartCluster(ctx context.Context, id string) error {
	return l.StartClusterWith(ctx, id, ClusterOptions{})
}

// StartClusterWith is StartCluster with options. They count for a new cluster only.
func (l *Lab) StartClusterWith(ctx context.Context, id string, options ClusterOptions) error {
	if !clusterID.MatchString(id) {
		return fmt.Errorf("starting cluster %q: an id starts with a letter or digit and goes on with these or any of : . _ -", id)
	}
	c := l.knowCluster(id, options)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone { // stopped while this call waited
		return l.StartClusterWith(ctx, id, options)
	}
	if err := l.startCluster(ctx, c); err != nil {
		if !c.up {
			err = errors.Join(err, l.forgetCluster(c))
		}
		return fmt.Errorf("starting cluster %s: %w", id, err)
	}
	return nil
}

func (l *Lab) knowCluster(id string, options ClusterOptions) *clusterState {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.clusters[id]; c != nil {
		return c
	}
	c := &clusterState{id: id, dir: l.path("kubernetes", id), options: options}
	l.clusters[id] = c
	return c
}

func (l *Lab) startCluster(ctx context.Context, c *clusterState) error {
	if c.creds == nil {
		if err := l.layOut(c); err != nil {
			return err
		}
	}
	if err := l.runParts(ctx, c.etcd(l)); err != nil {
		return err
	}
	if err := l.runParts(ctx, c.apiServer(l)); err != nil {
		return err
	}
	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(func() error {
		return l.runParts(groupCtx, c.controllerManager(l), c.scheduler(l), c.kwok(l))
	})
	if !c.up {
		group.Go(func() error { return l.furnish(groupCtx, c) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if c.up {
		return nil
	}
	if err := l.endpoint(c.endpoint(), c.address()); err != nil {
		return err
	}
	c.setUp(l, true)
	return l.writeKubeconfigs()
}

// layOut gives a new cluster its directory, ports, keys and configuration files.
func (l *Lab) layOut(c *clusterState) error {
	if err := os.RemoveAll(c.dir); err != nil {
		return err
	}
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return err
	}
	if err := c.ports.allocate(); err != nil {
		return err
	}
	if err := l.writeStages(c.path("stages.yaml")); err != nil {
		return err
	}
	creds, err := newClusterCredentials(c)
	if err != nil {
		return err
	}
	c.creds = creds
	return nil
}

// runParts starts those parts that do not run, all at once.
func (l *Lab) runParts(ctx context.Context, processes ...Process) error {
	var group errgroup.Group
	for _, process := range processes {
		group.Go(func() error {
			part := l.Part(process.Name)
			switch {
			case part == nil:
				_, err := l.Run(ctx, process)
				return err
			case part.Running():
				return nil
			default:
				return part.Restart(ctx)
			}
		})
	}
	return group.Wait()
}

// furnish applies what every cluster of the fleet has and waits until pods can be created.
func (l *Lab) furnish(ctx context.Context, c *clusterState) error {
	rbac := filepath.Join(l.root, "deploy", "kubernetes") // all of it
	own := filepath.Join(l.root, "lab", "kubernetes", "manifests.yaml")
	apply := []string{"--kubeconfig=" + c.kubeconfig("admin"), "apply", "--server-side", "-f", rbac, "-f", own}
	if strings.HasPrefix(c.id, e2e.Prefix) {
		apply = append(apply, "-f", filepath.Join(l.root, "lab", "kubernetes", "test-clusters.yaml"))
	}
	if _, err := run(ctx, c.dir, []string{"KUBECACHEDIR=" + c.path("kubectl")}, l.bin("kubectl"), apply...); err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(c.restConfig("admin"))
	if err != nil {
		return err
	}
	const within = 60 * time.Second
	ctx, cancel := context.WithTimeoutCause(ctx, within, fmt.Errorf("the controller manager has made no default service account within %s", within))
	defer cancel()
	err = wait.PollUntilContextCancel(ctx, 50*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		_, err := client.CoreV1().ServiceAccounts(metav1.NamespaceDefault).Get(ctx, "default", metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return false, nil
		}
		return err == nil, err
	})
	if err != nil {
		return errors.Join(err, context.Cause(ctx))
	}
	return nil
}

// StopCluster ends a cluster for good: its processes, its endpoint and its data. A cluster that
// is not there is fine.
func (l *Lab) StopCluster(_ context.Context, id string) error {
	l.mu.Lock()
	c := l.clusters[id]
	l.mu.Unlock()
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := l.forgetCluster(c); err != nil {
		return fmt.Errorf("stopping cluster %s: %w", id, err)
	}
	return nil
}

func (l *Lab) forgetCluster(c *clusterState) error {
	if c.gone {
		return nil
	}
	c.gone = true
	l.mu.Lock()
	delete(l.clusters, c.id)
	l.mu.Unlock()
	l.ingress.forget(c.id)
	var errs []error
	if c.up {
		c.setUp(l, false)
		errs = append(errs, l.writeKubeconfigs())
		l.removeEndpoint(c.endpoint())
	}
	// Nobody will miss the data, so there is nothing to end gracefully for.
	var kills errgroup.Group
	for _, name := range c.partNames() {
		if part := l.Part(name); part != nil {
			kills.Go(part.Kill)
		}
	}
	errs = append(errs, kills.Wait(), l.remove(c.partNames()...), os.RemoveAll(c.dir))
	return errors.Join(errs...)
}

// PauseCluster stops all processes of a cluster where they are, as a suspended machine would:
// they keep their connections and answer nobody.
func (l *Lab) PauseCluster(id string) error {
	return l.eachPart(id, "pausing", (*Part).Pause)
}

// ResumeCluster undoes PauseCluster.
func (l *Lab) ResumeCluster(id string) error {
	return l.eachPart(id, "resuming", (*Part).Resume)
}

func (l *Lab) eachPart(id, doing string, do func(*Part) error) error {
	c, err := l.upCluster(id)
	if err != nil {
		return fmt.Errorf("%s a cluster: %w", doing, err)
	}
	for _, name := range c.partNames() {
		part := l.Part(name)
		if part == nil {
			return fmt.Errorf("%s cluster %s: it is being stopped", doing, id)
		}
		if err := do(part); err != nil {
			return fmt.Errorf("%s cluster %s: %w", doing, id, err)
		}
	}
	return nil
}

// RestartControllers restarts kube-controller-manager and kube-scheduler of a cluster. When the
// API server or etcd was away, both look again after a pause that grows with every failure to
// as much as a minute, as everywhere; this spares a test that wait.
func (l *Lab) RestartControllers(ctx context.Context, id string) error {
	c, err := l.upCluster(id)
	if err != nil {
		return fmt.Errorf("restarting controllers: %w", err)
	}
	var group errgroup.Group
	for _, name := range []string{"kube-controller-manager", "kube-scheduler"} {
		part := l.Part(c.part(name))
		if part == nil {
			return fmt.Errorf("restarting controllers of cluster %s: it is being stopped", id)
		}
		group.Go(func() error { return part.Restart(ctx) })
	}
	return group.Wait()
}

// RESTConfig is the access of the user admin to a cluster over its direct address, which faults
// do not touch.
func (l *Lab) RESTConfig(id string) (*rest.Config, error) {
	return l.RESTConfigAs(id, "admin")
}

// RESTConfigAs is RESTConfig for another user: admin, fairway or viewer.
func (l *Lab) RESTConfigAs(id, user string) (*rest.Config, error) {
	c, err := l.upCluster(id)
	if err != nil {
		return nil, err
	}
	if c.creds.tokens[user] == "" {
		return nil, fmt.Errorf("cluster %s has no user %q", id, user)
	}
	return c.restConfig(user), nil
}

// upCluster finds a cluster that has been up.
func (l *Lab) upCluster(id string) (*clusterState, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.clusters[id]; c != nil && c.up {
		return c, nil
	}
	return nil, fmt.Errorf("no control plane of cluster %q runs in the lab", id)
}

func (c *clusterState) setUp(l *Lab, up bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c.up = up
}

// writeKubeconfigs writes the files with a context for each cluster: one for an administrator,
// one for Fairway. Both lead through the proxies.
func (l *Lab) writeKubeconfigs() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for file, user := range map[string]string{"kubeconfig": "admin", "kubeconfig-fairway": "fairway"} {
		config := clientcmdapi.NewConfig()
		for _, id := range slices.Sorted(maps.Keys(l.clusters)) {
			if c := l.clusters[id]; c.up {
				c.addTo(config, user, l.Proxied(c.endpoint()))
			}
		}
		data, err := clientcmd.Write(*config)
		if err != nil {
			return fmt.Errorf("writing %s: %w", file, err)
		}
		if err := writeFile(l.path(file), data, 0o600); err != nil {
			return fmt.Errorf("writing %s: %w", file, err)
		}
	}
	return nil
}

func (c *clusterState) endpoint() string { return "kubernetes/" + c.id }

func (c *clusterState) address() string { return fmt.Sprintf("127.0.0.1:%d", c.ports.apiServer) }

func (c *clusterState) path(name string) string { return filepath.Join(c.dir, name) }
