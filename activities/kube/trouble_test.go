package kube_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"github.com/fairway-project/fairway/workflows"
)

// front puts a proxy in front of the API server that may answer in its place, and returns the
// kubeconfig that leads there.
func (c cluster) front(t *testing.T, answer func(http.ResponseWriter, *http.Request) bool) (kubeconfig string) {
	t.Helper()
	access, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(
		&clientcmd.ClientConfigLoadingRules{ExplicitPath: c.kubeconfig}, &clientcmd.ConfigOverrides{CurrentContext: clusterID}).ClientConfig()
	require.NoError(t, err)
	transport, err := rest.TransportFor(access)
	require.NoError(t, err)
	server, err := url.Parse(access.Host)
	require.NoError(t, err)
	proxy := httputil.NewSingleHostReverseProxy(server)
	proxy.Transport, proxy.FlushInterval = transport, -1
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !answer(w, r) {
			proxy.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(front.Close)
	t.Cleanup(front.CloseClientConnections) // first: watches would keep it from closing
	path := filepath.Join(t.TempDir(), "kubeconfig")
	require.NoError(t, clientcmd.WriteToFile(api.Config{
		Clusters: map[string]*api.Cluster{clusterID: {Server: front.URL}},
		Contexts: map[string]*api.Context{clusterID: {Cluster: clusterID}},
	}, path))
	return path
}

// flaky fails to answer once.
type flaky struct {
	*blocks
	mu     sync.Mutex
	failed bool
}

func (f *flaky) State(ctx context.Context, cluster string) (workflows.ClusterState, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.failed {
		f.failed = true
		return workflows.ClusterState{}, temporal.NewApplicationError("asking whether it is blocked: no answer", workflows.Unreachable)
	}
	return f.blocks.State(ctx, cluster)
}

func testDrainTrouble(t *testing.T, c cluster) {
	pods := schema.GroupResource{Resource: "pods"}
	troubles := []func(http.ResponseWriter){
		refuse(apierrors.NewTooManyRequests("too many requests", 1)),
		refuse(apierrors.NewConflict(pods, "web", errors.New("it was changed"))),
		refuse(apierrors.NewTimeoutError("couldn't update PodDisruptionBudget due to conflicts", 1)),
		refuse(apierrors.NewServiceUnavailable("apiserver is shutting down")),
		func(http.ResponseWriter) { panic(http.ErrAbortHandler) }, // the connection breaks
	}
	var mu sync.Mutex
	asked := 0
	s := c.stage(t, "troubled", "")
	kubeconfig := c.front(t, func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/eviction") || !strings.Contains(r.URL.Path, "/troubled/") {
			return false
		}
		mu.Lock()
		asked++
		nth := asked
		mu.Unlock()
		if nth > len(troubles) {
			return false
		}
		troubles[nth-1](w)
		return true
	})
	s.activities = newActivities(t, kubeconfig, "", s.blocks)
	s.activities.Blocks = &flaky{blocks: s.blocks}
	s.crowd(func() {
		s.deploy("web", 1)
		s.awaitReady("web", 1)
	})
	said := ""
	start := time.Now()
	progress, err := s.drain(func(report workflows.DrainProgress) {
		said += report.Trouble + "\n"
		for _, held := range report.Waiting {
			said += held.Reason + "\n"
		}
	})
	s.must(err)
	require.Equal(t, 1, progress.Evicted)
	require.Empty(t, s.pods("web", 0))
	mu.Lock()
	defer mu.Unlock()
	require.Equal(t, len(troubles)+1, asked, "each trouble costs one request")
	require.Less(t, time.Since(start), 20*time.Second)
	for _, want := range []string{
		"asking whether it is blocked: no answer", "too many requests", "it changes at the moment", "due to conflicts",
		"apiserver is shutting down", "the API server did not answer the eviction",
	} {
		require.Contains(t, said, want)
	}
}

func refuse(err *apierrors.StatusError) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		status := err.Status()
		status.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(int(status.Code))
		_ = json.NewEncoder(w).Encode(status)
	}
}
