package main

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
)

// edge is one allowed promotion, as its schedule names it.
type edge struct{ From, To string }

// edges are those that have schedules.
func (c *connection) edges(ctx context.Context) (out []edge, err error) {
	err = c.listSchedules(ctx, func(entry *client.ScheduleListEntry) {
		if !isLook(entry) {
			return
		}
		var each edge
		for name, field := range map[string]*string{"from": &each.From, "to": &each.To} {
			if payload := entry.Memo.GetFields()[name]; payload != nil {
				_ = converter.GetDefaultDataConverter().FromPayload(payload, field) // one that is not understood is left out
			}
		}
		if each.From != "" && each.To != "" {
			out = append(out, each)
		}
	})
	slices.SortFunc(out, func(a, b edge) int { return strings.Compare(a.From+" "+a.To, b.From+" "+b.To) })
	return out, err
}

// completeEdge offers the channels that something is promoted from, and then those that it is promoted to.
func (c *cli) completeEdge(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 1 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	conn, err := c.connect(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	defer conn.Close()
	edges, err := conn.edges(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return edgeEnds(edges, args), cobra.ShellCompDirectiveNoFileComp
}

// edgeEnds are the channels that may come next.
func edgeEnds(edges []edge, args []string) (out []string) {
	for _, each := range edges {
		switch {
		case len(args) == 0:
			out = append(out, each.From)
		case each.From == args[0]:
			out = append(out, each.To)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
