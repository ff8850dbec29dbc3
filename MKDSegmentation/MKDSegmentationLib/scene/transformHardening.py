"""Volumes under a non-linear transform: what is seen is not what is stored, and only what is stored can be
segmented.
"""

import slicer
from slicer.i18n import tr as _

from .segmentationWriting import placeBeside


def isUnderNonLinearTransform(volumeNode) -> bool:
    """Tell whether any transform between the volume and the world is non-linear, for example that of a tilted
    gantry.
    """
    transform = volumeNode.GetParentTransformNode() if volumeNode is not None else None
    return transform is not None and not transform.IsTransformToWorldLinear()


def hardenedCopy(volumeNode):
    """Return a new volume node with the voxels resampled as they are seen, under no transform. The volume itself is not
    touched.

    :raises RuntimeError: if Slicer cannot harden the transform; nothing is left in the scene then.
    """
    name = _("{volume} hardened").format(volume=volumeNode.GetName())
    copy = slicer.modules.volumes.logic().CloneVolume(slicer.mrmlScene, volumeNode, name)
    if not copy.HardenTransform():
        slicer.mrmlScene.RemoveNode(copy)
        raise RuntimeError(_("The transform of the volume cannot be hardened."))
    placeBeside(volumeNode, copy)
    return copy
