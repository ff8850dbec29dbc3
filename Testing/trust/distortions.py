"""Volumes as they must not be, made from good ones: what a scanner, a conversion or a person does wrong.

Each distortion takes a volume with its truth and gives both as they are afterwards; the truth goes with the voxels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

#: A volume and its truth.
Pair = tuple[sitk.Image, sitk.Image]


@dataclass(frozen=True)
class Distortion:
    """One thing that is done to a volume.

    Attributes:
        group: kind of mistake, for the table.
        name: what exactly.
        apply: volume, truth and source of randomness to volume and truth.
        modalities: of volumes that it can happen to.
        always_wrong: the numbers are wrong whatever the labels are, as where the voxel size is.
    """

    group: str
    name: str
    apply: Callable[[sitk.Image, sitk.Image, np.random.Generator], Pair]
    modalities: tuple[str, ...] = ("CT", "MR")
    always_wrong: bool = False


def _array(image: sitk.Image) -> np.ndarray:
    return sitk.GetArrayFromImage(image)


def _like(values: np.ndarray, image: sitk.Image) -> sitk.Image:
    """An image of these values with the grid of another as far as it goes."""
    kind = sitk.GetArrayViewFromImage(image).dtype
    limits = np.iinfo(kind)
    result = sitk.GetImageFromArray(np.ascontiguousarray(np.clip(np.rint(values), limits.min, limits.max).astype(kind)))
    result.SetSpacing(image.GetSpacing())
    result.SetOrigin(image.GetOrigin())
    result.SetDirection(image.GetDirection())
    return result


def _intensities(change: Callable[[np.ndarray, np.random.Generator], np.ndarray]):
    def apply(image: sitk.Image, truth: sitk.Image, rng: np.random.Generator) -> Pair:
        return _like(change(_array(image).astype(np.float32), rng), image), truth

    return apply


def _both(change: Callable[[np.ndarray], np.ndarray]):
    def apply(image: sitk.Image, truth: sitk.Image, rng: np.random.Generator) -> Pair:
        return _like(change(_array(image)), image), _like(change(_array(truth)), truth)

    return apply


def _spacing(*factors: float):
    def apply(image: sitk.Image, truth: sitk.Image, rng: np.random.Generator) -> Pair:
        pair = sitk.Image(image), sitk.Image(truth)
        for one in pair:
            one.SetSpacing([step * factor for step, factor in zip(one.GetSpacing(), factors)])
        return pair

    return apply


def _noise(deviation: float):
    def change(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        grain = ndimage.gaussian_filter(rng.standard_normal(values.shape).astype(np.float32), 0.6)
        return np.maximum(values + 2.0 * deviation * grain, values.min())

    return _intensities(change)


def _blur(millimetres: float):
    def apply(image: sitk.Image, truth: sitk.Image, rng: np.random.Generator) -> Pair:
        sigma = [millimetres / step for step in reversed(image.GetSpacing())]
        return _like(ndimage.gaussian_filter(_array(image).astype(np.float32), sigma), image), truth

    return apply


def _thick(millimetres: float, axis: int = 2):
    def apply(image: sitk.Image, truth: sitk.Image, rng: np.random.Generator) -> Pair:
        factors = [1, 1, 1]
        factors[axis] = max(1, round(millimetres / image.GetSpacing()[axis]))
        thick = sitk.Cast(sitk.BinShrink(sitk.Cast(image, sitk.sitkFloat32), factors), image.GetPixelID())
        return thick, sitk.Resample(truth, thick, sitk.Transform(), sitk.sitkNearestNeighbor)

    return apply


def _extent(truth: sitk.Image, axis: int) -> tuple[int, int]:
    """First voxel of the heart along an image axis, and the one after its last."""
    labels = _array(truth) > 0
    found = np.flatnonzero(labels.any(axis=tuple(other for other in range(3) if other != 2 - axis)))
    return int(found[0]), int(found[-1]) + 1


def _crop(axis: int, low: float | None, high: float | None):
    """Cut shares of the heart off at either end of an image axis."""

    def apply(image: sitk.Image, truth: sitk.Image, rng: np.random.Generator) -> Pair:
        first, last = _extent(truth, axis)
        start, size = [0, 0, 0], list(image.GetSize())
        begin = 0 if low is None else round(first + low * (last - first))
        end = size[axis] if high is None else round(last - high * (last - first))
        start[axis], size[axis] = begin, end - begin
        return tuple(sitk.RegionOfInterest(one, size, start) for one in (image, truth))

    return apply


def _plain(image: sitk.Image, truth: sitk.Image, rng: np.random.Generator) -> Pair:
    """Without contrast agent: blood as bright as muscle."""
    values = _array(image).astype(np.float32)
    near = ndimage.binary_dilation(_array(truth) > 0, iterations=4)
    bone = (ndimage.gaussian_filter(values, 2.0) > 150) & ~near
    return _like(np.where((values > 70) & ~bone, 45.0 + 0.05 * (values - 70.0), values), image), truth


def _bias(strength: float):
    def change(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        coarse = rng.standard_normal((3, 3, 3)).astype(np.float32)
        smooth = ndimage.zoom(coarse, [size / 3 for size in values.shape], order=1)
        return values * np.exp(strength * smooth[tuple(slice(size) for size in values.shape)])

    return _intensities(change)


def _reversed_slices(values: np.ndarray) -> np.ndarray:
    order = np.arange(len(values))
    third = len(order) // 3
    order[third : 2 * third] = order[third : 2 * third][::-1]
    return values[order]


def _twice(axis: int):
    return _both(lambda values: np.concatenate([values, values], axis))


def _bright_lump(image: sitk.Image, truth: sitk.Image, rng: np.random.Generator) -> Pair:
    """Something bright where the heart was: an aneurysm, a tumour, a bottle."""
    return _without_heart(image, truth, [((0.0, 0.0, 0.0), 1.0)])


def _bright_balls(image: sitk.Image, truth: sitk.Image, rng: np.random.Generator) -> Pair:
    """Some bright balls where the heart was, as many vessels or organs cut across."""
    places = [(rng.uniform(-0.6, 0.6, 3), rng.uniform(0.25, 0.5)) for _ in range(5)]
    return _without_heart(image, truth, places)


def _without_heart(image: sitk.Image, truth: sitk.Image, balls: Sequence[tuple[Sequence[float], float]]) -> Pair:
    values, labels = _array(image).astype(np.float32), _array(truth)
    inside = labels > 0
    muscle = float(np.median(values[labels == 5]))
    blood = float(np.median(values[labels == 1]))
    box = ndimage.find_objects(inside.astype(np.uint8))[0]
    middle = np.array([0.5 * (side.start + side.stop) for side in box])
    half = np.array([0.5 * (side.stop - side.start) for side in box])
    grids = np.meshgrid(*(np.arange(size) for size in values.shape), indexing="ij", sparse=True)
    place = [(grid - at) / reach for grid, at, reach in zip(grids, middle, half)]
    values[sum(axis**2 for axis in place) < 1.0] = muscle
    for centre, radius in balls:
        ball = sum((axis - at) ** 2 for axis, at in zip(place, centre)) < (0.8 * radius) ** 2
        values[ball] = blood
    return _like(ndimage.gaussian_filter(values, 0.7), image), _like(np.zeros_like(labels), truth)


def _thinned(*, above: bool) -> Callable[[sitk.Image, sitk.Image, np.random.Generator], Pair]:
    """Every second slice left out above or below the middle of the heart."""

    def apply(image: sitk.Image, truth: sitk.Image, rng: np.random.Generator) -> Pair:
        middle, order = sum(_extent(truth, 2)) // 2, np.arange(image.GetSize()[2])
        kept = ((order - middle) % 2 == 0) | ((order < middle) if above else (order > middle))
        return tuple(_like(_array(one)[kept], one) for one in (image, truth))

    return apply


def _hole(millimetres: float):
    """A cube in the left ventricle blacked out."""

    def apply(image: sitk.Image, truth: sitk.Image, rng: np.random.Generator) -> Pair:
        values = _array(image)
        middle = np.argwhere(_array(truth) == 1).mean(axis=0)
        half = 0.5 * millimetres / np.array(image.GetSpacing()[::-1])
        values[tuple(slice(round(at - reach), round(at + reach)) for at, reach in zip(middle, half))] = values.min()
        return _like(values, image), truth

    return apply


def _power(exponent: float):
    def change(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        low, extent = values.min(), np.ptp(values)
        return low + extent * ((values - low) / extent) ** exponent

    return _intensities(change)


def _equalised(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    ranks = np.searchsorted(np.sort(values, axis=None), values) / values.size
    return values.min() + ranks * np.ptp(values)


def _flip(axis: int):
    return _both(lambda values: np.flip(values, 2 - axis))


def _quarter_turn(values: np.ndarray) -> np.ndarray:
    return np.rot90(values, 1, (1, 2))


UNDISTORTED = Distortion("undistorted", "as it is", lambda image, truth, rng: (image, truth))

#: What changes how well a heart can be seen.
QUALITY = (
    Distortion("image quality", "noise of 60 HU", _noise(60)),
    Distortion("image quality", "noise of 150 HU", _noise(150)),
    Distortion("image quality", "blurred by 3 mm", _blur(3)),
    Distortion("image quality", "blurred by 5 mm", _blur(5)),
    Distortion("image quality", "slices of 5 mm", _thick(5)),
    Distortion("image quality", "slices of 10 mm", _thick(10)),
    Distortion("image quality", "sagittal slices of 6 mm", _thick(6, 0)),
    Distortion("image quality", "uneven brightness", _bias(0.3)),
    Distortion("image quality", "very uneven brightness", _bias(0.6)),
    Distortion("image quality", "no contrast agent", _plain, ("CT",)),
)

#: What is missing from the field of view.
FIELD_OF_VIEW = (
    Distortion("field of view", "cut on the right and left", _crop(0, 0.2, 0.1)),
    Distortion("field of view", "cut in front and behind", _crop(1, 0.15, 0.15)),
    Distortion("field of view", "cut below", _crop(2, 0.3, None)),
    Distortion("field of view", "cut above", _crop(2, None, 0.3)),
)

#: What is wrong with the intensities.
OFFSETS = (
    Distortion("offset", "200 HU too high", _intensities(lambda values, rng: values + 200), ("CT",)),
    Distortion("offset", "400 HU too high", _intensities(lambda values, rng: values + 400), ("CT",)),
    Distortion("offset", "200 HU too low", _intensities(lambda values, rng: values - 200), ("CT",)),
    Distortion("offset", "half of every value", _intensities(lambda values, rng: 0.5 * values), ("CT",)),
    Distortion("offset", "1.6 times every value", _intensities(lambda values, rng: 1.6 * values), ("CT",)),
)

#: What an export, a viewer or a conversion makes of the grey values.
GREY_VALUES = (
    Distortion("grey values", "a cube of 30 mm blacked out", _hole(30)),
    Distortion("grey values", "steps of 250 units", _intensities(lambda values, rng: np.floor(values / 250) * 250)),
    Distortion("grey values", "to the power of 0.5", _power(0.5)),
    Distortion("grey values", "histogram equalised", _intensities(_equalised)),
    Distortion("grey values", "cut off at 127 HU", _intensities(lambda values, rng: np.minimum(values, 127)), ("CT",)),
    Distortion(
        "grey values",
        "the brightest fifth cut off",
        _intensities(lambda values, rng: np.minimum(values, np.percentile(values, 80))),
        ("MR",),
    ),
)

#: Slices that are missing in a part of the stack.  The numbers are wrong whatever the labels are.
UNEVEN = (
    Distortion("slice distance", "every second slice missing above", _thinned(above=True), always_wrong=True),
    Distortion("slice distance", "every second slice missing below", _thinned(above=False), always_wrong=True),
)

#: Voxel sizes that are not true.  The numbers are wrong whatever the labels are.
SPACINGS = (
    Distortion("voxel size", "0.5 of the true size", _spacing(0.5, 0.5, 0.5), always_wrong=True),
    Distortion("voxel size", "0.7 of the true size", _spacing(0.7, 0.7, 0.7), always_wrong=True),
    Distortion("voxel size", "1.4 of the true size", _spacing(1.4, 1.4, 1.4), always_wrong=True),
    Distortion("voxel size", "twice the true size", _spacing(2.0, 2.0, 2.0), always_wrong=True),
    Distortion("voxel size", "slices half as thick", _spacing(1.0, 1.0, 0.5), always_wrong=True),
    Distortion("voxel size", "slices twice as thick", _spacing(1.0, 1.0, 2.0), always_wrong=True),
)

#: One side of the voxels that is not true: it makes round things oval.
AXES = tuple(
    Distortion("voxel size, one axis", f"{name} {factor} times as {word}", _spacing(*sides), always_wrong=True)
    for axis, (name, word) in enumerate((("voxels", "wide"), ("voxels", "deep"), ("slices", "thick")))
    for factor in ((1.5, 0.67) if word == "thick" else (1.4, 0.7))
    for sides in [[factor if side == axis else 1.0 for side in range(3)]]
)

#: Voxel sizes that are wrong by no more than hearts differ from each other: some of them can be told.  They do not
#: belong to `ALL`.
SLIGHT = tuple(
    Distortion(f"voxel size, {name}", f"{factor} of the true size", _spacing(*sides), always_wrong=True)
    for name, where in (
        ("one axis by a quarter", ((1, 0, 0), (0, 1, 0), (0, 0, 1))),
        ("all by a quarter", ((1, 1, 1),)),
    )
    for factor in (1.25, 0.8)
    for axes in where
    for sides in [[factor if is_wrong else 1.0 for is_wrong in axes]]
)

#: Something else than one heart.
CONTENTS = (
    Distortion("two hearts", "side by side", _twice(2)),
    Distortion("two hearts", "one above the other", _twice(0)),
    Distortion("foreign organs", "a bright lump", _bright_lump),
    Distortion("foreign organs", "bright balls", _bright_balls),
    Distortion("slice order", "a third of the slices reversed", _both(_reversed_slices)),
)

#: A few wrong orientations; all of them are tried elsewhere.
ORIENTATIONS = (
    Distortion("orientation", "right and left swapped", _flip(0)),
    Distortion("orientation", "front and back swapped", _flip(1)),
    Distortion("orientation", "head and feet swapped", _flip(2)),
    Distortion("orientation", "turned by 90° in the slice", _both(_quarter_turn)),
)

ALL = (
    UNDISTORTED,
    *QUALITY,
    *FIELD_OF_VIEW,
    *OFFSETS,
    *GREY_VALUES,
    *UNEVEN,
    *SPACINGS,
    *AXES,
    *CONTENTS,
    *ORIENTATIONS,
)
