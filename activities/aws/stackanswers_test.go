package aws_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/activities/activitytest"
	"github.com/fairway-project/fairway/activities/aws"
	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/render"
	"github.com/fairway-project/fairway/workflows"
)

// formation answers as CloudFormation does in situations that the lab does not get into. By action it
// holds the answers in order; the last one is repeated.
type formation struct {
	mu      sync.Mutex
	answers map[string][]string
	asked   []string
	token   string // of the newest request that has one; answers have TOKEN for it
}

func (f *formation) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	action := r.FormValue("Action")
	if token := r.FormValue("ClientRequestToken"); token != "" {
		f.token = token
	}
	f.asked = append(f.asked, action)
	answers := f.answers[action]
	if len(answers) == 0 {
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprintf(w, "<ErrorResponse><Error><Type>Sender</Type><Code>ValidationError</Code><Message>%s: stack does not exist</Message></Error></ErrorResponse>", action)
		return
	}
	if len(answers) > 1 {
		f.answers[action] = answers[1:]
	}
	fmt.Fprintf(w, "<%[1]sResponse><%[1]sResult>%[2]s</%[1]sResult></%[1]sResponse>", action, strings.ReplaceAll(answers[0], "TOKEN", f.token))
}

// activities are those that ask it.
func (f *formation) activities(t *testing.T) *aws.Stacks {
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	t.Setenv("AWS_ENDPOINT_URL", server.URL)
	t.Setenv("AWS_ACCESS_KEY_ID", "test")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "test")
	t.Setenv("AWS_CONFIG_FILE", "/dev/null")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
	settings := config.AWS{ClusterTag: "kubernetes.io/cluster/{cluster}", PollInterval: time.Millisecond}
	return &aws.Stacks{
		Accounts: &aws.Accounts{Settings: settings, Find: func(context.Context, string) (registry.Cluster, error) {
			return registry.Cluster{ID: "dev-1", Region: "eu-central-1", InfrastructureAccount: "aws:123456789012"}, nil
		}},
		Release: func(context.Context, string, string) (*render.Release, error) {
			return &render.Release{Stacks: []render.Stack{{Name: "dev-1", File: "cluster/cluster.yaml", Body: `{"Resources": {"Files": {"Type": "AWS::S3::Bucket"}}}`}}}, nil
		},
		Blocks:   blocks(func(string) error { return nil }),
		Settings: settings,
	}
}

func stackIs(status string) string {
	return "<Stacks><member><StackName>dev-1</StackName><StackId>arn:dev-1</StackId><StackStatus>" + status + "</StackStatus><CreationTime>2026-01-01T00:00:00Z</CreationTime>" +
		"<Tags><member><Key>kubernetes.io/cluster/dev-1</Key><Value>owned</Value></member></Tags></member></Stacks>"
}

var theStack = workflows.StackOf{Cluster: "dev-1", Version: "1#2", Stack: "dev-1"}

func TestStuckStacksAreLeftToPeople(t *testing.T) {
	for status, remedy := range map[string]string{
		"UPDATE_ROLLBACK_FAILED": "`aws cloudformation continue-update-rollback`; resources: Group (it is in use)",
		"UPDATE_FAILED":          "`aws cloudformation rollback-stack`; resources: Group (it is in use)",
		"IMPORT_ROLLBACK_FAILED": "import again; resources: Group (it is in use)",
		"DELETE_FAILED":          "somebody has begun to delete it",
		"SURPRISE":               "Fairway does not know the status SURPRISE",
	} {
		t.Run(status, func(t *testing.T) {
			f := &formation{answers: map[string][]string{
				"DescribeStacks": {stackIs(status)},
				"ListStackResources": {"<StackResourceSummaries><member><LogicalResourceId>Group</LogicalResourceId><ResourceStatus>UPDATE_FAILED</ResourceStatus>" +
					"<ResourceStatusReason>it is in use</ResourceStatusReason></member></StackResourceSummaries>"},
			}}
			var worker activitytest.Worker
			err := worker.Run(f.activities(t).ApplyStack, theStack, nil)
			requireError(t, err, workflows.StackFailed, true, "cluster dev-1: stack dev-1: "+status+": ")
			require.ErrorContains(t, err, remedy)
			require.Equal(t, []string{"DescribeStacks", "ListStackResources"}, f.asked, "nothing is changed")
		})
	}
}

func TestAnotherOperationIsWaitedFor(t *testing.T) {
	f := &formation{answers: map[string][]string{
		"DescribeStacks":              {stackIs("UPDATE_IN_PROGRESS"), stackIs("UPDATE_ROLLBACK_IN_PROGRESS"), stackIs("UPDATE_COMPLETE")},
		"DescribeStackEvents":         {"<StackEvents><member><LogicalResourceId>Files</LogicalResourceId><ResourceStatus>UPDATE_IN_PROGRESS</ResourceStatus><ClientRequestToken>theirs</ClientRequestToken></member></StackEvents>"},
		"GetTemplate":                 {`<TemplateBody>{"Resources": {"Files": {"Type": "AWS::S3::Bucket"}}}</TemplateBody>`},
		"UpdateTerminationProtection": {""},
	}}
	var out workflows.StackChanges
	var worker activitytest.Worker
	require.NoError(t, worker.Run(f.activities(t).ApplyStack, theStack, &out))
	require.Empty(t, out.Changes)
	require.NotContains(t, f.asked, "CreateChangeSet")
}

func TestAChangeSetIsWaitedForAndReadToItsEnd(t *testing.T) {
	page := func(resource, next string) string {
		return "<Status>CREATE_COMPLETE</Status><ExecutionStatus>AVAILABLE</ExecutionStatus>" + next + "<Changes><member><Type>Resource</Type><ResourceChange><Action>Modify</Action>" +
			"<LogicalResourceId>" + resource + "</LogicalResourceId><ResourceType>AWS::S3::Bucket</ResourceType><Replacement>Conditional</Replacement>" +
			"<Details><member><Target><Attribute>Properties</Attribute><Name>BucketName</Name></Target></member><member><Target><Attribute>Tags</Attribute></Target></member></Details>" +
			"</ResourceChange></member></Changes>"
	}
	f := &formation{answers: map[string][]string{
		"DescribeStacks":  {stackIs("UPDATE_COMPLETE")},
		"CreateChangeSet": {"<Id>arn:change</Id>"},
		"DescribeChangeSet": {
			"<Status>CREATE_PENDING</Status><ExecutionStatus>UNAVAILABLE</ExecutionStatus>", "<Status>CREATE_IN_PROGRESS</Status><ExecutionStatus>UNAVAILABLE</ExecutionStatus>",
			page("First", "<NextToken>2</NextToken>"), page("Second", ""),
		},
		"DeleteChangeSet": {""},
	}}
	var out workflows.StackChanges
	var worker activitytest.Worker
	require.NoError(t, worker.Run(f.activities(t).PlanStack, theStack, &out))
	change := workflows.ResourceChange{Action: "Modify", Resource: "First", Type: "AWS::S3::Bucket", Replacement: "Conditional", Detail: "BucketName, Tags"}
	second := change
	second.Resource = "Second"
	require.Equal(t, workflows.StackChanges{Stack: "dev-1", Changes: []workflows.ResourceChange{change, second}}, out)
	require.Equal(t, "DeleteChangeSet DescribeStacks", strings.Join(f.asked[len(f.asked)-2:], " "))
}

func TestAChangeSetThatFailsIsDeletedAndItsReasonTold(t *testing.T) {
	for reason, want := range map[string]string{
		"No updates are to be performed.": "",
		"The submitted information didn't contain changes. Submit different information to create a change set.": "",
		"Export dev-1:group is in use": "cluster/cluster.yaml: its change set failed: Export dev-1:group is in use",
	} {
		f := &formation{answers: map[string][]string{
			"DescribeStacks":              {stackIs("UPDATE_ROLLBACK_COMPLETE")},
			"DescribeStackEvents":         {"<StackEvents/>"},
			"CreateChangeSet":             {"<Id>arn:change</Id>"},
			"DescribeChangeSet":           {"<Status>FAILED</Status><ExecutionStatus>UNAVAILABLE</ExecutionStatus><StatusReason>" + reason + "</StatusReason>"},
			"DeleteChangeSet":             {""},
			"UpdateTerminationProtection": {""},
		}}
		var worker activitytest.Worker
		err := worker.Run(f.activities(t).ApplyStack, theStack, nil)
		if want == "" {
			require.NoError(t, err, reason)
		} else {
			requireError(t, err, workflows.StackFailed, true, want)
		}
		require.Contains(t, f.asked, "DeleteChangeSet")
		require.NotContains(t, f.asked, "ExecuteChangeSet")
	}
}

// failedEvent carries the token of the request that is under way.
func failedEvent(resource, reason string) string {
	return "<member><LogicalResourceId>" + resource + "</LogicalResourceId><PhysicalResourceId>" + resource + "-1</PhysicalResourceId><StackId>arn:dev-1</StackId>" +
		"<ResourceStatus>DELETE_FAILED</ResourceStatus><ResourceStatusReason>" + reason + "</ResourceStatusReason><ClientRequestToken>TOKEN</ClientRequestToken></member>"
}

func TestADeletionThatFailsNamesWhatIsLeft(t *testing.T) {
	f := &formation{answers: map[string][]string{
		"DescribeStacks":      {stackIs("UPDATE_COMPLETE"), stackIs("DELETE_IN_PROGRESS"), stackIs("DELETE_FAILED")},
		"ListStackResources":  {"<StackResourceSummaries/>"},
		"DeleteStack":         {""},
		"DescribeStackEvents": {"<StackEvents>" + failedEvent("Role", "cannot be detached") + failedEvent("Network", "has dependencies") + "</StackEvents>"},
	}}
	var worker activitytest.Worker
	err := worker.Run(f.activities(t).DeleteStack, theStack, nil)
	requireError(t, err, workflows.StackFailed, true, "cluster dev-1: stack dev-1: DELETE_FAILED: Network DELETE_FAILED: has dependencies; Role DELETE_FAILED: cannot be detached")
}
