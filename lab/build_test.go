package lab

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var hello = binary{name: "hello", title: "a test", module: "tool", main: ".", cold: time.Second}

// helloModule is a repository with one small program in it, and a builder for it.
func helloModule(t *testing.T) (*builder, func(name, content string)) {
	t.Helper()
	b := &builder{root: t.TempDir(), out: &safeBuffer{}, toolchain: "test"}
	write := func(name, content string) {
		t.Helper()
		require.NoError(t, writeFile(filepath.Join(b.root, "tool", name), []byte(content), 0o644))
	}
	write("go.mod", "module example.com/hello\n\ngo 1.26.0\n")
	write("go.sum", "")
	write("main.go", "package main\n\nimport \"example.com/hello/part\"\n\nfunc main() { part.Do() }\n")
	write("part/part.go", "package part\n\nfunc Do() {}\n")
	require.NoError(t, os.MkdirAll(b.path("bin"), 0o755))
	return b, write
}

func TestBinaryIsBuiltAnewWhenWhatItIsMadeOfChanges(t *testing.T) {
	b, write := helloModule(t)
	require.False(t, b.upToDate(hello), "never built")
	build := func() {
		t.Helper()
		require.NoError(t, b.build(t.Context(), hello, 1, 1))
		require.True(t, b.upToDate(hello))
	}
	build()
	_, err := run(t.Context(), b.root, nil, b.path("bin", "hello"))
	require.NoError(t, err)

	write("part/part_test.go", "package part\n")
	require.True(t, b.upToDate(hello), "tests are no part of it")
	write("part/part.go", "package part\n\nfunc Do() { println() }\n")
	require.False(t, b.upToDate(hello), "changed source")
	build()
	write("part/new.go", "package part\n")
	require.False(t, b.upToDate(hello), "new source")
	build()
	write("go.sum", "\n")
	require.False(t, b.upToDate(hello), "changed dependencies")
	build()
	b.toolchain = "another"
	require.False(t, b.upToDate(hello), "another compiler")
	build()
	require.NoError(t, os.WriteFile(b.path("bin", "hello"), nil, 0o755))
	require.False(t, b.upToDate(hello), "replaced by hand")
}

func TestProgramThatConsistsOfTestsIsBuiltAnewWhenTheyChange(t *testing.T) {
	b, write := helloModule(t)
	suite := binary{name: "hello.test", title: "a test", module: "tool", main: "./part", test: true, cold: time.Second}
	test := func(body string) string {
		return "package part\n\nimport \"testing\"\n\nfunc TestDo(t *testing.T) { " + body + " }\n"
	}
	write("part/part_test.go", test("Do()"))
	require.NoError(t, b.build(t.Context(), suite, 1, 1))
	require.True(t, b.upToDate(suite))
	out, err := run(t.Context(), b.root, nil, b.path("bin", "hello.test"))
	require.NoError(t, err)
	require.Contains(t, out, "PASS")

	write("part/part_test.go", test("t.Log()"))
	require.False(t, b.upToDate(suite), "changed test")
	require.NoError(t, b.build(t.Context(), suite, 1, 1))
	write("part/new_test.go", "package part\n")
	require.False(t, b.upToDate(suite), "new test")
	write("part/new_test.go", "package part\n\nvar _ = nonsense\n")
	require.ErrorContains(t, b.build(t.Context(), suite, 1, 1), "undefined: nonsense")
}

func TestFailedBuildShowsTheCompilersWordsAndKeepsTheOldBinary(t *testing.T) {
	b, write := helloModule(t)
	require.NoError(t, b.build(t.Context(), hello, 1, 1))
	write("part/part.go", "package part\n\nfunc Do() { nonsense }\n")
	err := b.build(t.Context(), hello, 1, 1)
	require.ErrorContains(t, err, "undefined: nonsense")
	require.FileExists(t, b.path("bin", "hello"))
	entries, err := os.ReadDir(b.path("bin"))
	require.NoError(t, err)
	require.Len(t, entries, 2, "the binary and the stamps, nothing temporary")
}

func TestBuildersWaitForEachOther(t *testing.T) {
	b, _ := helloModule(t)
	unlock, err := b.lock(t.Context())
	require.NoError(t, err)
	locked := make(chan func(), 1)
	go func() {
		second, err := b.lock(t.Context())
		if err == nil {
			locked <- second
		}
	}()
	require.Eventually(t, func() bool { return b.out.(*safeBuffer).String() == "waiting for another build of the lab\n" }, 5*time.Second, 10*time.Millisecond)
	require.Empty(t, locked)
	unlock()
	select {
	case second := <-locked:
		second()
	case <-time.After(5 * time.Second):
		t.Fatal("the second builder never got its turn")
	}
}

func TestBuildRefusesUnknownBinaries(t *testing.T) {
	require.ErrorContains(t, Build(t.Context(), &safeBuffer{}, "kcp", "nonsense"), "nonsense")
}
