package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

// cluster keeps the nodes and volumes of one cluster in step with its instances.
type cluster struct {
	id      string
	options options
	cloud   *cloud
	stop    context.CancelFunc

	mu        sync.Mutex
	instances map[string]instance
	ended     map[string]time.Time // when the bridge saw of an instance that it is gone
}

func newCluster(id string, options options, cloud *cloud) *cluster {
	return &cluster{id: id, options: options, cloud: cloud, ended: map[string]time.Time{}}
}

// show tells the cluster which instances it has now.
func (c *cluster) show(instances map[string]instance) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id := range c.instances {
		if _, there := instances[id]; !there {
			c.ended[id] = time.Now()
		}
	}
	c.instances = instances
}

// start works until stop is called.
func (c *cluster) start(ctx context.Context) {
	ctx, c.stop = context.WithCancel(ctx)
	go func() {
		trouble := trouble{what: "cluster " + c.id}
		for ctx.Err() == nil {
			if err := c.connectAndWork(ctx, &trouble); ctx.Err() == nil {
				trouble.report(err)
			}
			select {
			case <-ctx.Done():
			case <-time.After(c.options.interval):
			}
		}
	}()
}

// session is a connection to an API server with what is known of its objects.
type session struct {
	*cluster
	client  kubernetes.Interface
	nodes   corelisters.NodeLister
	volumes *volumes
}

// connectAndWork works until the connection to the API server is lost. A new one starts with a
// fresh kubeconfig and without the growing delays of informers that have failed.
func (c *cluster) connectAndWork(ctx context.Context, trouble *trouble) error {
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(c.options.clusters, c.id, "admin.kubeconfig"))
	if err != nil {
		return err
	}
	config.UserAgent, config.QPS = "lab-instances", -1
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	if _, err := client.Discovery().RESTClient().Get().AbsPath("/readyz").Timeout(5 * time.Second).DoRaw(ctx); err != nil {
		return errors.New("its API server is not ready")
	}
	trouble.report(nil)

	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	factory := informers.NewSharedInformerFactory(client, 0)
	s := &session{cluster: c, client: client, nodes: factory.Core().V1().Nodes().Lister()}
	s.volumes = newVolumes(s, factory)
	for _, informer := range append(s.volumes.informers, factory.Core().V1().Nodes().Informer()) {
		if err := informer.SetWatchErrorHandler(func(_ *cache.Reflector, err error) {
			if !errors.Is(err, io.EOF) && !apierrors.IsResourceExpired(err) && !apierrors.IsGone(err) {
				end(fmt.Errorf("watching: %w", err))
			}
		}); err != nil {
			return err
		}
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	tick := time.NewTicker(c.options.interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
			trouble.report(s.reconcile(ctx))
		}
	}
}

func (s *session) reconcile(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	return errors.Join(s.reconcileNodes(ctx, time.Now()), s.volumes.reconcile(ctx))
}
