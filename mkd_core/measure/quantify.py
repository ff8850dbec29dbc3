"""Volumes, masses, and what to doubt: findings about what can be seen from the numbers alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mkd_core.inference.geometry import Grid, OrientedVolume
from mkd_core.inference.padding import labels_at_edges
from mkd_core.measure.agreement import AgreementLimits
from mkd_core.measure.heart_evidence import UNENHANCED
from mkd_core.measure.messages import finding
from mkd_core.method.ensemble import boxes, parts
from mkd_core.protocol import Finding, StructureReport
from mkd_core.structures import MYOCARDIUM_DENSITY, STRUCTURES, Structure

#: Parts that were left out are worth a warning from this share of the structure and from so many ml on.
_REMOVED_FRACTION = 0.1
_REMOVED_ML = 2.0

#: Voxels of a block that are enough to say which intensities its structures have.
_ENOUGH_VOXELS = 1_500_000


@dataclass(frozen=True)
class Measurement:
    """Figures of one structure.

    Attributes:
        volume_ml: ml.
        mean_intensity: of the input's voxels in it, HU for CT, of a large volume from a regular sample of them; None
            where there are none.
        touches_border: it reaches the outermost layer of the volume, a blank slice or padding, so part of it may be cut
            off.
        components: connected parts at the segmentors' resolution.
        agreement: Dice overlap of the two segmentors' predictions, None where neither found it.
        removed_ml: volume of its parts that were left out, ml.
        centre: (z, y, x) in the local frame, mm; None where the structure is empty.
    """

    volume_ml: float
    mean_intensity: float | None
    touches_border: bool
    components: int
    agreement: float | None
    centre: tuple[float, float, float] | None
    removed_ml: float = 0.0


def measure(
    structures: Sequence[Structure],
    labels: np.ndarray,
    field: OrientedVolume,
    block: tuple[slice, slice, slice],
    coarse: np.ndarray,
    grid: Grid,
    agreements: Sequence[float | None],
    removed: Sequence[int] | np.ndarray,
) -> dict[str, Measurement]:
    """Measure every structure.

    Args:
        structures: what the labels mean.
        labels: label map of a block of the volume, the anatomical way round; elsewhere all labels are 0.
        field: the volume.
        block: where the block lies.
        coarse: labels on the segmentors' grid.
        grid: the segmentors' grid.
        agreements: of the two segmentors, per label.
        removed: voxels of parts that were left out on the segmentors' grid, per label.
    """
    counts = _count(labels, structures)
    means = _mean_intensities(labels, field.voxels[block], len(structures) + 1)
    at_border = labels_at_edges(labels, field, block)
    found = boxes(coarse)
    measured = {}
    for structure in structures:
        label = structure.label
        box = found.get(label)
        mask = None if box is None else coarse[box] == label
        count = counts[label]
        measured[structure.key] = Measurement(
            volume_ml=float(count * field.voxel_ml),
            mean_intensity=means[label],
            touches_border=label in at_border,
            components=0 if mask is None else len(parts(mask)[1]) - 1,
            agreement=agreements[label],
            centre=None if box is None or mask is None else _centre(mask, box, grid),
            removed_ml=float(removed[label] * grid.voxel_ml),
        )
    return measured


def _count(labels: np.ndarray, structures: Sequence[Structure]) -> np.ndarray:
    """Voxels of every label; comparing bytes plane by plane is several times as fast as numpy.bincount, which widens
    them first.
    """
    counts = np.zeros(len(structures) + 1, np.int64)
    for plane in labels:
        for structure in structures:
            counts[structure.label] += np.count_nonzero(plane == structure.label)
    return counts


def regular_sample(size: int) -> tuple[slice, slice, slice]:
    """Every n-th voxel along each axis of a block of so many, n = 1 unless it is large."""
    step = max(1, round((size / _ENOUGH_VOXELS) ** (1 / 3)))
    return (slice(None, None, step),) * 3


def _mean_intensities(labels: np.ndarray, voxels: np.ndarray, class_count: int) -> list[float | None]:
    """Mean intensity of every label, None where there are no voxels; of a large block every n-th voxel along each axis
    is looked at.
    """
    every = regular_sample(labels.size)
    counts, sums = np.zeros(class_count), np.zeros(class_count)
    for plane, values in zip(labels[every], voxels[every]):
        labelled = plane > 0
        inside = plane[labelled]
        counts += np.bincount(inside, minlength=class_count)
        sums += np.bincount(inside, values[labelled], minlength=class_count)
    return [float(total / count) if count else None for total, count in zip(sums, counts)]


def _centre(mask: np.ndarray, box: tuple[slice, slice, slice], grid: Grid) -> tuple[float, float, float]:
    index = np.argwhere(mask).mean(axis=0) + [side.start for side in box]
    z, y, x = index * grid.steps + np.asarray(grid.start)
    return float(z), float(y), float(x)


def with_all_seven(measured: Mapping[str, Measurement]) -> dict[str, Measurement]:
    """The same with empty entries for those of the seven structures that the weights do not know."""
    nothing = Measurement(0.0, None, touches_border=False, components=0, agreement=None, centre=None)
    return dict.fromkeys((structure.key for structure in STRUCTURES), nothing) | dict(measured)


def structure_report(
    structure: Structure,
    measurement: Measurement,
    limits: AgreementLimits,
    doubts: Sequence[Finding] = (),
    *,
    by_one_network: bool = False,
) -> StructureReport:
    """Figures and warnings of one structure, ready for JSON.

    Args:
        structure: which one.
        measurement: its figures.
        limits: agreement of the two segmentors below which it is doubted.
        doubts: what else was found about it, see :mod:`mkd_core.measure.plausibility`.
        by_one_network: its agreement is not that of two segmentors, but what one network expects of itself.
    """
    warnings = [*structure_warnings(structure, measurement, limits, by_one_network=by_one_network), *doubts]
    report: StructureReport = {
        "volume_ml": round(measurement.volume_ml, 3),
        "mean_intensity": None if measurement.mean_intensity is None else round(measurement.mean_intensity, 2),
        "components": measurement.components,
        "touches_border": measurement.touches_border,
        "removed_ml": round(measurement.removed_ml, 3),
        "agreement": None if measurement.agreement is None else round(measurement.agreement, 4),
        "warnings": [one.to_dict() for one in warnings],
    }
    if not structure.is_blood:
        report["mass_g"] = round(measurement.volume_ml * MYOCARDIUM_DENSITY, 3)
    return report


def structure_warnings(
    structure: Structure, measurement: Measurement, limits: AgreementLimits, *, by_one_network: bool = False
) -> list[Finding]:
    """What to doubt of one structure; arguments as for :func:`structure_report`."""
    key = structure.key
    if measurement.volume_ml == 0:
        return [finding("not_found" if measurement.agreement is None else "not_found_by_one", structure=key)]
    found = []
    smallest, largest = structure.plausible_ml
    usual: dict[str, Any] = {"smallest_ml": smallest, "largest_ml": largest}
    if measurement.touches_border:
        found += [] if structure.open_ended else [finding("touches_border", structure=key)]
    elif measurement.volume_ml < smallest:
        found.append(finding("too_small", structure=key, **usual))
    if measurement.volume_ml > largest:
        found.append(finding("too_large", structure=key, **usual))
    if measurement.components > structure.usual_parts:
        found.append(finding("separate_parts", structure=key, count=measurement.components))
    if measurement.removed_ml > max(_REMOVED_ML, _REMOVED_FRACTION * measurement.volume_ml):
        found.append(finding("removed_parts", structure=key, removed_ml=measurement.removed_ml))
    what = "confidence" if by_one_network else "agreement"
    for grade, limit in (("very_low", limits.very_low), ("low", limits.low)):
        if measurement.agreement is not None and measurement.agreement < limit:
            found.append(finding(f"{what}_{grade}", structure=key, agreement=measurement.agreement, limit=limit))
            break
    return found


def global_warnings(measured: Mapping[str, Measurement], modality: str) -> list[Finding]:
    """What to doubt of the result as a whole."""
    found = [
        finding(code, first=first, second=second)
        for code, first, second, axis, sign in _ORDER
        if _is_beyond(measured, first, second, axis, sign)
    ]
    blood = [
        intensity
        for key in ("LV", "LA", "AA")
        if key in measured and (intensity := measured[key].mean_intensity) is not None
    ]
    if modality == "CT" and blood and max(blood) < UNENHANCED:
        found.append(finding("no_contrast_agent", hu=max(blood)))
    return found


def _is_beyond(measured: Mapping[str, Measurement], first: str, second: str, axis: int, sign: int) -> bool:
    """Whether the centre of ``first`` lies beyond that of ``second`` along an axis (0 head, 1 back, 2 left); False
    where one of them is missing.
    """
    a, b = (measured[key].centre if key in measured else None for key in (first, second))
    if a is None or b is None:
        return False
    return sign * (a[axis] - b[axis]) > 0


#: What no heart that lies as hearts do shows: code of the finding, two structures, axis and sign of the mistake.
_ORDER = (("left_of", "RA", "LV", 2, 1), ("in_front_of", "LA", "RV", 1, -1), ("below", "AA", "LV", 0, -1))
