// Package kube holds the activities that speak to the API servers of clusters.
package kube

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/flowcontrol"

	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/registry"
)

// Clusters hands out access to API servers, in the way that `kubernetes.access` names. It is safe
// for concurrent use.
type Clusters struct {
	// Find resolves a registry id or alias.
	Find func(ctx context.Context, name string) (registry.Cluster, error)
	// Settings are the `kubernetes` part of the configuration.
	Settings config.Kubernetes
	// AWS is access to the AWS account of a cluster. Only `access: eks` needs it.
	AWS func(context.Context, registry.Cluster) (aws.Config, error)

	mu    sync.Mutex
	known map[string]*entrance // by id
}

// entrance is where access to one cluster is made, once for all who ask at the same time.
type entrance struct {
	mu       sync.Mutex
	cluster  *cluster
	madeFrom string    // what the cluster's access was made from; another text means to make it anew
	eks      eksAnswer // of the last question about the endpoint
}

// cluster is access to one API server. All its clients share one rate limit.
type cluster struct {
	id     string
	rest   *rest.Config // without a timeout; for copies only
	client kubernetes.Interface
	// evictions never retries by itself: client-go would sleep silently for as long as a
	// refused eviction's Retry-After says.
	evictions rest.Interface
	view      sharedView
	departed  departures
}

// REST returns how the API server of a cluster is reached, and the cluster's entry. The
// configuration has no timeout, and its rate limit is shared with everybody else who works on the
// cluster. It must not be changed, only copied.
func (c *Clusters) REST(ctx context.Context, name string) (*rest.Config, registry.Cluster, error) {
	entry, err := c.Find(ctx, name)
	if err != nil {
		return nil, registry.Cluster{}, err
	}
	known, err := c.enter(ctx, entry)
	if err != nil {
		return nil, registry.Cluster{}, err
	}
	return known.rest, entry, nil
}

func (c *Clusters) get(ctx context.Context, name string) (*cluster, error) {
	entry, err := c.Find(ctx, name)
	if err != nil {
		return nil, err
	}
	return c.enter(ctx, entry)
}

func (c *Clusters) enter(ctx context.Context, entry registry.Cluster) (*cluster, error) {
	c.mu.Lock()
	if c.known == nil {
		c.known = map[string]*entrance{}
	}
	if c.known[entry.ID] == nil {
		c.known[entry.ID] = &entrance{}
	}
	e := c.known[entry.ID]
	c.mu.Unlock()

	// Only those who want the same cluster wait while AWS is asked about it.
	e.mu.Lock()
	defer e.mu.Unlock()
	way, err := c.way(ctx, entry, e)
	if err != nil {
		return nil, err
	}
	if e.cluster != nil && e.madeFrom == way.madeFrom {
		return e.cluster, nil
	}
	restConfig, err := way.make()
	if err != nil {
		return nil, invalid("cluster %s: %s: %v", entry.ID, way.name, err)
	}
	fresh, err := c.connect(entry.ID, restConfig)
	if err != nil {
		return nil, invalid("cluster %s: %s: %v", entry.ID, way.name, err)
	}
	e.cluster, e.madeFrom = fresh, way.madeFrom
	return fresh, nil
}

// answerWithin bounds a request that is no watch. It is less than whoever waits for the activity
// is patient, so that the API server is named and not the worker.
const answerWithin = 12 * time.Second

func (c *Clusters) connect(id string, restConfig *rest.Config) (*cluster, error) {
	restConfig.UserAgent = "fairway"
	// The default of 5 requests a second would make a drain nine times slower than the API server.
	restConfig.RateLimiter = flowcontrol.NewTokenBucketRateLimiter(c.Settings.QPS, c.Settings.Burst)
	fresh := &cluster{id: id, rest: rest.CopyConfig(restConfig), view: sharedView{cluster: id}}
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
