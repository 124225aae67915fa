package lab

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// AuditEvent is one request that an API server has answered, or a watch that it has begun.
type AuditEvent struct {
	ID          string
	Received    time.Time
	Answered    time.Time
	User        string
	UserAgent   string
	Verb        string // as in RBAC: get, list, watch, create, update, patch, delete, deletecollection
	URI         string
	Group       string // of the resource; empty for the core group
	Resource    string // empty for requests such as discovery
	Subresource string
	Namespace   string
	Name        string
	Code        int                 // of HTTP
	Reason      metav1.StatusReason // of a refusal
	// Request is recorded for evictions, deletions of pods and nodes, and changes of nodes.
	Request json.RawMessage
	// Response is recorded for evictions.
	Response json.RawMessage
}

// String tells an event in a line.
func (e AuditEvent) String() string {
	return fmt.Sprintf("%s %s: %s %s: %d %s", e.Received.Format("15:04:05.000"), e.User, e.Verb, e.URI, e.Code, e.Reason)
}

// DeleteOptions are those of an eviction or of the deletion of a pod or node.
func (e AuditEvent) DeleteOptions() (metav1.DeleteOptions, error) {
	var eviction policyv1.Eviction
	target, into := any(&eviction), &eviction.DeleteOptions
	if e.Subresource != "eviction" {
		*into = &metav1.DeleteOptions{}
		target = *into
	}
	if len(e.Request) > 0 {
		if err := json.Unmarshal(e.Request, target); err != nil {
			return metav1.DeleteOptions{}, fmt.Errorf("reading the request of %s %s: %w", e.Verb, e.URI, err)
		}
	}
	if *into == nil {
		return metav1.DeleteOptions{}, nil
	}
	return **into, nil
}

// Status is the answer to an eviction.
func (e AuditEvent) Status() (metav1.Status, error) {
	var status metav1.Status
	if err := json.Unmarshal(e.Response, &status); err != nil {
		return status, fmt.Errorf("reading the response to %s %s: %w", e.Verb, e.URI, err)
	}
	return status, nil
}

// Audit are requests in the order of their first entry in the log.
type Audit []AuditEvent

// Where keeps the events for which keep is true.
func (a Audit) Where(keep func(AuditEvent) bool) Audit {
	return slices.DeleteFunc(slices.Clone(a), func(e AuditEvent) bool { return !keep(e) })
}

// By keeps the requests of a user, such as "fairway".
func (a Audit) By(user string) Audit {
	return a.Where(func(e AuditEvent) bool { return e.User == user })
}

// Evictions keeps the evictions of pods, granted (201) or not.
func (a Audit) Evictions() Audit {
	return a.Where(func(e AuditEvent) bool {
		return e.Verb == "create" && e.Resource == "pods" && e.Subresource == "eviction"
	})
}

// PodDeletions keeps the deletions of pods that were not evictions. Those by the user kwok are
// kubelets confirming that a pod has ended.
func (a Audit) PodDeletions() Audit {
	return a.Where(func(e AuditEvent) bool {
		return (e.Verb == "delete" || e.Verb == "deletecollection") && e.Resource == "pods" && e.Subresource == ""
	})
}

// Audit reads all requests to the API server of a cluster since its first start. A request that
// the server was killed in is missing.
func (l *Lab) Audit(id string) (Audit, error) {
	c, err := l.upCluster(id)
	if err != nil {
		return nil, fmt.Errorf("reading an audit log: %w", err)
	}
	reader := auditReader{path: c.auditLog()}
	if err := reader.read(); err != nil {
		return nil, err
	}
	return reader.events, nil
}

// AuditUntil reads the requests to the API server of a cluster again and again until they meet
// a condition, and returns them. The end of ctx is an error.
func (l *Lab) AuditUntil(ctx context.Context, id string, met func(Audit) bool) (Audit, error) {
	c, err := l.upCluster(id)
	if err != nil {
		return nil, fmt.Errorf("reading an audit log: %w", err)
	}
	reader := auditReader{path: c.auditLog()}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := reader.read(); err != nil {
			return nil, err
		}
		if met(reader.events) {
			return reader.events, nil
		}
		select {
		case <-ctx.Done():
			return reader.events, fmt.Errorf("%d requests in the audit log of cluster %s do not meet the condition: %w", len(reader.events), id, context.Cause(ctx))
		case <-tick.C:
		}
	}
}

func (c *clusterState) auditLog() string { return c.path("audit.log") }

// auditReader follows a growing audit log.
type auditReader struct {
	path   string
	offset int64 // of the first line that was not whole yet
	events Audit
	index  map[string]int // of events by ID
}

// read takes in the whole lines that were added since the last call.
func (r *auditReader) read() error {
	file, err := os.Open(r.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil // no request yet
	}
	if err != nil {
		return fmt.Errorf("reading the audit log: %w", err)
	}
	defer file.Close()
	if _, err := file.Seek(r.offset, io.SeekStart); err != nil {
		return fmt.Errorf("reading the audit log: %w", err)
	}
	lines := bufio.NewReader(file)
	for {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil // the rest is half a line: its writer is at it, or was killed
		}
		if err != nil {
			return fmt.Errorf("reading the audit log: %w", err)
		}
		// A server that was killed may have left half a line, and the next one goes on behind it.
		if begin := bytes.LastIndex(line, []byte(`{"kind":"Event",`)); begin > 0 {
			line, r.offset = line[begin:], r.offset+int64(begin)
		}
		event, err := parseAuditEvent(line)
		if err != nil {
			return fmt.Errorf("reading the audit log: no event at offset %d of %s: %w", r.offset, r.path, err)
		}
		r.offset += int64(len(line))
		r.add(event)
	}
}

// add takes in an event. A watch has two: its begin and its end.
func (r *auditReader) add(event AuditEvent) {
	if r.index == nil {
		r.index = map[string]int{}
	}
	if at, known := r.index[event.ID]; known {
		r.events[at] = event
		return
	}
	r.index[event.ID] = len(r.events)
	r.events = append(r.events, event)
}

// parseAuditEvent reads an Event of audit.k8s.io/v1.
func parseAuditEvent(line []byte) (AuditEvent, error) {
	var raw struct {
		AuditID                  string
		Verb                     string
		RequestURI               string
		UserAgent                string
		RequestReceivedTimestamp metav1.MicroTime
		StageTimestamp           metav1.MicroTime
		User                     struct{ Username string }
		ObjectRef                struct{ APIGroup, Resource, Subresource, Namespace, Name string }
		ResponseStatus           metav1.Status
		RequestObject            json.RawMessage
		ResponseObject           json.RawMessage
	}
	if err := json.Unmarshal(line, &raw); err != nil {
		return AuditEvent{}, err
	}
	return AuditEvent{
		ID: raw.AuditID, Received: raw.RequestReceivedTimestamp.Time, Answered: raw.StageTimestamp.Time,
		User: raw.User.Username, UserAgent: raw.UserAgent, Verb: raw.Verb, URI: raw.RequestURI,
		Group: raw.ObjectRef.APIGroup, Resource: raw.ObjectRef.Resource, Subresource: raw.ObjectRef.Subresource,
		Namespace: raw.ObjectRef.Namespace, Name: raw.ObjectRef.Name,
		Code: int(raw.ResponseStatus.Code), Reason: raw.ResponseStatus.Reason,
		Request: raw.RequestObject, Response: raw.ResponseObject,
	}, nil
}
