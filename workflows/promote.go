package workflows

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/fairway-project/fairway/promotion"
)

// Promote carries one candidate along an edge to its end: it merges it, or opens a pull request and
// follows that for as long as people take. What is due is chosen here once more, since time has passed.
// However it ends, the target's actor is told. Its id, PromotionID, is the lock of the edge.
func Promote(ctx workflow.Context, in PromoteInput) (promotion.Record, error) {
	p := newPromoting(ctx, in)
	if err := workflow.SetQueryHandler(ctx, ProgressQuery, func() (PromotionProgress, error) { return p.PromotionProgress, nil }); err != nil {
		return p.Record, err
	}
	work, stop := workflow.WithCancel(ctx)
	p.listen(ctx, stop)
	err := p.carryOut(work)
	switch {
	case workflow.IsContinueAsNewError(err):
		return p.Record, err
	case err != nil && work.Err() != nil:
		err = work.Err() // what is interrupted may fail otherwise, such as by the end of its worker
	}
	return p.Record, p.end(ctx, err)
}

// carryOut leaves the outcome in the record, unless it fails.
func (p *promoting) carryOut(ctx workflow.Context) error {
	if p.in.Record == nil {
		if err := p.choose(ctx); err != nil || p.Outcome != "" {
			return err
		}
		p.report(ctx)
		if err := p.bring(ctx); err != nil || p.Outcome != "" || p.Mode == promotion.Merge {
			return err
		}
	}
	return p.follow(ctx)
}

// choose asks once more what is due. Where nothing is any more, that is the outcome.
func (p *promoting) choose(ctx workflow.Context) error {
	p.phase(ctx, "choosing", "asks what is due")
	choice, err := choosePromotion(ctx, ChoosePromotion{From: p.From, To: p.To, Candidate: p.in.Candidate, Now: p.in.Now, SkipGates: p.in.SkipGates})
	if err != nil {
		return err
	}
	p.Mode, p.Class, p.Gates, p.Soaked = choice.Mode, choice.Class, choice.Gates, choice.Soaked
	if candidate := choice.Candidate; candidate != nil {
		p.Candidate, p.Title = candidate.Commit, firstLine(candidate.Title)
		p.ID = promotion.ID(p.From, p.To, p.Candidate)
	}
	switch {
	case !choice.Go:
		p.Outcome, p.Detail = promotion.Held, cmp.Or(choice.Why, "Nothing is due.")
	case p.Candidate == "":
		return temporal.NewNonRetryableApplicationError("a promotion is due, but nobody says of what", InvalidInput, nil)
	default:
		p.chosen = true
	}
	return nil
}

// report learns how much the candidate carries. That is for people only, so nothing waits for it long.
func (p *promoting) report(ctx workflow.Context) {
	p.step(ctx, "asks what it carries")
	var report promotion.Report
	err := workflow.ExecuteActivity(telling(ctx, "what "+short12(p.Candidate)+" carries"), "ReportPromotion", p.of()).Get(ctx, &report)
	if err != nil {
		workflow.GetLogger(ctx).Warn("it is not known what a promotion carries", "error", err)
		return
	}
	p.Carried, p.Class = len(report.Commits)+report.Omitted, cmp.Or(report.Class, p.Class)
}

// bring merges the candidate, or opens the pull request that is followed then. People are told of a
// conflict.
func (p *promoting) bring(ctx workflow.Context) error {
	phase, step, activity := "merging", "merges it into the head of "+p.To, "MergePromotion"
	if p.Mode != promotion.Merge {
		phase, step, activity = "opening", "opens the pull request", "OpenPromotion"
	}
	p.phase(ctx, phase, step)
	if err := p.take(ctx, promotes(ctx, phase+" "+short12(p.Candidate)), activity); err != nil {
		return err
	}
	return p.reportConflict(ctx)
}

func (p *promoting) reportConflict(ctx workflow.Context) error {
	if p.Outcome != promotion.Conflicted {
		return nil
	}
	p.step(ctx, "tells people of the conflict")
	err := p.take(ctx, promotes(ctx, "tell people of the conflict"), "ReportConflict")
	if err != nil && ctx.Err() == nil { // a conflict that nobody could be told of, such as without a forge, is one all the same
		p.Detail, err = strings.TrimSpace(p.Detail+" No pull request tells of it: "+clip(reasonOf(err), 500)), nil
	}
	return err
}

// follow waits for the end of the pull request. The attempts of one activity do that, without a trace in
// the history; news from the forge begins it anew, and so does leave some. Anew means at once, unless that
// was just done: attempts need time to get somewhere, however much the forge has to tell.
func (p *promoting) follow(ctx workflow.Context) error {
	p.phase(ctx, "following", "waits for people and gates; the pending activity says for what")
	for pause := leastLook; ; pause = min(2*pause, mostLook) {
		began := workflow.Now(ctx)
		p.news = false
		err := p.await(ctx, pause)
		switch {
		case ctx.Err() != nil && err != nil:
			return ctx.Err()
		case err == nil:
			return p.reportConflict(ctx)
		case !p.news:
			return err
		}
		if workflow.Now(ctx).Sub(began) > mostLook {
			pause = leastLook / 2
		}
		// A withdrawal that has come, but not been heard yet, would not be known to the next run.
		unheard := workflow.GetSignalChannel(ctx, WithdrawName).Len() > 0
		if info := workflow.GetInfo(ctx); !unheard && (info.GetCurrentHistoryLength() >= followedHistory || info.GetContinueAsNewSuggested()) {
			next := p.in
			next.Record = &p.Record
			return workflow.NewContinueAsNewError(ctx, Promote, next)
		}
	}
}

// A look at a pull request may be begun anew after leastLook, and after more the more often that is.
const (
	leastLook = 2 * time.Second
	mostLook  = 30 * time.Second
	// followedHistory is the length of a history from which on a new one is begun.
	followedHistory = 1000
)

// await follows the pull request until its end, or until there is news and a pause is over. Either way
// the activity has ended then.
func (p *promoting) await(ctx workflow.Context, pause time.Duration) error {
	began := workflow.Now(ctx)
	attempts, end := workflow.WithCancel(ctx)
	defer end()
	seeing, stop := workflow.NewDisconnectedContext(ctx) // the end of what is cancelled is waited for too
	defer stop()
	future := workflow.ExecuteActivity(followed(attempts, "pull request "+p.pullRequest()), "FollowPromotion", p.of())
	if err := workflow.Await(seeing, func() bool { return p.news || future.IsReady() }); err != nil {
		return err
	}
	if rest := pause - workflow.Now(ctx).Sub(began); rest > 0 && !future.IsReady() {
		if _, err := workflow.AwaitWithOptions(seeing, workflow.AwaitOptions{
			Timeout: rest, TimerOptions: workflow.TimerOptions{Summary: "news soon after news"},
		}, future.IsReady); err != nil {
			return err
		}
	}
	end()
	return p.learn(seeing, future)
}

// end says what became of the promotion, to the target's actor too. Nothing is said of what never began,
// unless a person asked for it.
func (p *promoting) end(ctx workflow.Context, err error) error {
	ctx, stop := workflow.NewDisconnectedContext(ctx)
	defer stop()
	if err == nil && p.Outcome == "" {
		err = temporal.NewNonRetryableApplicationError("nobody says how it ended", InvalidInput, nil)
	}
	switch {
	case err == nil:
	case temporal.IsCanceledError(err):
		err = p.withdraw(ctx, err)
	default:
		p.Outcome, p.Detail = promotion.Held, "It failed: "+clip(reasonOf(err), 1000)
	}
	p.Ended = workflow.Now(ctx)
	if p.Candidate != "" && (p.chosen || p.in.By != "") {
		p.phase(ctx, "recording", "tells the actor of channel "+p.To+" how it ended")
		if failure := workflow.ExecuteActivity(changing(ctx, "record the outcome"), "RecordPromotion", p.Record).Get(ctx, nil); failure != nil {
			workflow.GetLogger(ctx).Error("the target's actor was not told how a promotion ended", "error", failure)
		}
	}
	phase := string(p.Outcome)
	if err != nil && !temporal.IsCanceledError(err) {
		phase = "failed"
	}
	p.phase(ctx, cmp.Or(phase, "withdrawn"), p.Detail)
	return err
}

// withdraw takes back what is open. A person who says why has not interrupted it, but ended it.
func (p *promoting) withdraw(ctx workflow.Context, err error) error {
	p.Outcome, p.Detail = promotion.Withdrawn, "Somebody cancelled it."
	if p.withdrawn != nil {
		p.Detail, err = fmt.Sprintf("%s withdrew it: %s", cmp.Or(p.withdrawn.By, nobody), p.withdrawn.Reason), nil
	}
	switch {
	case !p.chosen:
		return err
	case p.Mode == promotion.Merge: // nothing is open, but the push may have been on its way
		p.Detail += fmt.Sprintf(" If it was merged before, the merge on %s names promotion %s.", p.To, p.ID)
		return err
	}
	p.phase(ctx, "withdrawing", "closes the pull request and deletes its branch")
	if failure := workflow.ExecuteActivity(withdraws(ctx, "close the pull request"), "WithdrawPromotion", p.of()).Get(ctx, nil); failure != nil {
		p.Detail += " Its pull request or its branch may be left: " + clip(reasonOf(failure), 500)
	} else if p.PullRequest > 0 {
		p.lastLook(ctx)
	}
	return err
}

// lastLook finds out whether somebody has merged the pull request in the last moment.
func (p *promoting) lastLook(ctx workflow.Context) {
	options := workflow.GetActivityOptions(telling(ctx, "was "+p.pullRequest()+" merged in the last moment"))
	policy := *patient
	policy.MaximumAttempts = 3
	options.RetryPolicy = &policy
	ctx = workflow.WithActivityOptions(ctx, options)
	was := p.Record
	if err := p.take(ctx, ctx, "FollowPromotion"); err != nil || p.Outcome != promotion.Merged {
		p.Record = was
	}
}

// WithdrawName is a signal to Promote: end it, and take back what is open. Cancelling the workflow does
// the same, without a reason.
const WithdrawName = "withdraw"

// WithdrawRequest says why.
type WithdrawRequest struct {
	Reason string `json:"reason"`
	By     string `json:"by,omitempty"`
}

// promoting is the state of Promote. All of its fields are set by workflow code only.
type promoting struct {
	PromotionProgress
	in PromoteInput
	// chosen means that something may have been changed.
	chosen bool
	// news means that something has happened on the forge since it was looked at.
	news      bool
	withdrawn *WithdrawRequest
}

func newPromoting(ctx workflow.Context, in PromoteInput) *promoting {
	p := &promoting{in: in, chosen: in.Record != nil}
	p.Record = promotion.Record{
		ID: promotion.ID(in.From, in.To, in.Candidate), From: in.From, To: in.To, Candidate: in.Candidate, By: in.By, Reason: in.Reason, Began: workflow.Now(ctx),
	}
	if in.Record != nil {
		p.Record = *in.Record
	}
	execution := workflow.GetInfo(ctx).WorkflowExecution
	p.Workflow, p.Run = execution.ID, execution.RunID
	return p
}

func (p *promoting) listen(ctx workflow.Context, stop workflow.CancelFunc) {
	workflow.GoNamed(ctx, "looks", func(ctx workflow.Context) {
		for {
			workflow.GetSignalChannel(ctx, LookName).Receive(ctx, nil)
			p.news = true
		}
	})
	workflow.GoNamed(ctx, "withdrawal", func(ctx workflow.Context) {
		for {
			var sent converter.RawValue
			workflow.GetSignalChannel(ctx, WithdrawName).Receive(ctx, &sent)
			p.withdrawn = withdrawal(sent)
			stop()
		}
	})
}

// withdrawal makes the most of what somebody has sent, maybe by hand: it is to end, whatever the reason.
func withdrawal(sent converter.RawValue) *WithdrawRequest {
	request, err := decoded[WithdrawRequest](sent)
	if err != nil {
		request.Reason = "a reason that was not understood"
	}
	return &WithdrawRequest{Reason: cmp.Or(firstLine(request.Reason), "no reason given"), By: firstLine(request.By)}
}

func (p *promoting) of() PromotionOf {
	return PromotionOf{Record: p.Record, Now: p.in.Now, SkipGates: p.in.SkipGates}
}

// take has an activity bring the promotion further.
func (p *promoting) take(ctx, doing workflow.Context, activity string) error {
	return p.learn(ctx, workflow.ExecuteActivity(doing, activity, p.of()))
}

// learn takes over what an activity says of the promotion. What it is and who began it stays as it is.
func (p *promoting) learn(ctx workflow.Context, future workflow.Future) error {
	var out promotion.Record
	if err := future.Get(ctx, &out); err != nil {
		return err
	}
	was := p.Record
	p.Record = out
	p.ID, p.From, p.To, p.Candidate, p.Began, p.By, p.Reason = was.ID, was.From, was.To, was.Candidate, was.Began, was.By, was.Reason
	p.Workflow, p.Run, p.Carried = was.Workflow, was.Run, max(out.Carried, was.Carried)
	return nil
}

func (p *promoting) pullRequest() string {
	if p.PullRequest == 0 {
		return "of " + short12(p.Candidate)
	}
	return fmt.Sprintf("#%d", p.PullRequest)
}

// phase says what part of the promotion is under way.
func (p *promoting) phase(ctx workflow.Context, phase, step string) {
	p.Phase = phase
	p.step(ctx, step)
	// It fails only if the namespace lacks the attributes, which the worker checks at its start.
	_ = workflow.UpsertTypedSearchAttributes(ctx, ChannelAttribute.ValueSet(p.To), PhaseAttribute.ValueSet(phase))
}

// step shows people where the promotion stands; that costs no event.
func (p *promoting) step(ctx workflow.Context, step string) {
	p.Step = step
	workflow.SetCurrentDetails(ctx, p.details())
}

func (p *promoting) details() string {
	what := "what is due"
	if p.Candidate != "" {
		what = fmt.Sprintf("`%s`", short12(p.Candidate))
		if p.Title != "" {
			what += " (" + firstLine(p.Title) + ")"
		}
	}
	text := fmt.Sprintf("The promotion of %s from channel `%s` to `%s` is **%s**: %s", what, p.From, p.To, p.Phase, strings.TrimSuffix(p.Step, ".")+".")
	if p.Mode == promotion.ByPullRequest && p.URL != "" {
		text += fmt.Sprintf(" The pull request is %s.", p.URL)
	}
	if p.Carried > 0 {
		text += fmt.Sprintf(" It carries %d commits, of class %s.", p.Carried, cmp.Or(string(p.Class), "unknown"))
	}
	if p.By != "" {
		text += fmt.Sprintf(" %s asked for it: %s.", p.By, cmp.Or(firstLine(p.Reason), "no reason given"))
	}
	return text
}

func short12(commit string) string { return commit[:min(len(commit), 12)] }

// telling is for what is nice to know. It heartbeats.
func telling(ctx workflow.Context, summary string) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		StartToCloseTimeout: time.Minute, ScheduleToCloseTimeout: 3 * time.Minute, HeartbeatTimeout: heartbeatTimeout, RetryPolicy: patient, Summary: summary,
	})
}

// promotes is for what changes a channel or the forge. It is tried until it has an outcome: an attempt
// that died may have pushed, and the next one finds out. It heartbeats.
func promotes(ctx workflow.Context, summary string) workflow.Context {
	policy := *patient
	policy.MaximumInterval = time.Minute
	policy.NonRetryableErrorTypes = []string{InvalidInput}
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		StartToCloseTimeout: 10 * time.Minute,
		HeartbeatTimeout:    heartbeatTimeout,
		WaitForCancellation: true,
		RetryPolicy:         &policy,
		Summary:             summary,
	})
}

// followed is for what waits for people: no time is too long, and no failure final.
func followed(ctx workflow.Context, summary string) workflow.Context {
	ctx = promotes(ctx, summary)
	options := workflow.GetActivityOptions(ctx)
	options.RetryPolicy = &temporal.RetryPolicy{InitialInterval: 30 * time.Second, BackoffCoefficient: 1}
	return workflow.WithActivityOptions(ctx, options)
}

// withdraws is for what is taken back at the end. A forge that is gone for long keeps no promotion alive.
func withdraws(ctx workflow.Context, summary string) workflow.Context {
	ctx = promotes(ctx, summary)
	options := workflow.GetActivityOptions(ctx)
	options.ScheduleToCloseTimeout = time.Hour
	return workflow.WithActivityOptions(ctx, options)
}
