package kube

import (
	"cmp"
	"context"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-project/fairway/drain"
)

// stillAttached names the volumes that are attached to the node and that no pod uses which stays there.
func (d *drainer) stillAttached(ctx context.Context) ([]string, error) {
	attached := d.view.attachedTo(d.node)
	if len(attached) == 0 {
		return nil, nil
	}
	used := map[string]bool{}
	for _, pod := range d.view.podsOn(d.node) {
		if !drain.UsesStillOnNode(pod) {
			continue
		}
		for _, name := range drain.Claims(pod) {
			claim := types.NamespacedName{Namespace: pod.Namespace, Name: name}
			if d.volumes[claim] == "" {
				volume, err := d.volumeOf(ctx, claim)
				if err != nil {
					return nil, err
				}
				d.volumes[claim] = volume
			}
			used[d.volumes[claim]] = true
		}
	}
	var names []string
	for _, attachment := range attached {
		name := attachment.Name // of one that has its volume inline
		if volume := attachment.Spec.Source.PersistentVolumeName; volume != nil {
			name = cmp.Or(*volume, name)
		}
		if !used[name] {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names[:min(len(names), heldShown)], nil
}

// volumeOf is the volume that a claim is bound to; empty if there is none.
func (d *drainer) volumeOf(ctx context.Context, claim types.NamespacedName) (string, error) {
	found, err := d.cluster.client.CoreV1().PersistentVolumeClaims(claim.Namespace).Get(ctx, claim.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return "", nil
	}
	if err != nil {
		return "", d.cluster.explain("reading volume claim "+claim.String(), err)
	}
	return found.Spec.VolumeName, nil
}
