package fleet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/promotion"
	"github.com/fairway-project/fairway/workflows"
)

// landings reads the lines of the fleet's repository.
func (f *fleet) landings(ctx context.Context, channel, known, head string) ([]promotion.Landing, bool, error) {
	f.mu.Lock()
	f.read = append(f.read, channel+" "+known+".."+head)
	f.mu.Unlock()
	if f.down["slow history of "+channel] {
		<-ctx.Done()
		return nil, false, ctx.Err()
	}
	if f.down["history"] || f.down["history of "+channel] {
		return nil, false, errors.New("no route to host")
	}
	line := strings.Fields(f.lines[channel])
	from := slices.Index(line, known) + 1
	var landings []promotion.Landing
	for _, commit := range line[from : slices.Index(line, head)+1] {
		landings = append(landings, promotion.Landing{Commit: commit})
	}
	return landings, known != "" && from == 0, nil
}

func (f *fleet) landed(channel string) string {
	var commits []string
	for _, landing := range f.syncs[channel].Landings {
		commits = append(commits, landing.Commit)
	}
	return strings.Join(commits, " ")
}

func newPipeline(t *testing.T) *fleet {
	f := newFleet(t)
	f.pipeline = promotion.Pipeline{
		Channels: []string{"dev", "beta", "stable"},
		Edges: []promotion.Edge{
			{From: "dev", To: "beta", Soak: new(time.Hour)}, {From: "dev", To: "stable", Soak: new(90 * time.Minute)}, {From: "beta", To: "stable", Soak: new(time.Duration(0))},
		},
	}
	f.heads["stable"] = "c0"
	f.lines = map[string]string{"dev": "c0 c1 c2 c3", "beta": "c0", "stable": "c0"}
	return f
}

func TestChannelsHearWhatHasLanded(t *testing.T) {
	f := newPipeline(t)
	require.Equal(t, workflows.SyncResult{Clusters: 4, Told: []string{"stable", "beta", "dev"}}, f.synced(), "also channels that no cluster follows")
	require.Equal(t, "c0 c1", f.landed("dev"))
	require.EqualValues(t, 5400, f.syncs["dev"].SoakSeconds, "the longest one")
	require.Equal(t, []string{"", ""}, f.syncs["dev"].Promoted)
	require.EqualValues(t, 1, f.syncs["beta"].SoakSeconds)
	require.Zero(t, f.syncs["stable"].SoakSeconds, "nothing is promoted from there")
	require.Empty(t, f.syncs["stable"].Clusters)

	require.Empty(t, f.synced().Told)
	require.Empty(t, f.read, "nothing is read where no head has moved")
	f.heads["dev"] = "c3"
	require.Equal(t, []string{"dev"}, f.synced().Told)
	require.Equal(t, []string{"dev c1..c3"}, f.read)
	require.Equal(t, "c2 c3", f.landed("dev"))
	require.False(t, f.syncs["dev"].Rewritten)

	f.lines["dev"], f.heads["dev"] = "c0 d1", "d1"
	require.Equal(t, []string{"dev"}, f.synced().Told)
	require.Equal(t, "c0 d1", f.landed("dev"))
	require.True(t, f.syncs["dev"].Rewritten)
}

func TestAChannelHearsWhatOthersHaveOfIt(t *testing.T) {
	f := newPipeline(t)
	f.synced()
	beta := f.channels["beta"]
	beta.Merged = map[string]string{"dev": "c1", "other": "c9"}
	f.channels["beta"] = beta
	require.Equal(t, []string{"dev"}, f.synced().Told)
	require.Equal(t, []string{"c1", ""}, f.syncs["dev"].Promoted)
	for _, in := range []workflows.SyncFleet{{}, {Channel: "dev"}} {
		result, err := f.sync(in)
		require.NoError(t, err)
		require.Empty(t, result.Told)
	}
}

func TestAnActorThatKnowsNoLandingsHearsOfTheNewest(t *testing.T) {
	f := newPipeline(t)
	f.synced()
	f.lines["dev"] = ""
	for i := range 100 {
		f.lines["dev"] += fmt.Sprintf("h%d ", i)
	}
	f.heads["dev"] = "h99"
	before := f.channels["dev"]
	before.Commit, before.Landing = "h99", "" // an older version of Fairway had told it the head
	f.channels["dev"] = before
	f.synced()
	require.Equal(t, []string{"dev ..h99"}, f.read)
	require.Len(t, f.syncs["dev"].Landings, 50)
	require.Equal(t, "h99", f.channels["dev"].Landing)
}

func TestWithoutAHistoryClustersFollowTheHeadAndLandingsComeLater(t *testing.T) {
	f := newPipeline(t)
	f.synced()
	f.down["history of dev"] = true
	f.heads["dev"], f.heads["beta"], f.lines["beta"] = "c2", "c2", "c0 c2"
	_, err := f.sync(workflows.SyncFleet{})
	var typed *temporal.ApplicationError
	require.ErrorAs(t, err, &typed)
	require.Equal(t, workflows.Unreachable, typed.Type())
	require.ErrorContains(t, err, "reading what has landed on channel dev: no route to host")
	require.ElementsMatch(t, []string{"channel/dev sync", "channel/beta sync"}, f.told)
	require.Equal(t, "c2#a", f.syncs["dev"].Clusters[0].Want.Version)
	require.Empty(t, f.landed("dev"))
	require.Equal(t, "c2", f.landed("beta"), "others hear of theirs")

	_, err = f.sync(workflows.SyncFleet{})
	require.Error(t, err)
	require.Empty(t, f.told, "nothing is new")
	f.down["history of dev"] = false
	f.heads["dev"] = "c3"
	require.Equal(t, []string{"dev"}, f.synced().Told)
	require.Equal(t, "c2 c3", f.landed("dev"), "nothing is lost")
}

func TestAHistoryThatTakesItsTimeKeepsNoOtherChannelFromHearingOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newPipeline(t)
		f.synced()
		f.down["slow history of beta"] = true
		f.heads["dev"], f.heads["beta"], f.lines["beta"] = "c2", "c2", "c0 c2"
		_, err := f.sync(workflows.SyncFleet{})
		require.ErrorContains(t, err, "reading what has landed on channel beta: context deadline exceeded")
		require.Equal(t, "c2", f.landed("dev"))
		require.Equal(t, "c2#x", f.syncs["beta"].Clusters[0].Want.Version, "its clusters follow all the same")
	})
}

func TestAChannelOfThePipelineNeedsABranch(t *testing.T) {
	f := newPipeline(t)
	delete(f.heads, "stable")
	require.Equal(t, []string{"the configuration repository has no branch stable, which pipeline.channels of fairway.yaml names: make it, or take it out"}, f.synced().Problems)
	require.NotContains(t, f.read, "stable ..")
}
