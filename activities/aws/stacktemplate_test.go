package aws

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTemplatesAreReadInBothForms(t *testing.T) {
	for form, body := range map[string]string{
		"YAML": "Resources:\n  Files:\n    Type: AWS::S3::Bucket\n    DeletionPolicy: Retain\n    Properties: {BucketName: !Sub '${AWS::StackName}-files', Tags: !If [A, [], !Ref B]}\n",
		"JSON": "{\n\t\"Resources\": {\"Files\": {\"Type\": \"AWS::S3::Bucket\", \"DeletionPolicy\": \"Retain\", \"Properties\": {\"BucketName\": \"files\"}}}}",
	} {
		t.Run(form, func(t *testing.T) {
			parsed, err := parseTemplate(body)
			require.NoError(t, err)
			require.NoError(t, parsed.check(true))
			require.Equal(t, bucketType, parsed.Resources["Files"].Type)
			require.True(t, parsed.Resources["Files"].stays())
		})
	}
}

func TestAMacroIsRefusedWhereverItIsCalled(t *testing.T) {
	for form, body := range map[string]string{
		"YAML":       "Resources:\n  A:\n    Type: AWS::S3::Bucket\n    Fn::Transform: {Name: AWS::Include, Parameters: {Location: s3://elsewhere/part}}\n",
		"short YAML": "Resources:\n  A: !Transform {Name: AWS::Include, Parameters: {Location: s3://elsewhere/part}}\n",
		"JSON":       `{"Resources": {"A": {"Type": "AWS::S3::Bucket", "Properties": {"Tags": [{"Fn::Transform": {"Name": "AWS::Include"}}]}}}}`,
	} {
		t.Run(form, func(t *testing.T) {
			parsed, err := parseTemplate(body)
			require.NoError(t, err)
			require.ErrorContains(t, parsed.check(false), "Fn::Transform: macros are not allowed")
		})
	}
}

func TestATemplateCannotBringTheWorkerDown(t *testing.T) {
	for name, body := range map[string]string{
		"nested flow":      "Resources: " + strings.Repeat("[", 900_000),
		"nested maps":      "Resources: " + strings.Repeat("{a: ", 250_000),
		"nested sequences": "Resources:\n  " + strings.Repeat("- ", 450_000) + "x",
		"nested JSON":      strings.Repeat("[", 400_000) + strings.Repeat("]", 400_000),
		"nested tags":      "Resources: " + strings.Repeat("!a ", 300_000) + "x",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parseTemplate(body)
			require.Error(t, err)
		})
	}
}
