package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// Phase is where a lab is in its life.
type Phase string

// The phases of a lab.
const (
	Starting Phase = "starting"
	Up       Phase = "up"
	Stopping Phase = "stopping"
)

var errStopped = errors.New("the lab was stopped")

// Start builds what is not up to date, starts all parts of a lab, creates the sample fleet and
// returns when every requested cluster has its nodes Ready and its applications running. ctx bounds the start, not the lab,
// which lives until Stop or the end of the calling process.
//
// A lab starts empty: its AWS account lives in memory, so the state that a former lab left in
// the directory would describe machines which no longer exist, and is deleted. Logs of the
// former lab stay in `log.previous`. If the start fails, all that was started is stopped. A lab
// that runs in the directory already is a *RunningError.
func Start(ctx context.Context, options Options) (*Lab, error) {
	return launch(ctx, options, (*Lab).start)
}

// StartControlPlane is Start for a lab that consists of one control plane, without nodes and
// without Temporal, AWS and forge.
func StartControlPlane(ctx context.Context, options Options, id string, cluster ClusterOptions) (*Lab, error) {
	return launch(ctx, options, func(l *Lab, ctx context.Context) error {
		if err := Build(ctx, l.out, "kcp", "kubectl", "kwok"); err != nil {
			return err
		}
		return l.StartClusterWith(ctx, id, cluster)
	})
}

// StartForge is Start for a lab that consists of the forge alone.
func StartForge(ctx context.Context, options Options) (*Lab, error) {
	return launch(ctx, options, func(l *Lab, ctx context.Context) error {
		if err := Build(ctx, l.out, "gitea"); err != nil {
			return err
		}
		return l.startForge(ctx)
	})
}

func launch(ctx context.Context, options Options, start func(*Lab, context.Context) error) (*Lab, error) {
	l, err := newLab(options)
	if err != nil {
		return nil, fmt.Errorf("starting the lab: %w", err)
	}
	starting, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(l.life, func() { cancel(context.Cause(l.life)) })()
	if err := start(l, starting); err != nil {
		if l.life.Err() != nil { // a part died or somebody asked to stop: that is the reason
			err = context.Cause(l.life)
		}
		return nil, fmt.Errorf("starting the lab: %w", errors.Join(err, l.Stop()))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.phase == Starting {
		l.phase = Up
	}
	return l, nil
}

// newLab takes possession of the directory and opens the control socket.
func newLab(options Options) (*Lab, error) {
	root, err := repositoryRoot()
	if err != nil {
		return nil, err
	}
	options.Delays.setDefaults()
	if options.Dir == "" {
		options.Dir = filepath.Join(root, ".lab")
	}
	dir, err := filepath.Abs(options.Dir)
	if err != nil {
		return nil, err
	}
	lock, err := takeDir(dir)
	if err != nil {
		return nil, err
	}
	log, err := openLog(dir)
	if err != nil {
		lock.Close()
		return nil, err
	}
	out := io.Writer(log)
	if options.Out != nil {
		out = io.MultiWriter(options.Out, log)
	}
	l := &Lab{
		options: options, root: root, dir: dir, lock: lock, log: log, out: out, started: time.Now(), phase: Starting,
		spawn: newSpawner(), proxies: newFaultProxies(), gone: make(chan struct{}),
		deaths: make(chan *Part, 100), clusters: map[string]*clusterState{},
	}
	l.life, l.end = context.WithCancelCause(context.Background())
	l.stop = sync.OnceValue(l.stopAll)
	if err := l.serveControl(); err != nil {
		return nil, errors.Join(err, log.Close(), lock.Close())
	}
	if err := l.startIngress(); err != nil {
		return nil, errors.Join(err, l.control.Close(), log.Close(), lock.Close())
	}
	return l, nil
}

// openLog opens the log of the lab itself, which is kept among those of its parts.
func openLog(dir string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Join(dir, "log"), 0o755); err != nil {
		return nil, err
	}
	return os.OpenFile(filepath.Join(dir, "log", "lab.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
}

func (l *Lab) start(ctx context.Context) error {
	if err := Prepare(ctx, l.out); err != nil {
		return err
	}
	group, groupCtx := errgroup.WithContext(ctx)
	for name, start := range map[string]func(context.Context) error{
		"Temporal": l.startTemporal, "AWS": l.startAWS, "the forge": l.startForge,
	} {
		group.Go(func() error { return l.timed(name+" is up", func() error { return start(groupCtx) }) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if err := l.startInstances(ctx); err != nil {
		return err
	}
	if err := l.writeKubeconfigs(); err != nil { // a lab without clusters has them too
		return err
	}
	if err := l.timed("the sample fleet is up", func() error { return l.seedFleet(ctx) }); err != nil {
		return err
	}
	return l.writeEnv()
}

// Prepare makes everything that labs share: the binaries and the Python environment of the AWS
// endpoint. It costs milliseconds when all is there.
func Prepare(ctx context.Context, out io.Writer) error {
	root, err := repositoryRoot()
	if err != nil {
		return err
	}
	if err := Build(ctx, out); err != nil {
		return err
	}
	if err := prepareAWS(ctx, root, out); err != nil {
		return fmt.Errorf("preparing the AWS endpoint: %w", err)
	}
	return nil
}

func (l *Lab) timed(what string, do func() error) error {
	start := time.Now()
	if err := do(); err != nil {
		return err
	}
	l.progress("%s (%.1f s)", what, time.Since(start).Seconds())
	return nil
}

// awaitNodes waits until a cluster has as many Ready nodes as its groups want instances.
func (l *Lab) awaitNodes(ctx context.Context, id string) error {
	const within = 3 * time.Minute
	ctx, cancel := context.WithTimeoutCause(ctx, within, fmt.Errorf("after %s", within))
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		ready, wanted, err := l.countNodes(ctx, id)
		if err == nil && wanted > 0 && ready == wanted {
			return nil
		}
		select {
		case <-ctx.Done():
			if err != nil {
				return fmt.Errorf("cluster %s has no nodes: %w (%w)", id, err, context.Cause(ctx))
			}
			return fmt.Errorf("cluster %s has %d of %d nodes Ready: %w; see the log of the part instances", id, ready, wanted, context.Cause(ctx))
		case <-tick.C:
		}
	}
}

func (l *Lab) countNodes(ctx context.Context, id string) (ready, wanted int, err error) {
	pages := autoscaling.NewDescribeAutoScalingGroupsPaginator(autoscaling.NewFromConfig(l.AWSConfig()), nil)
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return 0, 0, err
		}
		for _, group := range page.AutoScalingGroups {
			for _, tag := range group.Tags {
				if *tag.Key == "kubernetes.io/cluster/"+id {
					wanted += int(*group.DesiredCapacity)
				}
			}
		}
	}
	config, err := l.RESTConfig(id)
	if err != nil {
		return 0, 0, err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return 0, 0, err
	}
	nodes, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return 0, 0, err
	}
	for _, node := range nodes.Items {
		if slices.ContainsFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool {
			return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
		}) {
			ready++
		}
	}
	return ready, wanted, nil
}

// Stop ends all parts and waits until nothing runs any more. Only the first call does it, the
// others wait for that and return the same.
func (l *Lab) Stop() error { return l.stop() }

// Gone is closed when the lab has stopped, whoever asked for it.
func (l *Lab) Gone() <-chan struct{} { return l.gone }

func (l *Lab) stopAll() error {
	defer close(l.gone)
	l.mu.Lock()
	l.phase = Stopping
	l.mu.Unlock()
	l.end(errStopped)

	// The file promises a lab that answers.
	errs := []error{removeIfThere(l.path("env"))}
	// The next lab here starts empty, so there is nothing to end gracefully for.
	var kills errgroup.Group
	for _, part := range l.Parts() {
		part.close()
		kills.Go(part.Kill)
	}
	errs = append(errs, kills.Wait())
	// Requests that were being served have lost their parts, so this does not take long.
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := l.control.Shutdown(ctx); err != nil {
		errs = append(errs, l.control.Close())
	}
	errs = append(errs, l.ingress.close())
	l.proxies.close()
	close(l.spawn.requests)
	errs = append(errs, l.log.Close(), l.lock.Close())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("stopping the lab: %w", err)
	}
	return nil
}

func (l *Lab) currentPhase() Phase {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.phase
}
