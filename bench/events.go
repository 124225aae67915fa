package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/goccy/go-yaml"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/sdk/client"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"

	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/e2e"
	"github.com/fairway-project/fairway/lab"
	"github.com/fairway-project/fairway/promotion"
	"github.com/fairway-project/fairway/workflows"
)

// What of the sample fleet is rolled.
const (
	fleetCluster = "dev-1"
	fleetPool    = "worker"
	poolLabel    = "node.kubernetes.io/node-pool"
	heldName     = "held"
)

// events are the Temporal history events that replacements cost.
type events struct {
	// Roll and Replacement are those of the two workflows of a plain replacement of one node.
	Roll        int64 `json:"roll"`
	Replacement int64 `json:"replacement"`
	// Blocked are those of a replacement whose drain a budget holds up, after some times.
	Blocked []blockedEvents `json:"blocked"`
	// Released are those of the same replacement when it was done.
	Released int64 `json:"released"`
}

type blockedEvents struct {
	Seconds float64 `json:"seconds"`
	Events  int64   `json:"events"`
}

// counter counts events on a lab of its own, where a worker runs.
type counter struct {
	temporal client.Client
	kube     kubernetes.Interface
}

// countEvents replaces two nodes of the sample fleet: one just so, and one whose drain a budget
// holds up for a minute and then for the rest of `blocked`.
func countEvents(ctx context.Context, worker string, blocked time.Duration) (e events, err error) {
	dir, err := os.MkdirTemp("", "fairway-bench-")
	if err != nil {
		return e, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	l, err := lab.Start(ctx, lab.Options{Dir: dir, Clusters: []string{fleetCluster}, Out: os.Stderr})
	if err != nil {
		return e, err
	}
	defer func() { err = errors.Join(err, l.Stop()) }()
	settings, err := withoutChannels(l, dir)
	if err != nil {
		return e, err
	}
	process, err := runWorker(l, worker, filepath.Join(dir, "worker.log"), "FAIRWAY_CONFIG="+settings)
	if err != nil {
		return e, err
	}
	defer func() { err = errors.Join(err, process.stop()) }()

	c := counter{}
	if c.temporal, err = client.DialContext(ctx, client.Options{HostPort: l.Direct("temporal"), Namespace: lab.TemporalNamespace}); err != nil {
		return e, fmt.Errorf("connecting to Temporal: %w", err)
	}
	defer c.temporal.Close()
	access, err := l.RESTConfig(fleetCluster)
	if err != nil {
		return e, err
	}
	if c.kube, err = kubernetes.NewForConfig(access); err != nil {
		return e, err
	}
	if err := c.plain(ctx, &e); err != nil {
		return e, fmt.Errorf("replacing a node: %w", err)
	}
	if err := c.held(ctx, &e, blocked); err != nil {
		return e, fmt.Errorf("replacing a node whose drain is held up: %w", err)
	}
	return e, nil
}

// workerProcess is a worker that runs.
type workerProcess struct {
	*exec.Cmd
	log *os.File
}

// environment is that of a program on the lab, with what is added to it.
func environment(l *lab.Lab, more ...string) []string {
	all := os.Environ()
	for name, value := range l.Env() {
		all = append(all, name+"="+value)
	}
	return append(all, more...)
}

// runWorker starts a worker with the lab's environment and what is added to it.
func runWorker(l *lab.Lab, program, log string, more ...string) (*workerProcess, error) {
	out, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	command := exec.Command(program)
	command.Env, command.Stdout, command.Stderr = environment(l, more...), out, out
	if err := command.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("starting the worker, which `make build` builds: %w", err), out.Close())
	}
	return &workerProcess{command, out}, nil
}

func (w *workerProcess) stop() error {
	err := w.Process.Signal(syscall.SIGTERM)
	return errors.Join(err, w.Wait(), w.log.Close())
}

// withoutChannels is the lab's configuration for a worker whose clusters follow no channel.
func withoutChannels(l *lab.Lab, dir string) (path string, err error) {
	c, err := config.Load(l.Env()["FAIRWAY_CONFIG"])
	if err != nil {
		return "", err
	}
	c.Repository, c.Forge, c.Pipeline, c.E2E = config.Repository{}, config.Forge{}, promotion.Pipeline{}, e2e.Defaults()
	data, err := yaml.Marshal(c)
	if err != nil {
		return "", err
	}
	path = filepath.Join(dir, "events.yaml")
	return path, os.WriteFile(path, data, 0o644)
}

func (c counter) plain(ctx context.Context, e *events) error {
	node, err := c.someNode(ctx)
	if err != nil {
		return err
	}
	run, err := c.roll(ctx, node)
	if err != nil {
		return err
	}
	if err := run.Get(ctx, nil); err != nil {
		return err
	}
	if e.Roll, err = c.length(ctx, run.GetID()); err != nil {
		return err
	}
	e.Replacement, err = c.length(ctx, workflows.ReplaceNodeID(fleetCluster, node))
	return err
}

func (c counter) held(ctx context.Context, e *events, blocked time.Duration) error {
	node, err := c.someNode(ctx)
	if err != nil {
		return err
	}
	if err := c.hold(ctx, node); err != nil {
		return err
	}
	run, err := c.roll(ctx, node)
	if err != nil {
		return err
	}
	id := workflows.ReplaceNodeID(fleetCluster, node)
	if err := until(ctx, node+" is drained", func(ctx context.Context) (bool, error) { return c.draining(ctx, id) }); err != nil {
		return err
	}
	began := time.Now()
	for _, mark := range []time.Duration{min(time.Minute, blocked), blocked} {
		select {
		case <-time.After(time.Until(began.Add(mark))):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		length, err := c.length(ctx, id)
		if err != nil {
			return err
		}
		e.Blocked = append(e.Blocked, blockedEvents{Seconds: mark.Seconds(), Events: length})
	}
	if _, err := c.kube.PolicyV1().PodDisruptionBudgets(metav1.NamespaceDefault).Patch(ctx, heldName, types.MergePatchType,
		[]byte(`{"spec":{"maxUnavailable":1}}`), metav1.PatchOptions{}); err != nil {
		return err
	}
	if err := run.Get(ctx, nil); err != nil {
		return err
	}
	e.Released, err = c.length(ctx, id)
	return err
}

// roll starts a roll of one node.
func (c counter) roll(ctx context.Context, node string) (client.WorkflowRun, error) {
	return c.temporal.ExecuteWorkflow(ctx, client.StartWorkflowOptions{ID: workflows.RollPoolID(fleetCluster, fleetPool), TaskQueue: config.DefaultTaskQueue},
		workflows.RollPool, workflows.RollPoolInput{Cluster: fleetCluster, Pool: fleetPool, Nodes: []string{node}, By: "bench", Reason: "counting events"})
}

func (c counter) length(ctx context.Context, id string) (int64, error) {
	answer, err := c.temporal.DescribeWorkflowExecution(ctx, id, "")
	if err != nil {
		return 0, err
	}
	return answer.WorkflowExecutionInfo.HistoryLength, nil
}

// someNode names a node of the pool that takes pods.
func (c counter) someNode(ctx context.Context) (string, error) {
	list, err := c.kube.CoreV1().Nodes().List(ctx, metav1.ListOptions{LabelSelector: poolLabel + "=" + fleetPool})
	if err != nil {
		return "", err
	}
	for _, node := range list.Items {
		if !node.Spec.Unschedulable {
			return node.Name, nil
		}
	}
	return "", fmt.Errorf("pool %s has no node that takes pods", fleetPool)
}

// hold runs a pod on a node that its budget does not let go.
func (c counter) hold(ctx context.Context, node string) error {
	meta := metav1.ObjectMeta{Name: heldName, Labels: map[string]string{"application": heldName}}
	selector := &metav1.LabelSelector{MatchLabels: meta.Labels}
	template := podTemplate(meta.Labels, 0)
	// At first it runs there; its successor may run anywhere.
	template.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.PreferredSchedulingTerm{{
		Weight: 100, Preference: corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{{
			Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{node},
		}}},
	}}}}
	_, err := c.kube.PolicyV1().PodDisruptionBudgets(metav1.NamespaceDefault).Create(ctx, &policyv1.PodDisruptionBudget{
		ObjectMeta: meta, Spec: policyv1.PodDisruptionBudgetSpec{Selector: selector, MaxUnavailable: new(intstr.FromInt32(0))},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	_, err = c.kube.AppsV1().Deployments(metav1.NamespaceDefault).Create(ctx, &appsv1.Deployment{
		ObjectMeta: meta, Spec: appsv1.DeploymentSpec{Replicas: new(int32(1)), Selector: selector, Template: template},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	return until(ctx, "pod "+heldName+" is ready on "+node, func(ctx context.Context) (bool, error) {
		deployment, err := c.kube.AppsV1().Deployments(metav1.NamespaceDefault).Get(ctx, heldName, metav1.GetOptions{})
		return err == nil && deployment.Status.ReadyReplicas == 1, err
	})
}

// draining says whether the drain of a replacement has begun.
func (c counter) draining(ctx context.Context, id string) (bool, error) {
	answer, err := c.temporal.DescribeWorkflowExecution(ctx, id, "")
	if unknown := (*serviceerror.NotFound)(nil); errors.As(err, &unknown) {
		return false, nil // the roll has not come to it yet
	}
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(answer.PendingActivities, func(a *workflowpb.PendingActivityInfo) bool {
		return a.ActivityType.Name == "DrainNode" && a.State == enums.PENDING_ACTIVITY_STATE_STARTED
	}), nil
}

func (e events) print(out io.Writer) {
	fmt.Fprintln(out, "\nevents: Temporal history events of a replacement")
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "a plain replacement\tRollPool %d, ReplaceNode %d\n", e.Roll, e.Replacement)
	for _, b := range e.Blocked {
		fmt.Fprintf(table, "ReplaceNode, after its drain was held for %s\t%d\n", time.Duration(b.Seconds*float64(time.Second)), b.Events)
	}
	fmt.Fprintf(table, "the same when it was released and done\t%d\n", e.Released)
	_ = table.Flush()
}
