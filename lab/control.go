package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"time"
)

// Status is what a lab is and does at one moment.
type Status struct {
	Phase     Phase            `json:"phase"`
	Dir       string           `json:"dir"`
	PID       int              `json:"pid"`
	Since     time.Time        `json:"since"`
	Parts     []PartStatus     `json:"parts"`
	Endpoints []EndpointStatus `json:"endpoints"`
	Clusters  []string         `json:"clusters"`
}

// PartStatus is the state of one part. End is the end of the log of a dead one.
type PartStatus struct {
	Name  string    `json:"name"`
	PID   int       `json:"pid,omitempty"`
	State PartState `json:"state"`
	Since time.Time `json:"since"`
	Log   string    `json:"log"`
	End   string    `json:"end,omitempty"`
}

// EndpointStatus is one address of the lab, past its proxy and through it.
type EndpointStatus struct {
	Name    string   `json:"name"`
	Direct  string   `json:"direct"`
	Proxied string   `json:"proxied"`
	Faults  []string `json:"faults,omitempty"`
}

// FaultRequest has the details of a fault; which are used depends on its kind.
type FaultRequest struct {
	Delay          Duration `json:"delay,omitzero"`
	Jitter         Duration `json:"jitter,omitzero"`
	BytesPerSecond int      `json:"bytesPerSecond,omitzero"`
	// For ends the fault after this time; zero means not by itself.
	For Duration `json:"for,omitzero"`
}

// Duration is written in JSON the way Go writes durations: "1m30s".
type Duration struct{ time.Duration }

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) (err error) {
	d.Duration, err = time.ParseDuration(string(text))
	return err
}

// Status describes the lab.
func (l *Lab) Status() Status {
	status := Status{
		Phase: l.currentPhase(), Dir: l.dir, PID: os.Getpid(), Since: l.started,
		Parts: []PartStatus{}, Endpoints: l.endpointStatus(), Clusters: l.clusterIDs(),
	}
	for _, p := range l.Parts() {
		state, since := p.State()
		part := PartStatus{Name: p.Name(), PID: p.PID(), State: state, Since: since, Log: p.Log()}
		if state == Dead {
			part.End = p.Tail(20)
		}
		status.Parts = append(status.Parts, part)
	}
	return status
}

// clusterIDs are the clusters whose control plane runs or starts. The bridge asks for them many
// times a second.
func (l *Lab) clusterIDs() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.AppendSeq([]string{}, slices.Values(slices.Sorted(maps.Keys(l.clusters))))
}

func (l *Lab) endpointStatus() []EndpointStatus {
	l.proxies.mu.Lock()
	defer l.proxies.mu.Unlock()
	status := []EndpointStatus{}
	for _, name := range slices.Sorted(maps.Keys(l.proxies.endpoints)) {
		e := l.proxies.endpoints[name]
		e.mu.Lock()
		status = append(status, EndpointStatus{
			Name: name, Direct: e.upstream, Proxied: e.proxy.address,
			Faults: slices.Sorted(maps.Values(e.faults)),
		})
		e.mu.Unlock()
	}
	return status
}

// serveControl opens the socket that the command and the bridge use.
func (l *Lab) serveControl() error {
	socket := l.path("lab.sock")
	if len(socket) > 100 { // the kernel takes 108 bytes
		return fmt.Errorf("opening the control socket: %s is too long a path for a socket; choose a shorter directory", socket)
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return fmt.Errorf("opening the control socket: %w", err)
	}
	l.control = &http.Server{Handler: l.controlHandler(), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = l.control.Serve(listener) }()
	return nil
}

func (l *Lab) controlHandler() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, serve func(r *http.Request) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			value, err := serve(r)
			respond(w, value, err)
		})
	}
	handle("GET /status", func(*http.Request) (any, error) { return l.Status(), nil })
	handle("GET /clusters", func(*http.Request) (any, error) { return l.clusterIDs(), nil })
	// The life of the lab bounds these, not that of the request: a bridge that is killed while
	// its control plane starts must find a whole one when it asks again.
	handle("PUT /clusters/{id}", func(r *http.Request) (any, error) {
		return nil, l.StartCluster(l.life, r.PathValue("id"))
	})
	handle("DELETE /clusters/{id}", func(r *http.Request) (any, error) {
		return nil, l.StopCluster(l.life, r.PathValue("id"))
	})
	handle("POST /stop", func(*http.Request) (any, error) {
		go func() { _ = l.Stop() }()
		return nil, nil
	})
	handle("POST /parts/{name}/{action}", l.controlPart)
	handle("POST /endpoints/{name}/{fault}", l.controlEndpoint)
	return mux
}

var errUnknown = errors.New("unknown")

func (l *Lab) controlPart(r *http.Request) (any, error) {
	name, action := r.PathValue("name"), r.PathValue("action")
	part := l.Part(name)
	if part == nil {
		return nil, fmt.Errorf("part %q is %w: see the status for those there are", name, errUnknown)
	}
	switch action {
	case "kill":
		return nil, part.Kill()
	case "pause":
		return nil, part.Pause()
	case "resume":
		return nil, part.Resume()
	case "restart":
		return nil, part.Restart(l.life)
	}
	return nil, fmt.Errorf("action %q is %w: use kill, pause, resume or restart", action, errUnknown)
}

func (l *Lab) controlEndpoint(r *http.Request) (any, error) {
	var request FaultRequest
	decoder := json.NewDecoder(r.Body)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&request); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("reading the fault: %w", err)
	}
	fault := l.Fault(r.PathValue("name"))
	var err error
	switch kind := r.PathValue("fault"); kind {
	case "cut":
		err = fault.Cut()
	case "blackhole":
		err = fault.Blackhole()
	case "delay":
		err = fault.Delay(request.Delay.Duration, request.Jitter.Duration)
	case "throttle":
		err = fault.Throttle(request.BytesPerSecond)
	case "heal":
		return nil, fault.Heal()
	default:
		return nil, fmt.Errorf("fault %q is %w: use cut, blackhole, delay, throttle or heal", kind, errUnknown)
	}
	if err != nil || request.For.Duration <= 0 {
		return nil, err
	}
	return nil, fault.HealAfter(request.For.Duration)
}

type controlError struct {
	Error string `json:"error"`
}

func respond(w http.ResponseWriter, value any, err error) {
	w.Header().Set("Content-Type", "application/json")
	switch {
	case errors.Is(err, errUnknown), errors.Is(err, errNoEndpoint):
		w.WriteHeader(http.StatusNotFound)
	case err != nil:
		w.WriteHeader(http.StatusInternalServerError)
	case value == nil:
		w.WriteHeader(http.StatusNoContent)
		return
	}
	if err != nil {
		value = controlError{Error: err.Error()}
	}
	_ = json.NewEncoder(w).Encode(value)
}

// Client talks to a running lab through its control socket.
type Client struct{ http *http.Client }

// NewClient returns a client for the lab whose control socket is at this path. It does not
// connect yet.
func NewClient(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}
	return &Client{http: &http.Client{Transport: &http.Transport{DialContext: dial}}}
}

// Status describes the lab.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var status Status
	err := c.call(ctx, http.MethodGet, "/status", nil, &status)
	return status, err
}

// Clusters lists the ids of the clusters whose control plane runs or starts.
func (c *Client) Clusters(ctx context.Context) ([]string, error) {
	var clusters []string
	err := c.call(ctx, http.MethodGet, "/clusters", nil, &clusters)
	return clusters, err
}

// StartCluster starts the control plane of a cluster and waits until it serves.
func (c *Client) StartCluster(ctx context.Context, id string) error {
	return c.call(ctx, http.MethodPut, "/clusters/"+url.PathEscape(id), nil, nil)
}

// StopCluster stops the control plane of a cluster and forgets its state.
func (c *Client) StopCluster(ctx context.Context, id string) error {
	return c.call(ctx, http.MethodDelete, "/clusters/"+url.PathEscape(id), nil, nil)
}

// Stop asks the lab to stop; it does not wait for it.
func (c *Client) Stop(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, "/stop", nil, nil)
}

// Part does an action on a part: kill, pause, resume or restart.
func (c *Client) Part(ctx context.Context, name, action string) error {
	return c.call(ctx, http.MethodPost, "/parts/"+url.PathEscape(name)+"/"+url.PathEscape(action), nil, nil)
}

// Fault makes a fault on an endpoint (cut, blackhole, delay, throttle) or ends all (heal).
func (c *Client) Fault(ctx context.Context, endpoint, fault string, details FaultRequest) error {
	return c.call(ctx, http.MethodPost, "/endpoints/"+url.PathEscape(endpoint)+"/"+url.PathEscape(fault), details, nil)
}

func (c *Client) call(ctx context.Context, method, path string, body, result any) error {
	var content bytes.Buffer
	if body != nil {
		if err := json.NewEncoder(&content).Encode(body); err != nil {
			return fmt.Errorf("asking the lab: %w", err)
		}
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://lab"+path, &content)
	if err != nil {
		return fmt.Errorf("asking the lab: %w", err)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return fmt.Errorf("asking the lab: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode >= http.StatusBadRequest {
		var failure controlError
		if err := json.NewDecoder(response.Body).Decode(&failure); err != nil || failure.Error == "" {
			return fmt.Errorf("asking the lab for %s %s: %s", method, path, response.Status)
		}
		return errors.New(failure.Error)
	}
	if result == nil {
		return nil
	}
	if err := json.NewDecoder(response.Body).Decode(result); err != nil {
		return fmt.Errorf("reading the lab's answer: %w", err)
	}
	return nil
}
