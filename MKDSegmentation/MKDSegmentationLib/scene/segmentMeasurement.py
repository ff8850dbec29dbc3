"""What our segments measure as they are now: the only place where figures that are shown come from.

The report of a run says how a segmentation was made and what to doubt. Figures are not taken from it, because segments
can be edited, deleted and moved afterwards.
"""

import collections
from dataclasses import dataclass, replace

import numpy as np
import slicer
import vtk
from vtk.util import numpy_support

from mkd_core.protocol import Report
from mkd_core.structures import BY_KEY, MYOCARDIUM_DENSITY

from ..run.volumeTransfer import LabelBlock, ijkToRas
from .ourSegments import Fingerprint, isEdited, maskOfLabel, ourSegments
from .provenance import reportOf
from .transformHardening import isUnderNonLinearTransform, volumeScale

#: States of a structure in a current report that is no longer as the run left it.
EDITED, DELETED = "edited", "deleted"

_BINARY = slicer.vtkSegmentationConverter.GetBinaryLabelmapRepresentationName()
_ON_GRID = 1e-3  # voxels; grids that differ by less are the same
_LARGEST_SEEN = 64 * 1024 * 1024  # bytes of a label map of which a copy is kept
_BYTES_AT_ONCE = 8 * 1024 * 1024  # of label maps, looked at in one step
_CACHED = 5000  # measurements of segments that are kept: thirteen of each of some 90 frames, as written and as shown


@dataclass(frozen=True)
class SegmentFigures:
    """Figures of one segment.

    volumeMl - in ml of the frame of the segmentation, without its parent transforms.
    meanIntensity - of the volume's voxels in it; None where there are none, or no volume.
    touchesBorder - it reaches the outermost voxels of the volume, so part of it may be cut off.
    fingerprint - of its voxels.
    middle - of the box that holds it, in mm in the frame of the segmentation; None where there are no voxels.
    """

    volumeMl: float
    meanIntensity: float | None
    touchesBorder: bool
    fingerprint: Fingerprint
    middle: tuple | None = None


_NOTHING = SegmentFigures(0.0, None, False, Fingerprint(0, 0, (0.0, 0.0, 0.0)))


_measured: dict = {}  # what a segment and a volume were when they were measured -> figures


@dataclass(frozen=True)
class _SeenLabelmap:
    """The voxels of a label map whose segments were measured.

    state - of the label map then (see _stateOfImage).
    labels - array (k, j, i).
    start - index (k, j, i) of its first voxel.
    """

    state: tuple
    labels: np.ndarray
    start: tuple


_seen: collections.deque = collections.deque(maxlen=3)  # before an edit and after it, as shown and as kept in a frame


def measureSegment(segmentationNode, segmentId: str, volumeNode=None) -> SegmentFigures | None:
    """Return the figures of a segment, None where it has no voxels to count because it is kept as a surface.

    A segment that did not change since it was measured is not measured again.

    :param volumeNode: scalar volume node that gives the intensities; None measures the volume alone.
    """
    if segmentationNode.GetSegmentation().GetSourceRepresentationName() != _BINARY:
        return None
    image = labelmapOf(segmentationNode, segmentId)
    if image is None:
        return _NOTHING
    toVolume = _matrixToVolume(segmentationNode, image, volumeNode)
    labelValue = segmentationNode.GetSegmentation().GetSegment(segmentId).GetLabelValue()
    state = _state(image, labelValue, volumeNode, toVolume)
    if state not in _measured:
        voxels = slicer.util.arrayFromVolume(volumeNode) if toVolume is not None else None
        figures = _measure(_voxelsOf(image), labelValue, _startOf(image), imageToWorld(image), voxels, toVolume)
        _keepAll(image, labelValue, volumeNode, toVolume, figures)
    return _measured[state]


def unchangedSteps(segmentationNode):
    """Take over the figures of segments of ours that are unchanged in a label map of which something changed; a
    generator of short steps.

    Most segments share a label map, and what Slicer tells of an edit of one is that the label map changed. To compare
    it with what it was takes a fraction of the time of measuring all its segments.
    """
    if segmentationNode.GetSegmentation().GetSourceRepresentationName() != _BINARY:
        return
    images = [labelmapOf(segmentationNode, segmentId) for segmentId in ourSegments(segmentationNode).values()]
    shared = {_stateOfImage(image): image for image in images if image is not None and images.count(image) > 1}
    for state, image in shared.items():
        if any(seen.state == state for seen in _seen):
            continue
        voxels, first = _voxelsOf(image), _startOf(image)  # the image may get others between two steps
        box = yield from _boxSteps(voxels)
        if box is None:
            continue
        labels, start = voxels[box], tuple(side.start + offset for side, offset in zip(box, first))
        unchanged = {}
        for seen in list(_seen):
            known = {key[3:]: figures for key, figures in _measured.items() if key[:3] == seen.state}
            if known and seen.state[2] == state[2]:
                changed = yield from differingSteps(seen.labels, seen.start, labels, start)
                unchanged |= {rest: figures for rest, figures in known.items() if rest[0] not in changed}
        yield
        if image.GetPointData().GetScalars() is None or _stateOfImage(image) != state:
            continue  # changed meanwhile: its turn comes
        for rest, figures in unchanged.items():
            _keep(state + rest, figures)
        _remember(state, labels, start)
        yield


def _remember(state: tuple, labels: np.ndarray, start: tuple) -> None:
    """Keep a copy of the voxels of a label map, if it is not too large, to compare later ones with."""
    if labels.nbytes <= _LARGEST_SEEN and all(seen.state != state for seen in _seen):
        _seen.append(_SeenLabelmap(state, labels.copy(), start))


def _pieces(count: int, labels: np.ndarray):
    """Yield slices of so many planes of an array as are looked at in one step."""
    step = max(1, _BYTES_AT_ONCE // max(1, labels[:1].nbytes))
    for first in range(0, count, step):
        yield slice(first, min(first + step, count))


def _boxSteps(labels: np.ndarray):
    """Find the smallest box that holds all labels of an array (k, j, i); a generator of short steps that returns its
    slices, None where there are none.
    """
    occupied = [np.zeros(size, bool) for size in labels.shape]
    for planes in _pieces(len(labels), labels):
        for index, plane in enumerate(labels[planes], start=planes.start):
            inRow = plane.any(axis=1)
            if inRow.any():
                occupied[0][index] = True
                occupied[1] |= inRow
                occupied[2] |= plane.any(axis=0)
        yield
    if not occupied[0].any():
        return None
    ends = [np.flatnonzero(inside)[[0, -1]].tolist() for inside in occupied]
    return tuple(slice(first, last + 1) for first, last in ends)


def differingSteps(first: np.ndarray, firstStart: tuple, second: np.ndarray, secondStart: tuple):
    """Find the labels, without 0, whose voxels are not the same in two arrays of labels (k, j, i) on one grid; a
    generator of short steps that returns them.

    :param firstStart, secondStart: indices (k, j, i) of their first voxels on that grid.
    """
    low = np.maximum(firstStart, secondStart)
    high = np.minimum(np.add(firstStart, first.shape), np.add(secondStart, second.shape))
    size, found, common = np.maximum(high - low, 0), set(), []
    for labels, start in ((first, firstStart), (second, secondStart)):
        for axis, (begin, length) in enumerate(zip((low - start).tolist(), size.tolist())):
            along = np.moveaxis(labels, axis, 0)
            for outside in (along[:begin], along[begin + length :]):  # of the other array
                for planes in _pieces(len(outside), outside):
                    if outside[planes].any():
                        found.update(_labelsIn(outside[planes]))
                    yield
            labels = np.moveaxis(along[begin : begin + length], 0, axis)
        common.append(labels)
    for planes in _pieces(int(size[0]), common[0]):
        for one, other in zip(common[0][planes], common[1][planes]):  # what fits into the processor's cache
            differs = one != other
            if differs.any():
                found.update(_labelsIn(one[differs]), _labelsIn(other[differs]))
        yield
    return frozenset(found - {0})


def _labelsIn(labels: np.ndarray) -> list:
    """Return the values in an array."""
    if labels.dtype != np.uint8:
        return np.unique(labels).tolist()
    isThere = np.zeros(256, bool)  # many times as fast
    isThere[labels] = True
    return np.flatnonzero(isThere).tolist()


def _voxelsOf(image) -> np.ndarray:
    """Return the voxels (k, j, i) of a label map."""
    return numpy_support.vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[::-1])


def _startOf(image) -> tuple:
    """Return the index (k, j, i) of the first voxel of a label map."""
    return tuple(image.GetExtent()[4::-2])


def figuresInSteps(labels: LabelBlock, structures, volumeNode):
    """Measure structures before they are segments; a generator with a step for each that returns their figures by
    label, without those that have no voxels.

    :param labels: block of the volume's grid.
    :param structures: what the label values mean, see mkd_core.structures.
    """
    figures = {}
    for structure in structures:
        measured = _measure(
            labels.values,
            structure.label,
            labels.start,
            ijkToRas(volumeNode),
            slicer.util.arrayFromVolume(volumeNode),
            np.eye(4),
        )
        if measured.fingerprint.count:
            figures[structure.label] = measured
        yield
    return figures


def keepFigures(segmentationNode, segmentId: str, volumeNode, figures: SegmentFigures) -> None:
    """Remember the figures of a segment that was made of voxels whose figures are known."""
    image = labelmapOf(segmentationNode, segmentId)
    labelValue = segmentationNode.GetSegmentation().GetSegment(segmentId).GetLabelValue()
    toVolume = _matrixToVolume(segmentationNode, image, volumeNode)
    _keepAll(image, labelValue, volumeNode, toVolume, figures)
    _remember(_stateOfImage(image), _voxelsOf(image), _startOf(image))


def takeFigures(segmentationNode, other) -> None:
    """Remember for a copy of a segmentation what is known of the voxels of the other one."""
    for segmentId in ourSegments(other).values():
        figures = measureSegment(other, segmentId)
        if figures is not None and figures.fingerprint.count:
            keepFigures(segmentationNode, segmentId, None, figures)


def _keepAll(image, labelValue: int, volumeNode, toVolume, figures: SegmentFigures) -> None:
    """Keep figures, and the same without intensities, which is asked for when edits are looked for."""
    if toVolume is not None:
        _keep(_state(image, labelValue, volumeNode, toVolume), figures)
    _keep(_state(image, labelValue, None, None), replace(figures, meanIntensity=None, touchesBorder=False))


def _keep(state: tuple, figures: SegmentFigures) -> None:
    while len(_measured) >= _CACHED:
        del _measured[next(iter(_measured))]
    _measured[state] = figures


def voxelsToMeasure(segmentationNode, segmentIds=None) -> int:
    """Return how many voxels must be looked at to measure segments without intensities: none if that was done.

    :param segmentIds: of the segments; None for all of ours.
    """
    if segmentationNode is None or segmentationNode.GetSegmentation().GetSourceRepresentationName() != _BINARY:
        return 0
    count = 0
    for segmentId in ourSegments(segmentationNode).values() if segmentIds is None else segmentIds:
        image = labelmapOf(segmentationNode, segmentId)
        labelValue = segmentationNode.GetSegmentation().GetSegment(segmentId).GetLabelValue()
        if image is not None and _state(image, labelValue, None, None) not in _measured:
            count += image.GetNumberOfPoints()
    return count


def labelmapOf(segmentationNode, segmentId: str):
    """Return the label map that holds a segment, maybe with others; None where there are no voxels."""
    image = segmentationNode.GetBinaryLabelmapInternalRepresentation(segmentId)
    isEmpty = image is None or image.GetNumberOfPoints() == 0 or image.GetPointData().GetScalars() is None
    return None if isEmpty else image


def _state(image, labelValue: int, volumeNode, toVolume) -> tuple:
    """Return what changes when the figures of a segment may change."""
    state = (*_stateOfImage(image), labelValue)
    if toVolume is None:
        return state
    voxels = volumeNode.GetImageData()
    return state + (voxels.GetMTime(), voxels.GetPointData().GetScalars().GetMTime(), toVolume.tobytes())


def _stateOfImage(image) -> tuple:
    """Return what changes when a label map may change. Every modification of any object of VTK has a time of its own,
    so the times say which voxels were looked at.
    """
    return image.GetMTime(), image.GetPointData().GetScalars().GetMTime(), imageToWorld(image).tobytes()


def currentReport(segmentationNode, volumeNode=None, scale: float | None = None) -> Report | None:
    """Return the report of a run with the figures of the segments as they are now; None for a node that is not ours.

    An entry has "state" if its segment was edited or deleted, and then neither agreement nor warnings: those were about
    what the run had made. It has "name" if the user calls it otherwise.

    :param volumeNode: see measureSegment.
    :param scale: factor of the parent transforms on volumes; None takes that of the node.
    """
    report = reportOf(segmentationNode)
    if report is None:
        return None
    scale = volumeScale(segmentationNode) if scale is None else scale
    ours = ourSegments(segmentationNode)
    reported = report["structures"]
    structures = {}
    for key in BY_KEY:
        if key in ours:
            structures[key] = _entry(segmentationNode, key, ours[key], reported.get(key, {}), volumeNode, scale)
        elif key in reported:
            structures[key] = _missing(reported[key])
    return {**report, "structures": structures}


def editedStructures(segmentationNode) -> list:
    """Return the keys of our segments whose voxels are not as they were written."""
    report = reportOf(segmentationNode)
    edited, reported = [], report["structures"] if report else {}
    for key, segmentId in ourSegments(segmentationNode).items():
        figures = measureSegment(segmentationNode, segmentId)
        if figures is not None and _isEdited(segmentationNode, segmentId, figures, reported.get(key, {})):
            edited.append(key)
    return edited


def _isEdited(segmentationNode, segmentId: str, figures: SegmentFigures, reported: dict) -> bool:
    segment = segmentationNode.GetSegmentation().GetSegment(segmentId)
    return isEdited(segment, figures.fingerprint, figures.volumeMl, reported.get("volume_ml"))


def editedNames(segmentationNode) -> list:
    """Return what the user calls our segments whose voxels are not as they were written."""
    ours = ourSegments(segmentationNode)
    return [
        segmentationNode.GetSegmentation().GetSegment(ours[key]).GetName() for key in editedStructures(segmentationNode)
    ]


def voxelState(segmentationNode, segmentIds) -> dict:
    """Return what can be compared later to tell whether segments were edited meanwhile, by their ids."""
    figures = {segmentId: measureSegment(segmentationNode, segmentId) for segmentId in segmentIds}
    return {segmentId: one.fingerprint if one is not None else None for segmentId, one in figures.items()}


def _entry(segmentationNode, key: str, segmentId: str, reported: dict, volumeNode, scale: float) -> dict:
    figures = measureSegment(segmentationNode, segmentId, volumeNode)
    if figures is None:
        entry = {"volume_ml": None, "mean_intensity": None, "agreement": None, "warnings": [], "state": EDITED}
    else:
        entry = {**reported}
        if _isEdited(segmentationNode, segmentId, figures, reported):
            entry = {"agreement": None, "warnings": [], "state": EDITED}
        entry["volume_ml"] = figures.volumeMl * scale
        entry["touches_border"] = figures.touchesBorder
        entry["mean_intensity"] = figures.meanIntensity
        if not BY_KEY[key].is_blood:
            entry["mass_g"] = entry["volume_ml"] * MYOCARDIUM_DENSITY
    name = segmentationNode.GetSegmentation().GetSegment(segmentId).GetName()
    return entry | ({"name": name} if name != BY_KEY[key].name else {})


def _missing(reported: dict) -> dict:
    """Return the entry of a structure without a segment: the run did not find it, or the user deleted it."""
    if not reported.get("volume_ml"):
        return reported
    return {"volume_ml": None, "mean_intensity": None, "agreement": None, "warnings": [], "state": DELETED}


def _measure(labels: np.ndarray, label: int, start: tuple, toWorld: np.ndarray, voxels, toVolume) -> SegmentFigures:
    """Measure a label.

    :param labels: array (k, j, i).
    :param start: index (k, j, i) of its first voxel.
    :param toWorld: 4 x 4 matrix from indices (i, j, k) to mm in the frame of the segmentation.
    :param voxels: array (k, j, i) of the volume that gives the intensities, or None.
    :param toVolume: 4 x 4 matrix from indices (i, j, k) to those of that volume, or None.
    """
    box, mask = maskOfLabel(labels, label)
    if box is None:
        return _NOTHING
    start = tuple(side.start + offset for side, offset in zip(box, start))
    fingerprint = Fingerprint.of(mask, start, toWorld)
    voxelMl = abs(float(np.linalg.det(toWorld[:3, :3]))) / 1000.0
    mean, touchesBorder = None, False
    if toVolume is not None:
        mean, touchesBorder = _inVolume(mask, start, voxels, toVolume)
    middle = toWorld @ [*(np.array(start) + (np.array(mask.shape) - 1) / 2)[::-1], 1.0]
    return SegmentFigures(
        fingerprint.count * voxelMl, mean, touchesBorder, fingerprint, tuple(float(value) for value in middle[:3])
    )


def _inVolume(mask: np.ndarray, start: tuple, voxels: np.ndarray, toVolume: np.ndarray) -> tuple:
    """Return the mean of the volume's voxels in a mask, and whether the mask reaches the outermost ones.

    :param start: index (k, j, i) of the mask's first voxel on its own grid.
    :param toVolume: 4 x 4 matrix from indices (i, j, k) there to those of the volume.
    """
    shift = np.round(toVolume[:3, 3]).astype(int)[::-1]
    moved = np.array(start) + shift
    isSameGrid = np.abs(toVolume - np.round(toVolume)).max() < _ON_GRID and np.allclose(
        toVolume[:3, :3], np.eye(3), rtol=0.0, atol=_ON_GRID
    )
    if isSameGrid and (moved >= 0).all() and (moved + mask.shape <= voxels.shape).all():
        values = voxels[tuple(slice(low, low + size) for low, size in zip(moved, mask.shape))][mask]
        reaches = (moved == 0).any() or (moved + mask.shape == voxels.shape).any()
        return _mean(values), bool(reaches)
    points = np.argwhere(mask) + start
    indices = np.round(points[:, ::-1] @ toVolume[:3, :3].T + toVolume[:3, 3]).astype(int)[:, ::-1]
    last = np.array(voxels.shape) - 1
    isInside = ((indices >= 0) & (indices <= last)).all(axis=1)
    reaches = not isInside.all() or bool(((indices == 0) | (indices == last)).any())
    values = voxels[tuple(indices[isInside].T)]
    return _mean(values), reaches


def _mean(values: np.ndarray) -> float | None:
    """Return the mean, None where there are no values or no finite one."""
    mean = float(values.mean(dtype=np.float64)) if values.size else np.nan
    return mean if np.isfinite(mean) else None


def _matrixToVolume(segmentationNode, image, volumeNode):
    """Return the 4 x 4 matrix from voxel indices (i, j, k) of a label map to those of the volume, None without one.

    Under a common parent transform the two lie to each other as they are stored, however the transform bends them.
    """
    voxels = volumeNode.GetImageData() if volumeNode is not None else None
    if voxels is None or voxels.GetPointData().GetScalars() is None or voxels.GetNumberOfScalarComponents() != 1:
        return None
    matrix = vtk.vtkMatrix4x4()
    volumeNode.GetRASToIJKMatrix(matrix)
    own, others = segmentationNode.GetParentTransformNode(), volumeNode.GetParentTransformNode()
    between = np.eye(4)
    if own is not others and segmentationNode.GetScene() is volumeNode.GetScene():
        if isUnderNonLinearTransform(segmentationNode) or isUnderNonLinearTransform(volumeNode):
            return None
        between = np.linalg.inv(transformToWorld(others)) @ transformToWorld(own)
    return slicer.util.arrayFromVTKMatrix(matrix) @ between @ imageToWorld(image)


def transformToWorld(transformNode) -> np.ndarray:
    """Return the 4 x 4 matrix of a linear transform node to the world; the identity for None."""
    matrix = vtk.vtkMatrix4x4()
    if transformNode is not None:
        transformNode.GetMatrixTransformToWorld(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def imageToWorld(image) -> np.ndarray:
    """Return the 4 x 4 matrix from voxel indices (i, j, k) of a label map to mm in the frame of its segmentation."""
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)
