"""Which nodes the panel proposes, so that a usual run takes one click."""

import slicer

from .provenance import reportOf


def preferredVolume():
    """Return the volume shown in the slice views if it is suitable, else the first one of the scene, else None."""
    shown = slicer.mrmlScene.GetNodeByID(slicer.app.applicationLogic().GetSelectionNode().GetActiveVolumeID() or "")
    if shown is not None and shown.GetClassName() == "vtkMRMLScalarVolumeNode":
        return shown
    return slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")


def segmentationOf(volumeNode, candidate=None):
    """Return the segmentation that belongs to a volume.

    :param volumeNode: scalar volume node or None.
    :param candidate: segmentation node; returned unless it was made on another volume.
    :return: the candidate, else a segmentation that this module made of the volume, else None.
    """
    role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    if candidate is not None and candidate.GetNodeReference(role) in (None, volumeNode):
        return candidate
    for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        if reportOf(node) and volumeNode is not None and node.GetNodeReference(role) is volumeNode:
            return node
    return None
