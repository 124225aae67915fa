package configuration_test

import (
	"context"
	"crypto/sha1"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/activities/activitytest"
	"github.com/fairway-project/fairway/activities/configuration"
	"github.com/fairway-project/fairway/calendar"
	"github.com/fairway-project/fairway/channels"
	"github.com/fairway-project/fairway/channels/channelstest"
	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/render"
	"github.com/fairway-project/fairway/workflows"
)

func hash(c registry.Cluster) string {
	c.Status = nil
	data, _ := json.Marshal(c)
	return fmt.Sprintf("%x", sha1.Sum(data))
}

var errMissing = errors.New("missing")

// bucket keeps entries in memory.
type bucket struct {
	sync.Map
	failing atomic.Bool
}

func (b *bucket) Put(_ context.Context, _ registry.Cluster, key string, data []byte) error {
	if b.failing.Load() {
		return temporal.NewApplicationError("no bucket", workflows.Unreachable)
	}
	b.Store(key, data)
	return nil
}

func (b *bucket) Get(_ context.Context, _ registry.Cluster, key string) ([]byte, error) {
	if b.failing.Load() {
		return nil, temporal.NewApplicationError("no bucket", workflows.Unreachable)
	}
	data, found := b.Load(key)
	if !found {
		return nil, errMissing
	}
	return data.([]byte), nil
}

// world is a registry of one cluster, a repository and what renders it.
type world struct {
	channelstest.Repository
	cluster   registry.Cluster
	entries   *bucket
	rendered  atomic.Int32
	rendering func(folder fs.FS) error // before it renders
}

func newWorld(t *testing.T) *world {
	return &world{Repository: channelstest.New(t), entries: &bucket{}, cluster: registry.Cluster{
		ID: "aws:123456789012:eu-central-1:dev", Alias: "dev-1", Channel: "dev", Environment: "test", InfrastructureAccount: "aws:123456789012", Region: "eu-central-1",
		ConfigItems: map[string]string{"size": "3"}, Status: &registry.Status{CurrentVersion: "old"},
	}}
}

// worker is a worker of its own: it shares repository, registry and bucket with others.
func (w *world) worker(t *testing.T) *configuration.Activities {
	return &configuration.Activities{
		Mirror: &channels.Mirror{URL: w.Dir, Dir: filepath.Join(t.TempDir(), "mirror.git")}, Folder: "cluster",
		Find: func(_ context.Context, name string) (registry.Cluster, error) {
			if name != w.cluster.ID && name != w.cluster.Alias {
				return registry.Cluster{}, temporal.NewNonRetryableApplicationError("unknown", workflows.ClusterNotFound, nil)
			}
			return w.cluster, nil
		},
		Hash: hash,
		Network: func(context.Context, registry.Cluster) (map[string]any, error) {
			return map[string]any{"vpc_id": "vpc-1"}, nil
		},
		Render: func(folder fs.FS, cluster registry.Cluster, version string, values map[string]any) (*render.Release, error) {
			w.rendered.Add(1)
			if w.rendering != nil {
				if err := w.rendering(folder); err != nil {
					return nil, err
				}
			}
			data, err := fs.ReadFile(folder, "a.yaml")
			if err != nil {
				return nil, err
			}
			return &render.Release{
				Cluster: cluster, Version: version,
				Stacks:    []render.Stack{{Name: "etcd-dev"}, {Name: "dev", Body: fmt.Sprintf("%s %s %s", data, cluster.ConfigItems["size"], values["vpc_id"])}},
				Pools:     []render.Pool{{NodePool: registry.NodePool{Name: "master"}, Stack: render.Stack{Name: "dev-master"}, ControlPlane: true}, {NodePool: registry.NodePool{Name: "worker"}, Stack: render.Stack{Name: "dev-worker"}}},
				Manifests: make([]render.Manifest, 5),
				Deletions: render.Deletions{PreApply: make([]render.Deletion, 1), PostApply: make([]render.Deletion, 2)},
			}, nil
		},
		Entries: w.entries,
		Missing: func(err error) bool { return errors.Is(err, errMissing) },
		Settings: func(registry.Cluster) (workflows.UpdateSettings, error) {
			return workflows.UpdateSettings{ParallelPools: 2}, nil
		},
		Calendar: func(registry.Cluster) (calendar.Calendar, error) { return calendar.Calendar{}, nil },
		Notify:   true,
	}
}

func prepare(a *configuration.Activities, in workflows.PrepareUpdate) (plan workflows.UpdatePlan, err error) {
	err = activitytest.Worker{}.Run(a.PrepareUpdate, in, &plan)
	return plan, err
}

func body(t *testing.T, a *configuration.Activities, cluster, version string) string {
	t.Helper()
	release, err := a.Release(t.Context(), cluster, version)
	require.NoError(t, err)
	stack, found := release.Stack("dev")
	require.True(t, found)
	return stack.Body
}

func requireError(t *testing.T, err error, kind string, final bool, text string) {
	t.Helper()
	var typed *temporal.ApplicationError
	require.ErrorAs(t, err, &typed)
	require.Equal(t, kind, typed.Type(), typed.Error())
	require.Equal(t, final, typed.NonRetryable(), typed.Error())
	require.ErrorContains(t, err, text)
}

func TestWhatAnUpdateConsistsOf(t *testing.T) {
	w := newWorld(t)
	commit := w.Commit("dev", "a.yaml", "one")
	plan, err := prepare(w.worker(t), workflows.PrepareUpdate{Cluster: "dev-1"})
	require.NoError(t, err)
	require.Equal(t, workflows.UpdatePlan{
		Cluster: workflows.ClusterInfo{
			ID: w.cluster.ID, Alias: "dev-1", Channel: "dev", Environment: "test", Account: "aws:123456789012", Region: "eu-central-1", Version: "old",
		},
		Version: commit + "#" + hash(w.cluster), Commit: commit, Stacks: []string{"etcd-dev", "dev"},
		Pools:     []workflows.PlannedPool{{Name: "master", Stack: "dev-master", ControlPlane: true}, {Name: "worker", Stack: "dev-worker"}},
		Manifests: 5, Deletions: 3, Settings: workflows.UpdateSettings{ParallelPools: 2}, Notify: true,
	}, plan)
	_, kept := w.entries.Load("entries/aws:123456789012:eu-central-1:dev/" + hash(w.cluster) + ".json")
	require.True(t, kept)
}

func TestTheVersionThatAPlanIsFor(t *testing.T) {
	w := newWorld(t)
	first := w.Commit("dev", "a.yaml", "one")
	topic := w.Commit("topic", "a.yaml", "two")
	w.Git("tag", "v1", first)
	second := w.Commit("dev", "a.yaml", "three")
	a := w.worker(t)
	for name, c := range map[string]struct {
		in     workflows.PrepareUpdate
		commit string
	}{
		"the head of the channel": {workflows.PrepareUpdate{}, second},
		"a branch":                {workflows.PrepareUpdate{Ref: "topic"}, topic},
		"a tag":                   {workflows.PrepareUpdate{Ref: "v1"}, first},
		"a commit":                {workflows.PrepareUpdate{Ref: first[:8]}, first},
		"a version":               {workflows.PrepareUpdate{Version: first + "#" + hash(w.cluster)}, first},
	} {
		t.Run(name, func(t *testing.T) {
			c.in.Cluster = "dev-1"
			plan, err := prepare(a, c.in)
			require.NoError(t, err)
			require.Equal(t, c.commit, plan.Commit)
			require.Equal(t, c.commit+"#"+hash(w.cluster), plan.Version)
		})
	}
}

func TestAVersionIsRenderedAgainAfterItsEntryHasChanged(t *testing.T) {
	w := newWorld(t)
	w.Commit("dev", "a.yaml", "one")
	a := w.worker(t)
	before, err := prepare(a, workflows.PrepareUpdate{Cluster: "dev-1"})
	require.NoError(t, err)
	w.cluster.ConfigItems = map[string]string{"size": "5"}
	w.Rewrite("dev", "a.yaml", "two")
	after, err := prepare(a, workflows.PrepareUpdate{Cluster: "dev-1"})
	require.NoError(t, err)

	for name, worker := range map[string]*configuration.Activities{"the same worker": a, "another one": w.worker(t)} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, "one 3 vpc-1", body(t, worker, "dev-1", before.Version))
			require.Equal(t, "two 5 vpc-1", body(t, worker, "dev-1", after.Version))
		})
	}
	plan, err := prepare(w.worker(t), workflows.PrepareUpdate{Cluster: "dev-1", Version: before.Version})
	require.NoError(t, err, "a rollback")
	require.Equal(t, before.Version, plan.Version)
}

func TestAVersionThatIsGoneIsSaidToBe(t *testing.T) {
	w := newWorld(t)
	w.Commit("dev", "a.yaml", "one")
	plan, err := prepare(w.worker(t), workflows.PrepareUpdate{Cluster: "dev-1"})
	require.NoError(t, err)
	w.Rewrite("dev", "a.yaml", "two")
	w.Prune()
	_, err = w.worker(t).Release(t.Context(), "dev-1", plan.Version)
	requireError(t, err, workflows.VersionGone, true, plan.Commit)

	a, now := w.worker(t), w.Git("rev-parse", "dev")
	old := hash(w.cluster)
	w.cluster.ConfigItems = nil
	key := "entries/" + w.cluster.ID + "/" + old + ".json"
	for name, c := range map[string]struct {
		data any
		text string
	}{
		"nothing kept":    {nil, "was not kept; choose a version whose update was prepared before"},
		"no JSON":         {[]byte("{"), "cannot be read"},
		"another entry":   {[]byte(`{"id": "` + w.cluster.ID + `"}`), "is something else"},
		"another cluster": {[]byte(`{"id": "dev-2"}`), "is something else"},
	} {
		t.Run(name, func(t *testing.T) {
			w.entries.Delete(key)
			if c.data != nil {
				w.entries.Store(key, c.data)
			}
			_, err = a.Release(t.Context(), "dev-1", now+"#"+old)
			requireError(t, err, workflows.VersionGone, true, c.text)
		})
	}
}

func TestAnEntryOfAnotherAccountIsNotUsed(t *testing.T) {
	w := newWorld(t)
	w.Commit("dev", "a.yaml", "one")
	plan, err := prepare(w.worker(t), workflows.PrepareUpdate{Cluster: "dev-1"})
	require.NoError(t, err)
	w.cluster.InfrastructureAccount = "aws:999999999999"
	_, err = w.worker(t).Release(t.Context(), "dev-1", plan.Version)
	requireError(t, err, workflows.InvalidInput, true, "cannot move")
}

func TestWhatIsWrongIsTyped(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*world, *configuration.Activities, *workflows.PrepareUpdate)
		kind   string
		final  bool
		text   string
	}{
		"no such cluster": {func(_ *world, _ *configuration.Activities, in *workflows.PrepareUpdate) { in.Cluster = "dev-9" }, workflows.ClusterNotFound, true, "unknown"},
		"no such channel": {func(w *world, _ *configuration.Activities, _ *workflows.PrepareUpdate) { w.cluster.Channel = "alpha" }, workflows.InvalidInput, true, "no branch alpha"},
		"no such ref":     {func(_ *world, _ *configuration.Activities, in *workflows.PrepareUpdate) { in.Ref = "--help" }, workflows.InvalidInput, true, `"--help" is no branch`},
		"no such folder":  {func(_ *world, a *configuration.Activities, _ *workflows.PrepareUpdate) { a.Folder = "clusters" }, workflows.InvalidInput, true, "has no folder clusters"},
		"no version":      {func(_ *world, _ *configuration.Activities, in *workflows.PrepareUpdate) { in.Version = "main#1" }, workflows.InvalidInput, true, `version "main#1" is no commit`},
		"two wishes": {func(_ *world, _ *configuration.Activities, in *workflows.PrepareUpdate) {
			in.Version, in.Ref = "a", "b"
		}, workflows.InvalidInput, true, "leave one out"},
		"no repository": {func(_ *world, a *configuration.Activities, _ *workflows.PrepareUpdate) { a.Mirror = nil }, workflows.InvalidInput, true, "set repository.url"},
		"a broken template": {func(w *world, _ *configuration.Activities, _ *workflows.PrepareUpdate) {
			w.rendering = func(fs.FS) error { return errors.New("manifests/a.yaml:3: no such item") }
		}, workflows.InvalidInput, true, "manifests/a.yaml:3: no such item"},
		"a template that panics": {func(w *world, _ *configuration.Activities, _ *workflows.PrepareUpdate) {
			w.rendering = func(fs.FS) error { panic("no such index") }
		}, workflows.InvalidInput, true, "a fault of Fairway, please report it: no such index"},
		"a busy worker": {func(w *world, _ *configuration.Activities, _ *workflows.PrepareUpdate) {
			w.rendering = func(fs.FS) error { return fmt.Errorf("%w: .: rendering takes longer than 30s", render.ErrSlow) }
		}, workflows.Unreachable, false, "takes longer than 30s"},
		"wrong settings": {func(_ *world, a *configuration.Activities, _ *workflows.PrepareUpdate) {
			a.Settings = func(registry.Cluster) (workflows.UpdateSettings, error) {
				return workflows.UpdateSettings{}, errors.New("is maybe")
			}
		}, workflows.InvalidInput, false, "is maybe"},
		"no bucket": {func(w *world, _ *configuration.Activities, _ *workflows.PrepareUpdate) { w.entries.failing.Store(true) }, workflows.Unreachable, false, "no bucket"},
		"refused": {func(_ *world, a *configuration.Activities, _ *workflows.PrepareUpdate) {
			a.Mirror.URL = "/nonexistent/config.git"
		}, workflows.AccessDenied, false, "/nonexistent/config.git"},
		"nobody there": {func(_ *world, a *configuration.Activities, _ *workflows.PrepareUpdate) {
			a.Mirror.URL = "http://127.0.0.1:1/config"
		}, workflows.Unreachable, false, "127.0.0.1"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.Commit("dev", "a.yaml", "one")
			a, in := w.worker(t), workflows.PrepareUpdate{Cluster: "dev-1"}
			c.change(w, a, &in)
			_, err := prepare(a, in)
			requireError(t, err, c.kind, c.final, c.text)
		})
	}
}

func TestActivitiesOfAnUpdateRenderOnce(t *testing.T) {
	w := newWorld(t)
	commit := w.Commit("dev", "a.yaml", "one")
	a, version := w.worker(t), commit+"#"+hash(w.cluster)
	goOn := make(chan struct{})
	w.rendering = func(fs.FS) error { <-goOn; return nil }

	// The one that comes first gives up, and the others do not notice.
	first, giveUp := context.WithCancel(t.Context())
	gaveUp := make(chan error)
	go func() {
		_, err := a.Release(first, "dev-1", version)
		gaveUp <- err
	}()
	require.Eventually(t, func() bool { return w.rendered.Load() == 1 }, 10*time.Second, time.Millisecond)
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			if _, err := a.Release(t.Context(), "dev-1", version); err != nil {
				t.Error(err)
			}
		})
	}
	giveUp()
	require.ErrorIs(t, <-gaveUp, context.Canceled)
	close(goOn)
	all.Wait()
	require.Equal(t, "one 3 vpc-1", body(t, a, w.cluster.ID, version))
	require.EqualValues(t, 1, w.rendered.Load())
}

func TestAFailureIsNotRemembered(t *testing.T) {
	w := newWorld(t)
	commit := w.Commit("dev", "a.yaml", "one")
	a, version := w.worker(t), commit+"#"+hash(w.cluster)
	a.Network = func(context.Context, registry.Cluster) (map[string]any, error) {
		return nil, temporal.NewApplicationError("AWS does not answer", workflows.Unreachable)
	}
	_, err := a.Release(t.Context(), "dev-1", version)
	requireError(t, err, workflows.Unreachable, false, "AWS does not answer")
	a.Network = func(context.Context, registry.Cluster) (map[string]any, error) {
		return map[string]any{"vpc_id": "vpc-2"}, nil
	}
	require.Equal(t, "one 3 vpc-2", body(t, a, "dev-1", version))
}

func TestAWorkerThatStopsHandsOver(t *testing.T) {
	w := newWorld(t)
	w.Commit("dev", "a.yaml", "one")
	goOn, stopping := make(chan struct{}), make(chan struct{})
	defer close(goOn)
	w.rendering = func(fs.FS) error { close(stopping); <-goOn; return nil }
	err := activitytest.Worker{Stopping: stopping}.Run(w.worker(t).PrepareUpdate, workflows.PrepareUpdate{Cluster: "dev-1"}, nil)
	requireError(t, err, workflows.Unreachable, false, "the worker stops")
}

func TestWaitingForAWindow(t *testing.T) {
	now := time.Date(2026, 5, 6, 12, 0, 0, 0, time.UTC)
	for rule, c := range map[string]struct {
		calendar calendar.Calendar
		text     string
		wait     time.Duration
	}{
		"open":          {calendar.Calendar{}, "", 0},
		"opens later":   {calendar.Calendar{Windows: []calendar.Window{{From: "22:00", To: "04:00"}}}, "cluster aws:123456789012:eu-central-1:dev: the update waits: no maintenance window is open (22:00-04:00); it opens at 2026-05-06T22:00:00Z", 10 * time.Minute},
		"opens soon":    {calendar.Calendar{Windows: []calendar.Window{{From: "12:04", To: "13:00"}}}, "it opens at 2026-05-06T12:04:00Z", 4 * time.Minute},
		"opens at once": {calendar.Calendar{Freezes: []calendar.Freeze{{Name: "sale", From: now.Add(-time.Hour), To: now.Add(time.Millisecond)}}}, `freeze "sale" holds until`, time.Second},
		"never opens":   {calendar.Calendar{Windows: []calendar.Window{{From: "nine", To: "five"}}}, "it never opens", 10 * time.Minute},
	} {
		t.Run(rule, func(t *testing.T) {
			a := newWorld(t).worker(t)
			a.Now = func() time.Time { return now }
			a.Calendar = func(registry.Cluster) (calendar.Calendar, error) { return c.calendar, nil }
			err := a.AwaitWindow(t.Context(), workflows.AwaitWindow{Cluster: "dev-1", What: "the update"})
			if c.text == "" {
				require.NoError(t, err)
				return
			}
			requireError(t, err, workflows.WindowClosed, false, c.text)
			var typed *temporal.ApplicationError
			require.ErrorAs(t, err, &typed)
			require.Equal(t, c.wait, typed.NextRetryDelay())
			require.Equal(t, temporal.ApplicationErrorCategoryBenign, typed.Category())
		})
	}
	a := newWorld(t).worker(t)
	a.Calendar = func(registry.Cluster) (calendar.Calendar, error) { return calendar.Calendar{}, errors.New("is maybe") }
	requireError(t, a.AwaitWindow(t.Context(), workflows.AwaitWindow{Cluster: "dev-1"}), workflows.InvalidInput, false, "is maybe")
}
