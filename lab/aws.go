package lab

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
)

const (
	awsAccount   = "123456789012"
	awsRegion    = "eu-central-1"
	awsAccessKey = "test" // both its id and its secret; the endpoint refuses every other id
)

// awsState is where the AWS endpoint listens, "127.0.0.1:port".
type awsState struct{ address string }

// Shortage says what AWS has no capacity for; what is empty matches everything.
type Shortage struct {
	Zone         string `json:"zone,omitzero"`
	InstanceType string `json:"instance_type,omitzero"`
	// Market is "spot" or "on-demand".
	Market string `json:"market,omitzero"`
}

// prepareAWS installs what the AWS endpoint runs on into `.lab/venv`, unless that was made from
// the same requirements by the same Python.
func prepareAWS(ctx context.Context, root string, out io.Writer) (err error) {
	requirements := filepath.Join(root, "lab", "aws", "requirements.txt")
	venv := filepath.Join(root, ".lab", "venv")
	stamp, err := venvStamp(ctx, requirements)
	if err != nil {
		return err
	}
	if venvIsCurrent(venv, stamp) {
		return nil
	}
	unlock, err := (&builder{root: root, out: out}).lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if venvIsCurrent(venv, stamp) { // somebody else has made it meanwhile
		return nil
	}
	step := newStep(out, "installing moto, the AWS endpoint, into .lab/venv", time.Minute)
	defer func() { step.end(err) }()
	if err := os.RemoveAll(venv); err != nil {
		return err
	}
	if _, err := run(ctx, root, nil, "python3", "-m", "venv", venv); err != nil {
		return fmt.Errorf("making a virtual environment (Debian has it in python3-venv): %w", err)
	}
	if _, err := run(ctx, root, nil, filepath.Join(venv, "bin", "pip"), "install", "--quiet",
		"--disable-pip-version-check", "--require-hashes", "-r", requirements); err != nil {
		return err
	}
	return writeFile(filepath.Join(venv, "stamp"), []byte(stamp), 0o644)
}

func venvStamp(ctx context.Context, requirements string) (string, error) {
	version, err := run(ctx, "", nil, "python3", "--version")
	if err != nil {
		return "", fmt.Errorf("asking Python for its version (3.11 or later is needed): %w", err)
	}
	data, err := os.ReadFile(requirements)
	if err != nil {
		return "", err
	}
	hash := sha256.Sum256(data)
	return strings.TrimSpace(version) + " " + hex.EncodeToString(hash[:]), nil
}

func venvIsCurrent(venv, stamp string) bool {
	data, err := os.ReadFile(filepath.Join(venv, "stamp"))
	return err == nil && string(data) == stamp
}

// StartAWS is Start for a lab that consists of the AWS endpoint with the fleet's network and
// nothing else.
func StartAWS(ctx context.Context, options Options) (*Lab, error) {
	return launch(ctx, options, func(l *Lab, ctx context.Context) error {
		if err := prepareAWS(ctx, l.root, l.out); err != nil {
			return fmt.Errorf("preparing the AWS endpoint: %w", err)
		}
		if err := l.startAWS(ctx); err != nil {
			return err
		}
		_, err := l.createNetwork(ctx)
		return err
	})
}

// startAWS starts moto with the lab's extensions (lab/aws). All it knows is in memory.
func (l *Lab) startAWS(ctx context.Context) error {
	port, err := freePort()
	if err != nil {
		return err
	}
	state := &awsState{address: fmt.Sprintf("127.0.0.1:%d", port)}
	l.mu.Lock()
	l.aws = state
	l.mu.Unlock()
	if err := l.endpoint("aws", state.address); err != nil {
		return err
	}
	_, err = l.Run(ctx, Process{
		Name: "aws",
		Command: []string{
			filepath.Join(l.root, ".lab", "venv", "bin", "python"), filepath.Join(l.root, "lab", "aws", "server.py"),
			"--port", strconv.Itoa(port), "--access-key", awsAccessKey,
		},
		Env:   []string{"PYTHONDONTWRITEBYTECODE=1"},
		Ready: func(ctx context.Context) error { return l.awsControl(ctx, http.MethodGet, "state", nil) },
	})
	return err
}

// AWSURL is the address of the AWS endpoint through its proxy, the one that the product gets.
func (l *Lab) AWSURL() string { return "http://" + l.Proxied("aws") }

// AWSConfig is access to the AWS endpoint past its proxy, which faults do not touch.
func (l *Lab) AWSConfig() aws.Config {
	return aws.Config{
		Region:       awsRegion,
		BaseEndpoint: aws.String("http://" + l.awsAddress()),
		Credentials:  credentials.NewStaticCredentialsProvider(awsAccessKey, awsAccessKey, ""),
	}
}

func (l *Lab) awsAddress() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.aws == nil {
		return ""
	}
	return l.aws.address
}

// Shortage makes launches fail for want of capacity. Several shortages add up.
func (l *Lab) Shortage(ctx context.Context, shortage Shortage) error {
	return l.awsControl(ctx, http.MethodPut, "shortage", shortage)
}

// ClearShortages ends all shortages.
func (l *Lab) ClearShortages(ctx context.Context) error {
	return l.awsControl(ctx, http.MethodDelete, "shortage", nil)
}

// FailLaunches makes the next n instances that an Auto Scaling group (any group, if empty)
// launches run without ever becoming nodes.
func (l *Lab) FailLaunches(ctx context.Context, group string, n int) error {
	return l.awsControl(ctx, http.MethodPut, "launch-failure", struct {
		Group string `json:"group,omitzero"`
		Count int    `json:"count"`
	}{group, n})
}

// ClearLaunchFailures undoes FailLaunches for instances that are not launched yet.
func (l *Lab) ClearLaunchFailures(ctx context.Context) error {
	return l.awsControl(ctx, http.MethodDelete, "launch-failure", nil)
}

// FailDeletions makes the next n deletions of a stack end in DELETE_FAILED, with the resource left
// that all its others referred to. The one after that removes it.
func (l *Lab) FailDeletions(ctx context.Context, stack string, n int) error {
	return l.awsControl(ctx, http.MethodPut, "deletion-failure", struct {
		Stack string `json:"stack"`
		Count int    `json:"count"`
	}{stack, n})
}

// ClearDeletionFailures undoes FailDeletions for deletions that have not begun.
func (l *Lab) ClearDeletionFailures(ctx context.Context) error {
	return l.awsControl(ctx, http.MethodDelete, "deletion-failure", nil)
}

func (l *Lab) awsControl(ctx context.Context, method, path string, value any) error {
	var body io.Reader = http.NoBody
	if value != nil {
		data, err := json.Marshal(value)
		if err != nil {
			return fmt.Errorf("asking the AWS endpoint: %w", err)
		}
		body = bytes.NewReader(data)
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://"+l.awsAddress()+"/lab/"+path, body)
	if err != nil {
		return fmt.Errorf("asking the AWS endpoint: %w", err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("asking the AWS endpoint: %w", err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = errors.New(strings.TrimSpace(string(answer)))
	}
	if err != nil {
		return fmt.Errorf("asking the AWS endpoint to %s %s: %w", method, path, err)
	}
	return nil
}
