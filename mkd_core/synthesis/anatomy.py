"""A heart built from formulas and varied by a seed, as a map of tissues.

A template heart of average adult size is made of smooth implicit solids (`heart_solids`).  A seed draws the sizes of
its parts (`heart_shape`) and a smooth map of space: scale, rotation of the heart against the vessels, growth of
chambers, free-form deformation. The template's solids are evaluated at the mapped points of a 2 mm grid and drawn at
the spacing asked for (`label_drawing`).
"""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from mkd_core.synthesis.heart_shape import HeartShape
from mkd_core.synthesis.heart_solids import heart_solids
from mkd_core.synthesis.label_drawing import draw_labels
from mkd_core.synthesis.warp import FreeForm, rotation, shrink_back, twist_back

#: Centres about which chambers grow, and the reach of the growth in mm.
_GROWTH = {
    "lv": (np.array([0.0, 0.0, 0.0]), 40.0),
    "rv": (np.array([-36.0, -32.0, 0.0]), 36.0),
    "la": (np.array([-34.0, 29.0, 40.0]), 28.0),
    "ra": (np.array([-70.0, 2.0, 20.0]), 28.0),
}

_GRID_MM = 2.0  # spacing at which solids are evaluated
_MARGIN_MM = 15.0  # kept around chambers, ascending aorta and pulmonary artery
_EXTENT = np.array([-135.0, -100.0, -105.0]), np.array([80.0, 105.0, 175.0])  # holds every heart that can be drawn, mm


def make_heart(seed: int, spacing: float = 1.0, spread: float = 1.0) -> sitk.Image:
    """Draw a heart.

    Args:
        seed: decides the heart; the same seed gives the same heart at any spacing.
        spacing: voxel size of the result in mm.
        spread: how far sizes may lie from the average, see `HeartShape.draw`.

    Returns:
        Tissue map (`mkd_core.synthesis.tissues.Tissue`, values 0 to 21), uint8, isotropic, identity direction in LPS.
        The box is the heart with the ascending aorta and the pulmonary artery and about 15 mm around; other vessels are
        cut where it ends.
    """
    rng = np.random.default_rng(seed)
    return draw_heart(HeartShape.draw(rng, spread), rng, spacing)


def draw_heart(shape: HeartShape, rng: np.random.Generator, spacing: float = 1.0) -> sitk.Image:
    """Draw the heart of a shape; ``rng`` gives the deformation and the details.  See `make_heart`."""
    if not 0.2 <= spacing <= 5.0:
        raise ValueError(f"spacing must be 0.2 to 5 mm, got {spacing}")
    map_back = _Deformation(shape, rng)
    details = _Details(shape, rng)

    # A look at 4 mm tells where the heart is.
    axes = _axes(*_EXTENT, 4.0)
    heart = heart_solids(map_back(axes), shape, *details.on_grid(axes)).heart()
    inside = np.argwhere(heart.reshape([len(axis) for axis in axes[::-1]]) < 0)[:, ::-1]
    low, high = (
        np.array([axis[i] for axis, i in zip(axes, corner)]) for corner in (inside.min(axis=0), inside.max(axis=0))
    )
    low, high = low - _MARGIN_MM, high + _MARGIN_MM

    axes = _axes(low - _GRID_MM, high + spacing + _GRID_MM, _GRID_MM)
    solids = heart_solids(map_back(axes), shape, *details.on_grid(axes))
    fine = _axes(low, high, spacing)
    labels = draw_labels(solids, axes, fine)
    image = sitk.GetImageFromArray(labels)
    image.SetSpacing([float(spacing)] * 3)
    image.SetOrigin([float(axis[0]) for axis in fine])
    return image


def _axes(low: np.ndarray, high: np.ndarray, step: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coordinates (x, y, z) of a grid from ``low`` that covers ``high``."""
    return tuple(a + step * np.arange(int(np.ceil((b - a) / step)) + 1) for a, b in zip(low, high))


class _Deformation:
    """From points of the picture to points of the template."""

    def __init__(self, shape: HeartShape, rng: np.random.Generator) -> None:
        self._shape = shape
        self._coarse = FreeForm(rng, *_EXTENT, 32.0, 3)
        self._fine = FreeForm(rng, *_EXTENT, 14.0, 3)

    def __call__(self, axes) -> np.ndarray:
        """Template points ``(3, n)``, n running over the grid ``(z, y, x)`` of the coordinates ``(x, y, z)``."""
        shape = self._shape
        z, y, x = np.meshgrid(*axes[::-1], indexing="ij", copy=False)
        points = np.stack([x.ravel(), y.ravel(), z.ravel()]).astype(np.float32)
        back = np.diag(1.0 / shape.scale) @ rotation(shape.body_turn).T
        points = back.astype(np.float32) @ points
        for fields, amplitude in zip((self._coarse, self._fine), shape.bending):
            points = points + fields.on_grid(axes).reshape(3, -1) * np.float32(amplitude)
        for axis, degrees in zip(np.eye(3), shape.heart_turn):
            points = twist_back(points, (-30.0, 0.0, 10.0), axis, degrees, 35.0, 115.0)
        for chamber, factor in shape.growth.items():
            centre, reach = _GROWTH[chamber]
            points = shrink_back(points, centre, factor, reach)
        return points


class _Details:
    """Small irregularities of surfaces and the uneven thickness of fat."""

    def __init__(self, shape: HeartShape, rng: np.random.Generator) -> None:
        self._rough = FreeForm(rng, *_EXTENT, 7.0, 1)
        self._fat = FreeForm(rng, *_EXTENT, 22.0, 1)
        self._shape = shape

    def on_grid(self, axes) -> tuple[np.ndarray, np.ndarray]:
        """Roughness of the ventricles' inner surface and thickness of fat, both ``(n,)`` in mm."""
        rough = self._rough.on_grid(axes)[0].ravel() * np.float32(0.5)
        fat = np.maximum(self._fat.on_grid(axes)[0].ravel() * np.float32(1.6) + np.float32(self._shape.fat), 0.0)
        return rough, fat
