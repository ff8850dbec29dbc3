"""A little of everything that ``python -m Testing.trust`` does to the software."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import pytest

pytest.importorskip("resource")  # of the standard library, but not on Windows
from Testing.trust import __main__ as everything
from Testing.trust import bundles, distortions, doubts, geometry, orientations, volumes
from Testing.trust.outcome import Outcome


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


def test_a_section_that_is_run_alone_keeps_what_the_others_found(tmp_path, monkeypatch, capsys):
    results, messages = tmp_path / "faults.json", tmp_path / "messages.md"
    found = {
        "files": [Outcome("bad files", "empty", True, 3, "It is | empty.")],
        "weights": [Outcome("bad weights", "old", True)],
    }
    monkeypatch.setattr(everything, "RESULTS", results)
    monkeypatch.setattr(everything, "MESSAGES", messages)
    sections = {name: SimpleNamespace(outcomes=lambda quick, name=name: found[name]) for name in found}
    monkeypatch.setattr(everything, "SECTIONS", sections)
    for name in ("weights", "files"):
        monkeypatch.setattr(sys, "argv", ["trust", "--only", name])
        assert everything.main() == 0
    stored = json.loads(results.read_text(encoding="utf-8"))
    assert list(stored["sections"]) == ["files", "weights"]
    assert stored["counts"]["all"] == {"kinds": 2, "tried": 4, "survived": 2, "lost": 0}
    assert "| empty | It is \\| empty. |" in messages.read_text(encoding="utf-8")
    found["weights"] = [Outcome("bad weights", "old", False, note="it was loaded")]
    monkeypatch.setattr(sys, "argv", ["trust", "--only", "weights"])
    assert everything.main() == 1 and "it was loaded" in capsys.readouterr().out
    assert json.loads(results.read_text(encoding="utf-8"))["counts"]["all"]["lost"] == 1


def test_volumes_that_a_file_knows_are_not_tried_again(tmp_path, monkeypatch, capsys):
    tried: list[str] = []

    def tally(name, kind, **counts):
        tried.append(name)
        return kind(**counts)

    monkeypatch.setattr(
        doubts,
        "volumes",
        lambda hearts, first=0: [(f"heart {first + n}", "CT", lambda: (None, None)) for n in range(hearts)],
    )
    monkeypatch.setattr(
        doubts,
        "tally_of",
        lambda image, truth, modality, seed, some: {
            "undistorted": tally(f"heart {seed}", doubts.Tally, wrong=1, unsaid=["LV"]),
            distortions.SLIGHT[0].group: doubts.Tally(wrong=70),
        },
    )
    monkeypatch.setattr(orientations, "volumes", lambda quick: {name: lambda name=name: name for name in ("CT", "MR")})

    def examine(known, of_volume, orientations, done):
        for _ in orientations[of_volume.tried :]:
            tried.append(known)
            of_volume.tried, of_volume.told = of_volume.tried + 1, of_volume.told + 1
            done(of_volume)
            if len(tried) == 5:
                raise KeyboardInterrupt

    monkeypatch.setattr(orientations, "examine", examine)
    monkeypatch.setattr(orientations, "ORIENTATIONS", orientations.ORIENTATIONS[:4])
    for module, *arguments in (
        (doubts, "--hearts", "1", "--good", "0"),
        (doubts, "--hearts", "2", "--good", "1"),
        (orientations, "--volumes", "MR"),
        (orientations,),
    ):
        path = tmp_path / f"{module.__name__}.json"
        monkeypatch.setattr(sys, "argv", ["", *arguments, "--json", str(path)])
        try:
            assert module.main() == 0
        except KeyboardInterrupt:
            assert module.main() == 0
    assert tried == ["heart 0", "heart 1", "heart 2", *["MR"] * 4, *["CT"] * 4]
    found = json.loads((tmp_path / f"{doubts.__name__}.json").read_text(encoding="utf-8"))
    assert found["all"]["wrong"] == 3 and list(found["volumes"])[-1] == f"heart {doubts._GOOD_SEED}"
    printed = capsys.readouterr().out
    assert printed.count("LV") == 4 and printed.count("  4 ") == 3, "known ones are printed as well"
