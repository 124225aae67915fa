package lab

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// binary is a program of the lab that is built from source.
type binary struct {
	name    string
	title   string
	module  string // directory of its module in the repository
	main    string // its main package
	ldflags string
	tags    string
	test    bool          // main is a package whose tests are the program
	cold    time.Duration // to compile all of it on two cores
}

const kubernetesVersion = "v1.36.3"

var binaries = []binary{
	{name: "kcp", title: "Kubernetes " + kubernetesVersion, module: "lab/kubernetes", main: ".", ldflags: kubernetesLdflags, cold: 4 * time.Minute},
	{name: "kubectl", title: "Kubernetes " + kubernetesVersion, module: "lab/kubernetes", main: "k8s.io/kubernetes/cmd/kubectl", ldflags: kubernetesLdflags, cold: 40 * time.Second},
	{name: "e2e.test", title: "upstream's tests of Kubernetes " + kubernetesVersion, module: "lab/kubernetes", main: "./e2e", ldflags: kubernetesLdflags, test: true, cold: 2 * time.Minute},
	{name: "ginkgo", title: "what runs these tests in parallel", module: "lab/kubernetes", main: "github.com/onsi/ginkgo/v2/ginkgo", cold: 10 * time.Second},
	{name: "kwok", title: "the simulated kubelets", module: "lab/nodes", main: ".", cold: time.Minute},
	{name: "gitea", title: "the forge", module: "lab/forge", main: "code.gitea.io/gitea", ldflags: "-X main.Version=1.26.1", tags: "sqlite sqlite_unlock_notify", cold: 3 * time.Minute},
	{name: "temporal-lab", title: "Temporal server and UI", module: "lab/temporal", main: ".", cold: 4 * time.Minute},
	{name: "lab-instances", title: "the bridge from instances to nodes", module: ".", main: "./lab/instances", cold: time.Minute},
}

// flags are those of go build. Our own module is built like its tests, whose packages are
// compiled already or will be needed anyway.
func (b binary) flags() []string {
	flags := []string{"-ldflags", strings.TrimSpace("-s -w " + b.ldflags)}
	if b.module != "." {
		flags = append(flags, "-trimpath")
	}
	if b.tags != "" {
		flags = append(flags, "-tags", b.tags)
	}
	return flags
}

const kubernetesLdflags = "-X k8s.io/component-base/version.gitVersion=" + kubernetesVersion +
	" -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36" +
	" -X k8s.io/client-go/pkg/version.gitVersion=" + kubernetesVersion

// Build brings the named binaries of the lab (default: all) in the repository's `.lab/bin` up to
// date and tells its progress on out. What is up to date costs milliseconds; a first build takes
// about a quarter of an hour on two cores. Only one Build runs at a time on a repository; others wait for it.
func Build(ctx context.Context, out io.Writer, names ...string) error {
	root, err := repositoryRoot()
	if err != nil {
		return fmt.Errorf("building the lab: %w", err)
	}
	wanted := slices.Clone(binaries)
	if len(names) > 0 {
		wanted = slices.DeleteFunc(wanted, func(b binary) bool { return !slices.Contains(names, b.name) })
		if len(wanted) != len(names) {
			return fmt.Errorf("building the lab: not all of %s are binaries of it", strings.Join(names, ", "))
		}
	}
	builder := &builder{root: root, out: out}
	if builder.toolchain, err = run(ctx, root, nil, "go", "env", "GOVERSION", "GOFLAGS", "GOARCH"); err != nil {
		return fmt.Errorf("building the lab: %w", err)
	}
	wanted = slices.DeleteFunc(wanted, builder.upToDate)
	if len(wanted) == 0 {
		return nil
	}
	unlock, err := builder.lock(ctx)
	if err != nil {
		return fmt.Errorf("building the lab: %w", err)
	}
	defer unlock()
	wanted = slices.DeleteFunc(wanted, builder.upToDate) // another builder may have been at it
	for i, b := range wanted {
		if err := builder.build(ctx, b, i+1, len(wanted)); err != nil {
			return fmt.Errorf("building %s: %w", b.name, err)
		}
	}
	return nil
}

type builder struct {
	root      string
	out       io.Writer
	toolchain string
}

func (b *builder) path(elements ...string) string {
	return filepath.Join(append([]string{b.root, ".lab"}, elements...)...)
}

// lock waits until no other process builds.
func (b *builder) lock(ctx context.Context) (unlock func(), err error) {
	if err := os.MkdirAll(b.path("bin"), 0o755); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(b.path("build.lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for said := false; ; {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { file.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			file.Close()
			return nil, fmt.Errorf("locking %s: %w", file.Name(), err)
		}
		if !said {
			fmt.Fprintln(b.out, "waiting for another build of the lab")
			said = true
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			file.Close()
			return nil, context.Cause(ctx)
		}
	}
}

// stamp records what a binary was built from.
type stamp struct {
	Inputs string    `json:"inputs"` // hash of everything that went in
	Files  []string  `json:"files"`  // sources of its own module and the directories they are in, relative to the module
	Size   int64     `json:"size"`   // of the binary; notices one that was built by hand
	Time   time.Time `json:"time"`
}

func (b *builder) stampFile(name string) string { return b.path("bin", ".stamps", name+".json") }

func (b *builder) upToDate(bin binary) bool {
	s, found := b.readStamp(bin.name)
	if !found {
		return false
	}
	inputs, err := b.inputs(bin, s.Files)
	return err == nil && inputs == s.Inputs
}

// readStamp finds the stamp of a binary that nobody has replaced since.
func (b *builder) readStamp(name string) (s stamp, found bool) {
	data, err := os.ReadFile(b.stampFile(name))
	if err != nil || json.Unmarshal(data, &s) != nil {
		return stamp{}, false
	}
	info, err := os.Stat(b.path("bin", name))
	return s, err == nil && info.Size() == s.Size && info.ModTime().Equal(s.Time)
}

// inputs hashes what decides about the binary. Of files, directories count with the names of
// the Go files in them, so that a new file is noticed.
func (b *builder) inputs(bin binary, files []string) (string, error) {
	hash := sha256.New()
	fmt.Fprintln(hash, b.toolchain, bin.module, bin.main, bin.flags())
	module := filepath.Join(b.root, bin.module)
	for _, file := range append([]string{"go.mod", "go.sum"}, files...) {
		path := filepath.Join(module, file)
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			sources, err := filepath.Glob(filepath.Join(path, "*.go"))
			if err != nil {
				return "", err
			}
			for _, source := range sources {
				if bin.test || !strings.HasSuffix(source, "_test.go") {
					fmt.Fprintln(hash, filepath.Base(source))
				}
			}
			continue
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		fmt.Fprintln(hash, file, len(data))
		hash.Write(data)
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}

func (b *builder) build(ctx context.Context, bin binary, number, of int) (err error) {
	title := fmt.Sprintf("%s (%s), %d of %d", bin.name, bin.title, number, of)
	step := newStep(b.out, "building "+title, bin.cold)
	defer func() { step.end(err) }()

	packages, files, err := b.list(ctx, bin)
	if err != nil {
		return err
	}
	inputs, err := b.inputs(bin, files) // before building: what changes meanwhile is built next time
	if err != nil {
		return err
	}
	fresh := b.path("bin", "."+bin.name+".new")
	defer os.Remove(fresh)
	if err := b.compile(ctx, bin, fresh, packages, step); err != nil {
		return err
	}
	if err := os.Rename(fresh, b.path("bin", bin.name)); err != nil {
		return err
	}
	return b.writeStamp(bin.name, inputs, files)
}

func (b *builder) writeStamp(name, inputs string, files []string) error {
	info, err := os.Stat(b.path("bin", name))
	if err != nil {
		return err
	}
	data, err := json.Marshal(stamp{Inputs: inputs, Files: files, Size: info.Size(), Time: info.ModTime()})
	if err != nil {
		return err
	}
	return writeFile(b.stampFile(name), data, 0o644)
}

// list asks which packages still have to be compiled, and which files of its own module the
// binary consists of.
func (b *builder) list(ctx context.Context, bin binary) (stale map[string]bool, files []string, err error) {
	const format = `{{if .Stale}}stale {{.ImportPath}}{{"\n"}}{{end}}` +
		`{{if and .Module .Module.Main}}{{$dir := .Dir}}file {{$dir}}{{"\n"}}` +
		`{{range .GoFiles}}file {{$dir}}/{{.}}{{"\n"}}{{end}}{{range .EmbedFiles}}file {{$dir}}/{{.}}{{"\n"}}{{end}}%s{{end}}`
	tests := ""
	if bin.test {
		tests = `{{range .TestGoFiles}}file {{$dir}}/{{.}}{{"\n"}}{{end}}`
	}
	// What is wrong with the sources is go build's to tell, it does so more readably: hence -e.
	args := append([]string{"list", "-e", "-deps", "-f", fmt.Sprintf(format, tests)}, bin.flags()...)
	module := filepath.Join(b.root, bin.module)
	listed, err := run(ctx, module, nil, "go", append(args, bin.main)...)
	if err != nil {
		return nil, nil, err
	}
	stale = map[string]bool{}
	for line := range strings.Lines(listed) {
		kind, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch kind {
		case "stale":
			stale[value] = true
		case "file":
			file, err := filepath.Rel(module, value)
			if err != nil {
				return nil, nil, err
			}
			files = append(files, file)
		}
	}
	return stale, files, nil
}

// compile builds the binary. What tests are made of is compiled before the tests are: go test
// would not say how far it is.
func (b *builder) compile(ctx context.Context, bin binary, to string, stale map[string]bool, step *step) error {
	args := append([]string{"build", "-v", "-o", to}, bin.flags()...)
	if bin.test {
		args = append([]string{"build", "-v"}, bin.flags()...)
	}
	if err := b.goTool(ctx, bin, append(args, bin.main), stale, step); err != nil || !bin.test {
		return err
	}
	args = append([]string{"test", "-c", "-vet=off", "-o", to}, bin.flags()...)
	return b.goTool(ctx, bin, append(args, bin.main), nil, step)
}

// goTool runs go and counts the packages it reports; the rest of what it prints, if it fails, is
// the error.
func (b *builder) goTool(ctx context.Context, bin binary, args []string, stale map[string]bool, step *step) error {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = filepath.Join(b.root, bin.module)
	// Like run: the compiler ends with the lab. Interrupted, it removes its temporary files.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGINT}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
	cmd.WaitDelay = 10 * time.Second
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	messages, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	var last []string
	compiled := 0
	lines := bufio.NewScanner(messages)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if stale[lines.Text()] {
			compiled++
			step.detail(fmt.Sprintf("%d of %d packages", compiled, len(stale)))
			continue
		}
		last = append(last, lines.Text())
		last = last[max(0, len(last)-30):]
	}
	_, _ = io.Copy(io.Discard, messages)
	if err := cmd.Wait(); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("go %s in %s: %w; the end of its output:\n%s", args[0], bin.module, err, strings.Join(last, "\n"))
	}
	return nil
}
