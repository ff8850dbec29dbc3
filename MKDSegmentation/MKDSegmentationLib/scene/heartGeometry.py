"""Diameters and wall thickness of our segments as they are now, and the lines that show the diameters in the views."""

import dataclasses
import importlib

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.i18n import translate
from vtk.util import numpy_support

from mkd_core.measure.clinical_figures import AORTIC_NAMES, TRANSLATION_CONTEXT, HeartGeometry, measure_geometry
from mkd_core.measure.heart_grid import HeartGrid
from mkd_core.measure.messages import finding, refusal
from mkd_core.measure.vessel_diameter import (
    AORTA_KEYS,
    VENTRICLE_OF,
    VesselDiameter,
    aorta_diameters_steps,
    vessel_diameter_steps,
)
from mkd_core.measure.wall_thickness import WALL_KEYS, wall_thickness_steps
from mkd_core.structures import BY_KEY, CATALOGUE, labelled

from ..run.volumeTransfer import ijkToRas
from .ourSegments import maskOfLabel, ourSegments
from .segmentMeasurement import imageToWorld, labelmapOf, transformToWorld, voxelState
from .transformHardening import isUnderNonLinearTransform

#: Roles under which a segmentation refers to the lines of its diameters.
LINE_ROLES = {
    "AA": "MKDSegmentation.AortaDiameter",
    "PA": "MKDSegmentation.PulmonaryArteryDiameter",
    "arch": "MKDSegmentation.AorticArchDiameter",
    "descending": "MKDSegmentation.DescendingAortaDiameter",
}

#: What measuring uses, in parts that each take a moment to import the first time.
_LIBRARIES = (
    "numpy.random",
    "numpy.testing",
    "scipy.special",
    "scipy.ndimage",
    "scipy.sparse.linalg",
    "scipy.sparse.csgraph",
    "scipy.spatial",
)

_ON_GRID = 1e-3  # voxels; grids that differ by less are the same
_KNOWN = {structure.key: structure for structure in labelled(structure.key for structure in CATALOGUE)}


def stateOfHeart(segmentationNode) -> tuple:
    """Return what can be compared to tell whether the geometry of the heart must be measured again."""
    ours = {key: segmentId for key, segmentId in ourSegments(segmentationNode).items() if key in _KNOWN}
    voxels = voxelState(segmentationNode, ours.values())
    transform = segmentationNode.GetParentTransformNode()
    placed = "bent" if isUnderNonLinearTransform(segmentationNode) else transformToWorld(transform).tobytes()
    return (placed, *((key, voxels[segmentId]) for key, segmentId in ours.items()))


@dataclasses.dataclass(frozen=True)
class MeasuredHeart:
    """Diameters and wall, and what they were measured on; None where there is nothing to measure."""

    geometry: HeartGeometry
    grid: HeartGrid | None = None


def geometrySteps(segmentationNode, atEdge: frozenset, before: MeasuredHeart | None = None):
    """Measure diameters and wall; a generator of short steps that returns a MeasuredHeart.

    :param atEdge: keys of structures that the edge of the volume cuts.
    :param before: what was measured earlier; what nothing has changed of is taken from it.
    """
    for library in _LIBRARIES:
        importlib.import_module(library)
        yield
    found = None
    if not isUnderNonLinearTransform(segmentationNode):
        found = yield from labelSteps(segmentationNode)
    yield
    if found is None:
        return MeasuredHeart(measure_geometry(None))
    grid = HeartGrid.of(*found, at_edge=atEdge)
    yield
    if grid is None:
        return MeasuredHeart(measure_geometry(None))
    parts = [
        ("aorta", ("AA", VENTRICLE_OF["AA"]), vessel_diameter_steps(grid, "AA")),
        ("pulmonary_artery", ("PA", VENTRICLE_OF["PA"]), vessel_diameter_steps(grid, "PA")),
        ("wall", WALL_KEYS, wall_thickness_steps(grid)),
    ]
    if "DAo" in grid.label_of:
        parts.append(("aorta_beyond", AORTA_KEYS, aorta_diameters_steps(grid)))
    figures = {}
    for name, keys, steps in parts:
        if before is not None and grid.is_same_for(before.grid, keys):
            figures[name] = getattr(before.geometry, name)
        else:
            figures[name] = yield from steps
        yield  # what follows the last one shows it, which takes a moment too
    return MeasuredHeart(HeartGeometry(**figures), grid)


def labelSteps(segmentationNode, isInWorld: bool = True):
    """Put the labels of our segments together; a generator of short steps.

    It returns an array (k, j, i), the 4 x 4 matrix from its indices (i, j, k) to the world, RAS mm, and what the labels
    mean; None where there are no voxels. Other labels in it are not ours.

    :param isInWorld: False for the matrix to the frame of the segmentation, without parent transforms.
    """
    images = {}
    for key, segmentId in ourSegments(segmentationNode).items():
        image = labelmapOf(segmentationNode, segmentId) if key in _KNOWN else None
        if image is not None:
            value = segmentationNode.GetSegmentation().GetSegment(segmentId).GetLabelValue()
            images[key] = (image, value)
    if not images:
        return None
    toWorld = transformToWorld(segmentationNode.GetParentTransformNode()) if isInWorld else np.eye(4)
    first = next(iter(images.values()))[0]
    if all(image is first for image, _value in images.values()):  # as a run leaves them: nothing is copied
        structures = [dataclasses.replace(BY_KEY[key], label=value) for key, (_image, value) in images.items()]
        return _voxels(first), toWorld @ _fromFirstVoxel(first), structures
    labels, matrix = yield from _merging({key: (_asItIs(image), value) for key, (image, value) in images.items()})
    return labels, toWorld @ matrix, [_KNOWN[key] for key in images]


def _asItIs(image):
    """Return an image that keeps its voxels when the segment gets others between two steps."""
    copy = slicer.vtkOrientedImageData()
    copy.ShallowCopy(image)
    return copy


def imageSteps(segmentationNode, volumeNode):
    """Make images of SimpleITK in the world, LPS, of a volume and the labels of our segments; under a non-linear
    transform as they are stored. A generator of short steps that returns both, and what the labels mean.
    """
    isInWorld = not (isUnderNonLinearTransform(segmentationNode) or isUnderNonLinearTransform(volumeNode))
    toRas = ijkToRas(volumeNode)
    if isInWorld:
        toRas = transformToWorld(volumeNode.GetParentTransformNode()) @ toRas
    volume = imageFromArray(slicer.util.arrayFromVolume(volumeNode), toRas)
    yield
    found = yield from labelSteps(segmentationNode, isInWorld)
    yield
    if found is None:
        return volume, imageFromArray(np.zeros(volume.GetSize()[::-1], np.uint8), toRas), []
    labels, toRas, structures = found
    ours = np.zeros(256, np.uint8)  # the user's may lie in the same array
    for structure in structures:
        ours[structure.label] = structure.label
    known = ours[labels.astype(np.uint8, copy=False)] if labels.max(initial=0) < ours.size else _ours(labels, ours)
    yield
    return volume, imageFromArray(known, toRas), structures


def _ours(labels: np.ndarray, ours: np.ndarray) -> np.ndarray:
    """Return labels of which those beyond a table are none."""
    return ours[np.where(labels < ours.size, labels, 0)]


def labelsOnVolume(segmentationNode, volumeNode, values: dict) -> np.ndarray:
    """Return our segments as labels on the voxels of a volume, uint8 (k, j, i).

    :param values: labels by the keys of structures; a structure that it lacks has its usual label.
    :raises MKDError: structures overlap, or there is none.
    """
    merged = None
    for key, segmentId in ourSegments(segmentationNode).items():
        mask = slicer.util.arrayFromSegmentBinaryLabelmap(segmentationNode, segmentId, volumeNode) > 0
        if merged is None:
            merged = np.zeros(mask.shape, np.uint8)
        if merged[mask].any():
            raise refusal(finding("dicom_overlap", structure=key))
        merged[mask] = values.get(key, BY_KEY[key].label)
    if merged is None:
        raise refusal(finding("dicom_no_segments"))
    return merged


def imageFromArray(voxels: np.ndarray, toRas: np.ndarray):
    """Return an image of SimpleITK from an array (k, j, i) and the 4 x 4 matrix from its indices to RAS mm."""
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(voxels)
    toLps = (np.diag([-1.0, -1.0, 1.0, 1.0]) @ toRas)[:3]
    spacing = np.linalg.norm(toLps[:, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((toLps[:, :3] / spacing).ravel().tolist())
    image.SetOrigin(toLps[:, 3].tolist())
    return image


def _voxels(image) -> np.ndarray:
    return numpy_support.vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[::-1])


def _fromFirstVoxel(image) -> np.ndarray:
    """Return the matrix from indices that begin at an image's first voxel."""
    extent, matrix = image.GetExtent(), imageToWorld(image)
    matrix = matrix.copy()
    matrix[:3, 3] = matrix[:3, :3] @ np.array(extent[::2]) + matrix[:3, 3]
    return matrix


def _merging(images: dict):
    """Merge segments on grids of their own, one at each step; a generator that returns their labels and the matrix of
    their common grid: that of the first, as far as there are segments.

    :param images: image and label value of each structure by its key.
    """
    from scipy import ndimage

    pieces = {}
    for key, (image, value) in images.items():
        box, mask = maskOfLabel(_voxels(image), value)
        if box is not None:
            matrix = _fromFirstVoxel(image)
            matrix[:3, 3] += matrix[:3, :3] @ [side.start for side in reversed(box)]
            pieces[key] = (mask, matrix)
        yield
    if not pieces:
        return np.zeros((1, 1, 1), np.uint8), np.eye(4)
    matrix = next(iter(pieces.values()))[1].copy()
    shifts, low, high = {}, [], []
    for key, (mask, place) in pieces.items():
        shifts[key] = np.linalg.inv(matrix) @ place
        corners = np.array(np.meshgrid(*[(0, side - 1) for side in mask.shape[::-1]])).reshape(3, -1)
        places = shifts[key][:3, :3] @ corners + shifts[key][:3, 3:]
        low.append(np.floor(places.min(axis=1) + _ON_GRID))
        high.append(np.ceil(places.max(axis=1) - _ON_GRID))
    start, end = np.min(low, axis=0).astype(int), np.max(high, axis=0).astype(int)
    labels = np.zeros(tuple((end - start + 1)[::-1]), np.uint8)
    for key, (mask, _place) in pieces.items():
        yield
        shift = shifts[key]
        shift[:3, 3] -= start
        where = np.round(shift[:3, 3]).astype(int)[::-1]
        if np.allclose(shift[:3, :3], np.eye(3), rtol=0.0, atol=_ON_GRID) and np.allclose(
            where, shift[:3, 3][::-1], rtol=0.0, atol=_ON_GRID
        ):
            box = tuple(slice(int(first), int(first) + side) for first, side in zip(where, mask.shape))
            labels[box][mask] = _KNOWN[key].label
        else:
            back = np.linalg.inv(shift)
            turned = ndimage.affine_transform(
                mask.astype(np.uint8), back[2::-1, 2::-1], back[2::-1, 3], labels.shape, order=0, mode="constant"
            )
            labels[turned > 0] = _KNOWN[key].label
    matrix[:3, 3] += matrix[:3, :3] @ start
    return labels, matrix


def diametersOf(geometry: HeartGeometry) -> dict:
    """Return what was found of each diameter that there is a line for."""
    return {"AA": geometry.aorta, "PA": geometry.pulmonary_artery, **geometry.aorta_beyond}


def linesOf(segmentationNode) -> list:
    """Return the line nodes of the diameters of a segmentation that are in the scene."""
    lines = [segmentationNode.GetNodeReference(role) for role in LINE_ROLES.values()]
    return [line for line in lines if line is not None]


def showLines(segmentationNode, geometry: HeartGeometry) -> None:
    """Show the measured diameters as lines in the views; those of before are moved, those that no longer are go."""
    diameters = diametersOf(geometry)
    for key, role in LINE_ROLES.items():
        line, diameter = segmentationNode.GetNodeReference(role), diameters.get(key)
        if not isinstance(diameter, VesselDiameter):
            if line is not None:
                slicer.mrmlScene.RemoveNode(line)
            continue
        if line is None:
            name = _("{structure} diameter").format(structure=_vesselName(key))
            line = slicer.mrmlScene.AddNewNodeByClass(
                "vtkMRMLMarkupsLineNode", slicer.mrmlScene.GenerateUniqueName(name)
            )
            line.CreateDefaultDisplayNodes()
            color = BY_KEY.get(key, BY_KEY["DAo"]).color
            line.GetDisplayNode().SetSelectedColor(*(channel / 255.0 for channel in color))
            line.SetLocked(True)  # a measurement, not something to drag
            segmentationNode.SetNodeReferenceID(role, line.GetID())
        with slicer.util.NodeModify(line):
            line.RemoveAllControlPoints()
            for end in diameter.line:
                line.AddControlPointWorld(vtk.vtkVector3d(*end))


def _vesselName(key: str) -> str:
    return BY_KEY[key].name if key in BY_KEY else translate(TRANSLATION_CONTEXT, AORTIC_NAMES[f"{key}_diameter"])


def removeLines(segmentationNode) -> None:
    """Take the lines out of the scene."""
    for line in linesOf(segmentationNode):
        slicer.mrmlScene.RemoveNode(line)
