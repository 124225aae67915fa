package aws

import (
	"encoding/json"
	"fmt"

	"go.yaml.in/yaml/v3"
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
	// This parser bounds how deep a document is nested; others take minutes for hostile ones.
	var document yaml.Node
	if err := yaml.Unmarshal([]byte(body), &document); err != nil {
		return t, fmt.Errorf("is no YAML: %w", err)
	}
	if line := aliasIn(&document); line > 0 {
		return t, fmt.Errorf("line %d: CloudFormation understands no YAML aliases; write out what is meant", line)
	}
	if err := document.Decode(&t); err != nil {
		return t, fmt.Errorf("is no template: %w", err)
	}
	return t, nil
}

// aliasIn is the line of the first alias in a node; 0 if there is none.
func aliasIn(node *yaml.Node) int {
	if node.Kind == yaml.AliasNode {
		return node.Line
	}
	for _, inner := range node.Content {
		if line := aliasIn(inner); line > 0 {
			return line
		}
	}
	return 0
}

// check refuses what Fairway applies to no cluster. sized means that the sizes of groups are not
// the template's to set, but the autoscaler's.
func (t stackTemplate) check(sized bool) error {
	if t.Transform != nil {
		return fmt.Errorf("field Transform: macros are not allowed, because what they make of a template cannot be reviewed; write out what is meant")
	}
	if len(t.Resources) == 0 {
		return fmt.Errorf("field Resources: is missing; a stack needs at least one")
	}
	for name, r := range t.Resources {
		if _, set := r.Properties["DesiredCapacity"]; set && sized && r.Type == groupType {
			return fmt.Errorf("field Resources.%s.Properties.DesiredCapacity: leave it out: with it every update of the stack would undo what the autoscaler has decided", name)
		}
	}
	return nil
}
