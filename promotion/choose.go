package promotion

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// ErrNoLanding means that a candidate was named that is no landing of the source channel, or not one alone.
var ErrNoLanding = errors.New("no landing")

// Question is what a choice depends on besides the edge and the soak of its source.
type Question struct {
	Now time.Time
	// Has says whether the target contains a commit.
	Has func(commit string) (bool, error)
	// Refused are candidates that people have refused for this edge.
	Refused []string
	// Bad are landings that are promoted nowhere, besides those of Reverts.
	Bad []string
	// Reverts are those of the source. What has landed after a bad range and before the revert is bad as well,
	// because it contains the range.
	Reverts []Revert
	// Held is why nothing may go into the target now, such as a revert that is not lifted; whole sentences
	// without their full stops.
	Held []string
	// Candidate is a landing, or the first digits (seven at least) of one; default: the newest that may go.
	Candidate string
	// Immediately does not wait for the soak. Together with Candidate it also overrides a refusal.
	Immediately bool
}

// Choose says which landing is to be promoted next: the newest that has soaked, that the target
// lacks, that is not bad, and that is newer than all that people have refused. Landings after it neither
// ride along nor change its clock. ErrNoLanding if the Candidate cannot be told; other errors are those of
// Has, which is asked few times.
func Choose(e Edge, s Soak, q Question) (Choice, error) {
	c := chooser{edge: e, soak: s.At(q.Now), question: q}
	if e.Soak != nil {
		c.needed = *e.Soak
	}
	c.taint()
	if q.Candidate != "" {
		return c.named()
	}
	return c.newest()
}

type chooser struct {
	edge     Edge
	soak     Soak // as of now
	needed   time.Duration
	question Question
	bad      []string // why a landing is bad, by its index; empty if it is not
	refused  int      // the newest landing that was refused; -1 if none was
}

// taint finds out what may not be promoted whatever else holds.
func (c *chooser) taint() {
	c.bad = make([]string, len(c.soak.Landings))
	for _, commit := range c.question.Bad {
		if i := c.soak.Index(commit); i >= 0 {
			c.bad[i] = "is in a range that was reverted"
		}
	}
	for _, revert := range c.question.Reverts {
		last := c.soak.Index(revert.Head)
		for _, commit := range revert.Bad {
			if i := c.soak.Index(commit); i >= 0 {
				c.bad[i] = "is in a range that was reverted"
				last = max(last, i)
			}
		}
		end := c.soak.Index(revert.Commit)
		if end < 0 {
			if end = last + 1; revert.Lifted.IsZero() {
				end = len(c.soak.Landings)
			}
		}
		// A range that is older than all that is known is in what has landed before its revert.
		known := last >= 0 || c.soak.Index(revert.Commit) >= 0
		for i := last + 1; known && i < end; i++ {
			if c.bad[i] == "" {
				c.bad[i] = "contains a range that is being reverted"
			}
		}
	}
	c.refused = -1
	for _, commit := range c.question.Refused {
		c.refused = max(c.refused, c.soak.Index(commit))
	}
}

// newest chooses by itself.
func (c *chooser) newest() (Choice, error) {
	landings := c.soak.Landings
	if len(landings) == 0 {
		return Choice{Why: fmt.Sprintf("Nothing is known yet of what has landed on %s.", c.edge.From)}, nil
	}
	best := -1
	for i := len(landings) - 1; i > c.refused && best < 0; i-- {
		if c.bad[i] == "" && c.soaked(i) {
			best = i
		}
	}
	lacking := best // the first landing that the target lacks
	if best >= 0 {
		has, err := c.has(best)
		if err != nil {
			return Choice{}, err
		}
		if has {
			best = -1
		}
	}
	if best < 0 {
		var err error
		if lacking, err = c.lacking(lacking + 1); err != nil {
			return Choice{}, err
		}
	}
	choice := c.waiting(max(lacking, best+1, c.refused+1))
	switch {
	case len(c.question.Held) > 0:
		choice.Why = fmt.Sprintf("Nothing goes into %s: %s.", c.edge.To, strings.Join(c.question.Held, "; "))
	case best >= 0:
		choice.Candidate = &landings[best]
		if len(choice.Waiting) > 0 {
			choice.Why = c.others(choice.Waiting)
		}
	case len(choice.Waiting) > 0:
		w, which := choice.Waiting[len(choice.Waiting)-1], "that"
		if i := slices.IndexFunc(choice.Waiting, func(w Soaking) bool { return !w.Ran }); i > 0 {
			w, which = choice.Waiting[i-1], "that soaks and that" // says more than one that has not begun
		}
		choice.Why = fmt.Sprintf("The newest landing %s %s lacks, %s, %s", which, c.edge.To, w.name(), c.progress(w))
	case lacking >= len(landings):
		choice.Why = fmt.Sprintf("%s has all that has landed on %s.", c.edge.To, c.edge.From)
	default:
		choice.Why = c.stopped(len(landings) - 1)
	}
	return choice, nil
}

// named answers for the landing that was asked for.
func (c *chooser) named() (Choice, error) {
	i, err := c.find()
	if err != nil {
		return Choice{}, err
	}
	landing := c.soak.Landings[i]
	has, err := c.has(i)
	if err != nil {
		return Choice{}, err
	}
	choice := Choice{}
	switch {
	case has:
		choice.Why = fmt.Sprintf("%s has %s already.", c.edge.To, landing.name())
	case c.bad[i] != "":
		choice.Why = fmt.Sprintf("%s %s.", landing.name(), c.bad[i])
	case slices.Contains(c.question.Refused, landing.Commit) && !c.question.Immediately:
		choice.Why = c.stopped(i)
	case len(c.question.Held) > 0:
		choice.Why = fmt.Sprintf("Nothing goes into %s: %s.", c.edge.To, strings.Join(c.question.Held, "; "))
	case !c.soaked(i):
		choice = c.waiting(i)
		choice.Waiting = choice.Waiting[:1]
		choice.Why = landing.name() + " " + c.progress(choice.Waiting[0])
	default:
		choice.Candidate = &landing
	}
	return choice, nil
}

var digits = regexp.MustCompile(`^[0-9a-f]{7,64}$`)

// find is the landing that was asked for.
func (c *chooser) find() (int, error) {
	asked := strings.ToLower(c.question.Candidate)
	if !digits.MatchString(asked) {
		return 0, fmt.Errorf("%w: %.80q is no commit; give seven of its digits at least", ErrNoLanding, c.question.Candidate)
	}
	found := -1
	for i, landing := range c.soak.Landings {
		if !strings.HasPrefix(landing.Commit, asked) {
			continue
		}
		if found >= 0 {
			return 0, fmt.Errorf("%w: several landings of %s begin with %s; give more digits", ErrNoLanding, c.edge.From, asked)
		}
		found = i
	}
	if found < 0 {
		return 0, fmt.Errorf("%w: %s is none of the newest %d landings of %s, which are the first-parent commits of the branch", ErrNoLanding, asked, len(c.soak.Landings), c.edge.From)
	}
	return found, nil
}

func (c *chooser) soaked(i int) bool {
	return c.question.Immediately || c.soak.Landings[i].Ran && c.soak.Soaked(i) >= c.needed
}

func (c *chooser) has(i int) (bool, error) {
	commit := c.soak.Landings[i].Commit
	has, err := c.question.Has(commit)
	if err != nil {
		return false, fmt.Errorf("asking whether %s contains %s: %w", c.edge.To, commit, err)
	}
	return has, nil
}

// lacking is the oldest landing, from some one on, that the target lacks. Whoever contains a commit of a
// first-parent line contains all before it.
func (c *chooser) lacking(from int) (int, error) {
	low, high := from, len(c.soak.Landings)
	for low < high {
		middle := (low + high) / 2
		has, err := c.has(middle)
		switch {
		case err != nil:
			return 0, err
		case has:
			low = middle + 1
		default:
			high = middle
		}
	}
	return low, nil
}

// waiting lists what has not soaked, of landings that the target lacks.
func (c *chooser) waiting(from int) Choice {
	var choice Choice
	for i := from; i < len(c.soak.Landings); i++ {
		if c.bad[i] != "" || c.soaked(i) {
			continue
		}
		w := Soaking{Landing: c.soak.Landings[i], Soaked: c.soak.Soaked(i), Of: c.needed}
		choice.Waiting = append(choice.Waiting, w)
		if w.Ran && len(c.soak.Held) == 0 && choice.Due.IsZero() {
			choice.Due = c.question.Now.Add(w.Of - w.Soaked)
		}
	}
	return choice
}

// progress says how far a landing is, as the end of a sentence.
func (c *chooser) progress(w Soaking) string {
	text := fmt.Sprintf("has soaked %s of %s", span(w.Soaked), span(w.Of))
	if !w.Ran {
		text = "has not begun to soak"
		if lagging := c.soak.lagging(c.soak.Index(w.Commit)); lagging != "" {
			text += ": " + lagging
		}
	}
	if len(c.soak.Held) > 0 {
		text += "; the clock stands still: " + strings.Join(c.soak.Held, "; ")
	}
	return text + "."
}

// others says what waits besides a candidate.
func (c *chooser) others(waiting []Soaking) string {
	if len(waiting) == 1 {
		return fmt.Sprintf("A newer landing, %s, %s", waiting[0].name(), c.progress(waiting[0]))
	}
	return fmt.Sprintf("Of %d newer landings the first, %s, %s", len(waiting), waiting[0].name(), c.progress(waiting[0]))
}

// stopped says why a landing that the target lacks does not go.
func (c *chooser) stopped(i int) string {
	landing := c.soak.Landings[i]
	if c.bad[i] != "" {
		return fmt.Sprintf("Nothing of %s may go into %s: %s %s.", c.edge.From, c.edge.To, landing.name(), c.bad[i])
	}
	refused := c.soak.Landings[max(c.refused, 0)]
	return fmt.Sprintf("%s was refused for %s; the next landing on %s goes by itself, or this one by --candidate and --now.", refused.name(), c.edge.To, c.edge.From)
}

// name of a landing for people, such as 01234567 (title).
func (l Landing) name() string {
	short := l.Commit[:min(8, len(l.Commit))]
	if l.Title == "" {
		return short
	}
	return fmt.Sprintf("%s (%s)", short, l.Title)
}

// span is a duration for people, such as 3h or 1h30m.
func span(d time.Duration) string {
	if d < time.Second {
		return "0s"
	}
	text := d.Truncate(time.Second).String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
