"""Pictures of a study for the eye that checks it: three slices with contours, and the outside of the segmentation.

Both are strips of four square tiles, axial, coronal, sagittal, surface: one to look at, and a small one for lists.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import scipy.ndimage
import SimpleITK as sitk

from mkd_core.io import preview
from mkd_core.structures import Structure

#: File names of the strips, with the height of a tile in pixels and the quality of WebP.
PICTURE, THUMBNAIL = "picture.webp", "thumbnail.webp"
_TILE, _QUALITY = 256, 78
_SMALL_TILE, _SMALL_QUALITY = 88, 60

#: Voxels along the longest side of the heart for the view from outside.
_SURFACE_GRID = 96

#: The heart is seen from the front, turned so far to the patient's left, degrees.
_TURN = 25.0

_BACKGROUND = 14.0


def draw(image: sitk.Image, labels: sitk.Image, modality: str, structures: Sequence[Structure]) -> dict[str, bytes]:
    """Both strips as WebP, by file name; none if nothing is labelled.

    Args:
        image: the volume.
        labels: its labels.
        modality: "CT" has a fixed grey window.
        structures: what the labels mean.
    """
    from PIL import Image

    if not sitk.GetArrayViewFromImage(labels).any():
        return {}
    tiles = list(preview.filled_slices(image, labels, modality, structures, side=_TILE).values())
    tiles.append(surface(labels, structures, _TILE))
    strip = Image.fromarray(np.concatenate(tiles, axis=1))
    small = strip.resize((_SMALL_TILE * len(tiles), _SMALL_TILE), Image.Resampling.BOX)
    return {PICTURE: _webp(strip, _QUALITY), THUMBNAIL: _webp(small, _SMALL_QUALITY)}


def _webp(picture: object, quality: int) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "WEBP", quality=quality, method=2)  # type: ignore[attr-defined]
    return stream.getvalue()


def surface(labels: sitk.Image, structures: Sequence[Structure], side: int) -> np.ndarray:
    """The labelled structures from outside, front and left, lit from above: ``(side, side, 3)``, uint8.

    Rays run from front to back through a coarse grid; the depth of the first labelled voxel gives the shading.
    """
    grid = _turned_grid(labels)
    coarse = sitk.GetArrayFromImage(sitk.Resample(labels, grid, sitk.Transform(), sitk.sitkNearestNeighbor, 0))
    voxels = coarse[::-1].transpose(1, 0, 2)  # depth, rows from the head down, columns to the left
    filled = voxels > 0
    hit = filled.any(axis=0)
    depth = filled.argmax(axis=0)
    first = np.take_along_axis(voxels, depth[None], axis=0)[0]

    normals = _normals(filled, depth)
    light = np.array([-0.75, -0.55, -0.35])  # from the front, above and the patient's right
    lit = np.clip(normals @ (light / np.linalg.norm(light)), 0, 1)
    shade = 0.28 + 0.72 * lit - 0.25 * (depth / max(len(voxels), 1))

    colours = np.zeros((max(structure.label for structure in structures) + 1, 3), np.float32)
    for structure in structures:
        colours[structure.label] = structure.color
    pixels = np.full((*hit.shape, 3), _BACKGROUND, np.float32)
    pixels[hit] = (colours[first] * shade[..., None])[hit]
    return _enlarged(pixels, side)


def _turned_grid(labels: sitk.Image) -> sitk.Image:
    """A cubic grid round all labels whose second axis looks from the front, turned about the head-foot axis."""
    low, high, _ = preview.extent(labels, margin=4.0)
    turn = np.radians(_TURN)
    direction = np.array([[np.cos(turn), -np.sin(turn), 0.0], [np.sin(turn), np.cos(turn), 0.0], [0.0, 0.0, 1.0]])
    across = np.abs(direction.T) @ (high - low)
    step = float(across.max() / _SURFACE_GRID)
    origin = (low + high) / 2 - direction @ np.full(3, step * (_SURFACE_GRID - 1) / 2)
    grid = sitk.Image([_SURFACE_GRID] * 3, sitk.sitkUInt8)
    grid.SetSpacing([step] * 3)
    grid.SetDirection(direction.ravel().tolist())
    grid.SetOrigin(origin.tolist())
    return grid


def _normals(filled: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Directions out of the surface where the rays hit it, ``(rows, columns, 3)``; of a blurred volume, because voxels
    are steps.
    """
    smooth = scipy.ndimage.gaussian_filter(filled.astype(np.float32), 1.6, truncate=2.5)
    hits: tuple[np.ndarray, ...] = (depth, *np.indices(depth.shape))
    inner = [np.clip(index, 1, size - 2) for index, size in zip(hits, filled.shape)]
    gradient = []
    for axis in range(3):
        ahead, behind = list(inner), list(inner)
        ahead[axis], behind[axis] = inner[axis] + 1, inner[axis] - 1
        gradient.append(smooth[tuple(behind)] - smooth[tuple(ahead)])
    normals = np.stack(gradient, axis=-1)
    return normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-6)


def _enlarged(pixels: np.ndarray, side: int) -> np.ndarray:
    from PIL import Image

    picture = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    return np.asarray(picture.resize((side, side), Image.Resampling.BICUBIC))
