package render

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// document reads a file that is one YAML document with keys, as the nodes that it consists of: nothing
// is expanded. It has neither aliases nor duplicate keys; without any content it is nil.
func (o output) document() (*yaml.Node, error) {
	decoder := yaml.NewDecoder(strings.NewReader(o.text))
	var found *yaml.Node
	for {
		var document yaml.Node
		if err := decoder.Decode(&document); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, o.syntax(err, 0)
		}
		content := document.Content[0]
		if content.Tag == "!!null" {
			continue
		}
		if found != nil {
			return nil, o.problem(content.Line, "", "begins another YAML document; exactly one is expected")
		}
		found = content
	}
	if found == nil {
		return nil, nil
	}
	if found.Kind != yaml.MappingNode {
		return nil, o.problem(found.Line, "", "must be keys with values")
	}
	return found, o.plain(found, 0)
}

// plain refuses what neither CloudFormation nor the files of ours have a use for.
func (o output) plain(node *yaml.Node, depth int) error {
	const deepest = 100
	if depth > deepest {
		return o.problem(node.Line, "", fmt.Sprintf("is nested more than %d deep", deepest))
	}
	if node.Kind == yaml.AliasNode {
		return o.problem(node.Line, "", "is an alias; write out what it stands for")
	}
	keys := map[string]int{}
	for i, child := range node.Content {
		if child.Tag == "!!merge" {
			return o.problem(child.Line, "", "is a merge; write out what it stands for")
		}
		if node.Kind == yaml.MappingNode && i%2 == 0 {
			if first, duplicate := keys[child.Value]; duplicate && child.Kind == yaml.ScalarNode {
				return o.problem(child.Line, "", fmt.Sprintf("the key %q is in line %d already", child.Value, first))
			}
			keys[child.Value] = child.Line
		}
		if err := o.plain(child, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// at is the value of a key; nil without one.
func at(node *yaml.Node, key string) *yaml.Node {
	if node == nil || node.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		if node.Content[i].Value == key {
			return node.Content[i+1]
		}
	}
	return nil
}

var syntaxLine = regexp.MustCompile(`line (\d+): (.*)`)

// syntax says what a YAML parser says about a part of the output that begins after so many lines.
func (o output) syntax(err error, before int) error {
	text := strings.TrimPrefix(strings.TrimPrefix(err.Error(), "error converting YAML to JSON: "), "yaml: ")
	line := 0
	if found := syntaxLine.FindStringSubmatch(text); found != nil {
		line, _ = strconv.Atoi(found[1])
		line, text = line+before, found[2]
	}
	return o.problem(line, "", "is no YAML: "+text)
}

// stackTags checks a CloudFormation template as far as Fairway depends on it.
func (r *rendering) stackTags(of output) (map[string]string, error) {
	if len(of.text) > maxTemplate {
		return nil, Problem{File: of.file, Text: fmt.Sprintf("renders %d bytes; CloudFormation takes at most %d", len(of.text), maxTemplate)}
	}
	root, err := of.document()
	if err != nil {
		return nil, err
	}
	resources := at(root, "Resources")
	if resources == nil || resources.Kind != yaml.MappingNode || len(resources.Content) == 0 {
		return nil, of.problem(0, "Resources", "is missing: a CloudFormation template needs resources")
	}
	tags := map[string]string{}
	if listed := at(at(root, "Metadata"), "Tags"); listed != nil {
		if listed.Kind != yaml.MappingNode {
			return nil, of.problem(listed.Line, "Metadata.Tags", "must be keys with values")
		}
		for i := 0; i+1 < len(listed.Content); i += 2 {
			key, value := listed.Content[i], listed.Content[i+1]
			if value.Kind != yaml.ScalarNode {
				return nil, of.problem(value.Line, "Metadata.Tags."+key.Value, "must be text")
			}
			tags[key.Value] = value.Value
		}
	}
	const owners = "kubernetes.io/cluster/"
	owner := owners + r.cluster.ID
	for _, key := range slices.Sorted(maps.Keys(tags)) {
		if strings.HasPrefix(key, owners) && key != owner {
			return nil, of.problem(0, "Metadata.Tags."+key, "is the mark of another cluster, with which the stack would go")
		}
	}
	if tags[owner] != "owned" {
		return nil, of.problem(0, "Metadata.Tags", fmt.Sprintf("lacks `%s: owned`, by which Fairway finds the stacks of a cluster", owner))
	}
	return tags, nil
}

// defaults are the entry's config items, on top of those that the configuration has for all.
func (r *rendering) defaults() map[string]string {
	if !r.tree.has(defaultsFile) && r.tree.odd[defaultsFile] == 0 {
		return overlaid(nil, r.cluster.ConfigItems)
	}
	rendered, err := r.template(defaultsFile, r.clusterData())
	if err != nil {
		r.report(err)
		return nil
	}
	root, err := rendered.document()
	if err != nil {
		r.report(err)
		return nil
	}
	items := map[string]string{}
	for i := 0; root != nil && i+1 < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		switch {
		case value.Kind != yaml.ScalarNode:
			r.report(rendered.problem(value.Line, key.Value, "is no text; config items are texts, put it in quotes or in a block (|)"))
		case value.Tag == "!!null":
			items[key.Value] = ""
		default:
			items[key.Value] = value.Value
		}
	}
	return overlaid(items, r.cluster.ConfigItems)
}
