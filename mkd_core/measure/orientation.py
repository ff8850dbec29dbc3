"""What to say about a volume whose heart is recognised better the other way round."""

from __future__ import annotations

from mkd_core.inference.localisation import MIRRORED, BetterOrientation, Orientation
from mkd_core.measure.messages import finding
from mkd_core.protocol import Finding

#: Letters of both directions of the axes z, y, x of an upright array: where the index grows, where it falls.
_LETTERS = (("S", "I"), ("P", "A"), ("L", "R"))


def orientation_finding(better: BetterOrientation) -> Finding:
    """The finding for an orientation in which the heart is recognised better than in the given one."""
    if better.orientation == MIRRORED:
        return finding("mirrored")
    return finding("turned", directions=directions(better.orientation))


def directions(orientation: Orientation) -> str:
    """What the directions L, P, S of a volume become in an orientation, such as "R P S" for the mirror image."""
    letters = {}
    for axis, (given, sign) in enumerate(zip(orientation.axes, orientation.signs)):
        letters[given] = _LETTERS[axis][0 if sign > 0 else 1]
    return " ".join(letters[axis] for axis in (2, 1, 0))
