package lab

import (
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/term"
)

// step shows something that takes long: one line that is rewritten every second on a terminal,
// a new line every 30 seconds elsewhere.
type step struct {
	out      io.Writer
	title    string
	start    time.Time
	terminal *os.File // nil if out is none
	last     atomic.Pointer[string]
	stop     chan struct{}
	done     chan struct{}
}

// newStep announces a step; expected is how long it takes when nothing is cached.
func newStep(out io.Writer, title string, expected time.Duration) *step {
	s := &step{out: out, title: title, start: time.Now(), stop: make(chan struct{}), done: make(chan struct{})}
	if file, ok := out.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		s.terminal = file
	}
	s.line("%s: up to %.0f s if nothing is cached", title, expected.Seconds())
	go s.repeat()
	return s
}

// detail says how far the step is.
func (s *step) detail(text string) { s.last.Store(&text) }

// end shows how the step ended.
func (s *step) end(err error) {
	close(s.stop)
	<-s.done
	outcome := "done"
	if err != nil {
		outcome = "failed"
	}
	s.line("%s: %s after %s", s.title, outcome, s.elapsed())
	if s.terminal != nil {
		fmt.Fprintln(s.terminal)
	}
}

func (s *step) elapsed() time.Duration { return time.Since(s.start).Round(time.Second) }

func (s *step) repeat() {
	defer close(s.done)
	every := 30 * time.Second
	if s.terminal != nil {
		every = time.Second
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-tick.C:
			detail := ""
			if last := s.last.Load(); last != nil {
				detail = *last + ", "
			}
			s.line("%s: %s%s", s.title, detail, s.elapsed())
		}
	}
}

func (s *step) line(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if s.terminal == nil {
		fmt.Fprintln(s.out, text)
		return
	}
	// A line that wraps could not be rewritten.
	if width, _, err := term.GetSize(int(s.terminal.Fd())); err == nil && width > 0 && len(text) >= width {
		text = text[:width-1]
	}
	fmt.Fprintf(s.terminal, "\r\x1b[K%s", text)
}
