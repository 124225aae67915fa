package render

import (
	"errors"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template/parse"

	"github.com/fairway-project/fairway/registry"
)

// entry is a registry entry without methods: templates see fields only.
type entry registry.Cluster

// data is the dot of a template. The entry's fields can be had directly too, as `.ID` and as
// `.Cluster.ID`: there are repositories of either kind.
type data struct {
	entry
	Cluster  entry
	NodePool any // a registry.NodePool in node-pools/, else nil
	Values   map[string]any
}

func (r *rendering) clusterData() data {
	return data{entry: entry(r.cluster), Cluster: entry(r.cluster), Values: r.values}
}

func (d data) ofPool(pool registry.NodePool) data {
	pool.ConfigItems = overlaid(d.Cluster.ConfigItems, pool.ConfigItems)
	d.NodePool = pool
	return d
}

func (d data) with(value string, is any) data {
	d.Values = maps.Clone(d.Values)
	if d.Values == nil {
		d.Values = map[string]any{}
	}
	d.Values[value] = is
	return d
}

func overlaid(under, over map[string]string) map[string]string {
	both := make(map[string]string, len(under)+len(over))
	maps.Copy(both, under)
	maps.Copy(both, over)
	return both
}

// output is a rendered file.
type output struct {
	file, source, text string
	pieces             []piece
}

// piece is what of an output was written at once: from an offset on, by what is at a position of the
// source. A literal piece is a part of the source.
type piece struct {
	offset  int
	pos     parse.Pos
	literal bool
}

// problem describes something wrong with a line of the output, by the line of the source that made it.
func (o output) problem(line int, field, text string) Problem {
	made := o.sourceLine(line)
	if made != line {
		text += " (in line " + strconv.Itoa(line) + " of what the template renders)"
	}
	return Problem{File: o.file, Line: made, Field: field, Text: text}
}

func (o output) sourceLine(line int) int {
	if line == 0 {
		return 0
	}
	offset := 0
	for range line - 1 {
		offset += strings.IndexByte(o.text[offset:], '\n') + 1
	}
	return o.sourceLineAt(offset)
}

// sourceLineAt is the line of the source that made what follows an offset of the output.
func (o output) sourceLineAt(offset int) int {
	rest := o.text[offset:]
	offset += len(rest) - len(strings.TrimLeft(rest, " \t\r\n-"))
	by, _ := slices.BinarySearchFunc(o.pieces, offset+1, func(p piece, offset int) int { return p.offset - offset })
	if by == 0 {
		return 1
	}
	p := o.pieces[by-1]
	line := 1 + strings.Count(o.source[:p.pos], "\n")
	if p.literal {
		line += strings.Count(o.text[p.offset:offset], "\n")
	}
	return line
}

// relocated are the problems that others have found with the output.
func (o output) relocated(err error) error {
	if problem, ok := err.(Problem); ok {
		return o.problem(problem.Line, problem.Field, problem.Text)
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return err
	}
	var problems []error
	for _, problem := range joined.Unwrap() {
		problems = append(problems, o.relocated(problem))
	}
	return errors.Join(problems...)
}

// template renders a file. The error is a Problem, unless the file could not be had.
func (r *rendering) template(file string, dot data) (output, error) {
	if err := r.checkTime(); err != nil {
		return output{}, problemOf(file, err)
	}
	source, err := r.tree.read(file, r.limits.FileSize)
	if err != nil {
		return output{}, err
	}
	if strings.Count(source, "{{") > maxActions {
		return output{}, Problem{File: file, Text: "has more than " + strconv.Itoa(maxActions) + " template actions"}
	}
	parsed, err := r.functions.Clone()
	if err != nil {
		return output{}, err
	}
	if parsed, err = parsed.New(file).Parse(source); err != nil {
		return output{}, problemOf(file, err)
	}
	e := r.execution(file)
	if err := guarded(parsed, e); err != nil {
		return output{}, problemOf(file, err)
	}
	outer := r.current
	r.current = e
	err = parsed.Execute(e, dot)
	r.current = outer
	if err != nil {
		return output{}, problemOf(file, err)
	}
	return output{file: file, source: source, text: string(e.out), pieces: e.pieces}, nil
}

var (
	executing   = regexp.MustCompile(`(?s)^executing ".*?" at <(.*?)>: (.*)$`)
	missingKey  = regexp.MustCompile(`^map has no entry for key (".*")$`)
	missingPart = regexp.MustCompile(`^can't evaluate field (\w+) in type .*$`)
	missingPool = regexp.MustCompile(`^(nil data; no entry for key|nil pointer evaluating interface \{\})`)
	calling     = regexp.MustCompile(`^error calling \w+: `)
)

// problemOf says what the template engine says, by file, line and expression.
func problemOf(file string, err error) Problem {
	problem := Problem{File: file, Text: err.Error()}
	var limit *limitError
	exceeded := errors.As(err, &limit)
	if rest, ok := strings.CutPrefix(problem.Text, "template: "+file+":"); ok {
		// Errors of parsing have a line, those of executing a column too.
		for _, number := range []*int{&problem.Line, new(int)} {
			digits, text, found := strings.Cut(rest, ":")
			parsed, err := strconv.Atoi(digits)
			if !found || err != nil {
				break
			}
			*number, rest = parsed, text
		}
		problem.Text = strings.TrimSpace(rest)
	}
	if at := executing.FindStringSubmatch(problem.Text); at != nil {
		problem.Field, problem.Text = at[1], explain(at[1], at[2])
	}
	if exceeded {
		problem.Field, problem.Text = "", limit.text
	}
	return problem
}

func explain(expression, text string) string {
	if key := missingKey.FindStringSubmatch(text); key != nil {
		if strings.Contains(expression, "ConfigItems") {
			return "there is no config item " + key[1] + "; give it a default in config-defaults.yaml or a value in the cluster's registry entry"
		}
		return "there is no " + key[1] + " here"
	}
	if part := missingPart.FindStringSubmatch(text); part != nil {
		return "there is no field " + strconv.Quote(part[1]) + " here"
	}
	if strings.Contains(expression, ".NodePool.") && missingPool.MatchString(text) {
		return "there is a node pool in node-pools/ only"
	}
	if call := calling.FindString(text); call != "" {
		return strings.TrimPrefix(text, call)
	}
	return text
}
