"""What the slice views show of a result: the volume that was segmented, the heart in their middle, outlines."""

import slicer

from .nodeSelection import volumeOf
from .ourSegments import ourSegments
from .segmentMeasurement import measureSegment

#: Attribute of a segmentation that was shown once: how the user shows it afterwards stays.
_SHOWN_ATTRIBUTE = "MKDSegmentation.WasShown"

#: Singleton tag under which the module Segment Editor keeps its choices.
_EDITOR_TAG = "SegmentEditor"


def showHeart(segmentationNode) -> None:
    """Bring the slice views to a new result: to its volume, if they show another one, and to the middle of the heart.

    The first time a segmentation is shown its segments are outlines, so that the image within can be judged; where a
    user had chosen otherwise for an earlier result in the same node, that stays.
    """
    volumeNode = volumeOf(segmentationNode)
    if volumeNode is None:
        return
    composites = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    if any(node.GetBackgroundVolumeID() != volumeNode.GetID() for node in composites):
        slicer.util.setSliceViewerLayers(background=volumeNode, fit=True)
    display = segmentationNode.GetDisplayNode()
    if display is not None and not segmentationNode.GetAttribute(_SHOWN_ATTRIBUTE):
        display.SetVisibility2DFill(False)
        segmentationNode.SetAttribute(_SHOWN_ATTRIBUTE, "1")
    jumpToHeart(segmentationNode)


def isInView(volumeNode) -> bool:
    """Tell whether one of the slice views of the layout shows a volume."""
    for composite in _compositesInLayout():
        shown = [composite.GetBackgroundVolumeID()]
        if composite.GetForegroundOpacity() > 0.0:
            shown.append(composite.GetForegroundVolumeID())
        if volumeNode.GetID() in shown:
            return True
    return False


def backgroundsInView() -> list:
    """Return the volumes that the slice views of the layout show as their background."""
    ids = dict.fromkeys(composite.GetBackgroundVolumeID() for composite in _compositesInLayout())
    nodes = [slicer.mrmlScene.GetNodeByID(nodeId) for nodeId in ids if nodeId]
    return [node for node in nodes if node is not None]


def _compositesInLayout() -> list:
    inLayout = {
        node.GetLayoutName() for node in slicer.util.getNodesByClass("vtkMRMLSliceNode") if node.IsMappedInLayout()
    }
    composites = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    return [node for node in composites if node.GetLayoutName() in inLayout]


def jumpToHeart(segmentationNode) -> None:
    """Bring the slice views to the middle of our segments."""
    figures = [measureSegment(segmentationNode, segmentId) for segmentId in ourSegments(segmentationNode).values()]
    middles = [one.middle for one in figures if one is not None and one.middle is not None]
    if middles:
        world = [0.0, 0.0, 0.0]
        segmentationNode.TransformPointToWorld([sum(values) / len(middles) for values in zip(*middles)], world)
        jumpTo(world)


def jumpToStructure(segmentationNode, key: str) -> None:
    """Bring the slice views to a structure, if it is there."""
    segmentId = ourSegments(segmentationNode).get(key)
    center = segmentationNode.GetSegmentCenterRAS(segmentId) if segmentId else None
    if center is not None:
        jumpTo(center)


def jumpTo(point) -> None:
    """Bring all slice views to a point in the world, RAS mm."""
    slicer.vtkMRMLSliceNode.JumpAllSlices(slicer.mrmlScene, *point)


def prepareEditor(segmentationNode, segmentId: str, volumeNode) -> None:
    """Let Slicer's Segment Editor begin with a segment and its volume when it is opened."""
    editor = slicer.mrmlScene.GetSingletonNode(_EDITOR_TAG, "vtkMRMLSegmentEditorNode")
    if editor is None:
        editor = slicer.vtkMRMLSegmentEditorNode()
        editor.SetSingletonTag(_EDITOR_TAG)
        editor = slicer.mrmlScene.AddNode(editor)
    with slicer.util.NodeModify(editor):
        editor.SetAndObserveSegmentationNode(segmentationNode)
        editor.SetAndObserveSourceVolumeNode(volumeNode)
        editor.SetSelectedSegmentID(segmentId)
