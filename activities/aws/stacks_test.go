package aws_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	cftypes "github.com/aws/aws-sdk-go-v2/service/cloudformation/types"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancing"
	elbtypes "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancing/types"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	elbv2types "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	s3types "github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/activities/activitytest"
	"github.com/fairway-project/fairway/activities/aws"
	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/render"
	"github.com/fairway-project/fairway/workflows"
)

func TestStacks(t *testing.T) {
	a := startAccount(t)
	seen := record(t, a.lab.AWSURL())
	for name, test := range map[string]func(*stack){
		"a stack is created, left alone, and updated":                         testStackLife,
		"a large template goes through the account's bucket":                  testLargeTemplate,
		"a creation that fails says why, and the next one starts anew":        testFailedCreation,
		"an update that fails says why, and leaves the stack as it was":       testFailedUpdate,
		"a block between change set and execution loses nothing":              testBlockedBeforeExecution,
		"a block holds up no stack that is as it should be":                   testBlockedWithoutChange,
		"an attempt after a crash goes on with what was begun":                testCrashAfterExecution,
		"an attempt after a crash does not repeat what has failed":            testCrashBeforeFailure,
		"a change that was only asked for leaves nothing":                     testPlan,
		"a cancelled change leaves no change set":                             testCancelled,
		"termination protection is switched on again":                         testProtection,
		"a deleted stack takes the contents of its buckets along":             testDeletion,
		"a stack that others use cannot be deleted":                           testDeletionInUse,
		"a stack of somebody else is not touched":                             testForeignStack,
		"templates that Fairway does not apply are refused by file and field": testRefusedTemplates,
		"stacks are listed by the cluster's tag":                              testListStacks,
		"what Kubernetes has made is deleted, and nothing else":               testMadeByKubernetes,
		"a cluster that is to stay keeps what Kubernetes has made":            testLeftoversOfLiveCluster,
		"what is kept in the bucket is read again":                            testBucket,
		"the network is found by its tag":                                     testNetwork,
	} {
		// One after another: the requests are counted.
		t.Run(name, func(t *testing.T) { test(a.newStack(t, seen)) })
	}
}

// requests are those that have reached AWS, by their actions.
type requests struct {
	mu      sync.Mutex
	actions []string
}

func (r *requests) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	taken := r.actions
	r.actions = nil
	return taken
}

// record puts a proxy in front of AWS that writes down what is asked.
func record(t *testing.T, endpoint string) *requests {
	t.Helper()
	target, err := url.Parse(endpoint)
	require.NoError(t, err)
	seen, proxy := &requests{}, httputil.NewSingleHostReverseProxy(target)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		action := r.Method + " " + r.URL.Path
		if form, err := url.ParseQuery(string(body)); err == nil && form.Get("Action") != "" {
			action = form.Get("Action")
		}
		seen.mu.Lock()
		seen.actions = append(seen.actions, action)
		seen.mu.Unlock()
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	t.Setenv("AWS_ENDPOINT_URL", server.URL)
	return seen
}

// stack is a stack of a test with the activities that are tried on it.
type stack struct {
	*testing.T
	account
	seen       *requests
	formation  *cloudformation.Client
	s3         *s3.Client
	name       string
	cluster    registry.Cluster
	release    render.Release
	activities *aws.Stacks
	blocked    func() error
	worker     activitytest.Worker
	beats      []workflows.StackProgress
	since      time.Time // the beginning of the update
}

var stackNumber int

func (a account) newStack(t *testing.T, seen *requests) *stack {
	stackNumber++
	s := &stack{
		T: t, account: a, seen: seen, name: fmt.Sprintf("stack-%d", stackNumber),
		formation: cloudformation.NewFromConfig(a.lab.AWSConfig()), s3: s3.NewFromConfig(a.lab.AWSConfig()),
		cluster: registry.Cluster{ID: fmt.Sprintf("dev-%d", stackNumber), Region: "eu-central-1", InfrastructureAccount: "aws:123456789012", LifecycleStatus: registry.Ready},
		blocked: func() error { return nil },
	}
	settings := config.AWS{
		ClusterTag: "kubernetes.io/cluster/{cluster}", PoolTag: "node.kubernetes.io/node-pool", Bucket: "fairway-{account}-{region}",
		NetworkTag: "fairway.dev/network=fleet", PollInterval: 50 * time.Millisecond,
	}
	s.activities = &aws.Stacks{
		Accounts: &aws.Accounts{Find: func(context.Context, string) (registry.Cluster, error) { return s.cluster, nil }, Settings: settings},
		Release:  func(context.Context, string, string) (*render.Release, error) { return &s.release, nil },
		Blocks:   blocks(func(string) error { return s.blocked() }),
		Settings: settings,
	}
	s.worker.Heartbeat = func(details any) { s.beats = append(s.beats, details.(workflows.StackProgress)) }
	s.wants(s.template("ami-1", 6))
	return s
}

// wants makes a body what the release wants the stack to be.
func (s *stack) wants(body string) {
	s.release.Stacks = []render.Stack{{Name: s.name, File: "cluster/cluster.yaml", Body: body, Tags: map[string]string{"team": "lab"}}}
}

// template has a group without instances and its launch template. With a maximum of 0 the group fails.
func (s *stack) template(image string, maximum int) string {
	return fmt.Sprintf(`
Resources:
  Group:
    Type: AWS::AutoScaling::AutoScalingGroup
    Properties:
      AutoScalingGroupName: %[1]s
      MinSize: "%[5]d"
      MaxSize: "%[2]d"
      VPCZoneIdentifier: [%[3]s]
      LaunchTemplate: {LaunchTemplateId: !Ref Template, Version: !GetAtt Template.LatestVersionNumber}
  Template:
    Type: AWS::EC2::LaunchTemplate
    Properties:
      LaunchTemplateName: %[1]s
      LaunchTemplateData: {ImageId: %[4]s, InstanceType: m5.large}
`, s.name, maximum, strings.ReplaceAll(s.subnets, ",", ", "), image, map[bool]int{true: 1}[maximum == 0])
}

func (s *stack) of() workflows.StackOf {
	return workflows.StackOf{Cluster: s.cluster.ID, Version: "1234567#89", Stack: s.name, Since: s.since}
}

func (s *stack) apply() (out workflows.StackChanges, err error) {
	s.beats = nil
	err = s.worker.Run(s.activities.ApplyStack, s.of(), &out)
	return out, err
}

func (s *stack) applied() workflows.StackChanges {
	s.Helper()
	out, err := s.apply()
	require.NoError(s, err)
	return out
}

// describe is the stack by its name; nil if there is none.
func (s *stack) describe() *cftypes.Stack {
	s.Helper()
	out, err := s.formation.DescribeStacks(s.Context(), &cloudformation.DescribeStacksInput{StackName: &s.name})
	if err != nil {
		require.ErrorContains(s, err, "does not exist")
		return nil
	}
	return &out.Stacks[0]
}

func (s *stack) changeSets() []string {
	s.Helper()
	out, err := s.formation.ListChangeSets(s.Context(), &cloudformation.ListChangeSetsInput{StackName: &s.name})
	require.NoError(s, err)
	var open []string
	for _, summary := range out.Summaries {
		if summary.ExecutionStatus == cftypes.ExecutionStatusAvailable || summary.Status == cftypes.ChangeSetStatusFailed {
			open = append(open, *summary.ChangeSetName)
		}
	}
	return open
}

func actions(changes workflows.StackChanges) string {
	var list []string
	for _, c := range changes.Changes {
		list = append(list, c.Action+" "+c.Resource)
	}
	return strings.Join(list, ", ")
}

func testStackLife(s *stack) {
	created := s.applied()
	require.True(s, created.Created)
	require.Equal(s, "Add Template, Add Group", actions(created))
	require.Equal(s, cftypes.StackStatusCreateComplete, s.describe().StackStatus)
	require.True(s, *s.describe().EnableTerminationProtection)
	tags := map[string]string{}
	for _, tag := range s.describe().Tags {
		tags[*tag.Key] = *tag.Value
	}
	require.Equal(s, map[string]string{"team": "lab", "kubernetes.io/cluster/" + s.cluster.ID: "owned"}, tags)
	require.Contains(s, s.beats, workflows.StackProgress{Status: "CREATE_IN_PROGRESS", Event: "Group CREATE_IN_PROGRESS"})

	s.seen.take()
	same := s.applied()
	require.Empty(s, same.Changes)
	require.Equal(s, []string{"DescribeStacks", "GetTemplate"}, s.seen.take(), "no change is cheap")
	require.False(s, same.Created)
	s.since = s.describe().CreationTime.Add(-time.Second)
	require.True(s, s.applied().Created, "by an attempt that has died")
	s.since = s.since.Add(2 * time.Second)
	require.False(s, s.applied().Created, "before the update began")

	s.wants(s.template("ami-2", 6))
	updated := s.applied()
	require.False(s, updated.Created)
	require.Equal(s, "Modify Template, Modify Group", actions(updated))
	require.Equal(s, cftypes.StackStatusUpdateComplete, s.describe().StackStatus)

	s.wants("# another comment" + s.template("ami-2", 6))
	require.Empty(s, s.applied().Changes, "AWS itself sees no change")
	require.Empty(s, s.changeSets())

	s.release.Stacks[0].Tags["team"] = "other"
	s.applied()
	require.Contains(s, s.describe().Tags, cftypes.Tag{Key: awssdk.String("team"), Value: awssdk.String("other")})
}

func testLargeTemplate(s *stack) {
	s.wants("# " + strings.Repeat("x", 60_000) + s.template("ami-1", 6))
	require.True(s, s.applied().Created)
	bucket := awssdk.String("fairway-123456789012-eu-central-1")
	encryption, err := s.s3.GetBucketEncryption(s.Context(), &s3.GetBucketEncryptionInput{Bucket: bucket})
	require.NoError(s, err)
	require.Equal(s, s3types.ServerSideEncryptionAes256, encryption.ServerSideEncryptionConfiguration.Rules[0].ApplyServerSideEncryptionByDefault.SSEAlgorithm)
	closed, err := s.s3.GetPublicAccessBlock(s.Context(), &s3.GetPublicAccessBlockInput{Bucket: bucket})
	require.NoError(s, err)
	require.True(s, *closed.PublicAccessBlockConfiguration.BlockPublicPolicy)
	s.seen.take()
	require.Empty(s, s.applied().Changes)
	require.Len(s, s.seen.take(), 2, "nothing is uploaded for no change")
}

func testFailedCreation(s *stack) {
	s.wants(s.template("ami-1", 0))
	_, err := s.apply()
	requireError(s, err, workflows.StackFailed, true, fmt.Sprintf("cluster %s: stack %s: ROLLBACK_COMPLETE: Group CREATE_FAILED: ", s.cluster.ID, s.name))

	s.wants(s.template("ami-1", 6))
	require.True(s, s.applied().Created)
	require.Equal(s, cftypes.StackStatusCreateComplete, s.describe().StackStatus)
	require.Contains(s, s.beats, workflows.StackProgress{Status: "ROLLBACK_COMPLETE", Event: "its creation failed, so that it can only be deleted and created again"})
}

func testFailedUpdate(s *stack) {
	s.applied()
	s.wants(s.template("ami-2", 0))
	_, err := s.apply()
	requireError(s, err, workflows.StackFailed, true, "UPDATE_ROLLBACK_COMPLETE: Group UPDATE_FAILED: ")

	s.wants(s.template("ami-1", 6))
	require.Empty(s, s.applied().Changes, "back to what it was")
	s.wants(s.template("ami-3", 6))
	require.Equal(s, "Modify Template, Modify Group", actions(s.applied()))
}

var errBlocked = temporal.NewApplicationError("blocked", workflows.Blocked)

func testBlockedBeforeExecution(s *stack) {
	looks := 0
	s.blocked = func() error {
		if looks++; looks == 2 { // the change set is there
			return errBlocked
		}
		return nil
	}
	_, err := s.apply()
	requireError(s, err, workflows.Blocked, false, "blocked")
	require.Equal(s, cftypes.StackStatusReviewInProgress, s.describe().StackStatus)
	made := s.changeSets()
	require.Len(s, made, 1)

	s.seen.take()
	require.Equal(s, "Add Template, Add Group", actions(s.applied()))
	events, err := s.formation.DescribeStackEvents(s.Context(), &cloudformation.DescribeStackEventsInput{StackName: &s.name})
	require.NoError(s, err)
	require.Equal(s, made[0], *events.StackEvents[0].ClientRequestToken, "what the first attempt has made was executed")
}

func testBlockedWithoutChange(s *stack) {
	s.applied()
	s.blocked = func() error { return errBlocked }
	require.Empty(s, s.applied().Changes)
	s.wants(s.template("ami-2", 6))
	_, err := s.apply()
	requireError(s, err, workflows.Blocked, false, "blocked")
	require.Empty(s, s.changeSets())
}

// dies runs ApplyStack until the stack has this status, and then as if the worker died.
func (s *stack) dies(status cftypes.StackStatus) {
	s.Helper()
	ctx, cancel := context.WithCancel(s.Context())
	worker := activitytest.Worker{Context: ctx, Heartbeat: func(details any) {
		if details.(workflows.StackProgress).Status == string(status) {
			cancel()
		}
	}}
	require.Error(s, worker.Run(s.activities.ApplyStack, s.of(), nil))
	require.Error(s, ctx.Err(), "the stack never was %s", status)
}

func testCrashAfterExecution(s *stack) {
	s.dies(cftypes.StackStatusCreateInProgress)
	s.seen.take()
	created := s.applied()
	require.True(s, created.Created)
	require.Equal(s, "Add Template, Add Group", actions(created))
	require.NotContains(s, s.seen.take(), "ExecuteChangeSet")
}

func testCrashBeforeFailure(s *stack) {
	s.applied()
	s.wants(s.template("ami-2", 0))
	s.dies(cftypes.StackStatusUpdateInProgress)
	s.seen.take()
	_, err := s.apply()
	requireError(s, err, workflows.StackFailed, true, "UPDATE_ROLLBACK_COMPLETE: Group UPDATE_FAILED: ")
	require.NotContains(s, s.seen.take(), "ExecuteChangeSet")
	_, err = s.apply()
	requireError(s, err, workflows.StackFailed, true, "UPDATE_ROLLBACK_COMPLETE: Group UPDATE_FAILED: ")
	require.NotContains(s, s.seen.take(), "ExecuteChangeSet")
}

func testPlan(s *stack) {
	plan := func() workflows.StackChanges {
		var out workflows.StackChanges
		require.NoError(s, s.worker.Run(s.activities.PlanStack, s.of(), &out))
		return out
	}
	planned := plan()
	require.True(s, planned.Created)
	require.Equal(s, "Add Template, Add Group", actions(planned))
	require.Eventually(s, func() bool { return s.describe() == nil }, 10*time.Second, 50*time.Millisecond, "the name is gone too")

	s.applied()
	require.Empty(s, plan().Changes)
	s.wants(s.template("ami-2", 6))
	require.Equal(s, "Modify Template, Modify Group", actions(plan()))
	require.Empty(s, s.changeSets())
	require.Equal(s, cftypes.StackStatusCreateComplete, s.describe().StackStatus)

	_, err := s.formation.CreateChangeSet(s.Context(), &cloudformation.CreateChangeSetInput{
		StackName: awssdk.String(s.name + "-theirs"), ChangeSetName: awssdk.String("theirs"), ChangeSetType: cftypes.ChangeSetTypeCreate,
		TemplateBody: awssdk.String(s.template("ami-1", 1)),
	})
	require.NoError(s, err)
	s.name += "-theirs"
	s.wants(s.template("ami-1", 6))
	require.Len(s, plan().Changes, 2)
	require.Equal(s, []string{"theirs"}, s.changeSets(), "what somebody else prepares stays")
}

func testCancelled(s *stack) {
	ctx, cancel := context.WithCancel(s.Context())
	looks := 0
	s.blocked = func() error {
		if looks++; looks == 2 {
			cancel()
		}
		return nil
	}
	worker := activitytest.Worker{Context: ctx}
	require.Error(s, worker.Run(s.activities.ApplyStack, s.of(), nil))
	require.Eventually(s, func() bool { return s.describe() == nil }, 10*time.Second, 50*time.Millisecond)
}

func testProtection(s *stack) {
	s.applied()
	_, err := s.formation.UpdateTerminationProtection(s.Context(), &cloudformation.UpdateTerminationProtectionInput{
		StackName: &s.name, EnableTerminationProtection: awssdk.Bool(false),
	})
	require.NoError(s, err)
	require.Empty(s, s.applied().Changes)
	require.True(s, *s.describe().EnableTerminationProtection)
}

func (s *stack) delete() error {
	s.cluster.LifecycleStatus = registry.DecommissionRequested
	return s.worker.Run(s.activities.DeleteStack, workflows.StackOf{Cluster: s.cluster.ID, Stack: s.name}, nil)
}

func testDeletion(s *stack) {
	s.wants(fmt.Sprintf(`
Resources:
  Files: {Type: "AWS::S3::Bucket", Properties: {BucketName: %[1]s-files, VersioningConfiguration: {Status: Enabled}}}
  Kept: {Type: "AWS::S3::Bucket", DeletionPolicy: Retain, Properties: {BucketName: %[1]s-kept}}
`, s.name))
	s.applied()
	for _, bucket := range []string{s.name + "-files", s.name + "-kept"} {
		for range 2 {
			_, err := s.s3.PutObject(s.Context(), &s3.PutObjectInput{Bucket: &bucket, Key: awssdk.String("key"), Body: strings.NewReader("content")})
			require.NoError(s, err)
		}
	}
	s.blocked = func() error { return errBlocked }
	requireError(s, s.delete(), workflows.Blocked, false, "blocked")
	require.True(s, *s.describe().EnableTerminationProtection)

	s.blocked = func() error { return nil }
	require.NoError(s, s.delete())
	require.Nil(s, s.describe())
	_, err := s.s3.HeadBucket(s.Context(), &s3.HeadBucketInput{Bucket: awssdk.String(s.name + "-files")})
	require.Error(s, err)
	_, err = s.s3.HeadObject(s.Context(), &s3.HeadObjectInput{Bucket: awssdk.String(s.name + "-kept"), Key: awssdk.String("key")})
	require.NoError(s, err)
	require.NoError(s, s.delete(), "what is gone is gone")
}

func testDeletionInUse(s *stack) {
	s.wants(s.template("ami-1", 6) + fmt.Sprintf("Outputs:\n  Group: {Value: !Ref Group, Export: {Name: %s}}\n", s.name))
	s.applied()
	user := *s
	user.name += "-user"
	user.wants(fmt.Sprintf(`{"Resources": {"Bucket": {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": {"Fn::ImportValue": %q}}}}}`, s.name))
	user.release.Stacks[0].Name = user.name
	s.release = user.release
	user.applied()
	requireError(s, s.delete(), workflows.StackFailed, true, "cannot be deleted as it is in use by "+user.name)
}

func testForeignStack(s *stack) {
	_, err := s.formation.CreateStack(s.Context(), &cloudformation.CreateStackInput{StackName: &s.name, TemplateBody: awssdk.String(s.template("ami-9", 6))})
	require.NoError(s, err)
	_, err = s.apply()
	requireError(s, err, workflows.InvalidInput, true, "does not carry the tag kubernetes.io/cluster/"+s.cluster.ID+"=owned")
	requireError(s, s.delete(), workflows.InvalidInput, true, "does not carry the tag")
	require.NotNil(s, s.describe())
}

func testRefusedTemplates(s *stack) {
	sized := strings.Replace(s.template("ami-1", 6), `MaxSize:`, "DesiredCapacity: \"3\"\n      MaxSize:", 1)
	for rule, c := range map[string]struct {
		body string
		pool bool
		want string
	}{
		"a macro":           {"Transform: AWS::Include\n" + s.template("ami-1", 6), false, "cluster/cluster.yaml: field Transform: macros are not allowed"},
		"a pool's size":     {sized, true, "cluster/cluster.yaml: field Resources.Group.Properties.DesiredCapacity: leave it out"},
		"more than 1 MiB":   {"# " + strings.Repeat("x", 1<<20), false, "cluster/cluster.yaml: is 1048578 bytes long; CloudFormation takes at most 1048576"},
		"an alias":          {"a: &a {}\nb: *a\n", false, "cluster/cluster.yaml: line 2: CloudFormation understands no YAML aliases"},
		"no resources":      {"Description: none\n", false, "cluster/cluster.yaml: field Resources: is missing"},
		"what AWS refuses":  {"Resources: {Group: {Type: 'AWS::S3::Bucket', DependsOn: Group2}, Group2: {Type: 'AWS::S3::Bucket', DependsOn: Group}}", false, "cluster/cluster.yaml: AWS refuses the template: "},
		"another's cluster": {"", false, "kubernetes.io/cluster/prod-1 is the tag of another cluster"},
	} {
		s.Run(rule, func(t *testing.T) {
			s.release = render.Release{}
			s.wants(c.body)
			if c.body == "" {
				s.wants(s.template("ami-1", 6))
				s.release.Stacks[0].Tags["kubernetes.io/cluster/prod-1"] = "owned"
			}
			if c.pool {
				s.release.Pools, s.release.Stacks = []render.Pool{{Stack: s.release.Stacks[0]}}, nil
			}
			_, err := s.apply()
			requireError(t, err, workflows.InvalidInput, true, c.want)
			require.Eventually(t, func() bool { return s.describe() == nil }, 10*time.Second, 50*time.Millisecond)
		})
	}
	s.release = render.Release{}
	_, err := s.apply()
	requireError(s, err, workflows.InvalidInput, true, "version 1234567#89 has no such stack")
}

func testListStacks(s *stack) {
	s.release.Pools = []render.Pool{{NodePool: registry.NodePool{Name: "worker"}, Stack: s.release.Stacks[0]}}
	s.applied()
	var list []workflows.OwnedStack
	require.NoError(s, s.worker.Run(s.activities.ListStacks, workflows.StacksOf{Cluster: s.cluster.ID}, &list))
	require.Equal(s, []workflows.OwnedStack{{Name: s.name, Pool: "worker", Status: "CREATE_COMPLETE"}}, list)
	require.NoError(s, s.delete())
	require.NoError(s, s.worker.Run(s.activities.ListStacks, workflows.StacksOf{Cluster: s.cluster.ID}, &list))
	require.Empty(s, list)
}

func (s *stack) leftovers() (deleted []string, err error) {
	err = s.worker.Run(s.activities.DeleteLeftovers, workflows.StacksOf{Cluster: s.cluster.ID}, &deleted)
	return deleted, err
}

// volume makes a volume with tags, "key=value".
func (s *stack) volume(tags ...string) string {
	s.Helper()
	in := &ec2.CreateVolumeInput{AvailabilityZone: awssdk.String("eu-central-1a"), Size: awssdk.Int32(1)}
	if len(tags) > 0 {
		in.TagSpecifications = []ec2types.TagSpecification{{ResourceType: ec2types.ResourceTypeVolume, Tags: ec2Tags(tags)}}
	}
	out, err := s.ec2.CreateVolume(s.Context(), in)
	require.NoError(s, err)
	return *out.VolumeId
}

func ec2Tags(tags []string) (list []ec2types.Tag) {
	for _, tag := range tags {
		key, value, _ := strings.Cut(tag, "=")
		list = append(list, ec2types.Tag{Key: &key, Value: &value})
	}
	return list
}

func (s *stack) securityGroup(name, vpc string, tags ...string) string {
	s.Helper()
	out, err := s.ec2.CreateSecurityGroup(s.Context(), &ec2.CreateSecurityGroupInput{
		GroupName: &name, Description: &name, VpcId: &vpc,
		TagSpecifications: []ec2types.TagSpecification{{ResourceType: ec2types.ResourceTypeSecurityGroup, Tags: ec2Tags(tags)}},
	})
	require.NoError(s, err)
	return *out.GroupId
}

func testMadeByKubernetes(s *stack) {
	s.cluster.LifecycleStatus = registry.DecommissionRequested
	own, claim := "kubernetes.io/cluster/"+s.cluster.ID+"=owned", "kubernetes.io/created-for/pvc/name=data"
	subnets, err := s.ec2.DescribeSubnets(s.Context(), &ec2.DescribeSubnetsInput{Filters: []ec2types.Filter{{Name: awssdk.String("tag:fairway.dev/network"), Values: []string{"fleet"}}}})
	require.NoError(s, err)
	vpc, subnet := *subnets.Subnets[0].VpcId, *subnets.Subnets[0].SubnetId

	volume := s.volume(own, claim)
	kept := []string{s.volume(own), s.volume(claim), s.volume(own, claim, "kubernetes.io/cluster/prod-1=owned"), s.volume()}

	balancer := s.securityGroup(s.name+"-balancer", vpc, "elbv2.k8s.aws/cluster="+s.cluster.ID)
	worker := s.securityGroup(s.name+"-worker", vpc, "kubernetes.io/cluster/prod-1=owned")
	nodes := s.securityGroup(s.name+"-nodes", vpc, own)
	_, err = s.ec2.AuthorizeSecurityGroupIngress(s.Context(), &ec2.AuthorizeSecurityGroupIngressInput{GroupId: &nodes, IpPermissions: []ec2types.IpPermission{{
		IpProtocol: awssdk.String("tcp"), FromPort: awssdk.Int32(80), ToPort: awssdk.Int32(80), UserIdGroupPairs: []ec2types.UserIdGroupPair{{GroupId: &balancer}},
	}}})
	require.NoError(s, err)

	classic, v2 := elasticloadbalancing.NewFromConfig(s.lab.AWSConfig()), elasticloadbalancingv2.NewFromConfig(s.lab.AWSConfig())
	for name, cluster := range map[string]string{s.name: s.cluster.ID, s.name + "-theirs": "prod-1"} {
		tag := awssdk.String("kubernetes.io/cluster/" + cluster)
		_, err = classic.CreateLoadBalancer(s.Context(), &elasticloadbalancing.CreateLoadBalancerInput{
			LoadBalancerName: &name, Subnets: []string{subnet},
			Listeners: []elbtypes.Listener{{InstancePort: awssdk.Int32(80), LoadBalancerPort: 80, Protocol: awssdk.String("tcp")}},
			Tags:      []elbtypes.Tag{{Key: tag, Value: awssdk.String("owned")}},
		})
		require.NoError(s, err)
		_, err = v2.CreateLoadBalancer(s.Context(), &elasticloadbalancingv2.CreateLoadBalancerInput{
			Name: &name, Subnets: []string{subnet}, Type: elbv2types.LoadBalancerTypeEnumNetwork,
			Tags: []elbv2types.Tag{{Key: tag, Value: awssdk.String("owned")}},
		})
		require.NoError(s, err)
		_, err = v2.CreateTargetGroup(s.Context(), &elasticloadbalancingv2.CreateTargetGroupInput{
			Name: &name, Port: awssdk.Int32(80), Protocol: elbv2types.ProtocolEnumTcp, VpcId: &vpc,
			Tags: []elbv2types.Tag{{Key: awssdk.String("elbv2.k8s.aws/cluster"), Value: &cluster}},
		})
		require.NoError(s, err)
	}

	s.blocked = func() error { return errBlocked }
	_, err = s.leftovers()
	requireError(s, err, workflows.Blocked, false, "blocked")

	s.blocked = func() error { return nil }
	deleted, err := s.leftovers()
	require.NoError(s, err)
	require.Len(s, deleted, 6)
	require.Contains(s, deleted, "volume "+volume)
	require.Contains(s, deleted, "security group "+balancer)
	require.Contains(s, deleted, "security group "+nodes)
	require.Contains(s, deleted, "load balancer "+s.name)

	volumes, err := s.ec2.DescribeVolumes(s.Context(), &ec2.DescribeVolumesInput{VolumeIds: kept})
	require.NoError(s, err)
	require.Len(s, volumes.Volumes, len(kept))
	_, err = s.ec2.DescribeSecurityGroups(s.Context(), &ec2.DescribeSecurityGroupsInput{GroupIds: []string{worker}})
	require.NoError(s, err)
	theirs, err := v2.DescribeLoadBalancers(s.Context(), &elasticloadbalancingv2.DescribeLoadBalancersInput{})
	require.NoError(s, err)
	require.Len(s, theirs.LoadBalancers, 1)

	deleted, err = s.leftovers()
	require.NoError(s, err)
	require.Empty(s, deleted)
}

func testLeftoversOfLiveCluster(s *stack) {
	_, err := s.leftovers()
	requireError(s, err, workflows.InvalidInput, true, "its lifecycle_status is ready")
}

func testBucket(s *stack) {
	bucket := aws.Bucket{Accounts: s.activities.Accounts}
	_, err := bucket.Get(s.Context(), s.cluster, "entries/"+s.name)
	require.True(s, aws.IsMissing(err), "%v", err)
	require.NoError(s, bucket.Put(s.Context(), s.cluster, "entries/"+s.name, []byte("entry")))
	data, err := bucket.Get(s.Context(), s.cluster, "entries/"+s.name)
	require.NoError(s, err)
	require.Equal(s, "entry", string(data))
	require.False(s, aws.IsMissing(errors.New("another")))

	require.True(s, aws.IsOvertaken(bucket.Create(s.Context(), s.cluster, "entries/"+s.name, []byte("another"))), "the key is taken")
	require.NoError(s, bucket.Create(s.Context(), s.cluster, "made/"+s.name, []byte("1")))
	require.NoError(s, bucket.Change(s.Context(), s.cluster, "made/"+s.name, func(old []byte) ([]byte, error) { return append(old, '2'), nil }))
	require.True(s, aws.IsOvertaken(bucket.Change(s.Context(), s.cluster, "made/"+s.name, func([]byte) ([]byte, error) {
		return []byte("slow"), bucket.Put(s.Context(), s.cluster, "made/"+s.name, []byte("fast"))
	})), "somebody else was faster")
	data, err = bucket.Get(s.Context(), s.cluster, "made/"+s.name)
	require.NoError(s, err)
	require.Equal(s, "fast", string(data))
	keys, err := bucket.List(s.Context(), s.cluster, "made/")
	require.NoError(s, err)
	require.Equal(s, []string{"made/" + s.name}, keys)
	require.True(s, aws.IsOvertaken(bucket.Change(s.Context(), s.cluster, "made/"+s.name, func([]byte) ([]byte, error) {
		return []byte("late"), bucket.Delete(s.Context(), s.cluster, "made/"+s.name)
	})), "it has gone")
	require.NoError(s, bucket.Delete(s.Context(), s.cluster, "made/"+s.name), "one that is gone is fine")
	keys, err = bucket.List(s.Context(), s.cluster, "made/")
	require.NoError(s, err)
	require.Empty(s, keys)
	require.True(s, aws.IsMissing(bucket.Change(s.Context(), s.cluster, "made/"+s.name, nil)))
	requireError(s, bucket.Put(s.Context(), s.cluster, "large", make([]byte, 1<<20+1)), workflows.InvalidInput, true, "at most 1048576 are kept")

	_, err = s.s3.PutObject(s.Context(), &s3.PutObjectInput{
		Bucket: awssdk.String("fairway-123456789012-eu-central-1"), Key: awssdk.String("large"), Body: bytes.NewReader(make([]byte, 1<<20+1)),
	})
	require.NoError(s, err)
	_, err = bucket.Get(s.Context(), s.cluster, "large")
	requireError(s, err, workflows.InvalidInput, true, "it is longer than 1048576 bytes")

	url, err := bucket.PutFile(s.Context(), s.cluster, "e2e/log", make([]byte, 8<<20))
	require.NoError(s, err)
	require.Equal(s, "s3://fairway-123456789012-eu-central-1/e2e/log", url)
	_, err = bucket.PutFile(s.Context(), s.cluster, "e2e/log", make([]byte, 64<<20+1))
	requireError(s, err, workflows.InvalidInput, true, "at most 67108864 are kept")

	// A bucket of another account that has the name.
	bucket.Accounts.Settings.Bucket = "fairway-123456789012-eu-central-1"
	theirs := s.cluster
	theirs.InfrastructureAccount = "aws:999999999999"
	requireError(s, bucket.Put(s.Context(), theirs, "key", nil), workflows.AccessDenied, false, "is not account 999999999999's")
	_, err = bucket.Get(s.Context(), theirs, "entries/"+s.name)
	requireError(s, err, workflows.AccessDenied, false, "AWS refuses")
	_, err = bucket.List(s.Context(), theirs, "entries/")
	requireError(s, err, workflows.AccessDenied, false, "AWS refuses")
	requireError(s, bucket.Delete(s.Context(), theirs, "entries/"+s.name), workflows.AccessDenied, false, "AWS refuses")
	requireError(s, bucket.Create(s.Context(), theirs, "entries/new", nil), workflows.AccessDenied, false, "is not account 999999999999's")
}

func testNetwork(s *stack) {
	accounts := s.activities.Accounts
	values, err := accounts.Network(s.Context(), s.cluster)
	require.NoError(s, err)
	require.Equal(s, []string{"eu-central-1a", "eu-central-1b", "eu-central-1c"}, values["availability_zones"])
	require.Len(s, values["subnets"], 3)
	require.Equal(s, "10.16.0.0/16", values["vpc_ipv4_cidr"])
	require.Equal(s, "123456789012", values["account_id"])
	require.Equal(s, "eu-central-1", values["region"])
	s.seen.take()
	again, err := accounts.Network(s.Context(), s.cluster)
	require.NoError(s, err)
	require.Equal(s, values, again)
	require.Empty(s, s.seen.take(), "it is remembered")

	two := values["subnets"].(map[string]string)["eu-central-1a"] + ", " + values["subnets"].(map[string]string)["eu-central-1b"]
	s.cluster.ConfigItems = map[string]string{"subnets": two}
	values, err = accounts.Network(s.Context(), s.cluster)
	require.NoError(s, err)
	require.Equal(s, []string{"eu-central-1a", "eu-central-1b"}, values["availability_zones"])

	s.cluster.ConfigItems = map[string]string{"vpc_id": "vpc-none"}
	_, err = accounts.Network(s.Context(), s.cluster)
	requireError(s, err, workflows.InvalidInput, false, "has no subnets with the tag fairway.dev/network=fleet (aws.network_tag) in VPC vpc-none")

	s.cluster.ConfigItems = map[string]string{"subnets": "subnet-00000000"}
	_, err = accounts.Network(s.Context(), s.cluster)
	requireError(s, err, workflows.InvalidInput, true, "looking for the subnets of the config item subnets")

	accounts.Settings.NetworkTag = ""
	s.cluster.ConfigItems = nil
	s.activities.Accounts = &aws.Accounts{Find: accounts.Find, Settings: accounts.Settings}
	values, err = s.activities.Accounts.Network(s.Context(), s.cluster)
	require.NoError(s, err)
	require.Equal(s, "172.31.0.0/16", values["vpc_ipv4_cidr"])
}
