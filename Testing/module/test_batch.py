"""The section "Batch": all volumes of the scene, or of a folder, one after the other; in the stand-in GUI, with the
fake worker, and for a folder with the archive's own process and known networks.
"""

import stat
import sys

import pytest

pytest.importorskip("slicer")
pytest.importorskip("PySide6")
from Testing.harness.pythonqt import unwrap
from Testing.support.panel_driving import (
    ROOT,
    addVolume,
    driving,
    sceneContent,
    segmentations,
    waitForStage,
    waitUntilReady,
)
from Testing.support.sequence_driving import FRAMES, addSequence, browserOf


@pytest.fixture
def batch(panel):
    """The panel with the section open."""
    driving.click(panel.ui.batchCollapsibleButton)
    return panel


def states(panel):
    return [row[1] for row in driving.tableTexts(panel.ui.batchTable)]


def names(panel):
    return [row[0] for row in driving.tableTexts(panel.ui.batchTable)]


def run(panel):
    driving.click(panel.ui.batchButton)
    waitUntilReady(panel)


def clickRow(panel, row):
    """Click the first cell of a row with the mouse."""
    from PySide6 import QtCore
    from PySide6.QtTest import QTest

    table = unwrap(panel.ui.batchTable)
    place = table.visualItemRect(table.item(row, 0)).center()
    QTest.mouseClick(table.viewport(), QtCore.Qt.MouseButton.LeftButton, pos=place)
    driving.processEvents()


def segmentationNamed(name):
    return next((node for node in segmentations() if node.GetName() == name), None)


def test_the_section_shows_a_row_for_each_volume_and_one_for_a_sequence_before_anything_runs(batch):
    addVolume("First")
    addVolume("Second", seed=1)
    addSequence("Beat")
    driving.processEvents()
    assert names(batch) == ["First", "Second", f"Beat ({FRAMES} frames)"]
    assert states(batch) == ["waiting"] * 3
    assert batch.ui.batchLabel.text.startswith("0 done, 0 refused, 3 to do.")


def test_every_volume_gets_a_segmentation_of_its_own_named_after_it_and_nothing_else_changes(batch, worker):
    import slicer

    first, second = addVolume("First"), addVolume("Second", seed=1)
    slicer.util.setSliceViewerLayers(background=first)
    before = {node: name for node, name, _class in sceneContent()}
    selected = batch._parameterNode.inputVolume
    worker("good")
    run(batch)
    assert states(batch) == ["▲ done, check"] * 2
    assert sorted(node.GetName() for node in segmentations()) == ["First heart", "Second heart"]
    made = {node: (name, kind) for node, name, kind in sceneContent() if node not in before}
    kinds = sorted(kind for _name, kind in made.values() if "Storage" not in kind and "Display" not in kind)
    assert set(kinds) <= {"vtkMRMLSegmentationNode", "vtkMRMLTableNode"}, made
    assert {node: name for node, name, _class in sceneContent() if node in before} == before
    assert batch._parameterNode.inputVolume is selected is first
    shown = {node.GetBackgroundVolumeID() for node in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")}
    assert shown == {first.GetID()}
    assert batch._parameterNode.outputSegmentation is segmentationNamed("First heart")
    assert segmentationNamed("First heart").GetDisplayNode().GetVisibility()
    assert not segmentationNamed("Second heart").GetDisplayNode().GetVisibility(), "it would lie over the first volume"
    assert second.GetName() == "Second"


def test_what_is_refused_costs_its_own_row_and_says_why(batch, worker):
    addVolume("First")
    addVolume("Thin", shape=(2, 24, 36))
    addVolume("Third", seed=2)
    worker("good")
    run(batch)
    assert [state.split(" ")[-1] for state in states(batch)] == ["check", "refused", "check"]
    assert names(batch)[1].startswith("Thin\n") and len(names(batch)[1].split("\n")[1]) > 20
    assert "2 finished" in batch.ui.statusLabel.text and "1 refused" in batch.ui.statusLabel.text
    assert len(segmentations()) == 2


def test_the_workers_refusal_stands_in_the_row_in_its_own_words(batch, worker):
    addVolume("First")
    addVolume("Second", seed=1)
    worker("no-heart")
    run(batch)
    assert states(batch) == ["refused"] * 2 and segmentations() == []
    assert all("No heart was found" in name for name in names(batch))


def test_a_second_start_passes_over_what_is_done_and_tries_again_what_was_refused(batch, worker):
    import slicer

    first = addVolume("First")
    worker("good")
    run(batch)
    (done,) = segmentations()
    state = done.GetAttribute("MKDSegmentation.Report")
    slicer.util.updateVolumeFromArray(first, slicer.util.arrayFromVolume(first))
    addVolume("Second", seed=1)
    driving.processEvents()
    assert states(batch) == ["▲ done, check", "waiting"]
    run(batch)
    assert done.GetAttribute("MKDSegmentation.Report") == state, "it was segmented anew"
    assert len(segmentations()) == 2
    assert not batch.ui.batchButton.enabled and "No volume is left" in batch.ui.batchButton.toolTip


def test_cancel_keeps_what_is_finished_and_the_rest_waits(batch, worker, tmp_path):
    addVolume("First")
    addVolume("Second", seed=1)
    worker("holds-second")
    driving.click(batch.ui.batchButton)
    driving.waitUntil(lambda: states(batch)[1].startswith("running"), message="the second volume")
    assert batch.ui.batchButton.text == "Cancel the batch" and not batch.ui.inputCollapsibleButton.enabled
    driving.click(batch.ui.batchButton)
    waitUntilReady(batch)
    assert states(batch) == ["▲ done, check", "waiting"]
    assert len(segmentations()) == 1 and "Cancelled. 1 finished" in batch.ui.statusLabel.text
    run(batch)
    assert states(batch) == ["▲ done, check"] * 2


def test_one_volume_can_be_left_out_while_it_runs_or_waits(batch, worker):
    for number, name in enumerate(("First", "Second", "Third")):
        addVolume(name, seed=number)
    worker("slow")
    driving.click(batch.ui.batchButton)
    waitForStage(batch, "Looking for the heart")  # the launcher of the first worker has been read by then
    assert states(batch)[0].startswith("running") and not batch.ui.batchLeaveOutButton.enabled, "no row is selected"
    clickRow(batch, 2)
    driving.click(batch.ui.batchLeaveOutButton)
    assert states(batch)[2] == "left out"
    worker("good")
    clickRow(batch, 0)
    driving.click(batch.ui.batchLeaveOutButton)
    waitUntilReady(batch)
    assert states(batch) == ["left out", "▲ done, check", "left out"]
    assert [node.GetName() for node in segmentations()] == ["Second heart"]


def test_a_click_on_a_finished_row_shows_its_volume_and_its_segmentation(batch, worker):
    import slicer

    addVolume("First")
    second = addVolume("Second", seed=1)
    worker("good")
    run(batch)
    clickRow(batch, 1)
    assert batch._parameterNode.inputVolume is second
    assert batch._parameterNode.outputSegmentation is segmentationNamed("Second heart")
    shown = {node.GetBackgroundVolumeID() for node in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")}
    assert shown == {second.GetID()}
    assert segmentationNamed("Second heart").GetDisplayNode().GetVisibility()
    assert not segmentationNamed("First heart").GetDisplayNode().GetVisibility()
    slicer.mrmlScene.RemoveNode(second)
    driving.processEvents()
    assert names(batch) == ["First, CT"]


def test_all_frames_of_a_sequence_are_segmented_as_one_row(batch, worker):
    from MKDSegmentationLib.scene.frameSequence import FrameSequence

    volume = addSequence("Beat")
    worker("beat")
    browserOf(volume).SetSelectedItemNumber(1)
    driving.processEvents()
    run(batch)
    assert all(FrameSequence.of(volume).reports()) and browserOf(volume).GetSelectedItemNumber() == 1
    assert names(batch) == [f"Beat ({FRAMES} frames), CT"] and states(batch)[0].endswith(("done", "check", "wrong"))


def test_an_mr_among_cts_is_taken_for_an_mr(batch, worker):
    import slicer

    addVolume("CT")
    other = addVolume("MR", seed=1)
    voxels = slicer.util.arrayFromVolume(other)
    voxels[:] = 400 + abs(voxels) // 4
    slicer.util.arrayFromVolumeModified(other)
    batch._parameterNode.modality = "CT"
    worker("good")
    run(batch)
    assert names(batch) == ["CT, CT", "MR, MR"]
    assert batch._parameterNode.modality == "CT", "the choice for the selected volume stays"


def test_a_volume_that_is_removed_or_a_scene_that_is_closed_ends_nothing_else(batch, worker):
    import slicer

    addVolume("First")
    second = addVolume("Second", seed=1)
    worker("slow")
    driving.click(batch.ui.batchButton)
    driving.waitUntil(lambda: states(batch)[0].startswith("running"), message="the first volume")
    slicer.mrmlScene.RemoveNode(second)
    driving.processEvents()
    assert states(batch)[1] == "refused" and "removed" in names(batch)[1]
    slicer.mrmlScene.Clear()
    waitUntilReady(batch)
    assert segmentations() == [] and not batch._batch.isActive


def test_overlays_and_label_maps_are_no_volumes_to_segment(batch, worker):
    import slicer

    addVolume("First")
    driving.click(batch.ui.advancedCollapsibleButton)
    driving.click(batch.ui.disagreementCheckBox)
    worker("good")
    driving.click(batch.ui.segmentButton)
    waitUntilReady(batch)
    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "Labels")
    driving.processEvents()
    assert names(batch) == ["First, CT"]


# ---- a folder ----


@pytest.fixture
def folder(tmp_path, monkeypatch, slicerApp):
    """Folder with two hearts and a file that is no volume; the processes started from here segment with known networks.

    While there is a file "hold" in it, they wait at the volume "holding".
    """
    pytest.importorskip("torch")
    pytest.importorskip("PIL")
    if sys.platform == "win32":
        pytest.skip("the launcher is a shell script")
    from mkd_core.io.volumes import write_volume
    from Testing.support.known_heart import known_volume

    source = tmp_path / "volumes"
    source.mkdir()
    for number, name in enumerate(("a", "holding")):
        image, _truth = known_volume((64, 56, 56), (3.0 + 0.02 * number, 3.0, 3.0))
        write_volume(image, source / f"{name}.nrrd", compress=False)
    (source / "broken.nii").write_bytes(bytes(1000))
    programs = tmp_path / "bin"
    programs.mkdir()
    launcher = programs / "PythonSlicer"
    script = ROOT / "Testing" / "support" / "known_archive.py"
    launcher.write_text(f"#!/bin/sh\nexec '{sys.executable}' '{script}' \"$@\"\n", encoding="utf-8")
    launcher.chmod(launcher.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    slicerApp.userSettings().setValue("MKDSegmentation/Threads", "1")
    return source


def test_a_folder_is_segmented_through_the_archives_ledger_and_goes_on_where_it_ended(
    folder, batch, caplog, monkeypatch
):
    import slicer

    from MKDSegmentationLib.run import archiveRun

    from mkd_core.archive.ledger import Ledger

    # A process that is told to end gives its rows back first: a busy computer must not be taken for a stuck process.
    monkeypatch.setattr(archiveRun, "GRACE_MS", 1000 * int(driving.WAIT_S))
    assert not batch.ui.batchFolderLineEdit.visible
    driving.choose(batch.ui.batchSourceComboBox, "Volumes in a folder")
    assert batch.ui.batchFolderLineEdit.visible and not batch.ui.batchButton.enabled
    driving.typeText(batch.ui.batchFolderLineEdit, str(folder))
    before = sceneContent()
    (folder / "hold").touch()
    driving.click(batch.ui.batchButton)
    driving.waitUntil(
        lambda: any(
            state == "running" and name.startswith("holding") for name, state in zip(names(batch), states(batch))
        ),
        message="the second heart",
    )
    driving.click(batch.ui.batchButton)
    waitUntilReady(batch)
    assert "goes on from there" in batch.ui.statusLabel.text and sceneContent() == before
    results = folder.with_name("volumes segmented")

    def isFree():
        with Ledger(results) as ledger:
            return ledger.state_counts()["running"] == 0

    driving.waitUntil(isFree, message="the end of the process")
    (folder / "hold").unlink()
    run(batch)
    shown = dict(zip([name.split("\n")[0] for name in names(batch)], states(batch)))
    assert [shown[name].split()[-1] == "refused" for name in ("a.nrrd, CT", "holding.nrrd, CT", "broken.nii")] == [
        False,
        False,
        True,
    ]
    assert "2 finished" in batch.ui.statusLabel.text and "1 refused" in batch.ui.statusLabel.text
    with Ledger(results) as ledger:
        assert [row["attempts"] for row in ledger.rows(states=("done",))] in ([1, 1], [1, 2])
    assert sceneContent() == before, "nothing is loaded before it is asked for"

    def clickHolding():
        clickRow(batch, next(row for row, name in enumerate(names(batch)) if name.startswith("holding")))

    clickHolding()
    assert batch.ui.batchLabel.text == "Loading “holding.nrrd” ..." and sceneContent() == before
    slicer.mrmlScene.Clear()
    driving.processEvents(0.2)
    assert segmentations() == [] and "2 done" in batch.ui.batchLabel.text, (
        "what a closed scene was to get is not loaded"
    )
    clickHolding()
    clickHolding()
    driving.waitUntil(segmentations, message="the volume that is loaded")
    (segmentation,) = segmentations()
    volume = batch._parameterNode.inputVolume
    assert volume.GetName() == "holding.nrrd" and batch._parameterNode.outputSegmentation is segmentation
    assert volume.GetSpacing()[0] == pytest.approx(3.02)
    assert segmentation.GetSegmentation().GetNumberOfSegments() == 7 and batch.ui.resultsTable.visible
    driving.waitUntil(lambda: "2 done" in batch.ui.batchLabel.text, message="the end of the loading")
    assert "All structures of the set are segmented, whatever is ticked" in batch.ui.batchLabel.text
    count = slicer.mrmlScene.GetNumberOfNodes()
    clickHolding()
    driving.processEvents(0.2)
    assert slicer.mrmlScene.GetNumberOfNodes() == count, "it was loaded twice"

    (folder / "a.nrrd").unlink()
    clickRow(batch, next(row for row, name in enumerate(names(batch)) if name.startswith("a.nrrd")))
    driving.waitUntil(lambda: "Loading" not in batch.ui.batchLabel.text, message="the end of the loading")
    assert "The result could not be loaded (There is no file" in caplog.text
    assert slicer.mrmlScene.GetNumberOfNodes() == count


@pytest.mark.parametrize(
    ("structures", "named"),
    [
        (None, "whole-heart-7"),
        (("LV", "RV"), "whole-heart-7"),
        ("detailed", "detailed"),
        (("LV", "SVC"), "detailed"),
    ],
)
def test_a_folder_is_segmented_in_the_set_of_structures_that_is_chosen(panel, monkeypatch, structures, named):
    import MKDSegmentationLib as lib

    started = []
    monkeypatch.setattr(lib.ArchiveRun, "_start", lambda self, *arguments: started.append(arguments))
    run = lib.ArchiveRun("volumes", "results", lib.RunOptions(structures=structures))
    run._segment()
    run.cancel()
    assert started[0][started[0].index("--structures") + 1] == named


def test_a_folder_without_volumes_is_told_in_words(folder, batch, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    driving.choose(batch.ui.batchSourceComboBox, "Volumes in a folder")
    driving.typeText(batch.ui.batchFolderLineEdit, str(tmp_path / "nowhere"))
    assert not batch.ui.batchButton.enabled and "no such folder" in batch.ui.batchButton.toolTip
    driving.typeText(batch.ui.batchFolderLineEdit, str(empty))
    run(batch)
    assert "There are no volumes" in batch.ui.statusLabel.text
