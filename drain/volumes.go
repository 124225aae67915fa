package drain

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Volumes are the claims and persistent volumes of a cluster.
type Volumes struct {
	Claims     map[types.NamespacedName]*corev1.PersistentVolumeClaim
	Persistent map[string]*corev1.PersistentVolume
}

// Claims names the claims that a pod uses; that of a generic ephemeral volume is named after pod
// and volume (https://kubernetes.io/docs/concepts/storage/ephemeral-volumes/).
func Claims(pod *corev1.Pod) []string {
	names := lastingClaims(pod)
	for _, volume := range pod.Spec.Volumes {
		if volume.Ephemeral != nil {
			names = append(names, pod.Name+"-"+volume.Name)
		}
	}
	return names
}

// lastingClaims names the claims that outlive a pod, so that its successor needs the same volumes.
func lastingClaims(pod *corev1.Pod) []string {
	var names []string
	for _, volume := range pod.Spec.Volumes {
		if volume.PersistentVolumeClaim != nil {
			names = append(names, volume.PersistentVolumeClaim.ClaimName)
		}
	}
	return names
}

// UsesStillOnNode says whether a pod keeps its volumes on the node of a drain that is done: it did
// not have to leave, and has not finished.
func UsesStillOnNode(pod *corev1.Pod) bool { return !MustLeave(pod) && !finished(pod) }

// zonal is a volume of a pod that only some zones can serve.
type zonal struct {
	claim  string // or the volume itself if the pod names it without a claim
	volume string
	zones  []string
}

// of lists the volumes that bind a pod to zones. A pod that names an EBS volume itself is bound to
// the zone that it runs in.
func (v Volumes) of(pod *corev1.Pod, zone string) []zonal {
	var out []zonal
	for _, name := range lastingClaims(pod) {
		claim := v.Claims[types.NamespacedName{Namespace: pod.Namespace, Name: name}]
		if claim == nil {
			continue
		}
		if volume := v.Persistent[claim.Spec.VolumeName]; volume != nil {
			if zones := zonesOf(volume); len(zones) > 0 {
				out = append(out, zonal{name, volume.Name, zones})
			}
		}
	}
	for _, volume := range pod.Spec.Volumes {
		if ebs := volume.AWSElasticBlockStore; ebs != nil && zone != "" {
			out = append(out, zonal{volume.Name, ebs.VolumeID, []string{zone}})
		}
	}
	return out
}

// zoneKeys are the labels by which volumes are bound to zones: the standard one, its predecessor,
// and that of the EBS CSI driver.
var zoneKeys = []string{corev1.LabelTopologyZone, corev1.LabelFailureDomainBetaZone, "topology.ebs.csi.aws.com/zone"}

// zonesOf lists the zones that can serve a volume; none means that it is not bound to any. Its node
// affinity decides, and its labels if that says nothing.
func zonesOf(volume *corev1.PersistentVolume) []string {
	var zones []string
	if affinity := volume.Spec.NodeAffinity; affinity != nil && affinity.Required != nil {
		for _, term := range affinity.Required.NodeSelectorTerms { // one of them has to match
			allowed, bound := zonesOfTerm(term)
			if !bound {
				return nil
			}
			zones = append(zones, allowed...)
		}
	}
	if len(zones) == 0 {
		for _, key := range zoneKeys {
			if zone := volume.Labels[key]; zone != "" {
				return []string{zone}
			}
		}
	}
	slices.Sort(zones)
	return slices.Compact(zones)
}

// zonesOfTerm lists the zones that all expressions of a term allow.
func zonesOfTerm(term corev1.NodeSelectorTerm) (zones []string, bound bool) {
	for _, expression := range term.MatchExpressions {
		if !slices.Contains(zoneKeys, expression.Key) || expression.Operator != corev1.NodeSelectorOpIn {
			continue
		}
		if !bound {
			zones, bound = slices.Clone(expression.Values), true
			continue
		}
		zones = slices.DeleteFunc(zones, func(zone string) bool { return !slices.Contains(expression.Values, zone) })
	}
	return zones, bound
}
