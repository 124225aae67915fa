package testsuites

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// kubernetes runs upstream's e2e.test of the cluster's version.
func (r *run) kubernetes(ctx context.Context) (outcome, error) {
	version, err := r.version(ctx)
	if err != nil {
		return outcome{}, err
	}
	s := *r.in.Suite.Kubernetes
	fill := strings.NewReplacer("{cluster}", r.cluster.ID, "{version}", version)
	s.Binary, s.Ginkgo = fill.Replace(s.Binary), fill.Replace(s.Ginkgo)
	for _, binary := range []string{s.Binary, s.Ginkgo} {
		if binary == "" {
			continue
		}
		if _, err := exec.LookPath(binary); err != nil {
			return outcome{problem: fmt.Sprintf("The cluster runs Kubernetes %s, and the worker has no %s for it: %v. Add it to the worker's image.", version, binary, err), final: true}, nil
		}
	}
	return r.inFolder(ctx, version, func(f *folder, log *logFile) ([]string, *outcome) {
		r.say("e2e.test begins")
		go r.follow(ctx, log)
		return r.ginkgo(s.Binary, s.Ginkgo, f), nil
	})
}

// ginkgo is the command line.
func (r *run) ginkgo(binary, ginkgo string, f *folder) []string {
	s := r.in.Suite.Kubernetes
	flags := [][2]string{
		{"focus", cmp.Or(s.Focus, `\[Conformance\]`)},
		{"skip", cmp.Or(s.Skip, `\[Serial\]|\[Disruptive\]`)},
		{"flake-attempts", strconv.Itoa(r.in.Suite.Retries + 1)},
		{"timeout", r.limit().String()}, // ginkgo's own is an hour
		{"no-color", "true"},
	}
	arguments := []string{"-kubeconfig=" + f.kubeconfig(), "-provider=skeleton", "-report-dir=" + f.reports()}
	if r.in.Suite.Retries > 0 {
		arguments = append(arguments, "-report-complete-ginkgo") // only there it is said how often a case was tried
	}
	arguments = append(arguments, s.Arguments...)
	var command []string
	if ginkgo == "" {
		command = []string{binary}
		for _, flag := range flags {
			command = append(command, "-ginkgo."+flag[0]+"="+flag[1])
		}
		return append(command, arguments...)
	}
	command = []string{ginkgo, "-procs=" + strconv.Itoa(cmp.Or(s.Processes, 10))}
	for _, flag := range flags {
		command = append(command, "-"+flag[0]+"="+flag[1])
	}
	return append(append(command, binary, "--"), arguments...)
}

// followEvery is the time between two looks at the log.
const followEvery = 2 * time.Second

// follow says how far the log is.
func (r *run) follow(ctx context.Context, log *logFile) {
	began := time.Now()
	for again := time.Tick(followEvery); ; {
		select {
		case <-ctx.Done():
			return
		case <-again:
			r.say("e2e.test runs since %s; %d cases are over", began.UTC().Format(time.TimeOnly), log.casesOver())
		}
	}
}

// completeFolder is where e2e.test puts Ginkgo's own report, besides the JUnit file with the same cases.
const completeFolder = "ginkgo"

// mostReport bounds Ginkgo's own report, in bytes.
const mostReport = 128 << 20

// flakyOf reads from Ginkgo's own report which cases passed after they had failed. Without one there are none.
func flakyOf(path string) (flaky []string) {
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() {
		return nil
	}
	in, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer in.Close()
	var reports []struct {
		SpecReports []struct {
			ContainerHierarchyTexts []string
			LeafNodeText            string
			State                   string
			NumAttempts             int
		}
	}
	if json.NewDecoder(io.LimitReader(in, mostReport)).Decode(&reports) != nil {
		return nil
	}
	for _, report := range reports {
		for _, spec := range report.SpecReports {
			if spec.State == "passed" && spec.NumAttempts > 1 {
				flaky = append(flaky, strings.Join(append(spec.ContainerHierarchyTexts, spec.LeafNodeText), " "))
			}
		}
	}
	return flaky
}
