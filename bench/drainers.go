package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/fairway-project/fairway/activities/kube"
	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/lab"
	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/workflows"
)

// drainer cordons the node and returns when it is empty.
type drainer struct {
	name  string
	agent string // what its user agent begins with
	drain func(context.Context, scenario) error
}

// drainers all reach the API server the same way, through the lab's proxy.
func (c *cluster) drainers() ([]drainer, error) {
	fairway, err := c.fairway()
	if err != nil {
		return nil, err
	}
	kubeconfig := filepath.Join(c.dir, "kubeconfig")
	access, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	access.UserAgent = "floor"
	access.QPS = -1
	client, err := kubernetes.NewForConfig(access)
	if err != nil {
		return nil, err
	}
	shared, err := lab.DefaultDir()
	if err != nil {
		return nil, err
	}
	kubectl := kubectl{binary: filepath.Join(shared, "bin", "kubectl"), kubeconfig: kubeconfig, cache: filepath.Join(c.dir, "kubectl")}
	return []drainer{
		{name: "fairway", agent: "fairway", drain: fairway.drain},
		{name: "kubectl", agent: "kubectl/", drain: kubectl.drain},
		{name: "floor", agent: "floor", drain: floor{client}.drain},
	}, nil
}

// fairway runs the activities of a replacement that empty the node. Temporal's part, which is
// the same however many pods there are, is left out.
type fairway struct {
	settings config.Config
	clusters *kube.Clusters
}

func (c *cluster) fairway() (fairway, error) {
	settings, err := config.Parse(filepath.Join(c.dir, "fairway.yaml"),
		[]byte("registry: {file: registry.yaml}\nkubernetes: {kubeconfig: kubeconfig-fairway}\n"))
	find := func(context.Context, string) (registry.Cluster, error) { return registry.Cluster{ID: clusterID}, nil }
	return fairway{settings, &kube.Clusters{Find: find, Settings: settings.Kubernetes}}, err
}

func (f fairway) drain(ctx context.Context, s scenario) error {
	gentleness := f.settings.Drain
	if !s.gentle {
		gentleness.ImplicitBudgetPercent = new(0)
	}
	activities := &kube.Activities{Clusters: f.clusters, Settings: f.settings.Replace, Blocks: nobody{}, Drain: gentleness}

	var suite testsuite.WorkflowTestSuite
	suite.SetLogger(log.NewStructuredLogger(slog.New(slog.DiscardHandler)))
	env := suite.NewTestActivityEnvironment()
	env.SetWorkerOptions(worker.Options{BackgroundActivityContext: ctx})
	env.RegisterActivity(activities)
	if _, err := env.ExecuteActivity(activities.CordonNode, workflows.CordonNode{Cluster: clusterID, Node: drained, Instance: instance, By: "bench"}); err != nil {
		return err
	}
	_, err := env.ExecuteActivity(activities.DrainNode, workflows.DrainNode{Cluster: clusterID, Node: drained, Instance: instance, Started: time.Now()})
	return err
}

// nobody has blocked anything.
type nobody struct{}

func (nobody) State(context.Context, string) (workflows.ClusterState, error) {
	return workflows.ClusterState{Cluster: clusterID}, nil
}

func (nobody) Check(context.Context, string, string) error { return nil }

type kubectl struct{ binary, kubeconfig, cache string }

func (k kubectl) drain(ctx context.Context, _ scenario) error {
	command := exec.CommandContext(ctx, k.binary, "drain", drained, "--ignore-daemonsets", "--delete-emptydir-data", "--force")
	command.Env = append(os.Environ(), "KUBECONFIG="+k.kubeconfig, "KUBECACHEDIR="+k.cache)
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("kubectl drain: %w\n%s", errors.Join(err, context.Cause(ctx)), output)
	}
	return nil
}
