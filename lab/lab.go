// Package lab runs everything outside of Fairway for real on one machine: Temporal with its
// web UI, Kubernetes control planes, an AWS endpoint, a forge, and a bridge that turns
// instances into nodes. Tests start a lab of their own; `make lab` leaves one running.
package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Options says what a lab consists of. The zero value is the whole sample fleet in `.lab`.
type Options struct {
	// Dir holds state, logs and sockets; default is `.lab` in the repository. Binaries and the
	// Python environment are shared by all labs and always live in the repository's `.lab`.
	Dir string
	// Clusters of the sample fleet to run; nil means all of them, empty means none.
	Clusters []string
	// Delays of the simulated machines; zero values become the defaults.
	Delays Delays
	// Out receives progress, a line a step; nil means silence.
	Out io.Writer
}

// Delays are the times that real machines need and simulated ones imitate.
// Where a pair is given, each event draws its delay between the two.
type Delays struct {
	// Boot is the time from the launch of an instance to its Node object; default 1 s to 2 s.
	Boot [2]time.Duration
	// NodeReady is the time from the Node object to its Ready condition; default 0.5 s to 1 s.
	NodeReady [2]time.Duration
	// PodReady is the time from a pod's binding to its Ready condition; default 0.5 s to 1.5 s.
	PodReady [2]time.Duration
	// PodStop is the time from a pod's deletion to its end; default 1 s to 2 s.
	PodStop [2]time.Duration
	// Shutdown is the time from an instance's termination to the end of its Node object; default 1 s to 1 s.
	Shutdown [2]time.Duration
}

func (d *Delays) setDefaults() {
	defaults := Delays{
		Boot:      [2]time.Duration{1 * time.Second, 2 * time.Second},
		NodeReady: [2]time.Duration{500 * time.Millisecond, 1 * time.Second},
		PodReady:  [2]time.Duration{500 * time.Millisecond, 1500 * time.Millisecond},
		PodStop:   [2]time.Duration{1 * time.Second, 2 * time.Second},
		Shutdown:  [2]time.Duration{1 * time.Second, 1 * time.Second},
	}
	for _, pair := range []struct{ value, standard *[2]time.Duration }{
		{&d.Boot, &defaults.Boot}, {&d.NodeReady, &defaults.NodeReady}, {&d.PodReady, &defaults.PodReady},
		{&d.PodStop, &defaults.PodStop}, {&d.Shutdown, &defaults.Shutdown},
	} {
		if *pair.value == ([2]time.Duration{}) {
			*pair.value = *pair.standard
		}
	}
}

// Lab is a set of running parts. It is safe for concurrent use.
type Lab struct {
	options Options
	root    string // the repository
	dir     string // this lab's state
	spawn   *spawner

	started       time.Time
	workerAddress string   // where a worker with the lab's configuration listens
	lock          *os.File // held as long as the lab lives
	log           *os.File // has what out gets
	out           io.Writer
	outMu         sync.Mutex
	proxies       *faultProxies
	control       *http.Server
	ingress       *ingress
	life          context.Context // ends when the lab has to stop
	end           context.CancelCauseFunc
	stop          func() error
	gone          chan struct{} // closed when everything has stopped
	deaths        chan *Part

	mu       sync.Mutex
	phase    Phase
	parts    []*Part // in the order of their start
	temporal *temporalState
	aws      *awsState
	forge    *forgeState
	clusters map[string]*clusterState
}

// Part finds a part by its name; nil if there is none.
func (l *Lab) Part(name string) *Part {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.parts {
		if p.Name() == name {
			return p
		}
	}
	return nil
}

// Parts lists all parts in the order of their start.
func (l *Lab) Parts() []*Part {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.parts)
}

// Run starts a process as a part of the lab and waits until it is ready. A part of the same
// name that has ended is replaced; one that still runs is an error.
func (l *Lab) Run(ctx context.Context, process Process) (*Part, error) {
	if process.Dir == "" {
		process.Dir = l.dir
	}
	part := &Part{
		process: process,
		log:     filepath.Join(l.dir, "log", filepath.FromSlash(process.Name)+".log"),
		spawn:   l.spawn,
		onDeath: l.died,
	}
	l.mu.Lock()
	if l.phase == Stopping {
		l.mu.Unlock()
		return nil, fmt.Errorf("starting %s: the lab is stopping", process.Name)
	}
	at := slices.IndexFunc(l.parts, func(p *Part) bool { return p.Name() == process.Name })
	switch {
	case at < 0:
		l.parts = append(l.parts, part)
	case l.parts[at].Running():
		l.mu.Unlock()
		return nil, fmt.Errorf("starting %s: it runs already", process.Name)
	default:
		l.parts[at] = part
	}
	l.mu.Unlock()
	return part, part.start(ctx)
}

// remove stops the named parts, last started first, and forgets them.
func (l *Lab) remove(names ...string) error {
	var errs []error
	for _, p := range slices.Backward(l.Parts()) {
		if slices.Contains(names, p.Name()) {
			p.close()
			errs = append(errs, p.Stop())
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.parts = slices.DeleteFunc(l.parts, func(p *Part) bool { return slices.Contains(names, p.Name()) })
	return errors.Join(errs...)
}

// Deaths delivers each part that ended without being asked to.
func (l *Lab) Deaths() <-chan *Part { return l.deaths }

func (l *Lab) died(p *Part) {
	err := fmt.Errorf("%s ended by itself (%v); the end of its log:\n%s", p.Name(), p.exitError(), p.Tail(20))
	if l.currentPhase() == Starting {
		l.end(err) // Start returns it
	} else {
		l.progress("%v", err)
	}
	select {
	case l.deaths <- p:
	default: // nobody listens; the line above has said it
	}
}

// bin is the path of a binary that the lab has built.
func (l *Lab) bin(name string) string { return filepath.Join(l.root, ".lab", "bin", name) }

// path is a path below the lab's state directory.
func (l *Lab) path(elements ...string) string {
	return filepath.Join(append([]string{l.dir}, elements...)...)
}

func (l *Lab) progress(format string, args ...any) {
	l.outMu.Lock()
	defer l.outMu.Unlock()
	fmt.Fprintf(l.out, format+"\n", args...)
}

// Ports below Linux's ephemeral range (32768 and up): the kernel cannot lend a part's port to
// somebody's outgoing connection while the part is dead or its proxy is cut.
const (
	firstPort = 15000
	lastPort  = 32767
)

// handedOut are the ports that freePort has returned: their parts may not listen yet.
var handedOut sync.Map

// reservations is a file whose bytes stand for ports. A lock on a byte, which ends with this process,
// keeps labs of other processes from handing out the port before its part listens.
var reservations = sync.OnceValues(func() (*os.File, error) {
	return os.OpenFile(filepath.Join(os.TempDir(), fmt.Sprintf("fairway-lab-ports-%d", os.Getuid())), os.O_RDWR|os.O_CREATE, 0o600)
})

// freePort finds a TCP port on the loopback interface that nobody uses now. It never returns
// a port twice.
func freePort() (int, error) {
	file, err := reservations()
	if err != nil {
		return 0, fmt.Errorf("reserving ports: %w", err)
	}
	for range 1000 {
		port := firstPort + rand.IntN(lastPort-firstPort+1)
		if _, known := handedOut.LoadOrStore(port, true); known {
			continue
		}
		if err := unix.FcntlFlock(file.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Start: int64(port), Len: 1}); err != nil {
			continue
		}
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		return port, listener.Close()
	}
	return 0, fmt.Errorf("no free port between %d and %d on 127.0.0.1", firstPort, lastPort)
}

// repositoryRoot finds the repository from the working directory upwards.
func repositoryRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "lab", "kubernetes", "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("not inside Fairway's repository: no lab/kubernetes/go.mod above the working directory")
		}
		dir = parent
	}
}
