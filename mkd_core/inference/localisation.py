"""Where the heart is: the localiser's look at the whole volume, or the box that a user drew.

The localiser labels all structures on a coarse grid.  How surely it does so also tells how well the image fits what it
knows, and that depends on the way round: a heart that is mirrored or lies on wrong axes is recognised less well than
the same heart the right way round.  :class:`OrientationSearch` makes use of that.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mkd_core.arrays import as_array, as_tensor
from mkd_core.inference.geometry import Grid, OrientedVolume, enclosing_grid
from mkd_core.inference.normalisation import denormalise, normalise
from mkd_core.inference.resampling import sample, weights
from mkd_core.measure.messages import finding, refusal
from mkd_core.measure.plausibility import second_heart_ml
from mkd_core.method import ensemble
from mkd_core.structures import CLASS_COUNT, STRUCTURES, labels_of_the_seven

if TYPE_CHECKING:
    import torch

    from mkd_core.inference.execution import Executor
    from mkd_core.io.bundle import Bundle

#: Most voxels of the localiser's grid; at 5 mm this is a cubic metre.
_MOST_COARSE_VOXELS = 8_000_000

#: A structure of which the localiser finds less was not recognised, ml.
LEAST_STRUCTURE_ML = 2.0

#: A part belongs to the heart if it has this fraction of the largest part's voxels and is so near to it, mm.
_PART_FRACTION, _PART_DISTANCE = 0.1, 25.0

#: Upper percentile of the second look at an image whose first look showed no heart.  A few very bright voxels at the
#: surface of the body, as receive coils make them in MR, can leave the heart in the darkest part of the range.
_NARROW_PERCENTILE = 94.0

#: Percentiles of a look at a stack that shows little but the heart and what is beside it.  Without air round the body
#: the darkest hundredth is what is rarest there, and heart and muscle lie in the brightest part of the range.
_WITHOUT_AIR = (25.0, 99.0)

#: A box of this side holds the heart of an adult with the great vessels, mm.
_WHOLE_HEART = 150.0

#: Around the heart, so much is shown to the localiser when orientations are compared, mm; so much at least, and at
#: most: what seems larger than any heart takes long to look at 48 times.
_SURROUNDINGS, _LEAST_SIDE, _LARGEST_SIDE = 20.0, 160.0, 240.0

#: Shortest side of a box that a user draws, mm.
SHORTEST_BOX = 20.0

#: Another orientation is better if its recognition exceeds the given one's by so much: the mirror image, any other.
#: ``python -m Testing.trust.orientations`` shows what they do.
_MIRROR_MARGIN, _TURN_MARGIN = 0.02, 0.08

#: All orientations but the mirror image are left untried if the segmentors' joint agreement reaches the first, or
#: together with recognition the second; and none counts in which the heart is recognised less than the third.
#: The same command shows what they do.
_AGREED, _SURE, _LEAST_RECOGNITION = 0.9, 1.6, 0.6


@dataclass(frozen=True)
class Orientation:
    """One of the 48 ways in which the axes of an array can be exchanged and reversed.

    Attributes:
        axes: axis of the array as given that becomes axis z, y, x.
        signs: -1 for an axis that is reversed afterwards.
    """

    axes: tuple[int, int, int] = (0, 1, 2)
    signs: tuple[int, int, int] = (1, 1, 1)

    def apply(self, values: torch.Tensor) -> torch.Tensor:
        """``(D, H, W)`` with its axes exchanged and reversed."""
        return values.permute(self.axes).flip([axis for axis, sign in enumerate(self.signs) if sign < 0])


#: Left and right exchanged.
MIRRORED = Orientation(signs=(1, 1, -1))

#: All, those with reversed axes only first: these are the mistakes that are made most.
ORIENTATIONS = tuple(
    Orientation((a, b, c), (d, e, f))
    for a, b, c in itertools.permutations(range(3))
    for d, e, f in itertools.product((1, -1), repeat=3)
)


#: What a stack of short-axis slices is called: where its columns, rows and slices are counted to, and what stands for
#: the other way.
_ACROSS, _DOWN, _THROUGH = ("lateral", "septal"), ("inferior", "anterior"), ("apical", "basal")


def _short_axis_directions() -> dict[str, np.ndarray]:
    """All directions of short-axis stacks by their names, the two usual ones first."""
    towards_apex = np.array([0.62, -0.60, -0.50])  # of a usual heart; to the left, the front and the feet
    to_lateral_wall = np.array([0.70, 0.65, -0.25])
    slices = towards_apex / np.linalg.norm(towards_apex)
    across = to_lateral_wall - (to_lateral_wall @ slices) * slices
    across /= np.linalg.norm(across)
    down = np.cross(across, slices)
    found = {}
    for is_exchanged, x, y, z in itertools.product((False, True), (1, -1), (1, -1), (1, -1)):
        within = [(_ACROSS[x < 0], x * across), (_DOWN[y < 0], y * down)]
        if is_exchanged:
            within.reverse()
        names, axes = zip(*within, (_THROUGH[z < 0], z * slices))
        found[f"short axis ({', '.join(names)})"] = np.stack(axes, axis=1)
    return found


#: Direction matrices (LPS) of stacks of short-axis slices, by their names.
STACK_DIRECTIONS = _short_axis_directions()

#: Those in the standard short-axis plane (septum on the left of each image, anterior wall at its top), base first and
#: apex first.  Kramer et al., "Standardized cardiovascular magnetic resonance imaging (CMR) protocols: 2020 update", J
#: Cardiovasc Magn Reson 22:17, show the plane.
SHORT_AXIS = tuple(STACK_DIRECTIONS)[:2]

#: The same stacks with rows and columns exchanged or reversed, as formats without directions exchange them.
TURNED_SHORT_AXIS = tuple(STACK_DIRECTIONS)[2:]

#: A volume whose slices are so much thicker than their pixels, mm and times, may be a short-axis stack.
_STACK_MM, _STACK_TIMES = 4.0, 2.0


def may_be_short_axis(volume: OrientedVolume, modality: str) -> bool:
    """Whether a volume is a stack of thick slices, as they are taken along the heart's own axis in MR."""
    longest, second = sorted(volume.image.GetSpacing(), reverse=True)[:2]
    return (
        modality == "MR"
        and longest == volume.image.GetSpacing()[2]
        and longest >= max(_STACK_MM, _STACK_TIMES * second)
    )


@dataclass(frozen=True)
class Localisation:
    """What the localiser sees.

    Attributes:
        image: the volume on the localiser's grid, normalised, ``(D, H, W)``.
        rule: by which it was normalised.
        grid: the localiser's grid.
        probabilities: of the seven structures and background, ``(8, D, H, W)``.
        labels: of the heart, ``(D, H, W)``, uint8; 0 outside the volume.
        recognition: how surely the structures are recognised, 0 to 1, see :func:`recognition_score`.
        touches_border: the heart reaches the outermost voxels of the volume.
        second_ml: volume of a second heart in the volume, ml; 0 if there is none.
    """

    image: torch.Tensor
    rule: dict[str, Any]
    grid: Grid
    probabilities: torch.Tensor
    labels: np.ndarray
    recognition: float
    touches_border: bool
    second_ml: float

    @property
    def volumes_ml(self) -> np.ndarray:
        """Volume of every structure, by label, ml; index 0 is 0."""
        volumes = np.bincount(self.labels.ravel(), minlength=CLASS_COUNT) * self.grid.voxel_ml
        volumes[0] = 0.0
        return volumes

    def blood(self) -> float | None:
        """Mean intensity of what is labelled blood, HU; None where there is none, or the intensities mean nothing."""
        blood = [structure.label for structure in STRUCTURES if structure.is_blood]
        inside = np.isin(self.labels, blood)
        if self.rule["kind"] != "window" or not inside.any():
            return None
        return float(as_array(denormalise(self.image, self.rule))[inside].mean())

    def box(self, margin: float, least_heart_ml: float) -> tuple[np.ndarray, np.ndarray]:
        """Corners (z, y, x) of the box round the heart with a margin, mm.  There must be a heart.

        Where less than ``least_heart_ml`` was found, there is more of the heart around it, and the box is made larger.
        """
        points = np.argwhere(self.labels)
        start, reach = np.asarray(self.grid.start), 0.5 * self.grid.steps + margin
        low = start + points.min(axis=0) * self.grid.steps - reach
        high = start + points.max(axis=0) * self.grid.steps + reach
        if self.volumes_ml.sum() < least_heart_ml:
            lacking = np.maximum(0.5 * (_WHOLE_HEART - (high - low)), 0.0)
            low, high = low - lacking, high + lacking
        return low, high

    def on_grid(self, grid: Grid) -> torch.Tensor:
        """Probabilities on another grid, interpolated, ``(8, D, H, W)``; outside the heart all is background."""
        own = self.probabilities * as_tensor(self.labels > 0)
        own[0] += 1.0 - own.sum(dim=0)
        along_z, along_y, along_x = (
            as_tensor(weights(own_count, own_step, start - own_start + step * np.arange(count), own_step))
            for count, start, step, own_count, own_start, own_step in zip(
                grid.size, grid.start, grid.steps, self.grid.size, self.grid.start, self.grid.steps
            )
        )
        planes = along_z @ own.flatten(2)
        on_grid: torch.Tensor = along_y @ planes.view(*planes.shape[:2], *own.shape[2:]) @ along_x.T
        return on_grid


def intensity_rules(rule: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The bundle's rule for normalisation, and the one for a second look where the first shows no heart.

    A range in Hounsfield units has a meaning and stays; percentiles are a guess, of which there can be a second one.
    """
    rules = [dict(rule)]
    if rule["kind"] == "percentile" and rule["high"] > _NARROW_PERCENTILE:
        rules.append({**rule, "high": _NARROW_PERCENTILE})
    return rules


def rules_without_air(rule: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rule for a stack that is cropped to the heart, where the bundle's rule is one of percentiles."""
    low, high = _WITHOUT_AIR
    return [{**rule, "low": low, "high": high}] if rule["kind"] == "percentile" else []


def localise(
    field: OrientedVolume,
    bundle: Bundle,
    rule: dict[str, Any],
    executor: Executor,
    poll: Callable[[], None] = lambda: None,
) -> Localisation:
    """Let the localiser look at a volume.

    Args:
        field: the volume.
        bundle: the weights.
        rule: for normalisation, see :func:`intensity_rules` and :func:`rules_without_air`.
        executor: runs the localiser.
        poll: called often; may raise to stop.

    Raises:
        InputError: the volume shows more than a person.
    """
    grid = enclosing_grid(field, bundle.localiser_spacing, bundle.localiser_stride)
    if math.prod(grid.size) > _MOST_COARSE_VOXELS:
        raise refusal(finding("larger_than_a_person"))
    values = sample(field, grid, sparsely=True)
    poll()
    inside = _voxels_inside(grid, field)
    image = normalise(values, rule, values[inside])
    probabilities = _of_the_seven(executor.run("localiser", image[None, None], poll)[0].softmax(dim=0), bundle)
    labels = np.zeros(grid.size, np.uint8)
    labels[inside] = as_array(ensemble.best_class(probabilities))[inside]
    labelled, kept = heart_parts(labels, float(grid.steps[0]))
    heart = np.where(np.isin(labelled, kept), labels, 0).astype(np.uint8)
    second_ml = second_heart_ml(np.where(np.isin(labelled, kept[1:]), 0, labels), grid.voxel_ml)
    within = heart[inside]
    touches = any(within.take(end, axis).any() for axis in range(3) for end in (0, -1))
    recognition = recognition_score(probabilities, labels, grid.voxel_ml, known_structures(bundle))
    return Localisation(image, rule, grid, probabilities, heart, recognition, touches, second_ml)


def heart_parts(labels: np.ndarray, spacing: float) -> tuple[np.ndarray, list[int]]:
    """Connected parts of a label array ``(D, H, W)``, numbered from 1, and the numbers of those that belong to the
    heart: the largest, and the larger ones near it; none if nothing is labelled.
    """
    labelled, sizes = ensemble.parts(labels > 0)
    sizes[0] = 0
    if not sizes.any():
        return labelled, []
    main = int(sizes.argmax())
    places = np.argwhere(labelled == main)
    low, high = places.min(axis=0) - _PART_DISTANCE / spacing, places.max(axis=0) + _PART_DISTANCE / spacing
    kept = [main]
    for part in np.flatnonzero(sizes >= _PART_FRACTION * sizes[main]):
        places = np.argwhere(labelled == part)
        if part != main and (places.min(axis=0) <= high).all() and (places.max(axis=0) >= low).all():
            kept.append(int(part))
    return labelled, kept


def known_structures(bundle: Bundle) -> int:
    """How many of the seven structures the localiser can tell apart."""
    return len(set(labels_of_the_seven(bundle.localiser_structures)) - {0})


def _of_the_seven(probabilities: torch.Tensor, bundle: Bundle) -> torch.Tensor:
    """Probabilities of the localiser's own classes added up to those of the seven structures, ``(8, D, H, W)``."""
    seven = labels_of_the_seven(bundle.localiser_structures)
    if seven == list(range(CLASS_COUNT)):
        return probabilities
    merged = probabilities.new_zeros((CLASS_COUNT, *probabilities.shape[1:]))
    for label, values in zip(seven, probabilities):
        merged[label] += values
    return merged


def recognition_score(
    probabilities: torch.Tensor, labels: np.ndarray, voxel_ml: float, known: int = CLASS_COUNT - 1
) -> float:
    """How surely a heart is recognised: the mean probability with which each structure was labelled, averaged over all
    structures; a structure that is missing from the largest connected part counts 0.

    Args:
        probabilities: ``(8, D, H, W)``.
        labels: their best classes, 0 where there is no image, ``(D, H, W)``.
        voxel_ml: volume of a voxel, ml.
        known: how many structures can be recognised.
    """
    labelled, sizes = ensemble.parts(labels > 0)
    sizes[0] = 0
    if not sizes.any():
        return 0.0
    main = labelled == int(sizes.argmax())
    best, found = as_array(probabilities.amax(dim=0))[main], labels[main]
    counts = np.bincount(found, minlength=CLASS_COUNT)
    sums = np.bincount(found, best, minlength=CLASS_COUNT)
    present = counts * voxel_ml > LEAST_STRUCTURE_ML
    present[0] = False
    return float((sums[present] / counts[present]).sum() / max(known, 1))


@dataclass(frozen=True)
class BetterOrientation:
    """An orientation in which the heart is recognised better than in the given one.

    Attributes:
        orientation: to bring the volume to.
        recognition: of the heart then, 0 to 1.
        given: recognition as the volume is.
    """

    orientation: Orientation
    recognition: float
    given: float


class OrientationSearch:
    """Shows the localiser the heart in other orientations.

    Args:
        seen: the localiser's look at the volume as it is; must hold some label.
        bundle: the weights.
        executor: runs the localiser.
        poll: called often; may raise to stop.
    """

    def __init__(
        self, seen: Localisation, bundle: Bundle, executor: Executor, poll: Callable[[], None] = lambda: None
    ) -> None:
        self._seen, self._bundle, self._executor, self._poll = seen, bundle, executor, poll
        self._near = seen.image[_surroundings(seen, bundle.localiser_stride)]
        self._recognised_near: dict[Orientation, float] = {}

    @functools.cached_property
    def mirrored(self) -> float:
        """Recognition in the mirror image of the whole volume, 0 to 1."""
        return self._recognition(MIRRORED, self._seen.image)

    def better(self, joint_agreement: float) -> BetterOrientation | None:
        """Look for an orientation in which the heart is recognised better.

        The mirror image is always tried: it is a mistake that leaves a heart whose parts all look right.  The others,
        which take longer, are tried where the heart is recognised poorly and the two segmentors agree poorly on it.

        Args:
            joint_agreement: of the two segmentors on the heart, 0 to 1, see
                :func:`mkd_core.method.ensemble.joint_agreement`.
        """
        given = self._seen.recognition
        # The surroundings of the heart are quick to look at; what they show must hold for the whole volume.
        looks_mirrored = self._near_recognition(MIRRORED) > given + _MIRROR_MARGIN
        is_mirrored = looks_mirrored and self.mirrored > given + _MIRROR_MARGIN
        if joint_agreement < _AGREED and given + joint_agreement < _SURE:
            near = self._near_recognition(Orientation())
            best = max(
                (BetterOrientation(one, self._near_recognition(one), near) for one in ORIENTATIONS),
                key=lambda one: one.recognition,
            )
            if best.orientation != MIRRORED and best.recognition > max(near + _TURN_MARGIN, _LEAST_RECOGNITION):
                return best
        return BetterOrientation(MIRRORED, self.mirrored, given) if is_mirrored else None

    def _near_recognition(self, orientation: Orientation) -> float:
        if orientation not in self._recognised_near:
            self._recognised_near[orientation] = self._recognition(orientation, self._near)
        return self._recognised_near[orientation]

    def _recognition(self, orientation: Orientation, image: torch.Tensor) -> float:
        self._poll()
        turned = orientation.apply(image).contiguous()
        logits = self._executor.run("localiser", turned[None, None], self._poll)[0]
        probabilities = _of_the_seven(logits.softmax(dim=0), self._bundle)
        labels = as_array(ensemble.best_class(probabilities))
        return recognition_score(probabilities, labels, self._seen.grid.voxel_ml, known_structures(self._bundle))


def _surroundings(seen: Localisation, stride: int) -> tuple[slice, ...]:
    """Voxels of the heart and of what is around it, in sides of multiples of ``stride``: every orientation fits."""
    points = np.argwhere(seen.labels)
    low, high = points.min(axis=0), points.max(axis=0) + 1
    slices = []
    for first, last, count, step in zip(low, high, seen.labels.shape, seen.grid.steps):
        wanted_mm = (last - first) * step + 2 * _SURROUNDINGS
        side = min(max(wanted_mm, _LEAST_SIDE), _LARGEST_SIDE) / step
        wanted = min(count, math.ceil(side / stride) * stride)  # the grid's own sides are multiples too
        start = int(np.clip((first + last - wanted) // 2, 0, count - wanted))
        slices.append(slice(start, start + wanted))
    return tuple(slices)


def box_from_bounds(bounds: Sequence[float], field: OrientedVolume) -> tuple[np.ndarray, np.ndarray]:
    """Corners (z, y, x) in the local frame, mm, of a box that a user drew; where the directions of the volume were
    replaced, of the smallest one round it.

    Args:
        bounds: (x0, x1, y0, y1, z0, z1), LPS mm in the world.
        field: the volume.

    Raises:
        InputError: the box lies outside the volume, or is too small to hold a heart.
    """
    corners = field.from_world(np.array(list(itertools.product(*np.asarray(bounds, float).reshape(3, 2)))))
    low, high = corners.min(axis=0), corners.max(axis=0)
    bound_low, bound_high = field.bounds()
    low, high = np.maximum(low, bound_low), np.minimum(high, bound_high)
    if (high <= low).any():
        raise refusal(finding("box_outside"))
    if (high - low).min() < SHORTEST_BOX:
        raise refusal(finding("box_small", mm=float((high - low).min())))
    return low, high


def _voxels_inside(grid: Grid, field: OrientedVolume) -> tuple[slice, ...]:
    """Voxels of an enclosing grid that are not all padding."""
    low, high = field.bounds()
    first = np.maximum(np.ceil((low - grid.start) / grid.steps - 0.5), 0).astype(int)
    last = np.minimum(np.floor((high - grid.start) / grid.steps + 0.5), np.array(grid.size) - 1).astype(int)
    return tuple(slice(int(a), int(b) + 1) for a, b in zip(first, last))
