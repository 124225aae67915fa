package server_test

import (
	"encoding/json"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/registry/server"
)

const dev1 = "/kubernetes-clusters/dev-1"

// filled is a server on SQLite with two clusters.
func filled(t *testing.T) api {
	t.Helper()
	a := start(t, filepath.Join(t.TempDir(), "registry.db"))
	a.ok("write", "POST", "/kubernetes-clusters", one)
	a.ok("write", "POST", "/kubernetes-clusters", two)
	return a
}

func TestNobodyGetsInWithoutAToken(t *testing.T) {
	a := filled(t)
	for _, route := range server.Routes() {
		if route[1] == "/healthz" || route[1] == "/openapi.yaml" {
			require.Equal(t, 200, a.do("", route[0], route[1], "").status)
			continue
		}
		for _, header := range []string{"", "Bearer", "Bearer ", "Bearer nobody", "Basic " + hash("write"), "write", "Bearer " + hash("write")} {
			r := a.do("", route[0], route[1], "{}", "Authorization", header)
			require.Equal(t, 401, r.status, "%v %q", route, header)
			require.Contains(t, r.header.Get("WWW-Authenticate"), "Bearer")
		}
	}
}

func TestARoleAllowsWhatItIsForAndNothingElse(t *testing.T) {
	a := filled(t)
	for _, route := range server.Routes() {
		if route[0] == "GET" {
			continue
		}
		path := strings.NewReplacer("{cluster_id}", "dev-1", "{node_pool_name}", "worker", "{config_key}", "a").Replace(route[1])
		a.refused(403, "the token of the read has the role read", "read", route[0], path, "{}")
		if route[0] != "PATCH" || strings.Contains(path, "node-pools") {
			a.refused(403, "the token of the status has the role status; this needs write", "status", route[0], path, "{}")
		}
	}
	before := a.ok("read", "GET", dev1, "").body
	for _, body := range []string{
		`{"channel":"stable"}`, `{"status":{},"channel":"stable"}`, `{"config_items":{}}`, `{"node_pools":[]}`, `{"alias":"x","status":{}}`,
		`{"Channel":"stable"}`, `{"id":"dev-1"}`, `{"owner":"me"}`, `{"unknown":1}`,
	} {
		a.refused(403, "is changed with tokens of the role write", "status", "PATCH", dev1, body)
	}
	a.refused(403, "status: is written with tokens of the role status", "write", "PATCH", dev1, `{"status":{}}`)
	a.refused(400, `"status" is no known field`, "write", "POST", "/kubernetes-clusters", strings.Replace(strings.Replace(one, "dev-1", "dev-3", 1), `"alias"`, `"status":{},"alias"`, 1))
	a.refused(409, "cannot become", "status", "PATCH", dev1, `{"lifecycle_status":"decommission-requested"}`)
	a.refused(409, "cannot become", "status", "PATCH", dev1, `{"lifecycle_status":"requested","status":{}}`)
	a.refused(409, "cannot become", "status", "PATCH", dev1, `{"lifecycle_status":"gone","status":{}}`)
	require.Equal(t, before, a.ok("read", "GET", dev1, "").body)
	a.ok("status", "PATCH", dev1, `{"lifecycle_status":"ready","status":{"current_version":"v"}}`) // as Zalando's clients write it
	require.Equal(t, "v", a.cluster("dev-1").Status.CurrentVersion)
}

func TestALifecycleThatPeopleWantMovesAnywhere(t *testing.T) {
	a := filled(t)
	for _, lifecycle := range []string{"decommission-requested", "ready", "requested", "decommissioned"} {
		a.ok("write", "PATCH", dev1, `{"lifecycle_status":"`+lifecycle+`"}`)
		require.Equal(t, lifecycle, string(a.cluster("dev-1").LifecycleStatus))
	}
}

func TestWhoHasSeenAnOlderStateChangesNothing(t *testing.T) {
	a := filled(t)
	seen := a.ok("read", "GET", dev1, "").header.Get("ETag")
	require.NotEmpty(t, seen)
	a.ok("status", "PATCH", dev1, `{"status":{"current_version":"v"}}`)
	require.NotEqual(t, seen, a.ok("read", "GET", dev1, "").header.Get("ETag"), "a status is news to readers")
	changed := a.ok("write", "PATCH", dev1, `{"channel":"beta"}`, "If-Match", seen) // and no conflict for writers
	require.Equal(t, a.ok("read", "GET", dev1, "").header.Get("ETag"), changed.header.Get("ETag"))
	for _, write := range [][3]string{
		{"PATCH", dev1, `{"channel":"stable"}`}, {"DELETE", dev1, ""},
		{"PUT", dev1 + "/config-items/a", `{"value":"2"}`}, {"DELETE", dev1 + "/config-items/a", ""},
		{"POST", dev1 + "/node-pools", pool}, {"PUT", dev1 + "/node-pools/second", pool}, {"PATCH", dev1 + "/node-pools/worker", `{"max_size":9}`},
		{"DELETE", dev1 + "/node-pools/worker", ""}, {"PUT", dev1 + "/node-pools/worker/config-items/a", `{"value":"2"}`},
	} {
		for _, old := range []string{seen, `"0.0"`, "nonsense", `W/` + changed.header.Get("ETag")} {
			a.refused(412, "read it again", "write", write[0], write[1], write[2], "If-Match", old)
		}
	}
	a.ok("write", "PATCH", dev1, `{"channel":"gamma"}`, "If-Match", "*")
	same := a.ok("read", "GET", dev1, "").header.Get("ETag")
	require.Equal(t, same, a.ok("write", "PATCH", dev1, `{"channel":"gamma"}`).header.Get("ETag"), "nothing changes")
}

func TestWhatIsUnchangedIsNotSent(t *testing.T) {
	a := filled(t)
	for _, path := range []string{
		"/kubernetes-clusters", "/kubernetes-clusters?channel=dev&verbose=false", dev1, dev1 + "/config-items", dev1 + "/config-items/a", dev1 + "/node-pools",
		dev1 + "/node-pools/worker", "/infrastructure-accounts", "/infrastructure-accounts/aws:123456789012",
	} {
		etag := a.ok("read", "GET", path, "").header.Get("ETag")
		r := a.do("read", "GET", path, "", "If-None-Match", `"other", W/`+etag)
		require.Equal(t, 304, r.status)
		require.Empty(t, r.body)
		a.ok("status", "PATCH", dev1, `{"status":{"current_version":"`+path+`"}}`)
		require.Equal(t, 200, a.do("read", "GET", path, "", "If-None-Match", etag).status)
	}
}

func TestListsAreFiltered(t *testing.T) {
	a := filled(t)
	for query, want := range map[string][]string{
		"": {"dev-1", "dev-2"}, "?channel=dev": {"dev-1"}, "?channel=dev&channel=alpha": {"dev-1", "dev-2"}, "?channel=dev&alias=leek": {},
		"?id=dev-2": {"dev-2"}, "?alias=kale": {"dev-1"}, "?local_id=dev-1": {"dev-1"}, "?environment=test": {"dev-1", "dev-2"},
		"?infrastructure_account=aws:123456789012&region=eu-central-1&provider=zalando-aws&owner=anchor&criticality_level=1": {"dev-1", "dev-2"},
		"?lifecycle_status=ready": {"dev-1", "dev-2"}, "?lifecycle_status=requested": {}, "?api_server_url=https://dev-2.example.org": {"dev-2"},
		"?criticality_level=0": {}, "?channel=": {},
	} {
		require.Equal(t, want, a.ids(query), query)
	}
	a.refused(400, `"chanel" is no known parameter; there are alias, `, "read", "GET", "/kubernetes-clusters?chanel=dev", "")
	a.refused(400, "verbose: is \"maybe\"", "read", "GET", "/kubernetes-clusters?verbose=maybe", "")
	a.refused(400, "the query cannot be read", "read", "GET", "/kubernetes-clusters?a=%zz", "")
	require.Contains(t, a.ok("read", "GET", dev1+"?verbose=true", "").body, "node_pools")
	for _, path := range []string{"/kubernetes-clusters", dev1} {
		brief := a.ok("read", "GET", path+"?verbose=false", "").body
		require.NotContains(t, brief, "node_pools")
		require.NotContains(t, brief, "config_items")
		require.Contains(t, brief, `"channel":"dev"`)
	}
}

// Zalando's client takes these fields for given, and ends when one is missing.
func TestEveryFieldIsThereThatZalandosClientsRelyOn(t *testing.T) {
	a := start(t, filepath.Join(t.TempDir(), "registry.db"))
	a.ok("write", "POST", "/kubernetes-clusters", strings.NewReplacer(`"alias":"kale",`, "", `"owner":"anchor",`, "").Replace(one))
	var list struct{ Items []map[string]any }
	require.NoError(t, json.Unmarshal([]byte(a.ok("read", "GET", "/kubernetes-clusters", "").body), &list))
	for _, field := range []string{"id", "alias", "infrastructure_account", "region", "local_id", "provider", "api_server_url", "channel", "environment", "criticality_level", "lifecycle_status", "status", "created_at"} {
		require.Contains(t, list.Items[0], field)
		require.NotNil(t, list.Items[0][field])
	}
	require.Equal(t, []any{}, list.Items[0]["status"].(map[string]any)["problems"])
	pool := list.Items[0]["node_pools"].([]any)[0].(map[string]any)
	require.Equal(t, "none", pool["discount_strategy"])

	list.Items = nil
	require.NoError(t, json.Unmarshal([]byte(a.ok("read", "GET", "/infrastructure-accounts?lifecycle_status=ready", "").body), &list))
	require.Equal(t, map[string]any{
		"id": "aws:123456789012", "type": "aws", "name": "aws:123456789012", "owner": "", "cost_center": "", "environment": "test",
		"criticality_level": 1.0, "external_id": "123456789012", "lifecycle_status": "ready",
	}, list.Items[0])
}

func TestAProblemIsPlainJSONForThoseWhoKnowNothingElse(t *testing.T) {
	r := filled(t).do("read", "GET", "/kubernetes-clusters/dev-9", "", "Accept", "application/json")
	require.Equal(t, 404, r.status)
	require.Equal(t, "application/json", r.header.Get("Content-Type"))
	require.JSONEq(t, `{"type":"about:blank","title":"Not Found","status":404,"detail":"there is no cluster \"dev-9\"",
		"code":404,"message":"there is no cluster \"dev-9\""}`, r.body)
}

func TestAccountsAreThoseOfTheClusters(t *testing.T) {
	a := filled(t)
	a.ok("write", "PATCH", dev1, `{"owner":"other","criticality_level":7}`)
	account := a.ok("read", "GET", "/infrastructure-accounts/aws:123456789012", "").body
	require.Contains(t, account, `"owner":""`, "clusters do not agree")
	require.Contains(t, account, `"environment":"test"`)
	require.Contains(t, account, `"criticality_level":7`)
	a.refused(404, "no cluster is in", "read", "GET", "/infrastructure-accounts/aws:2", "")
	require.JSONEq(t, `{"items":[]}`, a.ok("read", "GET", "/infrastructure-accounts?lifecycle_status=requested", "").body)
	a.refused(405, "POST is not possible here; possible are GET, HEAD", "write", "POST", "/infrastructure-accounts", "{}")
}

func TestWhatIsWrongIsRefusedAndNamed(t *testing.T) {
	a := filled(t)
	third := strings.NewReplacer("dev-1", "dev-3", "kale", "chard").Replace(one)
	change := func(old, new string) string {
		require.Contains(t, third, old)
		return strings.Replace(third, old, new, 1)
	}
	for name, test := range map[string]struct{ method, path, body, want string }{
		"no body":            {"POST", "/kubernetes-clusters", "", "the body is no JSON object"},
		"null":               {"POST", "/kubernetes-clusters", "null", "the body is null"},
		"a list":             {"POST", "/kubernetes-clusters", "[]", "the body is no JSON object"},
		"two objects":        {"POST", "/kubernetes-clusters", "{}{}", "the body is no JSON object"},
		"deep":               {"POST", "/kubernetes-clusters", strings.Repeat(`{"a":`, 20000), "the body is no JSON object"},
		"nothing in it":      {"POST", "/kubernetes-clusters", "{}", "id: is missing"},
		"no channel":         {"POST", "/kubernetes-clusters", change(`"channel":"dev",`, ""), `cluster "dev-3": channel: is missing`},
		"null channel":       {"POST", "/kubernetes-clusters", change(`"channel":"dev"`, `"channel":null`), "channel: is null"},
		"wrong type":         {"POST", "/kubernetes-clusters", change(`"channel":"dev"`, `"channel":1`), "channel: is a number; must be of type string"},
		"wrong inner type":   {"POST", "/kubernetes-clusters", change(`"min_size":3`, `"min_size":"3"`), "node_pools.min_size: is a string; must be of type int"},
		"fraction":           {"POST", "/kubernetes-clusters", change(`"criticality_level":1`, `"criticality_level":1.5`), "criticality_level: is a number 1.5"},
		"too critical":       {"POST", "/kubernetes-clusters", change(`"criticality_level":1`, `"criticality_level":101`), "criticality_level: is 101; must be at most 100"},
		"unknown field":      {"POST", "/kubernetes-clusters", change(`"channel"`, `"chanel"`), `"chanel" is no known field; there are alias, `},
		"other letter case":  {"POST", "/kubernetes-clusters", change(`"channel"`, `"Channel"`), `"Channel" is no known field`},
		"unknown pool field": {"POST", "/kubernetes-clusters", change(`"min_size"`, `"minimum"`), `node_pools: json: unknown field "minimum"`},
		"slash in the id":    {"POST", "/kubernetes-clusters", change(`"dev-3"`, `"../dev-3"`), "use letters, digits"},
		"no URL":             {"POST", "/kubernetes-clusters", change(`https://dev-3.example.org`, `dev-3`), "api_server_url: is \"dev-3\""},
		"two pools alike":    {"PATCH", dev1, `{"node_pools":[` + pool + `,` + pool + `]}`, `"second" is the name of node_pools[0] already`},
		"max below min":      {"PATCH", dev1 + "/node-pools/worker", `{"max_size":1}`, "max_size: is 1; must be at least min_size, which is 3"},
		"another id":         {"PATCH", dev1, `{"id":"dev-9"}`, "the id of cluster dev-1 never changes"},
		"bad lifecycle":      {"PATCH", dev1, `{"lifecycle_status":"creating"}`, "must be one of requested, ready"},
		"empty channel":      {"PATCH", dev1, `{"channel":""}`, "channel: is missing"},
		"another pool name":  {"PATCH", dev1 + "/node-pools/worker", `{"name":"x"}`, "the name of node pool worker never changes"},
		"name not the path":  {"PUT", dev1 + "/node-pools/third", pool, "the name of node pool third never changes"},
		"no pool name":       {"POST", dev1 + "/node-pools", `{"profile":"p","instance_types":["m5.large"],"min_size":0,"max_size":0}`, "node_pools[1].name: is missing"},
		"no instance type":   {"PUT", dev1 + "/node-pools/third", `{"profile":"p","instance_types":[],"min_size":0,"max_size":0}`, "instance_types: is []"},
		"null item":          {"PATCH", dev1, `{"config_items":{"a":null}}`, "config_items.a: is null; give it a value or leave it out"},
		"null in a pool":     {"PATCH", dev1, `{"node_pools":[` + strings.Replace(pool, `"m5.large"`, `null`, 1) + `]}`, "node_pools[0].instance_types[0]: is null"},
		"control character":  {"PATCH", dev1, `{"alias":"a\u0000"}`, "alias: is \"a\\x00\"; use no control characters"},
		"no value":           {"PUT", dev1 + "/config-items/b", `{}`, "value: is missing"},
		"number value":       {"PUT", dev1 + "/config-items/b", `{"value":1}`, "value: is a number; must be of type string"},
	} {
		t.Run(name, func(t *testing.T) {
			a := a
			a.t = t
			before := a.ok("read", "GET", "/kubernetes-clusters", "").body
			a.refused(400, test.want, "write", test.method, test.path, test.body)
			require.Equal(t, before, a.ok("read", "GET", "/kubernetes-clusters", "").body)
		})
	}
	a.refused(400, `status.problems[0].title: is missing`, "status", "PATCH", dev1, `{"status":{"problems":[{"type":"x"}]}}`)
	a.refused(413, "longer than 1048576 bytes", "write", "PUT", dev1+"/config-items/b", `{"value":"`+strings.Repeat("x", 1<<20)+`"}`)
	a.refused(415, "must be application/json", "write", "PUT", dev1+"/config-items/b", `{"value":"x"}`, "Content-Type", "text/yaml")
	a.refused(415, "must be application/json", "write", "PATCH", dev1, `{"config_items":{"b":"2"}}`, "Content-Type", "application/merge-patch+json")
	a.refused(404, "there is nothing at this path", "write", "GET", "/kubernetes-cluster", "")
	a.refused(405, "possible are DELETE, GET, HEAD, PATCH", "write", "PUT", dev1, one)
	require.Equal(t, "DELETE, GET, HEAD, PATCH", a.do("write", "PUT", dev1, one).header.Get("Allow"))
}

const pool = `{"name":"second","profile":"p","instance_types":["m5.large"],"min_size":0,"max_size":2}`

func TestAClusterDoesNotGrowBeyondWhatItsReadersTake(t *testing.T) {
	a := filled(t)
	half := `{"value":"` + strings.Repeat("x", 600_000) + `"}`
	a.ok("write", "PUT", dev1+"/config-items/b", half)
	a.refused(400, "cluster dev-1: is 12", "write", "PUT", dev1+"/config-items/c", half)
	require.NotContains(t, a.cluster("dev-1").ConfigItems, "c")
}

func TestAnIDThatNoClusterCanHaveIsUnknown(t *testing.T) {
	databases(t, func(t *testing.T, database string) {
		a := start(t, database)
		for _, id := range []string{"%00", "%ff", "..%2fdev-1", "'%20OR%20''='"} {
			a.refused(404, "there is no cluster", "read", "GET", "/kubernetes-clusters/"+id, "")
			a.refused(404, "there is no cluster", "write", "PATCH", "/kubernetes-clusters/"+id, `{"channel":"x"}`)
			a.refused(404, "there is no cluster", "write", "DELETE", "/kubernetes-clusters/"+id, "")
		}
	})
}

func TestNodePoolsAreChangedOneByOne(t *testing.T) {
	a := filled(t)
	pools := dev1 + "/node-pools"
	names := func() (out []string) {
		for _, p := range a.cluster("dev-1").NodePools {
			out = append(out, p.Name)
		}
		return out
	}
	require.Equal(t, 201, a.ok("write", "POST", pools, pool).status)
	require.Equal(t, []string{"worker", "second"}, names())
	a.refused(409, "has a node pool second already", "write", "POST", pools, pool)

	require.Contains(t, a.ok("write", "PUT", pools+"/second", strings.Replace(pool, `"max_size":2`, `"max_size":4`, 1)).body, `"max_size":4`)
	a.ok("write", "PUT", pools+"/third", `{"profile":"q","instance_types":["m5.large","m5a.large"],"min_size":1,"max_size":1,"discount_strategy":"spot"}`)
	require.Equal(t, []string{"worker", "second", "third"}, names())

	a.ok("write", "PATCH", pools+"/third", `{"instance_types":["c5.large"]}`)
	third, found := a.cluster("dev-1").Pool("third")
	require.True(t, found)
	require.Equal(t, registry.NodePool{Name: "third", Profile: "q", InstanceTypes: []string{"c5.large"}, MinSize: 1, MaxSize: 1, DiscountStrategy: "spot"}, third)

	a.ok("write", "PUT", pools+"/third/config-items/labels", `{"value":"a=b"}`)
	a.ok("write", "PUT", pools+"/third/config-items/empty", `{"value":""}`)
	require.Contains(t, a.ok("read", "GET", pools+"/third", "").body, `"config_items":{"empty":"","labels":"a=b"}`)
	require.Equal(t, 204, a.ok("write", "DELETE", pools+"/third/config-items/labels", "").status)
	a.refused(404, `no config item "labels"`, "write", "DELETE", pools+"/third/config-items/labels", "")
	a.refused(404, `no node pool "fourth"`, "write", "PUT", pools+"/fourth/config-items/labels", `{"value":"a=b"}`)

	require.Equal(t, 204, a.ok("write", "DELETE", pools+"/second", "").status)
	require.Equal(t, []string{"worker", "third"}, names())
	var list struct{ Items []registry.NodePool }
	require.NoError(t, json.Unmarshal([]byte(a.ok("read", "GET", pools, "").body), &list))
	require.Len(t, list.Items, 2)
	for _, method := range []string{"GET", "PATCH", "DELETE"} {
		a.refused(404, `has no node pool "second"`, "write", method, pools+"/second", "{}")
	}
	for _, call := range [][2]string{{"GET", ""}, {"POST", pool}} {
		a.refused(404, `there is no cluster "dev-9"`, "write", call[0], "/kubernetes-clusters/dev-9/node-pools", call[1])
	}
}

func TestConfigItemsAreChangedOneByOne(t *testing.T) {
	a := filled(t)
	items := dev1 + "/config-items"
	require.JSONEq(t, `{"value":"<&>"}`, a.ok("write", "PUT", items+"/fairway.drain.force_after", `{"value":"<&>"}`).body)
	require.JSONEq(t, `{"value":"<&>"}`, a.ok("read", "GET", items+"/fairway.drain.force_after", "").body)
	require.JSONEq(t, `{"a":"1","fairway.drain.force_after":"<&>"}`, a.ok("read", "GET", items, "").body)
	require.Equal(t, 204, a.ok("write", "DELETE", items+"/a", "").status)
	for _, method := range []string{"GET", "DELETE"} {
		a.refused(404, `no config item "a"`, "write", method, items+"/a", "")
	}
	require.Equal(t, map[string]string{"fairway.drain.force_after": "<&>"}, a.cluster("dev-1").ConfigItems)
	require.Equal(t, map[string]string{"a": "1"}, a.cluster("dev-2").ConfigItems)
}

func TestDeletingAnEntryThatWasNeverMadeIsPossible(t *testing.T) {
	a := filled(t)
	a.ok("write", "PATCH", dev1, `{"lifecycle_status":"requested"}`)
	a.ok("status", "PATCH", dev1, `{"status":{"next_version":"v"}}`)
	a.refused(409, "cluster dev-1 is requested", "write", "DELETE", dev1, "")
	a.ok("status", "PATCH", dev1, `{"status":{}}`)
	require.Equal(t, http.StatusNoContent, a.ok("write", "DELETE", dev1, "").status)
}

func TestClustersKeepTheOrderOfTheirCreation(t *testing.T) {
	a := start(t, filepath.Join(t.TempDir(), "registry.db"))
	want := []string{"z", "a", "m"}
	for _, id := range want {
		a.ok("write", "POST", "/kubernetes-clusters", strings.NewReplacer("dev-1", id, `"alias":"kale",`, "").Replace(one))
	}
	a.ok("write", "PATCH", "/kubernetes-clusters/z", `{"channel":"beta"}`)
	require.Equal(t, want, a.ids(""))
	require.True(t, slices.Equal(want, a.ids("?environment=test")))
}
