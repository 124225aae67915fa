package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
)

// faultProxies are the proxies in front of the lab's endpoints. Toxiproxy runs inside the
// supervisor, so that a fault needs no other process to be up.
type faultProxies struct {
	server *toxiproxy.ApiServer

	mu        sync.Mutex
	endpoints map[string]*endpoint
}

// endpoint is an address of the lab with the proxy in front of it.
type endpoint struct {
	name   string
	listen string // the proxy's address
	proxy  *toxiproxy.Proxy

	mu       sync.Mutex // held while faults change
	upstream string
	faults   map[string]string // kind to description
	heal     *time.Timer       // ends the faults by itself; nil if none is due
}

func newFaultProxies() *faultProxies {
	// Some toxics log to zerolog's global logger. Nothing else here uses zerolog.
	zerolog.SetGlobalLevel(zerolog.Disabled)
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	return &faultProxies{server: server, endpoints: map[string]*endpoint{}}
}

// endpoint puts a proxy called name in front of upstream ("127.0.0.1:port"). Called again with
// another upstream it re-points the proxy, whose own port and faults stay.
func (l *Lab) endpoint(name, upstream string) error {
	l.proxies.mu.Lock()
	defer l.proxies.mu.Unlock()
	if e := l.proxies.endpoints[name]; e != nil {
		return e.repoint(upstream)
	}
	port, err := freePort()
	if err != nil {
		return fmt.Errorf("starting the proxy of %s: %w", name, err)
	}
	listen := fmt.Sprintf("127.0.0.1:%d", port)
	proxy := toxiproxy.NewProxy(l.proxies.server, name, listen, upstream)
	if err := proxy.Start(); err != nil {
		return fmt.Errorf("starting the proxy of %s: %w", name, err)
	}
	l.proxies.endpoints[name] = &endpoint{
		name: name, listen: listen, proxy: proxy, upstream: upstream, faults: map[string]string{},
	}
	return nil
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
// "forge" and "kubernetes/<cluster id>".
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
	return e.listen
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
	return f.apply(func(e *endpoint) error {
		return e.addToxics("blackhole", "", "timeout", map[string]int64{"timeout": 0}, "upstream", "downstream")
	})
}

// Delay lets answers arrive later by delay, give or take jitter, both in whole milliseconds.
func (f *Fault) Delay(delay, jitter time.Duration) error {
	if delay < time.Millisecond || jitter < 0 || jitter > delay {
		return fmt.Errorf("delaying %s by %s with jitter %s: delay must be at least 1ms and jitter between 0 and it", f.name, delay, jitter)
	}
	return f.apply(func(e *endpoint) error {
		values := map[string]int64{"latency": delay.Milliseconds(), "jitter": jitter.Milliseconds()}
		return e.addToxics("delay", fmt.Sprintf("%s ± %s", delay, jitter), "latency", values, "downstream")
	})
}

// Throttle limits every connection in each direction to bytesPerSecond, in steps of 1000.
func (f *Fault) Throttle(bytesPerSecond int) error {
	if bytesPerSecond < 1000 {
		return fmt.Errorf("throttling %s to %d bytes per second: at least 1000 are needed", f.name, bytesPerSecond)
	}
	return f.apply(func(e *endpoint) error {
		rate := int64(bytesPerSecond / 1000)
		return e.addToxics("throttle", fmt.Sprintf("%d bytes/s", rate*1000), "bandwidth", map[string]int64{"rate": rate}, "upstream", "downstream")
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
	e.proxy.Stop()
	e.faults["cut"] = "cut"
	return nil
}

func (e *endpoint) healNow() error {
	e.proxy.Toxics.ResetToxics(context.Background())
	_, wasCut := e.faults["cut"]
	clear(e.faults)
	if !wasCut {
		return nil
	}
	return e.proxy.Start()
}

// addToxics adds a toxic of Toxiproxy in the given directions, or replaces it.
func (e *endpoint) addToxics(fault, detail, toxic string, attributes map[string]int64, directions ...string) error {
	for _, direction := range directions {
		name := fault + "-" + direction
		if e.proxy.Toxics.GetToxic(name) != nil {
			if err := e.proxy.Toxics.RemoveToxic(context.Background(), name); err != nil {
				return err
			}
		}
		definition, err := json.Marshal(map[string]any{
			"name": name, "type": toxic, "stream": direction, "toxicity": 1, "attributes": attributes,
		})
		if err != nil {
			return err
		}
		if _, err := e.proxy.Toxics.AddToxicJson(bytes.NewReader(definition)); err != nil {
			return err
		}
	}
	e.faults[fault] = strings.TrimSpace(fault + " " + detail)
	return nil
}

func (e *endpoint) repoint(upstream string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if upstream == e.upstream {
		return nil
	}
	_, cut := e.faults["cut"]
	target := &toxiproxy.Proxy{Listen: e.listen, Upstream: upstream, Enabled: !cut}
	if err := e.proxy.Update(target); err != nil {
		return fmt.Errorf("pointing the proxy of %s at %s: %w", e.name, upstream, err)
	}
	e.upstream = upstream
	return nil
}

func (e *endpoint) remove() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.heal != nil {
		e.heal.Stop()
	}
	e.proxy.Stop()
}

func (p *faultProxies) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.endpoints {
		e.remove()
	}
}
