package notify_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"

	"github.com/fairway-project/fairway/activities/notify"
	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/workflows"
)

// route leads to a hook through the library, under a name of its own.
func route(t *testing.T, h *hook, name string) config.Route {
	t.Helper()
	t.Setenv("ROUTE_"+name, "generic://"+strings.TrimPrefix(h.URL, "http://")+path+"?disabletls=yes&template=json")
	return config.Route{Name: name, URLEnv: "ROUTE_" + name}
}

func routes(routes ...config.Route) *notify.Activities {
	return &notify.Activities{Settings: config.Notify{Routes: routes, Timeout: 5 * time.Second}}
}

func TestARouteGetsTitleAndText(t *testing.T) {
	h := serve(t, status(http.StatusOK))
	require.NoError(t, routes(route(t, h, "a")).Notify(t.Context(), soon))
	require.Equal(t, int32(1), h.calls.Load())
	require.Equal(t, path, h.last.URL.Path)
	var got struct{ Title, Message string }
	require.NoError(t, json.Unmarshal(h.body, &got))
	require.Equal(t, "Fairway: force soon, dev-1", got.Title)
	require.Equal(t, "Pod shop/web-1 will be deleted.\n\ncluster: dev-1\npool: workers\nnode: n1\npod: shop/web-1\nowner: anchor\nat: 2026-03-01T12:00:00Z", got.Message)
}

func TestRoutesAndTheWebhookAreToldTogether(t *testing.T) {
	h := serve(t, status(http.StatusOK))
	a := routes(route(t, h, "a"), route(t, h, "b"))
	a.Settings.URLEnv = "HOOK"
	require.NoError(t, a.Notify(t.Context(), soon))
	require.Equal(t, int32(3), h.calls.Load())
}

func TestARouteTakesWhatConcernsItsPeople(t *testing.T) {
	known := func(context.Context, string) (registry.Cluster, error) {
		return registry.Cluster{Owner: "team-shop", Environment: "production", Channel: "stable"}, nil
	}
	down := func(context.Context, string) (registry.Cluster, error) { return registry.Cluster{}, errors.New("down") }
	for rule, test := range map[string]struct {
		route  config.Route
		find   func(context.Context, string) (registry.Cluster, error)
		change func(*workflows.Notification)
		want   int32
	}{
		"everything without restrictions":                  {config.Route{}, known, nil, 1},
		"the owner of the pod":                             {config.Route{Owners: []string{"anchor"}}, known, nil, 1},
		"the owner of the cluster":                         {config.Route{Owners: []string{"team-*"}}, known, nil, 1},
		"not that of others":                               {config.Route{Owners: []string{"team-pay"}}, known, nil, 0},
		"the environment":                                  {config.Route{Environments: []string{"prod*"}}, known, nil, 1},
		"not another environment":                          {config.Route{Environments: []string{"test"}}, known, nil, 0},
		"the channel":                                      {config.Route{Channels: []string{"stable"}}, known, nil, 1},
		"not another channel":                              {config.Route{Channels: []string{"dev", "alpha"}}, known, nil, 0},
		"the kind":                                         {config.Route{Kinds: []string{workflows.ForceSoon}}, known, nil, 1},
		"not another kind":                                 {config.Route{Kinds: []string{workflows.UpdateFailed}}, known, nil, 0},
		"only what fits in all respects":                   {config.Route{Owners: []string{"anchor"}, Channels: []string{"dev"}}, known, nil, 0},
		"too much rather than nothing, without a registry": {config.Route{Owners: []string{"anchor"}, Channels: []string{"dev"}}, down, nil, 1},
		"but what is known without it restricts":           {config.Route{Owners: []string{"team-pay"}}, down, nil, 0},
		"a channel of its own": {config.Route{Channels: []string{"beta"}}, known, func(n *workflows.Notification) {
			n.Cluster, n.Channel = "", "beta"
		}, 1},
	} {
		t.Run(rule, func(t *testing.T) {
			h := serve(t, status(http.StatusOK))
			of := route(t, h, "a")
			test.route.Name, test.route.URLEnv = of.Name, of.URLEnv
			a, n := routes(test.route), soon
			a.Find = test.find
			if test.change != nil {
				test.change(&n)
			}
			require.NoError(t, a.Notify(t.Context(), n))
			require.Equal(t, test.want, h.calls.Load())
		})
	}
}

func TestNobodyIsToldTheSameTwice(t *testing.T) {
	h := serve(t, status(http.StatusOK))
	a := routes(route(t, h, "a"))
	a.Settings.URLEnv = "HOOK"
	require.NoError(t, a.Notify(t.Context(), soon))
	require.NoError(t, a.Notify(t.Context(), soon), "the same id")
	again := soon
	again.ID = "force-soon/2"
	require.NoError(t, a.Notify(t.Context(), again), "the same words about the same pod")
	require.Equal(t, int32(2), h.calls.Load())
	again.Pod = "shop/web-2"
	again.ID = "force-soon/3"
	require.NoError(t, a.Notify(t.Context(), again), "another pod")
	require.Equal(t, int32(4), h.calls.Load())
}

func TestARetryTellsOnlyThoseThatFailed(t *testing.T) {
	well := serve(t, status(http.StatusOK))
	code := http.StatusInternalServerError
	ill := serve(t, func(w http.ResponseWriter, r *http.Request) { status(code)(w, r) })
	a := routes(route(t, well, "well"), route(t, ill, "ill"))
	err := a.Notify(t.Context(), soon)
	requireError(t, err, workflows.Unreachable, false)
	require.ErrorContains(t, err, "notify.routes[ill]: the service answers with HTTP status 500")
	code = http.StatusOK
	require.NoError(t, a.Notify(t.Context(), soon))
	require.Equal(t, int32(1), well.calls.Load())
	require.Equal(t, int32(2), ill.calls.Load())
}

func TestARetryOnAnotherWorkerTellsOnlyThoseThatFailed(t *testing.T) {
	first, second := serve(t, status(http.StatusOK)), serve(t, status(http.StatusOK))
	a := routes(route(t, first, "first"), route(t, second, "second"))
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestActivityEnvironment()
	env.RegisterActivity(a)
	env.SetHeartbeatDetails([]string{"route first"})
	_, err := env.ExecuteActivity("Notify", soon)
	require.NoError(t, err)
	require.Zero(t, first.calls.Load())
	require.Equal(t, int32(1), second.calls.Load())
}

func TestWhatAServiceRefusesIsFinalOnlyIfNoOtherFailed(t *testing.T) {
	gone, ill := serve(t, status(http.StatusNotFound)), serve(t, status(http.StatusBadGateway))
	requireError(t, routes(route(t, gone, "gone")).Notify(t.Context(), soon), workflows.InvalidInput, true)
	err := routes(route(t, gone, "gone"), route(t, ill, "ill")).Notify(t.Context(), soon)
	requireError(t, err, workflows.Unreachable, false)
	require.ErrorContains(t, err, "notify.routes[gone]: the service refuses the notification with HTTP status 404")
	require.ErrorContains(t, err, "notify.routes[ill]: the service answers with HTTP status 502")
}

func TestAServiceThatDoesNotAnswerIsGivenUpInTimeAndNotToldTwice(t *testing.T) {
	answer := make(chan struct{})
	h := serve(t, func(w http.ResponseWriter, r *http.Request) { <-answer; w.WriteHeader(http.StatusOK) })
	a := routes(route(t, h, "slow"))
	a.Settings.Timeout = 50 * time.Millisecond
	for range 3 {
		err := a.Notify(t.Context(), soon)
		requireError(t, err, workflows.Unreachable, false)
		require.ErrorContains(t, err, "notify.timeout")
	}
	for i := range 5 {
		requireError(t, a.Notify(t.Context(), named(fmt.Sprint(i))), workflows.Unreachable, false)
	}
	require.ErrorContains(t, a.Notify(t.Context(), named("one too many")), "earlier notifications are still under way")
	close(answer)
	a.Settings.Timeout = 5 * time.Second
	require.NoError(t, a.Notify(t.Context(), soon))
	require.Equal(t, int32(4), h.calls.Load())
}

// Matrix is asked for a login before anything is sent.
func TestALoginThatIsNotAnsweredIsGivenUpInTimeToo(t *testing.T) {
	answer := make(chan struct{})
	h := serve(t, func(w http.ResponseWriter, _ *http.Request) { <-answer; w.WriteHeader(http.StatusBadGateway) })
	t.Setenv("MATRIX", "matrix://user:hush@"+strings.TrimPrefix(h.URL, "http://")+"/?disableTLS=yes")
	a := routes(config.Route{Name: "a", URLEnv: "MATRIX"})
	a.Settings.Timeout = 50 * time.Millisecond
	err := a.Notify(t.Context(), soon)
	requireError(t, err, workflows.Unreachable, false)
	require.ErrorContains(t, err, "notify.timeout")
	close(answer)
	a.Settings.Timeout = 5 * time.Second
	err = a.Notify(t.Context(), soon)
	requireError(t, err, workflows.Unreachable, false)
	require.ErrorContains(t, err, "the service")
	require.NotContains(t, err.Error(), "hush")
}

func TestErrorsOfRoutesKeepAddressesSecret(t *testing.T) {
	for name, address := range map[string]string{
		"nonsense":          "hush",
		"an unknown one":    "hush://hush:hush@127.0.0.1",
		"no URL":            "slack://hush:%zz@hush",
		"a wrong token":     "slack://hush",
		"nobody there":      "generic://127.0.0.1:1/hush?disabletls=yes",
		"no mail server":    "smtp://user:hush@127.0.0.1:1/?from=a@hush.org&to=b@hush.org",
		"no webhook inside": "generic+hush",
		"the log":           "logger://",
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("SECRET", address)
			err := routes(config.Route{Name: "a", URLEnv: "SECRET"}).Notify(t.Context(), soon)
			var typed *temporal.ApplicationError
			require.ErrorAs(t, err, &typed)
			require.ErrorContains(t, err, "notify.routes[a]")
			require.NotContains(t, err.Error(), "hush")
			require.NotContains(t, err.Error(), "127.0.0.1")
		})
	}
	t.Setenv("EMPTY", "")
	require.ErrorContains(t, routes(config.Route{Name: "a", URLEnv: "EMPTY"}).Notify(t.Context(), soon), "notify.routes[a].url_env: the environment variable EMPTY is empty")
	require.ErrorContains(t, routes(config.Route{Name: "a", URLFile: "/nowhere"}).Notify(t.Context(), soon), "notify.routes[a].url_file: ")
}

func TestATitleIsOneLineOfASCII(t *testing.T) {
	n := workflows.Notification{Kind: workflows.UpdateFailed, Cluster: "dev-1\r\nBcc: everybody@example.org"}
	require.Equal(t, "Fairway: update failed, dev-1??Bcc: everybody@example.org", notify.Title(n))
	require.Len(t, notify.Title(workflows.Notification{Kind: strings.Repeat("x", 999)}), 120)
	require.Less(t, len([]rune(notify.Body(workflows.Notification{Text: strings.Repeat("ä", 9999)}))), 1600)
}

// mailbox is a mail server that keeps one mail. It answers recipients with a line.
func mailbox(t *testing.T, recipients string) (address string, mail func() string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var mutex sync.Mutex
	var got strings.Builder
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			in := bufio.NewScanner(conn)
			say := func(line string) { _, _ = fmt.Fprint(conn, line+"\r\n") }
			say("220 ready")
			for data := false; in.Scan(); {
				line := in.Text()
				switch verb, _, _ := strings.Cut(line, " "); {
				case data && line == ".":
					data = false
					say("250 kept")
				case data:
					mutex.Lock()
					got.WriteString(line + "\n")
					mutex.Unlock()
				case verb == "DATA":
					data = true
					say("354 go on")
				case verb == "RCPT":
					say(recipients)
				case verb == "QUIT":
					say("221 bye")
				default:
					say("250 fine")
				}
			}
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() { _ = listener.Close() })
	return listener.Addr().String(), func() string {
		mutex.Lock()
		defer mutex.Unlock()
		return got.String()
	}
}

func TestARouteMayBeMail(t *testing.T) {
	address, mail := mailbox(t, "250 fine")
	file := t.TempDir() + "/mail"
	require.NoError(t, os.WriteFile(file, []byte("smtp://"+address+"/?from=fairway@example.org&to=owner@example.org&starttls=no\n"), 0o600))
	require.NoError(t, routes(config.Route{Name: "mail", URLFile: file}).Notify(t.Context(), soon))
	require.Contains(t, mail(), "To: owner@example.org\n")
	require.Contains(t, mail(), "Subject: Fairway: force soon, dev-1\n")
	require.Contains(t, mail(), "Pod shop/web-1 will be deleted.\n\ncluster: dev-1\n")
}

func TestWhatAMailServerAnswersDecidesAboutAnotherAttempt(t *testing.T) {
	for answer, want := range map[string]struct {
		kind  string
		final bool
	}{
		"450 hush, later": {workflows.Unreachable, false},
		"550 hush, never": {workflows.InvalidInput, true},
	} {
		address, mail := mailbox(t, answer)
		t.Setenv("MAIL", "smtp://"+address+"/?from=fairway@example.org&to=owner@example.org&starttls=no")
		err := routes(config.Route{Name: "mail", URLEnv: "MAIL"}).Notify(t.Context(), soon)
		requireError(t, err, want.kind, want.final)
		require.ErrorContains(t, err, answer[:3])
		require.Empty(t, mail())
	}
}
