package render

import (
	"reflect"
	"text/template"
	"text/template/parse"
)

// text/template can be neither cancelled nor bounded from outside: a loop that writes nothing goes on
// until it is done. So each template and each turn of a loop begins with a call of our own, which is
// put into its parse tree and refuses when the budget is spent.
const (
	enterCheck = "_enter"
	leaveCheck = "_leave"
	turnCheck  = "_turn"
)

// guarded puts the checks into all templates of a file. The checks' functions are added only now, so
// that no template can be parsed that calls them by itself.
func guarded(parsed *template.Template, e *execution) error {
	g := guard{literals: e.literals}
	for _, t := range parsed.Templates() {
		if t.Tree == nil || t.Root == nil {
			continue
		}
		weight, err := g.list(t.Root, 0)
		if err != nil {
			return err
		}
		before, after := check(enterCheck, t.Root.Pos, weight), check(leaveCheck, t.Root.Pos, 0)
		t.Root.Nodes = append([]parse.Node{before}, append(t.Root.Nodes, after)...)
	}
	parsed.Funcs(template.FuncMap{
		turnCheck: func(weight int64) (string, error) { return "", e.spend(weight * nodeWork) },
		enterCheck: func(weight int64) (string, error) {
			if e.depth++; e.depth > maxDepth {
				return "", exceeded("has templates that call each other more than %d deep", maxDepth)
			}
			return "", e.spend(weight * nodeWork)
		},
		leaveCheck: func(int64) string { e.depth--; return "" },
	})
	return nil
}

func check(name string, pos parse.Pos, weight int64) *parse.ActionNode {
	call := &parse.CommandNode{NodeType: parse.NodeCommand, Pos: pos, Args: []parse.Node{
		parse.NewIdentifier(name).SetPos(pos),
		&parse.NumberNode{NodeType: parse.NodeNumber, Pos: pos, IsInt: true, Int64: weight},
	}}
	return &parse.ActionNode{NodeType: parse.NodeAction, Pos: pos, Pipe: &parse.PipeNode{
		NodeType: parse.NodePipe, Pos: pos, Cmds: []*parse.CommandNode{call},
	}}
}

// guard weighs parse trees: the weight of nodes is how many of them are executed at most, without the
// bodies of loops, whose turns are weighed one by one.
type guard struct {
	nodes    int64
	literals map[*byte]parse.Pos
}

func (g *guard) list(list *parse.ListNode, nesting int) (int64, error) {
	if list == nil {
		return 0, nil
	}
	if nesting > maxNesting {
		return 0, exceeded("nests if, range and with more than %d deep", maxNesting)
	}
	weight := int64(1)
	for _, node := range list.Nodes {
		of, err := g.node(node, nesting)
		if err != nil {
			return 0, err
		}
		weight += of
	}
	if g.nodes += int64(len(list.Nodes)); g.nodes > maxNodes {
		return 0, exceeded("has more than %d parts", maxNodes)
	}
	return weight, nil
}

func (g *guard) node(node parse.Node, nesting int) (int64, error) {
	switch n := node.(type) {
	case *parse.TextNode:
		if len(n.Text) > 0 {
			g.literals[&n.Text[0]] = n.Pos
		}
	case *parse.ActionNode:
		return 1 + g.pipe(n.Pipe), nil
	case *parse.TemplateNode:
		return 1 + g.pipe(n.Pipe), nil
	case *parse.IfNode:
		return g.branch(&n.BranchNode, nesting)
	case *parse.WithNode:
		return g.branch(&n.BranchNode, nesting)
	case *parse.RangeNode:
		body, err := g.list(n.List, nesting+1)
		if err != nil {
			return 0, err
		}
		n.List.Nodes = append([]parse.Node{check(turnCheck, n.List.Pos, body)}, n.List.Nodes...)
		otherwise, err := g.list(n.ElseList, nesting+1)
		return 1 + g.pipe(n.Pipe) + otherwise, err
	}
	return 1, nil
}

func (g *guard) branch(n *parse.BranchNode, nesting int) (int64, error) {
	then, err := g.list(n.List, nesting+1)
	if err != nil {
		return 0, err
	}
	otherwise, err := g.list(n.ElseList, nesting+1)
	return 1 + g.pipe(n.Pipe) + then + otherwise, err
}

func (g *guard) pipe(pipe *parse.PipeNode) int64 {
	if pipe == nil {
		return 0
	}
	weight := int64(0)
	for _, command := range pipe.Cmds {
		for _, arg := range command.Args {
			weight++
			switch a := arg.(type) {
			case *parse.PipeNode:
				weight += g.pipe(a)
			case *parse.ChainNode:
				if inner, ok := a.Node.(*parse.PipeNode); ok {
					weight += g.pipe(inner)
				}
			}
		}
	}
	g.nodes += weight
	return weight
}

// bounded is a function whose arguments and result are weighed: together at most maxValue each, so
// that no text can be doubled again and again, and all of it at the expense of the current file.
func bounded(function any, current func() *execution) any {
	call := reflect.ValueOf(function)
	return reflect.MakeFunc(call.Type(), func(args []reflect.Value) []reflect.Value {
		// text/template makes an error of a panic in a function.
		e := current()
		weigh := func(values []reflect.Value) {
			size := int64(nodeWork)
			for _, value := range values {
				size = grow(value, size)
			}
			if size > maxValue {
				panic(exceeded("takes or makes a value of more than %d bytes", maxValue))
			}
			if err := e.spend(size); err != nil {
				panic(err)
			}
		}
		weigh(args)
		var results []reflect.Value
		if call.Type().IsVariadic() {
			results = call.CallSlice(args)
		} else {
			results = call.Call(args)
		}
		weigh(results[:1])
		return results
	}).Interface()
}

// grow adds the bytes of a value and of all it holds to a size; beyond maxValue it looks no further.
func grow(value reflect.Value, size int64) int64 {
	const each = 16
	if size += each; size > maxValue {
		return size
	}
	switch value.Kind() {
	case reflect.String:
		return size + int64(value.Len())
	case reflect.Slice, reflect.Array:
		for i := 0; i < value.Len() && size <= maxValue; i++ {
			size = grow(value.Index(i), size)
		}
	case reflect.Map:
		for all := value.MapRange(); size <= maxValue && all.Next(); {
			size = grow(all.Value(), grow(all.Key(), size))
		}
	case reflect.Struct:
		for i := 0; i < value.NumField() && size <= maxValue; i++ {
			size = grow(value.Field(i), size)
		}
	case reflect.Pointer, reflect.Interface:
		if !value.IsNil() {
			return grow(value.Elem(), size)
		}
	}
	return size
}
