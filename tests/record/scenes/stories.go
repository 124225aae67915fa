package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/workflows"
)

// story is what happens to a channel of its own, and to clusters that follow it.
type story struct {
	name  string // also of the channel
	tell  func(*stage, *channel) []step
	alone bool // its blocks would disturb others
}

// step is one thing that happens; the next one waits for its end.
type step func(context.Context) error

var stories = []story{
	{name: "train", tell: train}, {name: "siding", tell: siding},
	{name: "spur", tell: spur}, {name: "junction", tell: junction, alone: true},
}

const (
	canary = "dev-2"
	second = "alpha-1"
	made   = "scratch-1" // is not there before its story
)

const (
	userData = "node-pools/worker-default/userdata.yaml"
	defaults = "config-defaults.yaml"
)

// scenery is a workload that is broken where its config item is no number.
var scenery = edits{
	"manifests/shop-frontend/scene.yaml": func(string) string {
		return `apiVersion: apps/v1
kind: Deployment
metadata: {name: scene, namespace: shop, labels: {application: scene, team: shop}}
spec:
  replicas: {{ .Cluster.ConfigItems.scene_replicas }}
  selector: {matchLabels: {application: scene}}
  template:
    metadata: {labels: {application: scene, team: shop}}
    spec: {containers: [{name: main, image: registry.fleet.internal/test/app:1}]}
`
	},
	defaults: func(old string) string { return old + "scene_replicas: \"1\"\n" },
}

// replicas is an edit of the scenery.
func replicas(text string) func(string) string {
	return func(old string) string {
		head, _, _ := strings.Cut(old, "scene_replicas:")
		return head + "scene_replicas: \"" + text + "\"\n"
	}
}

// marked makes all nodes of a pool old.
func marked(old string) string { return old + fmt.Sprintf("# %d\n", time.Now().UnixNano()) }

// train is about two clusters, one wave each: updates with and without changes, blocked, overtaken,
// failed, cancelled and rolled back; a rollout that stops and is resumed.
func train(s *stage, c *channel) []step {
	stop := func(scope string) workflows.BlockRequest {
		return workflows.BlockRequest{Reason: "a scene of " + scope, By: "the recorder"}
	}
	lift := workflows.UnblockRequest{By: "the recorder"}
	return []step{
		c.pushed("Begin", nil),
		s.edited(canary, func(entry *registry.Cluster) { entry.Channel = c.name }),
		s.edited(second, func(entry *registry.Cluster) { entry.Channel = c.name }),
		c.reached(canary),

		// Stacks, manifests and nodes, with blocks of every scope before them and in between.
		s.ordered(workflows.ChannelID(c.name), workflows.BlockName, stop("channel")),
		c.pushed("Change all", scenery.and(userData, marked)),
		c.known(),
		s.ordered(workflows.ChannelID(c.name), workflows.UnblockName, lift),
		c.changing(canary),
		s.ordered(workflows.FleetID, workflows.BlockName, stop("fleet")),
		paused(4 * time.Second),
		s.ordered(workflows.FleetID, workflows.UnblockName, lift),
		s.signalled(workflows.ChannelID(c.name), workflows.BlockName, stop("channel")),
		paused(4 * time.Second),
		s.signalled(workflows.ChannelID(c.name), workflows.UnblockName, lift),
		c.replacing(canary),
		s.ordered(workflows.ClusterID(canary), workflows.BlockName, stop("cluster")),
		s.signalled(workflows.FleetID, workflows.BlockName, stop("fleet")),
		paused(4 * time.Second),
		s.signalled(workflows.FleetID, workflows.UnblockName, lift),

		// Overtaken in the middle of a roll, which stops; what is left of it comes with the next one.
		c.pushed("Overtake", edits{defaults: replicas("2")}),
		c.overtaken(canary),
		s.ordered(workflows.ClusterID(canary), workflows.UnblockName, lift),
		c.reached(canary), c.reached(second),

		// Broken for the canary. The rollout stops, goes on when resumed, and a person goes back.
		c.pushed("Break", edits{defaults: replicas(`{{ if eq .Cluster.ID "` + canary + `" }}many{{ else }}3{{ end }}`)}),
		c.ended(canary, "failed"),
		c.stopped(),
		s.ordered(workflows.ChannelID(c.name), workflows.ResumeName, workflows.ResumeRequest{Reason: "a scene", By: "the recorder"}),
		s.ordered(workflows.ClusterID(canary), workflows.RollbackName, workflows.RollbackRequest{Reason: "a scene", By: "the recorder"}),
		c.rolledBack(canary),
		c.reached(second),

		// Cancelled in the middle of a roll, and asked for anew.
		c.pushed("Mend", edits{defaults: replicas("4"), userData: marked}),
		c.replacing(canary),
		s.cancelled(workflows.UpdateClusterID(canary)),
		c.ended(canary, "cancelled"),
		s.ordered(workflows.ClusterID(canary), workflows.UpdateName, workflows.UpdateRequest{Reason: "a scene", By: "the recorder"}),
		c.reached(canary),
	}
}

// siding is about a cluster that is made, changed by its entry alone, and removed.
func siding(s *stage, c *channel) []step {
	return []step{
		c.pushed("Begin", scenery),
		s.entered(func(model registry.Cluster) registry.Cluster {
			model.ID, model.LocalID, model.Alias, model.Channel = made, made, "", c.name
			model.APIServerURL = "https://" + made + ".fleet.internal"
			model.LifecycleStatus = registry.Requested
			extra := model.NodePools[1]
			extra.Name, extra.MinSize, extra.MaxSize = "extra", 1, 2
			model.NodePools = append(slices.Clone(model.NodePools), extra)
			return model
		}),
		c.reached(made),

		// It fails and goes back by itself.
		s.edited(made, func(entry *registry.Cluster) {
			entry.ConfigItems = map[string]string{"scene_replicas": "many", "fairway.update.rollback": "true"}
		}),
		c.ended(made, "failed"),

		// It waits for its window. A pool goes in it, and then nodes are replaced.
		s.edited(made, func(entry *registry.Cluster) {
			opens := time.Now().UTC().Add(80 * time.Second)
			entry.ConfigItems = map[string]string{"fairway.update.windows": fmt.Sprintf("%s-%s UTC", opens.Format("15:04"), opens.Add(time.Hour).Format("15:04"))}
			entry.NodePools = entry.NodePools[:len(entry.NodePools)-1]
		}),
		c.reached(made),
		s.edited(made, func(entry *registry.Cluster) {
			entry.ConfigItems["fairway.update.manifests_anytime"] = "true"
			entry.ConfigItems["fairway.update.prune"] = "true"
		}),
		c.reached(made),
		c.pushed("Mark the nodes", edits{userData: marked}),
		c.reached(made),

		s.edited(made, func(entry *registry.Cluster) { entry.LifecycleStatus = registry.DecommissionRequested }),
		c.ended(made, "done"),
	}
}

func paused(pause time.Duration) step {
	return func(context.Context) error { time.Sleep(pause); return nil }
}
