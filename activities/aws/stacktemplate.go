package aws

import (
	"encoding/json"
	"fmt"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// Limits of CloudFormation on templates, in bytes
// (https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/cloudformation-limits.html).
const (
	maxTemplateInRequest = 51_200
	maxTemplate          = 1 << 20
)

const groupType, bucketType = "AWS::AutoScaling::AutoScalingGroup", "AWS::S3::Bucket"

// stackTemplate is what Fairway needs to know of a CloudFormation template.
type stackTemplate struct {
	Transform any                 `json:"Transform" yaml:"Transform"`
	Resources map[string]resource `json:"Resources" yaml:"Resources"`
}

type resource struct {
	Type           string         `json:"Type" yaml:"Type"`
	DeletionPolicy string         `json:"DeletionPolicy" yaml:"DeletionPolicy"`
	Properties     map[string]any `json:"Properties" yaml:"Properties"`
}

// stays says whether the resource outlives its stack.
func (r resource) stays() bool {
	return r.DeletionPolicy == "Retain" || r.DeletionPolicy == "RetainExceptOnCreate"
}

// parseTemplate reads a template in JSON or YAML. Short forms of functions such as !Ref are read as
// what follows them.
func parseTemplate(body string) (stackTemplate, error) {
	var t stackTemplate
	if len(body) > maxTemplate {
		return t, fmt.Errorf("is %d bytes long; CloudFormation takes at most %d: split the stack", len(body), maxTemplate)
	}
	if json.Valid([]byte(body)) {
		return t, json.Unmarshal([]byte(body), &t)
	}
	file, err := parser.ParseBytes([]byte(body), 0)
	if err != nil {
		return t, fmt.Errorf("is no YAML: %w", err)
	}
	if len(file.Docs) != 1 || file.Docs[0].Body == nil {
		return t, fmt.Errorf("holds %d YAML documents; exactly one is expected", len(file.Docs))
	}
	var found aliases
	ast.Walk(&found, file.Docs[0].Body)
	if found.line > 0 {
		return t, fmt.Errorf("line %d: CloudFormation understands no YAML aliases; write out what is meant", found.line)
	}
	if err := yaml.NodeToValue(file.Docs[0].Body, &t); err != nil {
		return t, fmt.Errorf("is no template: %w", err)
	}
	return t, nil
}

// aliases finds the first alias of a document. Aliases of aliases grow beyond all bounds.
type aliases struct{ line int }

// Visit implements ast.Visitor.
func (a *aliases) Visit(node ast.Node) ast.Visitor {
	if alias, is := node.(*ast.AliasNode); is && a.line == 0 {
		a.line = alias.GetToken().Position.Line
	}
	return a
}

// check refuses what Fairway applies to no cluster. sized means that the sizes of groups are not
// the template's to set, but the autoscaler's.
func (t stackTemplate) check(sized bool) error {
	if t.Transform != nil {
		return fmt.Errorf("Transform: macros are not allowed, because what they make of a template cannot be reviewed; write out what is meant") //nolint:staticcheck // the name of a field
	}
	if len(t.Resources) == 0 {
		return fmt.Errorf("Resources: is missing; a stack needs at least one") //nolint:staticcheck // the name of a field
	}
	for name, r := range t.Resources {
		if _, set := r.Properties["DesiredCapacity"]; set && sized && r.Type == groupType {
			return fmt.Errorf("Resources.%s.Properties.DesiredCapacity: leave it out: with it every update of the stack would undo what the autoscaler has decided", name) //nolint:staticcheck // the name of a field
		}
	}
	return nil
}
