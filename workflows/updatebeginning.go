package workflows

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/roll"
	"github.com/fairway-project/fairway/rollout"
)

// awaitUnblocked waits while somebody has blocked the cluster, its channel or the fleet, so that what
// cannot go on holds no turn. What is changed asks once more, each time.
func (u *updating) awaitUnblocked(ctx workflow.Context) error {
	u.phase(ctx, "waiting")
	return u.step(ctx, "blocks", func() (string, error) {
		return "none", u.unlessEnough(ctx, func(ctx workflow.Context) workflow.Future {
			return workflow.ExecuteActivity(waiting(ctx, "is the cluster blocked"), "AwaitUnblocked", AwaitUnblocked{Cluster: u.in.Cluster})
		})
	})
}

// announce says in the registry what is about to begin.
func (u *updating) announce(ctx workflow.Context) error {
	u.phase(ctx, "preparing")
	// No retry is too much: an update that nobody can see must not begin.
	return u.writeStatus(ctx, registry.Status{CurrentVersion: u.in.From, LastVersion: u.in.Last, NextVersion: u.next(), Problems: u.in.Problems}, "")
}

// next is the version that the cluster is on its way to.
func (u *updating) next() string {
	if u.in.Kind == Decommission {
		return ""
	}
	return u.in.Version
}

// prepare renders everything before anything is changed.
func (u *updating) prepare(ctx workflow.Context) error {
	u.phase(ctx, "preparing")
	return u.step(ctx, "render "+short(u.version), func() (string, error) {
		if err := u.askPlan(ctx, u.version); err != nil {
			return "", err
		}
		return fmt.Sprintf("%d stacks, %d pools, %d objects", len(u.plan.Stacks), len(u.plan.Pools), u.plan.Manifests), nil
	})
}

func (u *updating) askPlan(ctx workflow.Context, version string) error {
	options := workflow.GetActivityOptions(looking(ctx, "render version "+short(version)))
	options.StartToCloseTimeout, options.HeartbeatTimeout = renderWithin, heartbeatTimeout
	options.ScheduleToCloseTimeout += renderWithin
	var plan UpdatePlan
	if err := workflow.ExecuteActivity(workflow.WithActivityOptions(ctx, options), "PrepareUpdate", PrepareUpdate{Cluster: u.in.Cluster, Version: version}).Get(ctx, &plan); err != nil {
		return err
	}
	u.plan = plan
	u.progress.RetryAfter, u.progress.RetryAtMost = plan.Settings.RetryAfter, plan.Settings.RetryAtMost
	u.progress.Pools = nil
	for _, pool := range plan.Pools {
		u.progress.Pools = append(u.progress.Pools, PoolProgress{Pool: pool.Name, Workflow: RollPoolID(u.in.Cluster, pool.Name), State: "waiting"})
	}
	return workflow.UpsertTypedSearchAttributes(ctx, ClusterAttribute.ValueSet(u.in.Cluster), VersionAttribute.ValueSet(version),
		ChannelAttribute.ValueSet(plan.Cluster.Channel), EnvironmentAttribute.ValueSet(plan.Cluster.Environment))
}

// renderWithin is long: a slow repository is not a broken one.
const renderWithin = 5 * time.Minute

// checkHealth refuses to update a cluster that is not well, unless it is to be mended by that.
func (u *updating) checkHealth(ctx workflow.Context) error {
	if u.in.Fix {
		return nil
	}
	u.phase(ctx, "checking")
	return u.step(ctx, "health before", func() (string, error) {
		health, err := u.awaitHealth(ctx, looking(ctx, "is the cluster healthy"), min(passesWithin, u.plan.Settings.HealthyWithin))
		if err != nil {
			return "", err
		}
		u.checked = workflow.Now(ctx)
		return "healthy", unhealthy(u.in.Cluster, "is not healthy, so it is not updated; an update that is to mend it has to be marked as its fix", health)
	})
}

// passesWithin is how long a cluster that is to be updated may look unhealthy: a pod that was just
// rescheduled stops no rollout.
const passesWithin = 2 * time.Minute

// awaitHealth looks at a cluster until it is healthy, or does not become so within a time. The looks
// are few: the pauses between them grow.
func (u *updating) awaitHealth(ctx, asking workflow.Context, within time.Duration) (health Health, err error) {
	since := workflow.Now(ctx)
	for pause := 5 * time.Second; ; pause = min(2*pause, 2*time.Minute) {
		health = Health{}
		if err := workflow.ExecuteActivity(asking, "CheckHealth", CheckHealth{Cluster: u.in.Cluster}).Get(ctx, &health); err != nil {
			return health, err
		}
		if late := workflow.Now(ctx).Add(pause).Sub(since) > within; health.Healthy || late {
			return health, nil
		}
		if err := workflow.NewTimerWithOptions(ctx, pause, workflow.TimerOptions{Summary: "look at its health again"}).Get(ctx, nil); err != nil {
			return health, err
		}
	}
}

// unhealthy is the error of a cluster that is not well, or nil.
func unhealthy(cluster, what string, health Health) error {
	if health.Healthy {
		return nil
	}
	problems := health.Problems
	if more := len(problems) - 5; more > 0 {
		problems = append(slices.Clone(problems[:5]), fmt.Sprintf("And %d more.", more))
	}
	return temporal.NewNonRetryableApplicationError(fmt.Sprintf("cluster %s %s: %s", cluster, what, strings.Join(problems, " ")), Unhealthy, nil)
}

// enter waits until the windows of the cluster and the limits of the fleet let it begin.
func (u *updating) enter(ctx workflow.Context) error {
	u.phase(ctx, "waiting")
	windowed, err := u.needsWindow(ctx)
	if err != nil {
		return err
	}
	for {
		began := workflow.Now(ctx)
		if windowed {
			if err := u.awaitWindow(ctx); err != nil {
				return err
			}
		}
		asked := workflow.Now(ctx)
		if err := u.awaitTurn(ctx); err != nil {
			return err
		}
		opened := !windowed || !u.longAgo(ctx, asked) || once(ctx, "is the maintenance window still open", "AwaitWindow", u.window())
		if opened && (!u.longAgo(ctx, began) || once(ctx, "is the cluster still not blocked", "AwaitUnblocked", AwaitUnblocked{Cluster: u.in.Cluster})) {
			break
		}
		u.endTurn(ctx) // the window has closed, or somebody has blocked it meanwhile, and others can go on
		if err := u.awaitUnblocked(ctx); err != nil {
			return err
		}
	}
	if !u.checked.IsZero() && workflow.Now(ctx).Sub(u.checked) > lookAgain {
		if err := u.checkHealth(ctx); err != nil {
			return err
		}
	}
	u.notify(ctx, UpdateBegins, fmt.Sprintf("Fairway begins to update cluster %s to version %s.", u.in.Cluster, short(u.version)))
	return nil
}

// needsWindow says whether what follows disrupts. If only manifests change, and these may at any time,
// it does not: rolls of pools ask for their windows themselves.
func (u *updating) needsWindow(ctx workflow.Context) (bool, error) {
	// A person who goes back wants that now. Rollbacks that began before that was so wait.
	if u.in.Kind == Rollback && u.plan.Settings.Windowed && workflow.GetVersion(ctx, rollbackAtOnce, workflow.DefaultVersion, 1) == 1 {
		return false, nil
	}
	if settings := u.plan.Settings; !settings.Windowed || !settings.ManifestsAnytime || u.in.Kind == Provision {
		return settings.Windowed && u.in.Kind != Provision, nil
	}
	disrupts := false
	err := u.step(ctx, "do stacks change", func() (string, error) {
		stacks := slices.Clone(u.plan.Stacks)
		for _, pool := range u.plan.Pools {
			stacks = append(stacks, pool.Stack)
		}
		err := parallel(ctx, u, 5, stacks, func(ctx workflow.Context, stack string) error {
			var changes StackChanges
			err := carryOn(beating(ctx, "does stack "+stack+" change"), "PlanStack", u.stack(stack), &changes)
			disrupts = disrupts || changes.Created || len(changes.Changes) > 0
			return err
		})
		if disrupts {
			return "yes", err
		}
		return "no, and manifests may change at any time", err
	})
	return disrupts, err
}

// rollbackAtOnce is the change of updates that had rollbacks wait for no window.
const rollbackAtOnce = "rollback-at-once"

func (u *updating) awaitWindow(ctx workflow.Context) error {
	return u.step(ctx, "maintenance window", func() (string, error) {
		return "open", u.unlessEnough(ctx, func(ctx workflow.Context) workflow.Future {
			return workflow.ExecuteActivity(waiting(ctx, "is a maintenance window open"), "AwaitWindow", u.window())
		})
	})
}

func (u *updating) longAgo(ctx workflow.Context, at time.Time) bool {
	return workflow.Now(ctx).Sub(at) >= lookAgain
}

func (u *updating) window() AwaitWindow {
	return AwaitWindow{Cluster: u.in.Cluster, What: "the update to " + short(u.version)}
}

func (u *updating) awaitTurn(ctx workflow.Context) error {
	limits := u.plan.Settings.Limits
	if limits == (rollout.Limits{}) {
		return nil
	}
	u.turn = AwaitTurn{
		Holder: u.id, Account: u.plan.Cluster.Account, Region: u.plan.Cluster.Region, Nodes: 1, Clusters: true,
		Limits: roll.Limits{Fleet: limits.Fleet, Account: limits.Account, Region: limits.Region},
	}
	return u.step(ctx, "a turn within the fleet's limits", func() (string, error) {
		return "taken", u.unlessEnough(ctx, func(ctx workflow.Context) workflow.Future {
			return workflow.ExecuteActivity(watching(ctx, "may one more cluster be updated", forEver), "AwaitTurn", u.turn)
		})
	})
}

func (u *updating) endTurn(ctx workflow.Context) {
	if u.turn == (AwaitTurn{}) {
		return
	}
	ctx, stop := workflow.NewDisconnectedContext(ctx)
	defer stop()
	// Whoever waits next finds out by itself if this update has ended without giving back.
	if err := workflow.ExecuteActivity(changing(ctx, "end the turn"), "EndTurn", u.turn).Get(ctx, nil); err != nil {
		workflow.GetLogger(ctx).Warn("a turn was not given back", "error", err)
	}
	u.turn = AwaitTurn{}
}
