"""What goes wrong is borne: the faults of Testing/trust, and what reports, process ids and silence may do to the panel
in the stand-in GUI.
"""

import json
import os
import sys

import pytest

pytest.importorskip("slicer")
pytest.importorskip("PySide6")
if not sys.platform.startswith("linux"):
    pytest.skip("faults are injected by means of Linux", allow_module_level=True)
from Testing.support.panel_driving import driving, segment, segmentations, waitForStage, waitUntilReady
from Testing.trust import faults

GOOD = {
    "structures": {"LV": {"volume_ml": 100.0, "mass_g": None, "warnings": ["a"]}},
    "warnings": [],
    "bundle": {"name": "x"},
    "options": {"structures": ["LV"]},
    "timings_s": {"total": 1.0},
    "input": {"size": [1, 2, 3]},
}


def test_every_fault_is_borne_with_one_sentence_and_the_next_click_succeeds(slicerApp):
    seen = list(faults.outcomes(quick=True))
    assert {outcome.group for outcome in seen} == {"faults"} and len({outcome.name for outcome in seen}) == len(
        seen
    ) > 25
    lost = [f"{outcome.name}: {outcome.note}" for outcome in seen if not outcome.survived]
    assert not lost, "\n".join(lost)


@pytest.mark.parametrize(
    "spoil",
    [
        {"structures": []},
        {"structures": {"liver": {}}},
        {"structures": {"LV": 3}},
        {"structures": {"LV": {"volume_ml": "much"}}},
        {"structures": {"LV": {"volume_ml": float("nan")}}},
        {"structures": {"LV": {"volume_ml": 10**400}}},
        {"structures": {"LV": {"warnings": "text"}}},
        {"warnings": [3]},
        {"warnings": "text"},
        {"bundle": "x"},
        {"bundle": {"name": {}}},
        {"options": [1]},
        {"timings_s": {"total": "long"}},
        {"input": {"size": ["a"]}},
    ],
    ids=str,
)
def test_a_report_that_cannot_be_shown_is_no_report(slicerApp, panel, spoil):
    import slicer

    from MKDSegmentationLib.scene.provenance import REPORT_ATTRIBUTE, reportOf

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "From a file")
    node.SetAttribute(REPORT_ATTRIBUTE, json.dumps(GOOD))
    assert reportOf(node)["structures"]["LV"]["volume_ml"] == 100.0
    node.SetAttribute(REPORT_ATTRIBUTE, json.dumps(GOOD | spoil))
    assert reportOf(node) is None
    panel._parameterNode.outputSegmentation = node
    driving.processEvents()
    assert not panel.ui.resultsTable.visible


@pytest.mark.parametrize("text", ["{" * 100_000, '{"a":' * 100_000, "[]", "null", "no json", ""])
def test_an_attribute_of_a_file_that_is_no_report_does_no_harm(slicerApp, panel, text):
    import slicer

    from MKDSegmentationLib.scene.provenance import REPORT_ATTRIBUTE, reportOf

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    node.SetAttribute(REPORT_ATTRIBUTE, text)
    assert reportOf(node) is None


def test_no_process_but_the_workers_own_is_ever_killed(slicerApp, panel):
    from MKDSegmentationLib.run.workerProcess import _childPid

    for pid in (0, -1, 1, True, "17", 17.0, None, [17], os.getpid(), os.getppid()):
        assert _childPid(pid) is None
    assert _childPid(2**22 + 1) == 2**22 + 1


def test_a_worker_that_falls_silent_is_told_and_the_run_goes_on_all_the_same(
    panel, volume, worker, tmp_path, monkeypatch
):
    from MKDSegmentationLib.panel import runProgress

    monkeypatch.setattr(runProgress, "SILENCE_S", 0.2)
    worker(f"waits-for:{tmp_path / 'go'}")
    driving.click(panel.ui.segmentButton)
    waitForStage(panel, "Looking for the heart")
    driving.waitUntil(lambda: "no news for" in panel.ui.timeLabel.text, message="the warning on silence")
    assert "click Cancel" in panel.ui.timeLabel.text and panel.ui.segmentButton.text == "Cancel"
    (tmp_path / "go").touch()
    waitUntilReady(panel)
    assert len(segmentations()) == 1


def test_a_table_that_cannot_be_written_whole_leaves_the_earlier_file(panel, volume, worker, tmp_path, monkeypatch):
    import resource

    import slicer

    told = []
    monkeypatch.setattr(slicer.util, "warningDisplay", told.append)
    worker("good")
    segment(panel)
    kept = tmp_path / "heart.csv"
    kept.write_text("measured last year")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    driving.answerFileDialog(kept)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        driving.chooseInMenu(panel.ui.exportButton, "Table as CSV ...")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert told == ["The file could not be written (File too large)."]
    assert kept.read_text(encoding="utf-8") == "measured last year" and not list(tmp_path.glob("*.part"))
    driving.answerFileDialog(kept)
    driving.chooseInMenu(panel.ui.exportButton, "Table as CSV ...")
    assert "Left ventricle" in kept.read_text(encoding="utf-8-sig")


def test_choices_that_only_another_version_knows_do_not_keep_the_panel_from_opening(slicerApp, loadModule):
    import slicer

    from Testing.support.panel_driving import MODULE, addVolume

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScriptedModuleNode")
    node.SetSingletonTag("MKDSegmentation")
    node.SetModuleName("MKDSegmentation")
    for name, value in (("modality", "PET"), ("segmentor", "third"), ("withAligned", "maybe")):
        node.SetParameter(name, value)
    _module, panel = loadModule(MODULE)
    addVolume()
    driving.processEvents()
    parameters = panel.logic.getParameterNode()
    assert (parameters.modality, parameters.segmentor) == ("CT", "ensemble") and panel.ui.segmentButton.enabled


def test_settings_that_somebody_spoilt_do_not_keep_the_panel_from_opening(slicerApp, loadModule):
    from Testing.support.panel_driving import MODULE, addVolume

    for name in ("WeightsPath", "Device", "AutomaticDevice", "ExportFolder", "WeightsFolder", "Slowness/cpu"):
        slicerApp.userSettings().setValue(f"MKDSegmentation/{name}", ["a", "b"] if "/" not in name else "nan")
    _module, panel = loadModule(MODULE)
    addVolume()
    driving.processEvents()
    assert panel.ui.segmentButton.enabled and panel.ui.estimateLabel.text.startswith("About ")
