"""Volumes under a non-linear transform: what is seen is not what is stored, and only what is stored can be
segmented.
"""

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _

from .nodeSelection import placeBeside


def isUnderNonLinearTransform(volumeNode) -> bool:
    """Tell whether any transform between the volume and the world is non-linear, for example that of a tilted
    gantry.
    """
    transform = volumeNode.GetParentTransformNode() if volumeNode is not None else None
    return transform is not None and not transform.IsTransformToWorldLinear()


def volumeScale(node) -> float:
    """Return by which factor the parent transforms of a node change volumes: |det| of their matrix to the world.

    1 without a transform, and under a non-linear one, which has no single factor.
    """
    transform = node.GetParentTransformNode() if node is not None else None
    if transform is None or not transform.IsTransformToWorldLinear():
        return 1.0
    matrix = vtk.vtkMatrix4x4()
    transform.GetMatrixTransformToWorld(matrix)
    return abs(float(np.linalg.det([[matrix.GetElement(row, column) for column in range(3)] for row in range(3)])))


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
