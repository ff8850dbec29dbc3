"""A picture of a segmentation: axial, coronal and sagittal slices through the heart, plain above, with the structures
below; or with the truth.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from mkd_core.io import atomic
from mkd_core.protocol import SHOWN_HU, SHOWN_PERCENTILES
from mkd_core.structures import STRUCTURES, Structure

#: Size of a pixel, mm; pictures stay readable from whole-body down to small-field volumes.
_PIXEL = 0.5

#: Seen around the heart, mm.
_MARGIN = 35.0

_GAP = 6

#: Share of a structure's colour inside its outline.
_OPACITY = 0.35

# Per slice: its name, the axes of LPS that run to the right and down in the picture, and the sign of each.  As
# radiologists look: the patient's left is on the right, the back below in axial slices, the head above in the others.
_VIEWS = (
    ("axial", (0, 1), (1, 1)),
    ("coronal", (0, 2), (1, -1)),
    ("sagittal", (1, 2), (1, -1)),
)


def picture(
    image: sitk.Image, labels: sitk.Image, modality: str = "CT", structures: Sequence[Structure] = STRUCTURES
) -> np.ndarray:
    """Draw a segmentation.

    Args:
        image: the volume.
        labels: its labels, at least one voxel labelled.
        modality: "CT" has a fixed grey window, others take the central percentiles.
        structures: what the labels mean.

    Returns:
        ``(height, width, 3)``, uint8.
    """
    plain, painted = [], []
    for _, grid, grey in _slices(image, labels, modality):
        plain.append(np.repeat(grey[..., None], 3, axis=2))
        painted.append(_filled(labels, grid, grey, structures))
    return stack([stack(plain, axis=1), stack(painted, axis=1)], axis=0)


def filled_slices(
    image: sitk.Image,
    labels: sitk.Image,
    modality: str = "CT",
    structures: Sequence[Structure] = STRUCTURES,
    *,
    side: int | None = None,
) -> dict[str, np.ndarray]:
    """Draw a segmentation, slice by slice.

    Args:
        image, labels, modality, structures: as in :func:`picture`.
        side: of each slice, pixels; None for pixels of :data:`_PIXEL`.

    Returns:
        Square slices ``(side, side, 3)``, uint8, by "axial", "coronal" and "sagittal".
    """
    slices = _slices(image, labels, modality, side)
    return {name: _filled(labels, grid, grey, structures) for name, grid, grey in slices}


def _filled(labels: sitk.Image, grid: sitk.Image, grey: np.ndarray, structures: Sequence[Structure]) -> np.ndarray:
    shown = _resample(labels, grid, sitk.sitkNearestNeighbor, 0.0)
    return _paint(grey, shown, _outline(shown), structures)


def comparison(
    image: sitk.Image,
    truth: sitk.Image,
    labels: sitk.Image | None,
    modality: str = "CT",
    structures: Sequence[Structure] = STRUCTURES,
) -> dict[str, np.ndarray]:
    """Draw a segmentation filled and the truth as outlines, both in the colours of the structures.

    Args:
        image: the volume.
        truth: its true labels.
        labels: the segmentation; None if there is none.
        modality, structures: as in :func:`picture`.

    Returns:
        Slices ``(height, width, 3)``, uint8, all of the same size, by "axial", "coronal" and "sagittal"; none if
        nothing is labelled.
    """
    labels = truth * 0 if labels is None else labels
    either = sitk.Maximum(truth, labels)
    if not sitk.GetArrayViewFromImage(either).any():
        return {}
    slices = {}
    for name, grid, grey in _slices(image, either, modality):
        filled, outlined = (_resample(one, grid, sitk.sitkNearestNeighbor, 0.0) for one in (labels, truth))
        slices[name] = _paint(grey, filled, _thickened(_outline(outlined)), structures, outlined)
    return slices


def stack(tiles: list[np.ndarray], axis: int) -> np.ndarray:
    """Pictures ``(height, width, 3)`` one below the other (axis 0) or side by side (axis 1), with a gap between
    them.
    """
    gap = list(tiles[0].shape)
    gap[axis] = _GAP
    separated = [part for tile in tiles for part in (np.full(gap, 32, np.uint8), tile)][1:]
    return np.concatenate(separated, axis=axis)


def write_png(pixels: np.ndarray, path: Path | str) -> None:
    """Write ``(height, width, 3)`` uint8 pixels as PNG.

    Raises:
        OSError: it cannot be written.
    """
    atomic.write_file(path, lambda draft: store_png(pixels, draft))


def store_png(pixels: np.ndarray, draft: Path) -> None:
    """Write ``(height, width, 3)`` uint8 pixels to a draft of :mod:`mkd_core.io.atomic` as PNG,
    our mark behind its end.

    Raises:
        OSError: it cannot be written.
    """
    with draft.open("wb") as file:
        file.write(png_bytes(pixels))
        file.write(atomic.MARK_PLACEHOLDER)


def png_bytes(pixels: np.ndarray) -> bytes:
    """``(height, width, 3)`` uint8 pixels as PNG (https://www.w3.org/TR/png)."""
    height, width, _ = pixels.shape
    rows = np.zeros((height, 1 + 3 * width), np.uint8)  # each begins with its filter: none
    rows[:, 1:] = pixels.reshape(height, -1)
    chunks = (
        (b"IHDR", struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows.tobytes(), 9)),
        (b"IEND", b""),
    )
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, content in chunks:
        parts += [struct.pack(">I", len(content)), kind, content, struct.pack(">I", zlib.crc32(kind + content))]
    return b"".join(parts)


def extent(labels: sitk.Image, margin: float = _MARGIN) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Corners of the box round all labels, at least one, with a margin, and the middle of the labels; LPS, mm."""
    shape = sitk.LabelShapeStatisticsImageFilter()
    shape.ComputePerimeterOff()
    shape.Execute(labels > 0)
    start, size = np.array(shape.GetBoundingBox(1)).reshape(2, 3)
    corners = [
        labels.TransformContinuousIndexToPhysicalPoint((start + np.array(c) * (size - 1)).tolist())
        for c in np.ndindex(2, 2, 2)
    ]
    return np.min(corners, axis=0) - margin, np.max(corners, axis=0) + margin, np.array(shape.GetCentroid(1))


def shown_range(voxels: np.ndarray, modality: str) -> tuple[float, float]:
    """The values of a volume, ``(Z, Y, X)``, that are shown black and white; of other modalities than CT those of a
    share of its voxels.
    """
    if modality == "CT":
        return SHOWN_HU
    low, high = np.percentile(voxels[::4, ::4, ::4], SHOWN_PERCENTILES)
    return float(low), float(high)


def _slices(
    image: sitk.Image, labels: sitk.Image, modality: str, side: int | None = None
) -> Iterator[tuple[str, sitk.Image, np.ndarray]]:
    """Name, grid and grey values of the slices through the middle of all labels, of so many pixels or of pixels of
    :data:`_PIXEL`.
    """
    low, high, middle = extent(labels)
    grey_range = shown_range(sitk.GetArrayViewFromImage(image), modality)
    for name, axes, signs in _VIEWS:
        grid = _slice_grid(axes, signs, low, high, middle, side)
        yield name, grid, _grey(_resample(image, grid, sitk.sitkLinear, float(grey_range[0])), grey_range)


def _slice_grid(
    axes: tuple[int, int],
    signs: tuple[int, int],
    low: np.ndarray,
    high: np.ndarray,
    middle: np.ndarray,
    side: int | None,
) -> sitk.Image:
    # All three slices get the same height, so that they stand side by side.
    length = float(np.max(high - low))
    pixel = _PIXEL if side is None else length / side
    side = side or round(length / pixel)
    origin, direction = middle.copy(), np.zeros((3, 3))
    size = [side, side, 1]
    for column, (axis, sign) in enumerate(zip(axes, signs)):
        origin[axis] = (low[axis] + high[axis]) / 2 - sign * length / 2
        direction[axis, column] = sign
    direction[:, 2] = np.cross(direction[:, 0], direction[:, 1])
    grid = sitk.Image(size, sitk.sitkUInt8)
    grid.SetSpacing([pixel] * 3)
    grid.SetDirection(direction.ravel().tolist())
    grid.SetOrigin(origin.tolist())
    return grid


def _resample(image: sitk.Image, grid: sitk.Image, interpolator: int, outside: float) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.Resample(image, grid, sitk.Transform(), interpolator, outside))[0]


def _grey(values: np.ndarray, grey_range: tuple[float, float]) -> np.ndarray:
    low, high = grey_range
    return np.clip((values.astype(np.float32) - low) * (255.0 / max(high - low, 1e-6)), 0, 255).astype(np.uint8)


def _paint(
    grey: np.ndarray,
    filled: np.ndarray,
    line: np.ndarray,
    structures: Sequence[Structure],
    outlined: np.ndarray | None = None,
) -> np.ndarray:
    """Fill labels thinly, and draw the pixels of ``line`` fully in the colours of ``outlined``: the same labels if
    None.
    """
    largest = max((structure.label for structure in structures), default=0)
    colours = np.zeros((largest + 1, 3), np.float32)
    for structure in structures:
        colours[structure.label] = structure.color
    pixels = _blend(np.repeat(grey[..., None], 3, axis=2), colours[filled], np.where(filled > 0, _OPACITY, 0.0))
    outlined = filled if outlined is None else outlined
    return _blend(pixels, colours[outlined], np.where(line & (outlined > 0), 1.0, 0.0)).astype(np.uint8)


def _blend(below: np.ndarray, above: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    return below * (1 - opacity[..., None]) + above * opacity[..., None]


def _outline(labels: np.ndarray) -> np.ndarray:
    """Pixels with a neighbour of another label."""
    padded = np.pad(labels, 1, mode="edge")
    neighbours = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    return np.any([neighbour != labels for neighbour in neighbours], axis=0)


def _thickened(line: np.ndarray) -> np.ndarray:
    """A line with the pixels beside it."""
    padded = np.pad(line, 1)
    return line | padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
