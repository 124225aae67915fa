package workflows_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/roll"
	"github.com/fairway-project/fairway/workflows"
)

func TestWhichNodesARollTakes(t *testing.T) {
	// a is old by its template, b by its age, c is neither; d is on its way out.
	pool := workflows.Pool{Desired: 3, Max: 9, Instances: []workflows.Instance{
		{ID: "i-a", Old: true, Lifecycle: "InService"}, {ID: "i-b", Lifecycle: "InService"}, {ID: "i-c", Lifecycle: "InService"},
		{ID: "i-d", Old: true, Lifecycle: "Terminating"},
	}}
	var nodes []workflows.Node
	for i, name := range []string{"a", "b", "c", "d"} {
		nodes = append(nodes, workflows.Node{Name: name, Instance: "i-" + name, Created: noon.Add(-time.Hour * time.Duration(1+10*(i%2)))})
	}
	for rule, c := range map[string]struct {
		in     workflows.RollPoolInput
		maxAge time.Duration
		want   string
	}{
		"those of an old template":    {want: "a"},
		"and those that are too old":  {maxAge: 11 * time.Hour, want: "a | b"},
		"as old as was asked for":     {in: workflows.RollPoolInput{MaxAge: "11h"}, want: "a | b"},
		"all":                         {in: workflows.RollPoolInput{All: true}, want: "a | b c"},
		"those that are named, once":  {in: workflows.RollPoolInput{Nodes: []string{"c", "b", "c"}}, want: "b | c"},
		"all of a pool that is to go": {in: workflows.RollPoolInput{Remove: true}, want: "a | b c"},
	} {
		t.Run(rule, func(t *testing.T) {
			info := workflows.PoolInfo{Settings: roll.Settings{Surge: roll.Share{Count: 3}, Parallel: 3, MaxAge: c.maxAge}}
			plan, err := workflows.PlanRoll(c.in, info, pool, nodes, noon)
			require.NoError(t, err)
			var batches []string
			for _, batch := range plan.Batches {
				batches = append(batches, strings.Join(batch, " "))
			}
			require.Equal(t, c.want, strings.Join(batches, " | "))
			require.Len(t, plan.Nodes, len(strings.Fields(strings.ReplaceAll(c.want, "|", ""))))
			require.Equal(t, c.in.Remove, plan.InPlace)
		})
	}
}

func TestAPlanSaysWhetherItGoesInPlace(t *testing.T) {
	for rule, c := range map[string]struct {
		surge     int
		max       int
		fallbacks []roll.FallbackKind
		inPlace   bool
		err       string
	}{
		"not with a surge":            {surge: 1, max: 2},
		"without a surge":             {max: 1, inPlace: true},
		"without room, if allowed":    {surge: 1, max: 1, fallbacks: []roll.FallbackKind{roll.InPlace}, inPlace: true},
		"and otherwise it is refused": {surge: 1, max: 1, err: "pool worker has no room for a replacement: its group g has 1 instances, which is its maximum; raise max_size by one, or allow the fallback in-place"},
	} {
		t.Run(rule, func(t *testing.T) {
			pool := workflows.Pool{Group: "g", Desired: 1, Max: c.max, Instances: []workflows.Instance{{ID: "i", Old: true}}}
			info := workflows.PoolInfo{Pool: "worker", Settings: roll.Settings{Surge: roll.Share{Count: c.surge}, Parallel: 1, Fallbacks: c.fallbacks}}
			plan, err := workflows.PlanRoll(workflows.RollPoolInput{}, info, pool, []workflows.Node{{Name: "n", Instance: "i"}}, noon)
			if c.err != "" {
				require.ErrorContains(t, err, c.err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.inPlace, plan.InPlace)
			require.Equal(t, [][]string{{"n"}}, plan.Batches)
		})
	}
}

func TestAPoolsPlanIsInTheOrderOfDifficulty(t *testing.T) {
	pool := workflows.Pool{Desired: 4, Max: 9}
	var nodes []workflows.Node
	for i, held := range []int{3, 0, 2, 1} {
		id := fmt.Sprintf("i-%d", i)
		pool.Instances = append(pool.Instances, workflows.Instance{ID: id, Old: true})
		nodes = append(nodes, workflows.Node{Name: id, Instance: id, Held: held})
	}
	plan, err := workflows.PlanRoll(workflows.RollPoolInput{}, workflows.PoolInfo{Settings: roll.Settings{Surge: roll.Share{Count: 1}, Parallel: 1}}, pool, nodes, noon)
	require.NoError(t, err)
	require.Equal(t, [][]string{{"i-1"}, {"i-3"}, {"i-2"}, {"i-0"}}, plan.Batches)
}

func TestAnInstanceThatIsNoNodeHasNothingToDrain(t *testing.T) {
	pool := workflows.Pool{Desired: 3, Max: 9, Instances: []workflows.Instance{{ID: "i-a", Old: true}, {ID: "i-b", Old: true}, {ID: "i-c"}}}
	nodes := []workflows.Node{{Name: "a", Instance: "i-a"}}
	info := workflows.PoolInfo{Settings: roll.Settings{Surge: roll.Share{Count: 1}, Parallel: 1}}
	for rule, c := range map[string]struct {
		in   workflows.RollPoolInput
		want []string
	}{
		"so it goes with a pool that is removed": {in: workflows.RollPoolInput{Remove: true}},
		"and is ended by a roll if it is old":    {want: []string{"i-b"}},
		"or if all are to be replaced":           {in: workflows.RollPoolInput{All: true}, want: []string{"i-b", "i-c"}},
	} {
		t.Run(rule, func(t *testing.T) {
			plan, err := workflows.PlanRoll(c.in, info, pool, nodes, noon)
			require.NoError(t, err)
			require.Equal(t, [][]string{{"a"}}, plan.Batches)
			require.Equal(t, c.want, plan.NoNodes)
		})
	}
}
