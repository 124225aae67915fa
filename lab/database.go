package lab

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
)

// The members of the sample's database, and the label that tells the primary from its replicas.
const (
	databaseNamespace = "payments"
	databaseSelector  = "application=payments-db"
	databaseRole      = "role"
	rolePrimary       = "primary"
	roleReplica       = "replica"
)

// startDatabase makes one member of the sample's database the primary and stands in for what
// members do from then on: they move that role off a node which is cordoned. Nothing else would
// ever let go of the primary's budget. It ends with the lab or with the cluster.
func (l *Lab) startDatabase(ctx context.Context, id string) error {
	client, err := l.adminClient(id)
	if err != nil {
		return err
	}
	if err := assignRoles(ctx, client); err != nil {
		return fmt.Errorf("choosing the primary of the database: %w", err)
	}
	go l.playDatabase(id)
	return nil
}

func (l *Lab) playDatabase(id string) {
	for {
		client, err := l.adminClient(id)
		if err != nil {
			return // the cluster has ended
		}
		// It fails as often as the API server is away; meanwhile the roles stay where they are.
		_ = followDatabase(l.life, client)
		select {
		case <-l.life.Done():
			return
		case <-time.After(500 * time.Millisecond):
		}
	}
}

func followDatabase(ctx context.Context, client kubernetes.Interface) error {
	pods, err := client.CoreV1().Pods(databaseNamespace).Watch(ctx, metav1.ListOptions{LabelSelector: databaseSelector})
	if err != nil {
		return err
	}
	defer pods.Stop()
	nodes, err := client.CoreV1().Nodes().Watch(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	defer nodes.Stop()
	for {
		var event watch.Event
		select {
		case event = <-pods.ResultChan():
		case event = <-nodes.ResultChan():
		case <-ctx.Done():
			return ctx.Err()
		}
		if event.Type == "" || event.Type == watch.Error {
			return errors.New("the watch has ended")
		}
		if err := assignRoles(ctx, client); err != nil {
			return err
		}
	}
}

// assignRoles makes one member the primary that is ready on a node which is not cordoned, and
// leaves the role where it is as long as it can or must.
func assignRoles(ctx context.Context, client kubernetes.Interface) error {
	members, err := client.CoreV1().Pods(databaseNamespace).List(ctx, metav1.ListOptions{LabelSelector: databaseSelector})
	if err != nil {
		return err
	}
	nodes, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	open := map[string]bool{}
	for _, node := range nodes.Items {
		open[node.Name] = !node.Spec.Unschedulable
	}
	primary := choosePrimary(members.Items, open)
	if primary == "" {
		return nil
	}
	// The new primary first: in between there are two of them, and never none.
	if err := setRoles(ctx, client, members.Items, rolePrimary, func(name string) bool { return name == primary }); err != nil {
		return err
	}
	return setRoles(ctx, client, members.Items, roleReplica, func(name string) bool { return name != primary })
}

// choosePrimary names the member that should be primary; empty leaves things as they are.
func choosePrimary(members []corev1.Pod, open map[string]bool) string {
	best := ""
	for _, member := range members {
		if !open[member.Spec.NodeName] || !isReady(member) {
			continue
		}
		if member.Labels[databaseRole] == rolePrimary {
			return member.Name
		}
		if best == "" || member.Name < best {
			best = member.Name
		}
	}
	return best
}

func isReady(pod corev1.Pod) bool {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady {
			return condition.Status == corev1.ConditionTrue && pod.DeletionTimestamp == nil
		}
	}
	return false
}

func setRoles(ctx context.Context, client kubernetes.Interface, members []corev1.Pod, role string, of func(name string) bool) error {
	for _, member := range members {
		if !of(member.Name) || member.Labels[databaseRole] == role {
			continue
		}
		// The uid keeps the role from a successor of the same name.
		patch := fmt.Sprintf(`{"metadata":{"uid":%q,"labels":{%q:%q}}}`, member.UID, databaseRole, role)
		if _, err := client.CoreV1().Pods(member.Namespace).Patch(ctx, member.Name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
			return err
		}
	}
	return nil
}
