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
	forbidden.Order = &workflows.ForceOrder{Mode: workflows.ForceForbid, By: "ben"}
	ordered := pod("d", "shop/ordered", time.Hour)
	ordered.Order = &workflows.ForceOrder{Mode: workflows.ForceNow, By: "anna"}
	late := blocker{Cluster: "a-1", Node: "z", Quarantine: true}
	found := []blocker{late, ordered, pod("a", "shop/never", 0), forbidden, pod("b", "shop/later", 2*time.Hour+13*time.Minute), pod("c", "shop/now", -time.Second), pod("a", "shop/soon", 40*time.Second)}
	byForce(found)
	var got []string
	for _, each := range found {
		got = append(got, each.Pod+" "+each.force(began))
	}
	require.Equal(t, []string{"shop/ordered now, ordered by anna", "shop/now due", "shop/soon in 40s", "shop/later in 2h13m", "shop/forbidden forbidden by ben", "shop/never never", " when taken up again"}, got)
}

func TestTheNewestOrderAboutAPodCounts(t *testing.T) {
	order := func(id, node, pod string) workflows.ForceOrder {
		return workflows.ForceOrder{ID: id, Node: node, Pod: pod}
	}
	for name, test := range map[string]struct {
		orders []workflows.ForceOrder
		want   string // id; empty if none
	}{
		"without an order":               {},
		"one about the node":             {[]workflows.ForceOrder{order("1", "a", "")}, "1"},
		"one about the pod":              {[]workflows.ForceOrder{order("1", "a", "shop/x")}, "1"},
		"one about another pod":          {[]workflows.ForceOrder{order("1", "a", "shop/y")}, ""},
		"one about another node":         {[]workflows.ForceOrder{order("1", "b", "")}, ""},
		"an exception for the pod":       {[]workflows.ForceOrder{order("1", "a", ""), order("2", "a", "shop/x")}, "2"},
		"a newer one about the node":     {[]workflows.ForceOrder{order("1", "a", "shop/x"), order("2", "a", "")}, "2"},
		"a newer one about another node": {[]workflows.ForceOrder{order("1", "a", ""), order("2", "b", "")}, "1"},
	} {
		t.Run(name, func(t *testing.T) {
			got := ""
			if found := orderAbout(test.orders, "a", "shop/x"); found != nil {
				got = found.ID
			}
			require.Equal(t, test.want, got)
		})
	}
}
