package manifests

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/pager"

	"github.com/fairway-project/fairway/activities/kube"
	"github.com/fairway-project/fairway/workflows"
)

// healthProblems is how many problems an answer names.
const healthProblems = 50

// bootWithin is how long a new node may take to become Ready before that is a problem.
const bootWithin = 10 * time.Minute

// accessWithin is how long AwaitAPIServer bears that access is not set up, which may come a little
// after the API server itself.
const accessWithin = 2 * time.Minute

// AwaitAPIServer implements workflows.Manifests.
func (a *Activities) AwaitAPIServer(ctx context.Context, in workflows.ManifestsOf) error {
	ctx, progress, end := begin(ctx)
	defer end()
	progress.say("waiting for the API server")
	began := time.Now()
	for {
		err := a.askReady(ctx, in.Cluster)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return stopped(ctx)
		}
		if !isKind(err, workflows.Unreachable) && time.Since(began) > accessWithin {
			return err
		}
		progress.say("%s", shorten(err.Error(), textLimit))
		if err := pause(ctx, time.Second); err != nil {
			return err
		}
	}
}

func (a *Activities) askReady(ctx context.Context, cluster string) error {
	s, err := a.connect(ctx, cluster)
	if err != nil {
		return err
	}
	_, err = s.objects.Get().AbsPath("/readyz").DoRaw(ctx)
	return s.explain(ctx, "asking whether the API server is ready", err)
}

// CheckHealth implements workflows.Manifests.
func (a *Activities) CheckHealth(ctx context.Context, in workflows.CheckHealth) (workflows.Health, error) {
	ctx, progress, end := begin(ctx)
	defer end()
	return a.look(ctx, in.Cluster, progress)
}

// Look is CheckHealth for other activities, with a context of their own that may end sooner: it does not
// heartbeat, since the SDK takes the end of a heartbeat's context for the activity's.
func Look(ctx context.Context, a *Activities, cluster string) (workflows.Health, error) {
	return a.look(ctx, cluster, &progress{})
}

func (a *Activities) look(ctx context.Context, cluster string, progress *progress) (workflows.Health, error) {
	progress.say("looking at nodes")
	s, err := a.connect(ctx, cluster)
	if err != nil {
		return workflows.Health{}, err
	}
	settings, err := a.Settings(s.cluster)
	if err != nil {
		return workflows.Health{}, invalid("%v", err)
	}
	var found complaints
	excused, err := s.checkNodes(ctx, &found)
	if err != nil {
		return workflows.Health{}, err
	}
	for _, namespace := range settings.SystemNamespaces {
		progress.say("looking at the workloads of namespace %s", namespace)
		if err := s.checkWorkloads(ctx, namespace, excused, &found); err != nil {
			return workflows.Health{}, err
		}
	}
	if settings.Alerts != nil {
		progress.say("asking for alerts")
		if err := checkAlerts(ctx, s.cluster, *settings.Alerts, &found); err != nil {
			return workflows.Health{}, err
		}
	}
	return found.health(), nil
}

// complaints are what keeps a cluster from being healthy.
type complaints struct {
	texts []string
	more  int
}

func (c *complaints) add(format string, args ...any) {
	if len(c.texts) == healthProblems {
		c.more++
		return
	}
	c.texts = append(c.texts, shorten(fmt.Sprintf(format, args...), textLimit))
}

func (c *complaints) health() workflows.Health {
	texts := c.texts
	if c.more > 0 {
		texts = append(texts, fmt.Sprintf("There are %d more problems.", c.more))
	}
	return workflows.Health{Healthy: len(texts) == 0, Problems: texts}
}

// standing is how a node stands.
type standing struct {
	ready, young bool
	// leaving is a node that Fairway is emptying or has given up for a while, or that somebody takes away.
	leaving bool
	said    *corev1.NodeCondition // about being Ready; nil if it has never said so
}

// goingTaints mark nodes that autoscalers take away.
var goingTaints = []string{"ToBeDeletedByClusterAutoscaler", "karpenter.sh/disrupted", "karpenter.sh/disruption"}

func standingOf(node *corev1.Node) (is standing) {
	if at := slices.IndexFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool { return c.Type == corev1.NodeReady }); at >= 0 {
		is.said = &node.Status.Conditions[at]
		is.ready = is.said.Status == corev1.ConditionTrue
	}
	_, cordoned := node.Annotations[kube.CordonedBy]
	_, quarantined := node.Annotations[kube.Quarantined]
	going := slices.ContainsFunc(node.Spec.Taints, func(t corev1.Taint) bool { return slices.Contains(goingTaints, t.Key) })
	is.leaving = cordoned || quarantined || going || node.DeletionTimestamp != nil
	is.young = time.Since(node.CreationTimestamp.Time) < bootWithin
	return is
}

func (s *server) eachNode(ctx context.Context, do func(*corev1.Node, standing)) error {
	return s.each(ctx, corev1.SchemeGroupVersion.WithResource("nodes"), "", func(object *unstructured.Unstructured) error {
		var node corev1.Node
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &node); err != nil {
			return err
		}
		do(&node, standingOf(&node))
		return nil
	})
}

// checkNodes complains about nodes that are not Ready. Those that are leaving, or that have just been
// started, are no problem of the cluster. It returns how many nodes may lack pods of DaemonSets.
func (s *server) checkNodes(ctx context.Context, found *complaints) (excused int, err error) {
	ready, booting := 0, 0
	err = s.eachNode(ctx, func(node *corev1.Node, is standing) {
		if is.young || is.leaving {
			excused++
		}
		switch {
		case is.ready:
			ready++
		case is.leaving:
		case is.young:
			booting++
		case is.said == nil:
			found.add("Node %s is not Ready: it has never said so.", node.Name)
		default:
			found.add("Node %s is not Ready since %s: %s.", node.Name, is.said.LastTransitionTime.UTC().Format(time.RFC3339), strings.TrimSuffix(is.said.Message, "."))
		}
	})
	if err == nil && ready == 0 && booting > 0 {
		found.add("No node is Ready; %d have been started less than %s ago.", booting, bootWithin)
	}
	return excused, err
}

// workloadKinds are those whose pods make up a cluster's system.
var workloadKinds = []schema.GroupVersionResource{
	{Group: "apps", Version: "v1", Resource: "deployments"},
	{Group: "apps", Version: "v1", Resource: "statefulsets"},
	{Group: "apps", Version: "v1", Resource: "daemonsets"},
}

func (s *server) checkWorkloads(ctx context.Context, namespace string, excused int, found *complaints) error {
	for _, resource := range workloadKinds {
		if err := s.each(ctx, resource, namespace, func(object *unstructured.Unstructured) error {
			if why := notReady(object); why != "" && !runsElsewhere(object, excused) {
				found.add("%s %s/%s is not ready: %s.", object.GetKind(), namespace, object.GetName(), why)
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

// runsElsewhere says whether a DaemonSet lacks no more pods than there are nodes that come or go.
func runsElsewhere(object *unstructured.Unstructured, excused int) bool {
	desired, updated := count(object, "status", "desiredNumberScheduled"), count(object, "status", "updatedNumberScheduled")
	if strategy, _, _ := unstructured.NestedString(object.Object, "spec", "updateStrategy", "type"); strategy == "OnDelete" {
		updated = desired
	}
	return object.GetKind() == "DaemonSet" && count(object, "status", "observedGeneration") == object.GetGeneration() &&
		desired-updated <= int64(excused) && desired-count(object, "status", "numberAvailable") <= int64(excused)
}

// each lists objects of a kind, page by page.
func (s *server) each(ctx context.Context, resource schema.GroupVersionResource, namespace string, do func(*unstructured.Unstructured) error) error {
	pages := pager.New(func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
		return s.dynamic.Resource(resource).Namespace(namespace).List(ctx, options)
	})
	pages.PageSize = pageSize
	err := pages.EachListItem(ctx, metav1.ListOptions{}, func(object runtime.Object) error {
		item, ok := object.(*unstructured.Unstructured)
		if !ok {
			return fmt.Errorf("a list of %s has a %T in it", resource.Resource, object)
		}
		return do(item)
	})
	return s.explain(ctx, "listing "+resource.Resource, err)
}

// NotReady says why an object is not as it should be; empty if it is.
func NotReady(object *unstructured.Unstructured) string { return notReady(object) }
