package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/lab"
)

// command is the built command for a lab without clusters in a directory of its own.
type command struct {
	t           *testing.T
	binary, dir string
}

func newTestCommand(t *testing.T) *command {
	t.Helper()
	c := &command{t: t, binary: filepath.Join(t.TempDir(), "lab"), dir: t.TempDir()}
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", c.binary, ".").CombinedOutput()
	require.NoError(t, err, string(out))
	require.NoError(t, lab.Prepare(t.Context(), t.Output()))
	t.Cleanup(func() {
		_, err := lab.Down(context.Background(), c.dir, time.Minute)
		require.NoError(t, err)
	})
	return c
}

func (c *command) exec(args ...string) (*exec.Cmd, *output) {
	cmd := exec.Command(c.binary, append(args, "--dir", c.dir)...)
	out := &output{}
	cmd.Stdout, cmd.Stderr = out, out
	return cmd, out
}

func (c *command) succeed(args ...string) string {
	c.t.Helper()
	cmd, out := c.exec(args...)
	require.NoError(c.t, cmd.Run(), "%s: %s", args, out)
	return out.String()
}

func (c *command) fail(args ...string) string {
	c.t.Helper()
	cmd, out := c.exec(args...)
	require.Error(c.t, cmd.Run(), "%s: %s", args, out)
	require.Equal(c.t, 1, cmd.ProcessState.ExitCode(), "%s: %s", args, out)
	return out.String()
}

func (c *command) status() (status lab.Status) {
	c.t.Helper()
	require.NoError(c.t, json.Unmarshal([]byte(c.succeed("status", "--output", "json")), &status))
	return status
}

// processes are the supervisor and its parts, by name.
func (c *command) processes() map[string]int {
	c.t.Helper()
	status := c.status()
	pids := map[string]int{"supervisor": status.PID}
	for _, part := range status.Parts {
		require.Equal(c.t, lab.Running, part.State, part.Name)
		pids[part.Name] = part.PID
	}
	for _, name := range []string{"temporal", "aws", "forge", "instances"} {
		require.Contains(c.t, pids, name)
	}
	return pids
}

func requireGone(t *testing.T, pids map[string]int) {
	t.Helper()
	for name, pid := range pids {
		require.Eventually(t, func() bool { return !alive(pid) }, 10*time.Second, 20*time.Millisecond, "%s is still there", name)
	}
}

// alive says whether a process runs; one that only waits to be buried does not.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, state, _ := strings.Cut(string(stat), ") ")
	return err == nil && !strings.HasPrefix(state, "Z")
}

// output is what a command may write to while a test reads.
type output struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (o *output) Write(data []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buffer.Write(data)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buffer.String()
}

func TestDetachedLabLivesUntilItIsStopped(t *testing.T) {
	c := newTestCommand(t)
	require.Contains(t, c.fail("status"), "no lab runs in")
	require.Contains(t, c.succeed("down"), "No lab runs in", "stopping what does not run is fine")

	require.Contains(t, c.succeed("up", "--detach", "--clusters="), "The lab is up after")
	processes := c.processes()
	again := c.succeed("up", "--detach")
	require.Contains(t, again, fmt.Sprintf("A lab runs already in %s, pid %d.", c.dir, processes["supervisor"]))
	require.Contains(t, again, "Temporal UI")
	require.Equal(t, processes, c.processes(), "starting twice is harmless")

	env, err := exec.Command("sh", "-c", ". "+c.dir+"/env && echo $TEMPORAL_NAMESPACE $FAIRWAY_CONFIG").Output()
	require.NoError(t, err)
	require.Equal(t, "fairway "+c.dir+"/fairway.yaml\n", string(env))

	c.succeed("fault", "aws", "cut", "--for", "1h")
	require.Contains(t, c.succeed("status"), "cut")
	c.succeed("kill", "temporal")
	require.Contains(t, c.succeed("status"), "temporal is dead; the end of its log:")
	c.succeed("restart", "temporal")
	require.NotContains(t, c.succeed("status"), "is dead")
	require.Contains(t, c.fail("kill", "nobody"), `part "nobody" is unknown`)
	require.Contains(t, c.succeed("logs", "temporal", "--lines", "1"), "\n")
	require.Contains(t, c.fail("logs", "nobody"), "there are: ")

	processes = c.processes()
	require.Contains(t, c.succeed("down"), "nothing is left running")
	requireGone(t, processes)
	require.NoFileExists(t, filepath.Join(c.dir, "env"))
}

func TestKilledSupervisorTakesAllPartsWithIt(t *testing.T) {
	c := newTestCommand(t)
	c.succeed("up", "--detach", "--clusters=")
	processes := c.processes()
	require.NoError(t, syscall.Kill(processes["supervisor"], syscall.SIGKILL))
	requireGone(t, processes)
	require.Contains(t, c.fail("status"), "no lab runs in")
	require.Contains(t, c.succeed("up", "--detach", "--clusters="), "The lab is up after", "what the killed lab left is no obstacle")
}

func TestForegroundLabReportsADeadPartAndEndsWithCtrlC(t *testing.T) {
	c := newTestCommand(t)
	cmd, out := c.exec("up", "--clusters=")
	require.NoError(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	has := func(text string) func() bool {
		return func() bool { return strings.Contains(out.String(), text) }
	}
	require.Eventually(t, has("  Shell"), 2*time.Minute, 50*time.Millisecond, "the lab is not up")
	processes := c.processes()
	require.NoError(t, syscall.Kill(processes["forge"], syscall.SIGKILL))
	require.Eventually(t, has("forge ended by itself (signal: killed); the end of its log:"), 10*time.Second, 20*time.Millisecond)

	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	select {
	case err := <-ended:
		require.NoError(t, err, out)
	case <-time.After(30 * time.Second):
		t.Fatal("the lab does not stop")
	}
	require.Contains(t, out.String(), "The lab has stopped; nothing is left running.")
	requireGone(t, processes)
}

func TestFailedStartIsReportedAndLeavesNothing(t *testing.T) {
	c := newTestCommand(t)
	require.Contains(t, c.fail("up", "--detach", "--clusters=nowhere"), "nowhere")
	_, held, err := lab.Held(c.dir)
	require.NoError(t, err)
	require.False(t, held)
}
