"""Properties of the pipeline, looked for by hypothesis: however a heart is stored, it is found in its place on the
volume's grid.
"""

from __future__ import annotations

from hypothesis import given, settings, strategies

from Testing.support.stored_volumes import ORIENTATIONS
from Testing.trust.geometry import KINDS, Stored, judge


def triples(low: float, high: float):
    return strategies.tuples(*[strategies.floats(low, high)] * 3)


@settings(max_examples=12, deadline=None)
@given(
    orientation=strategies.sampled_from(ORIENTATIONS),
    spacing=strategies.permutations([3.0, 5.0, 8.0]),
    angles=triples(-3, 3),
    mirrored=strategies.booleans(),
    middle=triples(-1e5, 1e5),
    cut=triples(-20, 20),
    kind=strategies.sampled_from(list(KINDS)),
)
def test_however_a_heart_is_stored_it_is_found_in_its_place(orientation, spacing, angles, mirrored, middle, cut, kind):
    order, signs = orientation
    assert judge(Stored(tuple(spacing), order, signs, angles, mirrored, middle, cut, kind)) == ""
