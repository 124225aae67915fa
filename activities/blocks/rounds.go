package blocks

import (
	"context"
	"sync"
)

// rounds answers many callers with few requests, and never with an answer to a request that began
// before the caller asked: what was ordered by then is in it. While one request is under way, all
// who ask wait for the next.
type rounds[V any] struct {
	mu    sync.Mutex
	lines map[string]*line[V] // by what is asked for: at most as many as the fleet has actors
}

type line[V any] struct {
	turn chan struct{} // holds a token while a request is under way
	next *round[V]     // has not begun; nil if nobody waits
}

type round[V any] struct {
	done   chan struct{}
	answer V
	err    error
}

// ask returns when a request that begins from now on is answered, or when ctx ends. The answer is
// shared: callers must not change it.
func (r *rounds[V]) ask(ctx context.Context, key string, fetch func(context.Context) (V, error)) (V, error) {
	next := r.join(ctx, key, fetch)
	select {
	case <-next.done:
		return next.answer, next.err
	case <-ctx.Done():
		var none V
		return none, ctx.Err()
	}
}

func (r *rounds[V]) join(ctx context.Context, key string, fetch func(context.Context) (V, error)) *round[V] {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lines == nil {
		r.lines = map[string]*line[V]{}
	}
	l := r.lines[key]
	if l == nil {
		l = &line[V]{turn: make(chan struct{}, 1)}
		r.lines[key] = l
	}
	if l.next != nil {
		return l.next
	}
	next := &round[V]{done: make(chan struct{})}
	l.next = next
	ctx = context.WithoutCancel(ctx) // others wait for it, too
	go func() {
		l.turn <- struct{}{}
		defer func() { <-l.turn }()
		r.mu.Lock()
		l.next = nil
		r.mu.Unlock()
		defer close(next.done)
		next.answer, next.err = fetch(ctx)
	}()
	return next
}
