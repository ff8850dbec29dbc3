"""Volumes that come with a result: where the two segmentors differ, and what image alignment made of the volume."""

import slicer
from slicer.i18n import tr as _

from mkd_core.protocol import ALIGNED, DISAGREEMENT, SHOWN_HU

from ..run.volumeTransfer import Overlay, setVolume

_ROLES = {DISAGREEMENT: "MKDSegmentation.Disagreement", ALIGNED: "MKDSegmentation.Aligned"}

#: Grades of disagreement, from a share of the probability on, with their colours: none of them is the colour of a
#: structure. What is below the first is not shown: it is everywhere.
GRADES = ((0.1, (255, 186, 236)), (0.3, (255, 112, 214)), (0.6, (255, 20, 190)))

_COLORS_ATTRIBUTE = "MKDSegmentation.DisagreementColors"
_COLORS = 101
_OPACITY = {DISAGREEMENT: 0.65, ALIGNED: 0.6}  # image and outlines stay readable


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


def showOverlay(kind: str, segmentationNode, volumeNode) -> None:
    """Lay the volume of this kind that belongs to a segmentation over another volume in the slice views."""
    slicer.util.setSliceViewerLayers(
        background=volumeNode, foreground=overlayOf(segmentationNode, kind), foregroundOpacity=_OPACITY[kind]
    )


def hideOverlay(volumeNode) -> None:
    """Lay nothing over a volume in the slice views."""
    slicer.util.setSliceViewerLayers(background=volumeNode, foreground=None, foregroundOpacity=0.0)


def _setDisplay(kind: str, display, modality: str) -> None:
    if kind == DISAGREEMENT:
        display.SetAndObserveColorNodeID(_disagreementColors().GetID())
        display.SetAutoWindowLevel(False)
        display.SetWindowLevelMinMax(0.0, 1.0)
        display.SetThreshold(GRADES[0][0], 1.0)
        display.SetApplyThreshold(True)
    elif modality == "CT":
        display.SetAutoWindowLevel(False)
        display.SetWindowLevelMinMax(*SHOWN_HU)


def _disagreementColors():
    """Return the colour table of the grades, which is made once for each scene."""
    for node in slicer.util.getNodesByClass("vtkMRMLColorTableNode"):
        if node.GetAttribute(_COLORS_ATTRIBUTE):
            return node
    node = slicer.mrmlScene.AddNewNodeByClass(
        "vtkMRMLColorTableNode", slicer.mrmlScene.GenerateUniqueName(_("Disagreement of the segmentors"))
    )
    node.SetAttribute(_COLORS_ATTRIBUTE, "true")
    node.SetTypeToUser()
    node.SetNumberOfColors(_COLORS)
    for index in range(_COLORS):
        share = index / (_COLORS - 1)
        grade = max(0, sum(share >= start for start, _color in GRADES) - 1)
        color = [channel / 255.0 for channel in GRADES[grade][1]]
        node.SetColor(index, f"{share:.2f}", *color, 1.0)
    return node
