package main

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"time"

	"code.gitea.io/sdk/gitea"
	"github.com/goccy/go-yaml"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"golang.org/x/sync/errgroup"

	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/promotion"
	"github.com/fairway-project/fairway/workflows"
)

// configure adds the edges of the stories to the pipeline of the lab's configuration, which its worker
// has to be started with.
func configure(file string) error {
	c, err := config.Load(file)
	if err != nil {
		return err
	}
	for _, edge := range []promotion.Edge{
		{From: "junction", To: end("junction"), Mode: promotion.Merge},
		{From: "spur", To: end("spur"), Mode: promotion.ByPullRequest, PullRequest: promotion.PullRequest{Reviewers: []string{"reviewer"}, Automerge: true}},
	} {
		if _, known := c.Pipeline.Edge(edge.From, edge.To); known {
			continue
		}
		edge.Soak = new(2 * time.Second)
		c.Pipeline.Edges = append(c.Pipeline.Edges, edge)
		c.Pipeline.Channels = append(c.Pipeline.Channels, edge.From, edge.To)
	}
	data, err := yaml.Marshal(c)
	if err != nil {
		return err
	}
	return os.WriteFile(file, data, 0o644)
}

// end is the channel that a story promotes to.
func end(channel string) string { return channel + "-end" }

// promoting is a channel and the one that it is promoted to, where it begins. Neither has clusters.
type promoting struct {
	*channel
	to *channel
}

func (c *channel) promotes() promoting {
	name := end(c.name)
	c.base = name
	return promoting{c, &channel{stage: c.stage, name: name, clone: filepath.Join(filepath.Dir(c.clone), name)}}
}

func (p promoting) id() string { return workflows.PromotionID(p.from(), p.to.name) }

func (p promoting) from() string { return p.name }

// says is an edit of the one file that the stories are about.
func says(text string) edits {
	return edits{"scene.yaml": func(string) string { return "scene: " + text + "\n" }}
}

// junction is about an edge that is merged: what is promoted, held by a block of the fleet, in conflict, and
// taken back again. Its channel's actor begins a new run while people ask things of it.
func junction(s *stage, c *channel) []step {
	p := c.promotes()
	because := workflows.BlockRequest{Reason: "a scene", By: "the recorder"}
	return []step{
		p.to.pushed("Begin", says("begin")), p.to.known(),
		c.pushed("Change", says("changed")), c.known(),
		p.begun(), p.over(promotion.Merged),
		p.notDue(),

		s.commanded("fleet", "block", "--reason", "a scene"),
		c.pushed("Change more", says("changed more")), c.known(),
		s.triggered(workflows.HealthID),
		c.shown("knows of the block", func(state workflows.ChannelState) bool { return state.Looked.Blocked != "" }),
		p.notDue(),
		s.commanded("fleet", "unblock"),
		s.triggered(workflows.HealthID),
		c.shown("knows of no block", func(state workflows.ChannelState) bool { return state.Looked.Blocked == "" }),
		p.begun(), p.over(promotion.Merged),

		p.to.pushed("Mend it at the end", says("mended at the end")), p.to.known(),
		c.pushed("Mend it", says("mended")), c.known(),
		p.begun(), p.over(promotion.Conflicted),
		c.pushed("Do as the end does", says("mended at the end")), c.known(),
		p.begun(), p.over(promotion.Merged),

		p.to.fetched(), p.to.known(),
		p.setBack(),
		c.pushed("Go on", says("gone on")), c.known(),
		p.notDue(),
		s.ordered(workflows.ChannelID(p.to.name), workflows.LiftRevertName, workflows.LiftRevert{Reason: "a scene", By: "the recorder"}),
		p.begun(), p.over(promotion.Merged),

		s.worn(workflows.ChannelID(p.to.name), 2000, func(ctx context.Context, i int) error {
			if i%10 > 1 { // about a cluster that is none of the channel's
				return s.signalled(workflows.ChannelID(p.to.name), workflows.ReportName, workflows.ClusterReport{Cluster: "elsewhere"})(ctx)
			}
			if i%10 == 1 {
				return s.ordered(workflows.ChannelID(p.to.name), workflows.UnblockName, workflows.UnblockRequest{By: "the recorder"})(ctx)
			}
			return s.ordered(workflows.ChannelID(p.to.name), workflows.BlockName, because)(ctx)
		}),
		s.ordered(workflows.ChannelID(p.to.name), workflows.UnblockName, workflows.UnblockRequest{By: "the recorder"}),
	}
}

// spur is about an edge of pull requests: one that is approved, others that are withdrawn, cancelled,
// refused, looked at all the time, and in conflict.
func spur(s *stage, c *channel) []step {
	p := c.promotes()
	look := s.signalled(p.id(), workflows.LookName, nil)
	withdrawn := s.signalled(p.id(), workflows.WithdrawName, workflows.WithdrawRequest{Reason: "a scene", By: "the recorder"})
	proposed := func(what string) step {
		return inTurn(c.pushed("Have it "+what, says(what)), c.known(), p.begun(), p.following())
	}
	return []step{
		p.to.pushed("Begin", says("begin")), p.to.known(),
		proposed("approved"), look, p.approved(), look, p.over(promotion.Merged),
		proposed("withdrawn"), withdrawn, p.over(promotion.Withdrawn),
		proposed("cancelled"), s.cancelled(p.id()), p.cancelled(),
		proposed("refused"), p.refused(), p.over(promotion.Refused),
		proposed("looked at"), s.worn(p.id(), 1000, func(ctx context.Context, _ int) error { return look(ctx) }), p.following(), withdrawn, p.over(promotion.Withdrawn),
		p.to.fetched(), p.to.pushed("Mend it at the end", says("mended at the end")), p.to.known(),
		c.pushed("Mend it", says("mended")), c.known(), p.begun(), p.over(promotion.Conflicted),
		p.misled(),
	}
}

func inTurn(steps ...step) step {
	return func(ctx context.Context) error {
		for _, next := range steps {
			if err := next(ctx); err != nil {
				return err
			}
		}
		return nil
	}
}

// look has Fairway look once along the edge.
func (p promoting) look(ctx context.Context) (choice workflows.PromotionChoice, err error) {
	run, err := p.temporal.ExecuteWorkflow(ctx, client.StartWorkflowOptions{ID: p.id() + "/look", TaskQueue: taskQueue},
		workflows.ConsiderPromotion, workflows.ChoosePromotion{From: p.from(), To: p.to.name})
	if err != nil {
		return choice, err
	}
	return choice, run.Get(ctx, &choice)
}

// begun looks until a promotion begins, notDue has a look begin none.
func (p promoting) begun() step {
	return func(ctx context.Context) error {
		return until(ctx, p.id()+" has begun", func(ctx context.Context) (bool, error) {
			choice, err := p.look(ctx)
			return choice.Go, err
		})
	}
}

func (p promoting) notDue() step {
	return func(ctx context.Context) error {
		choice, err := p.look(ctx)
		if err == nil && choice.Go {
			err = fmt.Errorf("%s has begun, though nothing was due", p.id())
		}
		return err
	}
}

// following waits until the promotion waits for people.
func (p promoting) following() step {
	return func(ctx context.Context) error {
		return until(ctx, p.id()+" follows its pull request", func(ctx context.Context) (bool, error) {
			var progress workflows.PromotionProgress
			return p.ask(ctx, p.id(), workflows.ProgressQuery, &progress) && progress.Phase == "following" && progress.PullRequest > 0, nil
		})
	}
}

// over waits until the promotion has ended so, cancelled until it was cancelled.
func (p promoting) over(outcome promotion.Outcome) step {
	return func(ctx context.Context) error {
		var record promotion.Record
		if err := p.temporal.GetWorkflow(ctx, p.id(), "").Get(ctx, &record); err != nil {
			return err
		}
		if record.Outcome != outcome {
			return fmt.Errorf("%s is %s, not %s: %s", p.id(), record.Outcome, outcome, record.Detail)
		}
		return p.sync(ctx)
	}
}

func (p promoting) cancelled() step {
	return func(ctx context.Context) error {
		if err := p.temporal.GetWorkflow(ctx, p.id(), "").Get(ctx, nil); !temporal.IsCanceledError(err) {
			return fmt.Errorf("%s was not cancelled: %w", p.id(), err)
		}
		return nil
	}
}

// approved and refused are what the second user does on the forge.
func (p promoting) approved() step {
	return p.reviewed(func(forge *gitea.Client, owner, repository string, of promotion.Record) error {
		_, _, err := forge.CreatePullReview(owner, repository, int64(of.PullRequest), gitea.CreatePullReviewOptions{
			State: gitea.ReviewStateApproved, Body: "seen", CommitID: of.Candidate,
		})
		return err
	})
}

func (p promoting) refused() step {
	return p.reviewed(func(forge *gitea.Client, owner, repository string, of promotion.Record) error {
		closed := gitea.StateClosed
		_, _, err := forge.EditPullRequest(owner, repository, int64(of.PullRequest), gitea.EditPullRequestOption{State: &closed})
		return err
	})
}

func (p promoting) reviewed(do func(forge *gitea.Client, owner, repository string, of promotion.Record) error) step {
	return func(ctx context.Context) error {
		var progress workflows.PromotionProgress
		if !p.ask(ctx, p.id(), workflows.ProgressQuery, &progress) {
			return fmt.Errorf("%s does not answer", p.id())
		}
		address, err := url.Parse(p.config.Repository.URL)
		if err != nil {
			return err
		}
		owner, repository := path.Split(strings.TrimSuffix(address.Path, ".git"))
		forge, err := gitea.NewClient(os.Getenv("FORGE_URL"), gitea.SetContext(ctx), gitea.SetGiteaVersion(""), gitea.SetToken(os.Getenv("FORGE_REVIEWER_TOKEN")))
		if err != nil {
			return err
		}
		return do(forge, strings.Trim(owner, "/"), repository, progress.Record)
	}
}

// setBack reverts the end of the edge to what it had before its last landing.
func (p promoting) setBack() step {
	return func(ctx context.Context) error {
		var state workflows.ChannelState
		if !p.ask(ctx, workflows.ChannelID(p.to.name), workflows.StateQuery, &state) || len(state.Promotions.Soak.Landings) < 2 {
			return fmt.Errorf("channel %s knows of no two landings", p.to.name)
		}
		landings := state.Promotions.Soak.Landings
		return inTurn(
			p.commanded("channel", "revert", p.to.name, "--to", landings[len(landings)-2].Commit, "--reason", "a scene"),
			p.sync,
			p.to.shown("is set back", func(state workflows.ChannelState) bool { return len(state.Promotions.Reverts) > 0 }),
		)(ctx)
	}
}

// commanded runs the command line.
func (s *stage) commanded(args ...string) step {
	return func(ctx context.Context) error {
		if out, err := exec.CommandContext(ctx, "bin/fairway", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("fairway %s: %w: %s", strings.Join(args, " "), err, out)
		}
		return nil
	}
}

// misled starts a promotion, and a look, along an edge that there is not.
func (p promoting) misled() step {
	return func(ctx context.Context) error {
		const nowhere = "nowhere"
		id := workflows.PromotionID(p.from(), nowhere)
		for suffix, start := range map[string]func(client.StartWorkflowOptions) (client.WorkflowRun, error){
			"": func(o client.StartWorkflowOptions) (client.WorkflowRun, error) {
				return p.temporal.ExecuteWorkflow(ctx, o, workflows.Promote, workflows.PromoteInput{From: p.from(), To: nowhere, By: "the recorder", Reason: "a scene"})
			},
			"/look": func(o client.StartWorkflowOptions) (client.WorkflowRun, error) {
				return p.temporal.ExecuteWorkflow(ctx, o, workflows.ConsiderPromotion, workflows.ChoosePromotion{From: p.from(), To: nowhere})
			},
		} {
			run, err := start(client.StartWorkflowOptions{ID: id + suffix, TaskQueue: taskQueue})
			if err != nil {
				return err
			}
			if err := run.Get(ctx, nil); err == nil {
				return fmt.Errorf("%s leads nowhere, and has not failed", run.GetID())
			}
		}
		return nil
	}
}

// worn does things to a workflow, many at a time, until its history is so long that it begins a new run.
func (s *stage) worn(id string, length int64, do func(ctx context.Context, i int) error) step {
	return func(ctx context.Context) error {
		var first string
		for i := 0; ; i += 20 {
			found, err := s.temporal.DescribeWorkflowExecution(ctx, id, "")
			if err != nil {
				return err
			}
			info, many := found.WorkflowExecutionInfo, 20
			switch run := info.Execution.RunId; {
			case first == "":
				first = run
			case run != first:
				return nil
			case info.HistoryLength >= length: // what it does now may take a while
				many = 1
				time.Sleep(200 * time.Millisecond)
			}
			together, limited := errgroup.WithContext(ctx)
			for j := range many {
				together.Go(func() error { return do(limited, i+j) })
			}
			if err := together.Wait(); err != nil {
				return fmt.Errorf("wearing out %s: %w", id, err)
			}
		}
	}
}
