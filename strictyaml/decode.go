// Package strictyaml reads the YAML files that people write for Fairway. It accepts nothing it
// does not understand, and its errors name file, line, field and what is wrong with it.
package strictyaml

import (
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strings"

	"github.com/go-playground/validator/v10"
	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// MaxSize bounds the input in bytes. A file of this kind that is larger is a mistake or an attack.
const MaxSize = 16 << 20

// Problem is one thing that is wrong with a file.
type Problem struct {
	File  string
	Line  int    // 0 where no line can be named
	Field string // path of the field, such as "clusters[1].node_pools[0].max_size"; may be empty
	Text  string
}

func (p Problem) Error() string {
	where := p.File
	if p.Line > 0 {
		where = fmt.Sprintf("%s:%d", p.File, p.Line)
	}
	if p.Field != "" {
		where += ": " + p.Field
	}
	return where + ": " + p.Text
}

// Checker is implemented by documents whose fields depend on each other. Check reports each
// problem by the field's path (as in Problem.Field) and a text that says how to mend it.
type Checker interface {
	Check(report func(field, format string, args ...any))
}

// Decode reads one YAML document into out, a pointer to a struct with `yaml` and `validate`
// tags; what the document leaves out keeps its value there. Unknown and duplicate keys and wrong
// types are refused. The error joins one Problem for everything that is wrong; name is the file's
// name in them.
func Decode(name string, data []byte, out any) error {
	if len(data) > MaxSize {
		return Problem{File: name, Text: fmt.Sprintf("is %d bytes long; at most %d are read", len(data), MaxSize)}
	}
	tokens, err := scan(name, data)
	if err != nil {
		return err
	}
	file, err := parser.Parse(tokens, 0)
	if err != nil {
		return syntaxProblem(name, err)
	}
	switch contents := contents(file); len(contents) {
	case 0: // every field keeps its default
	case 1:
		if err := decode(name, contents[0], out); err != nil {
			return err
		}
	default:
		return Problem{File: name, Text: fmt.Sprintf("holds %d YAML documents; exactly one is expected", len(contents))}
	}
	return validate(name, file, out)
}

// contents are the documents of a file that are not empty.
func contents(file *ast.File) []ast.Node {
	var bodies []ast.Node
	for _, document := range file.Docs {
		if document.Body != nil && document.Body.Type() != ast.NullType {
			bodies = append(bodies, document.Body)
		}
	}
	return bodies
}

func decode(name string, body ast.Node, out any) error {
	var problems []error
	types := typeCheck{report: func(at *token.Token, field, text string) {
		problems = append(problems, Problem{File: name, Line: at.Position.Line, Field: field, Text: text})
	}}
	types.node(body, reflect.TypeOf(out), "")
	if len(problems) > 0 {
		return errors.Join(problems...)
	}
	// The parser has refused duplicate keys; the decoder would also refuse one that overrides a merged one.
	decoder := yaml.NewDecoder(strings.NewReader(""), yaml.DisallowUnknownField(), yaml.AllowDuplicateMapKey())
	if err := decoder.DecodeFromNode(body, out); err != nil {
		return syntaxProblem(name, err)
	}
	return nil
}

// Validate checks a value that did not come from a YAML file by the same rules, as Decode does; name
// says in errors what is checked.
func Validate(name string, value any) error { return validate(name, nil, value) }

func validate(name string, file *ast.File, out any) error {
	var problems []error
	report := func(field, format string, args ...any) {
		problems = append(problems, Problem{File: name, Line: lineOf(file, field), Field: field, Text: fmt.Sprintf(format, args...)})
	}
	var invalid validator.ValidationErrors
	if err := rules.Struct(out); errors.As(err, &invalid) {
		for _, field := range invalid {
			_, path, _ := strings.Cut(field.Namespace(), ".")
			path = mapKey.ReplaceAllString(strings.ReplaceAll(path, inlined+".", ""), ".$1")
			report(path, "%s", explain(field))
		}
	} else if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if checker, ok := out.(Checker); ok {
		checker.Check(report)
	}
	return errors.Join(problems...)
}

func syntaxProblem(name string, err error) error {
	var located yaml.Error
	if !errors.As(err, &located) {
		return Problem{File: name, Text: err.Error()}
	}
	problem := Problem{File: name, Text: located.GetMessage()}
	if at := located.GetToken(); at != nil {
		problem.Line = at.Position.Line
	}
	return problem
}

// lineOf finds the line of a field, or of the nearest thing around it that is in the file:
// a missing field has no line of its own.
func lineOf(file *ast.File, field string) int {
	for file != nil && field != "" {
		if path, err := yaml.PathString("$." + field); err == nil {
			if node, err := path.FilterFile(file); err == nil && node != nil {
				return node.GetToken().Position.Line
			}
		}
		cut := strings.LastIndexAny(field, ".[")
		if cut < 0 {
			break
		}
		field = field[:cut]
	}
	return 0
}

var rules = newRules()

func newRules() *validator.Validate {
	v := validator.New(validator.WithRequiredStructEnabled())
	v.RegisterTagNameFunc(func(field reflect.StructField) string {
		if strings.HasSuffix(field.Tag.Get("yaml"), ",inline") {
			return inlined
		}
		return yamlName(field)
	})
	return v
}

// mapKey is how the validator writes the key of a map; in a field's path it is one more name.
var mapKey = regexp.MustCompile(`\[([^\]0-9][^\]]*)\]`)

// inlined stands in paths for a struct whose fields are written as if they were its parent's.
const inlined = "(inline)"

func explain(e validator.FieldError) string {
	switch e.Tag() {
	case "required", "required_if", "required_with", "required_without":
		return "is missing"
	case "oneof":
		return fmt.Sprintf("is %q; must be one of %s", e.Value(), strings.Join(strings.Fields(e.Param()), ", "))
	case "min", "gte":
		return fmt.Sprintf("is %v; must be at least %s", e.Value(), e.Param())
	case "max", "lte":
		return fmt.Sprintf("is %v; must be at most %s", e.Value(), e.Param())
	case "gt":
		return fmt.Sprintf("is %v; must be more than %s", e.Value(), e.Param())
	case "url", "http_url":
		return fmt.Sprintf("is %q; must be a URL such as https://example.org", e.Value())
	case "hostname_port":
		return fmt.Sprintf("is %q; must be an address such as 127.0.0.1:9464", e.Value())
	default:
		return fmt.Sprintf("is %v, which breaks the rule %q", e.Value(), strings.TrimSuffix(e.Tag()+"="+e.Param(), "="))
	}
}
