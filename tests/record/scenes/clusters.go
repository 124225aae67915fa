package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"

	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/workflows"
)

// tell plays the steps of a story.
func (s *stage) tell(ctx context.Context, each story) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "scenes-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	began := time.Now()
	for i, next := range each.tell(s, &channel{stage: s, name: each.name, clone: filepath.Join(dir, each.name)}) {
		if err := next(ctx); err != nil {
			return fmt.Errorf("%s, step %d: %w", each.name, i+1, err)
		}
		fmt.Printf("%s, step %d is over after %s\n", each.name, i+1, time.Since(began).Round(time.Second))
	}
	return nil
}

// channel is a branch of the configuration repository that a story pushes to.
type channel struct {
	*stage
	name  string
	base  string // the branch that it begins at; default dev
	clone string
	head  string
}

// edits change files of the folder cluster/.
type edits map[string]func(old string) string

func (e edits) and(name string, change func(string) string) edits {
	out := edits{name: change}
	for name, change := range e {
		out[name] = change
	}
	return out
}

// pushed makes a commit.
func (c *channel) pushed(title string, change edits) step {
	return func(ctx context.Context) error {
		if c.head == "" {
			remote, err := url.Parse(c.config.Repository.URL)
			if err != nil {
				return err
			}
			remote.User = url.UserPassword(c.config.Repository.User, os.Getenv("FORGE_OPERATOR_TOKEN"))
			if err := os.Mkdir(c.clone, 0o755); err != nil {
				return err
			}
			if err := errors.Join(c.git(ctx, "clone", "--quiet", "--branch", cmp.Or(c.base, "dev"), remote.String(), "."), c.git(ctx, "checkout", "--quiet", "-b", c.name)); err != nil {
				return err
			}
		}
		for name, edit := range change {
			path := filepath.Join(c.clone, "cluster", name)
			old, err := os.ReadFile(path)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			if err := os.WriteFile(path, []byte(edit(string(old))), 0o644); err != nil {
				return err
			}
		}
		if err := errors.Join(
			c.git(ctx, "add", "--all"),
			c.git(ctx, "-c", "user.name=author", "-c", "user.email=author@fairway.test", "commit", "--quiet", "--allow-empty", "-m", title),
			c.git(ctx, "push", "--quiet", "--force", "origin", "HEAD:"+c.name),
		); err != nil {
			return err
		}
		return errors.Join(c.lookUp(), c.sync(ctx))
	}
}

// fetched brings in what Fairway has pushed.
func (c *channel) fetched() step {
	return func(ctx context.Context) error {
		return errors.Join(c.git(ctx, "fetch", "--quiet", "origin", c.name), c.git(ctx, "reset", "--quiet", "--hard", "FETCH_HEAD"), c.lookUp(), c.sync(ctx))
	}
}

// lookUp learns the head of the clone.
func (c *channel) lookUp() error {
	head, err := os.ReadFile(filepath.Join(c.clone, ".git", "refs", "heads", c.name))
	c.head = strings.TrimSpace(string(head))
	return err
}

func (c *channel) git(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = c.clone
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("git %s: %w: %s", args[0], err, out)
	}
	return nil
}

// sync has Fairway look at registry and repository now.
func (s *stage) sync(ctx context.Context) error { return s.triggered(workflows.SyncID)(ctx) }

// triggered has a schedule start its workflow now.
func (s *stage) triggered(schedule string) step {
	return func(ctx context.Context) error {
		return s.temporal.ScheduleClient().GetHandle(ctx, schedule).Trigger(ctx, client.ScheduleTriggerOptions{Overlap: enumspb.SCHEDULE_OVERLAP_POLICY_BUFFER_ONE})
	}
}

// edited changes the entry of a cluster, entered adds one like that of the first cluster of the stories.
func (s *stage) edited(id string, change func(*registry.Cluster)) step {
	return s.rewritten(func(clusters registry.Clusters) (registry.Clusters, error) {
		entry := find(clusters, id)
		if entry == nil {
			return nil, fmt.Errorf("the registry has no cluster %s", id)
		}
		change(entry)
		return clusters, nil
	})
}

func (s *stage) entered(make func(model registry.Cluster) registry.Cluster) step {
	return s.rewritten(func(clusters registry.Clusters) (registry.Clusters, error) {
		model := find(clusters, canary)
		if model == nil {
			return nil, fmt.Errorf("the registry has no cluster %s", canary)
		}
		return append(clusters, make(*model)), nil
	})
}

func (s *stage) rewritten(change func(registry.Clusters) (registry.Clusters, error)) step {
	return func(ctx context.Context) error { return errors.Join(s.rewrite(change), s.sync(ctx)) }
}

// rewrite changes the file of the registry.
func (s *stage) rewrite(change func(registry.Clusters) (registry.Clusters, error)) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	file := s.config.Registry.File
	clusters, err := entries(file)
	if err != nil {
		return err
	}
	if clusters, err = change(clusters); err != nil {
		return err
	}
	data, err := yaml.MarshalWithOptions(map[string]any{"clusters": clusters}, yaml.IndentSequence(true), yaml.OmitEmpty())
	if err != nil {
		return err
	}
	if err := os.WriteFile(file+".new", data, 0o644); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

// entries are the clusters as people want them.
func entries(file string) (registry.Clusters, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return registry.Parse(file, data)
}

func find(clusters registry.Clusters, id string) *registry.Cluster {
	at := slices.IndexFunc(clusters, func(c registry.Cluster) bool { return c.ID == id })
	if at < 0 {
		return nil
	}
	return &clusters[at]
}

// wanted is the version that the head of the channel and the cluster's entry make.
func (c *channel) wanted(cluster string) (string, error) {
	clusters, err := entries(c.config.Registry.File)
	if err != nil {
		return "", err
	}
	entry := find(clusters, cluster)
	if entry == nil {
		return "", fmt.Errorf("the registry has no cluster %s", cluster)
	}
	return registry.Version(c.head, *entry), nil
}

// about waits until the actor of a cluster says so about the wanted version.
func (c *channel) about(cluster, what string, so func(u workflows.ClusterUpdates, wanted string) bool) step {
	return func(ctx context.Context) error {
		version, err := c.wanted(cluster)
		if err != nil {
			return err
		}
		return until(ctx, fmt.Sprintf("cluster %s %s version %s", cluster, what, version), func(ctx context.Context) (bool, error) {
			var state workflows.ClusterState
			return c.ask(ctx, workflows.ClusterID(cluster), workflows.StateQuery, &state) && so(state.Updates, version), nil
		})
	}
}

// reached waits until a cluster has what is wanted.
func (c *channel) reached(cluster string) step {
	return c.about(cluster, "has", func(u workflows.ClusterUpdates, wanted string) bool { return u.Current == wanted && u.Running == nil })
}

// ended waits until the last update to what is wanted has ended so.
func (c *channel) ended(cluster, phase string) step {
	return c.about(cluster, phase+" with", func(u workflows.ClusterUpdates, wanted string) bool {
		last := len(u.History) - 1
		return last >= 0 && u.Running == nil && u.History[last].Version == wanted && u.History[last].Phase == phase
	})
}

// overtaken waits until a running update has been told that something else is wanted.
func (c *channel) overtaken(cluster string) step {
	return c.about(cluster, "is overtaken by", func(u workflows.ClusterUpdates, _ string) bool { return u.Running != nil && u.Running.Superseded })
}

// rolledBack waits until a person's rollback is done.
func (c *channel) rolledBack(cluster string) step {
	return c.about(cluster, "goes back from", func(u workflows.ClusterUpdates, _ string) bool {
		last := len(u.History) - 1
		return last >= 0 && u.Running == nil && u.History[last].Kind == workflows.Rollback && u.History[last].Phase == "done"
	})
}

// changing waits until the update to what is wanted changes the cluster.
func (c *channel) changing(cluster string) step {
	return func(ctx context.Context) error {
		version, err := c.wanted(cluster)
		if err != nil {
			return err
		}
		return until(ctx, "cluster "+cluster+" is being updated to version "+version, func(ctx context.Context) (bool, error) {
			var progress workflows.UpdateProgress
			return c.ask(ctx, workflows.UpdateClusterID(cluster), workflows.ProgressQuery, &progress) && progress.Version == version && progress.Changed, nil
		})
	}
}

// replacing waits until a node of the pool worker is being replaced.
func (c *channel) replacing(cluster string) step {
	return func(ctx context.Context) error {
		if err := c.changing(cluster)(ctx); err != nil {
			return err
		}
		return until(ctx, "nodes of cluster "+cluster+" are replaced", func(ctx context.Context) (bool, error) {
			var progress workflows.RollProgress
			return c.ask(ctx, workflows.RollPoolID(cluster, "worker"), workflows.ProgressQuery, &progress) && draining(progress), nil
		})
	}
}

// known waits until the channel's actor knows the head, stopped until it lets nobody go on.
func (c *channel) known() step {
	return c.shown("knows its head", func(state workflows.ChannelState) bool { return state.Commit == c.head })
}

func (c *channel) stopped() step {
	return c.shown("has stopped", func(state workflows.ChannelState) bool { return state.Commit == c.head && state.Stopped != "" })
}

func (c *channel) shown(what string, so func(workflows.ChannelState) bool) step {
	return func(ctx context.Context) error {
		return until(ctx, "channel "+c.name+" "+what, func(ctx context.Context) (bool, error) {
			var state workflows.ChannelState
			return c.ask(ctx, workflows.ChannelID(c.name), workflows.StateQuery, &state) && so(state), nil
		})
	}
}

// ask queries a workflow; false if there is none, or it does not answer now.
func (s *stage) ask(ctx context.Context, id, name string, out any) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	answer, err := s.temporal.QueryWorkflow(ctx, id, "", name)
	return err == nil && answer.Get(out) == nil
}

// ordered updates an actor, signalled sends it a signal.
func (s *stage) ordered(id, name string, argument any) step {
	return func(ctx context.Context) error {
		handle, err := s.temporal.UpdateWorkflow(ctx, client.UpdateWorkflowOptions{
			WorkflowID: id, UpdateName: name, Args: []any{argument}, WaitForStage: client.WorkflowUpdateStageCompleted,
		})
		if err == nil {
			err = handle.Get(ctx, nil)
		}
		if err != nil {
			return fmt.Errorf("%s of %s: %w", name, id, err)
		}
		return nil
	}
}

func (s *stage) signalled(id, name string, argument any) step {
	return func(ctx context.Context) error { return s.temporal.SignalWorkflow(ctx, id, "", name, argument) }
}

func (s *stage) cancelled(id string) step {
	return func(ctx context.Context) error { return s.temporal.CancelWorkflow(ctx, id, "") }
}
