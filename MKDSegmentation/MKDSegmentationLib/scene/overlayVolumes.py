"""Volumes that come with a result: where the two segmentors differ, and what image alignment made of the volume."""

import slicer
from slicer.i18n import tr as _

from mkd_core.protocol import ALIGNED, DISAGREEMENT

from ..run.volumeTransfer import Overlay, setVolume

_ROLES = {DISAGREEMENT: "MKDSegmentation.Disagreement", ALIGNED: "MKDSegmentation.Aligned"}
_FAINTEST = 0.1  # disagreement below this is not shown: it is everywhere


def overlayOf(segmentationNode, kind: str):
    """Return the volume of this kind that belongs to a segmentation, or None."""
    return segmentationNode.GetNodeReference(_ROLES[kind]) if segmentationNode is not None else None


def writeOverlay(kind: str, overlay: Overlay, segmentationNode, volumeNode, modality: str):
    """Put voxels into the segmentation's volume of this kind, which is made if there is none, and return it.

    It lies on the upright grid of the segmentors, under the transform of the volume.

    :param modality: of what the segmentors work on, "CT" or "MR".
    """
    node = overlayOf(segmentationNode, kind)
    if node is None:
        title = _("{segmentation} disagreement") if kind == DISAGREEMENT else _("{segmentation} aligned volume")
        name = slicer.mrmlScene.GenerateUniqueName(title.format(segmentation=segmentationNode.GetName()))
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
        segmentationNode.SetNodeReferenceID(_ROLES[kind], node.GetID())
    with slicer.util.NodeModify(node):
        setVolume(node, overlay.voxels, overlay.ijkToRas)
        node.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
        if node.GetDisplayNode() is None:
            node.CreateDefaultDisplayNodes()
        _setDisplay(kind, node.GetDisplayNode(), modality)
    return node


def removeOverlay(kind: str, segmentationNode) -> None:
    """Remove the volume of an earlier run: it says nothing about the segments of this one."""
    node = overlayOf(segmentationNode, kind)
    if node is not None:
        slicer.mrmlScene.RemoveNode(node)


def showOverlay(node, volumeNode) -> None:
    """Lay a volume over another in the slice views, or nothing if it is None."""
    opacity = 0.6 if node is not None else 0.0
    slicer.util.setSliceViewerLayers(background=volumeNode, foreground=node, foregroundOpacity=opacity)


def _setDisplay(kind: str, display, modality: str) -> None:
    if kind == DISAGREEMENT:
        display.SetAndObserveColorNodeID("vtkMRMLColorTableNodeIron")
        display.SetAutoWindowLevel(False)
        display.SetWindowLevelMinMax(0.0, 1.0)
        display.SetThreshold(_FAINTEST, 1.0)
        display.SetApplyThreshold(True)
    elif modality == "CT":
        display.SetAutoWindowLevel(False)
        display.SetWindowLevelMinMax(-300.0, 700.0)
