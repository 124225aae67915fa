package promotion_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/promotion"
)

var start = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)

// after is a time of the tests.
func after(d time.Duration) time.Time { return start.Add(d) }

// sha is a commit called by a letter of a to f.
func sha(name string) string { return strings.Repeat(name, 40) }

// landed are landings by the names of their commits, oldest first.
func landed(names ...string) []promotion.Landing {
	var out []promotion.Landing
	for _, name := range names {
		out = append(out, promotion.Landing{Commit: sha(name), Title: "Change " + name})
	}
	return out
}

// view is of clusters dev-1, dev-2 and so on, each by what it has, or by "a!reason" with a problem;
// believed for five minutes.
func view(now time.Time, clusters ...string) promotion.View {
	v := promotion.View{Fresh: now.Add(5 * time.Minute)}
	for i, text := range clusters {
		name, problem, _ := strings.Cut(text, "!")
		commit := ""
		if name != "" {
			commit = sha(name)
		}
		v.Clusters = append(v.Clusters, promotion.ClusterView{ID: fmt.Sprintf("dev-%d", i+1), Commit: commit, Problem: problem})
	}
	if len(clusters) == 0 {
		v.Fresh = time.Time{}
	}
	return v
}

// channel plays what happens to a channel, minute by minute.
type channel struct {
	promotion.Soak
	now time.Time
}

func newChannel() *channel { return &channel{now: start} }

func (c *channel) land(names ...string) { c.Land(c.now, landed(names...), false) }

func (c *channel) see(clusters ...string) { c.Observe(c.now, view(c.now, clusters...)) }

// run lets time pass in which somebody looks each minute and sees the same.
func (c *channel) run(d time.Duration, clusters ...string) {
	for range int(d / time.Minute) {
		c.see(clusters...)
		c.now = c.now.Add(time.Minute)
	}
	c.see(clusters...)
}

// soaked is for how long a landing has soaked as of now; -1 if it does not run everywhere.
func (c *channel) soaked(name string) time.Duration {
	s := c.At(c.now)
	i := s.Index(sha(name))
	if i < 0 || !s.Landings[i].Ran {
		return -1
	}
	return s.Soaked(i)
}

func TestALandingSoaksFromWhenEveryClusterHasIt(t *testing.T) {
	c := newChannel()
	c.land("a")
	c.run(10*time.Minute, "", "")
	require.EqualValues(t, -1, c.soaked("a"))
	c.run(10*time.Minute, "a", "")
	require.EqualValues(t, -1, c.soaked("a"))
	c.run(10*time.Minute, "a", "a")
	require.Equal(t, 10*time.Minute, c.soaked("a"))
	require.Equal(t, start, c.Landings[0].At)
}

func TestANewLandingNeitherRestartsNorRidesAlong(t *testing.T) {
	c := newChannel()
	c.land("a")
	c.run(time.Hour, "a", "a")
	c.land("b")
	c.run(time.Hour, "a", "b") // one is updated already
	require.Equal(t, 2*time.Hour, c.soaked("a"))
	require.EqualValues(t, -1, c.soaked("b"))
	c.run(time.Hour, "b", "b")
	require.Equal(t, 3*time.Hour, c.soaked("a"))
	require.Equal(t, time.Hour, c.soaked("b"))
	require.Equal(t, after(time.Hour), c.Landings[1].At)
}

func TestTheClockOnlyRunsWhileAllIsInOrder(t *testing.T) {
	for rule, held := range map[string]func(c *channel){
		"a cluster is sick":    func(c *channel) { c.see("a", "a!2 nodes are not ready") },
		"an update has failed": func(c *channel) { c.see("a!the update has failed", "a") },
		"a block of channel or fleet": func(c *channel) {
			v := view(c.now, "a", "a")
			v.Held = []string{"the fleet is blocked"}
			c.Observe(c.now, v)
		},
		"nobody has looked at clusters": func(c *channel) { v := view(c.now, "a", "a"); v.Fresh = time.Time{}; c.Observe(c.now, v) },
	} {
		t.Run(rule, func(t *testing.T) {
			c := newChannel()
			c.land("a")
			c.run(time.Hour, "a", "a")
			held(c)
			require.NotEmpty(t, c.Held)
			c.now = c.now.Add(3 * time.Minute)
			require.Equal(t, time.Hour, c.soaked("a"))
			c.run(time.Hour, "a", "a")
			require.Equal(t, 2*time.Hour, c.soaked("a"))
			require.Empty(t, c.Held)
		})
	}
}

func TestTimeInWhichNobodyLookedDoesNotCountBeyondTheGrace(t *testing.T) {
	c := newChannel()
	c.land("a")
	c.run(time.Hour, "a")
	c.now = c.now.Add(8 * time.Hour) // the worker is down
	require.Equal(t, time.Hour+5*time.Minute, c.soaked("a"))
	require.ElementsMatch(t, []string{"no look at the clusters has been heard of since, at the latest, 2026-03-02T10:05:00Z"}, c.At(c.now).Held)
	require.Empty(t, c.Held, "reading changes nothing")
	c.land("b") // heard of before anybody has looked again
	require.Equal(t, time.Hour+5*time.Minute, c.soaked("a"))
	c.run(time.Hour, "a")
	require.Equal(t, 2*time.Hour+5*time.Minute, c.soaked("a"))
}

func TestALookThatComesTwiceOrLateCountsNothingTwice(t *testing.T) {
	c := newChannel()
	c.land("a")
	v := view(c.now, "a")
	c.Observe(c.now, v)
	c.Observe(c.now, v)
	c.now = after(4 * time.Minute)
	c.Observe(c.now, v) // once more: good until minute 5, as it said
	c.now = after(20 * time.Minute)
	c.Observe(c.now, v)
	c.Observe(c.now, v)
	require.Equal(t, 5*time.Minute, c.soaked("a"))
	c.now = after(30 * time.Minute)
	require.Equal(t, 5*time.Minute, c.soaked("a"))
}

func TestTimeThatGoesBackwardsCountsNothing(t *testing.T) {
	c := newChannel()
	c.land("a")
	c.run(10*time.Minute, "a")
	c.now = after(4 * time.Minute)
	c.see("a")
	c.now = after(9 * time.Minute)
	c.see("a")
	require.Equal(t, 10*time.Minute, c.soaked("a"))
	c.now = after(12 * time.Minute)
	require.Equal(t, 12*time.Minute, c.soaked("a"))
}

func TestAClusterThatFallsBackBehindALandingEndsItsSoak(t *testing.T) {
	c := newChannel()
	c.land("a", "b")
	c.run(time.Hour, "b", "b")
	c.run(time.Hour, "b", "a") // rolled back
	require.EqualValues(t, -1, c.soaked("b"))
	require.Equal(t, 2*time.Hour, c.soaked("a"))
	c.run(time.Minute, "b", "b")
	require.Equal(t, time.Minute, c.soaked("b"))
}

func TestClustersThatComeAndGo(t *testing.T) {
	c := newChannel()
	c.land("a", "b")
	c.run(time.Hour, "b", "a")
	require.EqualValues(t, -1, c.soaked("b"))
	c.run(time.Hour, "b") // the other has left
	require.Equal(t, time.Hour, c.soaked("b"))
	c.run(time.Hour, "b", "b") // one comes that has it
	require.Equal(t, 2*time.Hour, c.soaked("b"))
	c.run(time.Hour, "b", "b", "f") // one comes from another channel
	require.EqualValues(t, -1, c.soaked("a"))
	require.EqualValues(t, -1, c.soaked("b"))
	c.run(time.Hour, "b", "b", "a")
	require.Equal(t, time.Hour, c.soaked("a"))
}

func TestACommitThatIsNotOnTheLineContainsNothing(t *testing.T) {
	c := newChannel()
	c.land("a", "b")
	c.run(time.Hour, "c", "b")
	require.EqualValues(t, -1, c.soaked("a"))
}

func TestAChannelWithoutClustersSoaksFromTheLanding(t *testing.T) {
	c := newChannel()
	c.land("a")
	require.EqualValues(t, -1, c.soaked("a"), "nobody has said yet that there are none")
	c.see()
	c.now = after(time.Hour)
	c.land("b") // without a view of its own
	c.now = after(3 * time.Hour)
	require.Equal(t, 3*time.Hour, c.soaked("a"))
	require.Equal(t, 2*time.Hour, c.soaked("b"))
	c.Observe(c.now, promotion.View{Held: []string{"the channel is blocked: holidays"}})
	c.now = after(9 * time.Hour)
	require.Equal(t, 2*time.Hour, c.soaked("b"))
}

func TestWhatIsOnBothLinesKeepsItsClock(t *testing.T) {
	c := newChannel()
	c.land("a", "b", "c")
	c.run(time.Hour, "c")
	c.Land(c.now, landed("b", "d"), true) // c was pushed away
	require.Equal(t, []string{sha("a"), sha("b"), sha("d")}, commits(c.Landings))
	require.Equal(t, start, c.Landings[1].At)
	require.Equal(t, c.now, c.Landings[2].At)
	require.EqualValues(t, -1, c.soaked("b"), "the clusters have what is on no line")
	c.run(time.Hour, "d")
	require.Equal(t, time.Hour, c.soaked("b"))

	c.Land(c.now, landed("e", "f"), true)
	require.Equal(t, []string{sha("e"), sha("f")}, commits(c.Landings), "another line altogether")
	c.Land(c.now, nil, true)
	require.Empty(t, c.Landings)
}

func TestABranchThatIsSetBackForgetsWhatItLost(t *testing.T) {
	c := newChannel()
	c.land("a", "b", "c")
	c.run(time.Hour, "b")
	c.Land(c.now, landed("a", "b"), true)
	require.Equal(t, []string{sha("a"), sha("b")}, commits(c.Landings))
	require.Equal(t, time.Hour, c.soaked("b"))
}

func TestLandingsThatAreToldAgainAreNoNewOnes(t *testing.T) {
	c := newChannel()
	c.land("a", "b")
	c.run(time.Hour, "b")
	c.land("a", "b")
	c.land("b", "c")
	c.land("a", "b")
	c.Land(c.now, []promotion.Landing{{}}, false)
	require.Equal(t, []string{sha("a"), sha("b"), sha("c")}, commits(c.Landings))
	require.Equal(t, time.Hour, c.soaked("b"))
	require.Equal(t, start, c.Landings[0].At)
}

func TestOnlyTheNewestLandingsAreKept(t *testing.T) {
	c := newChannel()
	var many []promotion.Landing
	for i := range promotion.MostLandings + 20 {
		many = append(many, promotion.Landing{Commit: fmt.Sprintf("%040x", i), Title: strings.Repeat("long ", 1000), Author: strings.Repeat("ü", 100)})
	}
	c.Land(c.now, many[:5], false)
	c.Land(c.now, many, false)
	require.Len(t, c.Landings, promotion.MostLandings)
	require.Equal(t, many[len(many)-1].Commit, c.Landings[promotion.MostLandings-1].Commit)
	c.Observe(c.now, promotion.View{Clusters: []promotion.ClusterView{{ID: "dev-1", Commit: many[0].Commit}}, Fresh: c.now})
	require.False(t, c.Landings[0].Ran, "a cluster is further back than is known")

	var clusters []promotion.ClusterView
	for i := range 150 {
		clusters = append(clusters, promotion.ClusterView{ID: fmt.Sprintf("dev-%03d", i), Commit: many[100].Commit, Problem: strings.Repeat("sick ", 1000)})
	}
	c.Observe(c.now, promotion.View{Clusters: clusters, Fresh: c.now})
	require.Len(t, c.Held, 11)
	require.Equal(t, "and 140 more", c.Held[10])
	require.Equal(t, 150, c.Running[0].Count)
	encoded, err := json.Marshal(c.Soak)
	require.NoError(t, err)
	require.Less(t, len(encoded), 150_000)
}

func commits(landings []promotion.Landing) []string {
	var out []string
	for _, landing := range landings {
		out = append(out, landing.Commit)
	}
	return out
}

func TestWhatSoaksLongOnABusyChannelIsNotForgottenBeforeItIsDue(t *testing.T) {
	const week, every = 7 * 24 * time.Hour, 20 * time.Minute // 504 landings while one soaks
	for name, clusters := range map[string][]string{"without clusters": nil, "with a cluster": {"a"}} {
		t.Run(name, func(t *testing.T) {
			var s promotion.Soak
			edge := promotion.Edge{From: "dev", To: "stable", Soak: new(week)}
			landedAt := map[string]time.Duration{}
			keep := fmt.Sprintf("%040d", 10)
			for n := 0; n < 3000; n++ {
				at := time.Duration(n) * every
				commit := fmt.Sprintf("%040d", n)
				landedAt[commit] = at
				s.Land(after(at), []promotion.Landing{{Commit: commit}}, false, keep)
				v := promotion.View{}
				if clusters != nil {
					v = promotion.View{Fresh: after(at + time.Hour), Clusters: []promotion.ClusterView{{ID: "dev-1", Commit: commit}}}
				}
				s.Observe(after(at), v)
				require.LessOrEqual(t, len(s.Landings), promotion.MostLandings)
				require.Equal(t, commit, s.Landings[len(s.Landings)-1].Commit)
				if at <= week {
					continue
				}
				choice, err := promotion.Choose(edge, s, promotion.Question{Now: after(at), Has: func(string) (bool, error) { return false, nil }})
				require.NoError(t, err)
				require.NotNil(t, choice.Candidate, choice.Why)
				soaked := at - landedAt[choice.Candidate.Commit]
				require.GreaterOrEqual(t, soaked, week)
				require.Less(t, soaked, week+week/10, "the candidate is nearly the newest that has soaked")
			}
			require.GreaterOrEqual(t, s.Index(keep), 0, "what a revert is about is kept")
			for i := 1; i < len(s.Landings); i++ {
				require.Less(t, s.Landings[i-1].Commit, s.Landings[i].Commit, "in their order")
			}
		})
	}
}

func TestAClusterThatLagsFarBehindKeepsWhatItRuns(t *testing.T) {
	var s promotion.Soak
	for n := range 1000 {
		now := after(time.Duration(n) * time.Minute)
		s.Land(now, []promotion.Landing{{Commit: fmt.Sprintf("%040d", n)}}, false)
		s.Observe(now, promotion.View{Fresh: now.Add(time.Hour), Clusters: []promotion.ClusterView{
			{ID: "dev-1", Commit: fmt.Sprintf("%040d", min(n, 7))}, {ID: "dev-2", Commit: fmt.Sprintf("%040d", min(n, 20))},
		}})
	}
	s = s.At(after(1000 * time.Minute))
	i := s.Index(fmt.Sprintf("%040d", 7))
	require.GreaterOrEqual(t, i, 0)
	require.Equal(t, 993*time.Minute, s.Soaked(i))
	require.GreaterOrEqual(t, s.Index(fmt.Sprintf("%040d", 20)), 0)
}

func TestARewrittenLineKeepsWhatIsOnBothAlthoughNotAllOfItWasKept(t *testing.T) {
	c := newChannel()
	c.land("a", "c")
	c.see()
	c.now = c.now.Add(time.Hour)
	c.Land(c.now, landed("b", "c", "d"), true) // b was forgotten
	c.see()
	require.Equal(t, []string{sha("a"), sha("b"), sha("c"), sha("d")}, []string{c.Landings[0].Commit, c.Landings[1].Commit, c.Landings[2].Commit, c.Landings[3].Commit})
	require.Equal(t, time.Hour, c.Soaked(2))
	require.Zero(t, c.Soaked(3))
}
