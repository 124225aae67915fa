// Package product builds Fairway's programs and tells how they are run, for the tests on the lab.
package product

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os/exec"
	"slices"
)

// Build builds the command line ("starter") and the worker into a folder, as they are delivered but
// for their names. root is the repository's.
func Build(ctx context.Context, root, folder string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-ldflags", "-X main.version=test", "-o", folder+"/", "./starter", "./worker")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building the product: %w\n%s", err, out)
	}
	return nil
}

// Environment is variables in the form that processes get them in.
func Environment(variables map[string]string) []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(variables)) {
		out = append(out, name+"="+variables[name])
	}
	return out
}

// Answers asks a URL and returns nil if it answers 200.
func Answers(ctx context.Context, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	return nil
}

// Silence is a logger for Temporal's client where the server is killed on purpose.
type Silence struct{}

// Debug logs nothing.
func (Silence) Debug(string, ...any) {}

// Info logs nothing.
func (Silence) Info(string, ...any) {}

// Warn logs nothing.
func (Silence) Warn(string, ...any) {}

// Error logs nothing.
func (Silence) Error(string, ...any) {}
