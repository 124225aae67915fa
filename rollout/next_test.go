package rollout_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/rollout"
)

var noon = time.Date(2026, time.March, 1, 12, 0, 0, 0, time.UTC)

// members reads a line such as "a:done@-5 b:waiting c:failed@-1!": when a state began, in minutes
// from noon; ^-3 was seen to be healthy then, ? is sick, ! forgives, + holds a cluster since then, * makes a canary.
func members(t *testing.T, line string) (out []rollout.Member) {
	for word := range strings.FieldsSeq(line) {
		id, rest, _ := strings.Cut(word, ":")
		m := rollout.Member{Cluster: rollout.Cluster{ID: id, Criticality: 1}}
		rest, m.Canary = strings.CutSuffix(rest, "*")
		rest, m.Forgiven = strings.CutSuffix(rest, "!")
		rest, sick := strings.CutSuffix(rest, "?")
		if sick {
			m.Sick = "No node is Ready."
		}
		rest, seen, looked := strings.Cut(rest, "^")
		if looked {
			at := 0
			_, err := fmt.Sscan(seen, &at)
			require.NoError(t, err)
			m.HealthyUnix = noon.Add(time.Duration(at) * time.Minute).Unix()
		}
		rest, held := strings.CutSuffix(rest, "+")
		state, minutes, _ := strings.Cut(rest, "@")
		at := 0
		if minutes != "" {
			_, err := fmt.Sscan(minutes, &at)
			require.NoError(t, err)
		}
		m.State, m.SinceUnix = rollout.State(state), noon.Add(time.Duration(at)*time.Minute).Unix()
		if held {
			m.HeldUnix = m.SinceUnix
		}
		if m.State == rollout.Failed || (m.Forgiven && m.State != rollout.Done) {
			m.FailedUnix = m.SinceUnix
		}
		out = append(out, m)
	}
	return out
}

func TestWhoMayGoOn(t *testing.T) {
	ten := rollout.Settings{CanaryLevel: -1, Groups: []rollout.Group{{Count: 1}, {Count: 2}, {Percent: 100}}, BakeSeconds: 600}
	tolerant := ten
	tolerant.MaxFailed = 1
	raw := ten
	raw.BakeSeconds = 0
	none := time.Duration(-1)
	for rule, c := range map[string]struct {
		settings rollout.Settings
		members  string
		allow    string
		wave     int
		next     time.Duration // from noon; -1 for none
		stopped  string
	}{
		"nobody":                               {ten, "", "", 0, none, ""},
		"the canary goes first":                {ten, "b:waiting a:waiting c:waiting", "a", 1, none, ""},
		"marked ones are canaries":             {ten, "a:waiting b:waiting* c:waiting*", "b c", 1, none, ""},
		"a canary that is under way holds":     {ten, "a:updating@-60 b:waiting", "", 1, none, ""},
		"the canary bakes":                     {ten, "a:done@-4 b:waiting c:waiting", "", 1, 6 * time.Minute, ""},
		"then one more goes":                   {ten, "a:done@-10 b:waiting c:waiting", "b", 2, none, ""},
		"the bake begins with the last one":    {ten, "a:done@-60* b:done@-1* c:waiting", "", 1, 9 * time.Minute, ""},
		"groups grow":                          {ten, "a:done@-60 b:done@-10 c:waiting d:waiting e:waiting f:waiting", "c d", 3, none, ""},
		"all of a group have to be done":       {ten, "a:done@-60 b:done@-30 c:done@-20 d:updating@-20 e:waiting", "", 3, none, ""},
		"the last group is the rest":           {ten, "a:done@-60 b:done@-60 c:done@-60 d:done@-10 e:waiting f:waiting g:waiting", "e f g", 4, none, ""},
		"nothing bakes for nobody":             {ten, "a:done@-1 b:done@-1 c:done@-1", "", 3, none, ""},
		"one that appears in an open wave":     {ten, "a:done@-60 b:done@-60 bb:waiting c:done@-60 d:done@-60", "bb", 3, none, ""},
		"one that vanished is not waited for":  {ten, "a:done@-60 c:waiting d:waiting", "c", 2, none, ""},
		"a new canary holds those that wait":   {ten, "A:waiting a:done@-60 b:done@-60 c:waiting", "A", 1, none, ""},
		"a failure stops the rest":             {ten, "a:done@-60 b:failed@-50 c:waiting", "", 2, none, "1 cluster has failed (b), and max_failed is 0: mend them, or resume the rollout without them"},
		"a failed canary stops the rest":       {ten, "a:failed@-60 b:waiting", "", 1, none, "1 cluster has failed (a)"},
		"a failure that is allowed bakes":      {tolerant, "a:done@-60 b:failed@-5 c:waiting", "", 2, 5 * time.Minute, ""},
		"and lets the next go":                 {tolerant, "a:done@-60 b:failed@-50 c:waiting d:waiting e:waiting", "c d", 3, none, ""},
		"not if it is the canary's":            {tolerant, "a:failed@-60 b:waiting", "", 1, none, ""},
		"one more than allowed stops":          {tolerant, "a:done@-60 b:failed@-50 c:failed@-20 d:updating e:waiting", "", 3, none, "2 clusters have failed (b, c), and max_failed is 1"},
		"forgiven failures do not count":       {ten, "a:done@-60 b:failed@-50! c:waiting", "c", 3, none, ""},
		"nor a canary's":                       {ten, "a:failed@-50! b:waiting", "b", 2, none, ""},
		"a forgiven one that tries again":      {ten, "a:done@-60 b:updating@-50! c:waiting", "c", 3, none, ""},
		"a held cluster bakes like the others": {ten, "a:done@-60 b:allowed@-5+ c:waiting", "", 2, 5 * time.Minute, ""},
		"and does not hold others":             {ten, "a:done@-60 b:allowed@-50+ c:waiting", "c", 3, none, ""},
		"also if it is held in the middle":     {ten, "a:done@-60 b:updating@-50+ c:waiting", "c", 3, none, ""},
		"one that waits by itself does":        {ten, "a:done@-60 b:allowed@-50 c:waiting", "", 2, none, ""},
		"a held canary has proved nothing":     {ten, "a:allowed@-500+ b:waiting", "", 1, none, ""},
		"nothing need bake":                    {raw, "a:done@0 b:waiting c:waiting", "b", 2, none, ""},
		"a block of a moment is not enough":    {raw, "a:done@0 b:allowed@0+ c:waiting", "", 2, time.Minute, ""},
	} {
		t.Run(rule, func(t *testing.T) {
			d := rollout.Next(c.settings, members(t, c.members), noon)
			require.Equal(t, c.allow, strings.Join(d.Allow, " "))
			require.Equal(t, c.wave, d.Wave)
			if c.next == none {
				require.Zero(t, d.Next)
			} else {
				require.Equal(t, noon.Add(c.next).Unix(), d.Next.Unix())
			}
			if c.stopped == "" {
				require.Empty(t, d.Stopped)
			} else {
				require.Contains(t, d.Stopped, c.stopped)
			}
		})
	}
}

func TestTheNextWaveWaitsForHealth(t *testing.T) {
	s := rollout.Settings{CanaryLevel: -1, Groups: []rollout.Group{{Count: 2}, {Percent: 100}}, BakeSeconds: 600, MaxFailed: 1, Health: true}
	for rule, c := range map[string]struct {
		members   string
		allow     string
		unhealthy string
		overdue   time.Duration // from noon
		next      time.Duration // from noon; 0 for none
	}{
		"the canary needs none to go":        {members: "a:waiting b:waiting", allow: "a"},
		"it bakes first":                     {members: "a:done@-4 b:waiting", next: 6 * time.Minute},
		"also if it is sick meanwhile":       {members: "a:done@-4? b:waiting", next: 6 * time.Minute},
		"then it has to be looked at":        {members: "a:done@-12 b:waiting", unhealthy: "1 cluster has not been seen to be healthy since the bake ended at 2026-03-01T11:58:00Z (a)", overdue: 3 * time.Minute},
		"a look in the bake is not enough":   {members: "a:done@-12^-3 b:waiting", unhealthy: "1 cluster has not been seen", overdue: 3 * time.Minute},
		"a look at its end is":               {members: "a:done@-12^-2 b:waiting", allow: "b"},
		"nobody goes after a sick one":       {members: "a:done@-12^-2? b:waiting", unhealthy: "1 cluster is not healthy (a: No node is Ready): mend them, or resume the rollout in spite of it"},
		"unless a person says so":            {members: "a:done@-12?! b:waiting", allow: "b"},
		"also of one that was not seen":      {members: "a:done@-12! b:waiting", allow: "b"},
		"a whole wave is looked at":          {members: "a:done@-60^-2 b:done@-12^-2 c:done@-12^-3 d:waiting", unhealthy: "1 cluster has not been seen to be healthy since the bake ended at 2026-03-01T11:58:00Z (c)", overdue: 3 * time.Minute},
		"waves before only if they are sick": {members: "a:done@-60^-50 b:done@-12^-2 c:done@-12^-1 d:waiting", allow: "d"},
		"but then they hold":                 {members: "a:done@-60^-50? b:done@-12^-2 c:done@-12^-1 d:waiting", unhealthy: "(a: No node"},
		"those under way are not looked at":  {members: "a:done@-60^-50 b:failed@-12? c:allowed@-12+ d:waiting", allow: "d"},
		"many are named":                     {members: "a:done@-60^-50 b:done@-12? c:done@-12? d:waiting", unhealthy: "2 clusters are not healthy (b: No node is Ready; c: No node is Ready)"},
		"nobody waits, nobody is looked at":  {members: "a:done@-60 b:done@-12? c:done@-12"},
	} {
		t.Run(rule, func(t *testing.T) {
			d := rollout.Next(s, members(t, c.members), noon)
			require.Equal(t, c.allow, strings.Join(d.Allow, " "))
			require.Empty(t, d.Stopped)
			if c.next == 0 {
				require.Zero(t, d.Next)
			} else {
				require.Equal(t, noon.Add(c.next).Unix(), d.Next.Unix())
			}
			if c.unhealthy == "" {
				require.Empty(t, d.Unhealthy)
				require.Zero(t, d.Overdue)
				return
			}
			require.Contains(t, d.Unhealthy, c.unhealthy)
			if c.overdue == 0 {
				require.Zero(t, d.Overdue)
			} else {
				require.Equal(t, noon.Add(c.overdue).Unix(), d.Overdue.Unix())
			}
		})
	}
}

func TestAFailureCountsUntilTheClusterIsDone(t *testing.T) {
	s := rollout.Settings{CanaryLevel: -1, Groups: []rollout.Group{{Count: 1}}}
	ms := members(t, "a:done@-60 b:updating@-1 c:waiting")
	ms[1].FailedUnix = noon.Add(-time.Hour).Unix()
	require.Contains(t, rollout.Next(s, ms, noon).Stopped, "(b)", "it tries again")
	ms[1].State, ms[1].FailedUnix = rollout.Done, 0
	require.Equal(t, []string{"c"}, rollout.Next(s, ms, noon).Allow)
}

func TestManyFailuresAreNamedInPart(t *testing.T) {
	var ms []rollout.Member
	for i := range 13 {
		ms = append(ms, rollout.Member{Cluster: rollout.Cluster{ID: fmt.Sprintf("c%02d", i)}, State: rollout.Failed, FailedUnix: 1})
	}
	require.Contains(t, rollout.Next(rollout.Settings{CanaryLevel: -1}, ms, noon).Stopped, "13 clusters have failed (c00, c01, c02, c03, c04, c05, c06, c07, c08, c09 and 3 more)")
}

func TestWaves(t *testing.T) {
	for rule, c := range map[string]struct {
		settings rollout.Settings
		levels   []int // criticality of clusters a, b, c, ...
		want     string
	}{
		"the least critical is the canary": {rollout.Settings{CanaryLevel: -1}, []int{3, 1, 2, 1}, "b | d c a"},
		"all up to the level are":          {rollout.Settings{CanaryLevel: 1}, []int{3, 1, 2, 0}, "d b | c a"},
		"all may be":                       {rollout.Settings{CanaryLevel: 9}, []int{3, 1}, "b a"},
		"percentages are of those that are no canaries": {
			rollout.Settings{CanaryLevel: 0, Groups: []rollout.Group{{Percent: 20}, {Percent: 40}, {Percent: 100}}},
			[]int{0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, "a | b c | d e f g | h i j k",
		},
		"a percentage is at least one":        {rollout.Settings{CanaryLevel: 0, Groups: []rollout.Group{{Percent: 1}}}, []int{0, 1, 1, 1}, "a | b | c | d"},
		"the last size goes on":               {rollout.Settings{CanaryLevel: 0, Groups: []rollout.Group{{Count: 1}, {Count: 2}}}, []int{0, 1, 1, 1, 1, 1, 1}, "a | b | c d | e f | g"},
		"without sizes the rest is one group": {rollout.Settings{CanaryLevel: 0}, []int{0, 1, 1, 1}, "a | b c d"},
		"a size of nothing is one":            {rollout.Settings{CanaryLevel: 0, Groups: []rollout.Group{{}}}, []int{0, 1, 1}, "a | b | c"},
	} {
		t.Run(rule, func(t *testing.T) {
			var ms []rollout.Member
			for i, level := range c.levels {
				ms = append(ms, rollout.Member{Cluster: rollout.Cluster{ID: string(rune('a' + i)), Criticality: level}})
			}
			var waves []string
			for _, wave := range rollout.Waves(c.settings, ms) {
				var ids []string
				for _, m := range wave {
					ids = append(ids, m.ID)
				}
				waves = append(waves, strings.Join(ids, " "))
			}
			require.Equal(t, c.want, strings.Join(waves, " | "))
		})
	}
}

// Whatever the fleet looks like, a rollout in which every cluster that is let go on gets done ends
// with all of them on the head, and nothing goes twice.
func TestARolloutComesToItsEnd(t *testing.T) {
	for size := range 60 {
		for _, s := range []rollout.Settings{
			{CanaryLevel: -1, Groups: []rollout.Group{{Percent: 10}, {Percent: 30}, {Percent: 100}}, BakeSeconds: 600},
			{CanaryLevel: 1, Groups: []rollout.Group{{Count: 3}}, BakeSeconds: 1},
			{CanaryLevel: 100},
			{CanaryLevel: -1, Groups: []rollout.Group{{Percent: 10}}, BakeSeconds: 600, Health: true},
		} {
			var ms []rollout.Member
			for i := range size {
				ms = append(ms, rollout.Member{Cluster: rollout.Cluster{ID: fmt.Sprint(i), Criticality: i % 4}, State: rollout.Waiting})
			}
			now, done := noon, 0
			for range 2*size + 2 {
				d := rollout.Next(s, ms, now)
				for _, id := range d.Allow {
					for i := range ms {
						if ms[i].ID == id {
							require.Equal(t, rollout.Waiting, ms[i].State)
							ms[i].State, ms[i].SinceUnix = rollout.Done, now.Unix()
							done++
						}
					}
				}
				if now = now.Add(time.Second); !d.Next.IsZero() {
					now = d.Next
				}
				for i := range ms { // somebody looks
					ms[i].HealthyUnix = now.Unix()
				}
			}
			require.Equal(t, size, done)
		}
	}
}
