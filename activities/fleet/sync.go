package fleet

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"golang.org/x/sync/errgroup"

	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/rollout"
	"github.com/fairway-project/fairway/workflows"
)

// Config items of the registry that a rollout knows.
const (
	blockItem  = "cluster_update_block" // any text blocks the cluster, and is the reason
	canaryItem = "rollout_canary"       // "true" lets the cluster go first
)

// SyncFleet implements workflows.Messages. It costs one request to the registry, one to the
// repository, one to Temporal's visibility and one query for each channel; and a look at the history of
// those whose heads have moved. Nothing is told if the registry or the repository does not answer.
func (m *Messages) SyncFleet(ctx context.Context, in workflows.SyncFleet) (workflows.SyncResult, error) {
	defer beating(ctx)()
	var result workflows.SyncResult
	clusters, err := m.Clusters(ctx)
	if err != nil {
		return result, noAnswer(fmt.Errorf("reading the cluster registry: %w", err))
	}
	heads, err := m.Heads(ctx)
	if err != nil {
		return result, noAnswer(fmt.Errorf("reading the heads of the channels: %w", err))
	}
	running, err := m.running(ctx)
	if err != nil {
		return result, err
	}
	following := map[string][]registry.Cluster{}
	for _, cluster := range clusters {
		if cluster.LifecycleStatus != registry.Decommissioned {
			following[cluster.Channel] = append(following[cluster.Channel], cluster)
			result.Clusters++
		}
	}
	for id := range running {
		if name, is := strings.CutPrefix(id, workflows.ChannelID("")); is && following[name] == nil {
			following[name] = []registry.Cluster{} // its last cluster may just have left it
		}
	}
	for _, name := range m.Pipeline.Channels {
		if following[name] == nil {
			following[name] = []registry.Cluster{}
		}
	}
	names := slices.Sorted(maps.Keys(following))
	asked := names
	if in.Channel != "" {
		if following[in.Channel] == nil {
			return result, temporal.NewNonRetryableApplicationError(fmt.Sprintf("no cluster of the registry follows channel %q", in.Channel), workflows.InvalidInput, nil)
		}
		names = []string{in.Channel}
		asked = append([]string{in.Channel}, m.targets(in.Channel)...)
	}
	known, unknown := m.known(ctx, asked)
	errs := []error{unknown}
	keep := false
	if problem := vanished(known, clusters); problem != "" {
		keep = !in.Shrunk
		result.Problems = append(result.Problems, problem)
	}

	var syncs []workflows.ChannelSync
	for _, name := range names {
		if _, answered := known[name]; !answered {
			continue
		}
		sync, err := m.channelSync(name, heads[name], following[name])
		if err != nil {
			return result, temporal.NewNonRetryableApplicationError(err.Error(), workflows.InvalidInput, nil)
		}
		if unknown != nil && len(joined(sync, known[name])) > 0 {
			continue // it may be the channel that does not answer that they leave, which is to hear of it first
		}
		sync.Keep = keep
		m.promotions(&sync, known)
		if sync.Problem != "" {
			result.Problems = append(result.Problems, sync.Problem)
		}
		sync.Digest = digest(sync)
		lost, err := m.lost(ctx, &sync, known[name], running)
		errs = append(errs, err)
		result.Lost = append(result.Lost, lost...)
		syncs = append(syncs, sync)
	}
	errs = append(errs, m.allLandings(ctx, syncs, known, heads))
	news := slices.DeleteFunc(syncs, func(sync workflows.ChannelSync) bool {
		known := known[sync.Channel]
		return sync.Digest == known.Digest && !overtaken(sync, known) && len(sync.Landings) == 0
	})
	// Channels that clusters leave hear of it before those that they join.
	slices.SortStableFunc(news, func(a, b workflows.ChannelSync) int {
		return cmp.Compare(len(joined(a, known[a.Channel])), len(joined(b, known[b.Channel])))
	})
	for _, sync := range news {
		if m.Title != nil && sync.Commit != "" {
			sync.Title = m.Title(ctx, sync.Commit)
		}
		if err := m.tellChannel(ctx, sync); err != nil {
			errs = append(errs, err)
			continue
		}
		result.Told = append(result.Told, sync.Channel)
	}
	return result, noAnswer(errors.Join(errs...))
}

// running are the ids of the channels' actors and of updates that run. What began or ended within the
// last seconds may be missing or left.
func (m *Messages) running(ctx context.Context) (map[string]bool, error) {
	return running(ctx, m.Temporal, `WorkflowType IN ("Channel", "UpdateCluster")`)
}

// running are the ids of workflows that run, of those that fit a filter.
func running(ctx context.Context, temporalClient client.Client, filter string) (map[string]bool, error) {
	ids := map[string]bool{}
	var token []byte
	for {
		page, err := temporalClient.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{
			Query: filter + ` AND ExecutionStatus = "Running"`, PageSize: 1000, NextPageToken: token,
		})
		if err != nil {
			return nil, noAnswer(fmt.Errorf("listing the workflows that run: %w", err))
		}
		for _, each := range page.Executions {
			ids[each.GetExecution().GetWorkflowId()] = true
		}
		if token = page.NextPageToken; len(token) == 0 {
			return ids, nil
		}
	}
}

// known asks the actors of channels what they have been told; one that does not exist knows nothing. One
// that does not answer is missing, and in the error: it keeps the other channels from nothing.
func (m *Messages) known(ctx context.Context, channels []string) (map[string]workflows.ChannelSynced, error) {
	var mu sync.Mutex
	var errs []error
	known := map[string]workflows.ChannelSynced{}
	var group errgroup.Group
	group.SetLimit(atOnce)
	for _, name := range channels {
		group.Go(func() error {
			var synced workflows.ChannelSynced
			_, err := query(ctx, m.Temporal, workflows.ChannelID(name), workflows.SyncedQuery, &synced)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs = append(errs, err)
			} else {
				known[name] = synced
			}
			return nil
		})
	}
	_ = group.Wait()
	return known, errors.Join(errs...)
}

// query says also whether there is such a workflow.
func query(ctx context.Context, temporalClient client.Client, id, name string, out any) (bool, error) {
	answer, err := temporalClient.QueryWorkflow(ctx, id, "", name)
	if unknown := (*serviceerror.NotFound)(nil); errors.As(err, &unknown) {
		return false, nil
	}
	if err == nil {
		err = answer.Get(out)
	}
	if err != nil {
		return false, fmt.Errorf("asking workflow %s what it knows: %w", id, err)
	}
	return true, nil
}

// vanished says that a registry is not to be believed, since most of the clusters that are known are
// missing in it. Those that were decommissioned are not missing.
func vanished(known map[string]workflows.ChannelSynced, clusters registry.Clusters) string {
	registered := map[string]bool{}
	for _, cluster := range clusters {
		registered[cluster.ID] = true
	}
	total, missing := 0, 0
	for _, synced := range known {
		for _, id := range synced.Clusters {
			total++
			if !registered[id] {
				missing++
			}
		}
	}
	if 2*missing <= total {
		return ""
	}
	return fmt.Sprintf("the registry has lost %d of %d clusters; they are kept until it has them again, or until somebody starts the workflow Sync with {\"shrunk\": true}", missing, total)
}

func (m *Messages) channelSync(name, commit string, following []registry.Cluster) (workflows.ChannelSync, error) {
	settings, err := m.Waves(name)
	if err != nil {
		return workflows.ChannelSync{}, fmt.Errorf("settings of the rollout of channel %s: %w", name, err)
	}
	sync := workflows.ChannelSync{Channel: name, Commit: commit, Settings: settings, Clusters: []workflows.ChannelCluster{}}
	switch {
	case commit == "" && len(following) > 0:
		sync.Problem = fmt.Sprintf("the configuration repository has no branch %s, which %s and %d more clusters follow: make it, or correct their channel in the registry",
			name, following[0].ID, len(following)-1)
	case commit == "" && slices.Contains(m.Pipeline.Channels, name):
		sync.Problem = fmt.Sprintf("the configuration repository has no branch %s, which pipeline.channels of fairway.yaml names: make it, or take it out", name)
	}
	for _, cluster := range following {
		each := workflows.ChannelCluster{
			Cluster: rollout.Cluster{
				ID: cluster.ID, Account: cluster.InfrastructureAccount, Region: cluster.Region,
				Criticality: cluster.CriticalityLevel, Canary: cluster.ConfigItems[canaryItem] == "true",
			},
			Want: workflows.Want{
				Cluster: cluster.ID, Channel: name, Lifecycle: cluster.LifecycleStatus, Environment: cluster.Environment,
				Block: strings.TrimSpace(cluster.ConfigItems[blockItem]),
			},
		}
		if m.Retry != nil {
			each.Want.RetryAfter, each.Want.RetryAtMost = m.Retry(cluster)
		}
		switch {
		case commit != "":
			each.Want.Version = m.Version(commit, cluster)
		case cluster.LifecycleStatus == registry.DecommissionRequested && cluster.Status != nil: // it needs no newer one to go
			each.Want.Version = cluster.Status.CurrentVersion
		}
		if status := cluster.Status; status != nil {
			each.Want.Last = status.LastVersion
			if status.NextVersion == "" || status.NextVersion == status.CurrentVersion { // no update is under way
				each.Want.Current = status.CurrentVersion
			} else {
				each.Want.Between = status.CurrentVersion
			}
		}
		sync.Clusters = append(sync.Clusters, each)
	}
	slices.SortFunc(sync.Clusters, func(a, b workflows.ChannelCluster) int { return cmp.Compare(a.ID, b.ID) })
	return sync, nil
}

// digest leaves out what changes with the updates themselves: the actors hear of that sooner.
func digest(sync workflows.ChannelSync) string {
	sync.Title, sync.Digest, sync.Clusters = "", "", slices.Clone(sync.Clusters)
	sync.Landings, sync.Rewritten = nil, false
	for i := range sync.Clusters {
		sync.Clusters[i].Want.Current, sync.Clusters[i].Want.Last, sync.Clusters[i].Lost = "", "", false
		sync.Clusters[i].Want.Between = ""
	}
	encoded, err := json.Marshal(sync)
	if err != nil {
		panic(fmt.Sprintf("encoding a channel: %v", err)) // it consists of texts and numbers
	}
	sum := sha256.Sum256(encoded)
	return hex.EncodeToString(sum[:])
}

// overtaken says that the registry knows more of a cluster than the channel's actor does.
func overtaken(sync workflows.ChannelSync, known workflows.ChannelSynced) bool {
	for _, each := range sync.Clusters {
		if each.Lost {
			return true
		}
		open := slices.IndexFunc(known.Open, func(m rollout.Member) bool { return m.ID == each.ID })
		if open >= 0 && known.Open[open].State != rollout.Updating && known.Open[open].Wave >= 0 &&
			each.Want.Version != "" && each.Want.Current == each.Want.Version && settledBefore(known.Open[open]) {
			return true
		}
	}
	return false
}

func joined(sync workflows.ChannelSync, known workflows.ChannelSynced) (ids []string) {
	for _, each := range sync.Clusters {
		if !slices.Contains(known.Clusters, each.ID) {
			ids = append(ids, each.ID)
		}
	}
	return ids
}

// unheard is how long a cluster's state may be at odds with what is seen from outside: signals and
// visibility take a moment.
const unheard = 2 * time.Minute

func settledBefore(m rollout.Member) bool { return time.Since(time.Unix(m.SinceUnix, 0)) > unheard }

// lost looks after clusters that are on their way, or whose actors may think so, although no such
// workflow runs, such as after it was terminated. Their actors are told that it failed; those that
// know of no update, or of nothing that is wanted, are to be told anew, hence the mark in the sync. It
// returns the ids of both.
func (m *Messages) lost(ctx context.Context, sync *workflows.ChannelSync, known workflows.ChannelSynced, running map[string]bool) ([]string, error) {
	var lost []string
	for _, member := range known.Open {
		i := slices.IndexFunc(sync.Clusters, func(each workflows.ChannelCluster) bool { return each.ID == member.ID })
		if i < 0 || member.State == rollout.Waiting || !settledBefore(member) || running[workflows.UpdateClusterID(member.ID)] {
			continue
		}
		actor, told, err := m.tellEnd(ctx, member.ID)
		if err != nil {
			return lost, err
		}
		unknown := actor != nil && actor.Updates.Running == nil &&
			(member.State == rollout.Updating || (member.State == rollout.Allowed && actor.Updates.Want == nil))
		sync.Clusters[i].Lost = unknown
		if unknown || told {
			lost = append(lost, member.ID)
		}
	}
	return lost, nil
}

// tellEnd tells the actor of a cluster that its update has ended, if that is so and it does not know.
// Visibility may lag behind, so it is asked for once more. It returns what the actor knows if no
// update runs; one that does not exist knows nothing.
func (m *Messages) tellEnd(ctx context.Context, cluster string) (known *workflows.ClusterState, told bool, err error) {
	id := workflows.UpdateClusterID(cluster)
	ended, run := "it does not exist", ""
	description, err := m.Temporal.DescribeWorkflow(ctx, id, "")
	switch missing := (*serviceerror.NotFound)(nil); {
	case errors.As(err, &missing):
	case err != nil:
		return nil, false, fmt.Errorf("looking at workflow %s: %w", id, err)
	case description.Status == enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING:
		return nil, false, nil
	default:
		ended, run = description.Status.String(), description.WorkflowExecution.RunID
	}
	var state workflows.ClusterState
	if _, err := query(ctx, m.Temporal, workflows.ClusterID(cluster), workflows.StateQuery, &state); err != nil {
		return nil, false, err
	}
	update := state.Updates.Running
	switch history := state.Updates.History; {
	case update == nil:
		return &state, false, nil
	case time.Since(update.Since) < unheard:
		return &state, false, nil // it may be about to start
	case run != "" && len(history) > 0 && history[len(history)-1].Run == run:
		return &state, false, nil // it knows how that one ended, and will start another
	}
	now := time.Now()
	outcome := workflows.UpdateOutcome{
		UpdateProgress: workflows.UpdateProgress{
			Kind: update.Kind, Version: update.Version, From: state.Updates.Current, Phase: "failed", Step: "ended from outside",
			Started: update.Since, Ended: now, Changed: true, // nobody knows how far it had come
			Problems: []registry.Problem{{
				Type: "urn:fairway:Lost", Instance: id,
				Title: fmt.Sprintf("the update to %s ended from outside, without undoing anything (%s)", update.Version, strings.ToLower(ended)),
			}},
		},
		Workflow: id, Run: update.Run,
	}
	if err := m.Temporal.SignalWorkflow(ctx, workflows.ClusterID(cluster), "", workflows.UpdatedName, outcome); err != nil {
		return &state, false, fmt.Errorf("telling cluster %s that its update has ended: %w", cluster, err)
	}
	return &state, true, nil
}
