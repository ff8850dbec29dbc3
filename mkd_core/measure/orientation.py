"""What to say about a volume whose heart is recognised better the other way round."""

from __future__ import annotations

from mkd_core.inference.localisation import MIRRORED, ORIENTATIONS, Orientation
from mkd_core.measure.messages import finding
from mkd_core.protocol import Finding

#: Letters of both directions of the axes z, y, x of an upright array: where the index grows, where it falls.
_LETTERS = (("S", "I"), ("P", "A"), ("L", "R"))


def directions(orientation: Orientation) -> str:
    """What the directions L, P, S of a volume become in an orientation, such as "R P S" for the mirror image."""
    letters = {}
    for axis, (given, sign) in enumerate(zip(orientation.axes, orientation.signs)):
        letters[given] = _LETTERS[axis][0 if sign > 0 else 1]
    return " ".join(letters[axis] for axis in (2, 1, 0))


#: What the directions L, P, S are called where nothing speaks against them, and all that they can become.
AS_GIVEN = directions(Orientation())
ALL_DIRECTIONS = frozenset(directions(one) for one in ORIENTATIONS)


def orientation_findings(found: str) -> list[Finding]:
    """What to say where the heart is recognised best with other directions than the given ones.

    Args:
        found: these directions, see `directions`.
    """
    if found == AS_GIVEN:
        return []
    return [finding("mirrored") if found == directions(MIRRORED) else finding("turned", directions=found)]


def frame_findings(found: str, first: str | None) -> list[Finding]:
    """What to say of a frame whose orientation is not found to be that of the first frame of its sequence.

    Args:
        found: directions in which the heart is recognised best, or those of a stack that lost its own.
        first: those of the first frame, None for a volume that is none of a sequence.
    """
    return [] if first in (None, found) else [finding("frame_differs", directions=found, first=first)]
