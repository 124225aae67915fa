package workflows

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"
)

// step records a step from its beginning to its end.
func (u *updating) step(ctx workflow.Context, name string, do func() (outcome string, err error)) error {
	at := len(u.progress.Steps)
	u.progress.Steps = append(u.progress.Steps, UpdateStep{Name: name, Began: workflow.Now(ctx)})
	u.progress.Step = name
	u.tell(ctx)
	outcome, err := do()
	step := &u.progress.Steps[at]
	step.Ended, step.Outcome = workflow.Now(ctx), outcome
	switch {
	case errors.Is(err, errSuperseded):
		step.Outcome = "left, because another version is wanted"
	case temporal.IsCanceledError(err):
		step.Outcome = "cancelled"
	case err != nil:
		step.Outcome = "failed: " + clip(reasonOf(err), 200)
	}
	u.tell(ctx)
	return err
}

// phase says what part of the update is under way; what goes back is one phase.
func (u *updating) phase(ctx workflow.Context, phase string) {
	if u.version != u.in.Version && u.progress.Ended.IsZero() {
		phase = "restoring"
	}
	u.setPhase(ctx, phase)
}

func (u *updating) setPhase(ctx workflow.Context, phase string) {
	if u.progress.Phase == phase {
		return
	}
	u.progress.Phase = phase
	u.tell(ctx)
	// It fails only if the namespace lacks the attribute, which the worker checks at its start.
	_ = workflow.UpsertTypedSearchAttributes(ctx, PhaseAttribute.ValueSet(phase))
}

func (u *updating) ended(ctx workflow.Context, phase, step string) {
	u.progress.Ended, u.progress.Step = workflow.Now(ctx), step
	u.setPhase(ctx, phase)
}

// tell shows people where the update stands; that costs no event.
func (u *updating) tell(ctx workflow.Context) {
	details := fmt.Sprintf("**%s** %s of cluster %s to version `%s`, from `%s`, attempt %d: %s. Asked for by %s. Reason: %s.\n",
		u.progress.Phase, u.in.Kind, u.in.Cluster, u.in.Version, cmp.Or(u.in.From, "nothing"), max(1, u.in.Attempt), u.progress.Step,
		cmp.Or(u.in.By, "the channel"), cmp.Or(u.in.Reason, "none given"))
	if u.superseded != "" {
		details += fmt.Sprintf("\nVersion `%s` is wanted instead, so it ends at the next safe point.\n", u.superseded)
	}
	for _, step := range u.progress.Steps[max(0, len(u.progress.Steps)-30):] {
		took := "under way since " + step.Began.UTC().Format(time.RFC3339)
		if !step.Ended.IsZero() {
			took = step.Outcome + " (" + step.Ended.Sub(step.Began).Round(time.Second).String() + ")"
		}
		details += fmt.Sprintf("\n- %s: %s", step.Name, took)
	}
	for _, problem := range u.progress.Problems {
		details += "\n\n" + problem.Title
	}
	workflow.SetCurrentDetails(ctx, details)
}

// pool is the progress of a pool.
func (u *updating) pool(name string) *PoolProgress {
	at := slices.IndexFunc(u.progress.Pools, func(p PoolProgress) bool { return p.Pool == name })
	if at < 0 {
		u.progress.Pools = append(u.progress.Pools, PoolProgress{Pool: name, Workflow: RollPoolID(u.in.Cluster, name)})
		at = len(u.progress.Pools) - 1
	}
	return &u.progress.Pools[at]
}

// short is a version as people write it.
func short(version string) string {
	commit, hash, qualified := strings.Cut(version, "#")
	if !qualified {
		return version
	}
	return commit[:min(len(commit), 8)] + "#" + hash[:min(len(hash), 8)]
}

func clip(text string, most int) string {
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most-1]) + "…"
	}
	return text
}
