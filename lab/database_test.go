package lab

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestDatabasePrimaryMovesOnlyWhenItMustAndCan(t *testing.T) {
	member := func(name, node, role string, ready corev1.ConditionStatus) corev1.Pod {
		return corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{databaseRole: role}},
			Spec:       corev1.PodSpec{NodeName: node},
			Status:     corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}}},
		}
	}
	open := map[string]bool{"a": true, "b": true, "c": true}
	stopping := member("db-0", "a", rolePrimary, corev1.ConditionTrue)
	stopping.DeletionTimestamp = &metav1.Time{}

	for _, c := range []struct {
		name    string
		members []corev1.Pod
		open    map[string]bool
		primary string
	}{
		{"nobody has the role yet", []corev1.Pod{member("db-1", "b", "", "True"), member("db-0", "a", "", "True")}, open, "db-0"},
		{"it stays with who has it", []corev1.Pod{member("db-0", "a", roleReplica, "True"), member("db-1", "b", rolePrimary, "True")}, open, "db-1"},
		{"its node is cordoned", []corev1.Pod{member("db-0", "a", rolePrimary, "True"), member("db-1", "b", roleReplica, "True")}, map[string]bool{"b": true}, "db-1"},
		{"the nodes of all are cordoned", []corev1.Pod{member("db-0", "a", rolePrimary, "True"), member("db-1", "b", roleReplica, "True")}, nil, ""},
		{"it is not ready", []corev1.Pod{member("db-0", "a", rolePrimary, "False"), member("db-1", "b", roleReplica, "True")}, open, "db-1"},
		{"it is stopping", []corev1.Pod{stopping, member("db-1", "b", roleReplica, "True")}, open, "db-1"},
		{"no other is ready", []corev1.Pod{member("db-0", "a", rolePrimary, "True"), member("db-1", "b", roleReplica, "False")}, map[string]bool{"b": true}, ""},
	} {
		t.Run(c.name, func(t *testing.T) { require.Equal(t, c.primary, choosePrimary(c.members, c.open)) })
	}
}
