package render

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/json"
	kubeyaml "sigs.k8s.io/yaml"
)

// manifests are all objects in the order in which they are applied.
func (r *rendering) manifests() []Manifest {
	var all []Manifest
	for _, file := range r.manifestFiles() {
		if r.over() {
			return nil
		}
		of, err := r.manifest(file)
		if err != nil {
			r.report(err)
			continue
		}
		found, err := r.objects(of)
		if err != nil {
			r.report(err)
		}
		if all = append(all, found...); len(all) > r.limits.Objects {
			r.report(Problem{File: file, Text: fmt.Sprintf("with all before it makes more than %d objects", r.limits.Objects)})
			return nil
		}
	}
	r.refuseDuplicates(all)
	slices.SortStableFunc(all, func(a, b Manifest) int { return rank(a) - rank(b) })
	return all
}

// rank puts first what others need to exist.
func rank(m Manifest) int {
	switch m.Object.GroupVersionKind().GroupKind() {
	case schema.GroupKind{Kind: "Namespace"}:
		return 0
	case schema.GroupKind{Group: "apiextensions.k8s.io", Kind: "CustomResourceDefinition"}:
		return 1
	}
	return 2
}

// manifestFiles are those of manifests/<application>/. YAML elsewhere in manifests/ is refused: who
// put it there expects it to be applied.
func (r *rendering) manifestFiles() []string {
	var files []string
	for _, file := range r.tree.plain {
		below, ours := strings.CutPrefix(file, manifests)
		if ext := path.Ext(file); !ours || file == deletionsFile || ext != ".yaml" && ext != ".yml" {
			continue
		}
		if strings.Count(below, "/") != 1 {
			r.report(Problem{File: file, Text: "is in no application's folder; manifests are manifests/<application>/<name>.yaml"})
			continue
		}
		files = append(files, file)
	}
	for _, file := range slices.Sorted(maps.Keys(r.tree.odd)) {
		if strings.HasPrefix(file+"/", manifests) {
			r.report(oddity(file, r.tree.odd[file]))
		}
	}
	return files
}

// rendered is a manifest as it is rendered once: others may ask for its hash, before or after its turn.
type rendered struct {
	output output
	err    error
	done   bool
}

func (r *rendering) manifest(file string) (output, error) {
	known := r.rendered[file]
	if known == nil {
		known = &rendered{}
		r.rendered[file] = known
		known.output, known.err = r.template(file, r.clusterData())
		known.done = true
	}
	return known.output, known.err
}

// manifestHash is the SHA-256 of another manifest, as it is rendered. Its path is relative to the
// folder of the file that asks.
func (r *rendering) manifestHash(name string) (string, error) {
	file := path.Join(path.Dir(r.current.file), name)
	if !strings.HasPrefix(file, manifests) {
		return "", fmt.Errorf("%q is not in %s", name, manifests)
	}
	if known := r.rendered[file]; known != nil && !known.done {
		return "", fmt.Errorf("%q is being rendered for this very file", name)
	}
	if r.nested++; r.nested > maxHashes {
		return "", fmt.Errorf("%q is the last of more than %d files that ask for each other's hashes", name, maxHashes)
	}
	of, err := r.manifest(file)
	r.nested--
	if err != nil {
		if !errors.As(err, new(Problem)) {
			r.report(err)
		}
		// Not wrapped: limits that the other file exceeds are not this one's.
		return "", fmt.Errorf("%q cannot be rendered: %v", name, err)
	}
	sum := sha256.Sum256([]byte(of.text))
	return hex.EncodeToString(sum[:]), nil
}

// objects reads all documents of a manifest. It goes on after a bad one.
func (r *rendering) objects(of output) ([]Manifest, error) {
	var found []Manifest
	var wrong []error
	for _, part := range documents(of.text) {
		if err := r.checkTime(); err != nil {
			return nil, Problem{File: of.file, Text: err.Error()}
		}
		object, err := r.object(of, part)
		if err == nil && object != nil {
			found, err = flatten(found, of, part, object)
		}
		if err != nil {
			wrong = append(wrong, err)
		}
		if len(wrong) > maxProblems {
			break
		}
	}
	return found, errors.Join(wrong...)
}

// part is a document of a file: its text begins after so many lines, and its content in a line and at
// an offset.
type part struct {
	text          string
	before        int
	line, content int
}

// documents splits a file where YAML does: at lines that begin with three dashes, or dots.
func documents(text string) []part {
	var parts []part
	begin, before, number := 0, 0, 0
	end := func(at int) {
		if line, offset, ok := content(text[begin:at]); ok {
			parts = append(parts, part{text: text[begin:at], before: before, line: before + line, content: begin + offset})
		}
	}
	at := 0
	for line := range strings.Lines(text) {
		switch {
		case marks(line, "---"): // what follows it in the line belongs to the document
			end(at)
			begin, before = at, number
		case marks(line, "..."):
			end(at)
			begin, before = at+len(line), number+1
		}
		at += len(line)
		number++
	}
	end(at)
	return parts
}

func marks(line, mark string) bool {
	rest, found := strings.CutPrefix(line, mark)
	return found && (rest == "" || strings.ContainsAny(rest[:1], " \t\r\n"))
}

// content finds the first line that is more than a mark or a comment.
func content(text string) (line, offset int, ok bool) {
	for content := range strings.Lines(text) {
		line++
		trimmed := strings.TrimSpace(strings.TrimPrefix(content, "---"))
		if trimmed != "" && !strings.HasPrefix(trimmed, "#") {
			return line, offset, true
		}
		offset += len(content)
	}
	return 0, 0, false
}

// object reads a document as the API server reads it; without content it is nil.
func (r *rendering) object(of output, part part) (map[string]any, error) {
	if strings.Contains(part.text, "&") && strings.Contains(part.text, "*") {
		if err := of.checkAliases(part); err != nil {
			return nil, err
		}
	}
	converted, err := kubeyaml.YAMLToJSONStrict([]byte(part.text))
	if err != nil {
		return nil, of.syntax(err, part.before)
	}
	if len(converted) > maxObject {
		return nil, of.problem(part.line, "", fmt.Sprintf("is an object of more than %d bytes", maxObject))
	}
	if err := r.spendOutput(int64(len(converted))); err != nil {
		return nil, Problem{File: of.file, Text: err.Error()}
	}
	if bytes.Equal(converted, []byte("null")) {
		return nil, nil
	}
	var object map[string]any
	if err := json.Unmarshal(converted, &object); err != nil {
		return nil, of.problem(part.line, "", "is no Kubernetes object: must be keys with values")
	}
	return object, nil
}

// checkAliases refuses documents that grow beyond an object's size when aliases are replaced by what
// they stand for.
func (o output) checkAliases(part part) error {
	var document yaml.Node
	if err := yaml.Unmarshal([]byte(part.text), &document); err != nil {
		return o.syntax(err, part.before)
	}
	sizes := map[*yaml.Node]int{}
	var size func(node *yaml.Node) int
	size = func(node *yaml.Node) int {
		if node.Kind == yaml.AliasNode {
			node = node.Alias
		}
		if known, ok := sizes[node]; ok {
			return known
		}
		sizes[node] = maxObject + 1 // while it is unknown: an alias within what it stands for
		sum := len(node.Value) + 1
		for _, child := range node.Content {
			if sum += size(child); sum > maxObject {
				sum = maxObject + 1
				break
			}
		}
		sizes[node] = sum
		return sum
	}
	if size(&document) > maxObject {
		return o.problem(part.line, "", fmt.Sprintf("is an object of more than %d bytes when its aliases are replaced", maxObject))
	}
	return nil
}

// flatten adds an object, or the objects that a list holds.
func flatten(to []Manifest, of output, part part, object map[string]any) ([]Manifest, error) {
	kind, _ := object["kind"].(string)
	items, isList := object["items"].([]any)
	if !isList || !strings.HasSuffix(kind, "List") {
		if err := of.checkObject(part.line, object); err != nil {
			return to, err
		}
		return append(to, Manifest{File: of.file, Line: of.sourceLineAt(part.content), Object: &unstructured.Unstructured{Object: object}}), nil
	}
	for i, item := range items {
		inner, ok := item.(map[string]any)
		if !ok {
			return to, of.problem(part.line, fmt.Sprintf("items[%d]", i), "is no Kubernetes object: must be keys with values")
		}
		var err error
		if to, err = flatten(to, of, part, inner); err != nil {
			return to, err
		}
	}
	return to, nil
}

// checkObject reports what an object lacks to be applied at all.
func (o output) checkObject(line int, object map[string]any) error {
	for _, field := range [][]string{{"apiVersion"}, {"kind"}, {"metadata", "name"}} {
		name := strings.Join(field, ".")
		text, found, err := unstructured.NestedString(object, field...)
		switch {
		case err != nil:
			return o.problem(line, name, "must be text")
		case found && text != "":
		case name == "metadata.name" && generated(object):
			return o.problem(line, "metadata.generateName", "would make another object by each update; give it a name")
		default:
			return o.problem(line, name, "is missing")
		}
	}
	if _, err := schema.ParseGroupVersion(object["apiVersion"].(string)); err != nil {
		return o.problem(line, "apiVersion", fmt.Sprintf("is %q; must be such as v1 or apps/v1", object["apiVersion"]))
	}
	if _, _, err := unstructured.NestedString(object, "metadata", "namespace"); err != nil {
		return o.problem(line, "metadata.namespace", "must be text")
	}
	for _, field := range []string{"labels", "annotations"} {
		texts, _, err := unstructured.NestedFieldNoCopy(object, "metadata", field)
		if err != nil || texts == nil {
			continue
		}
		entries, ok := texts.(map[string]any)
		if !ok {
			return o.problem(line, "metadata."+field, "must be keys with values")
		}
		for _, key := range slices.Sorted(maps.Keys(entries)) {
			if _, ok := entries[key].(string); !ok {
				return o.problem(line, "metadata."+field+"."+key, "must be text; put it in quotes")
			}
		}
	}
	return nil
}

func generated(object map[string]any) bool {
	name, _, _ := unstructured.NestedString(object, "metadata", "generateName")
	return name != ""
}

// refuseDuplicates reports objects that two places describe: each update would write both.
func (r *rendering) refuseDuplicates(all []Manifest) {
	type key struct {
		kind            schema.GroupKind
		namespace, name string
	}
	first := map[key]Manifest{}
	for _, m := range all {
		id := key{m.Object.GroupVersionKind().GroupKind(), m.Object.GetNamespace(), m.Object.GetName()}
		if id.namespace == "default" { // what has a namespace is there without one too
			id.namespace = ""
		}
		if before, duplicate := first[id]; duplicate {
			r.report(Problem{File: m.File, Line: m.Line, Text: fmt.Sprintf("%s %s is in %s:%d already",
				id.kind, strings.TrimPrefix(m.Object.GetNamespace()+"/"+id.name, "/"), before.File, before.Line)})
			continue
		}
		first[id] = m
	}
}
