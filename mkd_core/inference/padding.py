"""Voxels that are no image: marks such as NaN outside the field of view, blank slices, constant padding.

Marks would spoil every average that they enter, so they are replaced before anything is computed.  What lies at blank
slices or at padding may be cut off there, as at the edge of the volume.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk

from mkd_core.inference.geometry import OrientedVolume
from mkd_core.measure.messages import finding, refusal
from mkd_core.protocol import Finding

#: Numbers beyond this are marks and no intensities: of a CT in HU, and of an MR, whose scale is the scanner's own.
_LARGEST = {"CT": 1e5, "MR": 1e12}

#: A volume must hold intensities in at least this share of its voxels.
_LEAST_IMAGE = 0.1

#: Structures that end within so many millimetres of padding may have been cut by it: averaging blurs its edge.
_REACH_MM = 3.0

#: Columns are looked at on a grid of about so many millimetres, and corners on one of so many.
_CELL_MM = 2.0
_CORNER_CELL_MM = 4.0

#: Padding at corners fills at least this share of the volume, and what lies between it is convex but for this share of
#: the padding, of which so many voxels are tried, as a turned or tilted box is and a body in air is not.
_LEAST_PADDING, _MOST_WITHIN, _TRIED = 0.01, 0.05, 5000

_SLICES = 16
_STEP = 8
_FEWEST_CELLS = 4


def without_marks(image: sitk.Image, modality: str) -> tuple[sitk.Image, list[Finding]]:
    """Take voxels that hold no intensity (NaN, infinite, or as large as ``-FLT_MAX``) for the outside of the field of
    view: they get the lowest intensity of the others.

    Args:
        image: the volume; left as it is.
        modality: "CT" or "MR".

    Returns:
        The volume itself if there are none, else a copy; and a finding "padding_values" if there are any.

    Raises:
        InputError: hardly any voxel holds an intensity.
    """
    voxels = sitk.GetArrayViewFromImage(image)
    if voxels.dtype.kind != "f" or image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        return image, []
    most, count, lowest = _LARGEST.get(modality, _LARGEST["MR"]), 0, math.inf
    for first in range(0, len(voxels), _SLICES):
        some = voxels[first : first + _SLICES]
        valid = np.abs(some) <= most  # False for NaN
        count += valid.size - np.count_nonzero(valid)
        lowest = min(lowest, float(some.min(where=valid, initial=math.inf)))
    if not count:
        return image, []
    if count > (1 - _LEAST_IMAGE) * voxels.size:
        raise refusal(finding("no_image"))
    result = sitk.Image(image.GetSize(), image.GetPixelID())
    result.CopyInformation(image)
    for key in image.GetMetaDataKeys():
        result.SetMetaData(key, image.GetMetaData(key))
    for first in range(0, len(voxels), _SLICES):
        some = voxels[first : first + _SLICES]
        result[:, :, first : first + len(some)] = sitk.GetImageFromArray(
            np.where(np.abs(some) <= most, some, some.dtype.type(lowest))
        )
    return result, [finding("padding_values", share=count / voxels.size)]


def labels_at_edges(labels: np.ndarray, field: OrientedVolume, block: tuple[slice, slice, slice]) -> set[int]:
    """Labels that may have been cut off: those in the outermost layer of the volume, and those that end at blank slices
    or at padding.

    Args:
        labels: label map of a block of the volume, the anatomical way round.
        field: the volume.
        block: where the block lies.
    """
    found: set[int] = set()
    if not labels.size:
        return found
    for axis, (side, count) in enumerate(zip(block, field.size)):
        for end, is_outermost in ((0, side.start == 0), (-1, side.stop == count)):
            if is_outermost:
                found |= set(np.unique(labels.take(end, axis)).tolist())
    reach = np.maximum(1, np.ceil(_REACH_MM / field.spacing)).astype(int)
    blank = [blank_slices(field.voxels, axis) for axis in range(3)]
    for axis in range(3):
        near = _grown(blank[axis], (int(reach[axis]),))[block[axis]]
        for index in np.flatnonzero(near):
            found |= set(np.unique(labels.take(index, axis)).tolist())
        rows, columns = (other for other in range(3) if other != axis)
        outside = _outside_columns(field.voxels, axis, blank, field.spacing)
        if outside.any():
            near = _grown(outside, (int(reach[rows]), int(reach[columns])))[block[rows], block[columns]]
            at = np.moveaxis(labels, axis, 0)[:, near]
            found |= set(np.unique(at).tolist())
    return found | _labels_at_slanted_padding(labels, field, block)


def blank_slices(voxels: np.ndarray, axis: int) -> np.ndarray:
    """Which slices along an axis hold one value throughout, boolean."""
    thin = [slice(None, None, _STEP)] * 3
    thin[axis] = slice(None)
    others = tuple(other for other in range(3) if other != axis)
    some = voxels[tuple(thin)]
    blank: np.ndarray = some.min(axis=others) == some.max(axis=others)
    for index in np.flatnonzero(blank):  # few: a look at all of it
        plane = voxels.take(index, axis) if axis == 0 else np.moveaxis(voxels, axis, 0)[index]
        blank[index] = plane.min() == plane.max()
    return blank


def _outside_columns(voxels: np.ndarray, axis: int, blank: Sequence[np.ndarray], spacing: np.ndarray) -> np.ndarray:
    """Which columns along an axis hold one value in all slices that are not blank, and lie in one piece with a corner
    of the cross-section: the corners round a circular field of view.  Air round a body that was clipped to one value
    counts as well; no heart comes near it.  Boolean, ``(j, i)``.

    Args:
        voxels: of the volume.
        axis: of the columns.
        blank: blank slices along each axis.
        spacing: mm.
    """
    from scipy import ndimage

    stack = np.moveaxis(voxels, axis, 0)
    nowhere: np.ndarray = np.zeros(stack.shape[1:], bool)
    indices = np.flatnonzero(~blank[axis])
    if len(indices) < 2:
        return nowhere
    strides = [max(1, int(_CELL_MM / step)) for other, step in enumerate(spacing) if other != axis]
    thin = stack[:, :: strides[0], :: strides[1]]
    first = thin[indices[0]]
    constant: np.ndarray = np.ones(first.shape, bool)
    for index in [*indices[:: max(1, len(indices) // _STEP)], *indices]:  # a few first: mostly that settles it
        if not constant[[0, 0, -1, -1], [0, -1, 0, -1]].any():
            return nowhere
        constant &= thin[index] == first
    pieces: np.ndarray = ndimage.label(constant)[0]
    at_corners = set(pieces[[0, 0, -1, -1], [0, -1, 0, -1]].tolist()) - {0}
    outside = np.isin(pieces, list(at_corners))
    columns: np.ndarray = np.repeat(np.repeat(outside, strides[0], axis=0), strides[1], axis=1)
    return columns[: nowhere.shape[0], : nowhere.shape[1]]


def _labels_at_slanted_padding(
    labels: np.ndarray, field: OrientedVolume, block: tuple[slice, slice, slice]
) -> set[int]:
    """Labels near padding whose border runs across the slices, as in a volume resampled from a tilted or turned one."""
    strides = tuple(max(1, int(_CORNER_CELL_MM / step)) for step in field.spacing)
    cells = field.voxels[tuple(slice(None, None, stride) for stride in strides)]
    outside = slanted_padding(cells)
    if not outside.any():
        return set()
    reach = tuple(math.ceil(_REACH_MM / (step * stride)) for step, stride in zip(field.spacing, strides))
    near = _grown(outside, reach)
    k, j, i = (
        np.minimum(np.arange(side.start, side.stop) // stride, count - 1)
        for side, stride, count in zip(block, strides, near.shape)
    )
    found: set[int] = set()
    for plane, cell in zip(labels, k):  # one at a time: labels can be large
        if near[cell].any():
            found |= set(np.unique(plane[near[cell][np.ix_(j, i)]]).tolist())
    return found


def slanted_padding(cells: np.ndarray) -> np.ndarray:
    """Which voxels have the value of a corner, lie in one piece with it, and are padding round a box: boolean, the
    shape of ``cells``.
    """
    from scipy import ndimage

    outside: np.ndarray = np.zeros(cells.shape, bool)
    if min(cells.shape) < _FEWEST_CELLS:
        return outside
    corners = cells[np.ix_(*[(0, -1)] * 3)]
    for value in np.unique(corners):
        pieces: np.ndarray = ndimage.label(cells == value)[0]
        at_corners = pieces[np.ix_(*[(0, -1)] * 3)]
        numbers, counts = np.unique(pieces, return_counts=True)
        least = _LEAST_PADDING * cells.size
        large = {int(n) for n, count in zip(numbers, counts) if n and count >= least} & set(at_corners.ravel().tolist())
        if large:
            outside |= np.isin(pieces, list(large))
    if not outside.any() or outside.all():
        return np.zeros(cells.shape, bool)
    from scipy import spatial  # takes its time to load

    image = ndimage.binary_opening(~outside)
    rim = image & ~ndimage.binary_erosion(image)
    points = np.argwhere(rim)
    try:
        hull = spatial.ConvexHull(points)
    except spatial.QhullError:  # flat, or next to nothing
        return np.zeros(cells.shape, bool)
    padding = np.argwhere(outside)
    padding = padding[:: max(1, len(padding) // _TRIED)]
    within = np.ones(len(padding), bool)
    for *normal, offset in np.unique(hull.equations.round(6), axis=0):
        within &= padding @ np.array(normal) + offset < -1.0
    return outside if np.count_nonzero(within) <= _MOST_WITHIN * len(padding) else np.zeros(cells.shape, bool)


def _grown(mask: np.ndarray, reach: tuple[int, ...]) -> np.ndarray:
    """A mask with all within so many entries along each axis."""
    for axis, count in enumerate(reach):
        total = np.cumsum(np.insert(mask.astype(int), 0, 0, axis=axis), axis=axis)
        length = mask.shape[axis]
        high = np.minimum(np.arange(length) + count + 1, length)
        low = np.maximum(np.arange(length) - count, 0)
        mask = total.take(high, axis) > total.take(low, axis)
    return mask
