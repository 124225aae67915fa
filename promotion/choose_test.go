package promotion_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/promotion"
)

// edge is dev to alpha with a soak of six hours.
func edge(soak time.Duration) promotion.Edge {
	return promotion.Edge{From: "dev", To: "alpha", Mode: promotion.Merge, Soak: &soak}
}

// dev is a channel at nine hours, on which a to e have landed at 0, 1, 2, 5 and 9 o'clock and run on both
// clusters since, but for e, which dev-2 does not have. So a to c have soaked six hours.
func dev() *channel {
	c := newChannel()
	for _, step := range []struct {
		land    string
		hours   int
		running string
	}{{"a", 1, "a"}, {"b", 1, "b"}, {"c", 3, "c"}, {"d", 4, "d"}} {
		c.land(step.land)
		c.run(time.Duration(step.hours)*time.Hour, step.running, step.running)
	}
	c.land("e")
	c.see("e", "d")
	return c
}

// target has the landings of dev up to one; "" for none.
type target struct {
	upTo  string
	asked int
}

func (t *target) has(commit string) (bool, error) {
	t.asked++
	return t.upTo != "" && commit <= sha(t.upTo), nil
}

func TestTheCandidateIsTheNewestThatHasSoaked(t *testing.T) {
	dAfter := func(c *channel) time.Time { return c.now.Add(2 * time.Hour) }
	for rule, test := range map[string]struct {
		change    func(c *channel)
		soak      time.Duration
		has       string
		question  promotion.Question
		candidate string
		why       string
		waiting   string
		due       func(c *channel) time.Time
	}{
		"later ones wait": {
			soak: 6 * time.Hour, has: "a", candidate: "c", waiting: "de", due: dAfter,
			why: "Of 2 newer landings the first, dddddddd (Change d), has soaked 4h of 6h.",
		},
		"the target has it": {
			soak: 6 * time.Hour, has: "c", waiting: "de", due: dAfter,
			why: "The newest landing that soaks and that alpha lacks, dddddddd (Change d), has soaked 4h of 6h.",
		},
		"the target has more, by another way": {
			soak: 6 * time.Hour, has: "d", waiting: "e",
			why: "The newest landing that alpha lacks, eeeeeeee (Change e), has not begun to soak: cluster dev-2 does not have it yet.",
		},
		"the target has all":        {soak: 6 * time.Hour, has: "e", why: "alpha has all that has landed on dev."},
		"no soak still needs a run": {soak: 0, candidate: "d", waiting: "e", why: "A newer landing, eeeeeeee (Change e), has not begun to soak: cluster dev-2 does not have it yet."},
		"to the second":             {soak: 4 * time.Hour, candidate: "d", waiting: "e", why: "A newer landing, eeeeeeee (Change e), has not begun to soak: cluster dev-2 does not have it yet."},
		"not a second less":         {soak: 4*time.Hour + time.Second, has: "c", waiting: "de", due: func(c *channel) time.Time { return c.now.Add(time.Second) }, why: "The newest landing that soaks and that alpha lacks, dddddddd (Change d), has soaked 4h of 4h0m1s."},
		"nothing has soaked":        {soak: 99 * time.Hour, waiting: "abcde", due: func(c *channel) time.Time { return c.now.Add(90 * time.Hour) }, why: "The newest landing that soaks and that alpha lacks, dddddddd (Change d), has soaked 4h of 99h."},
		"nothing is known":          {change: func(c *channel) { c.Landings = nil }, soak: time.Hour, why: "Nothing is known yet of what has landed on dev."},
		"the clock stands still": {
			change: func(c *channel) { c.see("e", "d!2 nodes are not ready") }, soak: 6 * time.Hour, has: "c", waiting: "de",
			why: "The newest landing that soaks and that alpha lacks, dddddddd (Change d), has soaked 4h of 6h; the clock stands still: cluster dev-2: 2 nodes are not ready.",
		},
		"what has soaked is the candidate although the clock stands still": {
			change: func(c *channel) { c.see("e", "d!sick") }, soak: 6 * time.Hour, candidate: "c", waiting: "de",
			why: "Of 2 newer landings the first, dddddddd (Change d), has soaked 4h of 6h; the clock stands still: cluster dev-2: sick.",
		},
		"nobody looks any more": {
			change: func(c *channel) { c.now = c.now.Add(9 * time.Hour) }, soak: 6 * time.Hour, has: "c", waiting: "de",
			why: "The newest landing that soaks and that alpha lacks, dddddddd (Change d), has soaked 4h5m of 6h; the clock stands still: no look at the clusters has been heard of since, at the latest, 2026-03-02T18:05:00Z.",
		},
		"at once":          {soak: 99 * time.Hour, question: promotion.Question{Immediately: true}, candidate: "e"},
		"held by a block":  {soak: 6 * time.Hour, question: promotion.Question{Held: []string{"alpha is blocked: holidays", "revert r1 is not lifted"}, Immediately: true}, why: "Nothing goes into alpha: alpha is blocked: holidays; revert r1 is not lifted."},
		"bad ones are not": {soak: 4 * time.Hour, question: promotion.Question{Bad: []string{sha("d"), sha("f")}}, candidate: "c", waiting: "e", why: "A newer landing, eeeeeeee (Change e), has not begun to soak: cluster dev-2 does not have it yet."},
		"bad ones are not at once either": {
			soak: 4 * time.Hour, has: "c", question: promotion.Question{Bad: []string{sha("d"), sha("e")}, Immediately: true},
			why: "Nothing of dev may go into alpha: eeeeeeee (Change e) is in a range that was reverted.",
		},
		"not what has landed between a bad range and its revert": {
			soak: 4 * time.Hour, question: promotion.Question{Reverts: []promotion.Revert{{Bad: []string{sha("b")}, Head: sha("b"), Commit: sha("d")}}},
			candidate: "d", waiting: "e", why: "A newer landing, eeeeeeee (Change e), has not begun to soak: cluster dev-2 does not have it yet.",
		},
		"what is before a bad range goes, what contains it does not until it is reverted": {
			soak: 4 * time.Hour, question: promotion.Question{Reverts: []promotion.Revert{{Bad: []string{sha("b")}, Head: sha("b")}}}, candidate: "a",
		},
		"a revert that is on its way": {
			soak: 4 * time.Hour, has: "a", question: promotion.Question{Reverts: []promotion.Revert{{Bad: []string{sha("b")}, Head: sha("b"), Commit: sha("f")}}},
			why: "Nothing of dev may go into alpha: eeeeeeee (Change e) contains a range that is being reverted.",
		},
		"a revert that was lifted keeps its range bad": {
			soak: 4 * time.Hour, question: promotion.Question{Reverts: []promotion.Revert{{Bad: []string{sha("d")}, Head: sha("d"), Lifted: start}}}, candidate: "c", waiting: "e",
			why: "A newer landing, eeeeeeee (Change e), has not begun to soak: cluster dev-2 does not have it yet.",
		},
		"a revert of another line": {soak: 6 * time.Hour, has: "a", question: promotion.Question{Reverts: []promotion.Revert{{Bad: []string{sha("f")}, Head: sha("f")}}}, candidate: "c", waiting: "de", due: dAfter, why: "Of 2 newer landings the first, dddddddd (Change d), has soaked 4h of 6h."},
		"newer than refused":       {soak: 4 * time.Hour, question: promotion.Question{Refused: []string{sha("c"), sha("a")}}, candidate: "d", waiting: "e", why: "A newer landing, eeeeeeee (Change e), has not begun to soak: cluster dev-2 does not have it yet."},
		"nothing older than refused": {
			soak: 6 * time.Hour, question: promotion.Question{Refused: []string{sha("c")}}, waiting: "de", due: dAfter,
			why: "The newest landing that soaks and that alpha lacks, dddddddd (Change d), has soaked 4h of 6h.",
		},
		"the newest was refused": {
			soak: time.Hour, question: promotion.Question{Refused: []string{sha("e")}, Immediately: true},
			why: "eeeeeeee (Change e) was refused for alpha; the next landing on dev goes by itself, or this one by --candidate and --now.",
		},
		"a refusal of what is forgotten": {soak: 6 * time.Hour, question: promotion.Question{Refused: []string{sha("f")}}, candidate: "c", waiting: "de", due: dAfter, why: "Of 2 newer landings the first, dddddddd (Change d), has soaked 4h of 6h."},

		"named":                        {soak: 6 * time.Hour, question: promotion.Question{Candidate: sha("b")}, candidate: "b"},
		"named by its first digits":    {soak: 6 * time.Hour, question: promotion.Question{Candidate: "BBBBBBB"}, candidate: "b"},
		"named, and the target has it": {soak: 6 * time.Hour, has: "c", question: promotion.Question{Candidate: sha("b")}, why: "alpha has bbbbbbbb (Change b) already."},
		"named, and not soaked": {
			soak: 6 * time.Hour, question: promotion.Question{Candidate: sha("d")}, waiting: "d", due: dAfter,
			why: "dddddddd (Change d) has soaked 4h of 6h.",
		},
		"named and at once":            {soak: 6 * time.Hour, question: promotion.Question{Candidate: sha("e"), Immediately: true}, candidate: "e"},
		"named and refused":            {soak: 6 * time.Hour, question: promotion.Question{Candidate: sha("c"), Refused: []string{sha("c")}}, why: "cccccccc (Change c) was refused for alpha; the next landing on dev goes by itself, or this one by --candidate and --now."},
		"named, refused and at once":   {soak: 6 * time.Hour, question: promotion.Question{Candidate: sha("c"), Refused: []string{sha("c")}, Immediately: true}, candidate: "c"},
		"named and older than refused": {soak: 6 * time.Hour, question: promotion.Question{Candidate: sha("b"), Refused: []string{sha("c")}}, candidate: "b"},
		"named, bad and at once":       {soak: 6 * time.Hour, question: promotion.Question{Candidate: sha("c"), Bad: []string{sha("c")}, Immediately: true}, why: "cccccccc (Change c) is in a range that was reverted."},
		"named, at once and held":      {soak: 6 * time.Hour, question: promotion.Question{Candidate: sha("c"), Held: []string{"the fleet is blocked: fire"}, Immediately: true}, why: "Nothing goes into alpha: the fleet is blocked: fire."},
	} {
		t.Run(rule, func(t *testing.T) {
			c := dev()
			if test.change != nil {
				test.change(c)
			}
			before := fmt.Sprint(c.Soak)
			to := &target{upTo: test.has}
			test.question.Now, test.question.Has = c.now, to.has
			choice, err := promotion.Choose(edge(test.soak), c.Soak, test.question)
			require.NoError(t, err)
			candidate := ""
			if choice.Candidate != nil {
				candidate = choice.Candidate.Commit
			}
			require.Equal(t, sha(test.candidate), candidate)
			require.Equal(t, test.why, choice.Why)
			if len(test.question.Held) > 0 {
				return
			}
			waiting := ""
			for _, w := range choice.Waiting {
				waiting += w.Commit[:1]
				require.Equal(t, test.soak, w.Of)
			}
			require.Equal(t, test.waiting, waiting)
			due := time.Time{}
			if test.due != nil {
				due = test.due(c)
			}
			require.Equal(t, due, choice.Due)
			require.Equal(t, before, fmt.Sprint(c.Soak), "a choice changes nothing")
			require.LessOrEqual(t, to.asked, 4)
		})
	}
}

func TestACandidateThatIsNoLandingIsRefused(t *testing.T) {
	c := dev()
	c.Land(c.now, []promotion.Landing{{Commit: sha("e")[:30] + strings.Repeat("0", 10)}}, false)
	for candidate, want := range map[string]string{
		"abcdef":          `"abcdef" is no commit; give seven of its digits at least`,
		"--all":           `"--all" is no commit`,
		sha("f"):          sha("f") + " is none of the newest 6 landings of dev",
		"aaaaaaab":        "aaaaaaab is none of the newest 6 landings of dev",
		"eeeeeeeee":       "several landings of dev begin with eeeeeeeee; give more digits",
		sha("a") + "a":    "is none of the newest",
		"ddddddd\x1b[31m": `"ddddddd\x1b[31m" is no commit`,
	} {
		_, err := promotion.Choose(edge(0), c.Soak, promotion.Question{Now: c.now, Has: (&target{}).has, Candidate: candidate})
		require.ErrorIs(t, err, promotion.ErrNoLanding)
		require.ErrorContains(t, err, want)
	}
}

func TestAChoiceFailsWhereTheTargetCannotBeRead(t *testing.T) {
	broken := errors.New("the mirror is away")
	c := dev()
	for _, q := range []promotion.Question{{}, {Candidate: sha("a")}} {
		q.Now, q.Has = c.now, func(string) (bool, error) { return false, broken }
		for _, soak := range []time.Duration{0, 99 * time.Hour} {
			_, err := promotion.Choose(edge(soak), c.Soak, q)
			require.ErrorIs(t, err, broken)
			require.NotErrorIs(t, err, promotion.ErrNoLanding)
		}
	}
}

func TestTheTargetIsAskedFewTimes(t *testing.T) {
	c := newChannel()
	var many []promotion.Landing
	for i := range promotion.MostLandings {
		many = append(many, promotion.Landing{Commit: fmt.Sprintf("%040x", i)})
	}
	c.Land(c.now, many, false)
	c.Observe(c.now, promotion.View{Clusters: []promotion.ClusterView{{ID: "dev-1", Commit: many[250].Commit}}, Fresh: c.now.Add(time.Hour)})
	for has := range promotion.MostLandings {
		asked := 0
		choice, err := promotion.Choose(edge(0), c.Soak, promotion.Question{Now: c.now, Has: func(commit string) (bool, error) {
			asked++
			return commit <= many[has].Commit, nil
		}})
		require.NoError(t, err)
		if has < 250 {
			require.Equal(t, many[250].Commit, choice.Candidate.Commit)
			require.Equal(t, 1, asked)
			continue
		}
		require.Nil(t, choice.Candidate)
		require.LessOrEqual(t, asked, 8)
		require.Len(t, choice.Waiting, promotion.MostLandings-1-has)
	}
}

func TestWhatLandedBetweenARangeThatIsLongAgoAndItsRevertContainsTheRange(t *testing.T) {
	c := newChannel()
	c.land("b", "c", "d") // a, which is bad, was before the first landings that are known; c reverts it
	c.see()
	edge := promotion.Edge{From: "dev", To: "alpha", Soak: new(time.Duration(0))}
	question := promotion.Question{
		Now: c.now, Has: func(string) (bool, error) { return false, nil },
		Reverts: []promotion.Revert{{Head: sha("a"), Bad: []string{sha("a")}, Commit: sha("c")}},
	}
	choice, err := promotion.Choose(edge, c.Soak, question)
	require.NoError(t, err)
	require.Equal(t, sha("d"), choice.Candidate.Commit)
	question.Candidate = sha("b")
	choice, err = promotion.Choose(edge, c.Soak, question)
	require.NoError(t, err)
	require.Nil(t, choice.Candidate)
	require.Contains(t, choice.Why, "contains a range that is being reverted")
}
