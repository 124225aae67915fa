package lab

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"time"

	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/log"
)

// TemporalNamespace is the namespace that the lab registers and Fairway uses.
const TemporalNamespace = "fairway"

// searchAttributes are what Fairway's workflows are listed and filtered by.
var searchAttributes = []string{
	"Cluster=Keyword", "Pool=Keyword", "Channel=Keyword", "Environment=Keyword", "Phase=Keyword", "Version=Keyword",
	"Blocked=Bool",
}

// temporalState holds the addresses of the part itself, as "127.0.0.1:port".
type temporalState struct{ frontend, ui string }

// startTemporal runs the Temporal server with its Web UI as the part "temporal". Its state is in
// a file, so the part can be killed and restarted, and comes back on the same ports.
func (l *Lab) startTemporal(ctx context.Context) error {
	port, err := freePort()
	if err != nil {
		return err
	}
	uiPort, err := freePort()
	if err != nil {
		return err
	}
	state := &temporalState{frontend: fmt.Sprintf("127.0.0.1:%d", port), ui: fmt.Sprintf("127.0.0.1:%d", uiPort)}
	if err := os.MkdirAll(l.path("temporal"), 0o755); err != nil {
		return fmt.Errorf("starting temporal: %w", err)
	}
	command := []string{
		l.bin("temporal-lab"), "--db", l.path("temporal", "temporal.db"), "--namespace", TemporalNamespace,
		"--port", strconv.Itoa(port), "--ui-port", strconv.Itoa(uiPort),
	}
	for _, attribute := range searchAttributes {
		command = append(command, "--search-attribute", attribute)
	}
	_, err = l.Run(ctx, Process{
		Name:       "temporal",
		Command:    command,
		Ready:      state.ready,
		StopWithin: 10 * time.Second,
	})
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.temporal = state
	l.mu.Unlock()
	if err := l.endpoint("temporal", state.frontend); err != nil {
		return err
	}
	return l.endpoint("temporal-ui", state.ui)
}

// TemporalAddress is the address of the Temporal frontend that Fairway is given, behind the
// proxy "temporal".
func (l *Lab) TemporalAddress() string { return l.Proxied("temporal") }

// TemporalUIURL is the address of Temporal's Web UI, behind the proxy "temporal-ui".
func (l *Lab) TemporalUIURL() string { return "http://" + l.Proxied("temporal-ui") }

// ready asks the Web UI first: it starts last and refuses quickly until then, whereas a gRPC
// client would back off for longer and longer.
func (s *temporalState) ready(ctx context.Context) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.ui+"/", nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the Web UI answers %s", response.Status)
	}
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return fmt.Errorf("reading the Web UI: %w", err)
	}

	temporal, err := client.DialContext(ctx, client.Options{
		HostPort:  s.frontend,
		Namespace: TemporalNamespace,
		Logger:    log.NewStructuredLogger(slog.New(slog.DiscardHandler)),
	})
	if err != nil {
		return err
	}
	defer temporal.Close()
	if _, err := temporal.CheckHealth(ctx, &client.CheckHealthRequest{}); err != nil {
		return err
	}
	_, err = temporal.WorkflowService().DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: TemporalNamespace})
	return err
}
