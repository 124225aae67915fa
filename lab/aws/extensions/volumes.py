"""EBS: a volume can be attached to one running instance in its zone; moto attaches anything."""

from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import elastic_block_store as models

from . import extends

_attach = models.EBSBackend.attach_volume


@extends(models.EBSBackend)
class Volumes:
    def attach_volume(self, volume_id, instance_id, device_path, delete_on_termination=False):
        volume = self.get_volume(volume_id)
        instance = self.get_instance(instance_id)
        if volume.attachment:
            raise EC2ClientError("VolumeInUse", f"{volume_id} is already attached to an instance")
        if instance.state not in ("pending", "running", "stopped"):
            raise EC2ClientError("IncorrectState", f"Instance '{instance_id}' is not 'running'.")
        if volume.availability_zone != instance.placement.zone:
            raise EC2ClientError(
                "InvalidVolume.ZoneMismatch",
                f"The volume '{volume_id}' is not in the same availability zone as instance '{instance_id}'",
            )
        return _attach(self, volume_id, instance_id, device_path, delete_on_termination)
