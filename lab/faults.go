package lab

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// faultProxies are the proxies in front of the lab's endpoints. They run inside the supervisor, so
// that a fault needs no other process to be up. (They are our own because Toxiproxy's newest
// module, 2.5.0, can hang for minutes when a delay is removed while clients disconnect.)
type faultProxies struct {
	mu        sync.Mutex
	endpoints map[string]*endpoint
}

// endpoint is an address of the lab with the proxy in front of it.
type endpoint struct {
	name  string
	proxy *proxy

	mu       sync.Mutex // held while faults change
	upstream string
	faults   map[string]string // kind to description
	heal     *time.Timer       // ends the faults by itself; nil if none is due
}

func newFaultProxies() *faultProxies { return &faultProxies{endpoints: map[string]*endpoint{}} }

// endpoint puts a proxy called name in front of upstream ("127.0.0.1:port"). Called again with
// another upstream it re-points the proxy, whose own port and faults stay.
func (l *Lab) endpoint(name, upstream string) error {
	l.proxies.mu.Lock()
	defer l.proxies.mu.Unlock()
	if e := l.proxies.endpoints[name]; e != nil {
		e.repoint(upstream)
		return nil
	}
	proxy, err := listenSomewhere(upstream)
	if err != nil {
		return fmt.Errorf("starting the proxy of %s: %w", name, err)
	}
	l.proxies.endpoints[name] = &endpoint{name: name, proxy: proxy, upstream: upstream, faults: map[string]string{}}
	return nil
}

// listenSomewhere starts a proxy on a free port, and on another one if a program that does not
// reserve its ports was faster.
func listenSomewhere(upstream string) (*proxy, error) {
	for tries := 1; ; tries++ {
		port, err := freePort()
		if err != nil {
			return nil, err
		}
		started, err := newProxy(fmt.Sprintf("127.0.0.1:%d", port), upstream)
		if err == nil || tries == 5 || !errors.Is(err, syscall.EADDRINUSE) {
			return started, err
		}
	}
}

// Branch puts one more proxy in front of an endpoint, for a program that is to be disturbed while
// all others are not. It is an endpoint of the returned name and lives as long as the lab.
func (l *Lab) Branch(endpoint, branch string) (name string, err error) {
	if _, err := l.findEndpoint(endpoint); err != nil {
		return "", err
	}
	name = endpoint + "@" + branch
	return name, l.endpoint(name, l.Direct(endpoint))
}

// removeEndpoint ends the proxy of an endpoint; one that is not there is fine.
func (l *Lab) removeEndpoint(name string) {
	l.proxies.mu.Lock()
	e := l.proxies.endpoints[name]
	delete(l.proxies.endpoints, name)
	l.proxies.mu.Unlock()
	if e != nil {
		e.remove()
	}
}

func (l *Lab) findEndpoint(name string) (*endpoint, error) {
	l.proxies.mu.Lock()
	defer l.proxies.mu.Unlock()
	if e := l.proxies.endpoints[name]; e != nil {
		return e, nil
	}
	names := slices.Sorted(maps.Keys(l.proxies.endpoints))
	return nil, fmt.Errorf("%w %q; there are: %s", errNoEndpoint, name, strings.Join(names, ", "))
}

var errNoEndpoint = errors.New("no endpoint")

// Direct is the address ("127.0.0.1:port") of an endpoint past its proxy, which faults do not
// touch; empty if there is no such endpoint. Endpoints are "temporal", "temporal-ui", "aws",
// "forge", "kubernetes/<cluster id>" and, where it was started, "prometheus".
func (l *Lab) Direct(name string) string {
	e, err := l.findEndpoint(name)
	if err != nil {
		return ""
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.upstream
}

// Proxied is the address ("127.0.0.1:port") of an endpoint through its proxy, the one that the
// product gets and that faults apply to; empty if there is no such endpoint.
func (l *Lab) Proxied(name string) string {
	e, err := l.findEndpoint(name)
	if err != nil {
		return ""
	}
	return e.proxy.address
}

// Fault disturbs what goes through the proxy of one endpoint. Different faults add up, the same
// one again replaces its former values, Heal ends them all. Every method fails with a list of
// the endpoints if there is none of this name.
type Fault struct {
	lab  *Lab
	name string
}

// Fault is the handle on the faults of an endpoint; Direct lists the names.
func (l *Lab) Fault(name string) *Fault { return &Fault{lab: l, name: name} }

// Cut closes all connections and refuses new ones.
func (f *Fault) Cut() error { return f.apply((*endpoint).cut) }

// Blackhole accepts connections and lets nothing through in either direction. Heal closes the
// connections that were held up.
func (f *Fault) Blackhole() error {
	return f.disturb("blackhole", "", func(t *trouble) { t.blackhole = true })
}

// Delay lets answers arrive later by delay, give or take jitter, both in whole milliseconds.
func (f *Fault) Delay(delay, jitter time.Duration) error {
	if delay < time.Millisecond || jitter < 0 || jitter > delay {
		return fmt.Errorf("delaying %s by %s with jitter %s: delay must be at least 1ms and jitter between 0 and it", f.name, delay, jitter)
	}
	return f.disturb("delay", fmt.Sprintf("%s ± %s", delay, jitter), func(t *trouble) { t.delay, t.jitter = delay, jitter })
}

// Throttle limits every connection in each direction to bytesPerSecond.
func (f *Fault) Throttle(bytesPerSecond int) error {
	if bytesPerSecond < 1000 {
		return fmt.Errorf("throttling %s to %d bytes per second: at least 1000 are needed", f.name, bytesPerSecond)
	}
	return f.disturb("throttle", fmt.Sprintf("%d bytes/s", bytesPerSecond), func(t *trouble) { t.rate = bytesPerSecond })
}

func (f *Fault) disturb(fault, detail string, change func(*trouble)) error {
	return f.apply(func(e *endpoint) error {
		e.proxy.disturb(change)
		e.faults[fault] = strings.TrimSpace(fault + " " + detail)
		return nil
	})
}

// Heal ends all faults of the endpoint.
func (f *Fault) Heal() error { return f.apply((*endpoint).healNow) }

// HealAfter ends all faults of the endpoint in the given time, unless another fault or Heal
// comes first.
func (f *Fault) HealAfter(after time.Duration) error {
	return f.apply(func(e *endpoint) error {
		var timer *time.Timer
		timer = time.AfterFunc(after, func() {
			e.mu.Lock()
			defer e.mu.Unlock()
			if e.heal == timer { // nothing else was asked for meanwhile
				e.heal = nil
				_ = e.healNow()
			}
		})
		e.heal = timer
		return nil
	})
}

func (f *Fault) apply(change func(*endpoint) error) error {
	e, err := f.lab.findEndpoint(f.name)
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.heal != nil {
		e.heal.Stop()
		e.heal = nil
	}
	if err := change(e); err != nil {
		return fmt.Errorf("changing the faults of %s: %w", f.name, err)
	}
	return nil
}

func (e *endpoint) cut() error {
	e.proxy.close()
	e.faults["cut"] = "cut"
	return nil
}

func (e *endpoint) healNow() error {
	e.proxy.disturb(func(t *trouble) { *t = trouble{} })
	clear(e.faults)
	return e.proxy.open()
}

func (e *endpoint) repoint(upstream string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if upstream != e.upstream {
		e.upstream = upstream
		e.proxy.repoint(upstream)
	}
}

func (e *endpoint) remove() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.heal != nil {
		e.heal.Stop()
	}
	e.proxy.close()
}

func (p *faultProxies) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.endpoints {
		e.remove()
	}
}
