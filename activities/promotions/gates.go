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
				v.Passed, v.Detail, v.lasting = statusGate(gate.Status, statuses)
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

func statusGate(name string, statuses func() ([]forge.Status, error)) (passed bool, detail, lasting string) {
	all, err := statuses()
	if err != nil {
		return false, fmt.Sprintf("The statuses of the candidate cannot be read: %v.", err), "the statuses of the candidate cannot be read"
	}
	var newest *forge.Status
	for i, each := range all {
		if each.Context == name && (newest == nil || each.At.After(newest.At)) {
			newest = &all[i]
		}
	}
	if newest == nil {
		lasting = fmt.Sprintf("the candidate has no status %s yet", prose.Line(name, prose.Title))
		return false, sentence(lasting), lasting
	}
	lasting = fmt.Sprintf("status %s is %s", prose.Line(name, prose.Title), newest.State)
	detail = sentence(lasting)
	if newest.Description != "" {
		detail = fmt.Sprintf("%s: %s", strings.TrimSuffix(detail, "."), prose.Line(newest.Description, prose.Title))
	}
	return newest.State == forge.Success, detail, lasting
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
