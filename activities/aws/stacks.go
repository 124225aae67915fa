package aws

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation/types"
	"github.com/aws/smithy-go"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/render"
	"github.com/fairway-project/fairway/workflows"
)

// Stacks implements workflows.Stacks.
type Stacks struct {
	Accounts *Accounts
	// Release renders a version of a cluster. Its errors are typed.
	Release func(ctx context.Context, cluster, version string) (*render.Release, error)
	// Blocks refuses changes of a cluster that is blocked.
	Blocks interface {
		Check(ctx context.Context, cluster, pool string) error
	}
	// Settings are the `aws` part of the configuration.
	Settings config.AWS
	// Tags are those that all stacks of a cluster get besides the templates'; nil means none.
	Tags func(context.Context, registry.Cluster) (map[string]string, error)
}

var _ workflows.Stacks = (*Stacks)(nil)

// stack is a stack of a cluster, on which an activity works.
type stack struct {
	*Stacks
	cluster registry.Cluster
	account *account
	name    string
	pool    string // whose stack it is; empty for the others
	// token names the work of this activity: its change set, and what comes of it in the stack's
	// events. It is the same in all attempts at the activity, and in no other activity, so that what
	// failed once is not taken for what this activity has done.
	token string
	// wanted is what the stack is to be; nil for a deletion.
	wanted *wanted
	// named means that the activity's change set has made the stack, as a name and nothing else.
	named bool
	// shown is the workflows.StackProgress that is heartbeated.
	shown atomic.Value
}

type wanted struct {
	render.Stack
	template stackTemplate
	tags     map[string]string
	version  string
}

func (s *Stacks) stack(ctx context.Context, in workflows.StackOf) (*stack, error) {
	cluster, account, err := s.Accounts.get(ctx, in.Cluster)
	if err != nil {
		return nil, err
	}
	st := &stack{Stacks: s, cluster: cluster, account: account, name: in.Stack, pool: in.Pool, token: token(ctx, in.Version)}
	st.shown.Store(workflows.StackProgress{Status: "looking"})
	return st, nil
}

// watch polls as poll does; what it knows last is heartbeated afterwards, too.
func (st *stack) watch(ctx context.Context, every time.Duration, known workflows.StackProgress, question func() (workflows.StackProgress, bool, error)) error {
	st.shown.Store(known)
	return poll(ctx, every, known, func() (workflows.StackProgress, bool, error) {
		progress, done, err := question()
		if err == nil {
			st.shown.Store(progress)
		}
		return progress, done, err
	})
}

func token(ctx context.Context, parts ...string) string {
	work := activity.GetInfo(ctx)
	parts = append(parts, work.WorkflowExecution.ID, work.WorkflowExecution.RunID, work.ActivityID, work.ActivityType.Name)
	return "fairway-" + hashed(parts...)[:32]
}

// want renders what the version wants the stack to be.
func (st *stack) want(ctx context.Context, in workflows.StackOf) error {
	release, err := st.Release(ctx, in.Cluster, in.Version)
	if err != nil {
		return err
	}
	found, known := release.Stack(in.Stack)
	if !known {
		return st.invalid("version %s has no such stack", in.Version)
	}
	parsed, err := parseTemplate(found.Body)
	pool := slices.IndexFunc(release.Pools, func(p render.Pool) bool { return p.Stack.Name == in.Stack })
	if err == nil {
		err = parsed.check(pool >= 0)
	}
	if err != nil {
		return st.invalid("%s: %v", found.File, err)
	}
	tags := maps.Clone(found.Tags)
	if tags == nil {
		tags = map[string]string{}
	}
	if other := st.otherCluster(st.cluster, tags); other != "" {
		return st.invalid("%s: Metadata.Tags: %s is the tag of another cluster; take it out", found.File, other)
	}
	if st.Tags != nil {
		more, err := st.Tags(ctx, st.cluster)
		if err != nil {
			return err
		}
		maps.Copy(tags, more) // a template cannot say whose the cluster is
	}
	tags[st.clusterTag(st.cluster)] = owned
	// A stack with the name of a pool that the version has no more is deleted.
	name, given := tags[st.Settings.PoolTag]
	switch {
	case pool < 0 && given:
		return st.invalid("%s: Metadata.Tags: %s is the tag of a pool's stack; take it out", found.File, st.Settings.PoolTag)
	case pool >= 0 && given && name != release.Pools[pool].Name:
		return st.invalid("%s: Metadata.Tags: %s is %q, but the stack is that of pool %s; take it out, or have it be {{ .NodePool.Name }}",
			found.File, st.Settings.PoolTag, name, release.Pools[pool].Name)
	case pool >= 0:
		tags[st.Settings.PoolTag] = release.Pools[pool].Name
	}
	content := []string{in.Version, found.Body}
	for _, key := range slices.Sorted(maps.Keys(tags)) {
		content = append(content, key, tags[key])
	}
	st.token = token(ctx, content...)
	st.wanted = &wanted{Stack: found, template: parsed, tags: tags, version: in.Version}
	return nil
}

func hashed(parts ...string) string {
	sum := sha256.New()
	for _, part := range parts {
		fmt.Fprintf(sum, "%d %s\n", len(part), part)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// PlanStack implements workflows.Stacks. A stack that somebody changes is waited for. It heartbeats.
func (s *Stacks) PlanStack(ctx context.Context, in workflows.StackOf) (workflows.StackChanges, error) {
	st, err := s.stack(ctx, in)
	if err != nil {
		return workflows.StackChanges{}, err
	}
	defer beat(ctx, st.shown.Load)()
	if err := st.want(ctx, in); err != nil {
		return workflows.StackChanges{}, err
	}
	for {
		found, err := st.look(ctx, st.name)
		if err != nil {
			return workflows.StackChanges{}, err
		}
		switch todo, why := nextStep(status(found)); todo {
		case wait:
			if _, err := st.await(ctx, found, ""); err != nil {
				return workflows.StackChanges{}, err
			}
		case create, update:
			if err := st.checkOwner(found); err != nil {
				return workflows.StackChanges{}, err
			}
			defer st.discard(ctx)
			changes, _, err := st.changeSet(ctx, found, todo)
			if err != nil {
				return workflows.StackChanges{}, err
			}
			return workflows.StackChanges{Stack: st.name, Created: todo == create, Changes: changes}, nil
		case replace:
			// There is no change set for a stack in the way of itself. All of it is new then.
			planned := workflows.StackChanges{Stack: st.name, Created: true}
			for _, name := range slices.Sorted(maps.Keys(st.wanted.template.Resources)) {
				planned.Changes = append(planned.Changes, workflows.ResourceChange{
					Action: string(types.ChangeActionAdd), Resource: name, Type: st.wanted.template.Resources[name].Type, Detail: why,
				})
			}
			planned.Changes = bounded(planned.Changes)
			return planned, nil
		default:
			return workflows.StackChanges{}, st.stuck(ctx, found, why)
		}
	}
}

// ApplyStack implements workflows.Stacks. A stack with the wanted template and tags costs two
// requests; what somebody has changed by hand in its resources is not looked for. What CloudFormation
// has begun goes on when the activity is cancelled. A block is looked at before a change set is made
// and before it is executed.
func (s *Stacks) ApplyStack(ctx context.Context, in workflows.StackOf) (workflows.StackChanges, error) {
	st, err := s.stack(ctx, in)
	if err != nil {
		return workflows.StackChanges{}, err
	}
	defer beat(ctx, st.shown.Load)()
	if err := st.want(ctx, in); err != nil {
		return workflows.StackChanges{}, err
	}
	for {
		found, err := st.look(ctx, st.name)
		if err != nil {
			return workflows.StackChanges{}, err
		}
		todo, why := nextStep(status(found))
		if found != nil && todo != create {
			if err := st.checkOwner(found); err != nil {
				return workflows.StackChanges{}, err
			}
		}
		switch todo {
		case wait:
			ended, err := st.await(ctx, found, "")
			if err != nil {
				return workflows.StackChanges{}, err
			}
			// What was under way may have been begun by an attempt before this one.
			if changes, mine, err := st.outcome(ctx, ended, nil); mine || err != nil {
				return changes, err
			}
		case create, update:
			return st.change(ctx, found, todo, in.Since)
		case replace:
			if changes, mine, err := st.outcome(ctx, found, nil); mine || err != nil {
				return changes, err
			}
			activity.RecordHeartbeat(ctx, workflows.StackProgress{Status: string(found.StackStatus), Event: why})
			if err := st.remove(ctx, found, nil); err != nil {
				return workflows.StackChanges{}, err
			}
		default:
			return workflows.StackChanges{}, st.stuck(ctx, found, why)
		}
	}
}

// change brings a stack that is at rest, or is not there, to what is wanted.
func (st *stack) change(ctx context.Context, found *types.Stack, todo step, since time.Time) (workflows.StackChanges, error) {
	unchanged := workflows.StackChanges{Stack: st.name, Changes: []workflows.ResourceChange{}}
	if todo == update {
		same, err := st.same(ctx, found)
		if err != nil {
			return workflows.StackChanges{}, err
		}
		if same {
			unchanged.Created = !since.IsZero() && aws.ToTime(found.CreationTime).After(since)
			return unchanged, st.protect(ctx, found)
		}
		if changes, mine, err := st.outcome(ctx, found, nil); mine || err != nil {
			return changes, err
		}
	}
	if err := st.Blocks.Check(ctx, st.cluster.ID, st.pool); err != nil {
		return workflows.StackChanges{}, err
	}
	changes, needed, err := st.changeSet(ctx, found, todo)
	if err == nil && needed {
		// Another attempt finds the change set if this one has to end here.
		if err = st.Blocks.Check(ctx, st.cluster.ID, st.pool); err == nil {
			err = st.execute(ctx)
		}
	}
	if err == nil && !needed || ctx.Err() != nil {
		st.discard(ctx)
	}
	if err != nil {
		return workflows.StackChanges{}, err
	}
	if !needed {
		return unchanged, st.protect(ctx, found)
	}
	if found, err = st.look(ctx, st.name); err != nil {
		return workflows.StackChanges{}, err
	}
	if found == nil {
		return workflows.StackChanges{}, st.retryable("it has vanished")
	}
	if err := st.protect(ctx, found); err != nil {
		return workflows.StackChanges{}, err
	}
	ended, err := st.await(ctx, found, st.token)
	if err != nil {
		return workflows.StackChanges{}, err
	}
	result, mine, err := st.outcome(ctx, ended, changes)
	if err == nil && !mine {
		err = st.retryable("somebody else has changed it before this change was seen; looking again")
	}
	return result, err
}

// outcome says how the operation of this activity has ended, if it was the stack's last one. Without
// changes they are those of the events.
func (st *stack) outcome(ctx context.Context, ended *types.Stack, changes []workflows.ResourceChange) (result workflows.StackChanges, mine bool, err error) {
	if ended == nil || ended.StackStatus == types.StackStatusDeleteComplete {
		return result, false, nil
	}
	events, err := st.events(ctx, ended, st.token)
	if err != nil || len(events) == 0 {
		return result, false, err
	}
	switch ended.StackStatus {
	case types.StackStatusCreateComplete, types.StackStatusUpdateComplete:
		if changes == nil {
			changes = changesOf(events)
		}
		result = workflows.StackChanges{Stack: st.name, Changes: changes, Created: ended.StackStatus == types.StackStatusCreateComplete}
		return result, true, st.protect(ctx, ended)
	default:
		return workflows.StackChanges{}, true, st.failed("%s: %s", ended.StackStatus, cmp.Or(firstFailure(events), aws.ToString(ended.StackStatusReason), "no event says why"))
	}
}

// DeleteStack implements workflows.Stacks. What is in the S3 buckets of the stack is deleted with
// them, unless their DeletionPolicy keeps them. InvalidInput if it is no pool's stack and the registry
// does not say that the cluster is to go: who changes their mind may save what is left. It looks at
// blocks before it changes anything.
func (s *Stacks) DeleteStack(ctx context.Context, in workflows.StackOf) error {
	in.Version = ""
	st, err := s.stack(ctx, in)
	if err != nil {
		return err
	}
	return st.deletion(ctx, func(found *types.Stack) error {
		if found.StackStatus == types.StackStatusReviewInProgress { // it is only a name
			return nil
		}
		if err := st.checkOwner(found); err != nil {
			return err
		}
		return st.checkMayGo(found)
	})
}

// DeleteOrphan deletes a stack of a cluster that the registry does not know, as DeleteStack does; a deletion that
// fails is tried three times. mine looks before each time at its tags and when it was made.
func (s *Stacks) DeleteOrphan(ctx context.Context, cluster registry.Cluster, name string, mine func(tags map[string]string, made time.Time) error) error {
	account, err := s.Accounts.of(ctx, cluster)
	if err != nil {
		return err
	}
	for try := 1; ; try++ {
		st := &stack{Stacks: s, cluster: cluster, account: account, name: name, token: token(ctx, "orphan", strconv.Itoa(try))}
		st.shown.Store(workflows.StackProgress{Status: "looking"})
		err := st.deletion(ctx, func(found *types.Stack) error { return mine(stackTags(*found), aws.ToTime(found.CreationTime)) })
		var failed *temporal.ApplicationError
		if try == triesOfDeletion || !errors.As(err, &failed) || failed.Type() != workflows.StackFailed {
			return err
		}
		looked := false // what is in use gets a moment to go
		if err := st.watch(ctx, s.Settings.PollInterval, workflows.StackProgress{Status: "trying again", Event: short(failed.Message())}, func() (workflows.StackProgress, bool, error) {
			before := looked
			looked = true
			return workflows.StackProgress{Status: "trying again", Event: short(failed.Message())}, before, nil
		}); err != nil {
			return err
		}
	}
}

// triesOfDeletion is how often the deletion of an orphan is tried: what is still in use the first time often is not any more.
const triesOfDeletion = 3

// deletion deletes a stack if check finds nothing wrong with that.
func (st *stack) deletion(ctx context.Context, check func(*types.Stack) error) error {
	defer beat(ctx, st.shown.Load)()
	for {
		found, err := st.look(ctx, st.name)
		if err != nil || found == nil || found.StackStatus == types.StackStatusDeleteComplete {
			return err
		}
		if todo, _ := nextStep(found.StackStatus); todo == wait {
			ended, err := st.await(ctx, found, "")
			if err != nil {
				return err
			}
			if ended.StackStatus == types.StackStatusDeleteComplete {
				return nil
			}
			found = ended
		}
		if err := check(found); err != nil {
			return err
		}
		if err := st.remove(ctx, found, st.emptyBuckets); err != nil {
			return err
		}
	}
}

// checkMayGo refuses what is no pool's stack as long as the cluster is to stay, whatever it is tagged as.
func (st *stack) checkMayGo(found *types.Stack) error {
	life, pool := st.cluster.LifecycleStatus, stackTags(*found)[st.Settings.PoolTag]
	if life == registry.DecommissionRequested || life == registry.Decommissioned || pool != "" && st.name == render.PoolStackName(st.cluster.ID, pool) {
		return nil
	}
	return st.invalid("the cluster's lifecycle_status is %s, and it is not the stack of a pool %q; others are deleted only while the registry says %s",
		life, pool, registry.DecommissionRequested)
}

// remove deletes a stack and waits until it is gone. StackFailed if that was tried by this activity
// already.
func (st *stack) remove(ctx context.Context, found *types.Stack, before func(context.Context, *types.Stack) error) error {
	token := st.token + "-delete"
	if found.StackStatus == types.StackStatusDeleteFailed {
		events, err := st.events(ctx, found, token)
		if err != nil {
			return err
		}
		if len(events) > 0 {
			return st.failed("%s: %s", found.StackStatus, cmp.Or(allFailures(events), aws.ToString(found.StackStatusReason)))
		}
	}
	if err := st.Blocks.Check(ctx, st.cluster.ID, st.pool); err != nil {
		return err
	}
	if before != nil {
		if err := before(ctx, found); err != nil {
			return err
		}
		if err := st.Blocks.Check(ctx, st.cluster.ID, ""); err != nil { // that may have taken hours
			return err
		}
	}
	protected := aws.ToBool(found.EnableTerminationProtection)
	if protected {
		if err := st.setProtection(ctx, found, false); err != nil {
			return err
		}
	}
	if _, err := st.account.cloudFormation.DeleteStack(ctx, &cloudformation.DeleteStackInput{StackName: found.StackId, ClientRequestToken: &token, RoleARN: st.role()}); err != nil {
		st.protectAgain(ctx, found, protected)
		if hasCode(err, "ValidationError") && strings.Contains(err.Error(), "in use by") {
			// Another stack imports its outputs; only the end of that one helps.
			return st.failed("deleting it: %s", answer(err))
		}
		return explain(st.cluster, st.doing("deleting it"), err)
	}
	ended, err := st.await(ctx, found, token)
	if err != nil {
		return err
	}
	if ended.StackStatus == types.StackStatusDeleteComplete {
		return nil
	}
	events, err := st.events(ctx, ended, token)
	if err != nil {
		return err
	}
	if ended.StackStatus != types.StackStatusDeleteFailed {
		st.protectAgain(ctx, ended, protected)
	}
	return st.failed("%s: %s", ended.StackStatus, cmp.Or(allFailures(events), aws.ToString(ended.StackStatusReason), "no event says why"))
}

// protectAgain switches on what was switched off for a deletion that AWS has not begun. Where it has
// begun, AWS refuses that.
func (st *stack) protectAgain(ctx context.Context, found *types.Stack, protected bool) {
	if !protected {
		return
	}
	aside, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	if err := st.setProtection(aside, found, true); err != nil {
		st.regret(ctx, "switching its termination protection on again", err)
	}
}

// ListStacks implements workflows.Stacks. Nested stacks are their parents' business.
func (s *Stacks) ListStacks(ctx context.Context, in workflows.StacksOf) ([]workflows.OwnedStack, error) {
	cluster, account, err := s.Accounts.get(ctx, in.Cluster)
	if err != nil {
		return nil, err
	}
	var list []workflows.OwnedStack
	pages := cloudformation.NewDescribeStacksPaginator(account.cloudFormation, &cloudformation.DescribeStacksInput{})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, explain(cluster, "listing stacks", err)
		}
		for _, found := range page.Stacks {
			tags := stackTags(found)
			if tags[s.clusterTag(cluster)] == owned && found.ParentId == nil && found.StackStatus != types.StackStatusDeleteComplete {
				list = append(list, workflows.OwnedStack{Name: aws.ToString(found.StackName), Pool: tags[s.Settings.PoolTag], Status: string(found.StackStatus)})
			}
		}
	}
	slices.SortFunc(list, func(a, b workflows.OwnedStack) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// look finds a stack by its name or id; nil if it does not exist.
func (st *stack) look(ctx context.Context, name string) (*types.Stack, error) {
	out, err := st.account.cloudFormation.DescribeStacks(ctx, &cloudformation.DescribeStacksInput{StackName: &name})
	if hasCode(err, "ValidationError") && strings.Contains(err.Error(), "does not exist") {
		return nil, nil
	}
	if err != nil {
		return nil, explain(st.cluster, st.doing("looking at it"), err)
	}
	for _, found := range out.Stacks {
		if aws.ToString(found.StackName) == name || aws.ToString(found.StackId) == name {
			return &found, st.checkAccount(aws.ToString(found.StackId))
		}
	}
	return nil, nil
}

func status(found *types.Stack) types.StackStatus {
	if found == nil {
		return ""
	}
	return found.StackStatus
}

// seenWithin is how late AWS may show an operation that it has accepted.
const seenWithin = time.Minute

// await returns the stack when nobody changes it any more. With a token that is after the operation
// with that token, which the first answers may not show yet.
func (st *stack) await(ctx context.Context, found *types.Stack, token string) (*types.Stack, error) {
	id := aws.ToString(found.StackId)
	began, seen := time.Now(), token == ""
	err := st.watch(ctx, st.Settings.PollInterval, workflows.StackProgress{Status: string(found.StackStatus)}, func() (workflows.StackProgress, bool, error) {
		now, err := st.look(ctx, id)
		if err != nil {
			return workflows.StackProgress{}, false, err
		}
		if now == nil {
			// AWS remembers deleted stacks for 90 days.
			now = &types.Stack{StackId: found.StackId, StackName: found.StackName, StackStatus: types.StackStatusDeleteComplete}
		}
		*found = *now
		if now.StackStatus == types.StackStatusDeleteComplete {
			return workflows.StackProgress{Status: string(now.StackStatus)}, true, nil
		}
		newest, err := st.newest(ctx, now)
		if err != nil {
			return workflows.StackProgress{}, false, err
		}
		seen = seen || aws.ToString(newest.ClientRequestToken) == token
		progress := workflows.StackProgress{Status: string(now.StackStatus)}
		if seen {
			progress.Event = shown(newest)
		}
		todo, _ := nextStep(now.StackStatus)
		return progress, todo != wait && (seen || time.Since(began) > seenWithin), nil
	})
	return found, err
}

// same says whether the stack has the wanted template and tags already. After an update that was
// undone only a change set can tell.
func (st *stack) same(ctx context.Context, found *types.Stack) (bool, error) {
	if found.StackStatus == types.StackStatusUpdateRollbackComplete || !maps.Equal(stackTags(*found), st.wanted.tags) {
		return false, nil
	}
	out, err := st.account.cloudFormation.GetTemplate(ctx, &cloudformation.GetTemplateInput{StackName: found.StackId, TemplateStage: types.TemplateStageOriginal})
	if err != nil {
		return false, explain(st.cluster, st.doing("reading its template"), err)
	}
	return aws.ToString(out.TemplateBody) == st.wanted.Body, nil
}

// protect switches the termination protection on.
func (st *stack) protect(ctx context.Context, found *types.Stack) error {
	if found == nil || aws.ToBool(found.EnableTerminationProtection) {
		return nil
	}
	return st.setProtection(ctx, found, true)
}

func (st *stack) setProtection(ctx context.Context, found *types.Stack, on bool) error {
	_, err := st.account.cloudFormation.UpdateTerminationProtection(ctx, &cloudformation.UpdateTerminationProtectionInput{
		StackName: found.StackId, EnableTerminationProtection: &on,
	})
	return explain(st.cluster, st.doing("switching its termination protection"), err)
}

// checkAccount refuses a stack, such as arn:aws:cloudformation:REGION:ACCOUNT:stack/NAME/ID, in another
// account than the cluster's: that is where the worker's credentials lead if no role is taken on.
func (st *stack) checkAccount(id string) error {
	if parts := strings.Split(id, ":"); len(parts) > 4 && parts[4] != st.account.number {
		return st.invalid("the worker's credentials are those of account %s, the cluster is in account %s; check aws.assume_role and infrastructure_account", parts[4], st.account.number)
	}
	return nil
}

// checkOwner refuses a stack that is not the cluster's.
func (st *stack) checkOwner(found *types.Stack) error {
	if found == nil || found.StackStatus == types.StackStatusReviewInProgress {
		return nil
	}
	tags := stackTags(*found)
	if tag := st.clusterTag(st.cluster); tags[tag] != owned {
		return st.invalid("it exists in account %s, but does not carry the tag %s=%s; give it the tag if it is the cluster's, or give the cluster another id",
			st.account.number, tag, owned)
	}
	if other := st.otherCluster(st.cluster, tags); other != "" {
		return st.invalid("it carries the tag %s of another cluster too; take one of them away", other)
	}
	return nil
}

const owned = "owned"

func (s *Stacks) clusterTag(cluster registry.Cluster) string {
	return strings.ReplaceAll(s.Settings.ClusterTag, "{cluster}", cluster.ID)
}

// otherCluster is a tag that says that something is another cluster's, empty if there is none.
func (s *Stacks) otherCluster(cluster registry.Cluster, tags map[string]string) string {
	before, after, named := strings.Cut(s.Settings.ClusterTag, "{cluster}")
	own := s.clusterTag(cluster)
	for _, key := range slices.Sorted(maps.Keys(tags)) {
		if named && key != own && len(key) > len(before)+len(after) && strings.HasPrefix(key, before) && strings.HasSuffix(key, after) {
			return key
		}
	}
	return ""
}

// stackTags are the tags of a stack but for those of AWS.
func stackTags(found types.Stack) map[string]string {
	tags := map[string]string{}
	for _, tag := range found.Tags {
		if key := aws.ToString(tag.Key); !strings.HasPrefix(key, "aws:") {
			tags[key] = aws.ToString(tag.Value)
		}
	}
	return tags
}

// stuck tells a person what to do with a stack, and which of its resources are concerned.
func (st *stack) stuck(ctx context.Context, found *types.Stack, why string) error {
	var resources []string
	pages := cloudformation.NewListStackResourcesPaginator(st.account.cloudFormation, &cloudformation.ListStackResourcesInput{StackName: found.StackId})
	for pages.HasMorePages() && len(resources) < 10 {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return explain(st.cluster, st.doing("listing its resources"), err)
		}
		for _, r := range page.StackResourceSummaries {
			if strings.HasSuffix(string(r.ResourceStatus), "_FAILED") {
				resources = append(resources, fmt.Sprintf("%s (%s)", aws.ToString(r.LogicalResourceId), short(aws.ToString(r.ResourceStatusReason))))
			}
		}
	}
	if len(resources) > 0 {
		why += "; resources: " + strings.Join(resources, ", ")
	}
	return st.failed("%s: %s", found.StackStatus, why)
}

// ---- errors

func (st *stack) doing(what string) string { return fmt.Sprintf("stack %s: %s", st.name, what) }

func (st *stack) text(format string, args ...any) string {
	return fmt.Sprintf("cluster %s: stack %s: %s", st.cluster.ID, st.name, fmt.Sprintf(format, args...))
}

func (st *stack) invalid(format string, args ...any) error {
	return temporal.NewNonRetryableApplicationError(st.text(format, args...), workflows.InvalidInput, nil)
}

// failed is final for this attempt at the update: to try again at once would only disrupt again.
func (st *stack) failed(format string, args ...any) error {
	return temporal.NewNonRetryableApplicationError(st.text(format, args...), workflows.StackFailed, nil)
}

// retryable is for what another attempt will find otherwise.
func (st *stack) retryable(format string, args ...any) error {
	return errors.New(st.text(format, args...))
}

// answer is what AWS says in an error.
func answer(err error) string {
	var said smithy.APIError
	if errors.As(err, &said) {
		return short(said.ErrorMessage())
	}
	return short(err.Error())
}

// short keeps a text of AWS from filling a history.
func short(text string) string {
	const most = 500
	text = strings.Join(strings.Fields(text), " ")
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}

// ---- events

// newest is the newest event of a stack.
func (st *stack) newest(ctx context.Context, found *types.Stack) (types.StackEvent, error) {
	out, err := st.account.cloudFormation.DescribeStackEvents(ctx, &cloudformation.DescribeStackEventsInput{StackName: found.StackId})
	if err != nil {
		return types.StackEvent{}, explain(st.cluster, st.doing("reading its events"), err)
	}
	if len(out.StackEvents) == 0 {
		return types.StackEvent{}, nil
	}
	return out.StackEvents[0], nil
}

// maxEventPages of 100 events each bound what is read of an operation. Its newest events count.
const maxEventPages = 50

// events are those of the stack's last operation, newest first, if it was begun with the token; none
// otherwise.
func (st *stack) events(ctx context.Context, found *types.Stack, token string) ([]types.StackEvent, error) {
	var events []types.StackEvent
	pages := cloudformation.NewDescribeStackEventsPaginator(st.account.cloudFormation, &cloudformation.DescribeStackEventsInput{StackName: found.StackId})
	for read := 0; pages.HasMorePages() && read < maxEventPages; read++ {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, explain(st.cluster, st.doing("reading its events"), err)
		}
		for _, event := range page.StackEvents {
			if aws.ToString(event.ClientRequestToken) != token {
				return events, nil
			}
			events = append(events, event)
		}
	}
	return events, nil
}

// shown is an event for people.
func shown(event types.StackEvent) string {
	text := strings.TrimSpace(fmt.Sprintf("%s %s", aws.ToString(event.LogicalResourceId), event.ResourceStatus))
	if reason := aws.ToString(event.ResourceStatusReason); reason != "" {
		text += ": " + short(reason)
	}
	return text
}

// firstFailure is why an operation failed: what fails later is cancelled, or fails while it is undone.
func firstFailure(events []types.StackEvent) string {
	for _, event := range slices.Backward(events) {
		if failedResource(event) && !strings.Contains(aws.ToString(event.ResourceStatusReason), "cancelled") {
			return shown(event)
		}
	}
	return allFailures(events)
}

// allFailures are all that failed, in order, the first ten of them.
func allFailures(events []types.StackEvent) string {
	var all []string
	for _, event := range slices.Backward(events) {
		if failedResource(event) && len(all) < 10 {
			all = append(all, shown(event))
		}
	}
	return strings.Join(all, "; ")
}

func failedResource(event types.StackEvent) bool {
	return strings.HasSuffix(string(event.ResourceStatus), "_FAILED") && aws.ToString(event.PhysicalResourceId) != aws.ToString(event.StackId)
}

// changesOf tells from its events what an operation has changed.
func changesOf(events []types.StackEvent) []workflows.ResourceChange {
	changes := []workflows.ResourceChange{}
	actions := map[types.ResourceStatus]types.ChangeAction{
		types.ResourceStatusCreateComplete: types.ChangeActionAdd,
		types.ResourceStatusUpdateComplete: types.ChangeActionModify,
		types.ResourceStatusDeleteComplete: types.ChangeActionRemove,
	}
	for _, event := range slices.Backward(events) {
		action, is := actions[event.ResourceStatus]
		name := aws.ToString(event.LogicalResourceId)
		known := slices.ContainsFunc(changes, func(c workflows.ResourceChange) bool { return c.Resource == name })
		if is && !known && aws.ToString(event.PhysicalResourceId) != aws.ToString(event.StackId) {
			changes = append(changes, workflows.ResourceChange{Action: string(action), Resource: name, Type: aws.ToString(event.ResourceType)})
		}
	}
	return bounded(changes)
}

// maxChanges bounds what a workflow's history has to hold of a stack.
const maxChanges = 200

func bounded(changes []workflows.ResourceChange) []workflows.ResourceChange {
	if len(changes) <= maxChanges {
		return changes
	}
	rest := workflows.ResourceChange{Action: "…", Resource: fmt.Sprintf("%d more", len(changes)-maxChanges)}
	return append(changes[:maxChanges:maxChanges], rest)
}
