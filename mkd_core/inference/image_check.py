"""Can this volume be segmented, and what is odd about it?  One look, before any network runs.

:func:`quick_check` samples a few hundred thousand voxels and needs numpy alone: the panel looks so at a volume that is
selected.  :func:`validate_image` looks at all of them when a run begins, and refuses what cannot be segmented.  Both
give the same findings (:mod:`mkd_core.measure.messages`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mkd_core.inference.stack import find_breaks, find_copies
from mkd_core.measure.messages import finding, refusal
from mkd_core.protocol import MAX_EXTENT, MIN_SIDE, MODALITY_TAG, SPACING_RANGE, Finding

if TYPE_CHECKING:
    import SimpleITK as sitk

#: Every CT that shows a chest has voxels below this: lung, or air around the body.  HU.
AIR_OR_LUNG = -300.0

#: Slices or voxels thicker than this blur the walls of the heart, mm.
THICK = 3.5

#: A heart of an adult with its great vessels is about 130 mm long; a field of view below this cannot show all of it,
#: mm.
SHORTEST_HEART = 100.0

#: Darker than this is nothing but padding, HU.
_PADDING = -1500.0

#: The darkest thousandth of a CT of a chest, in the airways if there is no air round the body, lies in this range, HU;
#: below it is the noise of air, which is a small fraction of all voxels.
_DARKEST_PERCENT, _DARKEST_AIR, _NOISE_FRACTION = 0.1, (-1100.0, -880.0), 0.02

#: Every CT of a body has voxels above this: muscle, blood or bone.  HU.
_SOFT_TISSUE = 50.0

#: Water of a CT stored without its offset lies here, as Hounsfield numbers begin at -1024.
_STORED_WATER = (900.0, 1300.0)

#: Interpolation of an image without values below zero makes a few down to this.
_INTERPOLATED = -50.0

#: Of ten equal parts of the range between the 1st and the 99th percentile, none holds more than this share of the
#: voxels where a histogram was equalised: 36 of 38 equalised CT and MR have no more.  169 real and rendered CT and MR
#: have 0.138 and more.  Voxels of a single value are left out if they are more than the last number, as of padding.
_EVEN_SHARE, _ONE_VALUE = 0.12, 0.02

#: Most different values that a label map has.
_MOST_LABELS = 64

#: Fewer voxels say nothing about a histogram.
_FEWEST_VALUES = 20_000

_SAMPLES_PER_AXIS = 64

#: Slices of which the extreme values of a whole volume are taken.
_EXAMINED_SLICES = 64

#: Modality that a volume may really have, by what was found.
BETTER_MODALITY = {"looks_like_mr": "MR", "no_air": "MR", "looks_like_ct": "CT"}


def quick_check(voxels: np.ndarray, spacing: Sequence[float], modality: str) -> list[Finding]:
    """Look at a sample of a volume.

    Args:
        voxels: ``(k, j, i)``, a view is enough: at most 64 planes, rows and columns of it are touched.
        spacing: mm along k, j, i.
        modality: what the volume is said to be, "CT" or "MR".

    Returns:
        Findings, the weightiest first; none for a volume that looks as it should.  What a sample cannot tell for
        certain is "amber" here where :func:`validate_image` refuses.
    """
    on_grid = _grid_findings(voxels.shape, spacing)
    if any(one.severity == "refusal" for one in on_grid):
        return on_grid
    some = sample(voxels)
    if some.size == 0 or some.min() == some.max():
        return [finding("constant")]
    on_intensities = _intensity_findings(some, modality, float(some.min()), float(some.max()))
    return [dataclasses.replace(one, severity="amber") for one in on_intensities] + on_grid


def validate_image(image: sitk.Image, modality: str) -> list[Finding]:
    """Look at a whole volume, and refuse what cannot be segmented.

    Args:
        image: the volume.
        modality: "CT" or "MR".

    Returns:
        What to doubt; none of it stops the segmentation.

    Raises:
        InputError: with the reason and what to do.
    """
    import SimpleITK as sitk

    _refuse_if_any(_kind_findings(image))
    voxels, spacing = sitk.GetArrayViewFromImage(image), image.GetSpacing()[::-1]
    on_grid = _grid_findings(voxels.shape, spacing)
    if not np.isfinite(image.GetOrigin()).all():
        on_grid.append(finding("position"))
    _refuse_if_any(on_grid)
    _refuse_if_any(_number_findings(voxels))
    some = voxels[:: max(1, len(voxels) // _EXAMINED_SLICES)]
    low, high = float(some.min()), float(some.max())
    if low == high:
        raise refusal(finding("constant"))
    on_intensities = _intensity_findings(sample(voxels), modality, low, high)
    _refuse_if_any(on_intensities)
    on_stack = find_copies(voxels) + find_breaks(voxels)
    return _origin_findings(image, modality) + on_intensities + on_grid + on_stack


def _origin_findings(image: sitk.Image, modality: str) -> list[Finding]:
    """Whether the DICOM files of a volume call it something else."""
    said = image.GetMetaData(MODALITY_TAG).strip() if image.HasMetaDataKey(MODALITY_TAG) else ""
    return [finding("dicom_modality", said=said, modality=modality)] if said and said != modality else []


def _refuse_if_any(found: Sequence[Finding]) -> None:
    for one in found:
        if one.severity == "refusal":
            raise refusal(one)


def sample(voxels: np.ndarray) -> np.ndarray:
    """Copy of at most 64 x 64 x 64 voxels spread over the volume, finite ones only, flat, float32.

    Of each axis the middles of equal parts are taken, so that padding at the edges does not weigh more than it should.
    """
    picks = []
    for size in voxels.shape:
        count = min(size, _SAMPLES_PER_AXIS)
        picks.append(((np.arange(count) + 0.5) * size / count).astype(int))
    # plane by plane, so that numpy gathers from one slice at a time instead of making large index arrays
    rows, columns = np.ix_(picks[1], picks[2])
    some = np.stack([voxels[plane][rows, columns] for plane in picks[0]]).ravel().astype(np.float32)
    return some[np.isfinite(some)]


def _kind_findings(image: sitk.Image) -> list[Finding]:
    if image.GetDimension() == 4:
        return [finding("time_series")]
    if image.GetDimension() != 3:
        return [finding("not_3d", dimensions=image.GetDimension())]
    if image.GetNumberOfComponentsPerPixel() != 1:
        return [finding("not_scalar")]
    return [finding("complex")] if "complex" in image.GetPixelIDTypeAsString() else []


def _grid_findings(shape: Sequence[int], spacing: Sequence[float]) -> list[Finding]:
    """What the size of a volume and of its voxels tell, both along k, j, i; a refusal stands alone."""
    if min(shape) < MIN_SIDE:
        return [finding("too_few_voxels", size=" x ".join(map(str, reversed(shape))), needed=MIN_SIDE)]
    steps = np.asarray(spacing, float)
    low, high = SPACING_RANGE
    if not (np.isfinite(steps).all() and (steps >= low).all() and (steps <= high).all()):
        worst = max(steps, key=lambda step: abs(np.log(step)) if np.isfinite(step) and step > 0 else np.inf)
        return [finding("spacing", mm=worst)]
    extent = steps * np.asarray(shape)
    if extent.max() > MAX_EXTENT:
        return [finding("extent", m=extent.max() / 1000.0)]
    found = []
    if extent.min() < SHORTEST_HEART:
        found.append(finding("heart_cut", mm=extent.min(), needed_mm=SHORTEST_HEART))
    if steps.max() > THICK:
        found.append(finding("thick", mm=steps.max()))
    return found


def _number_findings(voxels: np.ndarray) -> list[Finding]:
    if voxels.dtype.kind == "f":
        for plane in voxels:
            if not np.isfinite(plane).all():
                return [finding("not_a_number" if np.isnan(plane).any() else "infinite")]
    return []


def _intensity_findings(some: np.ndarray, modality: str, low: float, high: float) -> list[Finding]:
    """What the intensities tell: of samples spread over the volume, and of its smallest and largest value."""
    if _looks_like_labels(some, low, high):
        return [finding("labels", values=len(np.unique(some)))]
    return _scale_findings(some, modality, low, high) + ([finding("equalised")] if _is_equalised(some) else [])


def _scale_findings(some: np.ndarray, modality: str, low: float, high: float) -> list[Finding]:
    """Whether the intensities are what the modality has."""
    if modality == "MR":
        return [finding("looks_like_ct")] if _looks_like_ct(some, low) else []
    if low < 0 and high < _SOFT_TISSUE:
        return [finding("dark_ct")]
    if low >= _INTERPOLATED:
        code = "stored_ct" if _looks_like_stored_ct(some, high) else "looks_like_mr"
        return [finding(code, severity="refusal" if low >= 0 else "amber")]
    return [finding("no_air")] if low > AIR_OR_LUNG else _air_findings(some)


def _air_findings(some: np.ndarray) -> list[Finding]:
    """Whether air lies where Hounsfield units have it; what is far below is padding."""
    values = some[some > _PADDING]
    if values.size == 0:
        return []
    darkest = float(np.percentile(values, _DARKEST_PERCENT))
    if darkest > _DARKEST_AIR[1]:
        return [finding("air_offset", hu=darkest)]
    too_dark = values[values < _DARKEST_AIR[0]]
    if too_dark.size > _NOISE_FRACTION * values.size:
        return [finding("air_offset", hu=float(np.median(too_dark)))]
    return []


def _looks_like_labels(some: np.ndarray, low: float, high: float) -> bool:
    """Whether there are few values, all whole, and one of them fills most of the samples, as background does."""
    if low < 0 or high >= 256:
        return False
    values, counts = np.unique(some, return_counts=True)
    return len(values) <= _MOST_LABELS and bool(
        np.array_equal(values, np.rint(values)) and counts.max() > 0.4 * some.size
    )


def _is_equalised(some: np.ndarray) -> bool:
    """Whether all parts of the range are equally frequent, as a histogram equalisation makes them."""
    values, counts = np.unique(some, return_counts=True)
    if counts.max() > _ONE_VALUE * some.size:
        some = some[some != values[counts.argmax()]]
    if some.size < _FEWEST_VALUES:
        return False
    in_parts = np.histogram(some, 10, np.percentile(some, (1, 99)))[0]
    return bool(in_parts.max() <= _EVEN_SHARE * some.size)


def _looks_like_ct(some: np.ndarray, low: float) -> bool:
    return low < -900 and float(np.mean(some < -800)) > 0.02


def _looks_like_stored_ct(some: np.ndarray, high: float) -> bool:
    bright = some[some > 300]
    near_water = np.mean((bright > _STORED_WATER[0]) & (bright < _STORED_WATER[1])) if bright.size else 0.0
    return bool(near_water > 0.6 and high > 1000)
