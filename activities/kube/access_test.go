package kube_test

import (
	"context"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"

	"github.com/fairway-project/fairway/activities/kube"
	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/workflows"
)

// door is an API server that only says its version, to those whose token it accepts.
type door struct {
	*httptest.Server
	authorities string // a file

	mu     sync.Mutex
	accept string
	seen   []string // tokens
	agent  string
}

func newDoor(t *testing.T, accept string) *door {
	d := &door{accept: accept}
	d.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d.mu.Lock()
		defer d.mu.Unlock()
		token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		d.seen, d.agent = append(d.seen, token), r.UserAgent()
		w.Header().Set("Content-Type", "application/json")
		if d.accept != "" && token != d.accept {
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Unauthorized","code":401}`)
			return
		}
		fmt.Fprint(w, `{"gitVersion":"v1.36.3"}`)
	}))
	t.Cleanup(d.Close)
	d.authorities = filepath.Join(t.TempDir(), "ca-dev-1.pem")
	require.NoError(t, os.WriteFile(d.authorities, d.pem(), 0o600))
	return d
}

func (d *door) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: d.Certificate().Raw})
}

func (d *door) accepts(token string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.accept = token
}

func (d *door) lastToken() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.seen[len(d.seen)-1]
}

func (d *door) cluster(context.Context, string) (registry.Cluster, error) {
	return registry.Cluster{
		ID: "dev-1", LocalID: "kube-1", APIServerURL: d.URL, InfrastructureAccount: "aws:123456789012", Region: "eu-central-1",
		ConfigItems: map[string]string{},
	}, nil
}

func enter(c *kube.Clusters) (string, error) {
	access, _, err := c.REST(context.Background(), "dev-1")
	if err != nil {
		return "", err
	}
	return ask(access)
}

func ask(access *rest.Config) (string, error) {
	client, err := discovery.NewDiscoveryClientForConfig(rest.CopyConfig(access))
	if err != nil {
		return "", err
	}
	version, err := client.ServerVersion()
	if err != nil {
		return "", err
	}
	return version.GitVersion, nil
}

func TestAKubeconfigNamesAContextByTheClustersID(t *testing.T) {
	d := newDoor(t, "secret")
	file := filepath.Join(t.TempDir(), "kubeconfig")
	require.NoError(t, os.WriteFile(file, fmt.Appendf(nil, `{apiVersion: v1, kind: Config,
		clusters: [{name: c, cluster: {server: %q, certificate-authority: %q}}],
		users: [{name: u, user: {token: secret}}], contexts: [{name: dev-1, context: {cluster: c, user: u}}]}`, d.URL, d.authorities), 0o600))
	version, err := enter(&kube.Clusters{Find: d.cluster, Settings: config.Kubernetes{Access: "kubeconfig", Kubeconfig: file, QPS: 10, Burst: 10}})
	require.NoError(t, err)
	require.Equal(t, "v1.36.3", version)
	require.Equal(t, "fairway", d.agent)
}

func TestATokenIsReadAgainWhenItIsRefused(t *testing.T) {
	d := newDoor(t, "first")
	dir := t.TempDir()
	file := filepath.Join(dir, "dev-1.token")
	require.NoError(t, os.WriteFile(file, []byte("first\n"), 0o600))
	clusters := &kube.Clusters{Find: d.cluster, Settings: config.Kubernetes{
		Access: "token", TokenFile: filepath.Join(dir, "{cluster}.token"), CAFile: strings.Replace(d.authorities, "dev-1", "{cluster}", 1), QPS: 10, Burst: 10,
	}}
	_, err := enter(clusters)
	require.NoError(t, err)
	before, _, err := clusters.REST(t.Context(), "dev-1")
	require.NoError(t, err)

	require.NoError(t, os.WriteFile(file, []byte("second"), 0o600))
	d.accepts("second")
	_, err = ask(before)
	require.True(t, apierrors.IsUnauthorized(err), "%v", err)
	_, err = ask(before)
	require.NoError(t, err, "who has connected already goes on with the new token")
	after, _, err := clusters.REST(t.Context(), "dev-1")
	require.NoError(t, err)
	require.Same(t, before, after, "views and rate limits stay shared")
	require.Same(t, before.RateLimiter, after.RateLimiter)
}

func TestAccessThatCannotWorkIsNamed(t *testing.T) {
	d := newDoor(t, "")
	dir := t.TempDir()
	empty, full := filepath.Join(dir, "empty"), filepath.Join(dir, "full")
	require.NoError(t, os.WriteFile(empty, []byte("\n"), 0o600))
	require.NoError(t, os.WriteFile(full, []byte("token"), 0o600))
	plain := func(context.Context, string) (registry.Cluster, error) {
		return registry.Cluster{ID: "dev-1", APIServerURL: "http://127.0.0.1:8080"}, nil
	}
	for name, test := range map[string]struct {
		find     func(context.Context, string) (registry.Cluster, error)
		settings config.Kubernetes
		message  string
	}{
		"no token":        {d.cluster, config.Kubernetes{Access: "token", TokenFile: "/none/{cluster}"}, "cluster dev-1: reading kubernetes.token_file: open /none/dev-1"},
		"an empty token":  {d.cluster, config.Kubernetes{Access: "token", TokenFile: empty}, "is empty"},
		"no authorities":  {d.cluster, config.Kubernetes{Access: "token", TokenFile: full, CAFile: "/none"}, "cluster dev-1: reading kubernetes.ca_file"},
		"bad authorities": {d.cluster, config.Kubernetes{Access: "token", TokenFile: full, CAFile: full}, "cluster dev-1: kubernetes.token_file " + full},
		"no TLS":          {plain, config.Kubernetes{Access: "token", TokenFile: full}, "must begin with https://"},
		"EKS without TLS": {plain, config.Kubernetes{Access: "eks", CAFile: full}, "must begin with https://"},
	} {
		t.Run(name, func(t *testing.T) {
			test.settings.QPS, test.settings.Burst = 10, 10
			_, err := enter(&kube.Clusters{Find: test.find, Settings: test.settings})
			requireError(t, err, workflows.InvalidInput, false, test.message)
		})
	}
}

// eksSays answers DescribeCluster.
func eksSays(t *testing.T, code int, body string) (access aws.Config, asked *atomic.Int32) {
	asked = &atomic.Int32{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.URL.Path != "/clusters/kube-1" {
			t.Errorf("asked for %s", r.URL.Path)
		}
		if code == http.StatusNotFound {
			w.Header().Set("X-Amzn-Errortype", "ResourceNotFoundException")
		}
		w.WriteHeader(code)
		fmt.Fprint(w, body)
	}))
	t.Cleanup(server.Close)
	return aws.Config{Region: "eu-central-1", Credentials: credentials.NewStaticCredentialsProvider("AKID", "SECRET", "SESSION"), BaseEndpoint: &server.URL}, asked
}

func TestEKSSaysWhereAClusterIs(t *testing.T) {
	d := newDoor(t, "")
	access, asked := eksSays(t, http.StatusOK, fmt.Sprintf(`{"cluster":{"endpoint":%q,"certificateAuthority":{"data":%q}}}`,
		d.URL, base64.StdEncoding.EncodeToString(d.pem())))
	clusters := &kube.Clusters{Find: d.cluster, Settings: config.Kubernetes{Access: "eks", QPS: 10, Burst: 10},
		AWS: func(context.Context, registry.Cluster) (aws.Config, error) { return access, nil }}
	for range 3 {
		version, err := enter(clusters)
		require.NoError(t, err)
		require.Equal(t, "v1.36.3", version)
	}
	require.EqualValues(t, 1, asked.Load())
	require.Len(t, d.seen, 3)
	require.Equal(t, d.seen[0], d.seen[2], "a token is used while it is valid")
}

func TestWhatEKSRefusesIsNamed(t *testing.T) {
	d := newDoor(t, "")
	for name, test := range map[string]struct {
		code       int
		body, kind string
		message    string
	}{
		"unknown":         {http.StatusNotFound, `{"message":"No cluster found for name: kube-1."}`, workflows.InvalidInput, "config item eks_cluster_name"},
		"refused":         {http.StatusForbidden, `{"__type":"AccessDeniedException","message":"no"}`, workflows.AccessDenied, "aws.assume_role"},
		"being made":      {http.StatusOK, `{"cluster":{"status":"CREATING"}}`, workflows.Unreachable, "it has none yet"},
		"bad authorities": {http.StatusOK, `{"cluster":{"endpoint":"https://x","certificateAuthority":{"data":"?"}}}`, workflows.InvalidInput, "is no base64"},
	} {
		t.Run(name, func(t *testing.T) {
			access, _ := eksSays(t, test.code, test.body)
			_, err := enter(&kube.Clusters{Find: d.cluster, Settings: config.Kubernetes{Access: "eks", QPS: 10, Burst: 10},
				AWS: func(context.Context, registry.Cluster) (aws.Config, error) { return access, nil }})
			requireError(t, err, test.kind, false, test.message)
		})
	}
}

// The signature is computed again as STS does from what EKS sends on: the URL, and the header with
// the name that EKS itself has for the cluster.
func TestAnEKSTokenIsASignedRequestThatNamesTheCluster(t *testing.T) {
	d := newDoor(t, "")
	access := aws.Config{Region: "eu-central-1", Credentials: credentials.NewStaticCredentialsProvider("AKID", "SECRET", "SESSION")}
	clusters := &kube.Clusters{Settings: config.Kubernetes{Access: "eks", CAFile: d.authorities, QPS: 10, Burst: 10},
		Find: func(ctx context.Context, name string) (registry.Cluster, error) {
			entry, err := d.cluster(ctx, name)
			entry.ConfigItems["eks_cluster_name"] = "shop"
			return entry, err
		},
		AWS: func(context.Context, registry.Cluster) (aws.Config, error) { return access, nil }}
	_, err := enter(clusters)
	require.NoError(t, err)

	encoded, ours := strings.CutPrefix(d.lastToken(), "k8s-aws-v1.")
	require.True(t, ours, d.lastToken())
	text, err := base64.RawURLEncoding.DecodeString(encoded)
	require.NoError(t, err)
	signed, err := url.Parse(string(text))
	require.NoError(t, err)
	require.Equal(t, "https", signed.Scheme)
	require.Equal(t, "sts.eu-central-1.amazonaws.com", signed.Host)
	query := signed.Query()
	require.Equal(t, "GetCallerIdentity", query.Get("Action"))
	require.Equal(t, "60", query.Get("X-Amz-Expires"))
	require.Contains(t, query.Get("X-Amz-SignedHeaders"), "x-k8s-aws-id")

	sign := func(name string) string {
		again := url.Values{"Action": query["Action"], "Version": query["Version"], "X-Amz-Expires": query["X-Amz-Expires"]}
		request, err := http.NewRequest(http.MethodGet, signed.Scheme+"://"+signed.Host+signed.Path+"?"+again.Encode(), nil)
		require.NoError(t, err)
		request.Header.Set("X-K8s-Aws-Id", name)
		at, err := time.Parse("20060102T150405Z", query.Get("X-Amz-Date"))
		require.NoError(t, err)
		const hashOfNothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
		who, err := access.Credentials.Retrieve(t.Context())
		require.NoError(t, err)
		uri, _, err := v4.NewSigner().PresignHTTP(t.Context(), who, request, hashOfNothing, "sts", "eu-central-1", at)
		require.NoError(t, err)
		result, err := url.Parse(uri)
		require.NoError(t, err)
		return result.Query().Get("X-Amz-Signature")
	}
	require.Equal(t, sign("shop"), query.Get("X-Amz-Signature"))
	require.NotEqual(t, sign("other"), query.Get("X-Amz-Signature"))
}

// Whoever runs in a cluster must not take that for the one that is missing.
func TestAContextWithoutItsClusterIsRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "kubeconfig")
	for content, want := range map[string]string{
		"contexts:\n- {name: dev-1, context: {cluster: gone, user: a}}\n":                                    `it has no cluster "gone"`,
		"contexts:\n- {name: dev-1}\n":                                                                       `it has no cluster ""`,
		"contexts:\n- {name: dev-1, context: {cluster: a}}\nclusters:\n- {name: a, cluster: {server: ''}}\n": `no server found for cluster "a"`,
		"": `context was not found for specified context: dev-1`,
	} {
		require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
		clusters := &kube.Clusters{
			Find:     func(context.Context, string) (registry.Cluster, error) { return registry.Cluster{ID: "dev-1"}, nil },
			Settings: config.Kubernetes{Access: "kubeconfig", Kubeconfig: file, QPS: 10, Burst: 10},
		}
		_, _, err := clusters.REST(t.Context(), "dev-1")
		requireError(t, err, workflows.InvalidInput, false, `cluster dev-1: kubeconfig `+file+`, context "dev-1": `)
		require.ErrorContains(t, err, want)
	}
}
