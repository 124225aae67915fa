package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	"k8s.io/client-go/tools/cache"
)

const (
	driver                 = "ebs.csi.aws.com"
	attachFinalizer        = "external-attacher/ebs-csi-aws-com"
	selectedNodeAnnotation = "volume.kubernetes.io/selected-node"
	provisionedAnnotation  = "pv.kubernetes.io/provisioned-by"

	// A volume takes its time to come off an instance.
	detachDelay = time.Second
)

// volumes plays the EBS CSI driver with its provisioner and attacher.
type volumes struct {
	session     *session
	informers   []cache.SharedIndexInformer
	claims      corelisters.PersistentVolumeClaimLister
	volumes     corelisters.PersistentVolumeLister
	classes     storagelisters.StorageClassLister
	attachments storagelisters.VolumeAttachmentLister
	csiNodes    storagelisters.CSINodeLister
	drivers     storagelisters.CSIDriverLister
}

func newVolumes(s *session, factory informers.SharedInformerFactory) *volumes {
	core, storage := factory.Core().V1(), factory.Storage().V1()
	return &volumes{
		session:     s,
		claims:      core.PersistentVolumeClaims().Lister(),
		volumes:     core.PersistentVolumes().Lister(),
		classes:     storage.StorageClasses().Lister(),
		attachments: storage.VolumeAttachments().Lister(),
		csiNodes:    storage.CSINodes().Lister(),
		drivers:     storage.CSIDrivers().Lister(),
		informers: []cache.SharedIndexInformer{
			core.PersistentVolumeClaims().Informer(), core.PersistentVolumes().Informer(),
			storage.StorageClasses().Informer(), storage.VolumeAttachments().Informer(),
			storage.CSINodes().Informer(), storage.CSIDrivers().Informer(),
		},
	}
}

func (v *volumes) reconcile(ctx context.Context) error {
	return errors.Join(v.register(ctx), v.provision(ctx), v.reclaim(ctx), v.attach(ctx))
}

// register tells Kubernetes of the driver and on which nodes it runs.
func (v *volumes) register(ctx context.Context) error {
	storage := v.session.client.StorageV1()
	if _, err := v.drivers.Get(driver); apierrors.IsNotFound(err) {
		yes, no := true, false
		_, err := storage.CSIDrivers().Create(ctx, &storagev1.CSIDriver{
			ObjectMeta: metav1.ObjectMeta{Name: driver},
			Spec:       storagev1.CSIDriverSpec{AttachRequired: &yes, PodInfoOnMount: &no},
		}, metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("registering the volume driver: %w", err)
		}
	}
	nodes, err := v.session.nodes.List(labels.Everything())
	if err != nil {
		return err
	}
	limit := int32(25) // volumes an instance takes besides its root and its network interfaces
	for _, node := range nodes {
		if _, err := v.csiNodes.Get(node.Name); err == nil || node.Labels[instanceLabel] == "" {
			continue
		}
		_, err := storage.CSINodes().Create(ctx, &storagev1.CSINode{
			ObjectMeta: metav1.ObjectMeta{
				Name: node.Name,
				// It ends with its node, as that of a kubelet does.
				OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID}},
			},
			Spec: storagev1.CSINodeSpec{Drivers: []storagev1.CSINodeDriver{{
				Name: driver, NodeID: node.Labels[instanceLabel], TopologyKeys: []string{corev1.LabelTopologyZone},
				Allocatable: &storagev1.VolumeNodeResources{Count: &limit},
			}}},
		}, metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("registering the volume driver on node %s: %w", node.Name, err)
		}
	}
	return nil
}

// provision makes volumes for claims whose first pod has been scheduled.
func (v *volumes) provision(ctx context.Context) error {
	claims, err := v.claims.List(labels.Everything())
	if err != nil {
		return err
	}
	var errs []error
	for _, claim := range claims {
		class := v.classOf(claim)
		if class == nil || claim.Spec.VolumeName != "" || claim.DeletionTimestamp != nil || claim.Annotations[selectedNodeAnnotation] == "" {
			continue
		}
		if _, err := v.volumes.Get(volumeName(claim)); err == nil {
			continue // not bound yet
		}
		if err := v.provisionFor(ctx, claim, class); err != nil {
			errs = append(errs, fmt.Errorf("making a volume for claim %s/%s: %w", claim.Namespace, claim.Name, err))
		}
	}
	return errors.Join(errs...)
}

// classOf is the storage class of a claim, if it is one of this driver.
func (v *volumes) classOf(claim *corev1.PersistentVolumeClaim) *storagev1.StorageClass {
	if claim.Spec.StorageClassName == nil {
		return nil
	}
	class, err := v.classes.Get(*claim.Spec.StorageClassName)
	if err != nil || class.Provisioner != driver {
		return nil
	}
	return class
}

func volumeName(claim *corev1.PersistentVolumeClaim) string { return "pvc-" + string(claim.UID) }

func (v *volumes) provisionFor(ctx context.Context, claim *corev1.PersistentVolumeClaim, class *storagev1.StorageClass) error {
	node, err := v.session.nodes.Get(claim.Annotations[selectedNodeAnnotation])
	if apierrors.IsNotFound(err) {
		// Without the annotation the scheduler chooses another node.
		forget := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:null}}}`, selectedNodeAnnotation)
		_, err := v.session.client.CoreV1().PersistentVolumeClaims(claim.Namespace).Patch(ctx, claim.Name, types.MergePatchType, forget, metav1.PatchOptions{})
		return err
	}
	if err != nil {
		return err
	}
	zone := node.Labels[corev1.LabelTopologyZone]
	size := claim.Spec.Resources.Requests[corev1.ResourceStorage]
	id, zone, err := v.session.cloud.createVolume(ctx, v.session.id, claim, zone, size, class.Parameters)
	if err != nil {
		return err
	}
	filesystem := class.Parameters["csi.storage.k8s.io/fstype"]
	if filesystem == "" {
		filesystem = "ext4"
	}
	volume := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{
			Name:        volumeName(claim),
			Annotations: map[string]string{provisionedAnnotation: driver},
		},
		Spec: corev1.PersistentVolumeSpec{
			AccessModes:                   claim.Spec.AccessModes,
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: size},
			StorageClassName:              class.Name,
			MountOptions:                  class.MountOptions,
			PersistentVolumeReclaimPolicy: *class.ReclaimPolicy,
			VolumeMode:                    claim.Spec.VolumeMode,
			ClaimRef: &corev1.ObjectReference{
				APIVersion: "v1", Kind: "PersistentVolumeClaim",
				Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID, ResourceVersion: claim.ResourceVersion,
			},
			PersistentVolumeSource: corev1.PersistentVolumeSource{
				CSI: &corev1.CSIPersistentVolumeSource{Driver: driver, VolumeHandle: id, FSType: filesystem},
			},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{
				NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{
					{Key: corev1.LabelTopologyZone, Operator: corev1.NodeSelectorOpIn, Values: []string{zone}},
				}}},
			}},
		},
	}
	_, err = v.session.client.CoreV1().PersistentVolumes().Create(ctx, volume, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	if err == nil {
		log.Printf("cluster %s: %s in %s is the volume of %s/%s", v.session.id, id, zone, claim.Namespace, claim.Name)
	}
	return err
}

// reclaim deletes volumes whose claim is gone, where their class wants that.
func (v *volumes) reclaim(ctx context.Context) error {
	all, err := v.volumes.List(labels.Everything())
	if err != nil {
		return err
	}
	var errs []error
	for _, volume := range all {
		if volume.Spec.CSI == nil || volume.Spec.CSI.Driver != driver || volume.DeletionTimestamp != nil ||
			volume.Status.Phase != corev1.VolumeReleased || volume.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete {
			continue
		}
		err := v.session.cloud.deleteVolume(ctx, volume.Spec.CSI.VolumeHandle)
		if err == nil {
			err = v.session.client.CoreV1().PersistentVolumes().Delete(ctx, volume.Name, metav1.DeleteOptions{})
		}
		if err != nil && !apierrors.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("deleting volume %s: %w", volume.Name, err))
		}
	}
	return errors.Join(errs...)
}

// attach attaches and detaches as the attach-detach controller wants it.
func (v *volumes) attach(ctx context.Context) error {
	attachments, err := v.attachments.List(labels.Everything())
	if err != nil {
		return err
	}
	var errs []error
	for _, attachment := range attachments {
		if attachment.Spec.Attacher != driver {
			continue
		}
		attachment = attachment.DeepCopy()
		switch gone := attachment.DeletionTimestamp; {
		case gone != nil && time.Since(gone.Time) >= detachDelay:
			err = v.detachOne(ctx, attachment)
		case gone == nil && !attachment.Status.Attached:
			err = v.attachOne(ctx, attachment)
		default:
			continue
		}
		if err != nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("volume attachment %s: %w", attachment.Name, err))
		}
	}
	return errors.Join(errs...)
}

func (v *volumes) attachOne(ctx context.Context, attachment *storagev1.VolumeAttachment) error {
	api := v.session.client.StorageV1().VolumeAttachments()
	if !slices.Contains(attachment.Finalizers, attachFinalizer) {
		attachment.Finalizers = append(attachment.Finalizers, attachFinalizer)
		updated, err := api.Update(ctx, attachment, metav1.UpdateOptions{})
		if err != nil {
			return err
		}
		attachment = updated
	}
	volume, instance, err := v.partners(attachment)
	if err == nil {
		err = v.session.cloud.attachVolume(ctx, volume, instance)
	}
	attachment.Status = storagev1.VolumeAttachmentStatus{Attached: err == nil}
	if err != nil {
		attachment.Status.AttachError = &storagev1.VolumeError{Time: metav1.Now(), Message: err.Error()}
	}
	_, updateErr := api.UpdateStatus(ctx, attachment, metav1.UpdateOptions{})
	return errors.Join(err, updateErr)
}

func (v *volumes) detachOne(ctx context.Context, attachment *storagev1.VolumeAttachment) error {
	if !slices.Contains(attachment.Finalizers, attachFinalizer) {
		return nil
	}
	volume, instance, err := v.partners(attachment)
	// A volume or node that is gone needs no detaching.
	if err == nil {
		if err := v.session.cloud.detachVolume(ctx, volume, instance); err != nil {
			return err
		}
	} else if !apierrors.IsNotFound(err) {
		return err
	}
	attachment.Finalizers = slices.DeleteFunc(attachment.Finalizers, func(f string) bool { return f == attachFinalizer })
	_, err = v.session.client.StorageV1().VolumeAttachments().Update(ctx, attachment, metav1.UpdateOptions{})
	return err
}

// partners are the ids of the EBS volume and of the instance of an attachment.
func (v *volumes) partners(attachment *storagev1.VolumeAttachment) (volumeID, instanceID string, err error) {
	if attachment.Spec.Source.PersistentVolumeName == nil {
		return "", "", errors.New("it names no persistent volume")
	}
	volume, err := v.volumes.Get(*attachment.Spec.Source.PersistentVolumeName)
	if err != nil {
		return "", "", err
	}
	node, err := v.session.nodes.Get(attachment.Spec.NodeName)
	if err != nil {
		return "", "", err
	}
	if volume.Spec.CSI == nil {
		return "", "", fmt.Errorf("volume %s is not one of a CSI driver", volume.Name)
	}
	return volume.Spec.CSI.VolumeHandle, node.Labels[instanceLabel], nil
}
