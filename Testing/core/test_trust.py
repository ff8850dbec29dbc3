"""A little of everything that ``python -m Testing.trust`` does to the software."""

from __future__ import annotations

import pytest

pytest.importorskip("resource")  # of the standard library, but not on Windows
from Testing.trust import bundles, doubts, geometry, orientations, volumes


@pytest.mark.parametrize(
    "section", [volumes, bundles, geometry, doubts], ids=lambda section: section.__name__.rpartition(".")[2]
)
def test_everything_bad_is_borne(section):
    found = list(section.outcomes(quick=True))
    assert len(found) >= 8
    assert [(outcome.name, outcome.note, outcome.message) for outcome in found if not outcome.survived] == []


@pytest.mark.slow
def test_wrong_orientations_are_not_kept_silent():
    (outcome,) = orientations.outcomes(quick=True)
    assert outcome.tried == 5 and outcome.survived, outcome.note
