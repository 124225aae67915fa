package render

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/fairway-project/fairway/strictyaml"
)

// deletionsDocument is the form of deletions.yaml.
type deletionsDocument struct {
	PreApply  []Deletion `yaml:"pre_apply"`
	PostApply []Deletion `yaml:"post_apply"`
}

const defaultNamespace = "kube-system"

// Check reports what the fields' types cannot say.
func (d *deletionsDocument) Check(report func(field, format string, args ...any)) {
	for list, deletions := range d.lists() {
		for i, deletion := range deletions {
			deletion.check(func(field, format string, args ...any) {
				report(fmt.Sprintf("%s[%d]%s", list, i, field), format, args...)
			})
		}
	}
}

func (d *deletionsDocument) lists() func(func(string, []Deletion) bool) {
	return func(yield func(string, []Deletion) bool) {
		_ = yield("pre_apply", d.PreApply) && yield("post_apply", d.PostApply)
	}
}

func (d Deletion) check(report func(field, format string, args ...any)) {
	var by []string
	if d.Name != "" {
		by = append(by, "name")
	}
	if len(d.Labels) > 0 {
		by = append(by, "labels")
	}
	if d.Selector != "" {
		by = append(by, "selector")
	}
	if len(by) != 1 {
		report("", "must have exactly one of name, labels and selector; has %s", or(strings.Join(by, " and "), "none"))
	}
	if d.Kind == "" {
		report(".kind", "is missing")
	}
	if selector, err := labels.Parse(d.Selector); err != nil {
		report(".selector", "is %q; must be a selector such as application=shop,release!=canary: %v", d.Selector, err)
	} else if d.Selector != "" && selector.Empty() {
		report(".selector", "selects everything; name the objects by a label")
	}
	if _, err := labels.ValidatedSelectorFromSet(d.Labels); err != nil {
		report(".labels", "are no labels: %v", err)
	}
	switch d.PropagationPolicy {
	case "", "Orphan", "Background", "Foreground":
	default:
		report(".propagation_policy", "is %q; must be one of Orphan, Background, Foreground", d.PropagationPolicy)
	}
	if d.GracePeriodSeconds != nil && *d.GracePeriodSeconds < 0 {
		report(".grace_period_seconds", "is %d; must be at least 0", *d.GracePeriodSeconds)
	}
}

func or(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}

func (r *rendering) deletions() Deletions {
	if !r.tree.has(deletionsFile) || r.over() {
		return Deletions{}
	}
	rendered, err := r.template(deletionsFile, r.clusterData())
	if err != nil {
		r.report(err)
		return Deletions{}
	}
	// This also refuses what could cost the decoder too much.
	root, err := rendered.document()
	if err != nil {
		r.report(err)
		return Deletions{}
	}
	var document deletionsDocument
	if err := strictyaml.Decode(deletionsFile, []byte(rendered.text), &document); err != nil {
		r.report(rendered.relocated(err))
		return Deletions{}
	}
	if all := len(document.PreApply) + len(document.PostApply); all > r.limits.Objects {
		r.report(Problem{File: deletionsFile, Text: fmt.Sprintf("holds more than %d deletions", r.limits.Objects)})
		return Deletions{}
	}
	for list, deletions := range document.lists() {
		entries := at(root, list)
		for i := range deletions {
			if entries != nil && i < len(entries.Content) { // two parsers have read it
				deletions[i].Line = rendered.sourceLine(entries.Content[i].Line)
			}
			deletions[i].Namespace = or(deletions[i].Namespace, defaultNamespace)
		}
	}
	return Deletions(document)
}
