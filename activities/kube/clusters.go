// Package kube holds the activities that speak to the API servers of clusters.
package kube

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/flowcontrol"

	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/registry"
)

// Clusters hands out access to API servers: credentials from the kubeconfig context that is
// named like the cluster's id. It is safe for concurrent use.
type Clusters struct {
	// Find resolves a registry id or alias.
	Find func(ctx context.Context, name string) (registry.Cluster, error)
	// Settings are the `kubernetes` part of the configuration.
	Settings config.Kubernetes

	mu    sync.Mutex
	known map[string]*cluster
}

// cluster is access to one API server. All its clients share one rate limit.
type cluster struct {
	id     string
	client kubernetes.Interface
	// evictions never retries by itself: client-go would sleep silently for as long as a
	// refused eviction's Retry-After says.
	evictions rest.Interface
	view      sharedView
	departed  departures
	readAt    time.Time // modification time of the kubeconfig that this came from
}

func (c *Clusters) get(ctx context.Context, name string) (*cluster, error) {
	entry, err := c.Find(ctx, name)
	if err != nil {
		return nil, err
	}
	path := c.Settings.Kubeconfig
	file, err := os.Stat(path)
	if err != nil {
		return nil, invalid("reading the kubeconfig: %v", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if known := c.known[entry.ID]; known != nil && known.readAt.Equal(file.ModTime()) {
		return known, nil
	}
	restConfig, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(
		&clientcmd.ClientConfigLoadingRules{ExplicitPath: path},
		&clientcmd.ConfigOverrides{CurrentContext: entry.ID},
	).ClientConfig()
	if err != nil {
		return nil, invalid("cluster %s: kubeconfig %s, context %q: %v", entry.ID, path, entry.ID, err)
	}
	fresh, err := c.connect(entry.ID, restConfig)
	if err != nil {
		return nil, invalid("cluster %s: kubeconfig %s, context %q: %v", entry.ID, path, entry.ID, err)
	}
	fresh.readAt = file.ModTime()
	if c.known == nil {
		c.known = map[string]*cluster{}
	}
	c.known[entry.ID] = fresh
	return fresh, nil
}

// answerWithin bounds a request that is no watch. It is less than whoever waits for the activity
// is patient, so that the API server is named and not the worker.
const answerWithin = 12 * time.Second

func (c *Clusters) connect(id string, restConfig *rest.Config) (*cluster, error) {
	restConfig.UserAgent = "fairway"
	// The default of 5 requests a second would make a drain nine times slower than the API server.
	restConfig.RateLimiter = flowcontrol.NewTokenBucketRateLimiter(c.Settings.QPS, c.Settings.Burst)
	fresh := &cluster{id: id, view: sharedView{cluster: id}}
	watching := rest.CopyConfig(restConfig)
	watching.Wrap(func(next http.RoundTripper) http.RoundTripper { return wire{next, fresh.view.answered} })
	restConfig.Timeout = answerWithin
	var err error
	if fresh.view.client, err = kubernetes.NewForConfig(watching); err != nil {
		return nil, fmt.Errorf("building a client: %w", err)
	}
	if fresh.client, err = kubernetes.NewForConfig(restConfig); err != nil {
		return nil, fmt.Errorf("building a client: %w", err)
	}
	fresh.evictions = fresh.client.CoreV1().RESTClient()
	return fresh, nil
}
