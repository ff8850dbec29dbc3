"""From a volume to the structures of its heart: the method's steps, top to bottom.

    check -> localise heart -> crop and resample to the bundle's grid -> normalise -> IAM -> S_real, S_syn -> ensemble
          -> back to the input's grid -> quantify and question

Li, Yu, Wang, Heng, "Towards Cross-modality Medical Image Segmentation with Online Mutual Knowledge Distillation", AAAI
2020.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import SimpleITK as sitk
import numpy as np

import mkd_core
from mkd_core.errors import DeviceError, NoHeartError
from mkd_core.inference.clock import Clock
from mkd_core.inference.components import remove_small_components
from mkd_core.inference.geometry import Grid, OrientedVolume, box_grid, overlap_slices
from mkd_core.inference.image_check import validate_image
from mkd_core.inference.localisation import locate_heart
from mkd_core.inference.memory import release_memory
from mkd_core.inference.normalisation import denormalise, normalise
from mkd_core.inference.resampling import sample, write_labels
from mkd_core.io.bundle import Bundle, default_bundle_path, load_bundle
from mkd_core.io.bundle_metadata import PARTS
from mkd_core.measure import plausibility, quantify
from mkd_core.measure.agreement import agreement_limits
from mkd_core.measure.messages import finding, refusal
from mkd_core.method import ensemble
from mkd_core.method.alignment import Views, align_for_segmentors
from mkd_core.protocol import SEGMENTORS, Finding, Report, SegmentationOptions, check_modality
from mkd_core.structures import Structure, labels_of_the_seven

if TYPE_CHECKING:
    import torch

    from mkd_core.inference.execution import Executor

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
    bundle: Bundle | Path | str | None = None,
    *,
    modality: str = "CT",
    options: SegmentationOptions | None = None,
    progress: Callable[[str, float, str], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> SegmentationResult:
    """Segment the heart in a volume.

    Args:
        image: 3-D volume; HU for CT.
        bundle: weights, or the file that holds them; None for the bundle that comes with this package.
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
    warnings = validate_image(image, modality)
    volume = OrientedVolume(image)

    clock.enter("check", "Loading the weights")
    require_torch()  # after everything that can be refused without it
    from mkd_core.inference.execution import compute_settings

    if not isinstance(bundle, Bundle):
        bundle = load_bundle(bundle or default_bundle_path())
    structures = bundle.structures
    options.check(modality, bundle.target, [structure.key for structure in structures])
    executor = _executor(bundle, options)
    policy = options.alignment or bundle.alignment(modality)

    with compute_settings(options.threads) as threads:
        clock.enter("localise", "Looking for the heart")
        grid, is_cut, second_ml = _heart_grid(volume, bundle, modality, executor, clock)

        clock.enter("align", "Aligning the image")
        image_on_grid, views = _align(volume, grid, bundle, modality, policy, executor, clock)

        clock.enter("segment", "Segmenting")
        weight = bundle.ensemble_weight(modality)
        prediction = _segment_box(views, options.segmentor, weight, structures, executor, clock)

        clock.enter("restore", "Bringing the result to the volume's grid")
        labels, block = _restore(prediction, grid, volume, clock)

    clock.enter("measure", "Measuring")
    measured = quantify.measure(
        structures, labels, volume, block, prediction.labels, grid, prediction.agreements, prediction.removed
    )
    if not quantify.is_heart(measured):
        raise refusal(finding("no_heart"), NoHeartError)
    seven = np.array(labels_of_the_seven(structures), np.uint8)[prediction.labels]
    doubts, doubts_by_structure = plausibility.examine(
        quantify.with_all_seven(measured), seven, image_on_grid[0, 0].numpy(), grid, volume, modality
    )
    warnings += plausibility.weights_findings(bundle.self_test) + plausibility.second_heart_findings(second_ml)
    warnings += doubts + quantify.global_warnings(measured, modality) + _warnings_of_run(executor, is_cut)
    wanted = [s for s in structures if options.structures is None or s.key in options.structures]
    for structure in structures:
        if structure not in wanted:
            labels[labels == structure.label] = 0
    labels_image = volume.block_to_image(labels, block)
    clock.advance(1.0, "Done")

    report: Report = {
        "structures": {
            s.key: quantify.structure_report(
                s,
                measured[s.key],
                agreement_limits(modality, s.key, bundle.metadata["quality"]),
                doubts_by_structure.get(s.key, ()),
            )
            for s in wanted
        },
        "labels": {s.key: s.label for s in structures},
        "warnings": [warning.to_dict() for warning in warnings],
        "modality": modality,
        "target": bundle.target,
        "alignment": policy,
        "ensemble_weight": weight,
        "timings_s": clock.timings(),
        "device": str(executor.device),
        "precision": str(executor.precision).removeprefix("torch."),
        "threads": threads,
        "bundle": bundle.identity,
        "options": options.to_dict(),
        "version": mkd_core.__version__,
        "input": {"size": list(image.GetSize()), "spacing_mm": list(image.GetSpacing())},
        "heart_box_mm": _world_box(volume, grid),
    }
    return SegmentationResult(
        labels_image,
        report,
        disagreement=volume.grid_to_image(prediction.disagreement.numpy(), grid) if options.with_disagreement else None,
        aligned=_aligned_image(views.rendered, volume, grid, bundle) if options.with_aligned else None,
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
        raise DeviceError(
            "PyTorch, which computes the segmentation, is not installed or does not start.",
            "Install it through the PyTorch extension of 3D Slicer, or by “pip install torch”.",
        ) from error


def _executor(bundle: Bundle, options: SegmentationOptions) -> Executor:
    from mkd_core.inference import execution

    device = execution.choose_device(options.device)
    return execution.Executor(
        bundle, device, execution.choose_precision(options.precision, device), options.device == "auto"
    )


def _heart_grid(
    volume: OrientedVolume, bundle: Bundle, modality: str, executor: Executor, clock: Clock
) -> tuple[Grid, bool, float]:
    """The segmentors' grid over the heart, whether the heart is larger than the weights' largest box, and the volume of
    a second heart in ml.
    """
    low, high, second_ml = locate_heart(volume, bundle, modality, executor, clock)
    return *box_grid(volume, low, high, bundle.spacing, bundle.stride, bundle.max_box[::-1]), second_ml


def _align(
    volume: OrientedVolume, grid: Grid, bundle: Bundle, modality: str, policy: str, executor: Executor, clock: Clock
) -> tuple[torch.Tensor, Views]:
    """Image of the box, normalised, ``(1, 1, D, H, W)``, and what IAM makes of it."""
    image = normalise(sample(volume, grid), bundle.normalisation(modality))[None, None]
    steps = iter((0.1, 0.5, 1.0))

    def render(part: str, given: torch.Tensor) -> torch.Tensor:
        clock.advance(next(steps), "Aligning the image")
        return executor.run(part, given, clock.poll)

    return image, align_for_segmentors(image, policy, render)


@dataclass(frozen=True)
class _Prediction:
    """What the segmentors say about the box.

    (C, D, H, W) probabilities, (D, H, W) labels and disagreement; per label, the agreement of the two and the voxels of
    left-out islands.
    """

    probabilities: torch.Tensor
    labels: np.ndarray
    disagreement: torch.Tensor
    agreements: list[float | None]
    removed: np.ndarray


def _segment_box(
    views: Views,
    segmentor: str,
    ensemble_weight: float,
    structures: Sequence[Structure],
    executor: Executor,
    clock: Clock,
) -> _Prediction:
    real = [executor.run("segmentor_real", view, clock.poll)[0] for view in views.real]
    clock.advance(0.4, "Segmenting")
    synthetic = [executor.run("segmentor_syn", view, clock.poll)[0] for view in views.synthetic]
    clock.advance(0.8, "Segmenting")
    mean, from_real, from_synthetic = ensemble.ensemble(real, synthetic, ensemble_weight)
    first, second = (ensemble.best_class(prediction).numpy() for prediction in (from_real, from_synthetic))
    agreements = ensemble.agreement(first, second, len(mean))
    disagreement = ensemble.disagreement(from_real, from_synthetic)
    chosen = dict(zip(SEGMENTORS, (mean, from_real, from_synthetic)))[segmentor]
    first_labels = ensemble.best_class(chosen).numpy()
    chosen = ensemble.keep_main_components(chosen, structures)
    labels = ensemble.best_class(chosen).numpy()
    removed = np.bincount(first_labels[labels != first_labels], minlength=len(chosen))
    return _Prediction(chosen, labels, disagreement, agreements, removed)


def _restore(
    prediction: _Prediction, grid: Grid, volume: OrientedVolume, clock: Clock
) -> tuple[np.ndarray, tuple[slice, slice, slice]]:
    """Labels at the volume's resolution, of the block of its voxels that the grid covers, and where the block lies."""
    if volume.voxels.nbytes > _HUGE_BYTES:
        release_memory()  # before the labels, which need half as much as the volume, or more
    block = overlap_slices(grid, volume)
    labels = np.zeros([side.stop - side.start for side in block], np.uint8)
    for done in write_labels(prediction.probabilities, grid, volume, labels):
        clock.advance(done, "Bringing the result to the volume's grid")
    remove_small_components(labels, max(1, int(_SMALL_COMPONENT_VOXELS * grid.voxel_ml / volume.voxel_ml)))
    return labels, block


def _warnings_of_run(executor: Executor, is_cut: bool) -> list[Finding]:
    """What the run itself gives reason to doubt."""
    happened = {"box_too_small": is_cut, "fell_back": executor.fell_back, "was_split": executor.was_split}
    return [finding(code) for code, is_so in happened.items() if is_so]


def _aligned_image(
    rendered: torch.Tensor | None, volume: OrientedVolume, grid: Grid, bundle: Bundle
) -> sitk.Image | None:
    if rendered is None:
        return None
    return volume.grid_to_image(denormalise(rendered[0, 0], bundle.normalisation(bundle.target)).numpy(), grid)


def _world_box(volume: OrientedVolume, grid: Grid) -> dict[str, list[float]]:
    low, high = (volume.to_world(corner) for corner in (grid.low, grid.high))
    return {"low": [round(value, 3) for value in low], "high": [round(value, 3) for value in high]}
