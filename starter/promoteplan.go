package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairway-project/fairway/promotion"
	"github.com/fairway-project/fairway/workflows"
)

// promotionPlan is what a promotion along an edge would do now.
type promotionPlan struct {
	From string `json:"from"`
	To   string `json:"to"`
	workflows.PromotionChoice
	// Report is what the candidate carries; Unreported why that is not known.
	Report     *promotion.Report `json:"report,omitempty"`
	Unreported string            `json:"unreported,omitempty"`
	// UnderWay is the promotion along the edge that runs already.
	UnderWay *listedPromotion `json:"under_way,omitempty"`
	// Plans are those of the clusters that follow To, at the candidate; Unplanned says why some are missing.
	Plans     []clusterPlan `json:"plans,omitempty"`
	Unplanned []string      `json:"unplanned,omitempty"`
}

// choose asks what is due along an edge, which changes nothing.
func (c *connection) choose(cmd *cobra.Command, in workflows.PromoteInput) (choice workflows.PromotionChoice, err error) {
	return choice, patiently(cmd.ErrOrStderr(), "asks what is due, and its gates", func() error {
		return c.askLong(cmd.Context(), "ChoosePromotion", workflows.ChoosePromotion{From: in.From, To: in.To, Candidate: in.Candidate, Now: in.Now, SkipGates: in.SkipGates}, &choice)
	})
}

// planPromotion says what would be promoted. What is not known of it is said, too.
func (c *connection) planPromotion(cmd *cobra.Command, in workflows.PromoteInput, clusters bool) (promotionPlan, error) {
	plan := promotionPlan{From: in.From, To: in.To}
	var err error
	if plan.PromotionChoice, err = c.choose(cmd, in); err != nil {
		return plan, err
	}
	if plan.UnderWay, err = c.promotionUnderWay(cmd.Context(), in.From, in.To); err != nil {
		return plan, err
	}
	if plan.Candidate == nil {
		return plan, nil
	}
	plan.Report, plan.Unreported = c.reportOf(cmd, promotion.Record{
		ID: promotion.ID(in.From, in.To, plan.Candidate.Commit), From: in.From, To: in.To, Candidate: plan.Candidate.Commit, Mode: plan.Mode, Title: plan.Candidate.Title, Began: time.Now().UTC(),
	})
	if clusters {
		err = c.planClustersOf(cmd, in.To, plan.Candidate.Commit, &plan)
	}
	return plan, err
}

// reportOf says what a candidate carries, or why that is not known.
func (c *connection) reportOf(cmd *cobra.Command, record promotion.Record) (*promotion.Report, string) {
	var report promotion.Report
	if err := patiently(cmd.ErrOrStderr(), "asks what "+shortCommit(record.Candidate)+" carries", func() error {
		return c.askLong(cmd.Context(), "ReportPromotion", workflows.PromotionOf{Record: record}, &report)
	}); err != nil {
		return nil, err.Error()
	}
	return &report, ""
}

// planClustersOf plans the candidate for each cluster that follows a channel, one after another.
func (c *connection) planClustersOf(cmd *cobra.Command, channel, candidate string, plan *promotionPlan) error {
	clusters, err := c.clusters(cmd.Context())
	if err != nil {
		return err
	}
	for _, cluster := range clusters {
		if cluster.Channel != channel {
			continue
		}
		planned, err := c.planCluster(cmd, workflows.PrepareUpdate{Cluster: cluster.ID, Ref: candidate})
		if cmd.Context().Err() != nil {
			return cmd.Context().Err()
		}
		if err != nil {
			plan.Unplanned = append(plan.Unplanned, fmt.Sprintf("Cluster %s: %v", cluster.ID, err))
			continue
		}
		plan.Plans = append(plan.Plans, planned)
	}
	return nil
}

func (p promotionPlan) show(t *table, now time.Time) {
	t.row("Edge:", fmt.Sprintf("%s to %s, %s", p.From, p.To, modeText(p.Mode)))
	if p.Candidate == nil {
		t.row("Candidate:", "none")
	} else {
		t.row("Candidate:", landingText(*p.Candidate))
	}
	switch {
	case p.Go:
		t.row("Due:", "now")
	case p.Due.After(now):
		t.row("Due:", fmt.Sprintf("in %s, if nothing stops the clock", short(p.Due.Sub(now))))
	}
	if p.Why != "" {
		t.row("Why:", cut(p.Why, 300))
	}
	if p.UnderWay != nil {
		t.row("Under way:", p.UnderWay.text())
		for _, wait := range p.UnderWay.WaitsFor {
			t.row("", cut(attempts.ReplaceAllString(wait, ""), 200))
		}
	}
	t.flush()
	showWaiting(t, p.Waiting)
	showGates(t, p.Gates)
	if p.Unreported != "" {
		t.line("\nWhat it carries is not known: %s", p.Unreported)
	}
	if p.Report != nil {
		showReport(t, *p.Report)
	}
	for _, plan := range p.Plans {
		t.line("")
		plan.show(t, false)
	}
	if len(p.Plans) > 0 {
		t.line("\nThese plans are of the candidate itself: what %s has and %s lacks shows as taken back, which a merge does not do.", p.To, p.From)
	}
	for _, problem := range p.Unplanned {
		t.line("No plan. %s", problem)
	}
	t.line("\nNothing has been changed.")
}

func modeText(mode promotion.Mode) string {
	if mode == promotion.ByPullRequest {
		return "by pull request"
	}
	return "by merge"
}

func landingText(l promotion.Landing) string {
	text := shortCommit(l.Commit) + " " + cut(l.Title, 80)
	if l.Author != "" {
		text += ", by " + cut(l.Author, 40)
	}
	if !l.At.IsZero() {
		text += fmt.Sprintf(" (landed %s ago)", age(l.At))
	}
	return text
}

// listedLandings is how many landings are named.
const listedLandings = 10

func showWaiting(t *table, waiting []promotion.Soaking) {
	if len(waiting) == 0 {
		return
	}
	t.line("")
	t.row("WAITING", "LANDED", "SOAKED", "AUTHOR", "TITLE")
	for _, each := range waiting[:min(len(waiting), listedLandings)] {
		soaked := fmt.Sprintf("%s of %s", short(each.Soaked), short(each.Of))
		if !each.Ran {
			soaked = "not on every cluster yet"
		}
		t.row(shortCommit(each.Commit), age(each.At), soaked, cut(each.Author, 30), cut(each.Title, 80))
	}
	t.flush()
	if more := len(waiting) - listedLandings; more > 0 {
		t.line("%d newer ones wait too.", more)
	}
}

func showGates(t *table, gates []promotion.GateResult) {
	if len(gates) == 0 {
		return
	}
	t.line("")
	t.row("GATE", "PASSED", "ASKED", "WHAT IT SAYS")
	for _, gate := range gates {
		passed := "no"
		switch {
		case gate.Skipped:
			passed = "skipped"
		case gate.Passed:
			passed = "yes"
		}
		t.row(gate.Name, passed, age(gate.At), cut(gate.Detail, 160))
	}
	t.flush()
}

func showReport(t *table, r promotion.Report) {
	t.line("")
	t.row("Carries:", counted(len(r.Commits)+r.Omitted, "commit"))
	t.row("Class:", strings.TrimSuffix(string(r.Class)+": "+cut(r.Why, 200), ": "))
	clusters := "none follows the channel"
	if len(r.Clusters) > 0 {
		clusters = fmt.Sprintf("%d: %s", len(r.Clusters), strings.Join(r.Clusters[:min(len(r.Clusters), 8)], ", "))
		if len(r.Clusters) > 8 {
			clusters += ", ..."
		}
	}
	t.row("Clusters:", clusters)
	if r.Compare != "" {
		t.row("Compare:", r.Compare)
	}
	t.flush()
	if len(r.Commits) > 0 {
		t.line("")
		t.row("COMMIT", "PULL REQUEST", "AUTHOR", "LABELS", "TITLE")
		for _, change := range r.Commits {
			number := ""
			if change.PullRequest > 0 {
				number = fmt.Sprintf("#%d", change.PullRequest)
			}
			t.row(shortCommit(change.Commit), number, cut(change.Author, 30), cut(strings.Join(change.Labels, ", "), 40), cut(change.Title, 80))
		}
		t.flush()
		if r.Omitted > 0 {
			t.line("%d older ones are not listed.", r.Omitted)
		}
	}
	if len(r.Areas) > 0 {
		t.line("")
		t.row("AREA", "FILES", "WHICH")
		for _, area := range r.Areas {
			t.row(cut(area.Name, 60), len(area.Files), cut(strings.Join(area.Files, ", "), 120))
		}
		t.flush()
	}
}
