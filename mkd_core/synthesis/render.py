"""From tissue map to image: sampling, partial volume, texture, blur, noise, bias field, streaks.

``render_grid`` is the one renderer; training patches and whole volumes differ only in the grid they ask for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from mkd_core.structures import IGNORE, STRUCTURES, Structure
from mkd_core.synthesis import appearance, artefacts, body
from mkd_core.synthesis.appearance import Appearance
from mkd_core.synthesis.tissues import TARGET_OF, targets_of
from mkd_core.synthesis.tissues import Tissue as T

_NOISE_SIZE = 96

#: Length of the pulmonary veins that belongs to the left atrium, mm.  Whoever draws atria by hand leaves their proximal
#: sections on (Tobon-Gomez et al., "Benchmark for algorithms segmenting the left atrium from 3D CT and MRI datasets",
#: IEEE TMI 2015); how long they are differs from one data set to the next.
_STUB_MM = 5.0


@dataclass(frozen=True)
class Canvas:
    """A tissue map in a body, ready to be sampled.

    Attributes:
        tissues: ``(Z, Y, X)`` uint8, may be memory-mapped.
        spacing: voxel size, mm.
        heart_low, heart_high: voxel index box of the heart's structures, (z, y, x).
    """

    tissues: np.ndarray
    spacing: float
    heart_low: tuple[int, int, int]
    heart_high: tuple[int, int, int]

    @classmethod
    def from_array(cls, tissues: np.ndarray, spacing: float) -> Canvas:
        """Measure the heart's box and keep the array."""
        index = ndimage.find_objects((TARGET_OF[tissues[::2, ::2, ::2]] > 0).astype(np.uint8))[0]
        return cls(tissues, spacing, tuple(2 * s.start for s in index), tuple(2 * s.stop for s in index))


class NoiseBank:
    """Periodic smooth random fields of unit standard deviation, made once and cut at random places."""

    def __init__(self, seed: int = 0, copies: int = 3) -> None:
        rng = np.random.default_rng(seed)
        self._fields: dict[float, list[np.ndarray]] = {}
        for length in (0.0, 0.7, 1.2, 2.0, 4.0):  # standard deviation of the smoothing, in voxels
            self._fields[length] = []
            for _ in range(copies):
                noise = rng.standard_normal((_NOISE_SIZE,) * 3).astype(np.float32)
                if length:
                    noise = ndimage.gaussian_filter(noise, length, mode="wrap")
                self._fields[length].append(noise / noise.std())

    def cut(self, rng: np.random.Generator, shape: tuple[int, ...], smoothing: float) -> np.ndarray:
        """A random piece of the field whose smoothing (voxels) is nearest."""
        length = min(self._fields, key=lambda known: abs(known - smoothing))
        fields = self._fields[length]
        base = fields[rng.integers(len(fields))]
        index = [(np.arange(n) + rng.integers(_NOISE_SIZE)) % _NOISE_SIZE for n in shape]
        piece = base[np.ix_(*index)]
        for axis in range(3):
            if rng.random() < 0.5:
                piece = np.flip(piece, axis)
        return piece


_bank: NoiseBank | None = None


def _noise_bank() -> NoiseBank:
    global _bank
    if _bank is None:
        _bank = NoiseBank()
    return _bank


def _upsample(coarse: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Linear interpolation of a small field to ``shape``, ends on ends."""
    for axis, n in enumerate(shape):
        at = np.linspace(0, coarse.shape[axis] - 1.0001, n)
        first = at.astype(int)
        weight = (at - first).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
        coarse = np.take(coarse, first, axis) * (1 - weight) + np.take(coarse, first + 1, axis) * weight
    return coarse


def _flat_index(
    canvas: Canvas, axes: list[np.ndarray], matrix: np.ndarray, centre: np.ndarray, bend: np.ndarray | None
) -> np.ndarray:
    """Canvas voxel (flat) under every grid point; points outside take the nearest edge voxel.

    ``axes``: grid positions in mm from the centre, per axis; ``matrix``: mm to mm; ``bend``: (3, ...) displacement in
        mm at low resolution.
    """
    shape = tuple(len(a) for a in axes)
    scaled = (matrix / canvas.spacing).astype(np.float32)
    flat: np.ndarray | None = None
    for row, size in enumerate(canvas.tissues.shape):
        position = (scaled[row, 0] * axes[0].astype(np.float32)).reshape(-1, 1, 1) + (
            scaled[row, 1] * axes[1].astype(np.float32)
        ).reshape(1, -1, 1)
        position = position + (scaled[row, 2] * axes[2].astype(np.float32)).reshape(1, 1, -1)
        position += np.float32(centre[row] + 0.5)
        if bend is not None:
            position += _upsample(bend[row] / canvas.spacing, shape)
        np.clip(position, 0, size - 1, out=position)
        index = position.astype(np.int32)
        flat = index if flat is None else flat * size + index
    assert flat is not None
    return flat


def sample_tissues(canvas: Canvas, axes: list[np.ndarray], bend: np.ndarray) -> np.ndarray:
    """Tissues ``(Z, Y, X)`` of a bent canvas; ``axes`` in mm from its first voxel and ``bend`` as for
    :func:`render_grid`.
    """
    return canvas.tissues.reshape(-1)[_flat_index(canvas, axes, np.eye(3), np.zeros(3), bend)]


def render_grid(
    canvas: Canvas,
    look: Appearance,
    rng: np.random.Generator,
    axes: list[np.ndarray],
    spacing: float,
    centre: np.ndarray,
    matrix: np.ndarray | None = None,
    bend: np.ndarray | None = None,
    noise: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Render an image and its tissues on a grid.

    Args:
        canvas: tissue map.
        look: one draw of appearance.
        rng: source of texture and noise.
        axes: for z, y, x: grid positions in mm from ``centre``, steps of ``spacing``; repeated positions replicate the
            edge of a field of view.
        spacing: grid step, mm.
        centre: canvas voxel index (z, y, x), may be fractional.
        matrix: (3, 3), grid mm to canvas mm; identity if None.
        bend: (3, a, b, c) displacement in canvas mm on a coarse grid that spans the patch.
        noise: False leaves out noise, for tests.

    Returns:
        (image, tissues): float32 in the units of ``look.mean``, and uint8 tissue at each grid point, both of the grid's
        shape.
    """
    matrix = np.eye(3) if matrix is None else matrix
    shape = tuple(len(a) for a in axes)
    source = canvas.tissues.reshape(-1)
    tissues = source[_flat_index(canvas, axes, matrix, centre, bend)]
    # Two sub-positions a direction, averaged: partial volume.
    fine_axes = [(np.asarray(a)[:, None] + np.array([-0.25, 0.25]) * spacing).reshape(-1) for a in axes]
    fine = source[_flat_index(canvas, fine_axes, matrix, centre, bend)]
    halves = (shape[0], 2, shape[1], 2, shape[2], 2)
    image = look.mean[fine].reshape(halves).mean(axis=(1, 3, 5), dtype=np.float32)
    bank = _noise_bank()
    image += look.fine[tissues] * bank.cut(rng, shape, 1.5 / spacing)
    if look.coarse.any():
        image += look.coarse[tissues] * bank.cut(rng, shape, 5.0 / spacing)
    if look.scar:
        patchy = bank.cut(rng, shape, 5.0 / spacing) > rng.uniform(0.6, 1.6)
        image[patchy & (tissues == T.MYOCARDIUM)] = look.scar
    if look.voids:
        jets = np.clip(bank.cut(rng, shape, 5.0 / spacing) - rng.uniform(0.5, 1.5), 0, 1)
        image *= 1 - look.voids * jets * np.isin(tissues, appearance.BLOOD)
    if look.streaks:
        artefacts.add_streaks(image, tissues == T.SVC, look.streaks, rng, spacing)
    sigma = [
        np.hypot(look.blur_mm, 0.4 * max(0.0, look.slice_mm - 1)) / spacing,
        look.blur_mm / spacing,
        look.blur_mm / spacing,
    ]
    if max(sigma) > 0.25:
        image = ndimage.gaussian_filter(image, sigma, mode="nearest", truncate=2.5)
    if look.bias:
        image *= np.exp(look.bias * _upsample(rng.standard_normal((4, 4, 4)).astype(np.float32), shape))
    if look.bands:  # a zero of the balanced steady state, half a cycle off resonance
        off = 0.35 * _upsample(rng.standard_normal((4, 4, 4)).astype(np.float32), shape)
        image *= 1 - look.bands * np.exp(-(((np.abs(off) - 0.5) / 0.06) ** 2))
    if look.coil:
        depth = (np.asarray(axes[1], np.float32) - rng.uniform(-40, 40)) / 100
        image *= np.exp(look.coil * np.minimum(depth**2, 1.5)).reshape(1, -1, 1)
    if noise and look.noise:
        grain = look.noise * bank.cut(rng, shape, look.noise_mm / spacing)
        if look.modality == "MR":
            image = np.hypot(image + grain, look.noise * bank.cut(rng, shape, look.noise_mm / spacing))
        else:
            image += grain
    if look.modality == "CT":
        np.maximum(image, -1024, out=image)
    else:
        np.abs(image, out=image)
    return image.astype(np.float32, copy=False), tissues


def rotation(degrees: np.ndarray) -> np.ndarray:
    """Rotation by angles about z, y and x, degrees; acts on (z, y, x) vectors, ``(3, 3)``."""
    a, b, c = np.deg2rad(degrees)
    rz = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    ry = np.array([[np.cos(b), 0, -np.sin(b)], [0, 1, 0], [np.sin(b), 0, np.cos(b)]])
    rx = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return rz @ ry @ rx


def mark_vein_stubs(tissues: np.ndarray, spacing: float) -> None:
    """Name the stubs of the pulmonary veins, their first 5 mm along them from the left atrium, in a tissue map ``(Z, Y,
    X)`` of ``spacing`` mm, in place.
    """
    vein = tissues == T.PULMONARY_VEINS
    found = ndimage.find_objects(vein.astype(np.uint8))
    if not found:
        return
    box = tuple(slice(max(0, part.start - 1), part.stop + 1) for part in found[0])
    vein, view = vein[box], tissues[box]
    reached = view == T.LA
    for step in range(max(1, round(_STUB_MM / spacing))):
        # Faces and corners in turn: nearly as far in every direction.
        reached = (
            ndimage.binary_dilation(reached, ndimage.generate_binary_structure(3, 3 if step % 2 else 1), mask=vein)
            | reached
        )
    view[reached & vein] = T.PULMONARY_VEIN_STUB


#: (structure, tissue beyond its conventional end, width of the zone in that tissue that counts in no loss in mm).
#: Widths were chosen by hand: about the uncertainty of an observer who has to place such a cut.
_SOFT_CUTS = (
    ("AA", T.AORTA_ARCH_DESCENDING, 5.0),
    ("LA", T.PULMONARY_VEINS, 6.0),
    ("RA", T.SVC, 3.0),
    ("RA", T.IVC, 3.0),
)


def _soft_cuts(tissues: np.ndarray, target: np.ndarray, spacing: float, structures: Sequence[Structure]) -> None:
    """Ignore what lies just beyond cuts that no edge in the image shows: aortic arch past the ascending aorta, veins
    past the left atrium.
    """
    labels = {structure.key: structure.label for structure in structures}
    for key, beyond, reach in _SOFT_CUTS:
        other, label = tissues == beyond, labels.get(key)
        if label is not None and other.any():
            steps = max(1, round(reach / spacing))
            near = ndimage.binary_dilation(target == label, iterations=steps)
            target[near & other] = IGNORE


def _spoil(
    image: np.ndarray, tissues: np.ndarray, look: Appearance, rng: np.random.Generator, spacing: float
) -> np.ndarray:
    """Sometimes add what goes wrong in a scanner."""
    if look.modality == "CT" and rng.random() < 0.8:
        artefacts.add_streaks(
            image, np.isin(tissues, appearance.LEADS), rng.uniform(20, 150), rng, spacing, reach_mm=25.0, free_mm=3.0
        )
    if rng.random() < 0.12:
        image = artefacts.double_contours(image, rng, spacing)
    if rng.random() < 0.15:
        axis = 0 if look.modality == "CT" else int(rng.integers(3))
        image = artefacts.thick_slices(image, rng.uniform(1.5 * spacing, 6.0), rng, spacing, axis)
    return image


@dataclass(frozen=True)
class View:
    """What a training example shows of a canvas.

    Attributes:
        axes, centre, matrix, bend: as for :func:`render_grid`.
        outside: voxels beyond the field of view, ``(Z, Y, X)``.
    """

    axes: list[np.ndarray]
    centre: np.ndarray
    matrix: np.ndarray
    bend: np.ndarray | None
    outside: np.ndarray


@dataclass(frozen=True)
class Stack:
    """Thick slices in some plane: arguments of :func:`mkd_core.synthesis.artefacts.as_stack`."""

    frame: np.ndarray
    thickness_mm: float
    centre_mm: np.ndarray
    reach_mm: np.ndarray

    def record(self, image: np.ndarray, outside: np.ndarray, spacing: float) -> tuple[np.ndarray, np.ndarray]:
        """The image as it is recorded, and which voxels lie beyond its field of view or in ``outside`` already."""
        image, beyond = artefacts.as_stack(image, self.frame, self.thickness_mm, self.centre_mm, self.reach_mm, spacing)
        return image, outside | beyond


#: Shares of the training examples that show a child's heart or a very large one, and of those of MR that were recorded
#: as a stack of thick slices, most of them along the short axis.
_SHARE_CHILD, _SHARE_GIANT, _SHARE_STACK = 0.12, 0.06, 0.2


def draw_size(rng: np.random.Generator) -> float:
    """Scale of a view, grid mm to canvas mm: mostly adults, at times a child (down to 0.6) or a giant (up to 1.3)."""
    kind = rng.random()
    if kind < _SHARE_CHILD:
        return float(rng.uniform(1.16, 1.67))
    if kind < _SHARE_CHILD + _SHARE_GIANT:
        return float(rng.uniform(0.77, 0.86))
    return float(rng.uniform(0.86, 1.16))


def draw_stack(modality: str, rng: np.random.Generator) -> Stack | None:
    """Whether and how an image was recorded as a stack of thick slices; cropped, as many are."""
    if modality != "MR" or rng.random() >= _SHARE_STACK:
        return None
    frame = artefacts.long_axis_frame(rng)
    if rng.random() < 0.3:
        frame = rotation(rng.normal(0, 12, 3)) @ np.eye(3)[rng.permutation(3)].T
    reach = np.array([rng.uniform(30, 75), rng.uniform(60, 150), 0.0])
    reach[2] = reach[1] * rng.uniform(0.8, 1.2)
    return Stack(frame, rng.uniform(4.0, 10.5), rng.normal(0, 12, 3), reach)


def draw_view(
    canvas: Canvas, rng: np.random.Generator, shape: tuple[int, ...], spacing: float, heart_bias: float = 0.85
) -> View:
    """Draw what a training example of ``shape`` voxels (z, y, x) of ``spacing`` mm shows: a turned, scaled, bent piece
    of a canvas; ``heart_bias`` as for :func:`random_patch`.
    """
    matrix = rotation(rng.normal(0, 18 if rng.random() < 0.35 else 8, 3)) @ np.diag(
        draw_size(rng) * rng.uniform(0.94, 1.06, 3)
    )
    low, high = np.array(canvas.heart_low), np.array(canvas.heart_high)
    if rng.random() < heart_bias:
        centre = low + (high - low) * rng.beta(2, 2, 3)
    else:
        centre = rng.uniform(0, np.array(canvas.tissues.shape))
    bend = None
    if rng.random() < 0.6:
        bend = rng.normal(0, rng.uniform(1, 4), (3, 6, 6, 6)).astype(np.float32)
    axes = [(np.arange(n) - (n - 1) / 2) * spacing for n in shape]
    outside = np.zeros(shape, bool)
    if rng.random() < 0.25:  # a field of view that ends inside the patch
        for axis in rng.choice(3, rng.integers(1, 4), replace=False):
            cut = int(rng.uniform(0.05, 0.35) * shape[axis])
            index = [slice(None)] * 3
            if rng.random() < 0.5:
                axes[axis] = np.maximum(axes[axis], axes[axis][cut])
                index[axis] = slice(0, cut)
            else:
                axes[axis] = np.minimum(axes[axis], axes[axis][-cut - 1])
                index[axis] = slice(shape[axis] - cut, None)
            outside[tuple(index)] = True
    return View(axes, centre, matrix, bend, outside)


def random_patch(
    canvas: Canvas,
    modality: str,
    rng: np.random.Generator,
    size: int | tuple[int, int, int],
    spacing: float,
    heart_bias: float = 0.85,
    soft_cuts: bool = True,
    structures: Sequence[Structure] = STRUCTURES,
) -> tuple[np.ndarray, np.ndarray]:
    """A training example: a turned, scaled, bent piece of a canvas, rendered, with its target.

    Args:
        canvas: heart in a body.
        modality: ``"CT"`` or ``"MR"``.
        rng: source of all randomness.
        size: voxels per side, or (z, y, x).
        spacing: mm.
        heart_bias: share of patches centred in the heart's box; the others lie anywhere.
        soft_cuts: mark conventional cuts as :data:`IGNORE`.
        structures: of the target, with their labels.

    Returns:
        (image, target): float32 in HU or MR units; uint8, labels or :data:`IGNORE`.
    """
    shape = (size,) * 3 if isinstance(size, int) else tuple(size)
    look = appearance.draw_varied(modality, rng)
    view = draw_view(canvas, rng, shape, spacing, heart_bias)
    image, tissues, outside = record(canvas, look, view, rng, spacing)
    target = targets_of(structures)[tissues]
    if soft_cuts:
        _soft_cuts(tissues, target, spacing, structures)
    target[outside] = IGNORE
    return image, target


def record(
    canvas: Canvas, look: Appearance, view: View, rng: np.random.Generator, spacing: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Render a view of a canvas with what goes wrong in a scanner, at times as a stack of thick slices.

    Returns:
        (image, tissues, outside), each ``(Z, Y, X)``: float32 in HU or MR units, uint8, and which voxels lie beyond
        the field of view.
    """
    image, tissues = render_grid(canvas, look, rng, view.axes, spacing, view.centre, view.matrix, view.bend)
    image = _spoil(image, tissues, look, rng, spacing)
    outside = view.outside
    stack = draw_stack(look.modality, rng)
    if stack is not None:
        image, outside = stack.record(image, outside, spacing)
    return image, tissues, outside


def synthesize(
    labelmap: sitk.Image | None = None,
    modality: str = "CT",
    seed: int = 0,
    spacing: float = 1.0,
    around_mm: float = 30.0,
    structures: Sequence[Structure] = STRUCTURES,
) -> tuple[sitk.Image, sitk.Image]:
    """Make one volume with its truth.

    Args:
        labelmap: tissue map of a heart (:mod:`mkd_core.synthesis.tissues`), isotropic, identity direction; None makes
            one by
            :func:`mkd_core.synthesis.anatomy.make_heart`.
        modality: ``"CT"`` (HU) or ``"MR"`` (arbitrary units, blood about 500).
        seed: decides body, appearance and noise; same seed, same volume.
        spacing: voxel size of the result, mm.
        around_mm: body shown around the box of the heart map.
        structures: of the truth, with their labels.

    Returns:
        (image int16, truth uint8 with the structures' labels), same grid, LPS.
    """
    rng = np.random.default_rng(seed)
    canvas, origin = canvas_around(labelmap, seed, around_mm)
    axes = grid_axes(canvas, spacing)
    image, tissues = render_grid(canvas, appearance.draw(modality, rng), rng, axes, spacing, np.zeros(3))
    return as_images(image, tissues, modality, spacing, origin, structures)


def canvas_around(
    labelmap: sitk.Image | None, seed: int, around_mm: float
) -> tuple[Canvas, tuple[float, float, float]]:
    """The canvas of a heart (one made from the seed if None) with ``around_mm`` of body around it, and the place of its
    first voxel, LPS mm.
    """
    if labelmap is None:
        from mkd_core.synthesis.anatomy import make_heart

        labelmap = make_heart(seed)
    image = body_canvas(labelmap, seed, body.chest_extent(labelmap, around_mm))
    tissues = sitk.GetArrayFromImage(image)
    mark_vein_stubs(tissues, image.GetSpacing()[0])
    return Canvas.from_array(tissues, image.GetSpacing()[0]), image.GetOrigin()


def grid_axes(canvas: Canvas, spacing: float) -> list[np.ndarray]:
    """Positions (z, y, x) in mm of the voxels of an image that shows the whole canvas, the first voxel on the canvas'
    first voxel.
    """
    return [np.arange(max(8, int(n * canvas.spacing / spacing))) * spacing for n in canvas.tissues.shape]


def as_images(
    image: np.ndarray,
    tissues: np.ndarray,
    modality: str,
    spacing: float,
    origin: tuple[float, float, float],
    structures: Sequence[Structure] = STRUCTURES,
) -> tuple[sitk.Image, sitk.Image]:
    """Turn what `render_grid` returned into (image int16, truth uint8 with the labels of the structures)."""
    if modality == "MR":
        image = image * 500
    results = []
    for array, kind in ((np.clip(np.rint(image), -1024, 3071), np.int16), (targets_of(structures)[tissues], np.uint8)):
        result = sitk.GetImageFromArray(array.astype(kind))
        result.SetSpacing([spacing] * 3)
        result.SetOrigin(origin)
        results.append(result)
    return results[0], results[1]


def body_canvas(heart: sitk.Image, seed: int, extent: body.Extent | None = None) -> sitk.Image:
    """Heart at its own resolution in a body painted at twice its voxel size: fine where it matters, quick elsewhere."""
    own = heart.GetSpacing()[0]
    coarse = body.surround(heart, seed, 2 * own, extent)
    canvas = sitk.Expand(coarse, [2, 2, 2], sitk.sitkNearestNeighbor)
    tissues = sitk.GetArrayFromImage(canvas)
    exact = sitk.GetArrayFromImage(
        sitk.Resample(heart, canvas, sitk.Transform(), sitk.sitkNearestNeighbor, 0, sitk.sitkUInt8)
    )
    tissues[exact > 0] = exact[exact > 0]
    # The coarse copy may stick out half a voxel over the exact heart; what the exact map calls outside becomes fat
    # there.
    spill = (
        (exact == 0)
        & (tissues < T.AIR)
        & (
            sitk.GetArrayFromImage(
                sitk.Resample(
                    sitk.Cast(heart > 0, sitk.sitkUInt8), coarse, sitk.Transform(), sitk.sitkNearestNeighbor, 0
                )
            )
            .repeat(2, 0)
            .repeat(2, 1)
            .repeat(2, 2)
            > 0
        )
    )
    tissues[spill] = T.FAT
    result = sitk.GetImageFromArray(tissues)
    result.CopyInformation(canvas)
    return result
