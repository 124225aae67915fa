package lab

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Env is what a program needs to talk to this lab, by the names of environment variables. All
// addresses lead through the proxies, so that faults reach the program. `.lab/env` holds the same.
func (l *Lab) Env() map[string]string {
	forge := l.Forge()
	return map[string]string{
		"TEMPORAL_ADDRESS":      l.TemporalAddress(),
		"TEMPORAL_NAMESPACE":    TemporalNamespace,
		"TEMPORAL_UI_URL":       l.TemporalUIURL(),
		"AWS_ENDPOINT_URL":      l.AWSURL(),
		"AWS_ACCESS_KEY_ID":     awsAccessKey,
		"AWS_SECRET_ACCESS_KEY": awsAccessKey,
		"AWS_REGION":            awsRegion,
		"KUBECONFIG":            l.path("kubeconfig"),
		"FAIRWAY_CONFIG":        l.path("fairway.yaml"),
		"LAB_INGRESS_URL":       l.IngressURL(),
		"FORGE_URL":             forge.URL,
		"FORGE_OPERATOR_TOKEN":  forge.OperatorToken,
		"FORGE_AUTHOR_TOKEN":    forge.AuthorToken,
		"FORGE_REVIEWER_TOKEN":  forge.ReviewerToken,
	}
}

// WorkerAddress is where a worker with the lab's configuration answers about its health.
func (l *Lab) WorkerAddress() string { return l.workerAddress }

// EnvFile is the path of the shell exports for this lab.
func (l *Lab) EnvFile() string { return l.path("env") }

// writeEnv writes what lets ordinary tools and Fairway itself talk to the lab.
func (l *Lab) writeEnv() error {
	port, err := freePort()
	if err != nil {
		return err
	}
	l.workerAddress = fmt.Sprintf("127.0.0.1:%d", port)
	forge := l.Forge()
	token := l.path("forge-token")
	if err := writeFile(token, []byte(forge.OperatorToken), 0o600); err != nil {
		return fmt.Errorf("writing Fairway's credentials for the forge: %w", err)
	}
	tests, err := l.testSettings()
	if err != nil {
		return fmt.Errorf("writing Fairway's configuration: %w", err)
	}
	config := fmt.Sprintf(`registry:
  file: %s
repository:
  url: %s/%s/%s.git
  user: %s
  token_file: %s
  mirror: %s
forge:
  kind: gitea
  url: %s
  token_file: %s
kubernetes:
  kubeconfig: %s
aws:
  network_tag: %s
  poll_interval: 500ms
  qps: 200 # ten times the default, as it looks ten times as often
  burst: 400
update:
  sync_every: 10s
  health_every: 5s
  healthy_within: 3m
  environments:
    production: {retry_after: 20s}
    test: {retry_after: 20s}
rollout:
  bake: 20s
pipeline:
  every: 5s
  author: Fairway <fairway@fairway.test>
  channels: [dev, alpha, stable]
  edges:
  - {from: dev, to: alpha, mode: merge, soak: 1m}
  - from: alpha
    to: stable
    mode: pull-request
    soak: 2m
    pull_request: {approvals: 1, reviewers: [%s], automerge: true}
replace:
  node_ready_within: 2m
  settle: 2s
roll:
  validate: 3s
  shortage_after: 10s
%sworker:
  listen: %s
  promote: true
  log:
    format: console
`, l.path("registry.yaml"), forge.URL, forge.Owner, forge.Repository, forgeOperator, token, l.path("mirror"), forge.URL, token,
		l.path("kubeconfig-fairway"), *networkTag.Key+"="+*networkTag.Value, forgeReviewer, tests, l.workerAddress)
	if err := writeFile(l.path("fairway.yaml"), []byte(config), 0o644); err != nil {
		return fmt.Errorf("writing Fairway's configuration: %w", err)
	}
	var exports strings.Builder
	env := l.Env()
	for _, name := range slices.Sorted(maps.Keys(env)) {
		fmt.Fprintf(&exports, "export %s=%s\n", name, shellQuote(env[name]))
	}
	if err := writeFile(l.path("env"), []byte(exports.String()), 0o600); err != nil {
		return fmt.Errorf("writing the environment file: %w", err)
	}
	return nil
}

func shellQuote(value string) string {
	return "'" + strings.ReplaceAll(value, "'", `'\''`) + "'"
}

// writeFile replaces a file at once, so that a reader sees the old or the new content whole.
func writeFile(path string, data []byte, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	_, err = io.Copy(file, bytes.NewReader(data))
	if err := errors.Join(err, file.Chmod(mode), file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}
