"""Is a stack of slices complete, in order, evenly spaced, without copies?  Judged by the image, since a stacked file
says nothing about it.

From slice to slice anatomy changes little by little.  Where slices are missing the image jumps; a slice in a wrong
place differs more from its neighbours than these from each other.
"""

from __future__ import annotations

import itertools

import numpy as np

from mkd_core.measure.messages import finding
from mkd_core.protocol import Finding

#: Fewer slices are too far apart for their neighbours to resemble them.
_FEWEST_SLICES = 24

#: A jump: so many times the change between other slices, beside it, near it and in the whole stack.  None of 286 real
#: CT and MR has one; three missing slices of 4 to 5 mm make 1.7 to 3.1 times, eight make 2.6 to 4.9.
_JUMP = 1.9

#: A smaller jump: of the parts of the image that change at all from slice to slice, half change by at least so many
#: times as much as between the slices near these and beside them, and seven in ten by at least nearly as much.  None of
#: 55 CT and MR has one; in seven of eight places a slice left out makes one.  Where anatomy begins or ends, as
#: at a flat diaphragm, some parts of the image change more, but not the others, or several slices in a row do.  Images
#: of fewer pixels along a side than the last number have too few parts to tell.
_SMALL_JUMP, _FINE = {0.5: 1.35, 0.3: 0.9}, 80

#: A slice is out of place if it differs from both neighbours by more than this part of what these differ from each
#: other, and from one of them by so many times as much as usual.  The largest in 27 real and rendered CT and MR is
#: 0.67; two exchanged neighbours make 1.0 to 1.24 in 17 of them.
_OUT_OF_PLACE, _UNUSUAL = 0.95, 1.2

#: Slices with less contrast than this part of the usual one are empty or fade out: the image begins there, or the body.
_FADED, _BODY_ENDS = 0.25, 0.5

#: Slices lie farther apart from a place on if they differ from the mean of their neighbours by so many times as much as
#: before, as they are and smoothed within the slice, which takes most of the noise away that is as strong whatever lies
#: between slices: within 4 slices on either side in 80 % of the parts of the image that change at all, within 12 in
#: half.  None of 26 real CT and MR has that, nor any of 130 in which they were interpolated to other distances, nor any
#: of 48 rendered ones; of 52 that were sliced across two have.  With every second slice missing in one half 26 of 28 MR
#: have, but only 18 of 28 CT.
_UNEVEN, _UNEVEN_SHARES = (1.05, 1.15), {4: 0.8, 12: 0.5}

#: And so they do, smoothed, in half of the parts of the image as far as the body goes on both sides, if that is equally
#: far.  Where a stack was interpolated linearly to a distance that is nearly the original one, slices are sharp and
#: smooth in turn over ten or twenty of them.
_UNEVEN_THROUGHOUT = 1.6

#: Where they were interpolated to other distances, slices between two of the original ones resemble the mean of their
#: neighbours more than others do: how much they differ from it changes from slice to slice by a factor of e to the 0.22
#: to 1.2 on average, in four real CT and MR as the scanner made them by e to the 0.03 to 0.06.
_INTERPOLATED = 0.2

_SAMPLES_PER_AXIS = 96
_NEIGHBOURS = 3

#: The image is compared in squares of so many samples, smoothed by so many; those that change by less than this part of
#: the usual change show noise.  Fewer squares say nothing.
_SQUARE, _SMOOTHING = 8, 1.0
_NOISE, _FEWEST_SQUARES = 0.3, 8


def find_breaks(voxels: np.ndarray) -> list[Finding]:
    """Look for missing or misplaced slices along the first axis and, where there are none, for a part in which slices
    lie farther apart.

    Args:
        voxels: ``(k, j, i)``, finite; 96 x 96 voxels of each slice are looked at.

    Returns:
        The findings of :func:`find_jumps`, else of :func:`find_uneven_part`.
    """
    some = sampled(voxels)
    if some is None:
        return []
    smooth = smoothed(some)
    return find_jumps(some, smooth) or find_uneven_part(some, smooth)


def find_jumps(some: np.ndarray, smooth: np.ndarray) -> list[Finding]:
    """Look for missing or misplaced slices along the first axis.

    Args:
        some, smooth: voxels, see :func:`sampled` and :func:`smoothed`.

    Returns:
        A finding "jumps" with the worst place (slices counted from 1) and the number of places; none for a stack that
        is as it should be.
    """
    steps = np.abs(np.diff(some, axis=0)).mean(axis=(1, 2))
    usual = float(np.median(steps))
    if usual <= 0:
        return []
    contrast = some.std(axis=(1, 2))
    is_image = contrast >= _FADED * float(np.median(contrast))
    steps = np.where(is_image[1:] & is_image[:-1], steps, 0)
    has_body = contrast >= _BODY_ENDS * float(np.median(contrast))
    jumps = _jumps(steps, usual) / _JUMP
    if min(some.shape[1:]) >= _FINE:
        jumps = np.maximum(jumps, _small_jumps(smooth, has_body[1:] & has_body[:-1]))
    # Noise makes every slice differ from its neighbours as much as these from each other, but none more than usual.
    smooth_steps = np.abs(np.diff(smooth, axis=0)).mean(axis=(1, 2))
    usual = float(np.median(smooth_steps))
    steps = np.where(steps > 0, smooth_steps, 0)
    across = np.abs(smooth[2:] - smooth[:-2]).mean(axis=(1, 2))
    nearer, farther = np.minimum(steps[:-1], steps[1:]), np.maximum(steps[:-1], steps[1:])
    is_unusual = (nearer >= usual) & (farther >= _UNUSUAL * usual)
    misplaced = np.where(is_unusual, nearer / np.maximum(across, 0.1 * usual), 0) / _OUT_OF_PLACE
    worst = np.maximum(jumps, np.concatenate([misplaced, [0]]))
    count = int(np.count_nonzero(worst > 1))
    if not count:
        return []
    place = int(worst.argmax())
    return [finding("jumps", from_slice=place + 1, to_slice=place + 2, count=count)]


def find_copies(voxels: np.ndarray) -> list[Finding]:
    """Look for slices along the first axis that are copies of the one before, as where files were stacked twice.

    Args:
        voxels: ``(k, j, i)``, finite.

    Returns:
        A finding "copies" with their number; none where there are none but slices of one value.
    """
    count = 0
    middle = voxels.shape[1] // 2, voxels.shape[2] // 2
    for before, plane in itertools.pairwise(voxels):
        looks_alike = (plane[middle[0]] == before[middle[0]]).all() and (
            plane[:, middle[1]] == before[:, middle[1]]
        ).all()  # mostly settles it
        count += bool(looks_alike and plane.min() < plane.max() and np.array_equal(plane, before))
    return [finding("copies", count=count)] if count else []


def find_uneven_part(some: np.ndarray, smooth: np.ndarray) -> list[Finding]:
    """Look for a place along the first axis from which on slices lie farther apart or closer together than before, as
    where every second slice is missing in one half of a stack.

    From there on slices differ more, or less, from the mean of their neighbours, while the detail within them, by which
    this is divided, is as before.  Where anatomy changes, some parts of the image change more and others less.  Where
    the slices on both sides were interpolated, which are sharp and smooth in turn, nothing is said.

    Args:
        some, smooth: voxels, see :func:`sampled` and :func:`smoothed`.

    Returns:
        A finding "uneven" with the first slice after the clearest such place (counted from 1); none for a stack that is
        as it should be.
    """
    squares = some.shape[1] // _SQUARE * (some.shape[2] // _SQUARE)
    if len(some) < 2 * max(_UNEVEN_SHARES) + 2 or squares < _FEWEST_SQUARES:
        return []
    contrast = some.std(axis=(1, 2))
    has_body = contrast >= _BODY_ENDS * float(np.median(contrast))
    compared = has_body[2:] & has_body[1:-1] & has_body[:-2]
    if not compared.any():
        return []
    as_it_is, without_noise = both = [_Differences(slices, compared) for slices in (some, smooth)]
    if not all(one.any for one in both):
        return []
    unsteady = as_it_is.unsteadiness()
    reach, worst, place = max(_UNEVEN_SHARES), 1.0, 0
    for at in range(reach, len(compared) - reach + 1):
        sides = unsteady[at - reach : at - 1], unsteady[at : at + reach - 1]
        is_interpolated = min(side.mean() for side in sides) > _INTERPOLATED
        if not compared[at - reach : at + reach].all() or is_interpolated:
            continue
        changes = [
            np.array(one.changes(at, part, share)) / limit
            for one, limit in zip(both, _UNEVEN)
            for part, share in _UNEVEN_SHARES.items()
        ]
        ratios = np.min(changes, axis=0)
        most, is_after = float(ratios.max()), int(ratios.argmax())
        if most > worst:
            far = min(_run(compared[:at][::-1]), _run(compared[at:]))
            if without_noise.changes(at, far, 0.5)[is_after] > _UNEVEN_THROUGHOUT:
                worst, place = most, at
    return [finding("uneven", from_slice=place + 2)] if worst > 1.0 else []


class _Differences:
    """How much slices differ from the mean of their neighbours, and the detail within them, in squares.

    Args:
        slices: ``(k, j, i)``.
        compared: which slices but the first and the last count, ``(k - 2,)``.
    """

    def __init__(self, slices: np.ndarray, compared: np.ndarray) -> None:
        middle = slices[1:-1]
        self._across = _in_squares((middle - 0.5 * (slices[2:] + slices[:-2])) ** 2)
        within = _in_squares(np.gradient(middle, axis=1) ** 2 + np.gradient(middle, axis=2) ** 2)
        self._least = [_NOISE**2 * float(np.median(squares[compared])) for squares in (self._across, within)]
        self._sums = [
            np.cumsum(np.insert(squares, 0, 0, axis=0), axis=0, dtype=np.float64) for squares in (self._across, within)
        ]

    @property
    def any(self) -> bool:
        """Whether any slice differs from the mean of its neighbours."""
        return bool(self._across.any())

    def unsteadiness(self) -> np.ndarray:
        """Change of the logarithm of the differences from each slice to the next, ``(k - 3,)``."""
        floor = 1e-6 * self._across.max()
        changes: np.ndarray = np.abs(np.diff(0.5 * np.log(np.maximum(self._across.mean(axis=1), floor))))
        return changes

    def changes(self, at: int, part: int, share: float) -> tuple[float, float]:
        """How many times as much slices differ from their neighbours after a place as before it, and before it as
        after, in at least a share of the squares, weighted by their detail; 0 where nothing can be said.

        Args:
            at: the place.
            part: of so many slices on either side.
            share: of the squares.
        """
        (across_before, within_before), (across_after, within_after) = (
            [(summed[at + side] - summed[at + side - part]) / part for summed in self._sums] for side in (0, part)
        )
        telling = (np.minimum(across_before, across_after) > self._least[0]) & (
            np.minimum(within_before, within_after) > self._least[1]
        )
        if np.count_nonzero(telling) < _FEWEST_SQUARES:
            return 0.0, 0.0
        ratios = np.sqrt(across_after[telling] * within_before[telling] / (across_before * within_after)[telling])
        weights = np.sqrt(within_before + within_after)[telling]
        order = np.argsort(ratios)
        ratios, summed = ratios[order], np.cumsum(weights[order])
        low, high = (ratios[np.searchsorted(summed, quantile * summed[-1])] for quantile in (1 - share, share))
        return float(low), float(1 / high)


def _run(values: np.ndarray) -> int:
    """How many values are true before the first that is not."""
    return len(values) if values.all() else int(values.argmin())


def smoothed(slices: np.ndarray) -> np.ndarray:
    """Slices ``(k, j, i)`` smoothed within each, which takes most of the noise away."""
    from scipy import ndimage

    smooth: np.ndarray = ndimage.gaussian_filter(slices, (0, _SMOOTHING, _SMOOTHING))
    return smooth


def sampled(voxels: np.ndarray) -> np.ndarray | None:
    """At most 96 x 96 voxels of each slice, without outliers of brightness; None where there is nothing to compare.

    Args:
        voxels: ``(k, j, i)``, finite.

    Returns:
        ``(k, j, i)``, float32.
    """
    if len(voxels) < _FEWEST_SLICES:
        return None
    rows, columns = (np.linspace(0, side - 1, min(side, _SAMPLES_PER_AXIS)).astype(int) for side in voxels.shape[1:])
    some = np.stack([plane[np.ix_(rows, columns)] for plane in voxels]).astype(np.float32)
    low, high = np.percentile(some[::4], (2, 98))
    return np.clip(some, low, high) if high > low else None


def _in_squares(values: np.ndarray) -> np.ndarray:
    """Means over squares of each slice, ``(k, squares)``; what is left over at two edges does not count."""
    count, *sides = values.shape
    j, i = (side // _SQUARE for side in sides)
    squares = values[:, : j * _SQUARE, : i * _SQUARE].reshape(count, j, _SQUARE, i, _SQUARE)
    means: np.ndarray = squares.mean(axis=(2, 4)).reshape(count, -1)
    return means


def _jumps(steps: np.ndarray, usual: float) -> np.ndarray:
    """How many times as much as between other slices the whole image changes from each slice to the next.

    Args:
        steps: mean change from slice to slice.
        usual: their median.
    """
    around = np.pad(steps, _NEIGHBOURS, mode="reflect")
    windows = {
        shift: around[_NEIGHBOURS + shift :][: len(steps)] for shift in range(-_NEIGHBOURS, _NEIGHBOURS + 1) if shift
    }
    near = np.maximum(np.median(list(windows.values()), axis=0), np.maximum(windows[-1], windows[1]))
    ratios: np.ndarray = steps / np.maximum(near, usual)
    return ratios


def _small_jumps(slices: np.ndarray, compared: np.ndarray) -> np.ndarray:
    """How much more the image changes from each slice to the next than between the slices near these: quantiles over
    its squares, weighted by how much they change, over what `_SMALL_JUMP` asks of each, the least of them; 0 where
    nothing can be said.

    Args:
        slices: smoothed, ``(k, j, i)``.
        compared: which steps from slice to slice count, ``(k - 1,)``.
    """
    changes = np.diff(slices, axis=0) ** 2
    steps, count = np.sqrt(_in_squares(changes)), len(changes)
    if not compared.any() or steps.shape[1] < _FEWEST_SQUARES:
        return np.zeros(count)
    least = _NOISE * float(np.median(steps[compared]))
    result = np.zeros(count)
    for at in map(int, np.flatnonzero(compared)):
        near = np.arange(max(0, at - _NEIGHBOURS), min(count, at + _NEIGHBOURS + 1))
        near = near[compared[near] & (near != at)]
        if len(near) < _NEIGHBOURS:
            continue
        usual = np.median(steps[near], axis=0)
        telling = usual > least
        if np.count_nonzero(telling) < _FEWEST_SQUARES:
            continue
        beside = near[np.abs(near - at) == 1]
        if len(beside):
            usual = np.maximum(usual, steps[beside].mean(axis=0))
        ratios, weights = steps[at][telling] / usual[telling], usual[telling]
        order = np.argsort(ratios)
        summed = np.cumsum(weights[order])
        result[at] = min(
            ratios[order][np.searchsorted(summed, share * summed[-1])] / limit for share, limit in _SMALL_JUMP.items()
        )
    return result
