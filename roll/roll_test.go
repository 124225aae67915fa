package roll_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/roll"
)

func TestAShareIsANumberOrAPercentage(t *testing.T) {
	for text, want := range map[string]roll.Share{"0": {}, "3": {Count: 3}, " 10% ": {Percent: 10}, "0%": {}, "100%": {Percent: 100}} {
		share, err := roll.ParseShare(text)
		require.NoError(t, err, text)
		require.Equal(t, want, share, text)
	}
	for _, text := range []string{"", "%", "-1", "101%", "ten", "1.5", "10%%"} {
		_, err := roll.ParseShare(text)
		require.Error(t, err, text)
	}
	for _, c := range []struct {
		share       roll.Share
		nodes, want int
	}{
		{roll.Share{Percent: 10}, 5, 1}, {roll.Share{Percent: 10}, 30, 3}, {roll.Share{Percent: 10}, 39, 3},
		{roll.Share{Count: 2}, 1, 2}, {roll.Share{}, 100, 0}, {roll.Share{Percent: 50}, 0, 1},
	} {
		require.Equal(t, c.want, c.share.Of(c.nodes), "%s of %d", c.share, c.nodes)
	}
}

func TestTheEasiestNodesGoFirst(t *testing.T) {
	nodes := []roll.Node{
		{Name: "stuck", Never: 1, Pods: 1}, {Name: "held", Held: 2, Pods: 2}, {Name: "pinned", Pinned: true, Pods: 1},
		{Name: "full", Pods: 30}, {Name: "b", Pods: 2}, {Name: "a", Pods: 2}, {Name: "empty"}, {Name: "held less", Held: 1, Pods: 9},
	}
	require.Equal(t, "empty a b full pinned held less held stuck", names(roll.Order(nodes)))
	require.Equal(t, "stuck", nodes[0].Name, "what was given is left alone")
}

func TestBatches(t *testing.T) {
	nodes := func(zones string) (out []roll.Node) {
		for i, zone := range zones {
			out = append(out, roll.Node{Name: string(zone) + string(rune('0'+i)), Zone: string(zone)})
		}
		return out
	}
	masters := nodes("abc")
	for i := range masters {
		masters[i].ControlPlane = true
	}
	for rule, c := range map[string]struct {
		settings roll.Settings
		pool     roll.Pool
		nodes    []roll.Node
		want     string
	}{
		"one alone, then twice as many up to the parallel limit": {
			roll.Settings{Surge: roll.Share{Percent: 100}, Parallel: 5}, roll.Pool{Size: 14, Max: 99}, nodes("aaaaaaaaaaaaaa"),
			"a0 | a1 a2 | a3 a4 a5 a6 | a7 a8 a9 a: a; | a< a=",
		},
		"at most as many as the surge": {
			roll.Settings{Surge: roll.Share{Count: 2}, Parallel: 5}, roll.Pool{Size: 6, Max: 99}, nodes("aaaaaa"), "a0 | a1 a2 | a3 a4 | a5",
		},
		"at most as many as the pool has room for": {
			roll.Settings{Surge: roll.Share{Count: 4}, Parallel: 5}, roll.Pool{Size: 5, Max: 6}, nodes("aaa"), "a0 | a1 | a2",
		},
		"none in a pool at its maximum": {
			roll.Settings{Surge: roll.Share{Count: 1}, Parallel: 5}, roll.Pool{Size: 6, Max: 6}, nodes("aaa"), "",
		},
		"a batch is of one zone": {
			roll.Settings{Surge: roll.Share{Count: 9}, Parallel: 9}, roll.Pool{Size: 6, Max: 99}, nodes("ababab"), "a0 | a2 a4 | b1 b3 b5",
		},
		"in place as many as may be missing": {
			roll.Settings{Unavailable: roll.Share{Percent: 50}, Parallel: 5}, roll.Pool{Size: 4, Max: 4}, nodes("aaaa"), "a0 | a1 a2 | a3",
		},
		"in place at least one": {
			roll.Settings{Parallel: 5}, roll.Pool{Size: 2, Max: 2}, nodes("aa"), "a0 | a1",
		},
		"masters one at a time": {
			roll.Settings{Surge: roll.Share{Count: 3}, Parallel: 5}, roll.Pool{Size: 3, Max: 9}, masters, "a0 | b1 | c2",
		},
	} {
		t.Run(rule, func(t *testing.T) {
			var batches []string
			for _, batch := range c.settings.Batches(c.nodes, c.pool) {
				batches = append(batches, names(batch))
			}
			require.Equal(t, c.want, strings.Join(batches, " | "))
		})
	}
}

func names(nodes []roll.Node) string {
	out := make([]string, len(nodes))
	for i, node := range nodes {
		out[i] = node.Name
	}
	return strings.Join(out, " ")
}
