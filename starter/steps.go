package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
)

// steps shows how far a number of steps are, several of which may be under way at a time: by a bar on a
// terminal, and else by a line when a step begins and one when it ends.
type steps struct {
	lines   *lineReport // nil on a terminal
	bar     report
	mutex   sync.Mutex
	running []string
	notes   []string
	done    int
	total   int
}

func newSteps(out io.Writer, total int) *steps {
	s := &steps{bar: newReport(out, total), total: total}
	s.lines, _ = s.bar.(*lineReport)
	return s
}

// add says that there are more steps than was known.
func (s *steps) add(more int) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.total += more
}

// take does a step. What it returns is said with its name.
func (s *steps) take(name string, do func() (outcome string, err error)) error {
	s.change(name, func() { s.running = append(s.running, name) })
	outcome, err := do()
	if err != nil {
		outcome = "failed"
	}
	s.change("  "+name+": "+outcome, func() {
		s.running = slices.DeleteFunc(s.running, func(each string) bool { return each == name })
		s.notes = append(s.notes, name+": "+outcome)
		s.done++
	})
	return err
}

func (s *steps) change(line string, change func()) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	change()
	if s.lines != nil {
		s.lines.print("", line)
		return
	}
	view := rollView{Counts: counts{Total: s.total, Done: s.done}, Label: fmt.Sprintf("%d of %d steps", s.done, s.total), Step: strings.Join(s.running, ", ")}
	view.Notes = s.notes[max(0, len(s.notes)-barLines/2):]
	s.bar.show(view)
}

func (s *steps) end() { s.bar.end() }
