package lab

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	astypes "github.com/aws/aws-sdk-go-v2/service/autoscaling/types"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	cftypes "github.com/aws/aws-sdk-go-v2/service/cloudformation/types"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
)

// pool is a stack with a launch template and a group that follows its latest version.
func (a account) pool(name, image string, size int) string {
	return fmt.Sprintf(`
Resources:
  Group:
    Type: AWS::AutoScaling::AutoScalingGroup
    Properties:
      AutoScalingGroupName: %[1]s
      MinSize: "%[3]d"
      MaxSize: "6"
      VPCZoneIdentifier: [%[4]s]
      LaunchTemplate:
        LaunchTemplateId: !Ref Template
        Version: !GetAtt Template.LatestVersionNumber
      Tags:
        - {Key: node.kubernetes.io/node-pool, Value: %[1]s, PropagateAtLaunch: true}
        - {Key: owner, Value: nobody, PropagateAtLaunch: "false"}
  Template:
    Type: AWS::EC2::LaunchTemplate
    Properties:
      LaunchTemplateData: {ImageId: %[2]s, InstanceType: m5.large}
Outputs:
  Group: {Value: !Ref Group, Export: {Name: "%[1]s:group"}}
`, name, image, size, strings.Join(a.subnets, ", "))
}

func testStackUpdate(a account) {
	a.createStack("update", a.pool("update", "ami-1", 2))
	a.settles("update", 2)
	before := a.members("update")
	a.must(a.resize("update", 3)) // which the template does not mention
	a.settles("update", 3)

	tags := map[string]string{}
	for _, tag := range a.instance(*before[0].InstanceId).Tags {
		tags[*tag.Key] = *tag.Value
	}
	for key, value := range map[string]string{
		"node.kubernetes.io/node-pool": "update", "aws:autoscaling:groupName": "update",
		"aws:cloudformation:stack-name": "update", "team": "lab", "owner": "",
	} {
		if tags[key] != value {
			a.Errorf("the instance has tag %s=%q, want %q", key, tags[key], value)
		}
	}

	_, err := a.scaling.CreateOrUpdateTags(a.ctx, &autoscaling.CreateOrUpdateTagsInput{Tags: []astypes.Tag{{
		ResourceId: aws.String("update"), ResourceType: aws.String("auto-scaling-group"),
		Key: aws.String("roll"), Value: aws.String("42"), PropagateAtLaunch: aws.Bool(false),
	}}})
	a.must(err)
	_, err = a.stacks.UpdateStack(a.ctx, &cloudformation.UpdateStackInput{
		StackName: aws.String("update"), TemplateBody: aws.String(a.pool("update", "ami-2", 2)),
	})
	a.must(err)
	a.stackBecomes("update", cftypes.StackStatusUpdateComplete)
	group := a.describe("update")
	if *group.LaunchTemplate.Version != "2" || *group.DesiredCapacity != 3 {
		a.Errorf("the group has template version %s and %d instances", *group.LaunchTemplate.Version, *group.DesiredCapacity)
	}
	if !slices.ContainsFunc(group.Tags, func(tag astypes.TagDescription) bool { return *tag.Key == "roll" && *tag.Value == "42" }) {
		a.Error("the group has lost a tag that the template never had")
	}
	for _, member := range before {
		if a.state("update", *member.InstanceId) == "" {
			a.Errorf("instance %s is gone", *member.InstanceId)
		}
	}
	version, err := a.ec2.DescribeLaunchTemplateVersions(a.ctx, &ec2.DescribeLaunchTemplateVersionsInput{
		LaunchTemplateId: group.LaunchTemplate.LaunchTemplateId, Versions: []string{"$Latest"},
	})
	a.must(err)
	if image := *version.LaunchTemplateVersions[0].LaunchTemplateData.ImageId; image != "ami-2" {
		a.Errorf("the latest template version has image %s", image)
	}
	events := a.events("update")
	for _, want := range []string{
		"update CREATE_COMPLETE", "Template UPDATE_COMPLETE", "Group UPDATE_COMPLETE",
		"update UPDATE_COMPLETE_CLEANUP_IN_PROGRESS", "update UPDATE_COMPLETE",
	} {
		if !slices.Contains(events, want) {
			a.Errorf("event %q is missing in %v", want, events)
		}
	}
	_, err = a.stacks.UpdateStack(a.ctx, &cloudformation.UpdateStackInput{
		StackName: aws.String("update"), TemplateBody: aws.String(a.pool("update", "ami-2", 2)),
	})
	a.refused(err, "ValidationError", "No updates are to be performed.")

	a.deleteStack("update")
	if a.describe("update") != nil {
		a.Error("the group outlives its stack")
	}
}

func testStackRollback(a account) {
	broken := strings.Replace(a.pool("rollback", "ami-1", 1), `MaxSize: "6"`, `MaxSize: "0"`, 1)
	_, err := a.stacks.CreateStack(a.ctx, &cloudformation.CreateStackInput{StackName: aws.String("rollback"), TemplateBody: &broken})
	a.must(err)
	a.stackBecomes("rollback", cftypes.StackStatusRollbackComplete)
	_, err = a.stacks.UpdateStack(a.ctx, &cloudformation.UpdateStackInput{StackName: aws.String("rollback"), TemplateBody: &broken})
	a.refused(err, "ValidationError", "is in ROLLBACK_COMPLETE state and can not be updated.")
	a.deleteStack("rollback")

	a.createStack("rollback", a.pool("rollback", "ami-1", 1))
	_, err = a.stacks.UpdateStack(a.ctx, &cloudformation.UpdateStackInput{
		StackName: aws.String("rollback"), TemplateBody: aws.String(strings.Replace(broken, "ami-1", "ami-2", 1)),
	})
	a.must(err)
	a.stackBecomes("rollback", cftypes.StackStatusUpdateRollbackComplete)
	if events := a.events("rollback"); !slices.Contains(events, "Group UPDATE_FAILED") {
		a.Errorf("no event tells of the failure: %v", events)
	}
	if size := *a.describe("rollback").MaxSize; size != 6 {
		a.Errorf("the group has maximum size %d after the rollback", size)
	}
}

func testChangeSets(a account) {
	change := func(name, image string, kind cftypes.ChangeSetType) *cloudformation.DescribeChangeSetOutput {
		_, err := a.stacks.CreateChangeSet(a.ctx, &cloudformation.CreateChangeSetInput{
			StackName: aws.String("changes"), ChangeSetName: &name, ChangeSetType: kind, TemplateBody: aws.String(a.pool("changes", image, 1)),
		})
		a.must(err)
		changeSet, err := a.stacks.DescribeChangeSet(a.ctx, &cloudformation.DescribeChangeSetInput{StackName: aws.String("changes"), ChangeSetName: &name})
		a.must(err)
		return changeSet
	}
	execute := func(name string) error {
		_, err := a.stacks.ExecuteChangeSet(a.ctx, &cloudformation.ExecuteChangeSetInput{StackName: aws.String("changes"), ChangeSetName: &name})
		return err
	}
	shown := func(c *cloudformation.DescribeChangeSetOutput) string {
		var text []string
		for _, change := range c.Changes {
			text = append(text, fmt.Sprintf("%s %s", change.ResourceChange.Action, *change.ResourceChange.LogicalResourceId))
		}
		return strings.Join(text, ", ")
	}

	if got := shown(change("first", "ami-1", cftypes.ChangeSetTypeCreate)); got != "Add Template, Add Group" {
		a.Errorf("the first change set shows %s", got)
	}
	a.must(execute("first"))
	a.stackBecomes("changes", cftypes.StackStatusCreateComplete)

	unneeded := change("same", "ami-1", cftypes.ChangeSetTypeUpdate)
	if unneeded.Status != cftypes.ChangeSetStatusFailed || !strings.Contains(*unneeded.StatusReason, "didn't contain changes") {
		a.Errorf("a change set without changes is %s", unneeded.Status)
	}
	a.refused(execute("same"), "InvalidChangeSetStatus", "")

	if got := shown(change("second", "ami-2", cftypes.ChangeSetTypeUpdate)); got != "Modify Template, Modify Group" {
		a.Errorf("the second change set shows %s", got)
	}
	change("third", "ami-3", cftypes.ChangeSetTypeUpdate)
	a.must(execute("second"))
	a.stackBecomes("changes", cftypes.StackStatusUpdateComplete)
	a.refused(execute("third"), "ChangeSetNotFound", "") // it was made for the stack as it was

	change("fourth", "ami-4", cftypes.ChangeSetTypeUpdate)
	_, err := a.stacks.DeleteChangeSet(a.ctx, &cloudformation.DeleteChangeSetInput{StackName: aws.String("changes"), ChangeSetName: aws.String("fourth")})
	a.must(err)
	a.refused(execute("fourth"), "ChangeSetNotFound", "")
}

func testStackProtection(a account) {
	a.createStack("protected", a.pool("protected", "ami-1", 0))
	remove := func() error {
		_, err := a.stacks.DeleteStack(a.ctx, &cloudformation.DeleteStackInput{StackName: aws.String("protected")})
		return err
	}
	protect := func(on bool) {
		_, err := a.stacks.UpdateTerminationProtection(a.ctx, &cloudformation.UpdateTerminationProtectionInput{
			StackName: aws.String("protected"), EnableTerminationProtection: &on,
		})
		a.must(err)
	}
	protect(true)
	a.refused(remove(), "ValidationError", "cannot be deleted while TerminationProtection is enabled")
	protect(false)

	user := `{"Resources": {"Bucket": {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": {"Fn::ImportValue": "protected:group"}}}}}`
	a.createStack("user", user)
	a.refused(remove(), "ValidationError", "Export protected:group cannot be deleted as it is in use by user")
	a.deleteStack("user")
	a.deleteStack("protected")

	role := `{"Resources": {"Role": {"Type": "AWS::IAM::Role", "Properties": {"RoleName": "r", "AssumeRolePolicyDocument": {}}}}}`
	_, err := a.stacks.CreateStack(a.ctx, &cloudformation.CreateStackInput{StackName: aws.String("role"), TemplateBody: &role})
	a.refused(err, "InsufficientCapabilitiesException", "Requires capabilities : [CAPABILITY_NAMED_IAM]")
}

func testStackDeletionFails(a account) {
	a.createStack("stubborn", a.pool("stubborn", "ami-1", 1))
	a.must(a.lab.FailDeletions(a.ctx, "stubborn", 2))
	for range 2 {
		_, err := a.stacks.DeleteStack(a.ctx, &cloudformation.DeleteStackInput{StackName: aws.String("stubborn")})
		a.must(err)
		a.stackBecomes("stubborn", cftypes.StackStatusDeleteFailed)
	}
	events := a.events("stubborn")
	for _, want := range []string{"Group DELETE_COMPLETE", "Template DELETE_FAILED", "stubborn DELETE_FAILED"} {
		if !slices.Contains(events, want) {
			a.Errorf("event %q is missing in %v", want, events)
		}
	}
	if a.describe("stubborn") != nil {
		a.Error("the group, which could be removed, is still there")
	}
	a.deleteStack("stubborn")
	a.createStack("stubborn", a.pool("stubborn", "ami-1", 0))
	a.deleteStack("stubborn") // another one of its name is spared

	if err := a.lab.FailDeletions(a.ctx, "stubborn", 0); err == nil || !strings.Contains(err.Error(), "count at least 1") {
		a.Errorf("no deletion is to fail: %v", err)
	}
}

func (a account) createStack(name, template string) {
	a.Helper()
	_, err := a.stacks.CreateStack(a.ctx, &cloudformation.CreateStackInput{
		StackName: &name, TemplateBody: &template, Tags: []cftypes.Tag{{Key: aws.String("team"), Value: aws.String("lab")}},
	})
	a.must(err)
	a.stackBecomes(name, cftypes.StackStatusCreateComplete)
}

func (a account) deleteStack(name string) {
	a.Helper()
	_, err := a.stacks.DeleteStack(a.ctx, &cloudformation.DeleteStackInput{StackName: &name})
	a.must(err)
	a.must(cloudformation.NewStackDeleteCompleteWaiter(a.stacks, func(o *cloudformation.StackDeleteCompleteWaiterOptions) {
		o.MinDelay, o.MaxDelay = 50*time.Millisecond, 200*time.Millisecond
	}).Wait(a.ctx, &cloudformation.DescribeStacksInput{StackName: &name}, time.Minute))
}

func (a account) stackBecomes(name string, status cftypes.StackStatus) {
	a.Helper()
	a.eventually(fmt.Sprintf("stack %s is %s", name, status), func() bool {
		answer, err := a.stacks.DescribeStacks(a.ctx, &cloudformation.DescribeStacksInput{StackName: &name})
		a.must(err)
		return answer.Stacks[0].StackStatus == status
	})
}

// events are those of a stack in the order of their time: "logical id STATUS".
func (a account) events(stack string) []string {
	a.Helper()
	answer, err := a.stacks.DescribeStackEvents(a.ctx, &cloudformation.DescribeStackEventsInput{StackName: &stack})
	a.must(err)
	var events []string
	for _, event := range slices.Backward(answer.StackEvents) {
		events = append(events, fmt.Sprintf("%s %s", *event.LogicalResourceId, event.ResourceStatus))
	}
	return events
}
