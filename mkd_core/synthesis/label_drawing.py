"""A label map from distances: solids computed on a coarse grid, drawn on a fine one."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from mkd_core.synthesis.heart_solids import HeartSolids
from mkd_core.synthesis.tissues import Tissue as T
from mkd_core.synthesis.warp import basis, spread


def draw_labels(solids: HeartSolids, axes, fine) -> np.ndarray:
    """Draw the tissues of a heart.

    Args:
        solids: distances at the points of the coarse grid.
        axes: coordinates (x, y, z) of the coarse grid in mm.
        fine: coordinates (x, y, z) of the grid to draw on, which lies inside the coarse one.

    Returns:
        Tissues ``(z, y, x)``, uint8.
    """
    draw = _Interpolator(axes, fine)
    labels = np.zeros(tuple(len(axis) for axis in fine[::-1]), dtype=np.uint8)
    nearest = np.zeros(labels.shape, dtype=np.float32)
    papillary = solids.walls[T.PAPILLARY_MUSCLE]
    for tissue, values in ((T.FAT, solids.fat), *((t, v) for t, v in solids.walls.items() if v is not papillary)):
        within, value = draw(values)
        labels[within][value < 0] = tissue
    for tissue, values in solids.blood.items():
        within, value = draw(values)
        deeper = value < nearest[within]
        labels[within][deeper] = tissue
        nearest[within][deeper] = value[deeper]
        if tissue in solids.ends:
            beyond, end = solids.ends[tissue]
            labels[within][deeper & (draw(end, within) > 0)] = beyond
    within, value = draw(papillary)
    labels[within][(value < 0) & (labels[within] == T.LV)] = T.PAPILLARY_MUSCLE
    _dissolve_crumbs(labels, fine[0][1] - fine[0][0])
    return labels


class _Interpolator:
    """Linear interpolation from the grid of the coordinates ``axes`` to that of ``fine`` (both (x, y, z), the first one
    regular).
    """

    def __init__(self, axes, fine) -> None:
        self._shape = tuple(len(axis) for axis in axes[::-1])
        self._step = axes[0][1] - axes[0][0]
        self._weights = tuple(
            basis(at, axis[0], self._step, len(axis), cubic=False) for at, axis in zip(fine[::-1], axes[::-1])
        )

    def __call__(self, values: np.ndarray, within: tuple[slice, ...] | None = None):
        """Interpolate ``(n,)`` values.

        Without ``within`` only the box is interpolated outside which all values are larger than a grid step; the result
        is the box, as slices of the fine grid, and the values in it.  With ``within`` only the values are returned.
        """
        values = values.reshape(self._shape)
        if within is not None:
            return spread(values, tuple(weight[part] for weight, part in zip(self._weights, within)))
        near = values < self._step
        boxes = []
        for axis, weight in enumerate(self._weights):
            planes = np.flatnonzero(near.any(axis=tuple(i for i in range(3) if i != axis)))
            touched = np.flatnonzero(weight[:, planes].any(axis=1)) if len(planes) else np.zeros(1, dtype=int)
            boxes.append(slice(touched[0], touched[-1] + 1))
        box = tuple(boxes)
        return box, self(values, box)


#: Tissues that are one piece, or as many as the box makes of them.
_CONNECTED = (
    T.MYOCARDIUM,
    T.RV,
    T.LA,
    T.RA,
    T.LA_APPENDAGE,
    T.ASCENDING_AORTA,
    T.PULMONARY_ARTERY,
    T.DISTAL_PULMONARY_ARTERY,
    T.RV_WALL,
    T.SVC,
    T.IVC,
    T.PULMONARY_VEINS,
    T.CORONARY_SINUS,
)


def _dissolve_crumbs(labels: np.ndarray, spacing: float) -> None:
    """Give pieces of less than 0.3 ml that hang on nothing of their kind to what surrounds them."""
    places = ndimage.find_objects(labels, max_label=max(_CONNECTED))
    for tissue in _CONNECTED:
        place = places[tissue - 1]
        if place is None:
            continue
        part = labels[place]
        pieces, count = ndimage.label(part == tissue)
        if count < 2:
            continue
        sizes = np.bincount(pieces.ravel())
        sizes[0] = 0
        small = (sizes * spacing**3 < 300.0) & (sizes < sizes.max())
        for piece, where in enumerate(ndimage.find_objects(pieces), start=1):
            if not small[piece]:
                continue
            around = tuple(slice(max(w.start - 1, 0), w.stop + 1) for w in where)
            crumb = pieces[around] == piece
            rim = ndimage.binary_dilation(crumb) & ~crumb
            part[around][crumb] = np.bincount(part[around][rim]).argmax()
