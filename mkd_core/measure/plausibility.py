"""What holds in every heart, whatever its size: findings where a segmentation breaks one of these rules.

Volumes are compared with published normal values, widened for disease (see `mkd_core.structures`).  The other rules are
anatomy: the left ventricle is wrapped in muscle, chambers touch where their valves are, blood that has passed the lungs
together is equally bright, a heart is neither a needle nor as wide as the body.  The limits leave room: on undistorted
volumes (`python -m Testing.trust`) fewer than one structure in twenty gets a warning.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from mkd_core.measure.heart_stretch import PARTS, Stretch, oval_of, stretch_of
from mkd_core.measure.messages import finding
from mkd_core.protocol import Finding, Severity
from mkd_core.structures import BY_KEY, CLASS_COUNT

if TYPE_CHECKING:
    from mkd_core.inference.geometry import Grid, OrientedVolume
    from mkd_core.inference.self_test import SelfTest
    from mkd_core.measure.quantify import Measurement

#: Share of the left ventricle's surface, valves excepted, that faces muscle.  Whole hearts have 0.95 to 1.00, lumps and
#: hearts that were mirrored or cut by padding 0.2 to 0.9.
_LEAST_WALL = 0.9

#: Where a valve makes two structures touch, and the least area of contact, mm²; a healthy valve has 300 to 900.
_NEIGHBOURS = (("LV", "LA"), ("RV", "RA"), ("LV", "AA"), ("RV", "PA"))
_LEAST_CONTACT_MM2 = 50.0

#: Structures smaller than this say nothing about what they touch, ml.
_LEAST_PART_ML = 5.0

#: Longest over shortest standard deviation of the positions of all labelled voxels, and of the left ventricle with its
#: muscle.  Whole hearts have 1.3 to 2.2 and 1.2 to 1.8; voxels said to be twice as long as they are give 2.5.
_MOST_STRETCH, _MOST_VENTRICLE_STRETCH = 2.45, 2.1

#: Logarithms of the factors by which a heart may seem higher than wide and deep, lower than these, and wider or
#: narrower than deep (see `mkd_core.measure.heart_stretch`), half axes of ellipses.  None of 240 computer-made hearts,
#: with standard deviations of 0.055 and 0.07, reaches them; the tall and narrow heart of one real person comes to 1.03
#: to 1.07 of them in three of six phases of its beat, the five others with whole chambers inside to 0.81.  An axis said
#: to be 1.4 times as long as it is puts a mean heart at 1.2 to 1.4.
_MOST_HIGHER, _MOST_LOWER, _MOST_WIDER = 0.27, 0.22, 0.28

#: Beyond so many times this limit the numbers are wrong by far.
_FAR_BEYOND = 1.5

#: Across its own axis the left ventricle with its muscle is at most so many times as long as wide: experts' outlines of
#: 149 people have 1.08 (median), one of them more than this.
_MOST_OVAL = 1.3

#: All seven structures together, ml.  A heart with its great vessels has 400 to 1100.
_WHOLE_HEART_ML = (380.0, 1400.0)

#: Beyond these no heart of a grown person is known, ml: two standard deviations below the mean of healthy women at
#: end-systole in every structure at once come to 258 (sources in `mkd_core.structures`; a real small heart has 295 to
#: 365 through its beat), the largest plausible volumes of all structures to 1780.
_NO_WHOLE_HEART_ML = (250.0, 1800.0)

#: Mean of the muscle in CT, HU: 30 to 60 without contrast agent, up to 150 with it.
_MYOCARDIUM_HU = (5.0, 190.0)

#: Contrast from which blood counts as enhanced, HU; the part of it by which left heart and aorta may differ; and how
#: far blood may be below muscle where contrast agent has not arrived.
_ENHANCED_HU, _LEFT_HEART_SPREAD, _BLOOD_BELOW_MUSCLE_HU = 60.0, 0.4, 100.0

#: In a bright-blood MR muscle has at most this share of the brightness of the left ventricle's blood.
_MOST_MUSCLE_BRIGHTNESS = 0.9

#: Everything brighter is body, and the air round it is darker than this, HU; lung lies between.
_BODY_HU, _AIR_HU = -400.0, -930.0

#: Left to right width of an adult's chest, mm, and the share of it that a heart with its vessels takes.
_BODY_MM = (210.0, 650.0)
_HEART_SHARE = (0.18, 0.7)

#: Width of the edge between the left ventricle's blood and its muscle above which an image is blurred, mm: what the two
#: differ by over the slope that a fifth of the edge exceeds.  Whole real hearts have 3.1 to 3.8, 113 computer-made ones
#: 1.2 to 4.8; smoothed by 5 mm (standard deviation) they have 5.3 to 8.8, and then muscle and vessels go
#: wrong though both segmentors agree.
_WIDEST_EDGE_MM, _STEEPEST_PERCENT, _FEWEST_EDGE_VOXELS = 5.0, 80.0, 50

#: Noise above which outlines may go wrong though both segmentors agree, as a share of what blood and muscle differ by.
#: On voxels of 2 mm, 32 rendered hearts have 0.01 to 0.14 and 8 real ones 0.03 to 0.10.
_MOST_NOISE = 0.15

#: A second heart has at least this share of the first one's volume, and three of its chambers of at least so many ml.
_SECOND_HEART_SHARE = 0.4
_SECOND_HEART_CHAMBERS, _CHAMBER_ML = 3, 2.0

_CHAMBERS = ("LV", "RV", "LA", "RA")

#: Median of the absolute values of a standard normal variable.
_MEDIAN_OF_NORMAL = 0.6745

#: Overlap (Dice) of a structure with what the localiser, a third network, saw of it, below which it is doubted.  Of 162
#: good structures of seven validation hearts, noisy, blurred and thick ones among them, none lies below 0.70; a left
#: atrium that both segmentors outline equally wrong has 0.5 to 0.6.  Muscle is too thin for the localiser's voxels.
_LEAST_COARSE_OVERLAP = 0.65
_TOO_THIN = "Myo"


@dataclass(frozen=True)
class HeartShape:
    """How the structures lie to each other, measured on the segmentors' grid.

    Attributes:
        wall_fraction: share of the left ventricle's surface, left atrium and aorta excepted, that faces its muscle;
            None without a left ventricle.
        contacts_mm2: area of contact of two structures, by their keys as in `_NEIGHBOURS`.
        stretch: longest over shortest standard deviation of the positions of all labelled voxels.
        ventricle_stretch: the same of the left ventricle with its muscle; None without them.
        factors: by what the heart seems stretched along the axes of the body; None where parts of it are missing.
        width_mm: extent of all structures from right to left.
        middle_mm: height of their middle in the local frame.
    """

    wall_fraction: float | None
    contacts_mm2: Mapping[tuple[str, str], float]
    stretch: float
    ventricle_stretch: float | None
    factors: Stretch | None
    width_mm: float
    middle_mm: float


def heart_shape(labels: np.ndarray, spacing: float, start_z: float = 0.0) -> HeartShape | None:
    """Measure how the structures lie to each other.

    Args:
        labels: ``(D, H, W)``, on cubic voxels.
        spacing: mm.
        start_z: height of the first voxel in the local frame, mm.

    Returns:
        The shape, or None where nothing is labelled.
    """
    box = ndimage.find_objects((labels > 0).astype(np.uint8))
    if not box:
        return None
    heart = np.pad(labels[box[0]], 1)
    faces = _count_faces(heart)
    lv, la, myo, aorta = (BY_KEY[key].label for key in ("LV", "LA", "Myo", "AA"))
    surface = faces[lv].sum() - faces[lv, la] - faces[lv, aorta]
    area = spacing**2
    return HeartShape(
        wall_fraction=float(faces[lv, myo] / surface) if surface > 0 else None,
        contacts_mm2={(a, b): float(faces[BY_KEY[a].label, BY_KEY[b].label] * area) for a, b in _NEIGHBOURS},
        stretch=_stretch(heart > 0) or 1.0,
        ventricle_stretch=_stretch((heart == lv) | (heart == myo)),
        factors=stretch_of(heart, np.full(3, spacing)),
        width_mm=(box[0][2].stop - box[0][2].start) * spacing,
        middle_mm=start_z + 0.5 * (box[0][0].start + box[0][0].stop - 1) * spacing,
    )


def _count_faces(labels: np.ndarray) -> np.ndarray:
    """Voxel faces between every two labels, ``(8, 8)``, symmetric, nothing on the diagonal."""
    counts = np.zeros(CLASS_COUNT**2, np.int64)
    for axis in range(3):
        along = np.moveaxis(labels, axis, 0)
        first, second = along[:-1], along[1:]
        differ = first != second
        pairs = first[differ].astype(np.intp) * CLASS_COUNT + second[differ]
        counts += np.bincount(pairs, minlength=CLASS_COUNT**2)
    square = counts.reshape(CLASS_COUNT, CLASS_COUNT)
    return square + square.T


def _stretch(mask: np.ndarray) -> float | None:
    points = np.argwhere(mask)
    if len(points) < 100:
        return None
    spread = np.linalg.eigvalsh(np.cov(points[:: max(1, len(points) // 20_000)].T))
    return float(np.sqrt(spread[2] / max(spread[0], 1e-6)))


def examine(
    measured: Mapping[str, Measurement],
    labels: np.ndarray,
    image: np.ndarray,
    grid: Grid,
    volume: OrientedVolume,
    modality: str,
) -> tuple[list[Finding], dict[str, list[Finding]]]:
    """Compare a segmentation with what holds in every heart.

    Args:
        measured: figures of every structure.
        labels: on the segmentors' grid, ``(D, H, W)``.
        image: the volume on that grid, ``(D, H, W)``, in any units.
        grid: that grid.
        volume: the volume.
        modality: "CT" or "MR".

    Returns:
        Findings about the heart as a whole, and about single structures by their keys.
    """
    noise = noise_findings(image, labels)
    labels, image, spacing = _on_cubic_voxels(labels, image, grid)
    shape = heart_shape(labels, spacing, float(grid.low[0]) + 0.5 * spacing)
    width = body_width_at(volume, shape.middle_mm) if shape is not None and modality == "CT" else None
    found = heart_findings(measured, shape, modality, width) + blur_findings(image, labels, spacing) + noise
    return found, structure_findings(measured, modality)


def _on_cubic_voxels(labels: np.ndarray, image: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray, float]:
    """Labels and image with voxels of (nearly) the shortest side, mm: thick slices are repeated."""
    shortest = float(grid.steps.min())
    for axis, step in enumerate(grid.steps):
        times = round(step / shortest)
        if times > 1:
            labels, image = (np.repeat(array, times, axis=axis) for array in (labels, image))
    return labels, image, shortest


def blur_findings(image: np.ndarray, labels: np.ndarray, spacing: float) -> list[Finding]:
    """A finding for a heart without sharp edges, as motion or smoothing leave it.

    The edge between the blood and the muscle of the left ventricle is as wide as what they differ by over its slope.

    Args:
        image: intensities in any units, ``(D, H, W)``.
        labels: ``(D, H, W)``.
        spacing: of both, mm.
    """
    heart = labels == BY_KEY["LV"].label, labels == BY_KEY["Myo"].label
    box = ndimage.find_objects((heart[0] | heart[1]).astype(np.uint8))
    if not box or min(side.stop - side.start for side in box[0]) < 3:
        return []
    part = np.asarray(image[box[0]], np.float32)
    blood, muscle = (mask[box[0]] for mask in heart)
    edge = ndimage.binary_dilation(blood) & ndimage.binary_dilation(muscle)
    if np.count_nonzero(edge) < _FEWEST_EDGE_VOXELS:
        return []
    contrast = abs(float(np.median(part[blood])) - float(np.median(part[muscle])))
    slope = np.sqrt(sum(np.gradient(part, spacing, axis=axis) ** 2 for axis in range(3)))[edge]
    steepest = float(np.percentile(slope, _STEEPEST_PERCENT))
    width = contrast / steepest if steepest > 0 else 0.0
    return [finding("blurred", mm=width)] if width > _WIDEST_EDGE_MM else []


def noise_findings(image: np.ndarray, labels: np.ndarray) -> list[Finding]:
    """A finding for a heart in which noise is not small beside what blood and muscle differ by.

    The noise is that of a voxel of blood against the mean of its two neighbours from right to left, which for white
    noise of standard deviation s has that of sqrt(1.5) s; the median of the differences leaves out edges.

    Args:
        image: intensities in any units, ``(D, H, W)``.
        labels: ``(D, H, W)``.
    """
    blood = np.isin(labels, [BY_KEY[key].label for key in _CHAMBERS])
    inside = blood[..., 1:-1] & blood[..., :-2] & blood[..., 2:]
    inner = labels[..., 1:-1]
    inside &= (inner == labels[..., :-2]) & (inner == labels[..., 2:])
    ventricle, muscle = (image[labels == BY_KEY[key].label] for key in ("LV", "Myo"))
    if not (inside.any() and ventricle.size and muscle.size):
        return []
    differences = np.abs(image[..., 1:-1] - 0.5 * (image[..., :-2] + image[..., 2:]))[inside]
    noise = float(np.median(differences)) / (_MEDIAN_OF_NORMAL * 1.5**0.5)
    contrast = abs(float(np.median(ventricle)) - float(np.median(muscle)))
    ratio = min(noise / contrast, 10.0) if contrast > 0 else 10.0 * (noise > 0)
    return [finding("noisy", ratio=ratio)] if ratio > _MOST_NOISE else []


def structure_findings(measured: Mapping[str, Measurement], modality: str) -> dict[str, list[Finding]]:
    """Findings about brightness that blame single structures, by their keys.

    Args:
        measured: figures of every structure.
        modality: "CT" or "MR".
    """
    return _ct_structures(measured) if modality == "CT" else _mr_structures(measured)


def _ct_structures(measured: Mapping[str, Measurement]) -> dict[str, list[Finding]]:
    muscle = _brightness(measured, "Myo")
    left = {key: value for key in ("LV", "LA", "AA") if (value := _brightness(measured, key)) is not None}
    if muscle is None or len(left) < 2:
        return {}
    middle = float(np.median(list(left.values())))
    contrast = middle - muscle
    if contrast < _ENHANCED_HU:
        return {}
    found: dict[str, list[Finding]] = {}
    for key, value in left.items():
        if abs(value - middle) > _LEFT_HEART_SPREAD * contrast:
            found[key] = [finding("blood_differs", structure=key, hu=value, others_hu=middle)]
    for key in ("RV", "RA", "PA"):
        right = _brightness(measured, key)
        if right is not None and right < muscle - _BLOOD_BELOW_MUSCLE_HU:
            found[key] = [finding("blood_dark", structure=key, hu=right, muscle_hu=muscle)]
    return found


def _mr_structures(measured: Mapping[str, Measurement]) -> dict[str, list[Finding]]:
    muscle, blood = _brightness(measured, "Myo"), _brightness(measured, "LV")
    if muscle is None or blood is None or muscle <= _MOST_MUSCLE_BRIGHTNESS * blood:
        return {}
    ratio = min(muscle / blood, 100.0) if blood > 0 else 100.0
    return {key: [finding("muscle_bright", structure=key, ratio=ratio)] for key in ("LV", "Myo")}


def coarse_findings(
    coarse: np.ndarray, labels: np.ndarray, voxel_ml: float, keys: Collection[str]
) -> dict[str, Finding]:
    """Findings about structures that the localiser saw with another extent or elsewhere, by their keys.

    Args:
        coarse: labels of the seven structures by the localiser, ``(D, H, W)``.
        labels: the segmentation on the same grid.
        voxel_ml: ml.
        keys: of the structures that the localiser knows.
    """
    sizes, coarse_sizes, common = (
        np.bincount(array.ravel(), minlength=CLASS_COUNT) for array in (labels, coarse, labels[labels == coarse])
    )
    found = {}
    for key in keys:
        label = BY_KEY[key].label
        if key == _TOO_THIN or sizes[label] * voxel_ml < _LEAST_PART_ML:
            continue
        overlap = float(2 * common[label] / (sizes[label] + coarse_sizes[label]))
        if overlap < _LEAST_COARSE_OVERLAP:
            found[key] = finding("coarse_differs", structure=key, overlap=overlap)
    return found


def _brightness(measured: Mapping[str, Measurement], key: str) -> float | None:
    """Mean intensity of a structure, None where there is too little of it to tell."""
    measurement = measured.get(key)
    return measurement.mean_intensity if measurement and measurement.volume_ml >= _LEAST_PART_ML else None


def heart_findings(
    measured: Mapping[str, Measurement], shape: HeartShape | None, modality: str, body_width_mm: float | None = None
) -> list[Finding]:
    """Findings about the heart as a whole.

    Args:
        measured: figures of every structure.
        shape: how they lie to each other.
        modality: "CT" or "MR".
        body_width_mm: width of the body at the heart, see `body_width_mm`; None where it cannot be seen.
    """
    findings = _volume_findings(measured)
    if modality == "CT":
        findings += _ct_number_findings(measured)
    if shape is not None:
        findings += _shape_findings(measured, shape)
        if body_width_mm is not None:
            findings += _width_findings(shape.width_mm, body_width_mm)
    return findings


def _volume_findings(measured: Mapping[str, Measurement]) -> list[Finding]:
    if not all(measurement.volume_ml > 0 for measurement in measured.values()):
        return []  # a part that is not there, or that the weights do not know
    total = sum(measurement.volume_ml for measurement in measured.values())
    smallest, largest = _WHOLE_HEART_ML
    is_cut = any(measurement.touches_border for measurement in measured.values())
    if total > largest or (total < smallest and not is_cut):
        least, most = _NO_WHOLE_HEART_ML
        severity: Severity = "amber" if least <= total <= most else "red"
        return [finding("heart_volume", severity=severity, ml=total, smallest_ml=smallest, largest_ml=largest)]
    return []


def _ct_number_findings(measured: Mapping[str, Measurement]) -> list[Finding]:
    muscle = _brightness(measured, "Myo")
    low, high = _MYOCARDIUM_HU
    if muscle is None or low <= muscle <= high:
        return []
    return [finding("muscle_hu", hu=muscle, low_hu=low, high_hu=high)]


def _shape_findings(measured: Mapping[str, Measurement], shape: HeartShape) -> list[Finding]:
    findings = []
    wall = shape.wall_fraction
    has_both = all(_brightness(measured, key) is not None for key in ("LV", "Myo"))
    if wall is not None and wall < _LEAST_WALL and has_both:
        findings.append(finding("wall_open", fraction=wall))
    for (a, b), contact in shape.contacts_mm2.items():
        if contact < _LEAST_CONTACT_MM2 and all(_is_whole(measured.get(key)) for key in (a, b)):
            findings.append(finding("apart", first=a, second=b))
    is_cut = any(measured[key].touches_border for key in PARTS if key in measured)
    if shape.factors is not None and not is_cut:
        findings += stretch_findings(shape.factors)
    ventricle = shape.ventricle_stretch
    if shape.stretch > _MOST_STRETCH or (ventricle is not None and ventricle > _MOST_VENTRICLE_STRETCH):
        findings.append(finding("stretched", ratio=max(shape.stretch, ventricle or 0.0)))
    return findings


def stretch_findings(stretch: Stretch) -> list[Finding]:
    """A finding for a heart that seems stretched more than hearts differ from each other."""
    limit = _MOST_HIGHER if stretch.height > 0 else _MOST_LOWER
    beyond = float(np.hypot(stretch.height / limit, stretch.breadth / _MOST_WIDER))
    if beyond <= 1.0:
        return []
    factors = stretch.factors
    axis = int(np.abs(np.log(factors)).argmax())
    severity: Severity = "red" if beyond > _FAR_BEYOND else "amber"
    return [finding(("stretched_z", "stretched_y", "stretched_x")[axis], severity=severity, ratio=factors[axis])]


def oval_findings(
    labels: np.ndarray, volume: OrientedVolume, of_seven: Sequence[int] = range(CLASS_COUNT)
) -> list[Finding]:
    """A finding for a left ventricle that is no circle in short-axis slices, as pixels that are not square make it.

    Args:
        labels: of a block of the volume's voxels, ``(D, H, W)``.
        volume: the volume, with the directions in which the heart was found.
        of_seven: what each label counts as, of the seven structures.
    """
    ratio = oval_of(labels, volume.spacing, volume.rotation, of_seven)
    if ratio is None or ratio <= _MOST_OVAL:
        return []
    severity: Severity = "red" if ratio > _MOST_OVAL**_FAR_BEYOND else "amber"
    return [finding("ventricle_oval", severity=severity, ratio=ratio)]


def _is_whole(measurement: Measurement | None) -> bool:
    return measurement is not None and measurement.volume_ml >= _LEAST_PART_ML and not measurement.touches_border


def _width_findings(heart_mm: float, body_mm: float) -> list[Finding]:
    low, high = _BODY_MM
    if not low <= body_mm <= high:
        return [finding("body_width", mm=body_mm, low_mm=low, high_mm=high)]
    low, high = _HEART_SHARE
    if not low <= heart_mm / body_mm <= high:
        return [finding("heart_width", mm=heart_mm, body_mm=body_mm)]
    return []


def body_width_mm(plane: np.ndarray, spacing: float) -> float | None:
    """Width of the body in a slice of a CT, from its right to its left.

    Args:
        plane: intensities of an axial slice, ``(H, W)``, W from right to left, HU.
        spacing: of its columns, mm.

    Returns:
        mm, or None where the slice does not show air on both sides of it: lung does not count.
    """
    plane = np.nan_to_num(np.asarray(plane, np.float32), nan=-1e4, neginf=-1e4)
    is_body = ndimage.binary_opening(plane > _BODY_HU, iterations=2)
    labelled, count = ndimage.label(is_body)
    if count == 0:
        return None
    sizes = np.bincount(labelled.ravel())
    sizes[0] = 0
    columns = np.flatnonzero((labelled == sizes.argmax()).any(axis=0))
    beside = plane[:, : columns[0]], plane[:, columns[-1] + 1 :]
    if not all(side.shape[1] > 1 and np.median(side) < _AIR_HU for side in beside):
        return None
    return float((columns[-1] - columns[0] + 1) * spacing)


def body_width_at(volume: OrientedVolume, height_mm: float) -> float | None:
    """Median width of the body in three slices of a CT about a height of the local frame, mm; None where it cannot be
    seen.
    """
    widths = []
    for offset in (-20.0, 0.0, 20.0):
        index = round((height_mm + offset) / volume.spacing[0])
        if 0 <= index < volume.size[0]:
            step = max(1, round(2.0 / volume.spacing[2])), max(1, round(2.0 / volume.spacing[1]))
            plane = volume.voxels[index, :: step[1], :: step[0]]
            widths.append(body_width_mm(plane, float(volume.spacing[2] * step[0])))
    seen = [width for width in widths if width is not None]
    return float(np.median(seen)) if seen else None


def weights_findings(self_test: SelfTest | None) -> list[Finding]:
    """Findings for weights that did not recognise the phantom or could not be tried on it, and for those whose two
    segmentors are one; none for the others.
    """
    if self_test is None:
        return []
    found = [finding("one_segmentor")] if self_test.one_segmentor else []
    if self_test.found is None:
        found.append(finding("weights_untried"))
    elif not self_test.passed:
        found.append(finding("weights_unproven", found=self_test.found, known=self_test.known))
    return found


def second_heart_findings(millilitres: float) -> list[Finding]:
    """A finding for a second heart of this volume, none for 0."""
    return [finding("second_heart", ml=millilitres)] if millilitres > 0 else []


def second_heart_ml(labels: np.ndarray, voxel_ml: float) -> float:
    """Volume of a second heart in what the localiser found, 0 if there is none.

    Args:
        labels: the localiser's prediction on the whole volume, ``(D, H, W)``.
        voxel_ml: ml.
    """
    labelled, count = ndimage.label(labels > 0)
    if count < 2:
        return 0.0
    sizes = np.bincount(labelled.ravel())
    sizes[0] = 0
    largest = int(sizes.argmax())
    sizes_of_others = np.delete(sizes, largest)
    second = int(sizes_of_others.argmax())
    second += second >= largest
    if sizes[second] < _SECOND_HEART_SHARE * sizes[largest]:
        return 0.0
    volumes = np.bincount(labels[labelled == second], minlength=CLASS_COUNT) * voxel_ml
    chambers = sum(volumes[BY_KEY[key].label] >= _CHAMBER_ML for key in _CHAMBERS)
    return float(sizes[second] * voxel_ml) if chambers >= _SECOND_HEART_CHAMBERS else 0.0
