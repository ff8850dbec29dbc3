"""From a volume to the structures of its heart: the method's steps, top to bottom.

    check -> localise heart -> crop and resample to the bundle's grid -> normalise -> IAM -> S_real, S_syn -> ensemble
          -> back to the input's grid -> quantify and question

Li, Yu, Wang, Heng, "Towards Cross-modality Medical Image Segmentation with Online Mutual Knowledge Distillation", AAAI
2020.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk

import mkd_core
from mkd_core.arrays import as_array
from mkd_core.errors import DeviceError, MKDError, NoHeartError
from mkd_core.inference.clock import Clock
from mkd_core.inference.components import remove_small_components
from mkd_core.inference.geometry import Grid, OrientedVolume, box_grid, overlap_slices
from mkd_core.inference.image_check import validate_image
from mkd_core.inference.localisation import (
    SHORT_AXIS,
    Localisation,
    OrientationSearch,
    box_from_bounds,
    intensity_rules,
    known_structures,
    localise,
    may_be_short_axis,
)
from mkd_core.inference.memory import release_memory
from mkd_core.inference.normalisation import denormalise, normalise
from mkd_core.inference.padding import without_marks
from mkd_core.inference.resampling import sample, write_labels
from mkd_core.io.bundle import Bundle, default_bundle_path, load_bundle
from mkd_core.io.bundle_metadata import PARTS
from mkd_core.measure import heart_evidence, plausibility, quantify
from mkd_core.measure.agreement import agreement_limits
from mkd_core.measure.messages import finding, refusal
from mkd_core.measure.orientation import (
    ALL_DIRECTIONS,
    AS_GIVEN,
    SHORT_AXIS_STACK,
    directions,
    frame_findings,
    orientation_findings,
)
from mkd_core.method import ensemble
from mkd_core.method.alignment import Views, align_for_segmentors
from mkd_core.protocol import SEGMENTORS, Finding, Report, SegmentationOptions, StructureReport, check_modality
from mkd_core.structures import CLASS_COUNT, STRUCTURES, Structure, labels_of_the_seven

if TYPE_CHECKING:
    import torch

    from mkd_core.inference.execution import Executor

#: From a volume of so many bytes on, what the networks freed is not kept for the next run.
_HUGE_BYTES = 10**9

#: Size of the largest small component, in voxels of the networks' grid.
_SMALL_COMPONENT_VOXELS = 2.0

#: A frame that is recognised so much better or worse than the first one of its sequence may lie otherwise.
_FRAME_DIFFERS = 0.1

#: Label of each of the seven structures.
_SEVEN = {structure.key: structure.label for structure in STRUCTURES}


@dataclass(frozen=True)
class SegmentationResult:
    """What a segmentation gives.

    Attributes:
        labels: uint8, 0 for background and the labels that ``report["labels"]`` gives the structures; size, spacing,
            origin and direction exactly the input's.
        report: figures, warnings, timings and provenance; plain values, ready for JSON.
        disagreement: where the two segmentors differ, 0 to 1, float32, on the segmentors' own upright grid; or None.
        aligned: the volume as the generators rendered it, in HU if that is a CT, on the same grid; or None.
    """

    labels: sitk.Image
    report: Report
    disagreement: sitk.Image | None = None
    aligned: sitk.Image | None = None


def segment(
    image: sitk.Image,
    bundle: Bundle | Path | str | Callable[[], Bundle] | None = None,
    *,
    modality: str = "CT",
    options: SegmentationOptions | None = None,
    progress: Callable[[str, float, str], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> SegmentationResult:
    """Segment the heart in a volume.

    Args:
        image: 3-D volume; HU for CT.
        bundle: weights, the file that holds them, or a function that loads them and is called when the volume has been
            checked; None for the bundle that comes with this package.
        modality: "CT" or "MR".
        options: device, precision and what else to return.
        progress: called as ``progress(stage, fraction, message)``; ``fraction`` of the whole, 0 to 1, never falls.
        cancelled: polled between all steps and layers; True stops the run.

    Raises:
        InputError: the volume or an option cannot be used.
        BundleError: the weights cannot be used.
        NoHeartError: there is no heart to segment.
        DeviceError: the device is missing or out of memory.
        Cancelled: ``cancelled`` said so.
    """
    options = options or SegmentationOptions()
    clock = Clock(progress, cancelled)

    clock.enter("check", "Checking the volume")
    check_modality(modality)
    image, marks = without_marks(image, modality)
    warnings = marks + validate_image(image, modality)
    volume = OrientedVolume(image)

    clock.enter("check", "Loading the weights")
    require_torch()  # after everything that can be refused without it
    from mkd_core.inference.execution import compute_settings

    if callable(bundle):
        bundle = bundle()
    elif not isinstance(bundle, Bundle):
        bundle = load_bundle(bundle or default_bundle_path())
    structures = bundle.structures
    options.check(modality, bundle.target, [structure.key for structure in structures])
    executor = _executor(bundle, options)
    policy = options.alignment or bundle.alignment(modality)
    run = _Run(volume, bundle, modality, policy, options, executor, clock)

    with compute_settings(options.threads) as threads:
        found = _find_heart(run)
        run = dataclasses.replace(run, volume=found.volume)
        volume, grid, prediction = run.volume, found.grid, found.prediction

        clock.enter("restore", "Bringing the result to the volume's grid")
        labels, block = _restore(prediction, grid, volume, clock)

    clock.enter("measure", "Measuring")
    of_structures, doubts = _measure(run, found, labels, block)
    warnings += doubts + _warnings_of_run(executor, found.is_cut)
    unwanted = [s for s in structures if options.structures is not None and s.key not in options.structures]
    for structure in unwanted:
        labels[labels == structure.label] = 0
        del of_structures[structure.key]
    labels_image = volume.block_to_image(labels, block)
    clock.advance(1.0, "Done")

    return SegmentationResult(
        labels_image,
        _report(run, found, of_structures, warnings, threads),
        disagreement=volume.grid_to_image(as_array(prediction.disagreement), grid)
        if options.with_disagreement
        else None,
        aligned=_aligned_image(found.views.rendered, volume, grid, bundle) if options.with_aligned else None,
    )


def warm(bundle: Bundle, options: SegmentationOptions) -> dict[str, Any]:
    """Get all networks of a bundle ready, so that the next :func:`segment` need not.

    Returns:
        ``seconds`` it took, ``device``, ``precision`` and ``bundle``, plain values.

    Raises:
        DeviceError: the device is missing or out of memory.
    """
    start = time.perf_counter()
    executor = _executor(bundle, options)
    for part in PARTS:
        executor.prepare(part)
    return {
        "seconds": round(time.perf_counter() - start, 3),
        "device": str(executor.device),
        "precision": str(executor.precision).removeprefix("torch."),
        "bundle": bundle.identity,
    }


def require_torch() -> None:
    """Raise :class:`DeviceError` if torch cannot be imported."""
    try:
        from torch import Tensor  # noqa: F401  (an uninstallation that failed half-way leaves a package without it)
    except (
        Exception
    ) as error:  # ImportError, OSError if a library does not load, and whatever a broken installation comes up with
        raise refusal(finding("torch_missing"), DeviceError) from error


def _executor(bundle: Bundle, options: SegmentationOptions) -> Executor:
    from mkd_core.inference import execution

    device = execution.choose_device(options.device)
    return execution.Executor(
        bundle, device, execution.choose_precision(options.precision, device), options.device == "auto"
    )


@dataclass(frozen=True)
class _Run:
    """What holds from the first to the last step of a run."""

    volume: OrientedVolume
    bundle: Bundle
    modality: str
    policy: str
    options: SegmentationOptions
    executor: Executor
    clock: Clock

    @property
    def first_orientation(self) -> str | None:
        """What the first frame of the sequence showed, None where there is none or it is this one."""
        return None if self.options.first_frame is None else self.options.first_frame[0]


@dataclass(frozen=True)
class _Prediction:
    """What the segmentors say about the box.

    (C, D, H, W) probabilities, (D, H, W) labels and disagreement; per label, the agreement of the two and the voxels of
    parts that were left out.
    """

    probabilities: torch.Tensor
    labels: np.ndarray
    disagreement: torch.Tensor
    agreements: list[float | None]
    removed: np.ndarray


@dataclass(frozen=True)
class _Heart:
    """A box round a heart, segmented.

    ``volume`` is the one that the grid lies in, with the directions in which the heart was found; ``seen`` is what the
    localiser saw there, None if a user drew the box; ``agreement`` is the two segmentors' joint one; ``structures`` are
    those of the labels; ``doubts`` and ``evidence``, which is ready for JSON, say what speaks against a heart there and
    for it.
    """

    volume: OrientedVolume
    grid: Grid
    is_cut: bool
    image: torch.Tensor
    views: Views
    prediction: _Prediction
    agreement: float
    seen: Localisation | None
    structures: tuple[Structure, ...]
    doubts: tuple[Finding, ...] = ()
    evidence: dict[str, float | str] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def seven(self) -> np.ndarray:
        """Labels of whole-heart segmentation on the grid, ``(D, H, W)``, uint8."""
        of_seven: np.ndarray = np.array(labels_of_the_seven(self.structures), np.uint8)
        return of_seven.take(self.prediction.labels)

    @functools.cached_property
    def volumes_ml(self) -> np.ndarray:
        """Volumes of the seven structures by label, ml; index 0 is 0."""
        volumes = np.bincount(self.seven.ravel(), minlength=CLASS_COUNT) * self.grid.voxel_ml
        volumes[0] = 0.0
        return volumes

    @property
    def agreed_ml(self) -> np.ndarray:
        """The same without structures on which the segmentors do not agree at all."""
        agreements = np.zeros(CLASS_COUNT)
        for label, agreement in zip(labels_of_the_seven(self.structures), self.prediction.agreements):
            agreements[label] = max(agreements[label], agreement or 0.0)
        return np.where(agreements >= heart_evidence.AGREED, self.volumes_ml, 0.0)

    @property
    def is_confirmed(self) -> bool:
        """The segmentors confirm the heart."""
        return heart_evidence.confirms(self.agreed_ml, self.agreement, heart_evidence.known_parts(self.structures))


def _find_heart(run: _Run) -> _Heart:
    """Localise, align and segment; again with another range of intensities where the first look shows no heart.

    Raises:
        NoHeartError: neither stage shows a heart.
    """
    looks: list[Localisation] = []
    hearts: list[_Heart] = []
    for rule in intensity_rules(run.bundle.normalisation(run.modality)):
        run.clock.enter("localise", "Looking for the heart")
        if run.options.box_mm is not None:
            corners = box_from_bounds(run.options.box_mm, run.volume)
            hearts.append(_segment_box(corners, None, rule, run))
        else:
            seen = localise(run.volume, run.bundle, rule, run.executor, run.clock.poll)
            looks.append(seen)
            if seen.volumes_ml.sum() >= heart_evidence.WORTH_A_LOOK_ML:
                corners = seen.box(run.bundle.margin, run.bundle.min_heart_ml)
                hearts.append(_segment_box(corners, seen, rule, run))
        if hearts and hearts[-1].is_confirmed:
            break
    best = max(hearts, key=lambda heart: (heart.is_confirmed, heart.agreement), default=None)
    if best is not None and best.seen is None:
        return _judged_in_drawn_box(_better_in_short_axis(best, run))
    heart = _in_short_axis(best, run)
    if heart is None:
        if best is None or best.seen is None:
            most = max((look.volumes_ml for look in looks), key=np.sum)
            raise _no_heart(heart_evidence.Evidence(most), run.modality)
        heart = _judged(best, best.seen, run)
    doubts = frame_findings(str(heart.evidence["orientation"]), run.first_orientation)
    return dataclasses.replace(heart, doubts=(*heart.doubts, *doubts))


def _in_short_axis(given: _Heart | None, run: _Run) -> _Heart | None:
    """The heart with the volume taken for a stack of short-axis slices whose directions were lost, as formats that know
    none lose them.

    Args:
        given: what was found with the directions that the volume has.
        run: under way.

    Returns:
        None where the heart is not recognised better so, or the segmentors do not confirm it.
    """
    recognition = given.seen.recognition if given is not None and given.seen is not None else 0.0
    first = run.first_orientation
    enough = heart_evidence.RECOGNISED if first is None else 0.0  # a frame may be darker than the first one was
    is_sure = given is not None and given.is_confirmed and recognition >= enough and first != SHORT_AXIS_STACK
    if is_sure or not may_be_short_axis(run.volume, run.modality):
        return None
    least = heart_evidence.LEAST_IN_SHORT_AXIS
    if first != SHORT_AXIS_STACK:
        least = max(least, recognition + heart_evidence.MORE_THAN_GIVEN)
    turned = [dataclasses.replace(run, volume=OrientedVolume(run.volume.image, axes)) for axes in SHORT_AXIS]
    for rule in intensity_rules(run.bundle.normalisation(run.modality)):
        run.clock.enter("localise", "Looking for the heart")
        looks = [(localise(one.volume, run.bundle, rule, run.executor, run.clock.poll), one) for one in turned]
        for seen, one in sorted(looks, key=lambda look: -look[0].recognition):
            if seen.recognition < least:
                break
            heart = _segment_box(seen.box(run.bundle.margin, run.bundle.min_heart_ml), seen, rule, one)
            if heart.is_confirmed:
                evidence: dict[str, float | str] = {
                    "verdict": heart_evidence.Verdict.CONFIRMED.value,
                    "recognition": round(seen.recognition, 4),
                    "joint_agreement": round(float(heart.agreement), 4),
                    "orientation": SHORT_AXIS_STACK,
                }
                doubts = [finding("short_axis"), *plausibility.second_heart_findings(seen.second_ml)]
                return dataclasses.replace(heart, doubts=tuple(doubts), evidence=evidence)
    return None


def _better_in_short_axis(drawn: _Heart, run: _Run) -> _Heart:
    """What is in a drawn box, or the same with the volume taken for a stack of short-axis slices where the segmentors
    agree on more of a heart so.

    Args:
        drawn: with the directions that the volume has.
        run: under way.
    """
    assert run.options.box_mm is not None
    best = drawn
    if best.is_confirmed or not may_be_short_axis(run.volume, run.modality):
        return best
    for axes in SHORT_AXIS:
        turned = dataclasses.replace(run, volume=OrientedVolume(run.volume.image, axes))
        for rule in intensity_rules(run.bundle.normalisation(run.modality)):
            heart = _segment_box(box_from_bounds(run.options.box_mm, turned.volume), None, rule, turned)
            if heart.agreement * heart.agreed_ml.sum() > best.agreement * best.agreed_ml.sum():
                best = heart
    if best is drawn:
        return best
    return dataclasses.replace(best, doubts=(finding("short_axis_in_box"),), evidence={"orientation": SHORT_AXIS_STACK})


def _judged(heart: _Heart, seen: Localisation, run: _Run) -> _Heart:
    """The heart with what there is to say of it, or an error if it is none."""
    search = OrientationSearch(seen, run.bundle, run.executor, run.clock.poll)
    is_unsure_stack = (
        run.options.first_frame is None
        and may_be_short_axis(run.volume, run.modality)
        and seen.recognition < heart_evidence.RECOGNISED
    )
    evidence = heart_evidence.Evidence(
        localised_ml=seen.volumes_ml,
        recognition=seen.recognition,
        mirrored_recognition=0.0 if heart.is_confirmed and not is_unsure_stack else search.mirrored,
        touches_border=seen.touches_border,
        segmented_ml=heart.agreed_ml,
        joint_agreement=heart.agreement,
        blood=seen.blood(),
        known_parts=heart_evidence.known_parts(heart.structures),
        known_structures=known_structures(run.bundle),
        is_unsure_stack=is_unsure_stack,
    )
    verdict = heart_evidence.judge(evidence, run.bundle.min_heart_ml)
    if verdict == heart_evidence.Verdict.NONE:
        raise _no_heart(evidence, run.modality)
    doubts = plausibility.second_heart_findings(seen.second_ml)
    if verdict == heart_evidence.Verdict.COARSE:
        heart = dataclasses.replace(heart, prediction=_coarse_prediction(heart, seen))
        doubts.append(finding("coarse_outlines", mm=run.bundle.localiser_spacing))
    orientation = _orientation(search, heart, seen, run.options.first_frame)
    doubts += orientation_findings(orientation)
    reported = {"verdict": verdict.value, **evidence.report(), "orientation": orientation}
    return dataclasses.replace(heart, doubts=tuple(doubts), evidence=reported)


def _orientation(
    search: OrientationSearch, heart: _Heart, seen: Localisation, first_frame: tuple[str, float] | None
) -> str:
    """The directions in which the heart is recognised best: those of the first frame where this one is recognised as
    well as that was.
    """
    if first_frame is not None:
        known, recognition = first_frame
        if known in ALL_DIRECTIONS and abs(seen.recognition - recognition) <= _FRAME_DIFFERS:
            return known
    better = search.better(heart.agreement)
    return AS_GIVEN if better is None else directions(better.orientation)


def _no_heart(evidence: heart_evidence.Evidence, modality: str) -> MKDError:
    """The error that says what was seen instead of a heart."""
    error = refusal(heart_evidence.no_heart(evidence, modality), NoHeartError)
    error.evidence = evidence.report()
    return error


def _judged_in_drawn_box(heart: _Heart) -> _Heart:
    """The same in a box that a user drew, where only nothing at all is refused."""
    if heart.volumes_ml.sum() == 0:
        raise refusal(finding("box_empty"), NoHeartError)
    evidence: dict[str, float | str] = {
        "verdict": "drawn",
        "joint_agreement": round(heart.agreement, 4),
        **heart.evidence,
    }
    doubts = [] if heart.is_confirmed else [finding("unconfirmed_in_box")]
    if _reaches_edge(heart):
        doubts.append(finding("box_cuts"))
    return dataclasses.replace(heart, doubts=(*heart.doubts, *doubts), evidence=evidence)


def _reaches_edge(heart: _Heart) -> bool:
    """Whether structures reach an edge of the box beyond which there is more of the volume."""
    low, high = heart.volume.bounds()
    grid = heart.grid
    return any(
        bool(heart.seven.take(end, axis).any()) and is_within
        for axis in range(3)
        for end, is_within in (
            (0, grid.low[axis] > low[axis] + grid.steps[axis]),
            (-1, grid.high[axis] < high[axis] - grid.steps[axis]),
        )
    )


def _coarse_prediction(heart: _Heart, seen: Localisation) -> _Prediction:
    """What the localiser says in place of what the segmentors say, whose agreement stays."""
    of_seven = seen.on_grid(heart.grid)
    own = of_seven.new_zeros((len(heart.structures) + 1, *of_seven.shape[1:]))
    for structure in heart.structures:
        if structure.key in _SEVEN:
            own[structure.label] = of_seven[_SEVEN[structure.key]]
    own[0] = 1.0 - own[1:].sum(dim=0)
    probabilities = ensemble.keep_main_components(own, heart.structures)
    return dataclasses.replace(
        heart.prediction,
        probabilities=probabilities,
        labels=as_array(ensemble.best_class(probabilities)),
        removed=np.zeros(len(own), np.int64),
    )


def _segment_box(
    corners: tuple[np.ndarray, np.ndarray], seen: Localisation | None, rule: dict[str, Any], run: _Run
) -> _Heart:
    """Align and segment the box between two corners (z, y, x), mm."""
    bundle = run.bundle
    grid, is_cut = box_grid(run.volume, *corners, bundle.spacing, bundle.stride, bundle.max_box[::-1])

    run.clock.enter("align", "Aligning the image")
    image = normalise(sample(run.volume, grid), rule)[None, None]
    views = _align(image, run)

    run.clock.enter("segment", "Segmenting")
    prediction, agreement = _predict(views, run)
    return _Heart(run.volume, grid, is_cut, image, views, prediction, agreement, seen, bundle.structures)


def _align(image: torch.Tensor, run: _Run) -> Views:
    """What IAM makes of the image of the box, normalised, ``(1, 1, D, H, W)``."""
    steps = iter((0.1, 0.5, 1.0))

    def render(part: str, given: torch.Tensor) -> torch.Tensor:
        run.clock.advance(next(steps), "Aligning the image")
        return run.executor.run(part, given, run.clock.poll)

    return align_for_segmentors(image, run.policy, render, is_target=run.modality == run.bundle.target)


def _predict(views: Views, run: _Run) -> tuple[_Prediction, float]:
    """What the segmentors say, and their joint agreement."""

    def segmented(part: str, seen: list[torch.Tensor]) -> list[torch.Tensor]:
        return [run.executor.run(part, view, run.clock.poll, views.stream(view))[0] for view in seen]

    real = segmented("segmentor_real", views.real)
    run.clock.advance(0.4, "Segmenting")
    synthetic = segmented("segmentor_syn", views.synthetic)
    run.clock.advance(0.8, "Segmenting")
    mean, from_real, from_synthetic = ensemble.ensemble(real, synthetic, run.bundle.ensemble_weight(run.modality))
    both = [as_array(ensemble.best_class(prediction)) for prediction in (from_real, from_synthetic)]
    disagreement = ensemble.disagreement(from_real, from_synthetic)
    chosen = (mean, from_real, from_synthetic)[SEGMENTORS.index(run.options.segmentor)]
    first_labels = as_array(ensemble.best_class(chosen))
    chosen = ensemble.keep_main_components(chosen, run.bundle.structures)
    labels = as_array(ensemble.best_class(chosen))
    removed = np.bincount(first_labels[labels != first_labels], minlength=len(chosen))
    agreements = ensemble.agreement(both[0], both[1], len(mean))
    return _Prediction(chosen, labels, disagreement, agreements, removed), ensemble.joint_agreement(both[0], both[1])


def _restore(
    prediction: _Prediction, grid: Grid, volume: OrientedVolume, clock: Clock
) -> tuple[np.ndarray, tuple[slice, slice, slice]]:
    """Labels at the volume's resolution, of the block of its voxels that the grid covers, and where the block lies."""
    from mkd_core.inference.execution import one_thread

    if volume.voxels.nbytes > _HUGE_BYTES:
        release_memory()  # before the labels, which need half as much as the volume, or more
    block = overlap_slices(grid, volume)
    labels = np.zeros([side.stop - side.start for side in block], np.uint8)
    with one_thread():
        for done in write_labels(prediction.probabilities, grid, volume, labels):
            clock.advance(done, "Bringing the result to the volume's grid")
    remove_small_components(labels, max(1, int(_SMALL_COMPONENT_VOXELS * grid.voxel_ml / volume.voxel_ml)))
    return labels, block


def _coarse_doubts(heart: _Heart, bundle: Bundle) -> dict[str, list[Finding]]:
    """What the localiser, a third network, saw otherwise than the two segmentors, by structure."""
    if heart.seen is None:
        return {}
    coarse = as_array(ensemble.best_class(heart.seen.on_grid(heart.grid)))
    known = set(labels_of_the_seven(bundle.localiser_structures))
    keys = [structure.key for structure in STRUCTURES if structure.label in known]
    found = plausibility.coarse_findings(coarse, heart.seven, heart.grid.voxel_ml, keys)
    return {key: [one] for key, one in found.items()}


def _measure(
    run: _Run, heart: _Heart, labels: np.ndarray, block: tuple[slice, slice, slice]
) -> tuple[dict[str, StructureReport], list[Finding]]:
    """What the report says of each structure, and what it doubts about all of them.

    Args:
        labels: of a block of the volume's voxels.
        block: where it lies.
    """
    bundle, volume, modality, prediction = run.bundle, run.volume, run.modality, heart.prediction
    measured = quantify.measure(
        bundle.structures,
        labels,
        volume,
        block,
        prediction.labels,
        heart.grid,
        prediction.agreements,
        prediction.removed,
    )
    doubts, doubts_by_structure = plausibility.examine(
        quantify.with_all_seven(measured), heart.seven, as_array(heart.image[0, 0]), heart.grid, volume, modality
    )
    coarse_doubts = _coarse_doubts(heart, bundle)
    of_structures = {
        structure.key: quantify.structure_report(
            structure,
            measured[structure.key],
            agreement_limits(modality, structure.key, bundle.metadata["quality"]),
            (*doubts_by_structure.get(structure.key, ()), *coarse_doubts.get(structure.key, ())),
        )
        for structure in bundle.structures
    }
    return of_structures, [
        *heart.doubts,
        *plausibility.weights_findings(bundle.self_test),
        *doubts,
        *quantify.global_warnings(measured, modality),
    ]


def _report(
    run: _Run, heart: _Heart, of_structures: dict[str, StructureReport], warnings: Sequence[Finding], threads: int
) -> Report:
    bundle, image, executor = run.bundle, run.volume.image, run.executor
    return {
        "structures": of_structures,
        "labels": {structure.key: structure.label for structure in bundle.structures},
        "warnings": [warning.to_dict() for warning in warnings],
        "modality": run.modality,
        "target": bundle.target,
        "alignment": run.policy,
        "ensemble_weight": bundle.ensemble_weight(run.modality),
        "timings_s": run.clock.timings(),
        "device": str(executor.device),
        "precision": str(executor.precision).removeprefix("torch."),
        "threads": threads,
        "bundle": bundle.identity,
        "options": run.options.to_dict(),
        "version": mkd_core.__version__,
        "input": {"size": list(image.GetSize()), "spacing_mm": list(image.GetSpacing())},
        "heart_box_mm": _world_box(run.volume, heart.grid),
        "evidence": heart.evidence,
    }


def _warnings_of_run(executor: Executor, is_cut: bool) -> list[Finding]:
    """What the run itself gives reason to doubt."""
    happened = {"box_too_small": is_cut, "fell_back": executor.fell_back, "was_split": executor.was_split}
    return [finding(code) for code, is_so in happened.items() if is_so]


def _aligned_image(
    rendered: torch.Tensor | None, volume: OrientedVolume, grid: Grid, bundle: Bundle
) -> sitk.Image | None:
    if rendered is None:
        return None
    return volume.grid_to_image(as_array(denormalise(rendered[0, 0], bundle.normalisation(bundle.target))), grid)


def _world_box(volume: OrientedVolume, grid: Grid) -> dict[str, list[float]]:
    corners = [volume.to_world(corner) for corner in itertools.product(*zip(grid.low, grid.high))]
    low, high = np.min(corners, axis=0), np.max(corners, axis=0)
    return {"low": [round(float(value), 3) for value in low], "high": [round(float(value), 3) for value in high]}
