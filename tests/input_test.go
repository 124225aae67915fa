package tests

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/tests/product"
)

// Exit statuses of `fairway`, as its help has them.
const (
	wrongInput  = 2
	unreachable = product.Unreachable
)

// badInput is a replacement that is asked for and must be refused.
type badInput struct {
	rule    string
	cluster string // default is the pool's
	node    string // default is one of the pool
	env     map[string]string
	// prepare makes the input bad and returns what makes it good again.
	prepare func(*testing.T) (undo func())
	status  int
	want    []string // parts of the error
}

// refuse asks for the replacement and checks that it is refused with one clear error and that
// nothing has changed.
func (b badInput) refuse(t *testing.T, p pool, w *worker) {
	t.Helper()
	before := p.look(t)
	undo := func() {}
	if b.prepare != nil {
		undo = sync.OnceFunc(b.prepare(t))
		defer undo()
	}
	env := maps.Clone(w.env)
	maps.Copy(env, b.env)
	got := fairway(t, env, "node", "replace", cmp.Or(b.cluster, p.cluster), cmp.Or(b.node, before.Nodes[0].Name), "--wait")
	t.Logf("status %d after %s: %s", got.status, got.took.Round(100*time.Millisecond), got.stderr)
	require.Equal(t, b.status, got.status)
	require.Empty(t, got.stdout)
	require.True(t, strings.HasPrefix(got.stderr, "fairway: "), "it says who speaks")
	require.Equal(t, 1, strings.Count(got.stderr, "\n"), "it is one error")
	for _, want := range b.want {
		require.Contains(t, got.stderr, want)
	}
	undo()
	require.Empty(t, w.workflows(t), "no workflow was started")
	require.Equal(t, before, p.look(t), "nothing has changed")
}

func TestBadInputIsRefusedWithOneClearErrorAndNothingChanges(t *testing.T) {
	t.Parallel()
	p := newPool(t, busy)
	w := startWorker(t, busy)
	kubernetes, amazon := theLab.Fault(w.kubernetes), theLab.Fault(w.aws)
	for _, test := range []badInput{
		{
			rule: "an unknown cluster", cluster: "dev-9", status: wrongInput,
			want: []string{`cluster "dev-9" is not in the registry`, "fairway cluster list"},
		},
		{
			rule: "an unknown node", node: "ip-10-0-0-1", status: wrongInput,
			want: []string{`cluster dev-1 has no node "ip-10-0-0-1"`, "fairway node list dev-1"},
		},
		{
			rule: "a node of an unknown pool", node: "stray-pool", status: wrongInput,
			prepare: func(t *testing.T) func() { return p.addNode(t, "stray-pool", "no-such-pool", "i-0123456789abcdef0") },
			want:    []string{`cluster dev-1 has no pool "no-such-pool"`, "no Auto Scaling group", poolLabel},
		},
		{
			rule: "a node without a pool", node: "stray", status: wrongInput,
			prepare: func(t *testing.T) func() { return p.addNode(t, "stray", "", "i-0123456789abcdef0") },
			want:    []string{"node stray carries no label " + poolLabel, "kubernetes.pool_label"},
		},
		{
			rule: "a node whose instance is not in the group", node: "stray-instance", status: wrongInput,
			prepare: func(t *testing.T) func() { return p.addNode(t, "stray-instance", p.name, "i-0123456789abcdef0") },
			want:    []string{"node stray-instance", "i-0123456789abcdef0", "not in group " + p.group},
		},
		{
			rule: "a pool without surge room", status: wrongInput,
			prepare: func(t *testing.T) func() { return p.setMax(t, poolSize) },
			want:    []string{"pool " + p.name + " has no room", p.group, "raise max_size by one"},
		},
		{
			rule: "an API server that is gone", status: unreachable,
			prepare: disturb(kubernetes.Cut, kubernetes.Heal),
			want:    []string{"cluster dev-1", "the API server does not answer"},
		},
		{
			rule: "an API server that never answers", status: unreachable,
			prepare: disturb(kubernetes.Blackhole, kubernetes.Heal),
			want:    []string{"cluster dev-1", "the API server does not answer"},
		},
		{
			rule: "an AWS endpoint that is gone", status: unreachable,
			prepare: disturb(amazon.Cut, amazon.Heal),
			want:    []string{"cluster dev-1", "AWS does not answer"},
		},
		{
			rule: "an AWS endpoint that never answers", status: unreachable,
			prepare: disturb(amazon.Blackhole, amazon.Heal),
			want:    []string{"cluster dev-1", "AWS does not answer"},
		},
		{
			rule: "Kubernetes credentials that are refused", status: wrongInput,
			prepare: func(t *testing.T) func() { return w.setToken(t, "made-up") },
			want:    []string{"cluster dev-1", "the API server refuses", "check the credentials (kubernetes.access)"},
		},
		{
			rule: "Kubernetes credentials that are not enough", status: wrongInput,
			prepare: func(t *testing.T) func() { return w.setToken(t, tokenOf(t, "viewer")) },
			want:    []string{"cluster dev-1", "the API server refuses", "deploy/kubernetes/rbac.yaml"},
		},
		{
			rule: "a kubeconfig without the cluster", status: wrongInput,
			prepare: func(t *testing.T) func() { return replaceFile(t, w.kubeconfig, "apiVersion: v1\nkind: Config\n") },
			want:    []string{"cluster dev-1", w.kubeconfig, `context "dev-1"`},
		},
		{
			rule: "a kubeconfig that is gone", status: wrongInput,
			prepare: func(t *testing.T) func() {
				require.NoError(t, os.Rename(w.kubeconfig, w.kubeconfig+".away"))
				return func() { require.NoError(t, os.Rename(w.kubeconfig+".away", w.kubeconfig)) }
			},
			want: []string{"reading the kubeconfig", w.kubeconfig},
		},
	} {
		t.Run(test.rule, func(t *testing.T) { test.refuse(t, p, w) })
	}

	t.Run("a registry that broke while the worker runs", func(t *testing.T) {
		for _, broken := range brokenRegistries {
			t.Run(broken.rule, func(t *testing.T) {
				badInput{
					status: wrongInput, want: append(broken.want(t, w.registry), "the cluster registry is not usable"),
					prepare: func(t *testing.T) func() { return broken.apply(t, w.registry) },
				}.refuse(t, p, w)
			})
		}
	})
	t.Run("a node that is already gone", func(t *testing.T) {
		gone := p.look(t).Nodes[0]
		p.lose(t, gone)
		badInput{
			node: gone.Name, status: wrongInput,
			want: []string{fmt.Sprintf("cluster dev-1 has no node %q", gone.Name), "fairway node list dev-1"},
		}.refuse(t, p, w)
	})
	t.Run("Temporal that is gone", func(t *testing.T) {
		badInput{
			env: map[string]string{"TEMPORAL_ADDRESS": fmt.Sprintf("127.0.0.1:%d", freePort(t))}, status: unreachable,
			want: []string{"Temporal does not answer at 127.0.0.1:", "TEMPORAL_ADDRESS"},
		}.refuse(t, p, w)
	})
	t.Run("Temporal that never answers", func(t *testing.T) {
		badInput{
			env: map[string]string{"TEMPORAL_ADDRESS": silentServer(t)}, status: unreachable,
			want: []string{"Temporal does not answer at 127.0.0.1:", "TEMPORAL_ADDRESS"},
		}.refuse(t, p, w)
	})
	t.Run("a namespace that is not there", func(t *testing.T) {
		badInput{
			env: map[string]string{"TEMPORAL_NAMESPACE": "nowhere"}, status: wrongInput,
			want: []string{`there is no namespace "nowhere"`, "TEMPORAL_NAMESPACE"},
		}.refuse(t, p, w)
	})
	t.Run("no worker", func(t *testing.T) {
		w.kill(t)
		badInput{
			status: unreachable,
			want:   []string{"no worker", "is fairway-worker running on task queue", `namespace "fairway"`},
		}.refuse(t, p, w)
	})
}

func TestAWSCredentialsThatAreRefusedAreNamed(t *testing.T) {
	t.Parallel()
	p := newPool(t, busy)
	w := startWorker(t, busy, func(_ *config.Config, env map[string]string) { env["AWS_ACCESS_KEY_ID"] = "AKIAMADEUP" })
	badInput{
		status: wrongInput,
		want:   []string{"cluster dev-1", "AWS refuses (InvalidClientTokenId)", "check the worker's credentials", "deploy/aws/policy.json"},
	}.refuse(t, p, w)
}

func TestAWorkerDoesNotStartOnABrokenRegistry(t *testing.T) {
	t.Parallel()
	w := newWorker(t, busy)
	for _, broken := range brokenRegistries {
		t.Run(broken.rule, func(t *testing.T) {
			want := broken.want(t, w.registry)
			defer broken.apply(t, w.registry)()
			for _, got := range []answer{
				execute(t, w.env, product.Program("worker")),
				w.fairway(t, "config", "validate"),
			} {
				require.Equal(t, wrongInput, got.status, got.stderr)
				for _, want := range want {
					require.Contains(t, got.stderr, want)
				}
			}
		})
	}
}

// brokenRegistry is an error that somebody makes in a registry that was fine.
type brokenRegistry struct {
	rule      string
	good, bad string // the bad line takes the place of the first good one
	field     string
	text      string
}

var brokenRegistries = []brokenRegistry{
	{"a duplicate id", "id: alpha-1", "id: dev-1", "clusters[1].id", `"dev-1" is taken by clusters[0] already`},
	{"a missing field", "channel: dev\n", "\n", "clusters[0].channel", "is missing"},
	{"a wrong type", "criticality_level: 1", "criticality_level: high", "clusters[0].criticality_level", ""},
	{"an unknown key", "lifecycle_status: ready", "lifecycle_state: ready", "lifecycle_state", ""},
}

func (b brokenRegistry) apply(t *testing.T, file string) (undo func()) {
	t.Helper()
	content, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Contains(t, string(content), b.good)
	return replaceFile(t, file, strings.Replace(string(content), b.good, b.bad, 1))
}

// want are the parts of the error: file, line, field and what is wrong.
func (b brokenRegistry) want(t *testing.T, file string) []string {
	t.Helper()
	content, err := os.ReadFile(file)
	require.NoError(t, err)
	before, _, found := strings.Cut(string(content), b.good)
	require.True(t, found)
	if strings.TrimSpace(b.bad) == "" { // what is missing is reported where its cluster begins
		before = before[:strings.LastIndex(before, "- id: ")]
	}
	return []string{fmt.Sprintf("%s:%d: ", file, 1+strings.Count(before, "\n")), b.field, b.text}
}

// lose ends the instance of a node, as a failure of its machine would, and waits until its group
// has made up for it.
func (p pool) lose(t *testing.T, lost node) {
	t.Helper()
	_, err := scaling.TerminateInstanceInAutoScalingGroup(t.Context(), &autoscaling.TerminateInstanceInAutoScalingGroupInput{
		InstanceId: &lost.Instance, ShouldDecrementDesiredCapacity: aws.Bool(false),
	})
	require.NoError(t, err)
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		_, err := p.client.CoreV1().Nodes().Get(t.Context(), lost.Name, metav1.GetOptions{})
		require.True(c, apierrors.IsNotFound(err))
	}, time.Minute, 100*time.Millisecond, "the node does not go away")
	p.awaitNodes(t)
}

// addNode registers a node that no machine stands behind.
func (p pool) addNode(t *testing.T, name, pool, instance string) (remove func()) {
	t.Helper()
	labels := map[string]string{}
	if pool != "" {
		labels[poolLabel] = pool
	}
	nodes := p.client.CoreV1().Nodes()
	_, err := nodes.Create(t.Context(), &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels},
		Spec:       corev1.NodeSpec{ProviderID: "aws:///eu-central-1a/" + instance, Unschedulable: true},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	return func() { require.NoError(t, nodes.Delete(cleanup(t), name, metav1.DeleteOptions{})) }
}

func (p pool) setMax(t *testing.T, size int32) (undo func()) {
	t.Helper()
	set := func(size int32) {
		_, err := scaling.UpdateAutoScalingGroup(cleanup(t), &autoscaling.UpdateAutoScalingGroupInput{AutoScalingGroupName: &p.group, MaxSize: &size})
		require.NoError(t, err)
	}
	set(size)
	return func() { set(poolSize + 1) }
}

func disturb(begin, end func() error) func(*testing.T) func() {
	return func(t *testing.T) func() {
		require.NoError(t, begin())
		return func() { require.NoError(t, end()) }
	}
}

// setToken changes what the worker authenticates with.
func (w *worker) setToken(t *testing.T, token string) (undo func()) {
	t.Helper()
	access, err := clientcmd.LoadFromFile(w.kubeconfig)
	require.NoError(t, err)
	for _, login := range access.AuthInfos {
		login.Token = token
	}
	changed, err := clientcmd.Write(*access)
	require.NoError(t, err)
	return replaceFile(t, w.kubeconfig, string(changed))
}

func tokenOf(t *testing.T, user string) string {
	t.Helper()
	access, err := theLab.RESTConfigAs(busy, user)
	require.NoError(t, err)
	return access.BearerToken
}

func replaceFile(t *testing.T, file, content string) (undo func()) {
	t.Helper()
	before, err := os.ReadFile(file)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
	return func() { require.NoError(t, os.WriteFile(file, before, 0o600)) }
}

// silentServer accepts connections and never answers.
func silentServer(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { listener.Close() })
	return listener.Addr().String()
}
