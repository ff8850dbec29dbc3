"""The speed benchmark in its short version: both ways run, agree where they must, and the figures are there."""

from __future__ import annotations

import json
import sys

import pytest

from mkd_core.io.bundle import default_bundle_path

pytest.importorskip("monai")
pytest.importorskip("matplotlib")
pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the benchmark reads /proc"),
    pytest.mark.skipif(not default_bundle_path().exists(), reason="there are no default weights"),
]


def test_the_short_version_measures_both_ways_and_their_agreement(tmp_path, capsys):
    from Testing.benchmarks import speed

    speed.main(["--cases", "small", "--repeats", "1", "--monai-repeats", "1", "--out", str(tmp_path)])
    figures = json.loads((tmp_path / "speed.json").read_text(encoding="utf-8"))
    case = figures["cases"]["small"]
    for way in ("ours", "monai"):
        assert case[way]["CPU s"] == pytest.approx(sum(case[way]["stages CPU s"].values()), abs=0.1)
        assert 200 < case[way]["peak MiB"] < 4000
    assert list(case["ours"]["stages CPU s"]) == [
        "read",
        "check",
        "localise",
        "align",
        "segment",
        "restore",
        "measure",
        "write",
    ]
    assert list(case["monai"]["stages CPU s"]) == [
        "read",
        "resample in",
        "networks",
        "resample back",
        "argmax",
        "write",
    ]
    for precision, least in (("float32", 0.9999), ("bfloat16", 0.999)):
        agreement = case[f"agreement with the plain way, {precision}"]
        assert agreement.pop("equal voxels") >= least
        assert min(agreement.values()) >= 0.995
    assert case["agreement with MONAI's way"]["LV"] > 0.9
    assert len(case["growth with voxels"]["CPU s"]) == 3
    assert figures["waiting"]["import mkd_core, CPU s beyond Python's own"] < 0.2
    assert (tmp_path / "speed.png").stat().st_size > 5000
    assert "ratio of CPU seconds" in capsys.readouterr().out
