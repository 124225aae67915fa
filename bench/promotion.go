package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/fairway-project/fairway/channels"
)

const promotionName = "promotion"

// The repository, as large as the largest that is known to be promoted through channels. Each change is
// a commit and its merge.
const (
	configFiles   = 373
	linesOfFile   = 250
	changes       = 8000
	alphaEvery    = 4 // changes, for a promotion from dev to alpha; the further ones are half as frequent
	promotionStep = "FAIRWAY_BENCH_PROMOTION"
)

// promotions is what git work on a large repository costs Fairway and plain git, over one way to reach it.
type promotions struct {
	Server  string           `json:"server"`
	Fairway promotionEffort  `json:"fairway"`
	Floor   promotionEffort  `json:"floor"`
	Ratios  promotionSeconds `json:"ratios"`
	Load    spread           `json:"load"`
}

// promotionEffort is the median of some rounds, and the memory that the worst of them took.
type promotionEffort struct {
	Seconds promotionSeconds `json:"seconds"`
	Spread  struct {
		Look    spread `json:"look"`
		Promote spread `json:"promote"`
	} `json:"spread"`
	Cold float64 `json:"cold_seconds"` // to make the mirror
	// Own is by how much the process itself grew at most, Git is the largest git that it started, in MiB.
	// That of a local path includes the other side.
	Own float64 `json:"own_mib"`
	Git float64 `json:"git_mib"`
}

type promotionSeconds struct {
	Idle    float64 `json:"idle"`    // a look when nothing has moved
	Look    float64 `json:"look"`    // a look that finds, and fetches, a landing
	Merge   float64 `json:"merge"`   // of the landing into the next channel
	Push    float64 `json:"push"`    // of the merge
	Promote float64 `json:"promote"` // both
}

// promotionWork is what one process does in a round, and what comes of it.
type promotionWork struct {
	Floor bool   `json:"floor"`
	URL   string `json:"url"`
	Dir   string `json:"dir"` // of the mirror
	// Known is the head of dev that the process knows; empty if it is to make the mirror.
	Known string `json:"known"`

	Seconds promotionSeconds `json:"seconds"`
	Cold    float64          `json:"cold"`
	Own     float64          `json:"own"`
	Git     float64          `json:"git"`
	Load    float64          `json:"load"`
}

// measurePromotions has a change land on dev and promoted to alpha in each round, first by Fairway and
// then by plain git, which does nothing that it need not.
func measurePromotions(ctx context.Context, rounds int) (all []promotions, err error) {
	dir, err := os.MkdirTemp("", "fairway-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	origin := filepath.Join(dir, "config.git")
	fmt.Fprintln(os.Stderr, "making a repository of 20,000 commits and 8,000 refs ...")
	if err := makeRepository(ctx, origin); err != nil {
		return nil, fmt.Errorf("making a repository: %w", err)
	}
	execPath, err := plainGit(ctx, origin, "--exec-path")
	if err != nil {
		return nil, err
	}
	serving := httptest.NewServer(&cgi.Handler{Path: filepath.Join(execPath, "git-http-backend"), Env: []string{"GIT_PROJECT_ROOT=" + dir, "GIT_HTTP_EXPORT_ALL=1"}})
	defer serving.Close()
	for _, server := range []struct{ name, url string }{{"path", origin}, {"http", serving.URL + "/config.git"}} {
		one, err := comparePromotions(ctx, origin, server.url, filepath.Join(dir, server.name), rounds)
		if err != nil {
			return nil, fmt.Errorf("by %s: %w", server.name, err)
		}
		one.Server = server.name
		all = append(all, one)
	}
	return all, nil
}

func comparePromotions(ctx context.Context, origin, url, dir string, rounds int) (out promotions, err error) {
	done := map[bool][]promotionWork{}
	var loads []trial
	for round := range rounds + 1 {
		for _, floor := range []bool{round%2 == 1, round%2 == 0} {
			work := promotionWork{Floor: floor, URL: url, Dir: filepath.Join(dir, fmt.Sprintf("floor-%t.git", floor))}
			work.Load = loadAverage()
			if round > 0 { // the first one makes the mirror
				if work.Known, err = plainGit(ctx, origin, "rev-parse", "refs/heads/dev"); err != nil {
					return out, err
				}
			}
			before, err := plainGit(ctx, origin, "rev-parse", "refs/heads/alpha")
			if err != nil {
				return out, err
			}
			if err := inProcess(ctx, origin, &work, round); err != nil {
				return out, err
			}
			if round == 0 {
				out.effort(floor).Cold = work.Cold
				continue
			}
			if err := takeBack(ctx, origin, before); err != nil {
				return out, err
			}
			done[floor] = append(done[floor], work)
			loads = append(loads, trial{Load: work.Load})
		}
	}
	for floor, works := range done {
		out.effort(floor).summarise(works)
	}
	f, g := out.Fairway.Seconds, out.Floor.Seconds
	out.Ratios = promotionSeconds{f.Idle / g.Idle, f.Look / g.Look, f.Merge / g.Merge, f.Push / g.Push, f.Promote / g.Promote}
	out.Load = spreadOf(loads, func(t trial) float64 { return t.Load })
	return out, nil
}

func (p *promotions) effort(floor bool) *promotionEffort {
	if floor {
		return &p.Floor
	}
	return &p.Fairway
}

func (e *promotionEffort) summarise(works []promotionWork) {
	of := func(value func(promotionSeconds) float64) spread {
		trials := make([]trial, len(works))
		for i, work := range works {
			trials[i].Seconds = value(work.Seconds)
		}
		return spreadOf(trials, func(t trial) float64 { return t.Seconds })
	}
	e.Spread.Look = of(func(s promotionSeconds) float64 { return s.Look })
	e.Spread.Promote = of(func(s promotionSeconds) float64 { return s.Promote })
	e.Seconds = promotionSeconds{
		Idle: of(func(s promotionSeconds) float64 { return s.Idle }).Median, Look: e.Spread.Look.Median,
		Merge: of(func(s promotionSeconds) float64 { return s.Merge }).Median, Push: of(func(s promotionSeconds) float64 { return s.Push }).Median,
		Promote: e.Spread.Promote.Median,
	}
	for _, work := range works {
		e.Own, e.Git = max(e.Own, work.Own), max(e.Git, work.Git)
	}
}

// inProcess has a process of its own do the work, whose memory nothing else has touched.
func inProcess(ctx context.Context, origin string, work *promotionWork, round int) error {
	if round > 0 {
		if err := change(ctx, origin, fmt.Sprintf("round %d, floor %t", round, work.Floor)); err != nil {
			return err
		}
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	input, err := json.Marshal(work)
	if err != nil {
		return err
	}
	command := exec.CommandContext(ctx, program)
	command.Env = append(os.Environ(), promotionStep+"="+string(input))
	command.Stderr = os.Stderr
	answer, err := command.Output()
	if err != nil {
		return err
	}
	return json.Unmarshal(answer, work)
}

// doPromotionWork is what such a process does.
func doPromotionWork(ctx context.Context, input string, out io.Writer) error {
	var work promotionWork
	if err := json.Unmarshal([]byte(input), &work); err != nil {
		return err
	}
	before, err := memory("VmRSS")
	if err != nil {
		return err
	}
	step := work.fairway
	if work.Floor {
		step = work.plain
	}
	if err := step(ctx); err != nil {
		return err
	}
	peak, err := memory("VmHWM")
	if err != nil {
		return err
	}
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_CHILDREN, &usage); err != nil {
		return err
	}
	work.Own, work.Git = peak-before, float64(usage.Maxrss)/1024
	work.Seconds.Promote = work.Seconds.Merge + work.Seconds.Push
	return json.NewEncoder(out).Encode(work)
}

// timed does steps one after another, up to the first that fails.
func timed(steps ...func() (into *float64, do func() error)) error {
	for _, step := range steps {
		into, do := step()
		began := time.Now()
		if err := do(); err != nil {
			return err
		}
		*into += time.Since(began).Seconds()
	}
	return nil
}

func (w *promotionWork) fairway(ctx context.Context) error {
	m := &channels.Mirror{URL: w.URL, Dir: w.Dir}
	var heads map[string]string
	landed := 0
	look := func(known string) (err error) {
		if heads, err = m.Heads(ctx); err != nil {
			return err
		}
		landings, _, err := m.Landings(ctx, known, heads["dev"], 300)
		landed += len(landings)
		return err
	}
	if w.Known == "" {
		return timed(func() (*float64, func() error) { return &w.Cold, func() error { return look("") } })
	}
	merge := ""
	err := timed(
		func() (*float64, func() error) { return &w.Seconds.Look, func() error { return look(w.Known) } },
		func() (*float64, func() error) { return &w.Seconds.Idle, func() error { return look(heads["dev"]) } },
		func() (*float64, func() error) {
			return &w.Seconds.Merge, func() (err error) {
				merge, err = m.Merge(ctx, heads["alpha"], heads["dev"], channels.NewCommit{Message: "Promote dev to alpha", Author: "Fairway <fairway@localhost>", At: time.Now()})
				return err
			}
		},
		func() (*float64, func() error) {
			return &w.Seconds.Push, func() error { return m.Push(ctx, "alpha", merge, heads["alpha"]) }
		},
	)
	if err == nil && landed != 1 {
		return fmt.Errorf("%d landings were seen instead of one", landed)
	}
	return err
}

// plain does with git what cannot be left out.
func (w *promotionWork) plain(ctx context.Context) error {
	git := func(args ...string) (string, error) { return plainGit(ctx, w.Dir, args...) }
	heads := map[string]string{}
	list := func() error {
		answer, err := git("ls-remote", "--heads", w.URL)
		for line := range strings.Lines(answer) {
			if commit, ref, found := strings.Cut(strings.TrimSpace(line), "\t"); found {
				heads[strings.TrimPrefix(ref, "refs/heads/")] = commit
			}
		}
		return err
	}
	fetch := func() error {
		_, err := git("-c", "fetch.writeCommitGraph=true", "-c", "gc.auto=0", "fetch", "--quiet", "--prune", "--no-write-fetch-head", w.URL, "+refs/heads/*:refs/heads/*")
		return err
	}
	if w.Known == "" {
		return timed(func() (*float64, func() error) {
			return &w.Cold, func() error {
				if _, err := git("init", "--quiet", "--bare"); err != nil {
					return err
				}
				return fetch()
			}
		})
	}
	merge := ""
	return timed(
		func() (*float64, func() error) {
			return &w.Seconds.Look, func() error {
				if err := list(); err != nil {
					return err
				}
				if err := fetch(); err != nil {
					return err
				}
				_, err := git("log", "--first-parent", "--format=%H %P %ct %an %s", w.Known+".."+heads["dev"])
				return err
			}
		},
		func() (*float64, func() error) { return &w.Seconds.Idle, list },
		func() (*float64, func() error) {
			return &w.Seconds.Merge, func() error {
				tree, err := git("merge-tree", "--write-tree", heads["alpha"], heads["dev"])
				if err != nil {
					return err
				}
				merge, err = git("commit-tree", "-p", heads["alpha"], "-p", heads["dev"], "-m", "Promote dev to alpha", tree)
				return err
			}
		},
		func() (*float64, func() error) {
			return &w.Seconds.Push, func() error {
				_, err := git("push", "--quiet", w.URL, merge+":refs/heads/alpha")
				return err
			}
		},
	)
}

// memory of this process in MiB, by its name in proc(5).
func memory(name string) (float64, error) {
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	_, rest, found := strings.Cut(string(data), name+":")
	if !found {
		return 0, fmt.Errorf("the system does not say %s", name)
	}
	kib, err := strconv.Atoi(strings.Fields(rest)[0])
	return float64(kib) / 1024, err
}

func plainGit(ctx context.Context, dir string, args ...string) (string, error) {
	command := exec.CommandContext(ctx, "git", args...)
	command.Env = append(os.Environ(), "GIT_DIR="+dir, "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_CONFIG_NOSYSTEM=1",
		"GIT_AUTHOR_NAME=Anna", "GIT_AUTHOR_EMAIL=anna@example.org", "GIT_COMMITTER_NAME=Anna", "GIT_COMMITTER_EMAIL=anna@example.org")
	var said bytes.Buffer
	command.Stderr = &said
	answer, err := command.Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w: %s", args[0], err, said.String())
	}
	return strings.TrimSpace(string(answer)), nil
}

// change lands on dev by a merge.
func change(ctx context.Context, origin, title string) error {
	stream := &strings.Builder{}
	fmt.Fprintf(stream, "commit refs/heads/topic\nmark :1\ncommitter Anna <anna@example.org> %d +0000\ndata %d\n%s\nfrom refs/heads/dev^0\nM 100644 inline %s\ndata %d\n%s\n",
		time.Now().Unix(), len(title), title, fileName(7), len(title), title)
	fmt.Fprintf(stream, "commit refs/heads/dev\ncommitter Anna <anna@example.org> %d +0000\ndata %d\n%s\nfrom refs/heads/dev^0\nmerge :1\nM 100644 inline %s\ndata %d\n%s\n",
		time.Now().Unix(), len(title), title, fileName(7), len(title), title)
	return importStream(ctx, origin, func(w *bufio.Writer) { _, _ = w.WriteString(stream.String()) })
}

// takeBack sees that dev has been promoted to alpha, and takes alpha back for the next one.
func takeBack(ctx context.Context, origin, before string) error {
	if _, err := plainGit(ctx, origin, "merge-base", "--is-ancestor", "refs/heads/dev", "refs/heads/alpha"); err != nil {
		return fmt.Errorf("alpha lacks what is on dev: %w", err)
	}
	_, err := plainGit(ctx, origin, "update-ref", "refs/heads/alpha", before)
	return err
}

func importStream(ctx context.Context, origin string, write func(*bufio.Writer)) error {
	command := exec.CommandContext(ctx, "git", "fast-import", "--quiet", "--force")
	command.Env = append(os.Environ(), "GIT_DIR="+origin)
	command.Stderr = os.Stderr
	pipe, err := command.StdinPipe()
	if err != nil {
		return err
	}
	if err := command.Start(); err != nil {
		return err
	}
	buffer := bufio.NewWriterSize(pipe, 1<<20)
	write(buffer)
	return errors.Join(buffer.Flush(), pipe.Close(), command.Wait())
}

func fileName(i int) string {
	return fmt.Sprintf("cluster/manifests/app-%02d/%02d-part.yaml", i/7, i%7)
}

// makeRepository writes one whose changes go through dev, alpha, beta and stable.
func makeRepository(ctx context.Context, origin string) error {
	if _, err := plainGit(ctx, origin, "init", "--quiet", "--bare", "--initial-branch=dev"); err != nil {
		return err
	}
	if _, err := plainGit(ctx, origin, "config", "http.receivepack", "true"); err != nil {
		return err
	}
	return importStream(ctx, origin, func(w *bufio.Writer) {
		line := []string{"dev", "alpha", "beta", "stable"}
		var texts [configFiles][]string
		mark, at := 0, int64(1_500_000_000)
		heads := map[string]int{}
		behind := map[string]map[int]int{} // what the channel before has and this one lacks: blobs by file
		blob := func(file int) int {
			text := strings.Join(texts[file], "\n")
			mark++
			fmt.Fprintf(w, "blob\nmark :%d\ndata %d\n%s\n", mark, len(text), text)
			return mark
		}
		commit := func(ref, title string, files map[int]int, parents ...int) int {
			mark, at = mark+1, at+60
			fmt.Fprintf(w, "commit %s\nmark :%d\ncommitter Anna <anna@example.org> %d +0000\ndata %d\n%s\n", ref, mark, at, len(title), title)
			for i, parent := range parents {
				fmt.Fprintf(w, "%s :%d\n", []string{"from", "merge"}[min(i, 1)], parent)
			}
			for file, blob := range files {
				fmt.Fprintf(w, "M 100644 :%d %s\n", blob, fileName(file))
			}
			return mark
		}
		first := map[int]int{}
		for file := range configFiles {
			for i := range linesOfFile {
				texts[file] = append(texts[file], fmt.Sprintf("key-%d-%d: \"value of line %d\"", file, i, i))
			}
			first[file] = blob(file)
		}
		root := commit("refs/heads/dev", "begin", first)
		for _, channel := range line {
			heads[channel] = root
			behind[channel] = map[int]int{}
			fmt.Fprintf(w, "reset refs/heads/%s\nfrom :%d\n", channel, root)
		}
		for n := 1; n <= changes; n++ {
			file := n * 31 % configFiles
			texts[file][n*17%linesOfFile] = fmt.Sprintf("key-%d: \"change %d\"", file, n)
			files := map[int]int{file: blob(file)}
			topic := commit(fmt.Sprintf("refs/pull/%d/head", n), fmt.Sprintf("change %d", n), files, heads["dev"])
			heads["dev"] = commit("refs/heads/dev", fmt.Sprintf("Merge pull request #%d", n), files, heads["dev"], topic)
			behind["alpha"][file] = files[file]
			for i, channel := range line[1:] {
				if n%(alphaEvery*min(i+1, 2)) != 0 {
					continue
				}
				heads[channel] = commit("refs/heads/"+channel, "Promote "+line[i]+" to "+channel, behind[channel], heads[channel], heads[line[i]])
				if i+2 < len(line) {
					for file, blob := range behind[channel] {
						behind[line[i+2]][file] = blob
					}
				}
				behind[channel] = map[int]int{}
			}
		}
	})
}

func printPromotions(out io.Writer, all []promotions) {
	fmt.Fprintln(out, "\npromotion: looks, merges and pushes on a repository of 20,000 commits, 8,000 refs and 373 files")
	for _, p := range all {
		fmt.Fprintf(out, "by %s; load average %.1f [%.1f-%.1f] on %d CPUs\n", p.Server, p.Load.Median, p.Load.Least, p.Load.Most, runtime.NumCPU())
		table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "\tidle look s\tlook s\tmerge s\tpush s\tmerge and push s\tnew mirror s\tprocess MiB\tgit MiB")
		for _, each := range []struct {
			name string
			promotionEffort
		}{{"fairway", p.Fairway}, {"floor", p.Floor}} {
			s := each.Seconds
			fmt.Fprintf(table, "%s\t%.3f\t%.3f [%.3f-%.3f]\t%.3f\t%.3f\t%.3f [%.3f-%.3f]\t%.1f\t+%.0f\t%.0f\n", each.name, s.Idle, s.Look, each.Spread.Look.Least, each.Spread.Look.Most,
				s.Merge, s.Push, s.Promote, each.Spread.Promote.Least, each.Spread.Promote.Most, each.Cold, each.Own, each.Git)
		}
		fmt.Fprintf(table, "ratio\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\n", p.Ratios.Idle, p.Ratios.Look, p.Ratios.Merge, p.Ratios.Push, p.Ratios.Promote)
		_ = table.Flush()
	}
}
