package main

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/fairway-project/fairway/workflows"
)

// findingKinds are the kinds of findings, those first that hold up a drain, with what they mean.
var findingKinds = []struct{ kind, meaning string }{
	{"never-allowed", "budgets that can never allow an eviction"},
	{"two-budgets", "pods that no eviction can remove, because two budgets cover them"},
	{"do-not-disrupt", "pods that forbid or postpone their disruption"},
	{"zone-without-capacity", "volumes in a zone in which the pool launches nothing"},
	{"unmanaged", "pods that no controller brings back"},
	{"local-data", "pods with data that stays behind"},
	{"nothing-to-spare", "budgets that allow no eviction at the moment"},
	{"single-replica", "workloads of one replica, which are down while it moves"},
}

// bySeverity sorts findings: those that hold up a drain first, then by kind, namespace and name.
func bySeverity(findings []workflows.Finding) []workflows.Finding {
	rank := func(f workflows.Finding) int {
		at := slices.IndexFunc(findingKinds, func(k struct{ kind, meaning string }) bool { return k.kind == f.Kind })
		switch {
		case at < 0:
			return len(findingKinds)
		case !f.Holds:
			return at + len(findingKinds)
		}
		return at
	}
	sorted := slices.Clone(findings)
	slices.SortStableFunc(sorted, func(a, b workflows.Finding) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return sorted
}

func qualified(f workflows.Finding) string {
	if f.Namespace == "" {
		return f.Name
	}
	return f.Namespace + "/" + f.Name
}

// preflight is what `fairway pool preflight` shows.
type preflight struct {
	Cluster  string              `json:"cluster"`
	Pool     string              `json:"pool"`
	HoldUp   int                 `json:"hold_up"` // how many findings would hold up a drain
	Findings []workflows.Finding `json:"findings"`
}

func (c *cli) poolPreflightCommand() *cobra.Command {
	var fail bool
	cmd := &cobra.Command{
		Use:   "preflight CLUSTER POOL",
		Short: "List what would hold up the drain of a pool's nodes, or be hurt by it, and what to do",
		Long: `List what would hold up the drain of a pool's nodes, or be hurt by it, and what to do.

It looks at all nodes of the pool and changes nothing. The exit status is 0 also if something is
found; with --fail it is 1 if something would hold up a drain until a person acts or force comes:
never-allowed, two-budgets, do-not-disrupt, zone-without-capacity, and unmanaged and local-data
where fairway.yaml holds such pods.`,
		Example: `  fairway pool preflight dev-1 worker
  fairway pool preflight dev-1 worker --fail
  fairway pool preflight dev-1 worker -o json`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: c.completePool,
		RunE: func(cmd *cobra.Command, args []string) error {
			conn, err := c.connect(cmd.Context())
			if err != nil {
				return err
			}
			defer conn.Close()
			var info workflows.PoolInfo
			var pool workflows.Pool
			errs := make([]error, 2)
			var group errgroup.Group
			group.Go(func() error {
				errs[0] = conn.ask(cmd.Context(), "FindPool", workflows.FindPool{Cluster: args[0], Pool: args[1]}, &info)
				return nil
			})
			group.Go(func() error {
				errs[1] = conn.ask(cmd.Context(), "ExaminePool", workflows.ExaminePool{Cluster: args[0], Pool: args[1]}, &pool)
				return nil
			})
			_ = group.Wait()
			if err := cmp.Or(errs...); err != nil {
				return err
			}
			var findings []workflows.Finding
			if err := conn.ask(cmd.Context(), "Preflight", workflows.Preflight{Cluster: info.Cluster.ID, Pool: info.Pool, Zones: pool.Zones}, &findings); err != nil {
				return err
			}
			result := preflight{Cluster: info.Cluster.ID, Pool: info.Pool, Findings: append([]workflows.Finding{}, bySeverity(findings)...)}
			for _, finding := range findings {
				if finding.Holds {
					result.HoldUp++
				}
			}
			if err := c.print(cmd.OutOrStdout(), result, result.show); err != nil {
				return err
			}
			if fail && result.HoldUp > 0 {
				return fmt.Errorf("%s would hold up the drain of pool %s in cluster %s", counted(result.HoldUp, "finding"), result.Pool, result.Cluster)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&fail, "fail", false, "exit with status 1 if something would hold up a drain")
	return cmd
}

func (p preflight) show(t *table) {
	if len(p.Findings) == 0 {
		t.line("Nothing would hold up the drain of pool %s in cluster %s, or be hurt by it.", p.Pool, p.Cluster)
		return
	}
	kind := ""
	for _, finding := range p.Findings {
		heading := finding.Kind
		if finding.Holds {
			heading += " (holds up the drain)"
		}
		if heading != kind {
			if kind != "" {
				t.line("")
			}
			kind = heading
			t.line("%s%s", heading, meaning(finding.Kind))
		}
		t.line("  %s, owner %s, %s on %s", qualified(finding), cmp.Or(finding.Owner, "unknown"), counted(len(finding.Pods), "pod"), counted(len(finding.Nodes), "node"))
		t.line("    problem: %s", finding.Problem)
		t.line("    remedy:  %s", finding.Remedy)
	}
	t.line("")
	t.line("%s, of which %d would hold up a drain.", counted(len(p.Findings), "finding"), p.HoldUp)
}

func meaning(kind string) string {
	for _, known := range findingKinds {
		if known.kind == kind {
			return ": " + known.meaning
		}
	}
	return ""
}

// counted writes "1 pod" or "2 pods".
func counted(count int, what string) string {
	if count == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", count, what)
}
