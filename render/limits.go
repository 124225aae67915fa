package render

import (
	"errors"
	"fmt"
	"text/template/parse"
	"time"
)

// Limits bound what the templates of a branch can cost, whoever wrote them. What is zero gets its
// default.
type Limits struct {
	// Files in the folder, read or not; default 5,000.
	Files int
	// FileSize is the bytes of a file before it is rendered; default 2 MiB.
	FileSize int64
	// FileOutput and Output are the bytes rendered of one file and of all; default 2 MiB and 16 MiB.
	// Objects count again as JSON, so that aliases cannot multiply them.
	FileOutput, Output int64
	// FileWork and Work bound what one file and all may do until they are rendered: the bytes that
	// functions read and make, and 64 for each node of a template that is executed. They give the same
	// answer on every machine. Default 16 Mi and 256 Mi, about 250,000 nodes and four million.
	FileWork, Work int64
	// FileTime and Time end what is slow nevertheless; default 5 s and 30 s.
	FileTime, Time time.Duration
	// Objects in all manifests; default 10,000.
	Objects int
}

// Bounds that are no matter of size: what exceeds them is a mistake or an attack.
const (
	maxActions  = 20_000  // of a file: pairs of braces
	maxNodes    = 100_000 // of a file's parse tree
	maxNesting  = 200     // of if, range and with in each other
	maxDepth    = 50      // of templates that call each other
	maxHashes   = 10      // of files that hash each other
	maxValue    = 1 << 20 // bytes of a value that a function takes or makes
	maxWidth    = 1000    // of what printf pads
	maxObject   = 2 << 20 // bytes of an object as JSON: more than etcd takes
	maxTemplate = 1 << 20 // bytes: more than CloudFormation takes
	maxProblems = 20      // that an error tells
	nodeWork    = 64
)

func (l Limits) withDefaults() Limits {
	for _, limit := range []struct {
		of       *int64
		defaults int64
	}{
		{&l.FileSize, 2 << 20}, {&l.FileOutput, 2 << 20}, {&l.Output, 16 << 20}, {&l.FileWork, 16 << 20}, {&l.Work, 256 << 20},
	} {
		if *limit.of == 0 {
			*limit.of = limit.defaults
		}
	}
	if l.Files == 0 {
		l.Files = 5000
	}
	if l.Objects == 0 {
		l.Objects = 10_000
	}
	if l.FileTime == 0 {
		l.FileTime = 5 * time.Second
	}
	if l.Time == 0 {
		l.Time = 30 * time.Second
	}
	return l
}

// limitError says which limit is exceeded.
type limitError struct{ text string }

func (e *limitError) Error() string { return e.text }

func exceeded(format string, args ...any) error {
	return &limitError{text: fmt.Sprintf(format, args...)}
}

// ErrSlow is in the errors of what took longer than Limits.Time or Limits.FileTime. Elsewhere, or
// later, it may be fast enough.
var ErrSlow = errors.New("took too long")

// budget is what a release has cost so far.
type budget struct {
	limits       Limits
	deadline     time.Time
	work, output int64
	slow         bool // a time is over
}

// exhausted says that no other file needs to be tried.
func (b *budget) exhausted() bool {
	return b.work > b.limits.Work || b.output > b.limits.Output || b.checkTime() != nil
}

func (b *budget) checkTime() error {
	if time.Now().After(b.deadline) {
		b.slow = true
		return exceeded("rendering takes longer than %s", b.limits.Time)
	}
	return nil
}

func (b *budget) spendOutput(bytes int64) error {
	if b.output += bytes; b.output > b.limits.Output {
		return exceeded("all files together render more than %d bytes", b.limits.Output)
	}
	return nil
}

// execution is the rendering of one file. It is the writer of its template too.
type execution struct {
	*budget
	file     string
	deadline time.Time
	work     int64
	depth    int
	out      []byte

	// literals are the texts of the templates by where they are in memory: that is how a text is known
	// when it is written.
	literals map[*byte]parse.Pos
	pieces   []piece
}

func (b *budget) execution(file string) *execution {
	return &execution{budget: b, file: file, deadline: time.Now().Add(b.limits.FileTime), literals: map[*byte]parse.Pos{}}
}

func (e *execution) spend(work int64) error {
	e.work += work
	e.budget.work += work
	switch {
	case e.work > e.limits.FileWork:
		return exceeded("does more than templates may: loops, or texts that are too long (%d of work at most)", e.limits.FileWork)
	case e.budget.work > e.limits.Work:
		return exceeded("all files together do more than templates may (%d of work at most)", e.limits.Work)
	case time.Now().After(e.deadline):
		e.slow = true
		return exceeded("takes longer than %s", e.limits.FileTime)
	}
	return e.checkTime()
}

func (e *execution) Write(p []byte) (int, error) {
	if len(p) == 0 { // by the checks, whose own errors know the line
		return 0, nil
	}
	if int64(len(e.out)+len(p)) > e.limits.FileOutput {
		return 0, exceeded("renders more than %d bytes", e.limits.FileOutput)
	}
	if err := e.spendOutput(int64(len(p))); err != nil {
		return 0, err
	}
	if err := e.spend(int64(len(p))); err != nil {
		return 0, err
	}
	e.addPiece(&p[0])
	e.out = append(e.out, p...)
	return len(p), nil
}

// addPiece notes where the output that follows comes from: a text of the source, or what comes after
// the last such text.
func (e *execution) addPiece(begin *byte) {
	pos, literal := e.literals[begin]
	if !literal && len(e.pieces) > 0 {
		last := e.pieces[len(e.pieces)-1]
		if pos = last.pos; last.literal {
			pos += parse.Pos(len(e.out) - last.offset)
		}
	}
	e.pieces = append(e.pieces, piece{offset: len(e.out), pos: pos, literal: literal})
}
