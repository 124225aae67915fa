package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/fairway-project/fairway/lab"
)

// fairway runs the command line with its result to a writer.
type fairway func(stdout io.Writer, args ...string) error

// travelWithin bounds the wait for a commit; a machine that is busy takes its time.
const travelWithin = 10 * time.Minute

// travel pushes a commit to the channel dev, as its author would, and follows it until all clusters of the
// channel have it.
func travel(ctx context.Context, out io.Writer, l *lab.Lab, run fairway, show func(args ...string) error) error {
	const channel = "dev"
	fmt.Fprintf(out, "\nClusters follow their channel, a branch of the configuration repository. First those of %s have to be on its head:\n", channel)
	if err := follow(ctx, out, run, channel, ""); err != nil {
		return err
	}
	commit, diff, err := pushChange(ctx, l.Forge(), channel)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "\nNow somebody pushes a commit to %s: one more replica of shop-frontend, and new user data, for which the nodes of pool worker have to be replaced.\n\n%s\n", channel, diff)
	if err := show("sync", channel); err != nil { // the schedule would do it within seconds
		return err
	}
	if err := show("channel", "describe", channel); err != nil {
		return err
	}
	fmt.Fprintln(out, "\nThe least critical cluster goes first, alone; the next one when it has been healthy for a while:")
	if err := follow(ctx, out, run, channel, commit); err != nil {
		return err
	}
	for _, args := range [][]string{{"channel", "describe", channel}, {"cluster", "history", "dev-1"}, {"status"}} {
		if err := show(args...); err != nil {
			return err
		}
	}
	return nil
}

// pushChange pushes a small change that is seen, and returns the commit and its diff.
func pushChange(ctx context.Context, forge lab.Forge, channel string) (commit, diff string, err error) {
	clone, err := os.MkdirTemp("", "fairway-demo-")
	if err != nil {
		return "", "", err
	}
	defer os.RemoveAll(clone)
	git := func(args ...string) (string, error) {
		cmd := exec.CommandContext(ctx, "git", args...)
		cmd.Dir = clone
		// The token goes through the environment, where no list of processes shows it.
		cmd.Env = append(os.Environ(), "GIT_TERMINAL_PROMPT=0", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL="+os.DevNull,
			"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=http.extraHeader", "GIT_CONFIG_VALUE_0=Authorization: token "+forge.AuthorToken)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		stdout, err := cmd.Output()
		if err != nil {
			return "", fmt.Errorf("git %s: %w\n%s", strings.Join(args, " "), err, stderr.String())
		}
		return strings.TrimSpace(string(stdout)), nil
	}
	if _, err := git("clone", "--quiet", "--branch", channel, fmt.Sprintf("%s/%s/%s.git", forge.URL, forge.Owner, forge.Repository), "."); err != nil {
		return "", "", err
	}
	for name, change := range map[string]func(string) (string, error){
		"cluster/config-defaults.yaml": oneReplicaMore,
		"cluster/node-pools/worker-default/userdata.yaml": func(content string) (string, error) {
			return strings.TrimRight(content, "\n") + "\n# Changed by `make demo` at " + time.Now().UTC().Format(time.DateTime) + ".\n", nil
		},
	} {
		path := filepath.Join(clone, name)
		content, err := os.ReadFile(path)
		if err != nil {
			return "", "", err
		}
		changed, err := change(string(content))
		if err != nil {
			return "", "", fmt.Errorf("%s: %w", name, err)
		}
		if err := os.WriteFile(path, []byte(changed), 0o644); err != nil {
			return "", "", err
		}
	}
	if _, err := git("-c", "user.name=author", "-c", "user.email=author@fairway.test", "commit", "--quiet", "--all", "-m", "Run more of shop-frontend, on new nodes"); err != nil {
		return "", "", err
	}
	if _, err := git("push", "--quiet", "origin", "HEAD:"+channel); err != nil {
		return "", "", err
	}
	if commit, err = git("rev-parse", "HEAD"); err != nil {
		return "", "", err
	}
	diff, err = git("show", "--unified=0", "--format=commit %h by %an%n%n    %s%n")
	return commit, diff, err
}

var replicas = regexp.MustCompile(`(shop_frontend_replicas: ")(\d+)"`)

func oneReplicaMore(content string) (string, error) {
	found := replicas.FindStringSubmatch(content)
	if found == nil {
		return "", fmt.Errorf("has no shop_frontend_replicas")
	}
	count, err := strconv.Atoi(found[2])
	if err != nil {
		return "", err
	}
	return replicas.ReplaceAllString(content, fmt.Sprintf(`${1}%d"`, count+1)), nil
}

// heading is what the demo shows of a channel, and reads of `channel describe`.
type heading struct {
	Commit  string
	Stopped string
	Next    time.Time // when the next group may go
	Members []struct {
		ID, State, Problem string
	}
}

// moving is what it reads of `status`.
type moving struct {
	Updating []struct {
		Cluster, Phase, Step, Left string
		Nodes                      int
		Done                       int `json:"nodes_done"`
	}
}

// follow prints what changes of the clusters of a channel until all of them are on a commit; an empty one
// is any.
func follow(ctx context.Context, out io.Writer, run fairway, channel, commit string) error {
	ctx, cancel := context.WithTimeout(ctx, travelWithin)
	defer cancel()
	started, last := time.Now(), map[string]string{}
	for look := time.Tick(time.Second); ; {
		var head heading
		var now moving
		err := ask(run, &head, "channel", "describe", channel)
		if err == nil {
			err = ask(run, &now, "status")
		}
		// Soon after the start there may be no channel yet, and what does not answer does so later.
		if err == nil && strings.HasPrefix(head.Commit, commit) {
			for _, line := range progress(head, now) {
				cluster, text, _ := strings.Cut(line, ": ")
				if last[cluster] != text {
					fmt.Fprintf(out, "  %3.0f s  %-6s %s\n", time.Since(started).Seconds(), cluster, text)
				}
				last[cluster] = text
			}
			if head.Stopped != "" {
				return fmt.Errorf("the rollout of channel %s has stopped: %s", channel, head.Stopped)
			}
			if len(head.Members) > 0 && allDone(head) {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("the clusters of channel %s are not on its head after %.0f s: %w", channel, time.Since(started).Seconds(), context.Cause(ctx)), err)
		case <-look:
		}
	}
}

func allDone(head heading) bool {
	for _, member := range head.Members {
		if member.State != "done" {
			return false
		}
	}
	return true
}

// progress is a line for each cluster of a channel.
func progress(head heading, now moving) (lines []string) {
	for _, member := range head.Members {
		text := member.State
		if member.State == "waiting" && !head.Next.IsZero() {
			text += ", its group goes at " + head.Next.Local().Format(time.TimeOnly)
		}
		for _, update := range now.Updating {
			if update.Cluster != member.ID {
				continue
			}
			text = "updating, " + update.Phase
			if update.Nodes > 0 {
				text += fmt.Sprintf(", %d of %d nodes replaced", update.Done, update.Nodes)
			} else if update.Step != "" {
				text += ": " + update.Step
			}
		}
		if member.Problem != "" && member.State == "failed" {
			text += ": " + member.Problem
		}
		lines = append(lines, member.ID+": "+text)
	}
	return lines
}

// ask runs a command line and reads the JSON that it writes.
func ask(run fairway, into any, args ...string) error {
	var answer bytes.Buffer
	if err := run(&answer, append(args, "-o", "json")...); err != nil {
		return fmt.Errorf("fairway %s: %w", strings.Join(args, " "), err)
	}
	return json.Unmarshal(answer.Bytes(), into)
}
