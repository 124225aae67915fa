package aws

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation/types"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/workflows"
)

// noChanges are the two ways in which AWS says that a change set would change nothing.
var noChanges = []string{"didn't contain changes", "No updates are to be performed"}

// changeSet makes the activity's change set, or finds the one that an attempt before has made, and
// says what it changes. needed is false if there is nothing to execute. A change set that failed is
// deleted.
func (st *stack) changeSet(ctx context.Context, found *types.Stack, todo step) (changes []workflows.ResourceChange, needed bool, err error) {
	in := &cloudformation.CreateChangeSetInput{
		StackName: &st.name, ChangeSetName: &st.token,
		ChangeSetType: types.ChangeSetTypeUpdate,
		Description:   aws.String("Fairway: version " + st.wanted.version),
		// Roles have names of their own in most clusters. Macros are refused before.
		Capabilities: []types.Capability{types.CapabilityCapabilityNamedIam},
	}
	in.RoleARN = st.role()
	if todo == create {
		in.ChangeSetType = types.ChangeSetTypeCreate
	}
	for _, key := range slices.Sorted(maps.Keys(st.wanted.tags)) {
		in.Tags = append(in.Tags, types.Tag{Key: aws.String(key), Value: aws.String(st.wanted.tags[key])})
	}
	if len(st.wanted.Body) <= maxTemplateInRequest {
		in.TemplateBody = &st.wanted.Body
	} else if in.TemplateURL, err = st.upload(ctx); err != nil {
		return nil, false, err
	}
	begun, err := st.account.cloudFormation.CreateChangeSet(ctx, in)
	exists := hasCode(err, "AlreadyExistsException")
	st.named = todo == create && (found == nil || exists)
	if err != nil && !exists {
		st.discard(ctx)
		return nil, false, st.refused(err)
	}
	if begun != nil {
		if err := st.checkAccount(aws.ToString(begun.StackId)); err != nil {
			st.discard(ctx)
			return nil, false, err
		}
	}
	made, err := st.awaitChangeSet(ctx)
	if err != nil {
		return nil, false, err
	}
	reason := aws.ToString(made.StatusReason)
	switch {
	case made.Status == types.ChangeSetStatusFailed && slices.ContainsFunc(noChanges, func(text string) bool { return strings.Contains(reason, text) }):
		return []workflows.ResourceChange{}, false, nil
	case made.Status == types.ChangeSetStatusFailed:
		st.discard(ctx)
		return nil, false, st.failed("%s: its change set failed: %s", st.wanted.File, short(reason))
	case made.ExecutionStatus != types.ExecutionStatusAvailable:
		// It was made for the stack as it was before.
		st.discard(ctx)
		return nil, false, st.retryable("its change set is %s, %s; another one is made", made.Status, made.ExecutionStatus)
	}
	changes, err = st.changesIn(ctx, made)
	return changes, true, err
}

// role is what CloudFormation takes on; nil if that is the worker's.
func (st *stack) role() *string {
	if st.Settings.StackRole == "" {
		return nil
	}
	return aws.String(strings.ReplaceAll(st.Settings.StackRole, "{account}", st.account.number))
}

// awaitChangeSet waits until AWS has computed the change set.
func (st *stack) awaitChangeSet(ctx context.Context) (made *cloudformation.DescribeChangeSetOutput, err error) {
	progress := workflows.StackProgress{Status: "change set " + string(types.ChangeSetStatusCreatePending)}
	err = st.watch(ctx, st.changeSetInterval(), progress, func() (workflows.StackProgress, bool, error) {
		var err error
		if made, err = st.account.cloudFormation.DescribeChangeSet(ctx, st.itsChangeSet(nil)); err != nil {
			return progress, false, explain(st.cluster, st.doing("reading its change set"), err)
		}
		progress.Status = "change set " + string(made.Status)
		switch made.Status {
		case types.ChangeSetStatusCreatePending, types.ChangeSetStatusCreateInProgress:
			return progress, false, nil
		case types.ChangeSetStatusCreateComplete:
			return progress, made.ExecutionStatus != types.ExecutionStatusUnavailable, nil
		default:
			return progress, true, nil
		}
	})
	return made, err
}

// changeSetInterval is the time between two looks at a change set, which is made in seconds.
func (st *stack) changeSetInterval() time.Duration {
	return min(st.Settings.PollInterval, 2*time.Second)
}

func (st *stack) itsChangeSet(page *string) *cloudformation.DescribeChangeSetInput {
	return &cloudformation.DescribeChangeSetInput{StackName: &st.name, ChangeSetName: &st.token, NextToken: page}
}

// changesIn reads the rest of a change set's pages.
func (st *stack) changesIn(ctx context.Context, page *cloudformation.DescribeChangeSetOutput) ([]workflows.ResourceChange, error) {
	changes := []workflows.ResourceChange{}
	for {
		for _, change := range page.Changes {
			if change.ResourceChange != nil {
				changes = append(changes, changeOf(*change.ResourceChange))
			}
		}
		if aws.ToString(page.NextToken) == "" {
			return bounded(changes), nil
		}
		var err error
		if page, err = st.account.cloudFormation.DescribeChangeSet(ctx, st.itsChangeSet(page.NextToken)); err != nil {
			return nil, explain(st.cluster, st.doing("reading its change set"), err)
		}
	}
}

func changeOf(change types.ResourceChange) workflows.ResourceChange {
	var properties []string
	for _, detail := range change.Details {
		if detail.Target == nil {
			continue
		}
		name := aws.ToString(detail.Target.Name)
		if name == "" {
			name = string(detail.Target.Attribute)
		}
		if name != "" && !slices.Contains(properties, name) {
			properties = append(properties, name)
		}
	}
	return workflows.ResourceChange{
		Action: string(change.Action), Resource: aws.ToString(change.LogicalResourceId), Type: aws.ToString(change.ResourceType),
		Replacement: string(change.Replacement), Detail: short(strings.Join(properties, ", ")),
	}
}

// refused types what AWS answers to a change set that it does not take.
func (st *stack) refused(err error) error {
	// What has become of the stack since it was looked at is for another attempt to see.
	moved := strings.Contains(err.Error(), " state and can not be updated") || strings.Contains(err.Error(), "already exists") || strings.Contains(err.Error(), "does not exist")
	switch {
	case hasCode(err, "InsufficientCapabilitiesException"):
		return st.invalid("%s: asks for more than the capability %s, such as macros, which are not allowed: %s", st.wanted.File, types.CapabilityCapabilityNamedIam, answer(err))
	case hasCode(err, "ValidationError") && !moved:
		return st.invalid("%s: AWS refuses the template: %s", st.wanted.File, answer(err))
	case hasCode(err, "LimitExceededException"):
		return temporal.NewApplicationError(st.text("AWS refuses a change set: %s; delete old ones or have the limit raised", answer(err)), workflows.StackFailed)
	}
	return explain(st.cluster, st.doing("making a change set"), err)
}

// execute executes the activity's change set. The events of what follows carry its token.
func (st *stack) execute(ctx context.Context) error {
	_, err := st.account.cloudFormation.ExecuteChangeSet(ctx, &cloudformation.ExecuteChangeSetInput{
		StackName: &st.name, ChangeSetName: &st.token, ClientRequestToken: &st.token,
	})
	return explain(st.cluster, st.doing("executing its change set"), err)
}

// discard deletes the activity's change set, and the stack if that consists of nothing else. It does
// so even if the activity has been cancelled. What it cannot delete does no harm: it is void as soon
// as another change set is executed.
func (st *stack) discard(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	if _, err := st.account.cloudFormation.DeleteChangeSet(ctx, &cloudformation.DeleteChangeSetInput{
		StackName: &st.name, ChangeSetName: &st.token,
	}); err != nil && !hasCode(err, "ChangeSetNotFound") && !(hasCode(err, "ValidationError") && strings.Contains(err.Error(), "does not exist")) {
		st.regret(ctx, "deleting a change set", err)
		return
	}
	found, err := st.look(ctx, st.name)
	if err != nil && found == nil {
		st.regret(ctx, "looking for what a change set has left", err)
		return
	}
	if found == nil || found.StackStatus != types.StackStatusReviewInProgress || !st.named {
		return
	}
	others, err := st.account.cloudFormation.ListChangeSets(ctx, &cloudformation.ListChangeSetsInput{StackName: found.StackId})
	if err == nil && !slices.ContainsFunc(others.Summaries, func(c types.ChangeSetSummary) bool {
		return aws.ToString(c.ChangeSetName) != st.token
	}) {
		_, err = st.account.cloudFormation.DeleteStack(ctx, &cloudformation.DeleteStackInput{StackName: found.StackId})
	}
	if err != nil {
		st.regret(ctx, "deleting a stack that is only a name", err)
	}
}

// regret records what could not be tidied up; the activity's own result counts more.
func (st *stack) regret(ctx context.Context, doing string, err error) {
	activity.GetLogger(ctx).Warn("cannot tidy up", "cluster", st.cluster.ID, "stack", st.name, "doing", doing, "error", err)
}
