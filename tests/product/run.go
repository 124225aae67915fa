package product

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	"golang.org/x/sync/errgroup"

	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/lab"
)

// Unreachable is the exit status of a command that found nobody to answer.
const Unreachable = 3

// folder is where Main leaves everything.
var folder string

// Program is the path of a program that Main has built: starter or worker.
func Program(name string) string { return filepath.Join(folder, "bin", name) }

// Main is all of a package's TestMain that needs a lab: it builds the product and starts the lab at the
// same time, has test run the tests, and stops the lab. What they leave behind in dir is kept if they
// fail. root is the repository's, name one for the folder. It returns the exit status.
func Main(root, name string, options lab.Options, test func(ctx context.Context, l *lab.Lab, dir string) (int, error)) (code int) {
	fail := func(err error) int {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	var err error
	if folder, err = os.MkdirTemp("", "fairway-"+name+"-"); err != nil {
		return fail(err)
	}
	options.Dir, options.Out = filepath.Join(folder, "lab"), os.Stderr
	defer func() {
		if code == 0 {
			_ = os.RemoveAll(folder)
			return
		}
		fmt.Fprintf(os.Stderr, "logs and audit logs are in %s\n", options.Dir)
	}()
	ctx := context.Background() // a cold machine builds for a quarter of an hour
	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(func() error { return Build(groupCtx, root, Program("")) })
	var l *lab.Lab
	group.Go(func() (err error) {
		l, err = lab.Start(groupCtx, options)
		return err
	})
	err = group.Wait()
	if l != nil {
		defer func() {
			if err := l.Stop(); err != nil && code == 0 {
				code = fail(err)
			}
		}()
	}
	if err == nil {
		code, err = test(ctx, l, folder)
	}
	if err != nil {
		return fail(err)
	}
	return code
}

// Dial connects to the lab's Temporal, past its proxy, and says nothing when that is killed.
func Dial(ctx context.Context, l *lab.Lab) (client.Client, error) {
	temporal, err := client.DialContext(ctx, client.Options{HostPort: l.Direct("temporal"), Namespace: lab.TemporalNamespace, Logger: Silence{}})
	if err != nil {
		return nil, fmt.Errorf("connecting to Temporal: %w", err)
	}
	return temporal, nil
}

// Execute runs a program to its end. The status it ends with is no error.
func Execute(ctx context.Context, env map[string]string, program string, args ...string) (stdout, stderr string, status int, err error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(Environment(env), "PATH="+os.Getenv("PATH"), "HOME="+os.Getenv("HOME"))
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	err = cmd.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		err = nil
	}
	if ctx.Err() != nil {
		err = fmt.Errorf("%s %v did not end; it printed:\n%s", program, args, problems.String())
	}
	return out.String(), problems.String(), cmd.ProcessState.ExitCode(), err
}

// Written is the path of a configuration in the folder of Main.
func Written(name string, c config.Config) (string, error) {
	data, err := yaml.Marshal(c)
	if err != nil {
		return "", err
	}
	path := filepath.Join(folder, name)
	return path, os.WriteFile(path, data, 0o644)
}

// StartWorker starts the worker with a configuration, which the environment names from then on, as a part of the
// lab, which has all that is needed to kill it.
func StartWorker(ctx context.Context, l *lab.Lab, c config.Config, env map[string]string) (*lab.Part, error) {
	var err error
	if env["FAIRWAY_CONFIG"], err = Written("fairway.yaml", c); err != nil {
		return nil, err
	}
	return l.Run(ctx, lab.Process{
		Name: "worker", Command: []string{Program("worker")}, Env: Environment(env),
		Ready: func(ctx context.Context) error { return Answers(ctx, "http://"+c.Worker.Listen+"/readyz") },
	})
}

// Command runs the command line for at most a time. It returns what that printed, on standard error if nothing
// else.
func Command(ctx context.Context, within time.Duration, env map[string]string, args ...string) (out string, status int, err error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	out, problems, status, err := Execute(ctx, env, Program("starter"), args...)
	return cmp.Or(out, problems), status, err
}

// Fairway runs the command line, which has to succeed. While another test kills whoever answers it asks again.
func Fairway(t *testing.T, within time.Duration, env map[string]string, args ...string) string {
	t.Helper()
	var out string
	var status int
	require.Eventually(t, func() bool {
		var err error
		out, status, err = Command(t.Context(), within, env, args...)
		return err == nil && status != Unreachable
	}, within, time.Second, "fairway %v", args)
	require.Zero(t, status, "fairway %v: %s", args, out)
	return out
}

// FreeAddress is one that somebody who is started at once can listen on.
func FreeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return listener.Addr().String(), listener.Close()
}
