package drain

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Difficulty says how hard a node would be to empty now.
type Difficulty struct {
	Pods int // that must leave
	// Held pods could not be evicted now, Never are those of them that only a person or force lets go.
	Held, Never int
	// Pinned means that a pod needs a volume which only the zone of the node can serve.
	Pinned bool
}

// Assess looks at every pod that is held alone: that some of a workload have to wait while others go
// first makes a node slow to empty, but not hard.
func Assess(s State, volumes Volumes, zone string) Difficulty {
	var out Difficulty
	held := map[types.UID]bool{}
	for _, each := range Decide(s).Held {
		held[each.Pod.UID] = true
	}
	for _, pod := range s.Pods {
		if !MustLeave(pod) {
			continue
		}
		out.Pods++
		if pinned(pod, volumes, zone) {
			out.Pinned = true
		}
		if !held[pod.UID] {
			continue
		}
		alone := s
		alone.Pods = []*corev1.Pod{pod}
		if len(Decide(alone).Held) == 0 {
			continue
		}
		out.Held++
		if slices.ContainsFunc(s.obstacles(pod), func(o obstacle) bool { return o.never }) {
			out.Never++
		}
	}
	return out
}

func pinned(pod *corev1.Pod, volumes Volumes, zone string) bool {
	return slices.ContainsFunc(volumes.of(pod, zone), func(v zonal) bool {
		return zone != "" && slices.Equal(v.zones, []string{zone})
	})
}
