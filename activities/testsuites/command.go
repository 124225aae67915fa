package testsuites

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"

	"github.com/fairway-project/fairway/workflows"
)

// command is an attempt at a command suite.
func (r *run) command(ctx context.Context) (outcome, error) {
	version, err := r.version(ctx)
	if err != nil {
		return outcome{}, err
	}
	return r.inFolder(ctx, version, func(f *folder, _ *logFile) ([]string, *outcome) {
		fill := strings.NewReplacer("{cluster}", r.cluster.ID, "{version}", version, "{reports}", f.reports())
		var command []string
		for _, part := range r.in.Suite.Command {
			command = append(command, fill.Replace(part))
		}
		r.say("attempt %d runs since %s", r.attempt, time.Now().UTC().Format(time.TimeOnly))
		return command, nil
	})
}

// inFolder runs one command in a folder of its own, which is gone afterwards. prepare says which, or why there is none.
func (r *run) inFolder(ctx context.Context, version string, prepare func(*folder, *logFile) ([]string, *outcome)) (o outcome, err error) {
	f, err := enter(ctx, r.Root, r.cluster.ID, r.in.Suite.Name)
	if err != nil {
		return outcome{}, err
	}
	ctx, end := context.WithCancel(ctx) // ends what keeps the token before the folder goes
	defer func() {
		end()
		if left := f.leave(); left != nil {
			activity.GetLogger(ctx).Warn("a suite's folder is left until the worker begins anew", "folder", f.path, "error", left)
		}
	}()
	log, err := newLogFile(f.log(), logHalf)
	if err != nil {
		return outcome{}, unusable(err)
	}
	defer log.Close()
	keeping, err := f.writeKubeconfig(ctx, r.access, r.cluster.ID)
	if err != nil {
		return outcome{}, err
	}
	defer func() { end(); keeping.Wait() }()
	command, refused := prepare(f, log)
	if refused != nil {
		return *refused, nil
	}
	status := process{
		command: command, dir: f.work(), environment: r.environment(f, version), folder: f.path, out: log, grace: r.grace(),
	}.run(ctx)
	var not notStarted
	if errors.As(status, &not) {
		return outcome{problem: fmt.Sprintf("%s cannot be run by the worker: %v; is it in the worker's image?", command[0], not), final: true}, nil
	}
	reports, problem := collect(f.reports())
	counted, flaky := reports, []string(nil)
	if r.in.Suite.Kubernetes != nil { // which says it all twice, under names that differ a little
		counted = slices.DeleteFunc(slices.Clone(reports), func(f file) bool { return strings.HasPrefix(f.name, completeFolder+"/") })
		flaky = flakyOf(filepath.Join(f.reports(), completeFolder, "report.json"))
	}
	o = judge(counted, status)
	o.flaky = flaky
	if problem != "" {
		o.problem = strings.TrimSpace(o.problem + " " + problem)
	}
	o.files = reports
	content, err := log.content()
	if err != nil {
		content = []byte("the log cannot be read: " + err.Error())
	}
	o.files = append(o.files, file{"log", content})
	return o, nil
}

func (r *run) grace() time.Duration {
	if r.Grace > 0 {
		return r.Grace
	}
	return 10 * time.Second
}

// environment is all that a command gets to know.
func (r *run) environment(f *folder, version string) []string {
	environment := []string{
		"KUBECONFIG=" + f.kubeconfig(), "FAIRWAY_CLUSTER=" + r.cluster.ID, "FAIRWAY_VERSION=" + version, "FAIRWAY_REPORTS=" + f.reports(),
		"TMPDIR=" + f.work(), // so that nothing is left
	}
	for _, name := range append([]string{"PATH", "HOME"}, r.in.Suite.Env...) {
		if value, set := os.LookupEnv(name); set {
			environment = append(environment, name+"="+value)
		}
	}
	return environment
}

// ---- the cluster's version

// askWithin bounds a request that is no watch.
const askWithin = 30 * time.Second

// release is a version of Kubernetes without what distributions add, as it becomes part of a path.
var release = regexp.MustCompile(`^v\d{1,3}\.\d{1,4}\.\d{1,4}(-(alpha|beta|rc)\.\d{1,3})?`)

// version is the cluster's version of Kubernetes, such as v1.36.3.
func (r *run) version(ctx context.Context) (string, error) {
	access := rest.CopyConfig(r.access)
	access.Timeout = askWithin
	client, err := discovery.NewDiscoveryClientForConfig(access)
	if err != nil {
		return "", temporal.NewApplicationError(fmt.Sprintf("cluster %s: building a client: %v", r.cluster.ID, err), workflows.InvalidInput)
	}
	answer, err := client.ServerVersion()
	if err != nil {
		return "", r.explain("asking for its version", err)
	}
	version := release.FindString(answer.GitVersion)
	if version == "" {
		return "", temporal.NewApplicationError(fmt.Sprintf("cluster %s: asking for its version: %q is none of Kubernetes", r.cluster.ID, cut(answer.GitVersion)), workflows.Unreachable)
	}
	return version, ctx.Err()
}

// ---- what a command has written

// mostReported bounds what is kept of JUnit files, in bytes in all.
const mostReported = 64 << 20

// collect reads the JUnit files of a folder that a stranger has filled: regular files of it only, and no link.
func collect(path string) (files []file, problem string) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, fmt.Sprintf("Its reports cannot be read: %v.", err)
	}
	defer root.Close()
	total, seen := 0, 0
	err = fs.WalkDir(root.FS(), ".", func(name string, entry fs.DirEntry, err error) error {
		if seen++; seen > 100*mostJUnitFiles {
			return fmt.Errorf("there are too many files")
		}
		if err != nil || !entry.Type().IsRegular() || filepath.Ext(name) != ".xml" {
			return err
		}
		in, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		defer in.Close()
		data, err := io.ReadAll(io.LimitReader(in, mostJUnitBytes+1))
		if err != nil {
			return err
		}
		if total += len(data); len(data) > mostJUnitBytes || total > mostReported || len(files) == mostJUnitFiles {
			return fmt.Errorf("%s: at most %d files of %d MiB, and %d MiB in all, are read", name, mostJUnitFiles, mostJUnitBytes>>20, mostReported>>20)
		}
		files = append(files, file{name, data})
		return nil
	})
	if err != nil {
		problem = fmt.Sprintf("Its reports cannot be read: %s.", cut(err.Error()))
	}
	return files, problem
}
