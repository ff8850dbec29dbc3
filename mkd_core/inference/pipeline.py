"""From a volume to the structures of its heart: the method's steps, top to bottom.

    check -> localise heart -> crop and resample to the bundle's grid -> normalise -> IAM -> S_real, S_syn -> ensemble
          -> back to the input's grid -> quantify and question

Li, Yu, Wang, Heng, "Towards Cross-modality Medical Image Segmentation with Online Mutual Knowledge Distillation", AAAI
2020.
"""

from __future__ import annotations

import dataclasses
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
from mkd_core.errors import DeviceError
from mkd_core.inference import details
from mkd_core.inference.clock import Clock
from mkd_core.inference.components import remove_small_components
from mkd_core.inference.geometry import Grid, OrientedVolume, box_grid, overlap_slices
from mkd_core.inference.heart_search import Corners, Heart, Prediction, Run, find_heart
from mkd_core.inference.image_check import validate_image
from mkd_core.inference.localisation import Localisation
from mkd_core.inference.memory import release_memory
from mkd_core.inference.normalisation import denormalise, normalise
from mkd_core.inference.padding import without_marks
from mkd_core.inference.resampling import sample, write_labels
from mkd_core.io.bundle import Bundle, default_bundle_path, load_bundle
from mkd_core.io.bundle_metadata import PART_DETAILED, PARTS
from mkd_core.io.detail_weights import DetailWeights, default_details
from mkd_core.measure import grey_values, plausibility, quantify
from mkd_core.measure.agreement import agreement_limits, confidence_limits
from mkd_core.measure.messages import finding, refusal
from mkd_core.method import ensemble
from mkd_core.method.alignment import Views, align_for_segmentors
from mkd_core.protocol import SEGMENTORS, Finding, Report, SegmentationOptions, StructureReport, check_modality
from mkd_core.structures import DETAILED, STRUCTURES, Structure, labels_of_the_seven

if TYPE_CHECKING:
    import torch

    from mkd_core.inference.execution import Executor, Networks

#: From a volume of so many bytes on, what the networks freed is not kept for the next run.
_HUGE_BYTES = 10**9

#: Size of the largest small component, in voxels of the networks' grid.
_SMALL_COMPONENT_VOXELS = 2.0


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
    known = [structure.key for structure in bundle.structures]
    options.check(modality, bundle.target, list(dict.fromkeys((*known, *DETAILED))))
    detail_weights = detail_weights_for(bundle, options)
    detail_keys = detail_keys_for(bundle, options)
    executor = _executor(bundle, options)
    policy = options.alignment or bundle.alignment(modality)
    run = Run(volume, bundle, modality, policy, options, executor, clock, _segment_box)

    with compute_settings(options.threads) as threads:
        found = find_heart(run)
        run = dataclasses.replace(run, volume=found.volume)
        volume, grid, prediction = run.volume, found.grid, found.prediction

        clock.enter("restore", "Bringing the result to the volume's grid")
        labels, block = _restore(prediction.probabilities, grid, volume, clock)
        detailed, executors = None, [executor]
        if detail_weights is not None:
            executors.append(_executor(detail_weights, options))
            detailed = _in_detail(run, found, executors[-1], detail_weights, detail_keys, labels)

    clock.enter("measure", "Measuring")
    of_structures, doubts = _measure(run, found, labels, block)
    warnings += doubts + _warnings_of_run(executors, found.is_cut)
    structures = bundle.structures
    if detailed is not None and detail_weights is not None:
        labels, structures = detailed.labels, detailed.structures
        of_structures |= _measure_in_detail(run, found, detailed, detail_weights, of_structures, block)
        warnings.append(finding("ends_at_box"))
    wanted = options.keys_wanted([structure.key for structure in structures], ())
    for structure in structures:
        if structure.key not in wanted:
            labels[labels == structure.label] = 0
            del of_structures[structure.key]
    labels_image = volume.block_to_image(labels, block)
    clock.advance(1.0, "Done")

    return SegmentationResult(
        labels_image,
        _report(run, found, structures, of_structures, warnings, threads, detail_weights),
        disagreement=volume.grid_to_image(as_array(prediction.disagreement), grid)
        if options.with_disagreement
        else None,
        aligned=_aligned_image(found.views.rendered, volume, grid, bundle) if options.with_aligned else None,
    )


def warm(bundle: Bundle, options: SegmentationOptions) -> dict[str, Any]:
    """Get all networks that the options need ready, so that the next :func:`segment` need not.

    Returns:
        ``seconds`` it took, ``device``, ``precision`` and ``bundle``, plain values.

    Raises:
        BundleError: the structures in detail that are wanted cannot be found with this bundle.
        DeviceError: the device is missing or out of memory.
    """
    start = time.perf_counter()
    executor = _executor(bundle, options)
    for part in PARTS:
        executor.prepare(part)
    if (detail_weights := detail_weights_for(bundle, options)) is not None:
        _executor(detail_weights, options).prepare(PART_DETAILED)
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


def _executor(bundle: Networks, options: SegmentationOptions) -> Executor:
    from mkd_core.inference import execution

    device = execution.choose_device(options.device)
    return execution.Executor(
        bundle, device, execution.choose_precision(options.precision, device), options.device == "auto"
    )


def _segment_box(corners: Corners, seen: Localisation | None, rule: dict[str, Any], run: Run) -> Heart:
    """Align and segment the box between two corners (z, y, x), mm."""
    bundle = run.bundle
    grid, is_cut = box_grid(run.volume, *corners, bundle.spacing, bundle.strides, bundle.max_box[::-1])

    run.clock.enter("align", "Aligning the image")
    image = normalise(sample(run.volume, grid), rule)[None, None]
    views = _align(image, run)

    run.clock.enter("segment", "Segmenting")
    prediction, agreement = _predict(views, run)
    return Heart(run.volume, grid, is_cut, image, views, prediction, agreement, seen, bundle.structures)


def _align(image: torch.Tensor, run: Run) -> Views:
    """What IAM makes of the image of the box, normalised, ``(1, 1, D, H, W)``."""
    steps = iter((0.1, 0.5, 1.0))

    def render(part: str, given: torch.Tensor) -> torch.Tensor:
        run.clock.advance(next(steps), "Aligning the image")
        return run.executor.run(part, given, run.clock.poll)

    return align_for_segmentors(image, run.policy, render, is_target=run.modality == run.bundle.target)


def _predict(views: Views, run: Run) -> tuple[Prediction, float]:
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
    return Prediction(chosen, labels, disagreement, agreements, removed), ensemble.joint_agreement(both[0], both[1])


def _restore(
    probabilities: torch.Tensor, grid: Grid, volume: OrientedVolume, clock: Clock
) -> tuple[np.ndarray, tuple[slice, slice, slice]]:
    """Labels at the volume's resolution, of the block of its voxels that the grid covers, and where the block lies."""
    from mkd_core.inference.execution import one_thread

    if volume.voxels.nbytes > _HUGE_BYTES:
        release_memory()  # before the labels, which need half as much as the volume, or more
    block = overlap_slices(grid, volume)
    labels = np.zeros([side.stop - side.start for side in block], np.uint8)
    with one_thread():
        for done in write_labels(probabilities, grid, volume, labels):
            clock.advance(done, "Bringing the result to the volume's grid")
    remove_small_components(labels, max(1, int(_SMALL_COMPONENT_VOXELS * grid.voxel_ml / volume.voxel_ml)))
    return labels, block


def detail_keys_for(bundle: Bundle, options: SegmentationOptions) -> list[str]:
    """Keys of the structures in detail that are wanted and that the bundle does not know, in the order of their
    labels, which follow those of the bundle.
    """
    known = [structure.key for structure in bundle.structures]
    return [key for key in options.keys_wanted(known, DETAILED) if key not in known]


def detail_weights_for(bundle: Bundle, options: SegmentationOptions) -> DetailWeights | None:
    """The network for the structures in detail that are wanted; None where none is.

    Raises:
        BundleError: it cannot be used, or not with this bundle.
    """
    if not detail_keys_for(bundle, options):
        return None
    weights = default_details()
    weights.check_fits(bundle)
    return weights


def _in_detail(
    run: Run, heart: Heart, executor: Executor, weights: DetailWeights, keys: Sequence[str], labels: np.ndarray
) -> details.InDetail:
    """The segmentation with structures in detail; ``labels`` are of the block of voxels that the box covers."""
    views = [heart.image, *([] if heart.views.rendered is None else [heart.views.rendered])]
    run.clock.advance(1.0, "Segmenting structures in detail")
    found = details.predict(
        views,
        heart.seven,
        weights.structures,
        weights.stride,
        lambda given: executor.run(PART_DETAILED, given, run.clock.poll),
    )
    return details.in_detail(
        heart, labels, keys, found, lambda scores: _restore(scores, heart.grid, run.volume, run.clock)[0]
    )


def _measure_in_detail(
    run: Run,
    heart: Heart,
    detailed: details.InDetail,
    weights: DetailWeights,
    of_structures: dict[str, StructureReport],
    block: tuple[slice, slice, slice],
) -> dict[str, StructureReport]:
    """What the report says of the structures in detail, and anew of those from which they were taken; what was doubted
    of these, with their parts, stays.
    """
    measured = quantify.measure(
        detailed.structures,
        detailed.labels,
        run.volume,
        block,
        detailed.coarse,
        heart.grid,
        detailed.agreements,
        detailed.removed,
    )
    reports = {}
    for structure in detailed.changed:
        limits = confidence_limits(run.modality, structure.key, weights.metadata["quality"])
        report = quantify.structure_report(
            structure, measured[structure.key], limits, detailed.cut.get(structure.key, ()), by_one_network=True
        )
        earlier = of_structures.get(structure.key)
        reports[structure.key] = report if earlier is None else {**report, "warnings": earlier["warnings"]}
    return reports


def _coarse_doubts(heart: Heart, bundle: Bundle) -> dict[str, list[Finding]]:
    """What the localiser, a third network, saw otherwise than the two segmentors, by structure."""
    if heart.seen is None:
        return {}
    coarse = as_array(ensemble.best_class(heart.seen.on_grid(heart.grid)))
    known = set(labels_of_the_seven(bundle.localiser_structures))
    keys = [structure.key for structure in STRUCTURES if structure.label in known]
    found = plausibility.coarse_findings(coarse, heart.seven, heart.grid.voxel_ml, keys)
    return {key: [one] for key, one in found.items()}


def _measure(
    run: Run, heart: Heart, labels: np.ndarray, block: tuple[slice, slice, slice]
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
    doubts += plausibility.oval_findings(labels, volume, labels_of_the_seven(bundle.structures))
    doubts += grey_values.hole_findings(labels, volume.voxels[block], volume.spacing)
    one_value_doubts = grey_values.one_value_findings(labels, volume.voxels[block], bundle.structures)
    coarse_doubts = _coarse_doubts(heart, bundle)
    of_structures = {
        structure.key: quantify.structure_report(
            structure,
            measured[structure.key],
            agreement_limits(modality, structure.key, bundle.metadata["quality"]),
            [
                one
                for doubts_of in (doubts_by_structure, coarse_doubts, one_value_doubts)
                for one in doubts_of.get(structure.key, ())
            ],
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
    run: Run,
    heart: Heart,
    structures: Sequence[Structure],
    of_structures: dict[str, StructureReport],
    warnings: Sequence[Finding],
    threads: int,
    detail_weights: DetailWeights | None,
) -> Report:
    bundle, image, executor = run.bundle, run.volume.image, run.executor
    known = {structure.key for structure in bundle.structures}
    report: Report = {
        "structures": of_structures,
        "labels": {structure.key: structure.label for structure in structures},
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
    if detail_weights is not None:
        found = [structure.key for structure in structures if structure.key not in known]
        report["detail_weights"] = {**detail_weights.identity, "structures": found}
    return report


def _warnings_of_run(executors: Sequence[Executor], is_cut: bool) -> list[Finding]:
    """What the run itself gives reason to doubt."""
    happened = {
        "box_too_small": is_cut,
        "fell_back": any(executor.fell_back for executor in executors),
        "was_split": any(executor.was_split for executor in executors),
    }
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
