package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/goccy/go-yaml"
	"go.temporal.io/sdk/client"

	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/lab"
	"github.com/fairway-project/fairway/workflows"
)

const nochangeName = "nochange"

// nochange is what it costs to find out that a cluster is as it should be.
type nochange struct {
	Objects int `json:"objects"` // of the cluster's manifests
	// Floor applies the manifests with `kubectl apply --server-side`, Plan is `fairway cluster plan`, and
	// Update `fairway cluster update`.
	Floor  effort `json:"floor"`
	Plan   effort `json:"plan"`
	Update effort `json:"update"`
}

type effort struct {
	Seconds    float64 `json:"seconds"`
	Kubernetes int     `json:"kubernetes_requests"`
	Changes    int     `json:"kubernetes_applies"` // those among them that apply objects
	AWS        int64   `json:"aws_requests"`
	Events     int64   `json:"events,omitempty"` // of the workflow's history
}

// unchanged is a cluster of the sample fleet that has the version it is to have.
type unchanged struct {
	lab      *lab.Lab
	temporal client.Client
	settings string // the path of fairway.yaml
	aws      atomic.Int64
}

// measureNochange lets a worker bring a cluster of the sample fleet up to date, and then asks again.
func measureNochange(ctx context.Context, worker, fairway string) (out nochange, err error) {
	dir, err := os.MkdirTemp("", "fairway-bench-")
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	u := &unchanged{settings: filepath.Join(dir, "nochange.yaml")}
	if u.lab, err = lab.Start(ctx, lab.Options{Dir: dir, Clusters: []string{fleetCluster}, Out: os.Stderr}); err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, u.lab.Stop()) }()
	if u.temporal, err = client.DialContext(ctx, client.Options{HostPort: u.lab.Direct("temporal"), Namespace: lab.TemporalNamespace}); err != nil {
		return out, fmt.Errorf("connecting to Temporal: %w", err)
	}
	defer u.temporal.Close()
	aws, err := u.countAWS()
	if err != nil {
		return out, err
	}
	defer aws.Close()
	if err := u.writeSettings(); err != nil {
		return out, err
	}
	command, err := runWorker(u.lab, worker, filepath.Join(dir, "worker.log"), "FAIRWAY_CONFIG="+u.settings, "AWS_ENDPOINT_URL="+aws.URL)
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, command.stop()) }()
	if err := until(ctx, fleetCluster+" is up to date", u.upToDate); err != nil {
		return out, err
	}

	var plan struct {
		Changes   bool              `json:"changes"`
		Objects   []json.RawMessage `json:"objects"`
		Unchanged int               `json:"unchanged"`
	}
	if out.Plan, err = u.take(ctx, "fairway", func() error {
		answer, err := u.run(ctx, fairway, "cluster", "plan", fleetCluster, "-o", "json")
		if err == nil {
			err = json.Unmarshal(answer, &plan)
		}
		return err
	}); err != nil {
		return out, err
	}
	if plan.Changes {
		return out, fmt.Errorf("cluster %s would change: there is nothing to measure", fleetCluster)
	}
	out.Objects = len(plan.Objects) + plan.Unchanged
	if out.Update, err = u.take(ctx, "fairway", func() error {
		_, err := u.run(ctx, fairway, "cluster", "update", fleetCluster, "--reason", "to see what it costs", "--wait")
		return err
	}); err != nil {
		return out, err
	}
	description, err := u.temporal.DescribeWorkflowExecution(ctx, workflows.UpdateClusterID(fleetCluster), "")
	if err != nil {
		return out, err
	}
	out.Update.Events = description.WorkflowExecutionInfo.HistoryLength
	out.Floor, err = u.take(ctx, "kubectl/", func() error { return u.lab.ApplySample(ctx, fleetCluster) })
	return out, err
}

// countAWS puts itself between the worker and AWS.
func (u *unchanged) countAWS() (*httptest.Server, error) {
	upstream, err := url.Parse(u.lab.AWSURL())
	if err != nil {
		return nil, err
	}
	forward := httputil.NewSingleHostReverseProxy(upstream)
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u.aws.Add(1)
		forward.ServeHTTP(w, r)
	})), nil
}

// writeSettings are the lab's, but nothing looks at registry and channels meanwhile.
func (u *unchanged) writeSettings() error {
	c, err := config.Load(u.lab.Env()["FAIRWAY_CONFIG"])
	if err != nil {
		return err
	}
	c.Update.SyncEvery = time.Hour
	data, err := yaml.Marshal(c)
	if err != nil {
		return err
	}
	return os.WriteFile(u.settings, data, 0o644)
}

func (u *unchanged) upToDate(ctx context.Context) (bool, error) {
	var state workflows.ClusterState
	answer, err := u.temporal.QueryWorkflow(ctx, workflows.ClusterID(fleetCluster), "", workflows.StateQuery)
	if err != nil || answer.Get(&state) != nil {
		return false, nil // the actor is not there yet
	}
	updates := state.Updates
	return updates.Want != nil && updates.Want.Version == updates.Current && updates.Running == nil, nil
}

// take measures what is done by a user agent that begins like this.
func (u *unchanged) take(ctx context.Context, agent string, do func() error) (e effort, err error) {
	if err := pause(ctx, 5*time.Second); err != nil { // for what went before to end
		return e, err
	}
	began, aws := time.Now(), u.aws.Load()
	if err := do(); err != nil {
		return e, err
	}
	ended := time.Now()
	e.Seconds, e.AWS = ended.Sub(began).Seconds(), u.aws.Load()-aws
	audit, err := u.lab.Audit(fleetCluster)
	for _, request := range audit {
		if !strings.HasPrefix(request.UserAgent, agent) || request.Received.Before(began) || request.Received.After(ended) {
			continue
		}
		e.Kubernetes++
		if request.Verb == "patch" {
			e.Changes++
		}
	}
	return e, err
}

func (u *unchanged) run(ctx context.Context, program string, args ...string) ([]byte, error) {
	command := exec.CommandContext(ctx, program, args...)
	command.Env = environment(u.lab, "FAIRWAY_CONFIG="+u.settings)
	var out, trouble bytes.Buffer
	command.Stdout, command.Stderr = &out, &trouble
	if err := command.Run(); err != nil {
		return nil, fmt.Errorf("%s %v: %w\n%s", program, args, err, trouble.String())
	}
	return out.Bytes(), nil
}

func (n nochange) print(out io.Writer) {
	fmt.Fprintf(out, "\nnochange: a cluster of %d objects that is as it should be\n", n.Objects)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "\tseconds\tto Kubernetes\tof those applies\tto AWS\tevents")
	for _, row := range []struct {
		name string
		effort
	}{{"kubectl apply --server-side", n.Floor}, {"fairway cluster plan", n.Plan}, {"fairway cluster update", n.Update}} {
		fmt.Fprintf(table, "%s\t%.1f\t%d\t%d\t%d\t%d\n", row.name, row.Seconds, row.Kubernetes, row.Changes, row.AWS, row.Events)
	}
	fmt.Fprintf(table, "update to kubectl\t%.1f times\t%.2f times\t%.2f times\t\t\n", n.Update.Seconds/n.Floor.Seconds,
		float64(n.Update.Kubernetes)/float64(n.Floor.Kubernetes), float64(n.Update.Changes)/float64(n.Floor.Changes))
	_ = table.Flush()
}
