package lab

import (
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// proxy passes the connections to one address on to another and disturbs them as it is told.
type proxy struct {
	address string // its own

	mu       sync.Mutex
	upstream string
	listener net.Listener // nil while nobody can connect
	links    map[*link]bool
	trouble  trouble
	changed  chan struct{} // closed when the trouble changes
}

// trouble is what a proxy does to the bytes that pass through it.
type trouble struct {
	blackhole     bool
	delay, jitter time.Duration // of what comes from upstream
	rate          int           // bytes a second in each direction; 0 means no limit
}

func newProxy(address, upstream string) (*proxy, error) {
	p := &proxy{address: address, upstream: upstream, links: map[*link]bool{}, changed: make(chan struct{})}
	return p, p.open()
}

// open lets clients connect.
func (p *proxy) open() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != nil {
		return nil
	}
	listener, err := net.Listen("tcp", p.address)
	if err != nil {
		return err
	}
	p.listener = listener
	go p.accept(listener)
	return nil
}

// close refuses connections and ends those there are.
func (p *proxy) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != nil {
		_ = p.listener.Close()
		p.listener = nil
	}
	p.hangUp(func(*link) bool { return true })
}

// repoint ends the connections there are and leads new ones to another address.
func (p *proxy) repoint(upstream string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.upstream = upstream
	p.hangUp(func(*link) bool { return true })
}

// disturb replaces the trouble. The end of a blackhole ends the connections that lost something
// in it.
func (p *proxy) disturb(change func(*trouble)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(&p.trouble)
	close(p.changed)
	p.changed = make(chan struct{})
	if !p.trouble.blackhole {
		p.hangUp(func(l *link) bool { return l.lossy })
	}
}

// hangUp ends connections; p.mu is held.
func (p *proxy) hangUp(which func(*link) bool) {
	for l := range p.links {
		if which(l) {
			l.close()
		}
	}
}

func (p *proxy) accept(listener net.Listener) {
	for {
		client, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			go p.connect(listener, client)
		}
	}
}

func (p *proxy) connect(listener net.Listener, client net.Conn) {
	p.mu.Lock()
	upstream := p.upstream
	p.mu.Unlock()
	server, err := net.DialTimeout("tcp", upstream, 10*time.Second)
	if err != nil {
		_ = client.Close()
		return
	}
	l := &link{proxy: p, client: client, server: server, done: make(chan struct{})}
	p.mu.Lock()
	p.links[l] = true
	if p.listener != listener || p.upstream != upstream {
		l.close() // closed or led elsewhere meanwhile
	}
	p.mu.Unlock()
	go l.pass(client, server, false)
	go l.pass(server, client, true)
}

// link is a connection through a proxy.
type link struct {
	proxy          *proxy
	client, server net.Conn
	done           chan struct{} // closed with the connection
	lossy          bool          // a blackhole has swallowed something of it
}

// close ends the connection; the mutex of the proxy is held.
func (l *link) close() {
	if l.proxy.links[l] {
		delete(l.proxy.links, l)
		close(l.done)
		_, _ = l.client.Close(), l.server.Close()
	}
}

// chunk is what was read at once.
type chunk struct {
	data    []byte
	arrived time.Time
	luck    float64 // between -1 and 1, what becomes of the jitter
}

// pass carries bytes in one direction until either side ends it.
func (l *link) pass(from, to net.Conn, delayed bool) {
	chunks := make(chan chunk, 1000)
	go l.read(from, chunks)
	defer func() {
		l.proxy.mu.Lock()
		defer l.proxy.mu.Unlock()
		l.close()
	}()
	for c := range chunks {
		for len(c.data) > 0 {
			size, passed := l.await(c, delayed)
			if !passed {
				c.data = nil
				continue
			}
			if _, err := to.Write(c.data[:size]); err != nil {
				return
			}
			c.data = c.data[size:]
		}
	}
}

func (l *link) read(from net.Conn, chunks chan<- chunk) {
	defer close(chunks)
	for {
		buffer := make([]byte, 32<<10)
		n, err := from.Read(buffer)
		if n > 0 {
			select {
			case chunks <- chunk{buffer[:n], time.Now(), 2*rand.Float64() - 1}:
			case <-l.done:
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// throttleStep is the time between two pieces of what is throttled.
const throttleStep = 20 * time.Millisecond

// await waits until the next bytes of a chunk may pass and says how many; passed is false if
// they never do.
func (l *link) await(c chunk, delayed bool) (size int, passed bool) {
	throttled := false
	for {
		l.proxy.mu.Lock()
		trouble, changed := l.proxy.trouble, l.proxy.changed
		l.lossy = l.lossy || trouble.blackhole
		l.proxy.mu.Unlock()

		size, wait := len(c.data), time.Duration(0)
		if delayed {
			wait = time.Until(c.arrived.Add(trouble.delay + time.Duration(c.luck*float64(trouble.jitter))))
		}
		if trouble.rate > 0 {
			size = min(size, max(1, int(float64(trouble.rate)*throttleStep.Seconds())))
			if wait <= 0 && !throttled {
				throttled, wait = true, time.Duration(float64(size)/float64(trouble.rate)*float64(time.Second))
			}
		}
		switch {
		case trouble.blackhole:
			return 0, false
		case wait <= 0:
			return size, true
		}
		due := time.NewTimer(wait)
		select {
		case <-due.C:
		case <-changed:
		case <-l.done:
			due.Stop()
			return 0, false
		}
		due.Stop()
	}
}
