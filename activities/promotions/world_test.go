package promotions

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"

	"github.com/fairway-project/fairway/activities/activitytest"
	"github.com/fairway-project/fairway/channels"
	"github.com/fairway-project/fairway/channels/channelstest"
	"github.com/fairway-project/fairway/forge"
	"github.com/fairway-project/fairway/promotion"
	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/workflows"
)

type files map[string]string

// errDead is what all the outside answers once the process is dead, from a call on that is chosen.
var errDead = errors.New("the process is dead")

// life counts the calls that reach the outside. The one numbered at is carried out, and then the process
// is dead.
type life struct {
	mu    sync.Mutex
	calls []string
	at    int
	dead  bool
}

// call does something outside and returns what came of it.
func (l *life) call(name string, do func() error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dead {
		return errDead
	}
	l.calls = append(l.calls, name)
	err := do()
	if len(l.calls) == l.at {
		l.dead = true
		return errDead
	}
	return err
}

func (l *life) reset(at int) { l.calls, l.at, l.dead = nil, at, false }

func (l *life) count(prefix string) (n int) {
	for _, name := range l.calls {
		if strings.HasPrefix(name, prefix) {
			n++
		}
	}
	return n
}

// world is a repository, its forge, and the actors.
type world struct {
	t      *testing.T
	origin channelstest.Repository
	life   *life
	forge  *memoryForge
	actors *memoryActors
	acts   *Activities
	blocks []workflows.Block
	silent bool // nobody answers about blocks
	now    time.Time
	// between is done once, before a push.
	between func()
	clock   int // of commits
}

var began = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC) // a Monday

func newWorld(t *testing.T, edges ...promotion.Edge) *world {
	w := &world{t: t, origin: channelstest.New(t), life: &life{}, now: began.Add(time.Minute)}
	w.forge = &memoryForge{w: w, comments: map[int]string{}, reviews: map[int][]forge.Review{}, statuses: map[string][]forge.Status{}, down: map[string]error{}, of: map[string][]forge.PullRequest{}}
	w.actors = &memoryActors{w: w, channels: map[string]*workflows.ChannelState{}, down: map[string]bool{}}
	if len(edges) == 0 {
		edges = []promotion.Edge{{From: "dev", To: "alpha", Mode: promotion.Merge}, {From: "alpha", To: "stable", Mode: promotion.ByPullRequest}}
	}
	for i := range edges {
		edges[i].Soak = new(time.Hour)
	}
	mirror := w.origin.Mirror()
	w.acts = &Activities{
		Pipeline:   promotion.Pipeline{Edges: edges, Author: "Fairway <fairway@example.org>", BreakingLabels: []string{"breaking"}},
		Repository: &memoryRepository{w: w, Mirror: mirror}, Folder: "cluster", Forge: w.forge,
		Temporal: w.actors, TaskQueue: "fairway",
		Blocks: func(context.Context, ...string) (holding []workflows.Block, err error) {
			return holding, w.life.call("blocks", func() error {
				if w.silent {
					return errors.New("no answer")
				}
				holding = w.blocks
				return nil
			})
		},
		Clusters: func(context.Context) (registry.Clusters, error) {
			return registry.Clusters{{ID: "a-1", Channel: "alpha"}, {ID: "a-2", Channel: "alpha"}, {ID: "gone", Channel: "alpha", LifecycleStatus: registry.Decommissioned}}, nil
		},
		Now: func() time.Time { return w.now },
	}
	first := w.commit("dev", "Begin", files{"cluster/manifests/a/a.yaml": numbered(nil)})
	for _, branch := range []string{"alpha", "stable"} {
		w.origin.Git("update-ref", "refs/heads/"+branch, first)
	}
	return w
}

// numbered is a file of some lines, of which some are otherwise.
func numbered(otherwise map[int]string) string {
	var b strings.Builder
	for i := range 30 {
		if text, found := otherwise[i]; found {
			fmt.Fprintln(&b, text)
		} else {
			fmt.Fprintf(&b, "line %d\n", i)
		}
	}
	return b.String()
}

// commit lands files on a branch, by a merge with further parents.
func (w *world) commit(branch, message string, changed files, merged ...string) string {
	w.t.Helper()
	w.clock++
	var b strings.Builder
	fmt.Fprintf(&b, "commit refs/heads/%s\ncommitter Anna <anna@example.org> %d +0000\ndata %d\n%s\n", branch, began.Unix()+int64(w.clock), len(message), message)
	if at := w.head(branch); at != "" {
		fmt.Fprintf(&b, "from %s\n", at)
	}
	for _, parent := range merged {
		fmt.Fprintf(&b, "merge %s\n", parent)
	}
	for _, name := range slices.Sorted(maps.Keys(changed)) {
		fmt.Fprintf(&b, "M 100644 inline %s\ndata %d\n%s\n", name, len(changed[name]), changed[name])
	}
	w.origin.GitWith(b.String(), "fast-import", "--quiet", "--force")
	return w.head(branch)
}

func (w *world) head(branch string) string {
	return w.origin.Git("for-each-ref", "--format=%(objectname)", "refs/heads/"+branch)
}

func (w *world) file(branch, name string) string {
	return w.origin.Git("show", branch+":"+name)
}

// soak has all landings of a channel be known, and soaked for some time.
func (w *world) soak(channel string, lasted time.Duration) {
	w.t.Helper()
	state := w.actors.channel(channel)
	var landings []promotion.Landing
	for _, line := range strings.Split(w.origin.Git("log", "--first-parent", "--reverse", "--format=%H %s", channel), "\n") {
		commit, title, _ := strings.Cut(line, " ")
		landings = append(landings, promotion.Landing{Commit: commit, Title: title, Author: "Anna"})
	}
	state.Promotions.Soak.Land(w.now.Add(-lasted), landings, false)
	state.Promotions.Soak.Observe(w.now.Add(-lasted), promotion.View{})
}

// promotes is the promotion of a candidate.
func (w *world) promotes(from, to, candidate string) workflows.PromotionOf {
	return workflows.PromotionOf{Record: promotion.Record{
		ID: promotion.ID(from, to, candidate), From: from, To: to, Candidate: candidate, Title: w.origin.Git("log", "-1", "--format=%s", candidate), Began: began,
	}}
}

func (w *world) run(activity, in, out any) error {
	return activitytest.Worker{}.Run(activity, in, out)
}

// mergesOf are the merges on a branch that name a promotion.
func (w *world) mergesOf(branch, id string) []string {
	return strings.Fields(w.origin.Git("log", "--first-parent", "--format=%H", "--fixed-strings", "--grep=Fairway-Promotion: "+id, branch))
}

func (w *world) has(branch, commit string) bool {
	return strings.Contains(w.origin.Git("rev-list", branch), commit)
}

// objects are those that the mirror has.
func (w *world) objects() string {
	mirror := channelstest.In(w.t, w.acts.Repository.(*memoryRepository).Dir)
	return mirror.Git("cat-file", "--batch-all-objects", "--batch-check", "--unordered")
}

// memoryRepository is the real mirror, with a life.
type memoryRepository struct {
	*channels.Mirror
	w *world
}

func (r *memoryRepository) Heads(ctx context.Context) (heads map[string]string, err error) {
	return heads, r.w.life.call("ls-remote", func() (err error) { heads, err = r.Mirror.Heads(ctx); return err })
}

func (r *memoryRepository) Merge(ctx context.Context, ours, theirs string, n channels.NewCommit) (commit string, err error) {
	return commit, r.w.life.call("merge", func() (err error) { commit, err = r.Mirror.Merge(ctx, ours, theirs, n); return err })
}

func (r *memoryRepository) Restore(ctx context.Context, head, to string, n channels.NewCommit) (commit string, err error) {
	return commit, r.w.life.call("restore", func() (err error) { commit, err = r.Mirror.Restore(ctx, head, to, n); return err })
}

func (r *memoryRepository) Push(ctx context.Context, branch, commit, expected string) error {
	if between := r.w.between; between != nil {
		r.w.between = nil
		between()
	}
	return r.w.life.call("push "+branch, func() error { return r.Mirror.Push(ctx, branch, commit, expected) })
}

func (r *memoryRepository) Reset(ctx context.Context, branch, commit, expected string) error {
	return r.w.life.call("reset "+branch, func() error { return r.Mirror.Reset(ctx, branch, commit, expected) })
}

func (r *memoryRepository) DeleteBranch(ctx context.Context, branch, expected string) error {
	return r.w.life.call("delete "+branch, func() error { return r.Mirror.DeleteBranch(ctx, branch, expected) })
}

func (r *memoryRepository) Tree(ctx context.Context, commit, folder string) (fs.FS, error) {
	return r.Mirror.Tree(ctx, commit, folder)
}

// memoryActors stand for Temporal.
type memoryActors struct {
	client.Client
	w        *world
	channels map[string]*workflows.ChannelState
	down     map[string]bool
	running  []string // ids of promotions
}

func (a *memoryActors) channel(name string) *workflows.ChannelState {
	if a.channels[name] == nil {
		a.channels[name] = &workflows.ChannelState{}
		a.channels[name].Channel = name
	}
	return a.channels[name]
}

func (a *memoryActors) QueryWorkflow(_ context.Context, id, _, query string, _ ...any) (value converter.EncodedValue, err error) {
	return value, a.w.life.call("query "+id, func() error {
		name := strings.TrimPrefix(id, "channel/")
		state := a.channels[name]
		if a.down[name] {
			return errors.New("no answer")
		}
		if state == nil || query != workflows.StateQuery {
			return serviceerror.NewNotFound("no such workflow")
		}
		payloads, err := converter.GetDefaultDataConverter().ToPayloads(*state)
		value = client.NewValue(payloads)
		return err
	})
}

func (a *memoryActors) DescribeWorkflowExecution(_ context.Context, id, _ string) (description *workflowservice.DescribeWorkflowExecutionResponse, err error) {
	return description, a.w.life.call("describe "+id, func() error {
		if !slices.Contains(a.running, id) {
			return serviceerror.NewNotFound("no such workflow")
		}
		description = &workflowservice.DescribeWorkflowExecutionResponse{WorkflowExecutionInfo: &workflowpb.WorkflowExecutionInfo{Status: enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING}}
		return nil
	})
}

func (a *memoryActors) SignalWithStartWorkflow(_ context.Context, id, signal string, arg any, _ client.StartWorkflowOptions, _ any, _ ...any) (client.WorkflowRun, error) {
	return nil, a.w.life.call("signal "+id, func() error {
		state := a.channel(strings.TrimPrefix(id, "channel/"))
		switch what := arg.(type) {
		case promotion.Record:
			require.Equal(a.w.t, workflows.PromotedName, signal)
			state.Promotions.Records = append(slices.DeleteFunc(state.Promotions.Records, func(r promotion.Record) bool { return r.ID == what.ID }), what)
		case promotion.Revert:
			require.Equal(a.w.t, workflows.RevertedName, signal)
			state.Promotions.Reverts = append(slices.DeleteFunc(state.Promotions.Reverts, func(r promotion.Revert) bool { return r.ID == what.ID }), what)
		default:
			a.w.t.Errorf("signal %s with %T", signal, arg)
		}
		return nil
	})
}

// memoryForge behaves as forge.Driver says.
type memoryForge struct {
	w        *world
	requests []*forge.PullRequest
	comments map[int]string
	edits    int // of comments that differ
	reviews  map[int][]forge.Review
	teams    map[string][]string // members by team
	readers  []string            // users who may not push
	statuses map[string][]forge.Status
	of       map[string][]forge.PullRequest // by commit
	down     map[string]error               // by method
	protects string                         // why nothing is merged
	atMerge  func(*forge.PullRequest)       // what somebody does right before a merge
}

func (f *memoryForge) call(name string, do func() error) error {
	return f.w.life.call("forge "+name, func() error {
		if err := f.down[name]; err != nil {
			return err
		}
		if err := f.down[""]; err != nil {
			return err
		}
		return do()
	})
}

func (f *memoryForge) get(number int) (*forge.PullRequest, error) {
	if number < 1 || number > len(f.requests) {
		return nil, fmt.Errorf("%w: pull request %d", forge.ErrNotFound, number)
	}
	pr := f.requests[number-1]
	if pr.State == forge.Open {
		if at := f.w.head(pr.Head); at != "" {
			pr.HeadCommit = at
		}
	}
	return pr, nil
}

func (f *memoryForge) PullRequest(_ context.Context, number int) (pr forge.PullRequest, err error) {
	return pr, f.call("PullRequest", func() error {
		found, err := f.get(number)
		if err == nil {
			pr = *found
		}
		return err
	})
}

func (f *memoryForge) FindPullRequest(_ context.Context, base, head string) (found *forge.PullRequest, err error) {
	return found, f.call("FindPullRequest", func() error {
		for _, each := range slices.Backward(f.requests) {
			if each.Base == base && each.Head == head {
				pr, _ := f.get(each.Number)
				copied := *pr
				copied.ClosedBy = ""
				found = &copied
				return nil
			}
		}
		return nil
	})
}

func (f *memoryForge) Open(_ context.Context, wanted forge.NewPullRequest) (pr forge.PullRequest, err error) {
	return pr, f.call("Open", func() error {
		for _, each := range f.requests {
			if each.Base == wanted.Base && each.Head == wanted.Head && each.State == forge.Open {
				pr = *each
				return nil
			}
		}
		at := f.w.head(wanted.Head)
		if at == "" {
			return fmt.Errorf("%w: no branch %s", forge.ErrInvalid, wanted.Head)
		}
		opened := &forge.PullRequest{
			Number: len(f.requests) + 1, Title: wanted.Title, Body: wanted.Body, Author: "fairway", Labels: wanted.Labels, Head: wanted.Head, Base: wanted.Base,
			HeadCommit: at, State: forge.Open, Updated: f.w.now,
		}
		opened.URL = fmt.Sprintf("https://forge.example.org/pulls/%d", opened.Number)
		f.requests = append(f.requests, opened)
		pr = *opened
		return nil
	})
}

func (f *memoryForge) Edit(_ context.Context, number int, title, body string) error {
	return f.call("Edit", func() error {
		pr, err := f.get(number)
		if err == nil {
			pr.Title, pr.Body = title, body
		}
		return err
	})
}

func (f *memoryForge) Close(_ context.Context, number int) error {
	return f.call("Close", func() error { return f.closeAs(number, "fairway") })
}

func (f *memoryForge) closeAs(number int, user string) error {
	pr, err := f.get(number)
	if err == nil && pr.State == forge.Open {
		pr.State, pr.ClosedBy, pr.Updated = forge.Closed, user, f.w.now
	}
	return err
}

func (f *memoryForge) Merge(_ context.Context, number int, head, title, message string) (commit string, err error) {
	return commit, f.call("Merge", func() error {
		pr, err := f.get(number)
		switch {
		case err != nil:
			return err
		case pr.HeadCommit != head:
			return forge.ErrMoved
		case pr.State == forge.Merged:
			commit = pr.Merge
			return nil
		case pr.State == forge.Closed || f.protects != "":
			return fmt.Errorf("%w: %s", forge.ErrNotMergeable, f.protects)
		}
		if f.atMerge != nil {
			f.atMerge(pr)
		}
		commit = f.mergeAs(pr, "fairway", title+"\n\n"+message)
		return nil
	})
}

// mergeAs merges as a user does it on the forge.
func (f *memoryForge) mergeAs(pr *forge.PullRequest, user, message string) string {
	base := f.w.head(pr.Base)
	tree := f.w.origin.Git("merge-tree", "--write-tree", base, pr.HeadCommit)
	commit := f.w.origin.Git("commit-tree", tree, "-p", base, "-p", pr.HeadCommit, "-m", message)
	f.w.origin.Git("update-ref", "refs/heads/"+pr.Base, commit)
	pr.State, pr.Merge, pr.MergedBy, pr.Updated = forge.Merged, commit, user, f.w.now
	return commit
}

func (f *memoryForge) Reviews(_ context.Context, number int) (reviews []forge.Review, err error) {
	return reviews, f.call("Reviews", func() error { reviews = f.reviews[number]; return nil })
}

func (f *memoryForge) Member(_ context.Context, team, user string) (member bool, err error) {
	return member, f.call("Member", func() error {
		members, found := f.teams[team]
		if !found {
			return fmt.Errorf("%w: team %s", forge.ErrNotFound, team)
		}
		member = slices.Contains(members, user)
		return nil
	})
}

func (f *memoryForge) CanWrite(_ context.Context, user string) (can bool, err error) {
	return can, f.call("CanWrite", func() error { can = !slices.Contains(f.readers, user); return nil })
}

func (f *memoryForge) Statuses(_ context.Context, commit string) (statuses []forge.Status, err error) {
	return statuses, f.call("Statuses", func() error { statuses = f.statuses[commit]; return nil })
}

func (f *memoryForge) Comment(_ context.Context, number int, marker, text string) error {
	return f.call("Comment", func() error {
		require.Equal(f.w.t, statusMarker, marker)
		if _, err := f.get(number); err != nil {
			return err
		}
		if f.comments[number] != text {
			f.comments[number] = text
			f.edits++
		}
		return nil
	})
}

func (f *memoryForge) OwnComment(_ context.Context, number int, _ string) (text string, found bool, err error) {
	return text, found, f.call("OwnComment", func() error { text, found = f.comments[number], f.comments[number] != ""; return nil })
}

func (f *memoryForge) PullRequestsOf(_ context.Context, commit string) (all []forge.PullRequest, err error) {
	return all, f.call("PullRequestsOf", func() error { all = f.of[commit]; return nil })
}

func (f *memoryForge) Self(context.Context) (string, error) { return "fairway", nil }

func (f *memoryForge) CompareURL(base, head string) string {
	return "https://forge.example.org/compare/" + base + "..." + head
}
