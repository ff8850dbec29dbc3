"""Which nodes belong together: what the panel proposes, and what is shown over the slices of a volume."""

import logging

import slicer

from .provenance import hasReport, reportOf

_HIDDEN_ATTRIBUTE = "MKDSegmentation.HiddenWithItsVolume"


def preferredVolume():
    """Return the volume shown in the slice views if it is suitable, else the first one of the scene, else None."""
    shown = slicer.mrmlScene.GetNodeByID(slicer.app.applicationLogic().GetSelectionNode().GetActiveVolumeID() or "")
    if shown is not None and shown.GetClassName() == "vtkMRMLScalarVolumeNode":
        return shown
    return slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")


def volumeOf(segmentationNode):
    """Return the volume node that a segmentation was made on, or None."""
    if segmentationNode is None:
        return None
    return segmentationNode.GetNodeReference(segmentationNode.GetReferenceImageGeometryReferenceRole())


def segmentationOf(volumeNode, candidate=None):
    """Return the segmentation that belongs to a volume.

    :param volumeNode: scalar volume node or None.
    :param candidate: segmentation node; returned unless it was made on another volume.
    :return: the candidate, else a segmentation that this module made of the volume, else None.
    """
    if candidate is not None and volumeOf(candidate) in (None, volumeNode):
        return candidate
    for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        if reportOf(node) and volumeNode is not None and volumeOf(node) is volumeNode:
            return node
    return None


def showOnlyThoseOf(volumeNode) -> None:
    """Hide our segmentations of other volumes, whose outlines would be taken for this one's, and show again what was
    hidden so. What the user hid stays hidden.

    :param volumeNode: volume node; None changes nothing.
    """
    scene = volumeNode.GetScene() if volumeNode is not None else None
    if scene is None:
        return
    count = scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode")
    for node in [scene.GetNthNodeByClass(index, "vtkMRMLSegmentationNode") for index in range(count)]:
        display, volume = node.GetDisplayNode(), volumeOf(node)
        if display is None or volume is None or not hasReport(node):
            continue
        if volume is not volumeNode and display.GetVisibility():
            display.SetVisibility(False)
            node.SetAttribute(_HIDDEN_ATTRIBUTE, "1")
        elif volume is volumeNode and node.GetAttribute(_HIDDEN_ATTRIBUTE):
            display.SetVisibility(True)
            node.RemoveAttribute(_HIDDEN_ATTRIBUTE)


def placeBeside(volumeNode, segmentationNode) -> None:
    """Put a segmentation into the folder of the subject hierarchy that its volume is in."""
    hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
    if hierarchy is None:
        return
    volumeItem = hierarchy.GetItemByDataNode(volumeNode)
    segmentationItem = hierarchy.GetItemByDataNode(segmentationNode)
    if volumeItem and segmentationItem:
        hierarchy.SetItemParent(segmentationItem, hierarchy.GetItemParent(volumeItem))
    else:
        logging.debug("The subject hierarchy has no item for the volume or its segmentation.")
