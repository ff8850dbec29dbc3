"""Self-test of weights: do the networks of a bundle find the parts of a drawn heart where they are?

A bundle can be sound as a file and still be wrong: two classes swapped by a conversion, generators that were never
trained.  Every check of the file passes, and every result is confidently wrong.  So the networks segment a small
phantom, a heart drawn from ellipsoids and tubes in the look of each modality, once per file and process; those that
come with the package did so before they came.

Weights are refused only where the phantom proves them wrong: a class that lies where another belongs, or one half of
the method that works beside one that does not.  Networks that recognise nothing may be right for images that look
different, so they only get a warning.
"""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from mkd_core.arrays import as_array, as_tensor
from mkd_core.errors import BundleError
from mkd_core.io.bundle_refusals import named, refused
from mkd_core.structures import BY_KEY, CLASS_COUNT, STRUCTURES, Structure, labels_of_the_seven

if TYPE_CHECKING:
    import torch

    from mkd_core.inference.execution import Executor
    from mkd_core.io.bundle import Bundle
    from mkd_core.method.networks import Stream

#: A position or direction (x, y, z), or three radii.
Point = Sequence[float] | np.ndarray

#: Sides (z, y, x) of the phantom in mm, and its heart's size relative to the mean adult heart it is drawn as.
_EXTENT = (128.0, 96.0, 128.0)
_SCALE = 0.8

#: Dice overlap with the drawing from which a structure counts as found, and below which it counts as missed.
_FOUND, _MISSED = 0.5, 0.3

#: Fraction of the structures it can tell from which a network that finds them knows hearts, and up to which it knows
#: none: five and two of seven.
_KNOWS_HEARTS, _KNOWS_NONE = 0.7, 0.3

#: Mean absolute difference in [-1, 1] between the phantom and its reconstruction (cycle).  Trained generators reach
#: 0.04 to 0.06; untrained ones start as nearly the identity and reach 0.17.
_MOST_CYCLE_ERROR = 0.10

#: Mean change of the phantom's heart by a generator, as a fraction of how far the looks of the two modalities are
#: apart there.  Trained generators change it by 0.45 to 0.55 of that, untrained ones by 0.09 to 0.19.
_LEAST_CHANGE = 0.3

#: Voxels of the phantom beyond which the test would take longer than the segmentation of a volume.
_MOST_VOXELS = 4_000_000

#: Intensities of the phantom: lung, fat, muscle, then blood by label.  HU, and arbitrary units of a bright-blood MR.
_LOOKS: dict[str, tuple[float, float, float, dict[int, float]]] = {
    "CT": (-850.0, -90.0, 105.0, {1: 380.0, 2: 330.0, 3: 380.0, 4: 300.0, 6: 390.0, 7: 340.0}),
    "MR": (40.0, 250.0, 190.0, {1: 560.0, 2: 540.0, 3: 550.0, 4: 530.0, 6: 570.0, 7: 540.0}),
}

#: Standard deviation of the noise, in the units of the look.
_NOISE = {"CT": 25.0, "MR": 10.0}


@dataclass(frozen=True)
class SelfTest:
    """What the self-test of a bundle showed.

    Attributes:
        found: structures found on the phantom by S_real; None if it was not tried, because the phantom would be too
            large or the voxels are not cubic.
        known: structures of the phantom that the weights can tell.
        cycle_error: mean absolute difference in [-1, 1] between the phantom and its reconstruction; None where the
            bundle does not use it.
        one_segmentor: S_real and S_syn are the same network, so that their agreement says nothing.
    """

    found: int | None = None
    known: int = len(STRUCTURES)
    cycle_error: float | None = None
    one_segmentor: bool = False

    @property
    def passed(self) -> bool:
        """Whether the weights were shown to know hearts."""
        return self.found is not None and self.found >= _KNOWS_HEARTS * self.known


#: Results by the SHA-256 of the file.  The weights that come with the package have theirs from the start, which saves
#: half a second of the first click; Testing/core/test_self_test.py compares it with what they do.
_results: dict[str, SelfTest | BundleError] = {
    "63b8fa0fb8d4f78aa3b304b9aab5588ba1b7c45edb3ec33dfa8cc27d8d42c9ed": SelfTest(found=7, known=7, cycle_error=0.0445)
}
_lock = threading.Lock()


def examine_weights(bundle: Bundle) -> SelfTest:
    """Segment the phantom with every network of a bundle, unless the result is known by the file's SHA-256.

    Raises:
        BundleError: the weights give wrong structures, or their generators do not work.
    """
    with _lock:  # two threads that load the same weights must not both do the work
        if bundle.sha256 not in _results:
            try:
                _results[bundle.sha256] = _examine(bundle)
            except BundleError as error:
                _results[bundle.sha256] = error
        result = _results[bundle.sha256]
    if isinstance(result, BundleError):
        raise named(result, bundle.path)
    return result


def _examine(bundle: Bundle) -> SelfTest:
    import torch

    from mkd_core.inference import execution
    from mkd_core.method.alignment import align_for_segmentors

    device = torch.device("cpu")
    executor = execution.Executor(bundle, device, execution.choose_precision("auto", device))
    assistant = bundle.metadata["assistant"]
    localised = _localised(bundle, executor)
    untried = SelfTest(one_segmentor=_are_alike(bundle, "segmentor_real", "segmentor_syn"))
    spacing = bundle.spacing
    if not isinstance(spacing, float):  # the segmentors' phantom is drawn on cubic voxels
        _refuse_confusion("localiser", localised)
        return untried
    shape = _shape(spacing, bundle.stride)
    if np.prod(shape, dtype=float) > _MOST_VOXELS:
        return untried

    image, truth = _normalised(bundle, bundle.target, spacing, shape)
    heart = as_tensor(truth > 0)
    changes: dict[str, float] = {}

    def render(part: str, given: torch.Tensor) -> torch.Tensor:
        result = executor.run(part, given)
        changes[part] = float((result - given)[0, 0].abs()[heart].mean())
        return result

    views = align_for_segmentors(image, bundle.alignment(bundle.target), render)
    real = _overlaps(bundle.structures, executor, "segmentor_real", views.real, truth, views.stream)
    synthetic = _overlaps(bundle.structures, executor, "segmentor_syn", views.synthetic, truth, views.stream)
    other_look, truth = _normalised(bundle, assistant, spacing, shape)
    assistant_views = align_for_segmentors(other_look, bundle.alignment(assistant), render, is_target=False)
    assisted = _overlaps(
        bundle.structures, executor, "segmentor_syn", assistant_views.synthetic, truth, assistant_views.stream
    )
    difference = float((other_look - image)[0, 0].abs()[heart].mean())

    for part, overlaps in (
        ("segmentor_real", real),
        ("segmentor_syn", synthetic),
        ("segmentor_syn", assisted),
        ("localiser", localised),
    ):
        _refuse_confusion(part, overlaps)
    found = _count_found(real)
    cycle_error = None
    if views.rendered is not None:
        cycle_error = float((views.rendered - image).abs().mean())
    found_synthetic = _count_found(synthetic)
    known = len(set(labels_of_the_seven(bundle.structures)) - {0})
    enough, hardly_any = _KNOWS_HEARTS * known, _KNOWS_NONE * known
    if found_synthetic >= enough and found <= hardly_any:
        raise refused("weights_segmentor")
    if found >= enough:
        if found_synthetic <= hardly_any or (cycle_error is not None and cycle_error > _MOST_CYCLE_ERROR):
            raise refused("weights_generators")
        if any(change < _LEAST_CHANGE * difference for change in changes.values()):
            raise refused("weights_generator_idle")
        if _count_found(localised) == 0:
            raise refused("weights_localiser")
    return replace(untried, found=found, known=known, cycle_error=cycle_error)


def _are_alike(bundle: Bundle, first: str, second: str) -> bool:
    """Whether two networks have the same weights."""
    import torch

    one, other = (bundle.network(part).state_dict() for part in (first, second))
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def _localised(bundle: Bundle, executor: Executor) -> np.ndarray:
    """Overlaps of what the localiser sees in the phantom of the target modality."""
    shape = _shape(bundle.localiser_spacing, bundle.localiser_stride)
    coarse, truth = _normalised(bundle, bundle.target, bundle.localiser_spacing, shape)
    return _overlaps(bundle.localiser_structures, executor, "localiser", [coarse], truth)


def _refuse_confusion(part: str, overlaps: np.ndarray) -> None:
    """Refuse a network that finds a structure well, under the label of another.

    Args:
        part: the network.
        overlaps: ``(8, 8)``, see :func:`_overlaps`.
    """
    for label in range(1, CLASS_COUNT):
        if min(overlaps[0, label], overlaps[label, 0]) >= _FOUND:
            raise refused("weights_inverted", part=part, first=STRUCTURES[label - 1].key)
    overlaps = overlaps[1:, 1:]
    suspects = (overlaps >= _FOUND) & (np.diag(overlaps) < _MISSED)[:, None]
    np.fill_diagonal(suspects, False)
    if not suspects.any():
        return
    from scipy import optimize  # takes its time to load

    rows, columns = optimize.linear_sum_assignment(-overlaps)
    for row, column in zip(rows, columns):
        if suspects[row, column]:
            drawn, called = (STRUCTURES[number].key for number in (row, column))
            raise refused("weights_confused", part=part, first=drawn, second=called)


def _count_found(overlaps: np.ndarray) -> int:
    return int(np.count_nonzero(np.diag(overlaps)[1:] >= _FOUND))


def _overlaps(
    structures: Sequence[Structure],
    executor: Executor,
    part: str,
    views: Sequence[torch.Tensor],
    truth: np.ndarray,
    stream_of: Callable[[torch.Tensor], Stream] = lambda _view: "target",
) -> np.ndarray:
    """Dice overlap of every drawn label with every predicted one, ``(8, 8)``; 0 is what is no structure."""
    import torch

    from mkd_core.method.ensemble import best_class

    total = torch.stack([executor.run(part, view, stream=stream_of(view))[0].softmax(dim=0) for view in views]).sum(
        dim=0
    )
    predicted = np.array(labels_of_the_seven(structures), np.uint8)[as_array(best_class(total))]
    pairs = truth.astype(np.intp).ravel() * CLASS_COUNT + predicted.ravel()
    common = np.bincount(pairs, minlength=CLASS_COUNT**2).reshape(CLASS_COUNT, CLASS_COUNT)
    sizes = common.sum(axis=1)[:, None] + common.sum(axis=0)[None]
    overlaps: np.ndarray = 2.0 * common / np.maximum(sizes, 1)
    return overlaps


def _normalised(
    bundle: Bundle, modality: str, spacing: float, shape: tuple[int, int, int]
) -> tuple[torch.Tensor, np.ndarray]:
    """The phantom as networks see it, ``(1, 1, D, H, W)`` in [-1, 1], and its labels ``(D, H, W)``."""

    from mkd_core.inference.normalisation import normalise

    values, labels = draw_phantom(modality, spacing, shape)
    return normalise(as_tensor(values.copy()), bundle.normalisation(modality))[None, None], labels


def _shape(spacing: float, stride: int) -> tuple[int, int, int]:
    z, y, x = (max(1, round(side / spacing / stride)) * stride for side in _EXTENT)
    return z, y, x


@functools.lru_cache(maxsize=4)
def draw_phantom(modality: str, spacing: float, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Draw the phantom: the seven structures, fat round them, lung round that.

    Args:
        modality: "CT" or "MR".
        spacing: voxel size, mm.
        shape: voxels along z (head), y (back), x (left).

    Returns:
        Intensities (float32; HU for CT) and labels (uint8, see `mkd_core.structures`), both ``(D, H, W)``; not to be
        changed, as they are kept.
    """
    from scipy import ndimage

    labels, fat = _draw_labels(spacing / _SCALE, shape)
    lung_value, fat_value, muscle, blood = _LOOKS[modality]
    values = np.where(fat, fat_value, lung_value).astype(np.float32)
    walls = ndimage.binary_dilation((labels > 0) & (labels != BY_KEY["Myo"].label))
    values[walls | (labels > 0)] = muscle
    for label, value in blood.items():
        values[labels == label] = value
    values = ndimage.gaussian_filter(values, 0.8 * _SCALE / spacing)
    noise = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    values += _NOISE[modality] * noise
    if modality == "MR":
        np.maximum(values, 0.0, out=values)
    values.setflags(write=False)
    labels.setflags(write=False)
    return values, labels


def _draw_labels(spacing: float, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Labels of a heart of an adult's size in the middle of a box, and where there is fat or heart.

    Points are (x, y, z) in mm from the middle, to the patient's left, back and head.
    """
    from scipy import ndimage

    axes = [(np.arange(count, dtype=np.float32) - (count - 1) / 2) * spacing for count in reversed(shape)]
    x, y, z = axes[0][None, None, :], axes[1][None, :, None], axes[2][:, None, None]

    def ellipsoid(centre: Point, radii: Point) -> np.ndarray:
        dx, dy, dz = ((axis - at) / radius for axis, at, radius in zip((x, y, z), centre, radii))
        inside: np.ndarray = dx**2 + dy**2 + dz**2 < 1.0
        return inside

    def along(centre: Point, direction: Point) -> tuple[np.ndarray, np.ndarray]:
        """Position along an axis through a point, mm, and squared distance from the axis, mm²."""
        dx, dy, dz = x - centre[0], y - centre[1], z - centre[2]
        position: np.ndarray = dx * direction[0] + dy * direction[1] + dz * direction[2]
        return position, dx**2 + dy**2 + dz**2 - position**2

    def spheroid(centre: Point, direction: Point, across: float, length: float) -> np.ndarray:
        position, distance = along(centre, direction)
        inside: np.ndarray = (position / length) ** 2 + distance / across**2 < 1.0
        return inside

    def tube(points: Sequence[Point], radius: float) -> np.ndarray:
        inside = np.zeros(shape, bool)
        for start, end in itertools.pairwise(points):
            step = np.subtract(end, start)
            length = float(np.linalg.norm(step))
            position, distance = along(start, step / length)
            beyond = position - np.clip(position, 0.0, length)
            inside |= distance + beyond**2 < radius**2
        return inside

    def unit(*direction: float) -> np.ndarray:
        return np.array(direction, np.float32) / np.float32(np.linalg.norm(direction))

    long_axis = unit(0.62, -0.55, -0.56)  # from the base of the left ventricle to its apex
    middle = np.array([26.0, -4.0, -14.0])
    below_valves = along(middle - 26.0 * long_axis, long_axis)[0] >= 0.0
    right_ventricle = spheroid((-6, -30, -14), unit(0.75, -0.25, -0.6), 24, 46)
    outflow = tube([(-10, -36, -8), (2, -34, 12), (8, -30, 26)], 13)
    left_atrium = ellipsoid((6, 31, 13), (32, 20, 23))
    aorta = tube([(4, 2, 6), (-8, -4, 24), (-16, -6, 44), (-14, -2, 64), (-4, 8, 76)], 15)
    pulmonary_artery = (
        tube([(10, -28, 28), (16, -16, 46), (14, 6, 52)], 13)
        | tube([(14, 2, 52), (-10, 14, 50), (-44, 16, 46)], 9)
        | tube([(14, 2, 52), (40, 18, 54)], 9)
    )
    # Later parts lie over earlier ones.
    parts = {
        "RA": ellipsoid((-40, 4, -8), (23, 25, 30)),
        "LA": left_atrium,
        "RV": right_ventricle | outflow,
        "PA": pulmonary_artery,
        "AA": aorta & ~left_atrium,
        "Myo": spheroid(middle, long_axis, 33, 52) & below_valves,
        "LV": spheroid(middle - 2.0 * long_axis, long_axis, 23.5, 43) & below_valves,
    }
    labels = np.zeros(shape, np.uint8)
    for key, inside in parts.items():
        labels[inside] = BY_KEY[key].label
    rim = max(1, round(3.0 / spacing))
    fat = ellipsoid((8, -4, -6), (74, 60, 62)) | ndimage.binary_dilation(labels > 0, iterations=rim)
    return labels, fat
