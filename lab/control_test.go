package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// emptyLab is a lab without parts, in a directory of its own.
func emptyLab(t *testing.T, out io.Writer) *Lab {
	t.Helper()
	l, err := newLab(Options{Dir: t.TempDir(), Out: out})
	require.NoError(t, err)
	l.phase = Up
	t.Cleanup(func() { require.NoError(t, l.Stop()) })
	return l
}

func (l *Lab) client() *Client { return NewClient(l.path("lab.sock")) }

// safeBuffer is what a lab may write to while a test reads.
type safeBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *safeBuffer) Write(data []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(data)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}

func runSleeper(t *testing.T, l *Lab, name string) *Part {
	t.Helper()
	part, err := l.Run(t.Context(), Process{
		Name:    name,
		Command: []string{"sh", "-c", "echo hello; exec sleep 600"},
		Ready: func(context.Context) error {
			if end := l.Part(name).Tail(1); end != "hello" {
				return fmt.Errorf("the log ends with %q", end)
			}
			return nil
		},
	})
	require.NoError(t, err)
	return part
}

func TestStatusTellsWhatEachPartDoes(t *testing.T) {
	l := emptyLab(t, nil)
	runSleeper(t, l, "some/sleeper")
	client := l.client()
	ctx := t.Context()
	state := func() PartStatus {
		status, err := client.Status(ctx)
		require.NoError(t, err)
		require.Equal(t, os.Getpid(), status.PID)
		require.Len(t, status.Parts, 1)
		return status.Parts[0]
	}
	first := state()
	require.Equal(t, Running, first.State)
	require.NotZero(t, first.PID)

	require.NoError(t, client.Part(ctx, "some/sleeper", "pause"))
	require.Equal(t, Paused, state().State)
	require.NoError(t, client.Part(ctx, "some/sleeper", "resume"))
	require.Equal(t, Running, state().State)
	require.NoError(t, client.Part(ctx, "some/sleeper", "kill"))
	require.Equal(t, Dead, state().State)
	require.Contains(t, state().End, "hello")
	require.NoError(t, client.Part(ctx, "some/sleeper", "restart"))
	require.Equal(t, Running, state().State)
	require.NotEqual(t, first.PID, state().PID)
	require.NoError(t, client.Part(ctx, "some/sleeper", "pause"))
	require.NoError(t, client.Part(ctx, "some/sleeper", "restart"), "a paused part can be restarted")
	require.Equal(t, Running, state().State)
}

func TestControlRefusesWhatThereIsNot(t *testing.T) {
	l := emptyLab(t, nil)
	client := l.client()
	require.ErrorContains(t, client.Part(t.Context(), "nobody", "kill"), `part "nobody" is unknown`)
	runSleeper(t, l, "sleeper")
	require.ErrorContains(t, client.Part(t.Context(), "sleeper", "tickle"), "use kill, pause, resume or restart")
	require.ErrorContains(t, client.Fault(t.Context(), "nowhere", "cut", FaultRequest{}), `no endpoint "nowhere"`)
	require.ErrorContains(t, client.Fault(t.Context(), "nowhere", "burn", FaultRequest{}), "use cut, blackhole, delay")
}

func TestFaultsAreMadeAndHealedThroughTheSocket(t *testing.T) {
	l := emptyLab(t, nil)
	require.NoError(t, l.endpoint("kubernetes/dev-1", "127.0.0.1:1"))
	faults := func() []string {
		status, err := l.client().Status(t.Context())
		require.NoError(t, err)
		return status.Endpoints[0].Faults
	}
	second := Duration{time.Second}
	require.NoError(t, l.client().Fault(t.Context(), "kubernetes/dev-1", "delay", FaultRequest{Delay: second}))
	require.Equal(t, []string{"delay 1s ± 0s"}, faults())
	require.NoError(t, l.client().Fault(t.Context(), "kubernetes/dev-1", "cut", FaultRequest{For: Duration{50 * time.Millisecond}}))
	require.Eventually(t, func() bool { return len(faults()) == 0 }, 5*time.Second, 10*time.Millisecond)
}

func TestPartThatDiesIsReportedWithTheEndOfItsLog(t *testing.T) {
	out := &safeBuffer{}
	l := emptyLab(t, out)
	_, err := l.Run(t.Context(), Process{Name: "weak", Command: []string{"sh", "-c", "echo the reason; exit 3"}})
	require.NoError(t, err)
	select {
	case part := <-l.Deaths():
		require.Equal(t, "weak", part.Name())
	case <-time.After(10 * time.Second):
		t.Fatal("the death was not reported")
	}
	require.Contains(t, out.String(), "weak ended by itself (exit status 3); the end of its log:\nthe reason")
}

func TestKilledPartLeavesNoChildren(t *testing.T) {
	l := emptyLab(t, nil)
	file := filepath.Join(t.TempDir(), "pid")
	part, err := l.Run(t.Context(), Process{
		Name:    "parent",
		Command: []string{"sh", "-c", "sleep 600 & echo $! > " + file + "; wait"},
		Ready: func(context.Context) error {
			data, err := os.ReadFile(file)
			if err == nil && len(data) == 0 {
				err = errors.New("no child yet")
			}
			return err
		},
	})
	require.NoError(t, err)
	child, err := os.ReadFile(file)
	require.NoError(t, err)
	require.NoError(t, part.Kill())
	require.Eventually(t, func() bool { return !alive(t, strings.TrimSpace(string(child))) }, 5*time.Second, 10*time.Millisecond)
}

// alive says whether a process runs; a zombie does not.
func alive(t *testing.T, pid string) bool {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	if errors.Is(err, os.ErrNotExist) {
		return false
	}
	require.NoError(t, err)
	_, state, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(state, "Z")
}

func TestStopEndsAllPartsAndFreesTheDirectory(t *testing.T) {
	l := emptyLab(t, nil)
	part := runSleeper(t, l, "sleeper")
	paused := runSleeper(t, l, "paused")
	require.NoError(t, paused.Pause())
	pid, held, err := Held(l.dir)
	require.NoError(t, err)
	require.True(t, held)
	require.Equal(t, os.Getpid(), pid)

	running, err := Down(t.Context(), l.dir, 10*time.Second)
	require.NoError(t, err)
	require.True(t, running)
	<-l.Gone()
	require.False(t, part.Running())
	require.False(t, paused.Running())
	require.Error(t, part.Restart(t.Context()), "a part of a stopped lab must not come back")
	_, err = l.Run(t.Context(), Process{Name: "late", Command: []string{"true"}})
	require.ErrorContains(t, err, "the lab is stopping")

	running, err = Down(t.Context(), l.dir, 10*time.Second)
	require.NoError(t, err)
	require.False(t, running)
	_, held, err = Held(l.dir)
	require.NoError(t, err)
	require.False(t, held)
}

func TestDirectoryBelongsToOneLabAtATime(t *testing.T) {
	l := emptyLab(t, nil)
	_, err := newLab(Options{Dir: l.dir})
	var running *RunningError
	require.ErrorAs(t, err, &running)
	require.Equal(t, os.Getpid(), running.PID)
}

func TestNewLabForgetsTheStateOfTheFormerOneButKeepsItsLogs(t *testing.T) {
	dir := t.TempDir()
	first, err := newLab(Options{Dir: dir})
	require.NoError(t, err)
	require.NoError(t, os.MkdirAll(first.path("temporal"), 0o755))
	require.NoError(t, os.WriteFile(first.path("env"), nil, 0o600))
	require.NoError(t, os.MkdirAll(first.path("bin"), 0o755))
	inside, err := newLab(Options{Dir: first.path("inside")})
	require.NoError(t, err)
	require.NoError(t, inside.Stop())
	runSleeper(t, first, "sleeper")
	require.NoError(t, first.Stop())
	require.NoFileExists(t, first.path("env"), "the file promises a lab that answers")

	second, err := newLab(Options{Dir: dir})
	require.NoError(t, err)
	require.NoError(t, second.Stop())
	require.NoDirExists(t, filepath.Join(dir, "temporal"))
	require.DirExists(t, filepath.Join(dir, "bin"))
	require.DirExists(t, filepath.Join(dir, "inside"), "another lab is none of its business")
	require.FileExists(t, filepath.Join(dir, "log.previous", "sleeper.log"))
}

func TestDirectoryWithOtherThingsIsNotTouched(t *testing.T) {
	dir := t.TempDir()
	precious := filepath.Join(dir, "precious")
	require.NoError(t, os.WriteFile(precious, nil, 0o600))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "bin"), 0o755))
	_, err := newLab(Options{Dir: dir})
	require.ErrorContains(t, err, "choose an empty directory")
	require.FileExists(t, precious)
}

func TestShellQuoteKeepsEveryCharacter(t *testing.T) {
	require.Equal(t, `'it'\''s $HOME'`, shellQuote("it's $HOME"))
}
