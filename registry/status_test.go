package registry_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gofrs/flock"
	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/registry"
)

// fleet writes a registry file of two clusters and returns its path.
func fleet(t *testing.T, lifecycle registry.LifecycleStatus) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "registry.yaml")
	want(t, path, lifecycle)
	return path
}

// want writes what people want: cluster dev-1 in that lifecycle, and dev-2.
func want(t *testing.T, path string, lifecycle registry.LifecycleStatus) {
	t.Helper()
	second := strings.NewReplacer("dev-1", "dev-2", "kale", "leek").Replace(strings.TrimPrefix(valid, "clusters:\n"))
	write(t, path, valid+"  lifecycle_status: "+string(lifecycle)+"\n"+second)
}

func write(t *testing.T, path, content string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
}

func read(t *testing.T, source registry.Registry) registry.Clusters {
	t.Helper()
	clusters, err := source.Clusters(t.Context())
	require.NoError(t, err)
	return clusters
}

var updated = registry.Status{CurrentVersion: commit + "#1", LastVersion: "last", NextVersion: "next", Problems: []registry.Problem{
	{Type: "stack-failed", Title: "a: \"b\" #c\n\t- \x00\x1b[31m\u2028 🙂 {{x}} <&>", Detail: "  more ", Status: 500, Instance: "stack/dev-1"},
}}

func TestAStatusIsKeptBesideTheFileAndShownWithTheCluster(t *testing.T) {
	path := fleet(t, registry.Ready)
	before, err := os.ReadFile(path)
	require.NoError(t, err)
	file := registry.OpenFile(path, "")
	require.Nil(t, read(t, file)[0].Status, "nothing is known yet")

	require.NoError(t, file.WriteStatus(t.Context(), "dev-1", updated, ""))
	for _, source := range []registry.File{file, registry.OpenFile(path, ""), {Path: path}} {
		clusters := read(t, source)
		require.Len(t, clusters, 2)
		require.Equal(t, &updated, clusters[0].Status)
		require.Nil(t, clusters[1].Status)
	}
	require.NoError(t, file.WriteStatus(t.Context(), "dev-2", registry.Status{CurrentVersion: "two"}, ""))
	require.NoError(t, file.WriteStatus(t.Context(), "dev-1", registry.Status{}, ""))
	clusters := read(t, file)
	require.Equal(t, &registry.Status{}, clusters[0].Status, "a status is replaced as a whole")
	require.Equal(t, "two", clusters[1].Status.CurrentVersion)

	after, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(before), string(after), "the desired state is people's")
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	require.Equal(t, []string{"registry.status.yaml", "registry.status.yaml.lock", "registry.yaml"}, names)
}

func TestTheStatusFileMayBeElsewhere(t *testing.T) {
	elsewhere := filepath.Join(t.TempDir(), "status")
	file := registry.OpenFile(fleet(t, registry.Ready), elsewhere)
	require.NoError(t, file.WriteStatus(t.Context(), "dev-1", updated, ""))
	require.FileExists(t, elsewhere)
	require.Equal(t, &updated, read(t, file)[0].Status)
}

func TestALifecycleStatusMovesOnAndNeverBack(t *testing.T) {
	for _, test := range []struct {
		wanted, reached, shown registry.LifecycleStatus
		refused                bool
	}{
		{registry.Requested, registry.Ready, registry.Ready, false},
		{registry.Requested, "", registry.Requested, false},
		{registry.Requested, registry.Requested, registry.Requested, false},
		{registry.DecommissionRequested, registry.Decommissioned, registry.Decommissioned, false},
		{registry.Ready, registry.Ready, registry.Ready, false},
		{registry.Ready, registry.Decommissioned, registry.Ready, true},
		{registry.Ready, registry.DecommissionRequested, registry.Ready, true},
		{registry.Ready, registry.Requested, registry.Ready, true},
		{registry.Requested, registry.Decommissioned, registry.Requested, true},
		{registry.DecommissionRequested, registry.Ready, registry.DecommissionRequested, true},
		{registry.Decommissioned, registry.Ready, registry.Decommissioned, true},
	} {
		t.Run(fmt.Sprintf("%s to %q", test.wanted, test.reached), func(t *testing.T) {
			file := registry.OpenFile(fleet(t, test.wanted), "")
			err := file.WriteStatus(t.Context(), "dev-1", updated, test.reached)
			if test.refused {
				var refused *registry.LifecycleError
				require.ErrorAs(t, err, &refused)
				require.Equal(t, registry.LifecycleError{Cluster: "dev-1", From: test.wanted, To: test.reached}, *refused)
				require.Nil(t, read(t, file)[0].Status, "nothing is written")
			} else {
				require.NoError(t, err)
				require.NoError(t, file.WriteStatus(t.Context(), "dev-1", updated, ""), "a later status leaves the lifecycle")
				require.NoError(t, file.WriteStatus(t.Context(), "dev-1", updated, test.reached), "once more, after a crash")
			}
			require.Equal(t, test.shown, read(t, file)[0].LifecycleStatus)
		})
	}
}

func TestPeopleOvertakeTheLifecycleThatWasReached(t *testing.T) {
	path := fleet(t, registry.Requested)
	file := registry.OpenFile(path, "")
	require.NoError(t, file.WriteStatus(t.Context(), "dev-1", updated, registry.Ready))
	require.Equal(t, registry.Ready, read(t, file)[0].LifecycleStatus)

	want(t, path, registry.DecommissionRequested)
	require.Equal(t, registry.DecommissionRequested, read(t, file)[0].LifecycleStatus)
	require.NoError(t, file.WriteStatus(t.Context(), "dev-1", registry.Status{}, registry.Decommissioned))
	require.Equal(t, registry.Decommissioned, read(t, file)[0].LifecycleStatus)

	want(t, path, registry.Requested) // a new cluster of that name
	require.Equal(t, registry.Requested, read(t, file)[0].LifecycleStatus)
}

func TestAReachedLifecycleIsForgottenOnceTheFileSaysOtherwise(t *testing.T) {
	path := fleet(t, registry.Requested)
	file := registry.OpenFile(path, "")
	require.NoError(t, file.WriteStatus(t.Context(), "dev-1", updated, registry.Ready))
	want(t, path, registry.Ready)
	require.NoError(t, file.WriteStatus(t.Context(), "dev-1", updated, ""))
	want(t, path, registry.Requested)
	require.Equal(t, registry.Requested, read(t, file)[0].LifecycleStatus)
}

func TestABrokenStatusFileHidesNoClusterAndIsNotOverwritten(t *testing.T) {
	for name, content := range map[string]string{
		"no YAML":          "clusters: [",
		"unknown key":      "clusters:\n- id: dev-1\n  stauts: {}\n",
		"wrong lifecycle":  "clusters:\n- id: dev-1\n  lifecycle_status: requested\n",
		"one cluster more": "clusters:\n- id: dev-1\n- id: dev-1\n",
		"problem untitled": "clusters:\n- id: dev-1\n  status: {problems: [{type: x}]}\n",
	} {
		t.Run(name, func(t *testing.T) {
			path := fleet(t, registry.Ready)
			file := registry.OpenFile(path, "")
			status := filepath.Join(filepath.Dir(path), "registry.status.yaml")
			write(t, status, content)
			clusters := read(t, file)
			require.Len(t, clusters, 2)
			for _, c := range clusters {
				require.Len(t, c.Status.Problems, 1)
				require.Equal(t, registry.StatusUnreadable, c.Status.Problems[0].Type)
				require.Contains(t, c.Status.Problems[0].Title, "registry.status.yaml:")
			}
			err := file.WriteStatus(t.Context(), "dev-1", updated, "")
			require.ErrorContains(t, err, "mend it, or move it away and lose it: ")
			require.ErrorContains(t, err, "registry.status.yaml:")
			after, err := os.ReadFile(status)
			require.NoError(t, err)
			require.Equal(t, content, string(after))

			require.NoError(t, os.Remove(status))
			require.Nil(t, read(t, file)[0].Status)
			require.NoError(t, file.WriteStatus(t.Context(), "dev-1", updated, ""))
		})
	}
}

func TestAStatusIsRefusedBeforeItBreaksTheFile(t *testing.T) {
	path := fleet(t, registry.Ready)
	file := registry.OpenFile(path, "")
	require.EqualError(t, file.WriteStatus(t.Context(), "dev-1", registry.Status{Problems: []registry.Problem{{Type: "x"}}}, ""),
		"status of cluster dev-1: problems[0].title: is missing")
	var unknown *registry.UnknownClusterError
	require.ErrorAs(t, file.WriteStatus(t.Context(), "dev-9", updated, ""), &unknown)
	require.ErrorAs(t, file.WriteStatus(t.Context(), "kale", updated, ""), &unknown, "an alias may become another cluster's")
	write(t, path, "clusters: [")
	require.ErrorContains(t, file.WriteStatus(t.Context(), "dev-1", updated, ""), "registry.yaml:1")
	require.NoFileExists(t, filepath.Join(filepath.Dir(path), "registry.status.yaml"))
}

func TestWhatACrashLeavesBehindDoesNotMatter(t *testing.T) {
	path := fleet(t, registry.Ready)
	file := registry.OpenFile(path, "")
	status := filepath.Join(filepath.Dir(path), "registry.status.yaml")
	write(t, status+".tmp", `{"clusters": [{"id": "dev`)
	write(t, status+".lock", "")
	require.NoError(t, file.WriteStatus(t.Context(), "dev-1", updated, ""))
	require.Equal(t, &updated, read(t, file)[0].Status)
	require.NoFileExists(t, status+".tmp")
}

func TestWritersWaitForEachOther(t *testing.T) {
	path := fleet(t, registry.Ready)
	other := flock.New(filepath.Join(filepath.Dir(path), "registry.status.yaml.lock"))
	require.NoError(t, other.Lock())
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err := registry.OpenFile(path, "").WriteStatus(ctx, "dev-1", updated, "")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "waiting for another process that writes the status of clusters")
	require.NoError(t, other.Unlock())

	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() { // each as if it were a process of its own
			id := []string{"dev-1", "dev-2"}[i%2]
			if err := registry.OpenFile(path, "").WriteStatus(t.Context(), id, registry.Status{CurrentVersion: id}, ""); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for _, c := range read(t, registry.OpenFile(path, "")) {
		require.Equal(t, c.ID, c.Status.CurrentVersion)
	}
}

func TestAChangedFileIsSeenAtOnce(t *testing.T) {
	path := fleet(t, registry.Ready)
	file := registry.OpenFile(path, "")
	for i := range 50 { // of the same size, within a tick of the file system's clock
		lifecycle := []registry.LifecycleStatus{"ready    ", "requested"}[i%2]
		want(t, path, lifecycle)
		require.Equal(t, strings.TrimSpace(string(lifecycle)), string(read(t, file)[0].LifecycleStatus))
	}
	write(t, path, "clusters: [")
	for range 2 {
		_, err := file.Clusters(t.Context())
		require.ErrorContains(t, err, "registry.yaml:1")
	}
	require.NoError(t, os.Remove(path))
	_, err := file.Clusters(t.Context())
	require.ErrorIs(t, err, os.ErrNotExist)
	want(t, path, registry.Ready)
	require.Len(t, read(t, file), 2)
}

// A file that is written in place is for a moment no more than its beginning.
func TestAHalfWrittenFileTakesNothingAway(t *testing.T) {
	path := fleet(t, registry.Ready)
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	file := registry.OpenFile(path, "")
	before := read(t, file)
	valid := 0
	for end := range content {
		write(t, path, string(content[:end]))
		if clusters, err := file.Clusters(t.Context()); err == nil {
			require.Equal(t, before, clusters, "the first %d bytes", end)
			valid++
		}
	}
	require.Greater(t, valid, 10)
	write(t, path, string(content)+"# no more\n")
	require.Equal(t, before, read(t, file))

	half := string(content[:strings.LastIndex(string(content), "\n- ")+1])
	write(t, path, half)
	settle(t, path)
	require.Len(t, read(t, file), 1, "it was meant so")
}

func TestAChangeWithinTheSameSecondIsSeenWhereFilesKnowSecondsOnly(t *testing.T) {
	path := fleet(t, registry.Requested)
	second := time.Now().Add(-time.Second).Truncate(time.Second)
	require.NoError(t, os.Chtimes(path, second, second))
	file := registry.OpenFile(path, "")
	require.Equal(t, registry.Requested, read(t, file)[0].LifecycleStatus)
	want(t, path, "ready    ")
	require.NoError(t, os.Chtimes(path, second, second))
	require.Equal(t, registry.Ready, read(t, file)[0].LifecycleStatus)
}

// settle makes files old enough to be taken for settled.
func settle(t testing.TB, paths ...string) {
	t.Helper()
	for _, path := range paths {
		require.NoError(t, os.Chtimes(path, time.Time{}, time.Now().Add(-time.Hour)))
	}
}

func TestAFileThatHasNotChangedIsNotReadAgain(t *testing.T) {
	path := fleet(t, registry.Ready)
	file := registry.OpenFile(path, "")
	require.NoError(t, file.WriteStatus(t.Context(), "dev-1", updated, ""))
	settle(t, path, filepath.Join(filepath.Dir(path), "registry.status.yaml"))
	first := read(t, file)
	second := read(t, file)
	require.Same(t, &first[0].NodePools[0], &second[0].NodePools[0])
	require.Same(t, first[0].Status, second[0].Status)
	second[0].Channel = "mine"
	require.Equal(t, "dev", read(t, file)[0].Channel, "the list is the caller's own")
}

func TestALargeUnchangedRegistryIsLookedAtForNearlyNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "registry.yaml")
	write(t, path, large(150, 450))
	settle(t, path)
	file := registry.OpenFile(path, "")
	began := time.Now()
	require.Len(t, read(t, file), 150)
	first := time.Since(began)
	again := testing.Benchmark(func(b *testing.B) {
		for b.Loop() {
			if _, err := file.Clusters(context.Background()); err != nil {
				b.Fatal(err)
			}
		}
	})
	t.Logf("first %v, again %v and %d B", first, time.Duration(again.NsPerOp()), again.AllocedBytesPerOp())
	require.Less(t, again.AllocedBytesPerOp(), int64(200<<10))
	require.Less(t, time.Duration(again.NsPerOp()), first/100)
}

// large is a registry file of so many clusters with so many config items each.
func large(clusters, items int) string {
	out := &strings.Builder{}
	out.WriteString("clusters:\n")
	for c := range clusters {
		out.WriteString(strings.NewReplacer("dev-1", fmt.Sprintf("dev-%d", c), "kale", fmt.Sprintf("kale-%d", c)).Replace(strings.TrimPrefix(valid, "clusters:\n")))
		out.WriteString("  config_items:\n")
		for i := range items {
			fmt.Fprintf(out, "    some_config_item_%d: \"value %d of the item\"\n", i, i*c)
		}
	}
	return out.String()
}
