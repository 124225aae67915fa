package lab

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// proxiedServer is a lab that has nothing but one endpoint, "web", in front of a web server
// which answers with answer.
func proxiedServer(t *testing.T, answer string) (*Lab, *http.Client) {
	t.Helper()
	l := &Lab{proxies: newFaultProxies()}
	t.Cleanup(l.proxies.close)
	require.NoError(t, l.endpoint("web", webServer(t, answer)))
	client := &http.Client{Transport: &http.Transport{}, Timeout: 10 * time.Second}
	t.Cleanup(client.CloseIdleConnections)
	return l, client
}

func webServer(t *testing.T, answer string) string {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, answer)
	}))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

func get(ctx context.Context, client *http.Client, address string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address, nil)
	if err != nil {
		return "", err
	}
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return string(body), err
}

func requireAnswer(t *testing.T, l *Lab, client *http.Client, answer string) {
	t.Helper()
	got, err := get(t.Context(), client, l.Proxied("web"))
	require.NoError(t, err)
	require.Equal(t, answer, got)
}

func TestCutEndpointClosesConnectionsAndRefusesNewOnes(t *testing.T) {
	l, client := proxiedServer(t, "hello")
	requireAnswer(t, l, client, "hello")
	open, err := net.Dial("tcp", l.Proxied("web"))
	require.NoError(t, err)
	defer open.Close()

	require.NoError(t, l.Fault("web").Cut())
	_, err = get(t.Context(), client, l.Proxied("web"))
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	require.NoError(t, open.SetReadDeadline(time.Now().Add(5*time.Second)))
	_, err = open.Read(make([]byte, 1))
	require.Error(t, err)
	require.NotErrorIs(t, err, context.DeadlineExceeded, "the open connection outlived the cut")
	direct, err := get(t.Context(), client, l.Direct("web"))
	require.NoError(t, err, "a fault must not touch the direct address")
	require.Equal(t, "hello", direct)

	address := l.Proxied("web")
	require.NoError(t, l.Fault("web").Cut(), "cutting twice is harmless")
	require.NoError(t, l.Fault("web").Heal())
	require.Equal(t, address, l.Proxied("web"))
	requireAnswer(t, l, client, "hello")
}

func TestBlackholeAcceptsAndNeverAnswers(t *testing.T) {
	l, client := proxiedServer(t, "hello")
	requireAnswer(t, l, client, "hello") // leaves a connection open, which has to fall silent too
	require.NoError(t, l.Fault("web").Blackhole())
	for range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		_, err := get(ctx, client, l.Proxied("web"))
		cancel()
		require.ErrorIs(t, err, context.DeadlineExceeded)
	}

	held := make(chan error, 1)
	go func() { _, err := get(t.Context(), client, l.Proxied("web")); held <- err }()
	require.NoError(t, l.Fault("web").Heal())
	select {
	case <-held: // closed by Heal, or it came after
	case <-time.After(5 * time.Second):
		t.Fatal("a request that was held up is still stuck after Heal")
	}
	requireAnswer(t, l, client, "hello")
}

func TestDelayedEndpointAnswersLater(t *testing.T) {
	l, client := proxiedServer(t, "hello")
	requireAnswer(t, l, client, "hello")
	require.NoError(t, l.Fault("web").Delay(300*time.Millisecond, 50*time.Millisecond))
	start := time.Now()
	requireAnswer(t, l, client, "hello")
	require.GreaterOrEqual(t, time.Since(start), 250*time.Millisecond)

	require.NoError(t, l.Fault("web").Delay(2*time.Millisecond, 0), "the same fault again replaces its values")
	start = time.Now()
	requireAnswer(t, l, client, "hello")
	require.Less(t, time.Since(start), 250*time.Millisecond)
}

func TestHealDoesNotWaitForClientsThatHungUp(t *testing.T) {
	l, _ := proxiedServer(t, strings.Repeat("x", 1<<20))
	for round := range 10 {
		require.NoError(t, l.Fault("web").Delay(200*time.Millisecond, 0))
		ctx, hangUp := context.WithTimeout(t.Context(), time.Duration(40*round)*time.Millisecond)
		var clients sync.WaitGroup
		for range 8 {
			clients.Go(func() {
				client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
				_, _ = get(ctx, client, l.Proxied("web"))
			})
		}
		<-ctx.Done()
		hangUp()
		start := time.Now()
		require.NoError(t, l.Fault("web").Heal())
		require.Less(t, time.Since(start), time.Second)
		clients.Wait()
	}
}

func TestThrottledEndpointKeepsToItsRate(t *testing.T) {
	l, client := proxiedServer(t, strings.Repeat("x", 30_000))
	require.NoError(t, l.Fault("web").Throttle(100_000))
	start := time.Now()
	requireAnswer(t, l, client, strings.Repeat("x", 30_000))
	require.GreaterOrEqual(t, time.Since(start), 250*time.Millisecond)

	require.NoError(t, l.Fault("web").Heal())
	start = time.Now()
	requireAnswer(t, l, client, strings.Repeat("x", 30_000))
	require.Less(t, time.Since(start), 250*time.Millisecond)
}

func TestFaultsAddUpAndHealEndsThemAll(t *testing.T) {
	l, client := proxiedServer(t, "hello")
	fault := l.Fault("web")
	require.NoError(t, fault.Blackhole())
	require.NoError(t, fault.Delay(time.Second, 0))
	require.NoError(t, fault.Cut())
	require.Equal(t, []string{"blackhole", "cut", "delay 1s ± 0s"}, l.endpointStatus()[0].Faults)
	require.NoError(t, fault.Heal())
	require.Empty(t, l.endpointStatus()[0].Faults)
	start := time.Now()
	requireAnswer(t, l, client, "hello")
	require.Less(t, time.Since(start), time.Second)
}

func TestFaultEndsByItselfAfterTheGivenTime(t *testing.T) {
	l, client := proxiedServer(t, "hello")
	require.NoError(t, l.Fault("web").Cut())
	require.NoError(t, l.Fault("web").HealAfter(100*time.Millisecond))
	require.Eventually(t, func() bool {
		_, err := get(t.Context(), client, l.Proxied("web"))
		return err == nil
	}, 5*time.Second, 10*time.Millisecond)
}

func TestRepointedEndpointKeepsItsAddressAndFaults(t *testing.T) {
	l, client := proxiedServer(t, "old")
	address := l.Proxied("web")
	require.NoError(t, l.Fault("web").Cut())
	require.NoError(t, l.endpoint("web", webServer(t, "new")))
	require.Equal(t, address, l.Proxied("web"))
	_, err := get(t.Context(), client, address)
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	require.NoError(t, l.Fault("web").Heal())
	requireAnswer(t, l, client, "new")
}

func TestBranchIsDisturbedAlone(t *testing.T) {
	l, client := proxiedServer(t, "hello")
	branch, err := l.Branch("web", "mine")
	require.NoError(t, err)
	require.NotEqual(t, l.Proxied("web"), l.Proxied(branch))
	require.NoError(t, l.Fault(branch).Cut())
	_, err = get(t.Context(), client, l.Proxied(branch))
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	requireAnswer(t, l, client, "hello")

	_, err = l.Branch("nothing", "mine")
	require.ErrorContains(t, err, `no endpoint "nothing"`)
}

func TestRemovedEndpointIsGone(t *testing.T) {
	l, client := proxiedServer(t, "hello")
	address := l.Proxied("web")
	l.removeEndpoint("web")
	l.removeEndpoint("web")
	_, err := get(t.Context(), client, address)
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	require.Empty(t, l.Proxied("web"))
	require.ErrorContains(t, l.Fault("web").Cut(), `no endpoint "web"`)
}

func TestFaultsRefuseSenselessValues(t *testing.T) {
	l, _ := proxiedServer(t, "hello")
	require.Error(t, l.Fault("web").Delay(0, 0))
	require.Error(t, l.Fault("web").Delay(time.Second, 2*time.Second))
	require.Error(t, l.Fault("web").Throttle(10))
}

func TestBlackholeDropsRequestsToo(t *testing.T) {
	l, _ := proxiedServer(t, "hello")
	received := make(chan []byte, 1)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	go func() {
		connection, err := listener.Accept()
		if err != nil {
			return
		}
		defer connection.Close()
		all, _ := io.ReadAll(connection)
		received <- all
	}()
	require.NoError(t, l.endpoint("web", listener.Addr().String()))
	require.NoError(t, l.Fault("web").Blackhole())
	connection, err := net.Dial("tcp", l.Proxied("web"))
	require.NoError(t, err)
	_, err = io.Copy(connection, bytes.NewReader([]byte("create something")))
	require.NoError(t, err)
	require.NoError(t, connection.Close())
	select {
	case got := <-received:
		require.Empty(t, got)
	case <-time.After(5 * time.Second):
		require.NoError(t, errors.New("the connection to the server was not closed"))
	}
}
