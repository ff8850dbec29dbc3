"""The logic without the panel: the examples of its documentation, run as they stand, in the stand-in GUI."""

import re
import textwrap

import pytest

pytest.importorskip("slicer")
pytest.importorskip("PySide6")
from Testing.support.panel_driving import ROOT, addVolume, driving, segmentations


def examples():
    """Return the two examples in the logic's docstring."""
    import MKDSegmentation

    found = re.findall(
        r"::\n\n((?:    .*\n|\n)+)", textwrap.dedent("    " + MKDSegmentation.MKDSegmentationLogic.__doc__)
    )
    return [textwrap.dedent(example) for example in found]


def test_the_documented_examples_wait_for_a_result_and_get_one_in_the_background(panel, worker, capsys):
    import slicer

    from MKDSegmentation import MKDSegmentationLogic

    worker("good")
    addVolume("CTACardio")
    waiting, background = examples()
    names = {"slicer": slicer, "MKDSegmentationLogic": MKDSegmentationLogic}
    exec(waiting, names)
    assert float(capsys.readouterr().out) > 0
    assert names["outcome"].segmentation is segmentations()[0] and names["outcome"].table.GetNumberOfRows() == 7
    exec(background, names)
    driving.waitUntil(lambda: not names["logic"].isRunning, message="the end of the run")
    assert "The heart is segmented" in capsys.readouterr().out
    names["logic"].close()


def test_the_example_for_slicers_console_runs_as_it_stands(panel, worker, capsys):
    worker("good")
    addVolume("CTACardio")
    text = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
    example = next(
        block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "MKDSegmentationLogic" in block
    )
    names = {}
    import slicer

    names["slicer"] = slicer
    exec(example, names)
    assert capsys.readouterr().out.strip()
    names["logic"].close()


def test_waiting_raises_with_the_reason_of_a_failure(panel, volume, worker):
    from MKDSegmentation import MKDSegmentationLogic

    worker("no-heart")
    logic = MKDSegmentationLogic()
    with pytest.raises(RuntimeError, match="No heart was found"):
        logic.segment(volume)
    with pytest.raises(ValueError, match="Load a CT or MR"):
        logic.segment(None)
    logic.close()


def test_waiting_takes_an_output_and_options_and_tells_progress(panel, volume, worker):
    import slicer

    from MKDSegmentation import MKDSegmentationLogic
    from MKDSegmentationLib.parameters import RunOptions

    worker("good")
    mine, seen = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Mine"), []
    logic = MKDSegmentationLogic()
    outcome = logic.segment(
        volume, mine, RunOptions(structures=("LV", "Myo")), onProgress=lambda text, fraction: seen.append(text)
    )
    assert outcome.segmentation is mine and sorted(mine.GetSegmentation().GetSegmentIDs()) == ["LV", "Myo"]
    assert "Looking for the heart" in seen
    logic.close()
