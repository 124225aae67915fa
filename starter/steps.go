package main

import (
	"io"
	"slices"
	"sync"
)

// steps shows how far a number of steps are, several of which may be under way at a time.
type steps struct {
	mutex   sync.Mutex
	report  report
	running []string
	notes   []string
	done    int
	total   int
}

func newSteps(out io.Writer, total int) *steps {
	return &steps{report: newReport(out, total), total: total}
}

// add says that there are more steps than was known.
func (s *steps) add(more int) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.total += more
}

// take does a step. What it returns is said with its name.
func (s *steps) take(name string, do func() (outcome string, err error)) error {
	s.change(func() { s.running = append(s.running, name) })
	outcome, err := do()
	if err != nil {
		outcome = "failed"
	}
	s.change(func() {
		s.running = slices.DeleteFunc(s.running, func(each string) bool { return each == name })
		s.notes = append(s.notes, name+": "+outcome)
		s.done++
	})
	return err
}

func (s *steps) change(change func()) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	change()
	view := rollView{Counts: counts{Total: s.total, Done: s.done}, Notes: slices.Clone(s.notes), Step: "done"}
	if len(s.running) > 0 {
		view.Step = s.running[len(s.running)-1]
		view.Waits = slices.Clone(s.running[:len(s.running)-1])
	}
	s.report.show(view)
}

func (s *steps) end() { s.report.end() }
