package promotions

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/forge"
	"github.com/fairway-project/fairway/promotion"
	"github.com/fairway-project/fairway/promql"
	"github.com/fairway-project/fairway/prose"
	"github.com/fairway-project/fairway/workflows"
)

// Bounds of the time that gates may take.
const (
	gateWithin  = 10 * time.Second // one, where nothing else is configured
	gatesWithin = time.Minute      // all of them, which are asked at once
)

// verdict is what a gate has said.
type verdict struct {
	promotion.GateResult
	// lasting says the same without what changes with each look, for comments that are edited when they
	// change.
	lasting string
}

// gates asks all gates of an edge about a candidate, those that are to be skipped excepted.
func (a *Activities) gates(ctx context.Context, edge promotion.Edge, candidate string, skip []string, from workflows.ChannelState) []verdict {
	ctx, cancel := context.WithTimeout(ctx, gatesWithin)
	defer cancel()
	now := a.now()
	statuses := sync.OnceValues(func() ([]forge.Status, error) { return a.statuses(ctx, candidate) }) // one request for all
	brought := sync.OnceValues(func() ([]broughtBy, error) { return a.broughtBy(ctx, edge.From, candidate) })
	asked := append([]promotion.Gate{{Name: promotion.FleetGateName}}, edge.Gates...)
	verdicts := make([]verdict, len(asked))
	var all sync.WaitGroup
	for i, gate := range asked {
		verdicts[i].Name, verdicts[i].At = gate.Name, now
		if slices.Contains(skip, gate.Name) {
			verdicts[i].Skipped, verdicts[i].Detail, verdicts[i].lasting = true, "A person went on without it.", "skipped by a person"
			continue
		}
		all.Go(func() {
			v := &verdicts[i]
			switch {
			case i == 0:
				v.GateResult = promotion.FleetGate(from.Promotions.Soak, now)
				v.lasting = "the clusters of the channel are healthy, and nothing is blocked"
			case gate.Status != "":
				v.Passed, v.Detail, v.lasting = statusGate(gate.Status, statuses, brought)
			case gate.Prometheus != nil:
				v.Passed, v.Detail, v.lasting = metricGate(ctx, *gate.Prometheus, edge, candidate, now)
			case gate.HTTP != nil:
				v.Passed, v.Detail, v.lasting = a.httpGate(ctx, *gate.HTTP, edge, candidate)
			default:
				v.Detail, v.lasting = "Nothing is configured to ask for.", "nothing is configured to ask for"
			}
			v.Detail = prose.Line(v.Detail, prose.Detail)
		})
	}
	all.Wait()
	return verdicts
}

// judged are the results of the gates of an edge, and why they keep a promotion from going on; empty if
// they do not.
func judged(edge promotion.Edge, verdicts []verdict, skip []string) ([]promotion.GateResult, string) {
	results := make([]promotion.GateResult, len(verdicts))
	for i, v := range verdicts {
		results[i] = v.GateResult
	}
	return edge.Judge(results, skip)
}

// statuses are those of a commit.
func (a *Activities) statuses(ctx context.Context, commit string) ([]forge.Status, error) {
	if a.Forge == nil {
		return nil, errors.New("no forge is configured; set forge.kind")
	}
	ctx, cancel := context.WithTimeout(ctx, gatesWithin)
	defer cancel()
	return a.Forge.Statuses(ctx, commit)
}

// broughtBy is a pull request that brought a candidate to its channel, with the statuses of its head. What was
// tested before a merge has its status there: the merge, or what squashing makes of it, is another commit.
type broughtBy struct {
	number   int
	statuses []forge.Status
}

// mostBrought bounds the pull requests whose statuses are read.
const mostBrought = 10

func (a *Activities) broughtBy(ctx context.Context, channel, candidate string) ([]broughtBy, error) {
	ctx, cancel := context.WithTimeout(ctx, gatesWithin)
	defer cancel()
	found, err := a.Forge.PullRequestsOf(ctx, candidate)
	if err != nil {
		return nil, err
	}
	var all []broughtBy
	for _, pr := range found {
		if pr.State != forge.Merged || pr.Base != channel || pr.HeadCommit == "" {
			continue
		}
		if len(all) == mostBrought {
			return nil, fmt.Errorf("there are more than %d", mostBrought)
		}
		if pr, err = a.Forge.PullRequest(ctx, pr.Number); err != nil { // lists may name what its branch is at since
			return nil, err
		}
		statuses, err := a.statuses(ctx, pr.HeadCommit)
		if err != nil {
			return nil, err
		}
		all = append(all, broughtBy{pr.Number, statuses})
	}
	return all, nil
}

// statusGate goes by the candidate itself, and where that has no such status by all pull requests that brought it.
func statusGate(name string, statuses func() ([]forge.Status, error), brought func() ([]broughtBy, error)) (passed bool, detail, lasting string) {
	all, err := statuses()
	if err != nil {
		return false, fmt.Sprintf("The statuses of the candidate cannot be read: %v.", err), "the statuses of the candidate cannot be read"
	}
	if status := newestOf(all, name); status != nil {
		return saysStatus(name, *status, "")
	}
	pulls, err := brought()
	if err != nil {
		lasting = fmt.Sprintf("the candidate has no status %s yet, and those of the pull requests that brought it cannot be read", prose.Line(name, prose.Title))
		return false, fmt.Sprintf("%s: %v.", strings.TrimSuffix(sentence(lasting), "."), err), lasting
	}
	if len(pulls) == 0 {
		lasting = fmt.Sprintf("the candidate has no status %s yet", prose.Line(name, prose.Title))
		return false, sentence(lasting), lasting
	}
	for _, pull := range pulls {
		status := newestOf(pull.statuses, name)
		if status == nil {
			lasting = fmt.Sprintf("neither the candidate nor pull request %d, which brought it, has a status %s yet", pull.number, prose.Line(name, prose.Title))
			return false, sentence(lasting), lasting
		}
		if passed, detail, lasting = saysStatus(name, *status, fmt.Sprintf(" on pull request %d, which brought the candidate", pull.number)); !passed {
			return passed, detail, lasting
		}
	}
	return passed, detail, lasting
}

// newestOf is the newest status of a context; nil if there is none.
func newestOf(all []forge.Status, name string) (newest *forge.Status) {
	for i, each := range all {
		if each.Context == name && (newest == nil || each.At.After(newest.At)) {
			newest = &all[i]
		}
	}
	return newest
}

func saysStatus(name string, status forge.Status, where string) (passed bool, detail, lasting string) {
	lasting = fmt.Sprintf("status %s is %s%s", prose.Line(name, prose.Title), status.State, where)
	detail = sentence(lasting)
	if status.Description != "" {
		detail = fmt.Sprintf("%s: %s", strings.TrimSuffix(detail, "."), prose.Line(status.Description, prose.Title))
	}
	return status.State == forge.Success, detail, lasting
}

func metricGate(ctx context.Context, gate promotion.MetricGate, edge promotion.Edge, candidate string, now time.Time) (passed bool, detail, lasting string) {
	unreadable := func(err error) (bool, string, string) {
		return false, fmt.Sprintf("Prometheus cannot be asked: %v.", err), "Prometheus cannot be asked"
	}
	threshold, err := promotion.ParseThreshold(gate.Threshold)
	if err != nil {
		return unreadable(fmt.Errorf("threshold %w", err))
	}
	address, err := filledURL(gate.URL, edge, candidate)
	if err != nil {
		return unreadable(err)
	}
	ctx, cancel := context.WithTimeout(ctx, 2*gateWithin)
	defer cancel()
	source := promql.Source{URL: address, TokenEnv: gate.TokenEnv, TokenFile: gate.TokenFile, Timeout: gateWithin}
	held, why, err := source.Held(ctx, filled(gate.Query, edge, candidate, inQuery), threshold, gate.For, now)
	if err != nil {
		return unreadable(err)
	}
	lasting = "must be " + threshold.String()
	if gate.For > 0 {
		lasting += " for " + gate.For.String()
	}
	return held, why, lasting
}

// sentence makes a whole one of words.
func sentence(words string) string {
	if words == "" {
		return ""
	}
	return strings.ToUpper(words[:1]) + strings.TrimSuffix(words[1:], ".") + "."
}

// blocked is why the fleet or one of two channels must not be changed now; empty if nothing keeps it. An
// error means that nobody knows, so that nothing may be changed.
func (a *Activities) blocked(ctx context.Context, edge promotion.Edge) (string, error) {
	holding, err := a.Blocks(ctx, edge.From, edge.To)
	if err != nil {
		if already := (*temporal.ApplicationError)(nil); errors.As(err, &already) {
			return "", err
		}
		return "", temporal.NewApplicationError(fmt.Sprintf("asking whether %s is blocked: %v", edge.Name(), err), workflows.Unreachable)
	}
	var texts []string
	for _, block := range holding {
		texts = append(texts, prose.Line(cmp.Or(block.Scope, "fleet")+" is "+block.String(), prose.Detail))
	}
	return prose.Some(texts, 3), nil
}
