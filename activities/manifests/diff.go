package manifests

import (
	"fmt"
	"strings"

	"github.com/pmezard/go-difflib/difflib"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// Limits of a diff. Comparing lines takes time that grows with the square of their number.
const (
	diffLimit = 4 << 10 // bytes
	lineLimit = 2000
)

// lastApplied is what kubectl notes on objects: all of them again, secrets included.
const lastApplied = "kubectl.kubernetes.io/last-applied-configuration"

// diff shows in unified form, as YAML, how an object would change. Either may be nil. What only the
// API server writes is left out, and so are the values of secrets.
func diff(before, after *unstructured.Unstructured) string {
	old, changed := clean(before), clean(after)
	hideSecrets(old, changed)
	a, b := lines(old), lines(changed)
	if len(a) > lineLimit || len(b) > lineLimit {
		if strings.Join(a, "") == strings.Join(b, "") {
			return ""
		}
		return fmt.Sprintf("(too long to compare: %d and %d lines)\n", len(a), len(b))
	}
	text, err := difflib.GetUnifiedDiffString(difflib.UnifiedDiff{A: a, B: b, Context: 3})
	if err != nil { // writing to memory
		return err.Error()
	}
	if len(text) <= diffLimit {
		return text
	}
	cut := text[:strings.LastIndexByte(text[:diffLimit], '\n')+1]
	return cut + fmt.Sprintf("(%d more lines)\n", strings.Count(text[len(cut):], "\n"))
}

func clean(object *unstructured.Unstructured) map[string]any {
	if object == nil {
		return nil
	}
	fields := object.DeepCopy().Object
	for _, path := range [][]string{
		{"status"}, {"metadata", "managedFields"}, {"metadata", "resourceVersion"}, {"metadata", "generation"},
		{"metadata", "uid"}, {"metadata", "creationTimestamp"}, {"metadata", "annotations", lastApplied},
	} {
		unstructured.RemoveNestedField(fields, path...)
	}
	if annotations, _, _ := unstructured.NestedMap(fields, "metadata", "annotations"); len(annotations) == 0 {
		unstructured.RemoveNestedField(fields, "metadata", "annotations")
	}
	return fields
}

func lines(fields map[string]any) []string {
	if fields == nil {
		return nil
	}
	text, err := yaml.Marshal(fields)
	if err != nil {
		return []string{err.Error() + "\n"}
	}
	return difflib.SplitLines(strings.TrimSuffix(string(text), "\n"))
}

// hideSecrets replaces the values of a Secret by words that only say whether they differ. Not by
// hashes: those of short values can be guessed.
func hideSecrets(before, after map[string]any) {
	if kind(before) != "Secret" && kind(after) != "Secret" {
		return
	}
	for _, section := range []string{"data", "stringData"} {
		for _, fields := range []map[string]any{before, after} {
			if fields[section] != nil && valuesIn(fields, section) == nil {
				fields[section] = "(hidden)" // whoever forgot its keys has not forgotten its value
			}
		}
		old, changed := valuesIn(before, section), valuesIn(after, section)
		for key, value := range changed {
			was, known := old[key]
			switch {
			case !known:
				changed[key] = "(hidden)"
			case was == value:
				old[key], changed[key] = "(hidden)", "(hidden)"
			default:
				old[key], changed[key] = "(hidden, before)", "(hidden, after)"
			}
		}
		for key := range old {
			if _, both := changed[key]; !both {
				old[key] = "(hidden)"
			}
		}
	}
}

func kind(fields map[string]any) string {
	kind, _ := fields["kind"].(string)
	return kind
}

func valuesIn(fields map[string]any, name string) map[string]any {
	values, _ := fields[name].(map[string]any)
	return values
}
