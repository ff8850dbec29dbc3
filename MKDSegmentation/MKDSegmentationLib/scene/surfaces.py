"""Surfaces of segments for the 3D views, made in short steps: all at once takes seconds in which nothing can be
clicked.
"""

import numpy as np
import slicer
import vtk
from vtk.util import numpy_support

from .ourSegments import maskOfLabel
from .segmentMeasurement import imageToWorld

_BINARY = slicer.vtkSegmentationConverter.GetBinaryLabelmapRepresentationName()
_SURFACE = slicer.vtkSegmentationConverter.GetClosedSurfaceRepresentationName()

#: Size of the voxels that surfaces are made of, mm: finer ones take several times as long, in which nothing can be
#: clicked, and look the same.
_VOXEL_MM = 1.25

#: Conversion parameter of Slicer: 0 leaves the steps of the voxels, 1 is smoothest.
_SMOOTHING = "Smoothing factor"


def hasSurfaces(segmentationNode) -> bool:
    """Tell whether a segmentation has surfaces that a 3D view shows."""
    return segmentationNode is not None and segmentationNode.GetSegmentation().ContainsRepresentation(_SURFACE)


def canHaveSurfaces(segmentationNode) -> bool:
    """Tell whether surfaces of a segmentation can be made and taken away: where it is made of them, neither."""
    segmentation = segmentationNode.GetSegmentation() if segmentationNode is not None else None
    return (
        segmentation is not None
        and segmentation.GetNumberOfSegments() > 0
        and segmentation.GetSourceRepresentationName() == _BINARY
    )


def is3DViewShown() -> bool:
    """Tell whether the layout has a 3D view."""
    return any(view.IsMappedInLayout() for view in slicer.util.getNodesByClass("vtkMRMLViewNode"))


def smoothingOf(segmentationNode) -> float:
    """Return how much the surfaces of a segmentation are smoothed, 0 to 1; the same value is set by the menu of "Show
    3D" in the Segment Editor.
    """
    try:
        return float(segmentationNode.GetSegmentation().GetConversionParameter(_SMOOTHING))
    except ValueError:
        return 0.5


def setSmoothing(segmentationNode, factor: float) -> None:
    """Set how much surfaces are smoothed, 0 to 1; those that are there stay until they are made anew."""
    segmentationNode.GetSegmentation().SetConversionParameter(_SMOOTHING, f"{factor:.2f}")


def removeSurfaces(segmentationNode) -> None:
    """Take the surfaces of a segmentation away."""
    segmentationNode.GetSegmentation().RemoveRepresentation(_SURFACE)


def surfaceSteps(segmentationNode):
    """Make the surfaces of all segments and let the 3D views show them; a generator with a step for each segment.

    Surfaces that are there are replaced at the end. A segment that is edited meanwhile is made again.
    """
    made = yield from surfacesInSteps(segmentationNode)
    if not canHaveSurfaces(segmentationNode):
        return
    segmentation = segmentationNode.GetSegmentation()
    with slicer.util.NodeModify(segmentationNode):
        for segmentId, surface in made.items():
            segmentation.GetSegment(segmentId).AddRepresentation(_SURFACE, surface)
        if segmentationNode.GetDisplayNode() is not None:
            segmentationNode.GetDisplayNode().SetPreferredDisplayRepresentationName3D(_SURFACE)
            segmentationNode.GetDisplayNode().SetPreferredDisplayRepresentationName2D(_BINARY)
        segmentationNode.Modified()  # views look again at the surfaces of all segments
    segmentation.InvokeEvent(slicer.vtkSegmentation.ContainedRepresentationNamesModified)


def surfacesInSteps(segmentationNode, isFine: bool = False):
    """Make the surfaces of all segments, in the frame of the segmentation; a generator with some steps for each segment
    that returns vtkPolyData by the ids of the segments. The segmentation does not change.

    :param isFine: True makes them of all voxels, also where these are finer than a view needs.
    """
    states, made = {}, {}
    while True:
        ids = _segmentIds(segmentationNode)
        waiting = [one for one in ids if states.get(one) != _stateOf(segmentationNode, one)]
        if not waiting:
            return {segmentId: made[segmentId] for segmentId in ids}
        states[waiting[0]] = _stateOf(segmentationNode, waiting[0])
        made[waiting[0]] = yield from _making(segmentationNode, waiting[0], isFine)
        yield


def _segmentIds(segmentationNode) -> list:
    if not canHaveSurfaces(segmentationNode):
        return []
    segmentation = segmentationNode.GetSegmentation()
    return [segmentation.GetNthSegmentID(index) for index in range(segmentation.GetNumberOfSegments())]


def _stateOf(segmentationNode, segmentId: str) -> tuple:
    """Return what changes when the surface of a segment must be made again."""
    segment = segmentationNode.GetSegmentation().GetSegment(segmentId)
    image = segment.GetRepresentation(_BINARY)
    return (
        image.GetMTime() if image is not None else 0,
        segment.GetLabelValue(),
        segmentationNode.GetSegmentation().SerializeAllConversionParameters(),
    )


def _making(segmentationNode, segmentId: str, isFine: bool):
    """Make the surface that Slicer makes of a segment: of its own box alone, for a label map holds all segments. A
    generator of short steps that returns it.
    """
    source = segmentationNode.GetSegmentation()
    image = yield from _boxSteps(source.GetSegment(segmentId), isFine)
    if image is None:
        return vtk.vtkPolyData()
    segment = slicer.vtkSegment()
    segment.AddRepresentation(_BINARY, image)
    segment.SetLabelValue(1)
    alone = slicer.vtkSegmentation()
    alone.SetSourceRepresentationName(_BINARY)
    alone.CopyConversionParameters(source)
    alone.AddSegment(segment, segmentId)
    alone.CreateRepresentation(_SURFACE)
    return segment.GetRepresentation(_SURFACE) or vtk.vtkPolyData()


def _boxSteps(segment, isFine: bool):
    """Take the voxels of a segment as an image that ends where they end; a generator of short steps that returns it,
    None without voxels.
    """
    image = segment.GetRepresentation(_BINARY)
    scalars = image.GetPointData().GetScalars() if image is not None else None
    if scalars is None or image.GetNumberOfPoints() == 0:
        return None
    extent, spacing, toWorld = image.GetExtent(), image.GetSpacing(), imageToWorld(image)
    labels = numpy_support.vtk_to_numpy(scalars).reshape(image.GetDimensions()[::-1])
    box, mask = maskOfLabel(labels, segment.GetLabelValue())
    if box is None:
        return None
    yield
    steps = [1 if isFine else max(1, round(_VOXEL_MM / size)) for size in spacing]
    first = [start + side.start for start, side in zip(extent[::2], reversed(box))]
    toFirst = np.diag([*steps, 1.0])
    toFirst[:3, 3] = [start + (step - 1) / 2 for start, step in zip(first, steps)]
    if max(steps) > 1:
        mask = _coarsened(mask, steps[::-1])
        yield
    inBox = slicer.vtkOrientedImageData()
    inBox.SetDimensions(mask.shape[::-1])
    inBox.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    numpy_support.vtk_to_numpy(inBox.GetPointData().GetScalars())[:] = mask.ravel()
    geometry = vtk.vtkMatrix4x4()
    geometry.DeepCopy((toWorld @ toFirst).ravel().tolist())
    inBox.SetGeometryFromImageToWorldMatrix(geometry)
    return inBox


def _coarsened(mask: np.ndarray, steps: list) -> np.ndarray:
    """Return a mask of blocks of voxels: those of which half are in it."""
    counts = np.pad(mask, [(0, -size % step) for size, step in zip(mask.shape, steps)]).astype(np.uint16)
    for axis, step in enumerate(steps):  # plane to plane: several times as fast as the mean of a reshaped array
        along = np.moveaxis(counts, axis, 0)
        counts = np.moveaxis(sum((along[start::step] for start in range(1, step)), along[::step]), 0, axis)
    return 2 * counts.astype(np.uint32) >= np.prod(steps)
