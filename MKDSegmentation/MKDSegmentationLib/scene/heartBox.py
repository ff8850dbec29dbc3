"""The box round the heart that the user draws as a markups ROI."""

from slicer.i18n import tr as _

_VOLUME_ROLE = "MKDSegmentation.Volume"

#: Longest side of a new box, mm: it holds the heart of an adult with the great vessels.
_NEW_BOX_MM = 150.0


def boxOf(roiNode) -> tuple | None:
    """Return the bounds (x0, x1, y0, y1, z0, z1) of a markups ROI node in the world, LPS mm; None if there is no box.

    Parent transforms count, as they do in the views. The bounds of a rotated box are those that enclose it.
    """
    if roiNode is None or not _isDrawn(roiNode):
        return None
    bounds = [0.0] * 6
    roiNode.GetRASBounds(bounds)
    left, right, back, front, low, high = bounds  # RAS: R and A grow where L and P fall
    return -right, -left, -front, -back, low, high


def reasonBoxCannotBeUsed(roiNode) -> str:
    """Return why nothing can be segmented inside a markups ROI node, one sentence; empty if it can or there is none."""
    if roiNode is None or _isDrawn(roiNode):
        return ""
    text = _("The box “{name}” is not drawn yet. Draw it round the heart, or choose none under Advanced > Heart box.")
    return text.format(name=roiNode.GetName())


def isBoxOfAnother(roiNode, volumeNode) -> bool:
    """Tell whether a box was chosen for another volume; the scene file keeps for which."""
    return roiNode is not None and roiNode.GetNodeReference(_VOLUME_ROLE) is not volumeNode


def keepForVolume(roiNode, volumeNode) -> None:
    """Remember that a box was chosen for a volume."""
    if isBoxOfAnother(roiNode, volumeNode):
        roiNode.SetNodeReferenceID(_VOLUME_ROLE, volumeNode.GetID() if volumeNode is not None else None)


def placeInVolume(roiNode, volumeNode) -> None:
    """Draw a new box in the middle of a volume, for the user to drag round the heart; a box that is drawn stays."""
    if _isDrawn(roiNode):
        return
    bounds = [0.0] * 6
    volumeNode.GetRASBounds(bounds)
    low, high = bounds[::2], bounds[1::2]
    roiNode.SetCenterWorld(*((first + last) / 2 for first, last in zip(low, high, strict=True)))
    roiNode.SetSizeWorld(*(min(last - first, _NEW_BOX_MM) for first, last in zip(low, high, strict=True)))
    roiNode.CreateDefaultDisplayNodes()


def _isDrawn(roiNode) -> bool:
    return roiNode.GetNumberOfDefinedControlPoints() > 0 and min(roiNode.GetSize()) > 0.0
