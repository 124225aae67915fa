package lab

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
)

// ingress stands for what kwok does not simulate: the way of a request to a pod. It listens at
// /<cluster>/<namespace>/<service>/ and chooses among the endpoints of the service as kube-proxy does. It
// answers 200 if the pod that it has chosen would, and 502 if it would not; 503 without endpoints.
type ingress struct {
	lab    *Lab
	server *http.Server
	url    string

	mu     sync.Mutex
	routes map[string]*routes // by cluster
}

// routes are what the ingress knows of a cluster.
type routes struct {
	host   string // of the API server: a cluster of the same name that was made anew is another one
	stop   context.CancelFunc
	synced func() bool
	slices discoverylisters.EndpointSliceLister
	pods   corelisters.PodLister
	nodes  corelisters.NodeLister
	turn   atomic.Uint64
}

// IngressURL is where services of all clusters are reached: followed by /<cluster>/<namespace>/<service>/.
func (l *Lab) IngressURL() string { return l.ingress.url }

func (l *Lab) startIngress() error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("opening the ingress: %w", err)
	}
	i := &ingress{lab: l, url: "http://" + listener.Addr().String(), routes: map[string]*routes{}}
	mux := http.NewServeMux()
	mux.HandleFunc("/{cluster}/{namespace}/{service}/", i.serve)
	i.server = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	l.ingress = i
	go func() { _ = i.server.Serve(listener) }()
	return nil
}

func (i *ingress) close() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, r := range i.routes {
		r.stop()
	}
	return i.server.Close()
}

// forget ends the watches of a cluster that is gone.
func (i *ingress) forget(cluster string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if r := i.routes[cluster]; r != nil {
		r.stop()
		delete(i.routes, cluster)
	}
}

func (i *ingress) serve(w http.ResponseWriter, request *http.Request) {
	r, err := i.to(request.PathValue("cluster"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	endpoint, err := r.choose(request.PathValue("namespace"), request.PathValue("service"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	if err := r.answers(endpoint.TargetRef.Namespace, endpoint.TargetRef.Name, time.Now()); err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	fmt.Fprintln(w, endpoint.TargetRef.Name)
}

// to watches a cluster from the first request on.
func (i *ingress) to(cluster string) (*routes, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	access, err := i.lab.RESTConfig(cluster) // under the lock: else forget might come before what it has to forget
	if err != nil {
		return nil, err
	}
	known := i.routes[cluster]
	if known != nil && known.host != access.Host {
		known.stop()
		known = nil
	}
	if known == nil {
		client, err := kubernetes.NewForConfig(access)
		if err != nil {
			return nil, err
		}
		factory := informers.NewSharedInformerFactory(client, 0)
		known = &routes{
			host: access.Host, slices: factory.Discovery().V1().EndpointSlices().Lister(),
			pods: factory.Core().V1().Pods().Lister(), nodes: factory.Core().V1().Nodes().Lister(),
		}
		endpointSlices, pods, nodes := factory.Discovery().V1().EndpointSlices().Informer(), factory.Core().V1().Pods().Informer(), factory.Core().V1().Nodes().Informer()
		known.synced = func() bool { return endpointSlices.HasSynced() && pods.HasSynced() && nodes.HasSynced() }
		ctx, stop := context.WithCancel(i.lab.life)
		known.stop = stop
		factory.Start(ctx.Done())
		i.routes[cluster] = known
	}
	if !known.synced() {
		return nil, fmt.Errorf("the ingress does not know cluster %s yet", cluster)
	}
	return known, nil
}

// choose takes the next of the endpoints that are ready or, if none is, of those that still serve while they
// end (https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/#conditions).
func (r *routes) choose(namespace, service string) (discoveryv1.Endpoint, error) {
	found, err := r.slices.EndpointSlices(namespace).List(labels.SelectorFromSet(labels.Set{discoveryv1.LabelServiceName: service}))
	if err != nil {
		return discoveryv1.Endpoint{}, err
	}
	var ready, ending []discoveryv1.Endpoint
	for _, slice := range found {
		for _, endpoint := range slice.Endpoints {
			switch is := endpoint.Conditions; {
			case endpoint.TargetRef == nil || endpoint.TargetRef.Kind != "Pod":
			case is.Ready == nil || *is.Ready:
				ready = append(ready, endpoint)
			case is.Serving != nil && *is.Serving:
				ending = append(ending, endpoint)
			}
		}
	}
	if len(ready) == 0 {
		ready = ending
	}
	if len(ready) == 0 {
		return discoveryv1.Endpoint{}, fmt.Errorf("service %s/%s has no endpoint", namespace, service)
	}
	return ready[r.turn.Add(1)%uint64(len(ready))], nil
}

// answers says why a pod does not answer; nil if it does. One that is being deleted answers until its grace
// period is over, which is what a deletion timestamp means.
func (r *routes) answers(namespace, name string, now time.Time) error {
	pod, err := r.pods.Pods(namespace).Get(name)
	if err != nil {
		return err
	}
	switch {
	case pod.Status.Phase != corev1.PodRunning:
		return fmt.Errorf("pod %s is %s", name, pod.Status.Phase)
	case pod.DeletionTimestamp != nil && now.After(pod.DeletionTimestamp.Time):
		return fmt.Errorf("pod %s has ended", name)
	}
	node, err := r.nodes.Get(pod.Spec.NodeName)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	}) {
		return fmt.Errorf("node %s of pod %s is not ready", node.Name, name)
	}
	return nil
}
