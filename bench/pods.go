package main

import (
	"context"
	"errors"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/fairway-project/fairway/drain"
)

// pods follows how many pods of each workload are ready. One on its way out is not: nobody
// sends requests to it any more.
type pods struct {
	stop    context.CancelFunc
	changed chan struct{}

	mu     sync.Mutex
	ready  map[string]map[types.UID]bool // by workload
	lowest int                           // since watchLeast
}

func watchPods(ctx context.Context, client kubernetes.Interface) (*pods, error) {
	ctx, stop := context.WithCancel(ctx)
	p := &pods{stop: stop, changed: make(chan struct{}, 1), ready: map[string]map[types.UID]bool{}}
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(namespace))
	handler, err := factory.Core().V1().Pods().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { p.note(object, false) },
		UpdateFunc: func(_, object any) { p.note(object, false) },
		DeleteFunc: func(object any) { p.note(object, true) },
	})
	if err != nil {
		stop()
		return nil, err
	}
	factory.StartWithContext(ctx)
	if !cache.WaitForCacheSync(ctx.Done(), handler.HasSynced) {
		stop()
		return nil, errors.Join(errors.New("watching pods"), context.Cause(ctx))
	}
	return p, nil
}

func (p *pods) note(object any, gone bool) {
	if unknown, missed := object.(cache.DeletedFinalStateUnknown); missed {
		object = unknown.Obj
	}
	pod := object.(*corev1.Pod)
	p.mu.Lock()
	defer p.mu.Unlock()
	of := p.ready[pod.Labels["app"]]
	if of == nil {
		of = map[types.UID]bool{}
		p.ready[pod.Labels["app"]] = of
	}
	if !gone && pod.DeletionTimestamp == nil && drain.Ready(pod) {
		of[pod.UID] = true
	} else {
		delete(of, pod.UID)
	}
	p.lowest = min(p.lowest, len(of))
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// awaitReady waits until so many pods are ready, all workloads together.
func (p *pods) awaitReady(ctx context.Context, wanted int) error {
	for {
		p.mu.Lock()
		count := 0
		for _, of := range p.ready {
			count += len(of)
		}
		p.mu.Unlock()
		if count == wanted {
			return nil
		}
		select {
		case <-p.changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// watchLeast begins to look for the smallest number of ready pods of any workload.
func (p *pods) watchLeast() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lowest = 1 << 30
	for _, of := range p.ready {
		p.lowest = min(p.lowest, len(of))
	}
}

func (p *pods) least() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lowest
}
