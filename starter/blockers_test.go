package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/workflows"
)

func TestTheNextForceComesFirst(t *testing.T) {
	pod := func(node, name string, force time.Duration) blocker {
		b := blocker{Cluster: "dev-1", Node: node, HeldPod: workflows.HeldPod{Pod: name}}
		if force != 0 {
			b.ForceAt = began.Add(force)
		}
		return b
	}
	forbidden := pod("a", "shop/forbidden", 0)
	forbidden.Forbidden = &workflows.ForceOrder{By: "ben"}
	late := blocker{Cluster: "a-1", Node: "z", Quarantine: true}
	found := []blocker{late, pod("a", "shop/never", 0), forbidden, pod("b", "shop/later", 2*time.Hour+13*time.Minute), pod("c", "shop/now", -time.Second), pod("a", "shop/soon", 40*time.Second)}
	byForce(found)
	var got []string
	for _, each := range found {
		got = append(got, each.Pod+" "+each.force(began))
	}
	require.Equal(t, []string{"shop/now due", "shop/soon in 40s", "shop/later in 2h13m", "shop/forbidden forbidden by ben", "shop/never never", " when taken up again"}, got)
}

func TestTheNewestOrderAboutAPodCounts(t *testing.T) {
	order := func(id, node, pod string, mode workflows.ForceMode) workflows.ForceOrder {
		return workflows.ForceOrder{ID: id, Node: node, Pod: pod, Mode: mode}
	}
	for name, test := range map[string]struct {
		orders []workflows.ForceOrder
		want   string // id of the order that forbids; empty if none
	}{
		"without an order":               {},
		"one about the node":             {[]workflows.ForceOrder{order("1", "a", "", workflows.ForceForbid)}, "1"},
		"one about the pod":              {[]workflows.ForceOrder{order("1", "a", "shop/x", workflows.ForceForbid)}, "1"},
		"one about another pod":          {[]workflows.ForceOrder{order("1", "a", "shop/y", workflows.ForceForbid)}, ""},
		"one about another node":         {[]workflows.ForceOrder{order("1", "b", "", workflows.ForceForbid)}, ""},
		"one to force":                   {[]workflows.ForceOrder{order("1", "a", "", workflows.ForceNow)}, ""},
		"an exception for the pod":       {[]workflows.ForceOrder{order("1", "a", "", workflows.ForceForbid), order("2", "a", "shop/x", workflows.ForceByRule)}, ""},
		"a newer one about the node":     {[]workflows.ForceOrder{order("1", "a", "shop/x", workflows.ForceNow), order("2", "a", "", workflows.ForceForbid)}, "2"},
		"a newer one about another node": {[]workflows.ForceOrder{order("1", "a", "", workflows.ForceForbid), order("2", "b", "", workflows.ForceNow)}, "1"},
	} {
		t.Run(name, func(t *testing.T) {
			got := ""
			if found := forbidding(test.orders, "a", "shop/x"); found != nil {
				got = found.ID
			}
			require.Equal(t, test.want, got)
		})
	}
}
