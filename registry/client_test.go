package registry_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/registry"
)

// zalando is an entry as Zalando's registry shows it: with fields that Fairway does not know.
const zalando = `{"id":"aws:1:eu-central-1:kube-1","alias":"kube","local_id":"kube-1","api_server_url":"https://kube-1.example.org/",
	"channel":"alpha","criticality_level":2,"environment":"production","infrastructure_account":"aws:123456789012",
	"lifecycle_status":"ready","provider":"zalando-aws","region":"eu-central-1","cost_center":"0000001234","created_at":"2024-02-28T09:00:00+00:00",
	"config_items":{"a":"1"},"status":{"current_version":"abc","problems":[{"type":"x","title":"y","status":401,"detail":"z"}]},
	"node_pools":[{"name":"worker","profile":"worker-default","instance_types":["m5.large"],"min_size":1,"max_size":2,"discount_strategy":"none"}]}`

func connect(t *testing.T, handle http.HandlerFunc) (*registry.Client, string) {
	t.Helper()
	server := httptest.NewServer(handle)
	t.Cleanup(server.Close)
	client, err := registry.NewClient(server.URL, func() (string, error) { return "secret", nil }, 5*time.Second)
	require.NoError(t, err)
	return client, server.URL
}

func answering(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func TestClustersAreReadAsZalandosRegistryShowsThem(t *testing.T) {
	client, _ := connect(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != "GET" || r.URL.Path != "/kubernetes-clusters" || r.Header.Get("Authorization") != "Bearer secret" {
			w.WriteHeader(http.StatusTeapot)
			return
		}
		answering(200, `{"items":[`+zalando+`]}`)(w, r)
	})
	clusters := read(t, client)
	require.Len(t, clusters, 1)
	c := clusters[0]
	require.Equal(t, "aws:1:eu-central-1:kube-1", c.ID)
	require.Equal(t, 2, c.CriticalityLevel)
	require.Equal(t, map[string]string{"a": "1"}, c.ConfigItems)
	require.Equal(t, []string{"m5.large"}, c.NodePools[0].InstanceTypes)
	require.Equal(t, &registry.Status{CurrentVersion: "abc", Problems: []registry.Problem{{Type: "x", Title: "y", Status: 401, Detail: "z"}}}, c.Status)
}

func TestAClusterInCreationIsRequested(t *testing.T) {
	client, _ := connect(t, answering(200, `{"items":[`+strings.Replace(zalando, `"ready"`, `"creating"`, 1)+`]}`))
	require.Equal(t, registry.Requested, read(t, client)[0].LifecycleStatus)
}

func TestTheHashIsTheSameThroughHTTP(t *testing.T) {
	c := parseOne(t, valid)
	encoded, err := json.Marshal(c)
	require.NoError(t, err)
	client, _ := connect(t, answering(200, `{"items":[`+string(encoded)+`]}`))
	require.Equal(t, c.Hash(), read(t, client)[0].Hash())
}

func TestAnAnswerThatMakesNoSenseIsNotUsedAtAll(t *testing.T) {
	change := func(old, new string) string {
		require.Contains(t, zalando, old)
		return `{"items":[` + zalando + `,` + strings.NewReplacer("kube-1", "kube-2", `"kube"`, `"other"`, old, new).Replace(zalando) + `]}`
	}
	const second = `cluster "aws:1:eu-central-1:kube-2": `
	for name, test := range map[string]struct{ body, want string }{
		"nothing":             {"", "it is no JSON object with a list"},
		"a page":              {"<html>Please log in</html>", "it is no JSON object with a list"},
		"cut off":             {`{"items":[` + zalando, "it is no JSON object with a list"},
		"a list":              {`[]`, "it is no JSON object with a list"},
		"another object":      {`{"clusters":[]}`, "items: is missing"},
		"null":                {`null`, "items: is missing"},
		"null for the list":   {`{"items":null}`, "items: is missing"},
		"null for a cluster":  {`{"items":[` + zalando + `,null]}`, "cluster number 2: id: is missing"},
		"text for a cluster":  {`{"items":["dev-1"]}`, "cluster number 1: "},
		"text for a number":   {change(`"min_size":1`, `"min_size":"1"`), second + "node_pools.min_size: is a string; must be of type int"},
		"a fraction":          {change(`"min_size":1`, `"min_size":1.5`), second + "node_pools.min_size: is a number 1.5; must be of type int"},
		"a number for a text": {change(`{"a":"1"}`, `{"a":1}`), second + "config_items: is a number; must be of type string"},
		"no channel":          {change(`"channel":"alpha",`, ``), second + "channel: is missing"},
		"a bad lifecycle":     {change(`"ready"`, `"gone"`), second + `lifecycle_status: is "gone"; must be one of`},
		"a bad id":            {change(`aws:1:`, `aws/../1:`), `id: is "aws/../1:eu-central-1:kube-2"; use letters`},
		"no URL":              {change(`https://kube-1.example.org/`, `kube`), `api_server_url: is "kube"; must be a URL`},
		"max below min":       {change(`"max_size":2`, `"max_size":0`), second + "node_pools[0].max_size: is 0; must be at least min_size, which is 1"},
		"no instance type":    {change(`["m5.large"]`, `[]`), second + "node_pools[0].instance_types: is []; must be at least 1"},
		"one cluster twice":   {`{"items":[` + zalando + `,` + zalando + `]}`, `cluster "aws:1:eu-central-1:kube-1": id: "aws:1:eu-central-1:kube-1" is taken by clusters[0] already`},
		"a problem untitled":  {change(`"title":"y",`, ``), second + "status.problems[0].title: is missing"},
	} {
		t.Run(name, func(t *testing.T) {
			client, url := connect(t, answering(200, test.body))
			clusters, err := client.Clusters(t.Context())
			require.Nil(t, clusters)
			var nonsense *registry.AnswerError
			require.ErrorAs(t, err, &nonsense)
			require.ErrorContains(t, err, "the cluster registry answers nonsense: GET "+url+"/kubernetes-clusters: ")
			require.ErrorContains(t, err, test.want)
		})
	}
}

func TestAnErrorStaysReadableHoweverMuchIsWrong(t *testing.T) {
	items := make([]string, 3000)
	for i := range items {
		items[i] = fmt.Sprintf(`{"id":"c%d"}`, i)
	}
	client, _ := connect(t, answering(200, `{"items":[`+strings.Join(items, ",")+`]}`))
	_, err := client.Clusters(t.Context())
	require.ErrorContains(t, err, `cluster "c0": channel: is missing`)
	require.ErrorContains(t, err, " more")
	require.Less(t, len(err.Error()), 4200)

	long := strings.Repeat("x", 1<<20)
	for _, entry := range []string{strings.Replace(zalando, `"ready"`, `"`+long+`"`, 1), strings.Replace(zalando, `"aws:1:`, `"/`+long, 1), strings.Replace(zalando, `"min_size":1`, `"min_size":1`+strings.Repeat("0", 1<<20), 1)} {
		client, _ = connect(t, answering(200, `{"items":[`+entry+`]}`))
		_, err = client.Clusters(t.Context())
		require.Error(t, err)
		require.Less(t, len(err.Error()), 4200)
	}
	client, _ = connect(t, answering(400, `{"detail":"`+long+`"}`))
	_, err = client.Clusters(t.Context())
	require.Less(t, len(err.Error()), 1000)
}

// endless sends spaces until nobody reads any more.
func endless(w http.ResponseWriter, _ *http.Request) {
	chunk := []byte(strings.Repeat(" ", 1<<20))
	for {
		if _, err := w.Write(chunk); err != nil {
			return
		}
	}
}

func TestARegistryThatHasLostEverythingIsNotBelieved(t *testing.T) {
	second := strings.NewReplacer("kube-1", "kube-2", `"alias":"kube"`, `"alias":"cube"`).Replace(zalando)
	lists := []string{zalando + "," + second, "", zalando, ""}
	client, _ := connect(t, func(w http.ResponseWriter, r *http.Request) {
		answering(200, `{"items":[`+lists[0]+`]}`)(w, r)
		lists = lists[1:]
	})
	require.Len(t, read(t, client), 2)
	_, err := client.Clusters(t.Context())
	var nonsense *registry.AnswerError
	require.ErrorAs(t, err, &nonsense)
	require.ErrorContains(t, err, "the answer has lost all of 2 clusters; where that is meant, restart the worker")
	require.Len(t, read(t, client), 1)
	require.Empty(t, read(t, client), "the last one may go")
}

// Compressed, millions of empty entries have a few kilobytes; decoded they would be gigabytes.
func TestAnAnswerOfTooManyClustersIsGivenUp(t *testing.T) {
	client, _ := connect(t, answering(200, `{"items":[{}`+strings.Repeat(",{}", 10_000)+`]}`))
	_, err := client.Clusters(t.Context())
	require.ErrorContains(t, err, "items: are more than 10000")
}

func TestAnEndlessAnswerIsGivenUp(t *testing.T) {
	client, _ := connect(t, endless)
	_, err := client.Clusters(t.Context())
	var nonsense *registry.AnswerError
	require.ErrorAs(t, err, &nonsense)
	require.ErrorContains(t, err, "is longer than")
}

func TestASlowRegistryIsNotWaitedForLongerThanConfigured(t *testing.T) {
	for name, handle := range map[string]http.HandlerFunc{
		"no answer": func(_ http.ResponseWriter, r *http.Request) { hang(r) },
		"half an answer": func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, `{"items":[`)
			_ = http.NewResponseController(w).Flush()
			hang(r)
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(handle)
			defer server.Close()
			client, err := registry.NewClient(server.URL, nil, 50*time.Millisecond)
			require.NoError(t, err)
			for _, call := range calls(client) {
				var unreachable *registry.UnreachableError
				require.ErrorAs(t, call(t.Context()), &unreachable)
				require.ErrorContains(t, unreachable, "no answer within 50ms")
			}
		})
	}
}

// hang waits until the client has given up, which a server notices only after it has read the body.
func hang(r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	<-r.Context().Done()
}

// calls are all that is asked of a client.
func calls(client *registry.Client) []func(context.Context) error {
	return []func(context.Context) error{
		func(ctx context.Context) error { _, err := client.Clusters(ctx); return err },
		func(ctx context.Context) error { return client.WriteStatus(ctx, "dev-1", updated, "") },
		func(ctx context.Context) error { return client.WriteStatus(ctx, "dev-1", updated, registry.Ready) },
	}
}

func TestARegistryThatIsDownIsUnreachable(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close()
	client, err := registry.NewClient(server.URL, nil, time.Second)
	require.NoError(t, err)
	for _, call := range calls(client) {
		var unreachable *registry.UnreachableError
		require.ErrorAs(t, call(t.Context()), &unreachable)
		require.ErrorContains(t, unreachable, "the cluster registry does not answer: ")
		require.ErrorContains(t, unreachable, "connection refused")
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, call := range calls(client) {
		require.ErrorIs(t, call(cancelled), context.Canceled)
	}
}

func TestWhatTheRegistrySaysDecidesAboutTheKindOfError(t *testing.T) {
	for status, want := range map[int]string{
		500: "does not answer", 502: "does not answer", 503: "does not answer", 429: "does not answer",
		400: "refuses", 401: "check the token", 403: "the token does not allow this", 409: "refuses", 412: "refuses",
		301: "redirects are not followed", 307: "redirects are not followed", 204: "instead of 200", 206: "instead of 200",
	} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			client, _ := connect(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Location", "https://elsewhere.example.org")
				if status == 204 {
					w.WriteHeader(status)
					return
				}
				answering(status, `{"title":"T","detail":"because\n\u001b[31m it is so"}`)(w, r)
			})
			for _, call := range calls(client) {
				err := call(t.Context())
				var unreachable *registry.UnreachableError
				var refused *registry.RefusedError
				var nonsense *registry.AnswerError
				switch {
				case status == 429 || status >= 500:
					require.ErrorAs(t, err, &unreachable)
				case status >= 300:
					require.ErrorAs(t, err, &refused)
					require.Equal(t, status, refused.Status)
				default:
					require.ErrorAs(t, err, &nonsense)
				}
				require.ErrorContains(t, err, want)
				require.NotContains(t, err.Error(), "secret")
				if status >= 300 {
					require.ErrorContains(t, err, `"because\n\x1b[31m it is so"`)
				}
			}
		})
	}
}

func TestAnUnchangedListIsNotSentAgain(t *testing.T) {
	var asked []string
	body, etag := `{"items":[`+zalando+`]}`, `"one"`
	client, _ := connect(t, func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Header.Get("If-None-Match"))
		w.Header().Set("ETag", etag)
		if r.Header.Get("If-None-Match") == etag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		answering(200, body)(w, r)
	})
	first, second := read(t, client), read(t, client)
	require.Equal(t, []string{"", `"one"`}, asked)
	require.Same(t, &first[0].NodePools[0], &second[0].NodePools[0])

	body, etag = strings.Replace(body, "alpha", "beta", 1), `"two"`
	require.Equal(t, "beta", read(t, client)[0].Channel)

	body, etag = "nonsense", `"three"`
	_, err := client.Clusters(t.Context())
	require.Error(t, err)
	body, etag = `{"items":[]}`, `"two"`
	require.Equal(t, "beta", read(t, client)[0].Channel, "what made no sense has left nothing behind")
	require.Equal(t, []string{"", `"one"`, `"one"`, `"two"`, `"two"`}, asked)
}

func TestAnUnchangedListIsNotDecodedAgainWithoutAnETagEither(t *testing.T) {
	client, _ := connect(t, answering(200, `{"items":[`+zalando+`]}`))
	first, second := read(t, client), read(t, client)
	require.Same(t, &first[0].NodePools[0], &second[0].NodePools[0])
}

func TestNothingChangedSinceNothingIsNonsense(t *testing.T) {
	client, _ := connect(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotModified) })
	_, err := client.Clusters(t.Context())
	var nonsense *registry.AnswerError
	require.ErrorAs(t, err, &nonsense)
}

func TestAStatusIsWrittenByPatchAndCarriesNothingElse(t *testing.T) {
	var method, path, body string
	client, _ := connect(t, func(w http.ResponseWriter, r *http.Request) {
		content, _ := io.ReadAll(r.Body)
		method, path, body = r.Method, r.URL.EscapedPath(), string(content)
		answering(200, zalando)(w, r)
	})
	require.NoError(t, client.WriteStatus(t.Context(), "aws:1:eu-central-1:kube-1", registry.Status{CurrentVersion: "v"}, ""))
	require.Equal(t, "PATCH", method)
	require.Equal(t, "/kubernetes-clusters/aws:1:eu-central-1:kube-1", path)
	require.JSONEq(t, `{"status":{"current_version":"v","last_version":"","next_version":"","problems":[]}}`, body)
	require.EqualError(t, client.WriteStatus(t.Context(), "a", registry.Status{Problems: []registry.Problem{{Type: "x"}}}, ""),
		"status of cluster a: problems[0].title: is missing")
}

func TestALifecycleStatusIsWrittenOnlyWherePeopleStillWantIt(t *testing.T) {
	for from, refused := range map[string]bool{"requested": false, "creating": false, "ready": false, "decommission-requested": true, "decommissioned": true} {
		t.Run(from, func(t *testing.T) {
			patches, match, body := 0, "", ""
			client, _ := connect(t, func(w http.ResponseWriter, r *http.Request) {
				if r.Method == "PATCH" {
					content, _ := io.ReadAll(r.Body)
					patches, match, body = patches+1, r.Header.Get("If-Match"), string(content)
				}
				w.Header().Set("ETag", `"7.1"`)
				answering(200, strings.Replace(zalando, `"ready"`, `"`+from+`"`, 1))(w, r)
			})
			err := client.WriteStatus(t.Context(), "aws:1:eu-central-1:kube-1", registry.Status{}, registry.Ready)
			if refused {
				var overtaken *registry.LifecycleError
				require.ErrorAs(t, err, &overtaken)
				require.Zero(t, patches)
				return
			}
			require.NoError(t, err)
			require.Equal(t, 1, patches)
			require.Equal(t, `"7.1"`, match)
			require.Contains(t, body, `"lifecycle_status":"ready"`)
		})
	}
}

func TestAClusterThatTheRegistryDoesNotKnow(t *testing.T) {
	client, _ := connect(t, answering(404, `{"title":"Not Found"}`))
	for _, lifecycle := range []registry.LifecycleStatus{"", registry.Ready} {
		var unknown *registry.UnknownClusterError
		require.ErrorAs(t, client.WriteStatus(t.Context(), "dev-9", registry.Status{}, lifecycle), &unknown)
	}
	client, _ = connect(t, http.NotFound) // a proxy, or the wrong path
	var refused *registry.RefusedError
	require.ErrorAs(t, client.WriteStatus(t.Context(), "dev-9", registry.Status{}, ""), &refused)
}

func TestAnAnswerAboutAnotherClusterIsNonsense(t *testing.T) {
	client, _ := connect(t, answering(200, zalando))
	var nonsense *registry.AnswerError
	require.ErrorAs(t, client.WriteStatus(t.Context(), "dev-1", registry.Status{}, registry.Ready), &nonsense)
	require.ErrorContains(t, nonsense, `is about cluster "aws:1:eu-central-1:kube-1"`)
}

func TestWithoutAUsableTokenNothingIsAsked(t *testing.T) {
	client, err := registry.NewClient("http://127.0.0.1:1", func() (string, error) { return "", errors.New("no token") }, time.Second)
	require.NoError(t, err)
	for _, call := range calls(client) {
		require.EqualError(t, call(t.Context()), "no token")
	}
}

func TestAnAddressIsRefusedThatIsNone(t *testing.T) {
	for _, address := range []string{"", "registry", "ftp://registry", "https://", "https://user:secret@registry", "https://registry?x=y", "https://registry#x", "http://[::1"} {
		_, err := registry.NewClient(address, nil, time.Second)
		require.Error(t, err, address)
		require.NotContains(t, err.Error(), "secret")
	}
	client, err := registry.NewClient("https://registry.example.org/v1/", nil, time.Second)
	require.NoError(t, err)
	require.NotNil(t, client)
}
