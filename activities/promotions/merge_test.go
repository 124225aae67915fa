package promotions

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/calendar"
	"github.com/fairway-project/fairway/channels"
	"github.com/fairway-project/fairway/forge"
	"github.com/fairway-project/fairway/promotion"
	"github.com/fairway-project/fairway/workflows"
)

func typeOf(err error) string {
	var typed *temporal.ApplicationError
	if errors.As(err, &typed) {
		return typed.Type()
	}
	return ""
}

func TestAPromotionIsARealMergeThatSaysWhatItIs(t *testing.T) {
	w := newWorld(t)
	hotfix := w.commit("alpha", "Mend alpha", files{"cluster/alpha.yaml": "mended\n"})
	candidate := w.commit("dev", "Change @anna, fixes #12", files{"cluster/dev.yaml": "new\n"})
	later := w.commit("dev", "Later", files{"cluster/later.yaml": "x\n"})
	w.soak("dev", 2*time.Hour)
	in := w.promotes("dev", "alpha", candidate)
	in.By, in.Reason = "ben", "the shop\nis down"

	var record promotion.Record
	require.NoError(t, w.run(w.acts.MergePromotion, in, &record))
	require.Equal(t, promotion.Merged, record.Outcome, record.Detail)
	require.Equal(t, w.head("alpha"), record.Merge)
	require.Equal(t, 2*time.Hour, record.Soaked)
	require.Equal(t, w.now, record.Ended)
	require.Equal(t, hotfix+" "+candidate, w.origin.Git("log", "-1", "--format=%P", "alpha"))
	require.False(t, w.has("alpha", later), "what landed later does not ride along")
	require.Equal(t, "mended", w.file("alpha", "cluster/alpha.yaml"))
	require.Equal(t, "new", w.file("alpha", "cluster/dev.yaml"))
	require.Equal(t, fmt.Sprintf("Promote dev to alpha: Change @ anna, fixes # 12\n\nFairway-Promotion: %s\nFairway-Candidate: %s\nFairway-By: ben\nFairway-Reason: the shop is down",
		in.ID, candidate), w.origin.Git("log", "-1", "--format=%B", "alpha"))
	require.Equal(t, "Fairway <fairway@example.org> "+began.Format(time.RFC3339), strings.Replace(w.origin.Git("log", "-1", "--format=%an <%ae> %aI", "alpha"), "+00:00", "Z", 1))
}

// Whatever call is the last one that the process makes, the next attempt finds what it has done.
func TestAPromotionIsMergedOnceWhereverItsProcessDies(t *testing.T) {
	for at := 1; ; at++ {
		w := newWorld(t)
		candidate := w.commit("dev", "Change", files{"cluster/dev.yaml": "new\n"})
		w.soak("dev", 2*time.Hour)
		in := w.promotes("dev", "alpha", candidate)
		w.life.reset(at)
		err := w.run(w.acts.MergePromotion, in, nil)
		died := w.life.dead
		last := w.life.calls[len(w.life.calls)-1]
		w.life.reset(0)
		w.now = w.now.Add(time.Hour) // the next attempt may come late

		var record promotion.Record
		require.NoError(t, w.run(w.acts.MergePromotion, in, &record), "dead after %s: %v", last, err)
		require.Equal(t, promotion.Merged, record.Outcome)
		require.Equal(t, []string{record.Merge}, w.mergesOf("alpha", in.ID), "dead after %s", last)
		require.Equal(t, record.Merge, w.head("alpha"), "nothing else was pushed")
		if !died {
			require.Equal(t, 8, at, "the last call is numbered 7")
			return
		}
	}
}

func TestSomebodyPushesBetweenMergeAndPush(t *testing.T) {
	w := newWorld(t)
	candidate := w.commit("dev", "Change", files{"cluster/dev.yaml": "new\n"})
	w.soak("dev", 2*time.Hour)
	var theirs string
	w.between = func() { theirs = w.commit("alpha", "Theirs", files{"cluster/theirs.yaml": "x\n"}) }
	in := w.promotes("dev", "alpha", candidate)

	var record promotion.Record
	require.NoError(t, w.run(w.acts.MergePromotion, in, &record))
	require.Equal(t, promotion.Merged, record.Outcome)
	require.Equal(t, theirs+" "+candidate, w.origin.Git("log", "-1", "--format=%P", "alpha"), "merged against what they pushed")
	require.Len(t, w.mergesOf("alpha", in.ID), 1)

	w.between = func() { // somebody does the same by hand
		w.commit("alpha", "By hand", files{"cluster/next.yaml": "y\n"}, w.head("dev"))
	}
	candidate = w.commit("dev", "Next", files{"cluster/next.yaml": "y\n"})
	w.soak("dev", 2*time.Hour)
	in = w.promotes("dev", "alpha", candidate)
	require.NoError(t, w.run(w.acts.MergePromotion, in, &record))
	require.Equal(t, promotion.Merged, record.Outcome)
	require.Equal(t, w.head("alpha"), record.Merge)
	require.Contains(t, record.Detail, "Somebody has brought it")
	require.Empty(t, w.mergesOf("alpha", in.ID))
}

func TestWhatHoldsAMergeBackRightBeforeIt(t *testing.T) {
	for name, c := range map[string]struct {
		change func(w *world, candidate string)
		now    bool
		skip   []string
		want   string // of the detail; empty means that it is merged
		err    string // type
	}{
		"a block": {change: func(w *world, _ string) {
			w.blocks = []workflows.Block{{ID: "block-1", Scope: "channel alpha", Reason: "we look", By: "anna"}}
		}, want: "Channel alpha is blocked by anna (channel alpha): we look."},
		"a block, also at once": {now: true, change: func(w *world, _ string) {
			w.blocks = []workflows.Block{{ID: "block-1", Scope: "fleet", Reason: "we look", By: "anna"}}
		}, want: "Fleet is blocked"},
		"nobody answers about blocks":     {change: func(w *world, _ string) { w.silent = true }, err: workflows.Unreachable},
		"the source's actor is silent":    {change: func(w *world, _ string) { w.actors.down["dev"] = true }, err: workflows.Unreachable},
		"the target's actor is silent":    {change: func(w *world, _ string) { w.actors.down["alpha"] = true }, err: workflows.Unreachable},
		"a revert of the target":          {change: func(w *world, _ string) { w.reverted("alpha", "1", time.Time{}) }, want: "set back"},
		"a revert that is lifted":         {change: func(w *world, _ string) { w.reverted("alpha", "1", w.now) }},
		"a bad range of the source":       {change: func(w *world, c string) { w.reverted("dev", c, time.Time{}) }, want: "reverted"},
		"one that is lifted is bad still": {change: func(w *world, c string) { w.reverted("dev", c, w.now) }, want: "reverted"},
		"no window":                       {change: func(w *world, _ string) { w.edge(0).Windows = sundays }, want: "it opens at 2026-03-08T10:00:00Z."},
		"no window, but at once":          {now: true, change: func(w *world, _ string) { w.edge(0).Windows = sundays }},
		"a sick cluster": {change: func(w *world, _ string) {
			w.actors.channel("dev").Promotions.Soak.Observe(w.now, promotion.View{Clusters: []promotion.ClusterView{{ID: "d-1", Problem: "2 pods of x"}}, Fresh: w.now.Add(time.Hour)})
		}, want: "Gate fleet is not passed: The channel is not in order: cluster d-1: 2 pods of x."},
		"a status that is missing":     {change: func(w *world, _ string) { w.edge(0).Gates = e2e }, want: "Gate e2e is not passed: The candidate has no status fairway/e2e yet."},
		"a gate that is skipped":       {skip: []string{"e2e"}, change: func(w *world, _ string) { w.edge(0).Gates = e2e }},
		"a gate that there is not":     {skip: []string{"e3e"}, change: func(w *world, _ string) { w.edge(0).Gates = e2e }, err: workflows.InvalidInput},
		"an edge that there is not":    {change: func(w *world, _ string) { w.acts.Pipeline.Edges = w.acts.Pipeline.Edges[1:] }, err: workflows.InvalidInput},
		"a branch that there is not":   {change: func(w *world, _ string) { w.origin.Git("update-ref", "-d", "refs/heads/alpha") }, err: workflows.InvalidInput},
		"no repository":                {change: func(w *world, _ string) { w.acts.Repository = nil }, err: workflows.InvalidInput},
		"no forge is no hindrance":     {change: func(w *world, _ string) { w.acts.Forge = nil }},
		"a forge that is down is none": {change: func(w *world, _ string) { w.forge.down[""] = forge.ErrUnreachable }},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			candidate := w.commit("dev", "Change", files{"cluster/dev.yaml": "new\n"})
			w.soak("dev", 2*time.Hour)
			before := w.head("alpha")
			c.change(w, candidate)
			in := w.promotes("dev", "alpha", candidate)
			in.Now, in.SkipGates = c.now, c.skip
			var record promotion.Record
			err := w.run(w.acts.MergePromotion, in, &record)
			require.Equal(t, c.err, typeOf(err), "%v", err)
			if c.err != "" {
				require.Zero(t, w.life.count("push"))
				return
			}
			if c.want == "" {
				require.Equal(t, promotion.Merged, record.Outcome, record.Detail)
				require.NotEqual(t, before, w.head("alpha"))
				return
			}
			require.Equal(t, promotion.Held, record.Outcome)
			require.Contains(t, record.Detail, c.want)
			require.Equal(t, before, w.head("alpha"), "nothing was pushed")
		})
	}
}

var (
	sundays = []calendar.Window{{Days: []string{"sun"}, From: "10:00", To: "12:00"}}
	e2e     = []promotion.Gate{{Name: "e2e", Status: "fairway/e2e"}}
)

func (w *world) edge(i int) *promotion.Edge { return &w.acts.Pipeline.Edges[i] }

func (w *world) reverted(channel, bad string, lifted time.Time) {
	state := w.actors.channel(channel)
	state.Promotions.Reverts = append(state.Promotions.Reverts, promotion.Revert{ID: "r", To: w.head("stable"), Head: bad, Bad: []string{bad}, By: "anna", Reason: "it breaks", Lifted: lifted})
}

func TestBlocksAreAskedForLast(t *testing.T) {
	w := newWorld(t)
	w.edge(0).Gates = e2e
	candidate := w.commit("dev", "Change", files{"cluster/dev.yaml": "new\n"})
	w.forge.statuses[candidate] = []forge.Status{{Context: "fairway/e2e", State: forge.Success}}
	w.soak("dev", 2*time.Hour)
	var record promotion.Record
	require.NoError(t, w.run(w.acts.MergePromotion, w.promotes("dev", "alpha", candidate), &record))
	require.Equal(t, promotion.Merged, record.Outcome, record.Detail)
	for i, call := range w.life.calls {
		if call == "push alpha" {
			require.Equal(t, "blocks", w.life.calls[i-1])
		}
	}
	require.Equal(t, 1, w.life.count("push"))
	require.Len(t, record.Gates, 2)
	require.True(t, record.Gates[1].Passed)
}

func TestAConflictIsAnOutcomeThatNamesBothSides(t *testing.T) {
	w := newWorld(t)
	hotfix := w.commit("alpha", "Mend alpha", files{"cluster/manifests/a/a.yaml": numbered(map[int]string{3: "alpha"})})
	candidate := w.commit("dev", "Mend dev", files{"cluster/manifests/a/a.yaml": numbered(map[int]string{3: "dev"})})
	w.soak("dev", 2*time.Hour)
	var record promotion.Record
	require.NoError(t, w.run(w.acts.MergePromotion, w.promotes("dev", "alpha", candidate), &record))
	require.Equal(t, promotion.Conflicted, record.Outcome)
	require.Equal(t, fmt.Sprintf("dev and alpha are in conflict in 1 file: cluster/manifests/a/a.yaml (dev: %s Mend dev, by Anna; alpha: %s Mend alpha, by Anna).", candidate[:12], hotfix[:12]), record.Detail)
	require.Equal(t, hotfix, w.head("alpha"))
}

func TestAProtectedBranchSaysWhatToDo(t *testing.T) {
	w := newWorld(t)
	candidate := w.commit("dev", "Change", files{"cluster/dev.yaml": "new\n"})
	w.soak("dev", 2*time.Hour)
	hooks := filepath.Join(w.origin.Dir, "hooks")
	require.NoError(t, os.MkdirAll(hooks, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(hooks, "pre-receive"), []byte("#!/bin/sh\necho no pushes here >&2\nexit 1\n"), 0o700))
	err := w.run(w.acts.MergePromotion, w.promotes("dev", "alpha", candidate), nil)
	require.Equal(t, workflows.AccessDenied, typeOf(err))
	require.ErrorContains(t, err, channels.ErrProtected.Error())
	require.ErrorContains(t, err, "give the promotion dev-to-alpha the mode pull-request")
}
