package aws

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling/types"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/registry"
)

func TestAnInstanceIsOldUnlessItWasLaunchedFromWhatItsGroupLaunchesFrom(t *testing.T) {
	from := func(id, version string) types.Instance {
		return types.Instance{LaunchTemplate: &types.LaunchTemplateSpecification{LaunchTemplateId: &id, Version: &version}}
	}
	configured := func(name string) types.Instance { return types.Instance{LaunchConfigurationName: &name} }
	for rule, c := range map[string]struct {
		current  template
		instance types.Instance
		old      bool
	}{
		"the same version":                    {template{version: version{"lt-1", "2"}}, from("lt-1", "2"), false},
		"an earlier version":                  {template{version: version{"lt-1", "2"}}, from("lt-1", "1"), true},
		"another template":                    {template{version: version{"lt-1", "2"}}, from("lt-2", "2"), true},
		"a configuration before a template":   {template{version: version{"lt-1", "2"}}, configured("lc-1"), true},
		"attached to a group with a template": {template{version: version{"lt-1", "2"}}, types.Instance{}, true},
		"the version that its type has":       {template{version: version{"lt-1", "2"}, overrides: []version{{"lt-3", "1"}, {"lt-2", "4"}}}, from("lt-2", "4"), false},
		"an earlier one that its type had":    {template{version: version{"lt-1", "2"}, overrides: []version{{"lt-2", "4"}}}, from("lt-2", "3"), true},
		"the same configuration":              {template{configuration: "lc-1"}, configured("lc-1"), false},
		"another configuration":               {template{configuration: "lc-2"}, configured("lc-1"), true},
		"a configuration that is deleted":     {template{configuration: "lc-2"}, types.Instance{}, true},
		"a template before a configuration":   {template{configuration: "lc-2"}, from("lt-1", "1"), true},
	} {
		t.Run(rule, func(t *testing.T) { require.Equal(t, c.old, !c.current.made(c.instance)) })
	}
}

func TestAnInstanceOfAVersionThatIsGoneIsOld(t *testing.T) {
	var code string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprintf(w, "<Response><Errors><Error><Code>%s</Code><Message>no</Message></Error></Errors></Response>", code)
	}))
	t.Cleanup(server.Close)
	asked := &account{ec2: ec2.New(ec2.Options{Region: "eu-central-1", BaseEndpoint: &server.URL, Credentials: credentials.NewStaticCredentialsProvider("a", "b", "")})}
	instance := types.Instance{LaunchTemplate: &types.LaunchTemplateSpecification{LaunchTemplateId: aws.String("lt-1"), Version: aws.String("1")}}
	current := template{version: version{"lt-1", "2"}, data: &ec2types.ResponseLaunchTemplateData{}}

	code = "InvalidLaunchTemplateId.VersionNotFound"
	require.NoError(t, asked.findAlike(t.Context(), registry.Cluster{ID: "dev-1"}, &current, []types.Instance{instance, {}}))
	require.False(t, current.made(instance))

	code = "UnauthorizedOperation"
	require.ErrorContains(t, asked.findAlike(t.Context(), registry.Cluster{ID: "dev-1"}, &current, []types.Instance{instance}), "reading launch template lt-1")
}
