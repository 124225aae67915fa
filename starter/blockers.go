package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflow/v1"
	"golang.org/x/sync/errgroup"

	"github.com/fairway-project/fairway/workflows"
)

// blocker is a pod that keeps a node from being emptied.
type blocker struct {
	Cluster string `json:"cluster"`
	Node    string `json:"node"`
	workflows.HeldPod
	// Order is what a person decided about forcing it.
	Order *workflows.ForceOrder `json:"order,omitempty"`
	// Quarantine means that the node could not be emptied in time and is taken up again last; then
	// the reason names the pod.
	Quarantine bool `json:"quarantine,omitempty"`
}

func (c *cli) blockersCommand() *cobra.Command {
	var cluster string
	cmd := &cobra.Command{
		Use:   "blockers",
		Short: "List the pods that keep nodes from being emptied, over the whole fleet",
		Long: `List the pods that keep nodes from being emptied, over the whole fleet: which budget or
wish holds which pod on which node, who owns it, since when, and when it may be forced; the next
one first. The answer comes from the drains that are under way, as of their last heartbeat; a drain
names at most 20 pods. Nodes in quarantine, which are taken up again last, come at the end.

"fairway node force" forces a pod now or forbids it.`,
		Example: "  fairway blockers\n  fairway blockers --cluster dev-1 -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			conn, err := c.connect(cmd.Context())
			if err != nil {
				return err
			}
			defer conn.Close()
			if cluster != "" { // an unknown one would look as if nothing held it up
				var named []workflows.ClusterInfo
				if err := conn.ask(cmd.Context(), "ListClusters", workflows.ListClusters{Names: []string{cluster}}, &named); err != nil {
					return err
				}
				cluster = named[0].ID
			}
			found, silent, err := conn.blockers(cmd.Context(), cluster)
			if err != nil {
				return err
			}
			if silent > 0 {
				fmt.Fprintf(cmd.ErrOrStderr(), "Warning: %s did not answer; what holds them up is missing here.\n", counted(silent, "workflow"))
			}
			return c.print(cmd.OutOrStdout(), found, func(t *table) {
				if len(found) == 0 {
					t.line("Nothing keeps a node from being emptied.")
					return
				}
				now := time.Now()
				t.row("CLUSTER", "NODE", "POD", "BUDGET", "OWNER", "SINCE", "FORCE", "REASON")
				for _, each := range found {
					t.row(each.Cluster, each.Node, each.Pod, each.Budget, each.Owner, age(each.Since), each.force(now), each.Reason)
				}
			})
		},
	}
	cmd.Flags().StringVar(&cluster, "cluster", "", "only this cluster")
	_ = cmd.RegisterFlagCompletionFunc("cluster", func(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
		return c.completeCluster(cmd, nil, prefix)
	})
	return cmd
}

// force says when the pod may be forced.
func (b blocker) force(now time.Time) string {
	switch {
	case b.Quarantine:
		return "when taken up again"
	case b.ordered(workflows.ForceForbid):
		return "forbidden by " + b.Order.By
	case b.ForceAt.IsZero():
		return "never"
	case b.ordered(workflows.ForceNow):
		return "now, ordered by " + b.Order.By
	case !b.ForceAt.After(now):
		return "due"
	}
	return "in " + short(b.ForceAt.Sub(now))
}

func (b blocker) ordered(mode workflows.ForceMode) bool {
	return b.Order != nil && b.Order.Mode == mode
}

// byForce sorts the next to be forced first, then those that never are, then quarantine.
func byForce(found []blocker) {
	rank := func(b blocker) int {
		switch {
		case b.Quarantine:
			return 2
		case b.ordered(workflows.ForceForbid) || b.ForceAt.IsZero():
			return 1
		case b.ordered(workflows.ForceNow):
			return -1
		}
		return 0
	}
	slices.SortFunc(found, func(a, b blocker) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), a.ForceAt.Compare(b.ForceAt),
			strings.Compare(a.Cluster, b.Cluster), strings.Compare(a.Node, b.Node), strings.Compare(a.Pod, b.Pod))
	})
}

// orderAbout is the newest order that concerns a pod of a node; nil if there is none.
func orderAbout(orders []workflows.ForceOrder, node, pod string) *workflows.ForceOrder {
	for _, order := range slices.Backward(orders) {
		if order.Node == node && (order.Pod == "" || order.Pod == pod) {
			return &order
		}
	}
	return nil
}

// asking is how many questions are asked at a time.
const asking = 16

// blockers asks no cluster: what a drain waits for is in the last heartbeat of its activity, and
// why a node is in quarantine in the roll. Workflows that do not answer soon are counted.
func (c *connection) blockers(ctx context.Context, cluster string) (found []blocker, silent int, err error) {
	only := ""
	if cluster != "" {
		only = " AND Cluster = '" + strings.ReplaceAll(cluster, "'", "''") + "'"
	}
	var draining, rolling []string
	for query, ids := range map[string]*[]string{"WorkflowType = 'ReplaceNode'": &draining, "WorkflowType = 'RollPool'": &rolling} {
		if err := c.running(ctx, query+only, func(each *workflow.WorkflowExecutionInfo) {
			*ids = append(*ids, each.Execution.WorkflowId)
		}); err != nil {
			return nil, 0, err
		}
	}
	// Without a worker each question takes until its deadline; all of them share one.
	soon, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	found = []blocker{}
	var mutex sync.Mutex
	var group errgroup.Group
	group.SetLimit(asking)
	gather := func(ids []string, look func(id string) (some []blocker, answered bool)) {
		for _, id := range ids {
			group.Go(func() error {
				some, answered := look(id)
				mutex.Lock()
				defer mutex.Unlock()
				found = append(found, some...)
				if !answered {
					silent++
				}
				return nil
			})
		}
	}
	gather(draining, func(id string) ([]blocker, bool) { return c.heldBy(ctx, id) })
	gather(rolling, func(id string) ([]blocker, bool) { return c.quarantined(soon, id) })
	_ = group.Wait()
	c.addOrders(soon, found)
	byForce(found)
	return found, silent, ctx.Err()
}

// heldBy lists the pods that hold up a ReplaceNode. It may have ended meanwhile.
func (c *connection) heldBy(ctx context.Context, id string) (out []blocker, answered bool) {
	description, err := c.DescribeWorkflowExecution(ctx, id, "")
	if err != nil {
		gone := (*serviceerror.NotFound)(nil)
		return nil, errors.As(err, &gone)
	}
	cluster, node := nodeOf(id)
	for _, pending := range description.PendingActivities {
		drained, _ := drainOf(pending)
		for _, held := range drained.Waiting {
			out = append(out, blocker{Cluster: cluster, Node: node, HeldPod: held})
		}
	}
	return out, true
}

// quarantined lists the nodes of a roll that could not be emptied in time.
func (c *connection) quarantined(ctx context.Context, id string) (out []blocker, answered bool) {
	progress, answered := c.rollProgress(ctx, id)
	cluster, _, _ := strings.Cut(strings.TrimPrefix(id, workflows.ClusterID("")), "/pool/")
	for _, node := range progress.Nodes {
		if node.State == workflows.Quarantine {
			out = append(out, blocker{Cluster: cluster, Node: node.Node, Quarantine: true,
				HeldPod: workflows.HeldPod{Reason: node.Reason, Since: node.Began}})
		}
	}
	return out, answered
}

// addOrders adds what people decided, which drains tell only with their next heartbeat. Of a
// cluster's actor that does not answer now, the drain's word counts.
func (c *connection) addOrders(ctx context.Context, found []blocker) {
	concerned := map[string][]int{}
	for i, each := range found {
		if !each.Quarantine {
			concerned[each.Cluster] = append(concerned[each.Cluster], i)
		}
	}
	var group errgroup.Group
	group.SetLimit(asking)
	for cluster, places := range concerned {
		group.Go(func() error {
			state, err := c.clusterState(ctx, cluster)
			if err != nil {
				return nil
			}
			for _, i := range places {
				found[i].Order = orderAbout(state.Orders, found[i].Node, found[i].Pod)
			}
			return nil
		})
	}
	_ = group.Wait()
}
