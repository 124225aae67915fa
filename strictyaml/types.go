package strictyaml

import (
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// typeCheck compares a document with the Go type that it is for. The decoder alone is not enough:
// it stops at the first thing that is wrong, knows lines but no fields, and makes 3 of 3.5 and
// 1.1 of a text 1.10. What aliases stand for is left to it.
type typeCheck struct {
	report func(at *token.Token, field, text string)
}

func (c typeCheck) node(node ast.Node, typ reflect.Type, field string) {
	for typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	switch n := node.(type) {
	case nil, *ast.NullNode, *ast.AliasNode: // a field without a value is as good as none
		return
	case *ast.AnchorNode:
		c.node(n.Value, typ, field)
		return
	case *ast.TagNode:
		c.node(n.Value, typ, field)
		return
	}
	switch {
	case typ == reflect.TypeFor[time.Duration]():
		c.duration(node, field)
	case typ == reflect.TypeFor[time.Time]():
		c.moment(node, field)
	case typ.Kind() == reflect.Struct:
		c.structure(node, typ, field)
	case typ.Kind() == reflect.Map:
		c.mapping(node, field, func(key *token.Token, value ast.Node) { c.node(value, typ.Elem(), field+"."+key.Value) })
	case typ.Kind() == reflect.Slice:
		c.list(node, typ.Elem(), field)
	case typ.Kind() == reflect.String:
		c.text(node, field)
	case typ.Kind() == reflect.Bool:
		if _, ok := node.(*ast.BoolNode); !ok {
			c.wrong(node, field, "true or false")
		}
	case reflect.Int <= typ.Kind() && typ.Kind() <= reflect.Uint64:
		if _, ok := node.(*ast.IntegerNode); !ok {
			c.wrong(node, field, "a whole number")
		}
	case typ.Kind() == reflect.Float32 || typ.Kind() == reflect.Float64:
		switch number := node.(type) {
		case *ast.IntegerNode, *ast.FloatNode:
		case *ast.StringNode: // such as 1e-05, a number without a point, as YAML 1.2 has it and the encoder writes it
			if !exponent.MatchString(number.Token.Origin) {
				c.wrong(node, field, "a number")
			}
		default:
			c.wrong(node, field, "a number")
		}
	}
}

var exponent = regexp.MustCompile(`^\s*[-+]?[0-9]+[eE][-+]?[0-9]{1,2}\s*$`)

func (c typeCheck) structure(node ast.Node, typ reflect.Type, field string) {
	known := map[string]reflect.Type{}
	for _, f := range reflect.VisibleFields(typ) {
		if name := yamlName(f); name != "" {
			known[name] = f.Type
		}
	}
	c.mapping(node, field, func(key *token.Token, value ast.Node) {
		path := strings.TrimPrefix(field+"."+key.Value, ".")
		if typ := known[key.Value]; typ != nil {
			c.node(value, typ, path)
			return
		}
		c.report(key, path, "is no known key; there are "+strings.Join(slices.Sorted(maps.Keys(known)), ", "))
	})
}

func (c typeCheck) mapping(node ast.Node, field string, entry func(key *token.Token, value ast.Node)) {
	entries, ok := node.(ast.MapNode)
	if !ok {
		c.wrong(node, field, "keys with values")
		return
	}
	for all := entries.MapRange(); all.Next(); {
		if !all.Key().IsMergeKey() {
			entry(all.Key().GetToken(), all.Value())
		}
	}
}

func (c typeCheck) list(node ast.Node, element reflect.Type, field string) {
	list, ok := node.(*ast.SequenceNode)
	if !ok {
		c.wrong(node, field, "a list")
		return
	}
	for i, value := range list.Values {
		c.node(value, element, fmt.Sprintf("%s[%d]", field, i))
	}
}

func (c typeCheck) text(node ast.Node, field string) {
	scalar, ok := node.(ast.ScalarNode)
	if !ok {
		c.wrong(node, field, "text")
		return
	}
	switch node.(type) {
	case *ast.StringNode, *ast.LiteralNode:
		return
	}
	// A number or a truth value is fine as text if nothing of it is lost.
	if read := fmt.Sprint(scalar.GetValue()); read != written(node) {
		c.report(node.GetToken(), field, fmt.Sprintf("is %s, which is not text but means %s; put it in quotes", written(node), read))
	}
}

func (c typeCheck) duration(node ast.Node, field string) {
	const wanted = `a duration in hours, minutes and seconds, such as 72h, 1h30m or 500ms`
	text, ok := node.(*ast.StringNode)
	if !ok {
		c.wrong(node, field, wanted)
		return
	}
	if _, err := time.ParseDuration(text.Value); err != nil {
		c.wrong(node, field, wanted)
	}
}

func (c typeCheck) moment(node ast.Node, field string) {
	const wanted = "a time with its offset, such as 2026-12-24T18:00:00+01:00 or 2026-12-24T17:00:00Z"
	text, ok := node.(*ast.StringNode)
	if !ok {
		c.wrong(node, field, wanted)
		return
	}
	if _, err := time.Parse(time.RFC3339, text.Value); err != nil {
		c.wrong(node, field, wanted)
	}
}

func (c typeCheck) wrong(node ast.Node, field, wanted string) {
	is := ""
	switch node.(type) {
	case ast.MapNode:
		is = "has keys of its own"
	case *ast.SequenceNode:
		is = "is a list"
	case *ast.StringNode, *ast.LiteralNode:
		is = fmt.Sprintf("is %q", written(node))
	default:
		is = "is " + written(node)
	}
	c.report(node.GetToken(), field, is+"; must be "+wanted)
}

// written is a scalar as it stands in the file.
func written(node ast.Node) string { return node.GetToken().Value }

// yamlName is the key of a field, empty if it has none.
func yamlName(field reflect.StructField) string {
	name, _, _ := strings.Cut(field.Tag.Get("yaml"), ",")
	if name == "-" {
		return ""
	}
	return name
}
