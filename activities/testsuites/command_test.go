package testsuites

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/fairway-project/fairway/activities/activitytest"
	"github.com/fairway-project/fairway/e2e"
	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/workflows"
)

// TestMain lets the binary of the tests be a worker that can be killed.
func TestMain(m *testing.M) {
	if root := os.Getenv("SUITE_WORKER_ROOT"); root != "" {
		w := newWorld(root, os.Getenv("SUITE_WORKER_API"))
		_, err := w.run(e2e.Suite{Name: "a suite", Command: []string{"sh", "-c", os.Getenv("SUITE_WORKER_SCRIPT")}})
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// world is one worker, and an API server that tells its version.
type world struct {
	activities *Activities
	worker     activitytest.Worker
	access     *rest.Config

	mu     sync.Mutex
	stored map[string]string
	broken error // the bucket
}

func newWorld(root, api string) *world {
	w := &world{stored: map[string]string{}, access: &rest.Config{Host: api}}
	w.activities = &Activities{Clusters: w, Root: root, Store: w.store, Grace: time.Second}
	return w
}

func (w *world) REST(_ context.Context, name string) (*rest.Config, registry.Cluster, error) {
	return w.access, registry.Cluster{ID: name}, nil
}

func (w *world) store(_ context.Context, _ registry.Cluster, key string, data []byte) (string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.broken != nil {
		return "", w.broken
	}
	w.stored[key] = string(data)
	return "s3://bucket/" + key, nil
}

func (w *world) run(suite e2e.Suite) (result e2e.SuiteResult, err error) {
	request := e2e.Request{ID: "12/abc", Cluster: "e2e-12-abc", Head: "abc"}
	err = w.worker.Run(w.activities.RunSuite, workflows.RunSuite{Request: request, Suite: suite}, &result)
	return result, err
}

func apiServer(t *testing.T, version string) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"gitVersion":%q}`, version)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func newTestWorld(t *testing.T) *world {
	t.Helper()
	return newWorld(filepath.Join(t.TempDir(), "suites"), apiServer(t, "v1.36.3-eks-1a2b"))
}

func shell(script string) e2e.Suite {
	return e2e.Suite{Name: "a suite", Command: []string{"sh", "-c", script}}
}

// requireNothingLeft says whether folders and processes of suites are gone.
func requireNothingLeft(t *testing.T, root string) {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(root, "*"))
	require.NoError(t, err)
	require.Empty(t, left)
	require.Empty(t, processesOf(t, root))
}

func processesOf(t *testing.T, root string) []int {
	t.Helper()
	pids, err := marked(filepath.Join(root, "e2e-12-abc", "a%20suite"))
	require.NoError(t, err)
	return pids
}

const junitFile = `<testsuite name="s"><testcase classname="c" name="good"/><testcase classname="c" name="%s">%s</testcase></testsuite>`

func TestWhatACommandSaysIsTheResult(t *testing.T) {
	bad := fmt.Sprintf(junitFile, "bad", `<failure message="no"/>`)
	good := fmt.Sprintf(junitFile, "bad", "")
	for _, rule := range []struct {
		name, script string
		retries      int
		within       time.Duration
		want         e2e.SuiteResult
	}{
		{"exit status 0 is one case that passed", "true", 0, 0, e2e.SuiteResult{Passed: true, Ran: 1}},
		{"another one is one that failed", "exit 3", 0, 0, e2e.SuiteResult{Ran: 1, Failed: 1,
			Failures: []e2e.Failure{{Case: "exit status", Message: "It ended with exit status 3."}}}},
		{"cases are those of the JUnit files", "echo '" + bad + "' > $FAIRWAY_REPORTS/a.xml; exit 1", 0, 0, e2e.SuiteResult{Ran: 2, Failed: 1,
			Failures: []e2e.Failure{{Case: "c.bad", Message: "no"}}}},
		{"a failed case counts even with exit status 0", "echo '" + bad + "' > $FAIRWAY_REPORTS/a.xml", 0, 0, e2e.SuiteResult{Ran: 2, Failed: 1,
			Failures: []e2e.Failure{{Case: "c.bad", Message: "no"}}}},
		{"an exit status that no case explains is a failure", "echo '" + good + "' > $FAIRWAY_REPORTS/a.xml; exit 1", 0, 0, e2e.SuiteResult{Ran: 2,
			Problem: "It ended with exit status 1, although no case has failed."}},
		{"a suite of which nothing ran has not passed", "echo '<testsuite/>' > $FAIRWAY_REPORTS/a.xml", 0, 0, e2e.SuiteResult{Problem: "None of its cases ran."}},
		{"a case that passes later is flaky",
			"if [ -e $HOME/again ]; then echo '" + good + "' > $FAIRWAY_REPORTS/a.xml; else touch $HOME/again; echo '" + bad + "' > $FAIRWAY_REPORTS/a.xml; exit 1; fi",
			1, 0, e2e.SuiteResult{Passed: true, Ran: 2, Flaky: []string{"c.bad"}}},
		{"one that never passes is not", "echo '" + bad + "' > $FAIRWAY_REPORTS/a.xml; exit 1", 1, 0, e2e.SuiteResult{Ran: 2, Failed: 1,
			Failures: []e2e.Failure{{Case: "c.bad", Message: "no"}}}},
		{"a link to another file is not read", "ln -s /etc/hostname $FAIRWAY_REPORTS/a.xml", 0, 0, e2e.SuiteResult{Passed: true, Ran: 1}},
		{"neither is a pipe", "mkfifo $FAIRWAY_REPORTS/a.xml", 0, 0, e2e.SuiteResult{Passed: true, Ran: 1}},
		{"what is no XML is a problem", "echo '<a' > $FAIRWAY_REPORTS/a.xml", 0, 0, e2e.SuiteResult{
			Problem: "Its JUnit file a.xml cannot be read: it is no XML: XML syntax error on line 2: unexpected EOF."}},
		{"it knows the cluster, its version, and nothing of the worker", `[ "$FAIRWAY_CLUSTER $FAIRWAY_VERSION $SECRET_OF_WORKER" = "e2e-12-abc v1.36.3 " ]`, 0, 0,
			e2e.SuiteResult{Passed: true, Ran: 1}},
		{"a time limit ends it, which it hears of", "trap 'exit 0' TERM; sleep 100 & wait", 0, 300 * time.Millisecond, e2e.SuiteResult{Ran: 1,
			Problem: "It was not over after 300ms (within)."}},
		{"and which it cannot help", "trap '' TERM; while true; do sleep 1; done", 0, 300 * time.Millisecond, e2e.SuiteResult{Ran: 1, Failed: 1,
			Failures: []e2e.Failure{{Case: "exit status", Message: "It ended with signal: killed."}}, Problem: "It was not over after 300ms (within)."}},
		{"children that outlive it are killed", "setsid sleep 1000 >/dev/null 2>&1 & sleep 0.2", 0, 0, e2e.SuiteResult{Passed: true, Ran: 1}},
		{"folders that nobody may change go as well", "mkdir -p a/b; chmod 0 a/b a", 0, 0, e2e.SuiteResult{Passed: true, Ran: 1}},
	} {
		t.Run(rule.name, func(t *testing.T) {
			t.Setenv("HOME", t.TempDir())
			t.Setenv("SECRET_OF_WORKER", "x")
			w := newTestWorld(t)
			suite := shell(rule.script)
			suite.Retries, suite.Within = rule.retries, rule.within
			result, err := w.run(suite)
			require.NoError(t, err)
			require.Positive(t, result.Took)
			require.Equal(t, "s3://bucket/e2e/12/abc/a%20suite/", strings.TrimSuffix(result.Results, "attempt-1/"))
			result.Took, result.Results = 0, ""
			rule.want.Name = "a suite"
			require.Equal(t, rule.want, result)
			requireNothingLeft(t, w.activities.Root)
		})
	}
}

func TestACommandThatIsMissingIsAProblemOfTheSuite(t *testing.T) {
	w := newTestWorld(t)
	result, err := w.run(e2e.Suite{Name: "a suite", Command: []string{"no-such-command"}, Retries: 3})
	require.NoError(t, err)
	require.False(t, result.Passed)
	require.Contains(t, result.Problem, "no-such-command cannot be run by the worker")
	requireNothingLeft(t, w.activities.Root)
}

func TestTheLogIsStoredWithItsHeadAndItsTail(t *testing.T) {
	w := newTestWorld(t)
	result, err := w.run(shell("echo first; echo '<testsuite><testcase name=\"x\"/></testsuite>' > $FAIRWAY_REPORTS/x.xml; echo last >&2"))
	require.NoError(t, err)
	require.True(t, result.Passed)
	require.Equal(t, "first\nlast\n", w.stored["e2e/12/abc/a%20suite/log"])
	require.Contains(t, w.stored["e2e/12/abc/a%20suite/x.xml"], "testcase")

	log, err := newLogFile(filepath.Join(t.TempDir(), "log"), 10)
	require.NoError(t, err)
	defer log.Close()
	for i := range 10 {
		fmt.Fprintf(log, "line %d\n", i)
	}
	content, err := log.content()
	require.NoError(t, err)
	require.Equal(t, "line 0\nlin\n... 50 bytes are left out ...\n 8\nline 9\n", string(content))
}

func TestABucketThatRefusesDoesNotUndoTheResult(t *testing.T) {
	w := newTestWorld(t)
	w.broken = unusable(fmt.Errorf("no"))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r := &run{Activities: w.activities, in: workflows.RunSuite{Suite: shell("")}}
	time.AfterFunc(300*time.Millisecond, cancel)
	_, err := r.storeAll(ctx, []file{{"log", nil}})
	require.Error(t, err)
}

func TestCancellingEndsTheCommand(t *testing.T) {
	w := newTestWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	w.worker.Context = ctx
	go func() {
		for len(processesOf(t, w.activities.Root)) < 2 {
			time.Sleep(10 * time.Millisecond)
		}
		cancel()
	}()
	_, err := w.run(shell("sleep 1000 & sleep 1000"))
	require.Error(t, err)
	requireNothingLeft(t, w.activities.Root)
	require.Empty(t, w.stored)
}

// startWorker starts a process that runs a suite, and waits until as many processes of it run.
func startWorker(t *testing.T, root, api, script string, processes int) *exec.Cmd {
	t.Helper()
	worker := exec.Command(os.Args[0])
	worker.Env = append(os.Environ(), "SUITE_WORKER_ROOT="+root, "SUITE_WORKER_API="+api, "SUITE_WORKER_SCRIPT="+script)
	worker.Stdout, worker.Stderr = t.Output(), t.Output()
	require.NoError(t, worker.Start())
	t.Cleanup(func() { _ = worker.Process.Kill(); _ = worker.Wait() })
	require.Eventually(t, func() bool { return len(processesOf(t, root)) >= processes }, 20*time.Second, 20*time.Millisecond)
	return worker
}

func TestAWorkerThatDiesTakesItsSuiteWithIt(t *testing.T) {
	root, api := filepath.Join(t.TempDir(), "suites"), apiServer(t, "v1.36.3")
	worker := startWorker(t, root, api, "echo $$ > pid; setsid sleep 1000 & exec sleep 1000", 2)
	leader, err := os.ReadFile(filepath.Join(root, "e2e-12-abc", "a%20suite", "work", "pid"))
	require.NoError(t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(leader)))
	require.NoError(t, err)

	require.NoError(t, RemoveLeftovers(root))
	require.Len(t, processesOf(t, root), 2, "what belongs to a living worker is left alone")

	require.NoError(t, worker.Process.Kill())
	_ = worker.Wait()
	require.Eventually(t, func() bool { return syscall.Kill(pid, 0) != nil || len(processesOf(t, root)) == 1 }, 10*time.Second, 20*time.Millisecond, "its leader dies with it")

	require.NoError(t, RemoveLeftovers(root))
	requireNothingLeft(t, root)
}

func TestTheNextAttemptEndsWhatOneBeforeHasLeft(t *testing.T) {
	root, api := filepath.Join(t.TempDir(), "suites"), apiServer(t, "v1.36.3")
	worker := startWorker(t, root, api, "touch left; setsid sleep 1000 & exec sleep 1000", 2)
	require.NoError(t, worker.Process.Kill())
	_ = worker.Wait()

	w := newWorld(root, api)
	result, err := w.run(shell("[ ! -e left ] && [ $(grep -lz ^FAIRWAY_SUITE=$FAIRWAY_SUITE$ /proc/[0-9]*/environ 2>/dev/null | xargs -n1 dirname | xargs -I% readlink %/exe | grep -c sleep) = 0 ]"))
	require.NoError(t, err)
	require.True(t, result.Passed, result)
	requireNothingLeft(t, root)
}

// ---- access

func TestTheKubeconfigHasWhatFairwayHas(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "of-fairway"), []byte("t0"), 0o600))
	inFile := filepath.Join(dir, "of-fairway")
	inFiles := rest.TLSClientConfig{CertFile: inFile, KeyFile: inFile, CAFile: inFile}
	var mu sync.Mutex
	token := "t1"
	for _, rule := range []struct {
		name   string
		access *rest.Config
		check  func(*testing.T, *rest.Config, *folder)
	}{
		{"certificates that are in files stay there", &rest.Config{Host: "https://a.example.org", TLSClientConfig: inFiles},
			func(t *testing.T, got *rest.Config, _ *folder) {
				require.Equal(t, inFiles, got.TLSClientConfig)
			}},
		{"others are in it", &rest.Config{Host: "https://a.example.org", TLSClientConfig: rest.TLSClientConfig{CertData: []byte("c"), KeyData: []byte("k"), CAData: []byte("ca"), ServerName: "s"}},
			func(t *testing.T, got *rest.Config, _ *folder) {
				require.Equal(t, "ca", string(got.CAData))
				require.Equal(t, "s", got.ServerName)
			}},
		{"the file of a token is named", &rest.Config{Host: "https://a.example.org", BearerTokenFile: inFile},
			func(t *testing.T, got *rest.Config, f *folder) {
				require.Equal(t, inFile, got.BearerTokenFile)
				require.NoFileExists(t, f.token())
			}},
		{"a token that changes is in a file that changes", &rest.Config{Host: "https://a.example.org", WrapTransport: func(next http.RoundTripper) http.RoundTripper {
			return roundTrip(func(r *http.Request) (*http.Response, error) {
				mu.Lock()
				defer mu.Unlock()
				r.Header.Set("Authorization", "Bearer "+token)
				return next.RoundTrip(r)
			})
		}}, func(t *testing.T, got *rest.Config, f *folder) {
			require.Equal(t, f.token(), got.BearerTokenFile)
			requireSecret(t, f.token(), "t1")
			mu.Lock()
			token = "t2"
			mu.Unlock()
			require.Eventually(t, func() bool { data, err := os.ReadFile(f.token()); return err == nil && string(data) == "t2" }, 2*tokenEvery, 50*time.Millisecond)
			requireSecret(t, f.token(), "t2")
			kubeconfig, err := os.ReadFile(f.kubeconfig())
			require.NoError(t, err)
			require.NotContains(t, string(kubeconfig), "t1")
		}},
	} {
		t.Run(rule.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			f, err := enter(ctx, filepath.Join(dir, "root"), "c", "../s")
			require.NoError(t, err)
			keeping, err := f.writeKubeconfig(ctx, rule.access, "c")
			require.NoError(t, err)
			info, err := os.Stat(f.kubeconfig())
			require.NoError(t, err)
			require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
			got, err := clientcmd.BuildConfigFromFlags("", f.kubeconfig())
			require.NoError(t, err)
			require.Equal(t, "https://a.example.org", strings.TrimSuffix(got.Host, "/"))
			rule.check(t, got, f)
			cancel()
			keeping.Wait()
			require.NoError(t, f.leave())
			left, err := filepath.Glob(filepath.Join(dir, "root", "*"))
			require.NoError(t, err)
			require.Empty(t, left)
		})
	}
}

func requireSecret(t *testing.T, path, content string) {
	t.Helper()
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, content, string(data))
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
