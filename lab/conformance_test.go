package lab

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	"github.com/stretchr/testify/require"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/registry"
)

func TestTestClustersAreConfiguredLikeTheSampleFleet(t *testing.T) {
	l := &Lab{root: "/repository", proxies: newFaultProxies()}
	defer l.proxies.close()
	require.NoError(t, l.endpoint("temporal-ui", "127.0.0.1:1"))
	text, err := l.testSettings()
	require.NoError(t, err)
	c, err := config.Parse("fairway.yaml", []byte("registry: {file: registry.yaml}\nrepository: {url: 'https://forge.test/fleet/config.git'}\n"+
		"forge: {kind: gitea, url: 'https://forge.test', token_env: TOKEN}\npipeline: {channels: [dev]}\nkubernetes: {kubeconfig: kubeconfig}\n"+text))
	require.NoError(t, err, text)
	require.Equal(t, *l.ConformanceSuite().Kubernetes, *c.E2E.Suites[1].Kubernetes)
	require.True(t, strings.HasSuffix(c.E2E.UI, "/namespaces/"+TemporalNamespace), c.E2E.UI)

	fleet, err := registry.File{Path: filepath.Join("sample", "registry.yaml")}.Clusters(t.Context())
	require.NoError(t, err)
	sample, err := fleet.Find("dev-1")
	require.NoError(t, err)
	require.Equal(t, sample.InfrastructureAccount, c.E2E.Accounts[0].Account)
	require.Equal(t, sample.Region, c.E2E.Accounts[0].Region)
	for i, pool := range c.E2E.Cluster.NodePools {
		of := sample.NodePools[i]
		require.Equal(t, []any{of.Name, of.Profile, of.InstanceTypes}, []any{pool.Name, pool.Profile, pool.InstanceTypes})
	}
	policy, err := c.Drain.Policy(registry.Cluster{ConfigItems: c.E2E.Cluster.ConfigItems, Environment: c.E2E.Cluster.Environment}, "worker")
	require.NoError(t, err)
	require.Equal(t, "20s", policy.Force.After.String(), "the sample's legacy application is not waited for")
}

// The parts of a test cluster are made here as Fairway makes them: one stack after the other.
func TestClusterWithoutAnEntryOfTheFleetComesAndGoesWithItsStacks(t *testing.T) {
	t.Parallel()
	l, err := Start(t.Context(), Options{Dir: t.TempDir(), Out: t.Output(), Clusters: []string{}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Stop()) })
	c, err := config.Load(l.Env()["FAIRWAY_CONFIG"])
	require.NoError(t, err)
	shape := c.E2E.Cluster
	entry := registry.Cluster{
		ID: "e2e-7-abcdef1", LocalID: "e2e-7-abcdef1", APIServerURL: strings.ReplaceAll(shape.APIServerURL, "{cluster}", "e2e-7-abcdef1"), Channel: "dev",
		Environment: shape.Environment, InfrastructureAccount: c.E2E.Accounts[0].Account, Region: c.E2E.Accounts[0].Region,
		Owner: shape.Owner, Provider: shape.Provider, ConfigItems: shape.ConfigItems, NodePools: shape.NodePools,
	}
	contexts := func() []string {
		config, err := clientcmd.LoadFromFile(c.Kubernetes.Kubeconfig)
		require.NoError(t, err)
		return slices.Sorted(maps.Keys(config.Contexts))
	}
	require.Empty(t, contexts())

	start := time.Now()
	net, err := l.findNetwork(t.Context())
	require.NoError(t, err)
	require.NoError(t, l.createStacks(t.Context(), entry, net))
	t.Logf("stacks after %.1f s", time.Since(start).Seconds())
	require.NoError(t, l.awaitNodes(t.Context(), entry.ID))
	t.Logf("nodes Ready after %.1f s", time.Since(start).Seconds())
	require.Equal(t, []string{entry.ID}, contexts())
	require.NoError(t, l.applyManifests(t.Context(), entry, net))
	require.NoError(t, l.awaitWorkloads(t.Context(), entry.ID), "the sample's applications fit on the nodes")
	t.Logf("applications ready after %.1f s", time.Since(start).Seconds())

	access, err := l.RESTConfigAs(entry.ID, "fairway")
	require.NoError(t, err)
	client, err := kubernetes.NewForConfig(access)
	require.NoError(t, err)
	may, err := client.AuthorizationV1().SelfSubjectAccessReviews().Create(t.Context(), &authorizationv1.SelfSubjectAccessReview{
		Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{Group: "*", Resource: "*", Verb: "*"}},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	require.True(t, may.Status.Allowed, "Fairway is an administrator of what it has made")

	release, err := l.sampleRelease(entry, net)
	require.NoError(t, err)
	stacks := cloudformation.NewFromConfig(l.AWSConfig())
	remove := func(name string) {
		_, err := stacks.DeleteStack(t.Context(), &cloudformation.DeleteStackInput{StackName: &name})
		require.NoError(t, err)
		require.NoError(t, cloudformation.NewStackDeleteCompleteWaiter(stacks, func(o *cloudformation.StackDeleteCompleteWaiterOptions) {
			o.MinDelay, o.MaxDelay = 50*time.Millisecond, 200*time.Millisecond
		}).Wait(t.Context(), &cloudformation.DescribeStacksInput{StackName: &name}, time.Minute))
	}
	for _, pool := range release.Pools {
		remove(pool.Stack.Name)
	}
	for _, stack := range slices.Backward(release.Stacks) {
		remove(stack.Name)
	}
	require.Eventually(t, func() bool { return len(contexts()) == 0 && l.Direct("kubernetes/"+entry.ID) == "" }, 20*time.Second, 50*time.Millisecond)
	for _, part := range l.Parts() {
		require.NotContains(t, part.Name(), entry.ID)
	}
	require.NoDirExists(t, l.path("kubernetes", entry.ID))
}

func TestConformanceSelectionIsAsDocumented(t *testing.T) {
	suite := (&Lab{}).ConformanceSuite().Kubernetes
	doc, err := os.ReadFile(filepath.Join("..", "docs", "lab.md"))
	require.NoError(t, err)
	for _, expression := range []string{suite.Focus, suite.Skip} {
		_, err := regexp.Compile(expression)
		require.NoError(t, err)
		require.Contains(t, string(doc), "`"+expression+"`")
	}
}
