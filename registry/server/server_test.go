package server_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/registry/server"
)

const one = `{"id":"dev-1","alias":"kale","api_server_url":"https://dev-1.example.org","channel":"dev","environment":"test",
	"infrastructure_account":"aws:123456789012","region":"eu-central-1","owner":"anchor","criticality_level":1,"config_items":{"a":"1"},
	"node_pools":[{"name":"worker","profile":"worker-default","instance_types":["m5.large"],"min_size":3,"max_size":6}]}`

var two = strings.NewReplacer("dev-1", "dev-2", "kale", "leek", `"channel":"dev"`, `"channel":"alpha"`).Replace(one)

// tokens has one token a role, which is the role's name.
func tokens(t *testing.T) *server.Tokens {
	t.Helper()
	list := &strings.Builder{}
	list.WriteString("tokens:\n")
	for _, role := range []string{"read", "status", "write"} {
		fmt.Fprintf(list, "- {name: the %s, role: %s, sha256: %s}\n", role, role, hash(role))
	}
	out, err := server.ParseTokens("tokens.yaml", []byte(list.String()))
	require.NoError(t, err)
	return out
}

func hash(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

type api struct {
	t     *testing.T
	url   string
	store *server.Store
}

func start(t *testing.T, database string) api {
	t.Helper()
	store, err := server.OpenStore(t.Context(), database)
	require.NoError(t, err)
	t.Cleanup(func() { _ = store.Close() })
	listening := httptest.NewServer(server.New(store, tokens(t), slog.New(slog.DiscardHandler)))
	t.Cleanup(listening.Close)
	return api{t, listening.URL, store}
}

// databases runs a test on SQLite and on PostgreSQL.
func databases(t *testing.T, test func(*testing.T, string)) {
	t.Run("SQLite", func(t *testing.T) { test(t, filepath.Join(t.TempDir(), "registry #1?.db")) })
	t.Run("PostgreSQL", func(t *testing.T) { test(t, newDatabase(t)) })
}

// reply is what came back.
type reply struct {
	status int
	header http.Header
	body   string
}

func (a api) do(role, method, path, body string, header ...string) reply {
	a.t.Helper()
	request, err := http.NewRequestWithContext(a.t.Context(), method, a.url+path, strings.NewReader(body))
	require.NoError(a.t, err)
	if role != "" {
		request.Header.Set("Authorization", "Bearer "+role)
	}
	for i := 0; i < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	response, err := http.DefaultTransport.RoundTrip(request)
	require.NoError(a.t, err)
	defer func() { _ = response.Body.Close() }()
	content, err := io.ReadAll(response.Body)
	require.NoError(a.t, err)
	return reply{response.StatusCode, response.Header, string(content)}
}

// ok does what has to succeed.
func (a api) ok(role, method, path, body string, header ...string) reply {
	a.t.Helper()
	r := a.do(role, method, path, body, header...)
	require.Less(a.t, r.status, 300, r.body)
	return r
}

// refused does what has to fail with that status, and a problem that says so.
func (a api) refused(status int, want, role, method, path, body string, header ...string) {
	a.t.Helper()
	r := a.do(role, method, path, body, header...)
	require.Equal(a.t, status, r.status, r.body)
	require.Equal(a.t, "application/problem+json", r.header.Get("Content-Type"))
	var problem struct {
		Type, Title, Detail string
		Status              int
	}
	require.NoError(a.t, json.Unmarshal([]byte(r.body), &problem))
	require.Equal(a.t, status, problem.Status)
	require.NotEmpty(a.t, problem.Type)
	require.Equal(a.t, http.StatusText(status), problem.Title)
	require.Contains(a.t, problem.Detail, want)
}

func (a api) cluster(id string) registry.Cluster {
	a.t.Helper()
	var c registry.Cluster
	require.NoError(a.t, json.Unmarshal([]byte(a.ok("read", "GET", "/kubernetes-clusters/"+id, "").body), &c))
	return c
}

// ids are those of a list, in order.
func (a api) ids(query string) []string {
	a.t.Helper()
	var list struct{ Items []struct{ ID string } }
	require.NoError(a.t, json.Unmarshal([]byte(a.ok("read", "GET", "/kubernetes-clusters"+query, "").body), &list))
	out := []string{}
	for _, item := range list.Items {
		out = append(out, item.ID)
	}
	return out
}

func TestAClusterLivesInTheRegistry(t *testing.T) {
	databases(t, func(t *testing.T, database string) {
		a := start(t, database)
		require.Empty(t, a.ids(""))
		made := a.ok("write", "POST", "/kubernetes-clusters", one)
		require.Equal(t, 201, made.status)
		require.Equal(t, "/kubernetes-clusters/dev-1", made.header.Get("Location"))
		a.ok("write", "POST", "/kubernetes-clusters", two)
		a.refused(409, `"dev-1" is the id or alias of cluster dev-1 already`, "write", "POST", "/kubernetes-clusters", one)
		a.refused(409, `"kale" is the id or alias of cluster dev-1 already`, "write", "POST", "/kubernetes-clusters", strings.Replace(one, `"dev-1"`, `"dev-3"`, 1))
		a.refused(409, `"kale" is the id`, "write", "PATCH", "/kubernetes-clusters/dev-2", `{"alias":"kale"}`)
		a.refused(409, `"dev-1" is the id`, "write", "PATCH", "/kubernetes-clusters/dev-2", `{"alias":"dev-1"}`)

		require.Equal(t, []string{"dev-1", "dev-2"}, a.ids(""))
		require.Equal(t, []string{"dev-2"}, a.ids("?channel=alpha"))

		changed := a.ok("write", "PATCH", "/kubernetes-clusters/dev-1", `{"channel":"beta","config_items":{"b":"2"},"id":"dev-1"}`)
		require.Contains(t, changed.body, `"channel":"beta"`)
		c := a.cluster("dev-1")
		require.Equal(t, map[string]string{"b": "2"}, c.ConfigItems, "a map that is given replaces the old one")
		require.Equal(t, "kale", c.Alias, "what is not given stays")
		require.Equal(t, []string{"dev-1"}, a.ids("?channel=beta"))

		a.refused(409, "set its lifecycle_status to decommission-requested first", "write", "DELETE", "/kubernetes-clusters/dev-1", "")
		a.ok("write", "PATCH", "/kubernetes-clusters/dev-1", `{"lifecycle_status":"decommission-requested"}`)
		a.ok("status", "PATCH", "/kubernetes-clusters/dev-1", `{"lifecycle_status":"decommissioned","status":{}}`)
		require.Equal(t, 204, a.ok("write", "DELETE", "/kubernetes-clusters/dev-1", "").status)
		a.refused(404, `there is no cluster "dev-1"`, "read", "GET", "/kubernetes-clusters/dev-1", "")
		a.refused(404, `there is no cluster "dev-1"`, "write", "DELETE", "/kubernetes-clusters/dev-1", "")
		a.refused(404, `there is no cluster "dev-1"`, "write", "PATCH", "/kubernetes-clusters/dev-1", "{}")
		require.Equal(t, []string{"dev-2"}, a.ids(""))
	})
}

func TestWhatIsInTheRegistryOutlivesTheServer(t *testing.T) {
	databases(t, func(t *testing.T, database string) {
		a := start(t, database)
		a.ok("write", "POST", "/kubernetes-clusters", one)
		a.ok("status", "PATCH", "/kubernetes-clusters/dev-1", `{"status":{"current_version":"v"}}`)
		before := a.ok("read", "GET", "/kubernetes-clusters/dev-1", "")
		require.NoError(t, a.store.Close())

		b := start(t, database)
		after := b.ok("read", "GET", "/kubernetes-clusters/dev-1", "")
		require.Equal(t, before.body, after.body)
		require.Equal(t, before.header.Get("ETag"), after.header.Get("ETag"))
	})
}

func TestServersThatShareADatabaseSeeEachOthersChanges(t *testing.T) {
	databases(t, func(t *testing.T, database string) {
		a, b := start(t, database), start(t, database)
		require.Empty(t, b.ids(""))
		a.ok("write", "POST", "/kubernetes-clusters", one)
		require.Equal(t, []string{"dev-1"}, b.ids(""))

		var all sync.WaitGroup
		for i := range 20 {
			all.Go(func() {
				path := fmt.Sprintf("/kubernetes-clusters/dev-1/config-items/item_%d", i)
				if r := []api{a, b}[i%2].do("write", "PUT", path, `{"value":"x"}`); r.status != 200 {
					t.Errorf("%d: %s", r.status, r.body)
				}
			})
		}
		all.Wait()
		require.Len(t, b.cluster("dev-1").ConfigItems, 21, "no change is lost")
	})
}

func TestADatabaseOfANewerVersionIsLeftAlone(t *testing.T) {
	databases(t, func(t *testing.T, database string) {
		a := start(t, database)
		require.NoError(t, server.Execute(a.store, "INSERT INTO migrations (number) VALUES (99)"))
		_, err := server.OpenStore(t.Context(), database)
		require.ErrorContains(t, err, "it is of a newer version")
	})
}

func TestADatabaseThatFailsIsNotShownToClients(t *testing.T) {
	databases(t, func(t *testing.T, database string) {
		a := start(t, database)
		require.Equal(t, 200, a.do("", "GET", "/healthz", "").status)
		require.NoError(t, a.store.Close())
		for _, path := range []string{"/kubernetes-clusters", "/kubernetes-clusters/dev-1", "/infrastructure-accounts", "/healthz"} {
			a.refused(503, "the server's log says more", "read", "GET", path, "")
		}
		require.Equal(t, "5", a.do("read", "GET", "/kubernetes-clusters", "").header.Get("Retry-After"))
	})
}

func TestImportingAddsWhatIsNotThereYet(t *testing.T) {
	databases(t, func(t *testing.T, database string) {
		a := start(t, database)
		a.ok("write", "POST", "/kubernetes-clusters", strings.Replace(two, "leek", "mine", 1))
		clusters, err := registry.Parse("registry.yaml", []byte(`{"clusters": [`+one+","+two+`]}`))
		require.NoError(t, err)
		clusters[0].Status = &registry.Status{CurrentVersion: "v"}
		for _, want := range []int{1, 0} {
			added, err := a.store.Import(t.Context(), clusters)
			require.NoError(t, err)
			require.Equal(t, want, added)
		}
		require.Equal(t, "v", a.cluster("dev-1").Status.CurrentVersion)
		require.Equal(t, "mine", a.cluster("dev-2").Alias)
		require.Equal(t, clusters[0].Hash(), a.cluster("dev-1").Hash(), "its version stays the same")

		third := clusters[0]
		third.ID, third.Alias = "dev-3", "mine"
		fourth := clusters[0]
		fourth.ID, fourth.Alias = "dev-4", ""
		_, err = a.store.Import(t.Context(), registry.Clusters{fourth, third})
		require.ErrorContains(t, err, `"mine" is the id or alias of cluster dev-2 already`)
		require.Equal(t, []string{"dev-2", "dev-1"}, a.ids(""), "all or none")
	})
}

func TestFairwaysClientAndTheServerUnderstandEachOther(t *testing.T) {
	databases(t, func(t *testing.T, database string) {
		a := start(t, database)
		a.ok("write", "POST", "/kubernetes-clusters", strings.Replace(one, `"channel"`, `"lifecycle_status":"requested","channel"`, 1))
		client, err := registry.NewClient(a.url, func() (string, error) { return "status", nil }, 10*time.Second)
		require.NoError(t, err)
		for range 2 {
			clusters, err := client.Clusters(t.Context())
			require.NoError(t, err)
			require.Len(t, clusters, 1)
			require.Equal(t, registry.Requested, clusters[0].LifecycleStatus)
		}
		status := registry.Status{CurrentVersion: "v", LastVersion: "l", NextVersion: "n", Problems: []registry.Problem{{Type: "x", Title: "y", Detail: "z"}}}
		for range 2 {
			require.NoError(t, client.WriteStatus(t.Context(), "dev-1", status, registry.Ready))
		}
		clusters, err := client.Clusters(t.Context())
		require.NoError(t, err)
		require.Equal(t, &status, clusters[0].Status)
		require.Equal(t, registry.Ready, clusters[0].LifecycleStatus)
		require.NoError(t, client.WriteStatus(t.Context(), "dev-1", registry.Status{}, ""))
		require.Equal(t, registry.Status{Problems: []registry.Problem{}}, *a.cluster("dev-1").Status)

		var overtaken *registry.LifecycleError
		require.ErrorAs(t, client.WriteStatus(t.Context(), "dev-1", status, registry.Decommissioned), &overtaken)
		var unknown *registry.UnknownClusterError
		require.ErrorAs(t, client.WriteStatus(t.Context(), "dev-9", status, ""), &unknown)
		reader, err := registry.NewClient(a.url, func() (string, error) { return "read", nil }, 10*time.Second)
		require.NoError(t, err)
		require.ErrorContains(t, reader.WriteStatus(t.Context(), "dev-1", status, ""), "the token does not allow this")
	})
}
