package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/goccy/go-yaml"
)

// Prometheus says what a Prometheus measures. It scrapes and evaluates its rules twice a second.
type Prometheus struct {
	// Rules are the groups of a rules file as YAML; empty means none.
	Rules string
	// Targets are addresses ("127.0.0.1:port") of whose /metrics it asks.
	Targets []string
	// History is what it has measured before it starts, as OpenMetrics text with a time at each
	// sample; empty means nothing.
	History string
}

// StartPrometheus is Start for a lab that consists of a Prometheus and nothing else.
func StartPrometheus(ctx context.Context, options Options, prometheus Prometheus) (*Lab, error) {
	return launch(ctx, options, func(l *Lab, ctx context.Context) error { return l.StartPrometheus(ctx, prometheus) })
}

// PrometheusURL is the address of the Prometheus behind the proxy "prometheus".
func (l *Lab) PrometheusURL() string { return "http://" + l.Proxied("prometheus") }

// StartPrometheus starts the part "prometheus", which no lab has by itself, and waits until it serves.
func (l *Lab) StartPrometheus(ctx context.Context, prometheus Prometheus) error {
	if part := l.Part("prometheus"); part != nil && part.Running() {
		return errors.New("starting prometheus: it runs already")
	}
	bin, err := preparePrometheus(ctx, l.root, l.out)
	if err != nil {
		return fmt.Errorf("preparing Prometheus: %w", err)
	}
	port, err := freePort()
	if err != nil {
		return fmt.Errorf("starting prometheus: %w", err)
	}
	if err := l.writePrometheus(ctx, bin, prometheus); err != nil {
		return fmt.Errorf("configuring prometheus: %w", err)
	}
	address := fmt.Sprintf("127.0.0.1:%d", port)
	if err := l.endpoint("prometheus", address); err != nil {
		return err
	}
	_, err = l.Run(ctx, Process{
		Name: "prometheus",
		Command: []string{filepath.Join(bin, "prometheus"), "--config.file", l.path("prometheus", "prometheus.yml"),
			"--storage.tsdb.path", l.path("prometheus", "data"), "--web.listen-address", address},
		Dir:   l.path("prometheus"),
		Ready: func(ctx context.Context) error { return prometheusReady(ctx, address) },
	})
	return err
}

func (l *Lab) writePrometheus(ctx context.Context, bin string, prometheus Prometheus) error {
	config, err := yaml.Marshal(map[string]any{
		"global":         map[string]any{"scrape_interval": "500ms", "evaluation_interval": "500ms"},
		"rule_files":     []string{l.path("prometheus", "rules.yml")},
		"scrape_configs": []any{map[string]any{"job_name": "lab", "static_configs": []any{map[string]any{"targets": prometheus.Targets}}}},
	})
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{
		"prometheus.yml": config, "rules.yml": []byte(prometheus.Rules), "history": []byte(prometheus.History),
	} {
		if err := writeFile(l.path("prometheus", name), content, 0o644); err != nil {
			return err
		}
	}
	if prometheus.History == "" {
		return nil
	}
	_, err = run(ctx, l.path("prometheus"), nil, filepath.Join(bin, "promtool"), "tsdb", "create-blocks-from", "openmetrics", "history", "data")
	return err
}

func prometheusReady(ctx context.Context, address string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/-/ready", nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("Prometheus answers %s", response.Status)
	}
	return nil
}

// PreparePrometheus makes Prometheus available to all labs. It costs milliseconds when it is there.
func PreparePrometheus(ctx context.Context, out io.Writer) error {
	root, err := repositoryRoot()
	if err == nil {
		_, err = preparePrometheus(ctx, root, out)
	}
	if err != nil {
		return fmt.Errorf("preparing Prometheus: %w", err)
	}
	return nil
}

// prometheusPackage has both programs in it, linked with nothing but the C library.
const prometheusPackage = "prometheus"

var prometheusPrograms = []string{"prometheus", "promtool"}

// preparePrometheus returns the directory of Debian's prometheus and promtool: where the system has
// them, or else `.lab/bin`, into which the package is unpacked, not installed: seconds, where building
// its module would take minutes.
func preparePrometheus(ctx context.Context, root string, out io.Writer) (bin string, err error) {
	if there("/usr/bin") {
		return "/usr/bin", nil
	}
	b := &builder{root: root, out: out}
	bin = b.path("bin")
	if b.hasPrometheus() {
		return bin, nil
	}
	unlock, err := b.lock(ctx)
	if err != nil {
		return "", err
	}
	defer unlock()
	if b.hasPrometheus() { // somebody else has fetched it meanwhile
		return bin, nil
	}
	return bin, b.fetchPrometheus(ctx)
}

func there(dir string) bool {
	for _, program := range prometheusPrograms {
		if _, err := os.Stat(filepath.Join(dir, program)); err != nil {
			return false
		}
	}
	return true
}

func (b *builder) hasPrometheus() bool {
	for _, program := range prometheusPrograms {
		if s, found := b.readStamp(program); !found || s.Inputs != prometheusPackage {
			return false
		}
	}
	return true
}

func (b *builder) fetchPrometheus(ctx context.Context) (err error) {
	step := newStep(b.out, "fetching Debian's package "+prometheusPackage+" into .lab/bin", 20*time.Second)
	defer func() { step.end(err) }()
	dir := b.path("bin", ".prometheus.new")
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.MkdirAll(filepath.Join(dir, "lists", "partial"), 0o755); err != nil {
		return err
	}
	// As root apt would change to a user who may not write here.
	download := func(options ...string) error {
		_, err := run(ctx, dir, nil, "apt-get", append(options, "-o", "APT::Sandbox::User=root", "download", prometheusPackage)...)
		return err
	}
	if first := download(); first != nil {
		// Lists of our own need no rights, where the system's are missing or old.
		own := []string{"-o", "Dir::State::Lists=" + filepath.Join(dir, "lists"), "-o", "Dir::Cache=" + dir}
		if _, err := run(ctx, dir, nil, "apt-get", append(own, "-o", "APT::Sandbox::User=root", "update")...); err != nil {
			return errors.Join(first, err)
		}
		if err := download(own...); err != nil {
			return err
		}
	}
	packages, err := filepath.Glob(filepath.Join(dir, prometheusPackage+"_*.deb"))
	if err != nil {
		return err
	}
	if len(packages) != 1 {
		return fmt.Errorf("apt-get has downloaded %d packages", len(packages))
	}
	if _, err := run(ctx, dir, nil, "dpkg-deb", "--extract", packages[0], "."); err != nil {
		return err
	}
	for _, program := range prometheusPrograms {
		if err := os.Rename(filepath.Join(dir, "usr", "bin", program), b.path("bin", program)); err != nil {
			return err
		}
		if err := b.writeStamp(program, prometheusPackage, nil); err != nil {
			return err
		}
	}
	return nil
}
