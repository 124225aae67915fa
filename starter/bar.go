package main

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/mattn/go-runewidth"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// barReport draws a bar on a terminal, and below it what happens and what is waited for.
type barReport struct {
	progress *mpb.Progress
	bar      *mpb.Bar
	started  time.Time

	mutex sync.Mutex // the bar is drawn by a goroutine of its own
	view  rollView
}

// barLines is how many lines may be below the bar.
const barLines = 12

func newBar(out io.Writer, nodes int) *barReport {
	r := &barReport{started: time.Now(), view: rollView{Counts: counts{Total: nodes, Waiting: nodes}, Step: "starting"}}
	r.progress = mpb.New(mpb.WithOutput(out), mpb.WithWidth(30), mpb.WithRefreshRate(250*time.Millisecond))
	// Without a total at first, a full bar does not end: a roll has still to put things back then.
	r.bar = r.progress.New(0, mpb.BarStyle(),
		mpb.PrependDecorators(decor.Any(func(decor.Statistics) string {
			return fmt.Sprintf("%6s ", time.Since(r.started).Round(time.Second))
		})),
		mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return " " + r.summary() })),
		mpb.BarExtender(mpb.BarFillerFunc(r.below), false),
	)
	r.bar.SetTotal(int64(nodes), false)
	return r
}

func (r *barReport) show(view rollView) {
	r.mutex.Lock()
	if view.Counts.Total == 0 {
		view.Counts, view.Label, view.Notes = r.view.Counts, r.view.Label, r.view.Notes // what was known last
	}
	r.view = view
	r.mutex.Unlock()
	r.bar.SetTotal(int64(view.Counts.Total), false)
	r.bar.SetCurrent(int64(view.Counts.Done))
}

// end leaves the bar as it was last, without what is below it.
func (r *barReport) end() {
	r.mutex.Lock()
	r.view.Step, r.view.Notes, r.view.Waits, r.view.Left = "", nil, nil, ""
	r.mutex.Unlock()
	r.bar.Abort(false)
	r.progress.Wait()
}

func (r *barReport) summary() string {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	text := r.view.summary()
	if r.view.Left != "" {
		text += "; " + r.view.Left
	}
	return text
}

// below writes the lines under the bar, each cut to the width of the terminal: a line that wraps
// would be drawn over and over.
func (r *barReport) below(out io.Writer, stat decor.Statistics) error {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	for _, line := range r.view.lines() {
		if _, err := fmt.Fprintln(out, runewidth.Truncate("       "+line, max(20, stat.AvailableWidth-1), "…")); err != nil {
			return err
		}
	}
	return nil
}

// lines are what is shown below a bar.
func (v rollView) lines() []string {
	if v.Step == "" {
		return nil
	}
	lines := append([]string{v.Step}, v.Notes...)
	lines = append(lines, v.Waits...)
	if more := len(lines) - barLines; more > 0 {
		lines = append(lines[:barLines-1], fmt.Sprintf("%d more lines; `fairway status` shows all", more+1))
	}
	return lines
}
