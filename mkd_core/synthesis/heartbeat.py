"""A beating heart: the frames of one beat of a synthetic heart, with the truth known in every voxel of every frame.

The heart of the first frame, at end-diastole, is drawn as any other.  The other frames are the same tissues moved.  The
motion is that of balls of blood inside the chambers that lose (ventricles) or gain (atria) a known volume while
everything outside a ball flows after it
without changing its own: a shell of radius r goes to the cube root of r³ - k.  So the ventricles give off a stroke
volume that is chosen, the myocardium thickens and keeps its volume, the planes of the valves come down, and the body
around gives way a little.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import SimpleITK as sitk
from scipy import ndimage
from scipy.cluster.vq import kmeans2
from scipy.interpolate import PchipInterpolator

from mkd_core.structures import BY_KEY
from mkd_core.synthesis import appearance
from mkd_core.synthesis.anatomy import make_heart
from mkd_core.synthesis.render import Canvas, as_images, canvas_around, grid_axes, render_grid, sample_tissues
from mkd_core.synthesis.tissues import TARGET_OF

#: Duration of the beat in ms: 75 beats a minute.
BEAT_MS = 800.0

#: Share of its blood that the left ventricle gives off; the right one gives off the same volume, as in a heart without
#: leaks.
EJECTION_FRACTION = 0.55

#: What atria gain until end-systole, as a share of what they hold at end-diastole.
_ATRIAL_FILLING = {"LA": 0.35, "RA": 0.30}

# Phase of the beat and how far the ventricles are emptied: ejection, quick filling, rest, and the last part by the
# atria's contraction.
_PHASES = (0.0, 0.4, 0.62, 0.8, 1.0)
_EMPTIED = (0.0, 1.0, 0.28, 0.20, 0.0)

_BALLS = 10  # in each chamber
_ROUNDS = (
    2  # each ball changes in so many steps, in turn with the others, so that none empties before its neighbours follow
)
_CORE = (
    0.45  # balls lie where the wall is at least this far, as a share of the largest distance to the wall in the chamber
)
_RADIUS = 0.8  # of a ball, as a share of the distance to the wall
_MOST_OF_BALL = 0.8  # share of its volume that a ball gives off in one step
_DRAWN_MM = 0.75  # voxels of the heart that is moved: motion smaller than half of one does not show
_COARSE_MM = 2.5  # resolution at which balls are placed
_NODE_MM = 4.0  # distance of the points at which the motion is computed; it is interpolated between them


def emptied(phase: float) -> float:
    """How far the ventricles are emptied, 0 (end-diastole) to 1 (end-systole), at a phase of the beat, 0 to 1."""
    return float(PchipInterpolator(_PHASES, _EMPTIED)(phase % 1.0))


def synthesize_beat(
    labelmap: sitk.Image | None = None,
    modality: str = "CT",
    seed: int = 0,
    spacing: float = 1.5,
    frames: int = 10,
    around_mm: float = 30.0,
) -> Iterator[tuple[sitk.Image, sitk.Image]]:
    """Make the frames of one beat, end-diastole first, evenly spread over the beat.

    Args:
        labelmap: tissue map of the heart at end-diastole, see `mkd_core.synthesis.render.synthesize`; None makes one.
        modality: ``"CT"`` (HU) or ``"MR"``.
        seed: decides heart, body and appearance; noise differs from frame to frame.
        spacing: voxel size, mm.
        frames: number of frames; end-systole is met exactly where 0.4 times this number is whole.
        around_mm: body shown around the heart.

    Yields:
        (image int16, truth uint8 with values 0..7) of one frame; all on the same grid, LPS.
    """
    if frames < 1:
        raise ValueError(f"a beat needs at least one frame, got {frames}")
    canvas, origin = canvas_around(make_heart(seed, _DRAWN_MM) if labelmap is None else labelmap, seed, around_mm)
    look = appearance.draw(modality, np.random.default_rng(seed))
    axes = grid_axes(canvas, spacing)
    motion = Motion(canvas)
    for frame in range(frames):
        rng = np.random.default_rng((seed, frame))
        bend = motion.on_grid(axes, emptied(frame / frames))
        image, tissues = render_grid(canvas, look, rng, axes, spacing, np.zeros(3), bend=bend)
        yield as_images(image, tissues, modality, spacing, origin)


def contracted(canvas: Canvas, emptied: float) -> Canvas:
    """The same heart in the same body later in its beat; ``emptied`` is 0 at end-diastole and 1 at end-systole."""
    axes = grid_axes(canvas, canvas.spacing)
    return Canvas.from_array(sample_tissues(canvas, axes, Motion(canvas).on_grid(axes, emptied)), canvas.spacing)


class Motion:
    """Where the tissue of each point comes from when the ventricles of a canvas are emptied.

    Args:
        canvas: heart in a body, at end-diastole.
    """

    def __init__(self, canvas: Canvas) -> None:
        stride = max(1, round(_COARSE_MM / canvas.spacing))
        labels = TARGET_OF[canvas.tissues[::stride, ::stride, ::stride]]
        step = stride * canvas.spacing
        masks = {key: labels == BY_KEY[key].label for key in ("LV", "RV", "LA", "RA")}
        volumes = {key: float(mask.sum()) * step**3 for key, mask in masks.items()}
        balls = {key: _balls(mask, step) for key, mask in masks.items()}
        held = {key: 4.0 / 3.0 * np.pi * float((sizes**3).sum()) for key, (_, sizes) in balls.items()}
        # No ball can give off more than it holds: a right ventricle far smaller than the left one limits what both
        # eject.
        stroke = min(EJECTION_FRACTION * volumes["LV"], _MOST_OF_BALL * _ROUNDS * min(held["LV"], held["RV"]))
        gains = {"LV": -stroke, "RV": -stroke} | {key: share * volumes[key] for key, share in _ATRIAL_FILLING.items()}
        centres = [places for places, _ in balls.values()]
        radii = [sizes for _, sizes in balls.values()]
        shares = [gains[key] * sizes**3 / held[key] / _ROUNDS for key, (_, sizes) in balls.items()]
        # One ball of each chamber after the other.
        self._centres = np.tile(np.stack(centres, axis=1).reshape(-1, 3), (_ROUNDS, 1))
        self._radii = np.tile(np.stack(radii, axis=1).ravel(), _ROUNDS)
        self._gains = np.tile(np.stack(shares, axis=1).ravel(), _ROUNDS)

    def on_grid(self, axes: list[np.ndarray], emptied: float) -> np.ndarray:
        """Displacement from points of the picture to where their tissue lies on the canvas.

        Args:
            axes: positions (z, y, x) in mm of the picture's voxels.
            emptied: 0 (end-diastole) to 1 (end-systole).

        Returns:
            ``(3, a, b, c)`` float32 in mm on a coarse grid that spans the picture, as
            `mkd_core.synthesis.render.render_grid` takes it.
        """
        coarse = [np.linspace(axis[0], axis[-1], int(np.ceil((axis[-1] - axis[0]) / _NODE_MM)) + 1) for axis in axes]
        start = np.stack(np.meshgrid(*coarse, indexing="ij")).astype(np.float32)
        gains = emptied * self._gains
        centres = self._carried(gains)
        points = start.reshape(3, -1)
        for centre, radius, gain in zip(centres[::-1], self._radii[::-1], gains[::-1]):
            points = _flow(points, centre, (radius**3 + gain) ** (1.0 / 3.0), -gain)
        return points.reshape(start.shape) - start

    def _carried(self, gains: np.ndarray) -> np.ndarray:
        """Centres of the balls at the moment when each changes: those before it have moved it."""
        centres = self._centres.copy()
        for index, (radius, gain) in enumerate(zip(self._radii, gains)):
            centres[index + 1 :] = _flow(centres[index + 1 :].T, centres[index], radius, gain).T
        return centres


def _flow(points: np.ndarray, centre: np.ndarray, radius: float, gain: float) -> np.ndarray:
    """Move points ``(3, n)`` as a ball of ``radius`` mm about ``centre`` grows evenly by ``4/3 π gain`` mm³; outside it
    no volume changes.

    The way back is the flow of the grown ball with the opposite gain.
    """
    offset = points - centre.astype(points.dtype)[:, None]
    cubed = np.maximum(np.einsum("ij,ij->j", offset, offset) ** 1.5, radius**3)
    return centre.astype(points.dtype)[:, None] + offset * np.cbrt((cubed + gain) / cubed).astype(points.dtype)


def _balls(mask: np.ndarray, step: float) -> tuple[np.ndarray, np.ndarray]:
    """Centres ``(n, 3)`` and radii ``(n,)`` in mm of balls spread evenly through the core of a chamber."""
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1, 1:-1]
    core = np.argwhere(depth >= _CORE * depth.max()).astype(float)
    first = core[np.linspace(0, len(core) - 1, _BALLS).astype(int)]
    centres, _ = kmeans2(core, first, minit="matrix", iter=20)
    return centres * step, ndimage.map_coordinates(depth, centres.T, order=1) * step * _RADIUS
