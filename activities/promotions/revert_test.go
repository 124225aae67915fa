package promotions

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/forge"
	"github.com/fairway-project/fairway/promotion"
	"github.com/fairway-project/fairway/workflows"
)

// spoiled is a channel with two bad landings after a good one.
func spoiled(t *testing.T, channel string) (w *world, good string, bad []string) {
	w = newWorld(t)
	good = w.commit(channel, "Good @anna", files{"cluster/a.yaml": "good\n"})
	bad = []string{w.commit(channel, "Bad", files{"cluster/a.yaml": "bad\n"}), w.commit(channel, "Worse", files{"cluster/b.yaml": "worse\n"})}
	w.soak(channel, 2*time.Hour)
	return w, good, bad
}

func (w *world) revert(in workflows.RevertChannel) promotion.Revert {
	w.t.Helper()
	var revert promotion.Revert
	require.NoError(w.t, w.run(w.acts.RevertChannel, in, &revert))
	return revert
}

func TestAChannelIsSetBackOnceWhereverTheProcessDies(t *testing.T) {
	for at := 1; ; at++ {
		w, good, bad := spoiled(t, "alpha")
		in := workflows.RevertChannel{Channel: "alpha", To: good[:8], By: "ben", Reason: "it breaks\n@all"}
		w.life.reset(at)
		_ = w.run(w.acts.RevertChannel, in, nil)
		died := w.life.dead
		if w.head("alpha") != bad[1] {
			require.Equal(t, bad, w.actors.channel("alpha").Promotions.Reverts[0].Bad, "the range is stopped before anything is pushed")
		}
		w.life.reset(0)
		w.now = w.now.Add(time.Second)
		revert := w.revert(in)
		require.Equal(t, w.head("alpha"), revert.Commit)
		require.Equal(t, bad[1], w.origin.Git("log", "-1", "--format=%P", "alpha"), "one commit, on top of the bad ones")
		require.Equal(t, w.origin.Git("rev-parse", good+"^{tree}"), w.origin.Git("rev-parse", "alpha^{tree}"))
		require.Equal(t, bad, revert.Bad)
		require.Equal(t, "Set alpha back to "+good[:12]+": Good @ anna\n\nFairway-Revert-To: "+good+"\nFairway-Reason: it breaks @ all\nFairway-By: ben", w.origin.Git("log", "-1", "--format=%B", "alpha"))
		require.Contains(t, revert.Detail, "Then the 2 clusters of alpha go to the content of "+good[:12])
		known := w.actors.channel("alpha").Promotions.Reverts
		require.Len(t, known, 1)
		require.Equal(t, revert.Commit, known[0].Commit)
		require.Empty(t, known[0].Detail, "it is for who asks")

		require.Equal(t, good, w.choose(workflows.ChoosePromotion{From: "alpha", To: "stable"}).Candidate.Commit, "nothing of the range leaves the channel")
		if !died {
			return
		}
	}
}

func TestWhoeverPushesBetweenIsPartOfTheRange(t *testing.T) {
	w, good, bad := spoiled(t, "alpha")
	var theirs string
	w.between = func() { theirs = w.commit("alpha", "Theirs", files{"cluster/c.yaml": "x\n"}) }
	revert := w.revert(workflows.RevertChannel{Channel: "alpha", To: good, Reason: "it breaks"})
	require.Equal(t, append(bad, theirs), revert.Bad)
	require.Equal(t, theirs, w.origin.Git("log", "-1", "--format=%P", "alpha"))
	require.Len(t, w.actors.channel("alpha").Promotions.Reverts, 1, "it is the same revert")

	// Something lands on top of it, and a person asks once more.
	again := w.commit("alpha", "Bad again", files{"cluster/a.yaml": "bad\n"})
	state := w.actors.channel("alpha")
	state.Promotions.Reverts[0].At = time.Now().Add(-time.Hour)
	second := w.revert(workflows.RevertChannel{Channel: "alpha", To: good, Reason: "it breaks again"})
	require.NotEqual(t, revert.ID, second.ID)
	require.Equal(t, again, second.Head)
	require.Equal(t, "good", w.file("alpha", "cluster/a.yaml"))
	require.Equal(t, second.Commit, w.head("alpha"))
}

func TestAMessageThatClaimsToBeARevertIsNone(t *testing.T) {
	w, good, bad := spoiled(t, "alpha")
	w.actors.channel("alpha").Promotions.Reverts = []promotion.Revert{{ID: "alpha/x", To: good, Head: bad[1], Bad: bad, By: "ben", Reason: "it breaks", At: w.now}}
	w.commit("alpha", "Claim\n\nFairway-Revert-To: "+good, files{"cluster/c.yaml": "x\n"})
	revert := w.revert(workflows.RevertChannel{Channel: "alpha", To: good, Reason: "it breaks"})
	require.Equal(t, "alpha/x", revert.ID, "what was begun is gone on with")
	require.Equal(t, w.head("alpha"), revert.Commit)
	require.Equal(t, w.origin.Git("rev-parse", good+"^{tree}"), w.origin.Git("rev-parse", "alpha^{tree}"))
	require.Len(t, revert.Bad, 3)
}

func TestAChannelOfPullRequestsIsSetBackByOne(t *testing.T) {
	for at := 1; ; at++ {
		w, good, bad := spoiled(t, "stable")
		in := workflows.RevertChannel{Channel: "stable", To: good, By: "ben", Reason: "it breaks"}
		w.life.reset(at)
		_ = w.run(w.acts.RevertChannel, in, nil)
		died := w.life.dead
		w.life.reset(0)
		revert := w.revert(in)
		require.Len(t, w.forge.requests, 1)
		require.Equal(t, 1, revert.PullRequest)
		require.Empty(t, revert.Commit)
		require.Equal(t, bad[1], w.head("stable"), "nothing was pushed")
		pr := w.forge.requests[0]
		require.Equal(t, "fairway/revert/stable/"+good[:12]+"-"+bad[1][:12], pr.Head)
		require.Equal(t, w.origin.Git("rev-parse", good+"^{tree}"), w.origin.Git("rev-parse", pr.HeadCommit+"^{tree}"))
		require.Contains(t, revert.Detail, "Nothing changes until pull request 1 is merged.")
		require.Equal(t, 1, w.actors.channel("stable").Promotions.Reverts[0].PullRequest)
		if !died {
			merge := w.forge.mergeAs(pr, "anna", "Merge it")
			require.Equal(t, merge, w.revert(in).Commit)
			return
		}
	}
}

func TestAProtectedChannelIsSetBackByPullRequest(t *testing.T) {
	w, good, bad := spoiled(t, "alpha")
	hooks := filepath.Join(w.origin.Dir, "hooks")
	require.NoError(t, os.MkdirAll(hooks, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(hooks, "update"), []byte("#!/bin/sh\ntest \"$1\" != refs/heads/alpha\n"), 0o700))
	revert := w.revert(workflows.RevertChannel{Channel: "alpha", To: good, Reason: "it breaks"})
	require.Equal(t, 1, revert.PullRequest)
	require.Equal(t, bad[1], w.head("alpha"))
	require.Equal(t, forge.Open, w.forge.requests[0].State)
}

func TestADryRunChangesNothing(t *testing.T) {
	w, good, bad := spoiled(t, "alpha")
	w.life.reset(0)
	revert := w.revert(workflows.RevertChannel{Channel: "alpha", To: good, Reason: "it breaks", DryRun: true})
	require.Equal(t, bad, revert.Bad)
	require.Contains(t, revert.Detail, "2 clusters")
	require.Equal(t, bad[1], w.head("alpha"))
	require.Zero(t, w.life.count("signal")+w.life.count("push")+w.life.count("restore"))
}

func TestWhatAChannelCannotBeSetBackTo(t *testing.T) {
	w, good, bad := spoiled(t, "alpha")
	side := w.commit("feature", "Aside", files{"x": "y"})
	for name, c := range map[string]struct {
		in   workflows.RevertChannel
		want string
	}{
		"no reason":          {workflows.RevertChannel{Channel: "alpha", To: good, Reason: " "}, "needs a reason"},
		"no such channel":    {workflows.RevertChannel{Channel: "beta", To: good, Reason: "x"}, `no branch "beta"; it has: alpha, dev, feature, stable`},
		"its head":           {workflows.RevertChannel{Channel: "alpha", To: bad[1], Reason: "x"}, "nothing to set back"},
		"not a landing":      {workflows.RevertChannel{Channel: "alpha", To: side, Reason: "x"}, "is none of the newest 4 landings of channel alpha"},
		"too few digits":     {workflows.RevertChannel{Channel: "alpha", To: good[:6], Reason: "x"}, "give seven digits"},
		"not even a commit":  {workflows.RevertChannel{Channel: "alpha", To: "--all", Reason: "x"}, "such as: " + bad[1][:12] + " Worse; " + bad[0][:12] + " Bad"},
		"no forge, but asks": {workflows.RevertChannel{Channel: "stable", To: w.head("stable"), Reason: "x"}, "set forge.kind"},
	} {
		t.Run(name, func(t *testing.T) {
			w.acts.Forge = w.forge
			if name == "no forge, but asks" {
				w.acts.Forge = nil
			}
			err := w.run(w.acts.RevertChannel, c.in, nil)
			require.Equal(t, workflows.InvalidInput, typeOf(err), "%v", err)
			require.ErrorContains(t, err, c.want)
		})
	}
	require.Empty(t, w.actors.channel("alpha").Promotions.Reverts)
}

func TestWhatClustersWillDoIsSaidFromWhatIsTakenBack(t *testing.T) {
	w := newWorld(t)
	good := w.commit("alpha", "Good", files{"cluster/node-pools/worker/userdata.yaml": "one\n", "cluster/manifests/a/a.yaml": "kind: ConfigMap\n"})
	w.commit("alpha", "Other nodes", files{"cluster/node-pools/worker/userdata.yaml": "two\n"})
	w.soak("alpha", 2*time.Hour)
	require.Contains(t, w.revert(workflows.RevertChannel{Channel: "alpha", To: good, DryRun: true}).Detail, "Nodes may be replaced.")
	last := w.commit("alpha", "More", files{"cluster/manifests/a/a.yaml": "kind: ConfigMap\ndata: {}\n"})
	require.Contains(t, w.revert(workflows.RevertChannel{Channel: "alpha", To: w.origin.Git("rev-parse", last+"^"), DryRun: true}).Detail, "no node is replaced")
}
