"""What is shown stays true when segments are edited, and no edit is lost without a question; in the stand-in GUI."""

import csv
import io
import itertools

import numpy as np
import pytest

from mkd_core.measure.messages import RESEARCH_USE as USE
from mkd_core.structures import BY_KEY, STRUCTURES
from Testing.support.fake_worker import blocks

pytest.importorskip("slicer")
pytest.importorskip("PySide6")
from Testing.support.dicom_volume import loadFromDatabase
from Testing.support.panel_driving import (
    SHAPE,
    addVolume,
    driving,
    sceneContent,
    segment,
    segmentations,
    voxelsOf,
    waitForFigures,
    waitForStage,
    waitUntilReady,
)
from Testing.support.sequence_driving import (
    FRAMES,
    addSequence,
    browserOf,
    framesOf,
    functionRows,
    nodesNamed,
    segmentAll,
)

KEYS = [structure.key for structure in STRUCTURES]
VOXEL_ML = 8 / 1000  # voxels of 2 mm


def paint(volume, key, mask, segmentation=None):
    """Give a segment these voxels, as tools of the Segment Editor do."""
    import slicer

    node = segmentation or segmentations()[0]
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask.astype(np.uint8), node, key, volume)


def tableCells(node):
    """Return the rows of a table node as lists of str."""
    columns = range(node.GetNumberOfColumns())
    return [[node.GetCellText(row, column) for column in columns] for row in range(node.GetNumberOfRows())]


def measurements():
    """Return the table node of the measurements."""
    import slicer

    (table,) = slicer.util.getNodesByClass("vtkMRMLTableNode")
    return table


def copied(panel):
    """Return the rows that Copy puts on the clipboard."""
    import slicer

    driving.click(panel.ui.copyButton)
    return list(csv.reader(io.StringIO(slicer.app.clipboard().text()), delimiter="\t"))[1:]


@pytest.fixture
def result(panel, volume, worker):
    """The panel after a run."""
    worker("good")
    segment(panel)
    return panel


def test_after_an_edit_one_segment_is_measured_at_a_step(result, volume, monkeypatch):
    """A step is as long as the application waits: all seven at once take too long on a large volume."""
    from MKDSegmentationLib.run import incrementalTask
    from MKDSegmentationLib.scene import segmentMeasurement

    waitForFigures(result)
    numbers, current, measured = itertools.count(1), [0], []

    def step(self, real=incrementalTask.IncrementalTask.step):
        current.append(next(numbers))
        real(self)
        current.append(0)  # outside of a step

    def measure(*arguments, real=segmentMeasurement._measure):
        measured.append(current[-1])
        return real(*arguments)

    monkeypatch.setattr(incrementalTask.IncrementalTask, "step", step)
    monkeypatch.setattr(segmentMeasurement, "_measure", measure)
    half = blocks(SHAPE) == 1
    half[7:] = False
    paint(volume, "LV", half)
    segmentations()[0].Modified()
    waitForFigures(result)
    assert driving.tableTexts(result.ui.resultsTable)[0][3] == "edited"
    assert measured and 0 not in measured, "outside of a step"
    assert len(set(measured)) == len(measured)


def countMeasured(monkeypatch):
    """Return a list that grows by one with each segment that is measured from now on."""
    from MKDSegmentationLib.scene import segmentMeasurement

    real, measured = segmentMeasurement._measure, []
    monkeypatch.setattr(segmentMeasurement, "_measure", lambda *given: measured.append(None) or real(*given))
    return measured


def test_only_the_segment_that_was_edited_is_measured_again(result, volume, monkeypatch):
    """All share a label map, and Slicer tells of an edit no more than that this changed."""
    waitForFigures(result)
    inner = segmentations()[0].GetSegmentation()
    assert len({inner.GetSegment(key).GetRepresentation("Binary labelmap").GetAddressAsString("") for key in KEYS}) == 1
    measured = countMeasured(monkeypatch)
    for planes in (7, 6):  # the first edit after a run, and one more
        measured.clear()
        part = blocks(SHAPE) == 1
        part[planes:] = False
        paint(volume, "LV", part)
        waitForFigures(result)
        assert driving.tableTexts(result.ui.resultsTable)[0][1] == f"{part.sum() * VOXEL_ML:.1f}"
        assert len(measured) == 1


def test_nothing_is_measured_or_drawn_anew_while_the_user_draws(result, volume, monkeypatch):
    import qt

    from MKDSegmentationLib.run import incrementalTask

    waitForFigures(result)
    held, steps = [qt.Qt.LeftButton], []
    monkeypatch.setattr(qt.QApplication, "mouseButtons", staticmethod(lambda: held[-1]), raising=False)

    def step(self, real=incrementalTask.IncrementalTask.step):
        steps.append(held[-1])
        real(self)

    monkeypatch.setattr(incrementalTask.IncrementalTask, "step", step)
    half = blocks(SHAPE) == 1
    half[7:] = False
    paint(volume, "LV", half)
    driving.processEvents(0.6)
    assert not steps and driving.tableTexts(result.ui.resultsTable)[0][3] != "edited"
    held.append(qt.Qt.NoButton)
    waitForFigures(result)
    assert steps and driving.tableTexts(result.ui.resultsTable)[0][1] == f"{half.sum() * VOXEL_ML:.1f}"


def test_an_edit_that_takes_from_another_segment_measures_both(result, volume, monkeypatch):
    waitForFigures(result)
    measured = countMeasured(monkeypatch)
    left, right = blocks(SHAPE) == 1, blocks(SHAPE) == 2
    taken = np.argwhere(right)[: right.sum() // 2]
    right[tuple(taken.T)], left[tuple(taken.T)] = False, True
    paint(volume, "RV", right)
    paint(volume, "LV", left)
    waitForFigures(result)
    rows = driving.tableTexts(result.ui.resultsTable)
    assert [row[1] for row in rows[:2]] == [f"{mask.sum() * VOXEL_ML:.1f}" for mask in (left, right)]
    assert len(measured) == 2


def test_what_a_run_changes_within_a_turn_is_shown_together(panel, volume, worker, monkeypatch):
    worker("slow")
    driving.click(panel.ui.segmentButton)
    waitForStage(panel, "Looking for the heart")
    shown = []
    with monkeypatch.context() as patched:
        patched.setattr(panel, "_show", shown.append)
        for _change in range(20):
            volume.Modified()
        assert not shown
        driving.waitUntil(lambda: shown, message="the panel")
        driving.processEvents(0.05)
    assert len(shown) <= 2, "more than the twenty changes and what else may come on a slow machine"
    driving.click(panel.ui.segmentButton)
    waitUntilReady(panel)


def test_figures_follow_an_edit_and_say_so(result, volume):
    half = blocks(SHAPE) == 1
    half[7:] = False
    ml, mean = half.sum() * VOXEL_ML, volumeArray(volume)[half].mean()
    paint(volume, "LV", half)
    waitForFigures(result)
    rows = driving.tableTexts(result.ui.resultsTable)
    assert rows[0][1:] == [f"{ml:.1f}", f"{mean:.0f}", "edited", ""]
    assert "<b>Left ventricle:</b> edited after the run" in result.ui.warningsLabel.text
    cells = tableCells(measurements())
    assert float(cells[0][1]) == round(ml, 1) and cells[0][4] in ("", "nan") and cells[0][6] == "edited"
    assert copied(result)[0] == ["Left ventricle", f"{round(ml, 1):g}", "", f"{round(mean):g}", "", "", "edited", USE]
    assert [row[6] for row in copied(result)[1:7]] == [""] * 6


def volumeArray(volume):
    import slicer

    return slicer.util.arrayFromVolume(volume)


def test_the_algorithm_is_no_longer_told_as_the_only_maker_of_an_edited_segment(result, volume):
    import vtk

    def maker(key):
        value = vtk.reference("")
        segmentations()[0].GetSegmentation().GetSegment(key).GetTag("DICOM.SegmentAlgorithmType", value)
        return str(value)

    mask = blocks(SHAPE) == 1
    whole = mask.copy()
    mask[7:] = False
    paint(volume, "LV", mask)
    waitForFigures(result)
    assert (maker("LV"), maker("RV")) == ("SEMIAUTOMATIC", "AUTOMATIC")
    paint(volume, "LV", whole)
    waitForFigures(result)
    assert maker("LV") == "AUTOMATIC"


def test_browsing_writes_no_tables_anew(beat):
    panel, volume = beat
    waitForFigures(panel)
    (table,) = nodesNamed("Beat heart volumes")
    before = table.GetMTime()
    for frame in (1, 2, 0):
        browserOf(volume).SetSelectedItemNumber(frame)
        waitForFigures(panel)
    assert table.GetMTime() == before


def test_mass_follows_an_edit_of_the_myocardium(result, volume):
    half = blocks(SHAPE) == 5
    half[:, :9] = False
    paint(volume, "Myo", half)
    waitForFigures(result)
    grams = half.sum() * VOXEL_ML * 1.05
    assert f"Left ventricular mass: {grams:.0f} g" in result.ui.warningsLabel.text
    assert float(tableCells(measurements())[4][2]) == pytest.approx(grams, abs=0.05)


def test_an_edit_takes_the_warnings_of_the_run_along_and_those_of_others_stay(result, volume):
    assert "Reaches the edge" in result.ui.warningsLabel.text
    mask = blocks(SHAPE) == 7
    mask[5] = False
    paint(volume, "PA", mask)
    waitForFigures(result)
    assert "Reaches the edge" not in result.ui.warningsLabel.text
    assert "larger than the box" in result.ui.warningsLabel.text


def test_a_deleted_segment_stays_in_the_table_as_deleted(result):
    segmentations()[0].GetSegmentation().RemoveSegment("RA")
    waitForFigures(result)
    rows = driving.tableTexts(result.ui.resultsTable)
    assert rows[3] == ["Right atrium", "deleted", "", "", ""]
    assert tableCells(measurements())[3][6] == "deleted" and copied(result)[3][1:] == [
        "",
        "",
        "",
        "",
        "",
        "deleted",
        USE,
    ]
    result.ui.resultsTable.cellClicked.emit(3, 0)  # there is nowhere to go


def test_a_renamed_segment_is_called_by_its_name(result):
    segmentations()[0].GetSegmentation().GetSegment("LV").SetName("Linker Ventrikel")
    waitForFigures(result)
    assert driving.tableTexts(result.ui.resultsTable)[0][0] == "Linker Ventrikel"
    assert "Left ventricle" in result.ui.resultsTable.item(0, 0).toolTip()
    assert copied(result)[0][0] == tableCells(measurements())[0][0] == "Linker Ventrikel"
    assert copied(result)[0][6] == "", "another name is no edit"


def test_the_table_follows_while_another_module_is_shown(result, volume):
    result.parent.exit()
    mask = blocks(SHAPE) == 2
    mask[6:] = False
    paint(volume, "RV", mask)
    waitForFigures(result)
    assert float(tableCells(measurements())[1][1]) == round(mask.sum() * VOXEL_ML, 1)
    result.parent.enter()
    assert driving.tableTexts(result.ui.resultsTable)[1][1] == f"{mask.sum() * VOXEL_ML:.1f}"


def test_figures_follow_the_voxels_of_the_volume_and_a_parent_transform_that_scales(result, volume):
    import slicer
    import vtk

    volumeArray(volume)[:] += 100
    slicer.util.arrayFromVolumeModified(volume)
    waitForFigures(result)
    inside = volumeArray(volume)[blocks(SHAPE) == 1]
    assert driving.tableTexts(result.ui.resultsTable)[0][2] == f"{inside.mean():.0f}"
    scale = vtk.vtkTransform()
    scale.Scale(1, 1, 3)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    node.SetMatrixTransformToParent(scale.GetMatrix())
    for one in (volume, segmentations()[0]):
        one.SetAndObserveTransformNodeID(node.GetID())
    waitForFigures(result)
    ml = (blocks(SHAPE) == 1).sum() * VOXEL_ML * 3
    assert float(tableCells(measurements())[0][1]) == round(ml, 1)
    scale.Scale(1, 1, 2)
    node.SetMatrixTransformToParent(scale.GetMatrix())
    waitForFigures(result)
    assert float(tableCells(measurements())[0][1]) == round(2 * ml, 1)
    assert driving.tableTexts(result.ui.resultsTable)[0][1] == f"{2 * ml:.1f}"


class RandomEdits:
    """Edits as the tools of the Segment Editor make them, which take what is painted from other segments and can be
    undone.

    :param seed: of the choices.
    """

    KINDS = ("paint", "erase", "islands", "rename", "delete", "undo")

    def __init__(self, seed):
        import slicer

        self.random, self.done = np.random.default_rng(seed), []
        self.history = slicer.vtkSegmentationHistory()

    def edit(self, node, volume, mayDelete=True):
        """Change the segments of a node at random; the first six edits are one of each kind."""
        segmentation = node.GetSegmentation()
        if self.history.GetSegmentation() is not segmentation:
            self.history.SetSegmentation(segmentation)
        count = len(self.done)
        kind = self.KINDS[count] if count < len(self.KINDS) else str(self.random.choice(self.KINDS[:4] + ("undo",)))
        self.done.append(kind)
        if kind == "undo":
            self.history.RestorePreviousState()
            return
        self.history.SaveState()
        key = str(self.random.choice([key for key in KEYS if segmentation.GetSegment(key) is not None]))
        mask = voxelsOf(node, key, volume)
        middle = np.array([self.random.integers(2, size - 2) for size in SHAPE])
        if mask.any() and kind == "paint":
            middle = self.random.choice(np.argwhere(mask))
        ball = np.linalg.norm(np.indices(SHAPE) - middle[:, None, None, None], axis=0) < 3
        if kind == "paint":
            for other in KEYS:
                if other != key and segmentation.GetSegment(other) is not None:
                    left = voxelsOf(node, other, volume)
                    if (left & ball).any():
                        paint(volume, other, left & ~ball, node)
            paint(volume, key, mask | ball, node)
        elif kind == "erase":
            mask[tuple(np.argwhere(mask)[: mask.sum() // 3].T)] = False
            paint(volume, key, mask, node)
        elif kind == "islands":  # keep the part that the editor would call the largest: here all but the last slice
            mask[np.flatnonzero(mask.any(axis=(1, 2)))[-1:]] = False
            paint(volume, key, mask, node)
        elif kind == "rename":
            segmentation.GetSegment(key).SetName(f"{BY_KEY[key].name} {count}")
        elif kind == "delete" and mayDelete:
            segmentation.RemoveSegment(key)


def rowsOfPage(path):
    """Return the rows of the structures on the page of a report: name, state, ml, g, mean, agreement."""
    import html
    import re

    source = path.read_text(encoding="utf-8")
    table = source.split("<h2>Structures</h2>")[1].split("</table>")[0]
    rows = []
    for row in re.findall(r'<b class="swatch".*?</tr>', table):
        name, state = re.search(r"</b>(.*?)(?: <i class=.state.>(.*?)</i>)?</th>", row).groups()
        rows.append([html.unescape(name), state or "", *re.findall(r"<td>(.*?)</td>", row)])
    return rows


def groupsOfReport(path):
    """Return the figures in a DICOM report by the names of the structures."""
    import pydicom

    found = {}
    for item in pydicom.dcmread(path).ContentSequence:
        if item.ConceptNameCodeSequence[0].CodeMeaning != "Imaging Measurements":
            continue
        for group in item.ContentSequence:
            figures, name = {}, None
            for one in group.ContentSequence:
                meaning = one.ConceptNameCodeSequence[0].CodeMeaning
                if one.ValueType == "NUM":
                    figures[meaning] = float(one.MeasuredValueSequence[0].NumericValue)
                elif meaning == "Tracking Identifier":
                    name = one.TextValue
            found[name] = figures
    return found


def number(value):
    """Return a figure as it is shown: whole from ten on, else with one decimal, nothing for nothing."""
    value = round(value, 1)
    return "" if not value else f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def checkFiles(panel, now, folder, monkeypatch):
    """Save page, DICOM report and a row of a study, and compare them with what the segments are.

    :param now: name, ml, mean and whether it was edited for each structure, None for one that was deleted.
    """
    import qt

    page, file, study = (folder / name for name in ("heart.html", "heart.dcm", "study.csv"))
    folder.mkdir()
    monkeypatch.setattr(qt.QFileDialog, "getSaveFileName", lambda *_arguments: str(page))
    driving.waitUntil(lambda: panel.ui.reportButton.enabled, message="the clinical figures")
    driving.click(panel.ui.reportButton)
    driving.waitUntil(page.is_file, message="the report")
    monkeypatch.setattr(qt.QFileDialog, "getSaveFileName", lambda *_arguments: str(file))
    driving.chooseInMenu(panel.ui.exportButton, "DICOM Segmentation ...")
    monkeypatch.setattr(qt.QFileDialog, "getSaveFileName", lambda *_arguments: str(study))
    driving.click(panel.ui.studyButton)
    with study.open(encoding="utf-8-sig", newline="") as lines:
        (kept,) = csv.DictReader(lines)
    assert kept["edited"].split() == [key for key in KEYS if now[key] is not None and now[key][3]]
    assert kept["deleted"].split() == [key for key in KEYS if now[key] is None]
    rows, groups = rowsOfPage(page), groupsOfReport(file.with_suffix(".sr.dcm"))
    for row, key in enumerate(KEYS):
        name = BY_KEY[key].name
        if now[key] is None:
            assert rows[row][1:] == ["deleted", "", "", "", ""] and name not in groups and kept[f"{key}_ml"] == ""
            continue
        called, ml, mean, isEdited = now[key]
        mass = ml * 1.05 if key == "Myo" else 0.0
        assert rows[row][:5] == [called, "edited" if isEdited else "", number(ml), number(mass), f"{mean:.0f}"]
        assert (rows[row][5] == "") == isEdited == ("Dice overlap of the two segmentors" not in groups[name])
        assert (kept[f"{key}_agreement"] == "") == isEdited
        assert float(kept[f"{key}_ml"]) == pytest.approx(ml, rel=1e-5, abs=1e-3)
        assert groups[name]["Volume"] == pytest.approx(ml, abs=1e-3)
        assert groups[name]["Attenuation Coefficient"] == pytest.approx(mean, abs=1e-3)
        assert groups[name].get("Mass", 0.0) == pytest.approx(mass, abs=1e-3)


def test_after_each_of_twenty_random_edits_everything_equals_the_segments(panel, worker, tmp_path, monkeypatch):
    """Table, clipboard, table node, page, DICOM report and row of a study, against a computation of their own on what
    would be saved.
    """
    import slicer

    volume, _image = loadFromDatabase(tmp_path / "in")
    worker("good")
    segment(panel)
    (node,) = segmentations()
    edits, written = RandomEdits(14), {key: blocks(SHAPE) == BY_KEY[key].label for key in KEYS}
    for count in range(20):
        edits.edit(node, volume)
        waitForFigures(panel)
        shown, cells, csvRows = driving.tableTexts(panel.ui.resultsTable), tableCells(measurements()), copied(panel)
        now = dict.fromkeys(KEYS)
        for row, key in enumerate(KEYS):
            segmentNow = node.GetSegmentation().GetSegment(key)
            if segmentNow is None:
                assert shown[row][1:4] == ["deleted", "", ""] and csvRows[row][1] == "" and cells[row][6] == "deleted"
                continue
            # what a user would save, not our own measuring
            label = slicer.util.arrayFromSegmentBinaryLabelmap(node, key, volume) > 0
            ml, mean = label.sum() * 4.5 / 1000, volumeArray(volume)[label].mean()
            isEdited = not np.array_equal(label, written[key])
            now[key] = (segmentNow.GetName(), ml, mean, isEdited)
            assert shown[row][0] == cells[row][0] == csvRows[row][0] == segmentNow.GetName()
            assert float(cells[row][1]) == float(csvRows[row][1]) == round(ml, 1) and shown[row][1] == number(ml)
            assert shown[row][2] == f"{mean:.0f}" and float(csvRows[row][3]) == round(mean)
            assert csvRows[row][6] == cells[row][6] == ("edited" if isEdited else "")
            assert (shown[row][3] == "edited") == isEdited
        checkFiles(panel, now, tmp_path / str(count), monkeypatch)
    assert set(edits.done) == set(edits.KINDS)


# ---- a second run ----


def editLV(volume, removedFrom=7):
    mask = blocks(SHAPE) == 1
    mask[removedFrom:] = False
    paint(volume, "LV", mask)
    return mask


def test_a_second_click_asks_before_it_replaces_an_edit(result, volume):
    mask = editLV(volume)
    driving.click(result.ui.segmentButton)
    assert result.ui.segmentButton.text == "Segment", "nothing runs before the answer"
    assert result.ui.editsFrame.visible and "Left ventricle" in result.ui.editsLabel.text
    assert "Right" not in result.ui.editsLabel.text
    driving.click(result.ui.cancelEditsButton)
    assert not result.ui.editsFrame.visible and result.ui.segmentButton.text == "Segment"
    assert np.array_equal(voxelsOf(segmentations()[0], "LV", volume), mask)


def test_an_edit_is_replaced_when_the_user_says_so_and_can_be_brought_back(result, volume):
    mask = editLV(volume)
    (segmentation,) = segmentations()
    segmentation.GetSegmentation().GetSegment("RV").SetName("My RV")
    assert not result.ui.undoButton.visible, "the first run replaced nothing"
    driving.click(result.ui.segmentButton)
    driving.click(result.ui.replaceEditsButton)
    waitUntilReady(result)
    assert segmentations() == [segmentation] and not result.ui.editsFrame.visible
    assert np.array_equal(voxelsOf(segmentation, "LV", volume), blocks(SHAPE) == 1)
    driving.click(result.ui.undoButton)
    waitForFigures(result)
    assert np.array_equal(voxelsOf(segmentation, "LV", volume), mask)
    assert segmentation.GetSegmentation().GetSegment("RV").GetName() == "My RV"
    assert driving.tableTexts(result.ui.resultsTable)[0][3] == "edited"
    assert float(tableCells(measurements())[0][1]) == round(mask.sum() * VOXEL_ML, 1)
    assert result.ui.undoButton.text == "Redo this run" and "undone" in result.ui.statusLabel.text
    driving.click(result.ui.undoButton)
    waitForFigures(result)
    assert np.array_equal(voxelsOf(segmentation, "LV", volume), blocks(SHAPE) == 1)
    assert float(tableCells(measurements())[0][1]) == round((blocks(SHAPE) == 1).sum() * VOXEL_ML, 1)


def test_an_edit_is_kept_beside_the_new_result_when_the_user_says_so(result, volume):
    mask = editLV(volume)
    (edited,) = segmentations()
    driving.click(result.ui.segmentButton)
    driving.click(result.ui.keepEditsButton)
    waitUntilReady(result)
    (new,) = [node for node in segmentations() if node is not edited]
    assert np.array_equal(voxelsOf(edited, "LV", volume), mask)
    assert np.array_equal(voxelsOf(new, "LV", volume), blocks(SHAPE) == 1)
    assert result.ui.outputSelector.currentNode() is new


def test_an_edit_during_the_run_is_never_replaced(result, volume, worker, tmp_path):
    (edited,) = segmentations()
    worker(f"waits-for:{tmp_path / 'go'}")
    result.logic.close()  # the next worker is the one that waits
    driving.click(result.ui.segmentButton)
    waitForStage(result, "Looking for the heart")
    mask = editLV(volume)
    (tmp_path / "go").touch()
    waitUntilReady(result)
    assert np.array_equal(voxelsOf(edited, "LV", volume), mask)
    assert len(segmentations()) == 2 and "new segmentation" in result.ui.statusLabel.text


def test_a_second_run_without_an_edit_asks_nothing(result, volume):
    import slicer

    mine = np.zeros(SHAPE, bool)
    mine[2:4, 2:4, 2:4] = True
    segmentations()[0].GetSegmentation().AddEmptySegment("mine", "mine")
    paint(volume, "mine", mine)
    segmentations()[0].GetSegmentation().GetSegment("LV").SetName("Renamed")
    segment(result)
    assert len(segmentations()) == 1 and not result.ui.editsFrame.visible
    assert np.array_equal(voxelsOf(segmentations()[0], "mine", volume), mine)
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLTableNode") == 1


def test_a_script_says_what_becomes_of_edits(result, volume):
    from MKDSegmentationLib.parameters import RunOptions

    mask = editLV(volume)
    (segmentation,) = segmentations()
    with pytest.raises(ValueError, match="Left ventricle"):
        result.logic.segment(volume, segmentation)
    kept = result.logic.segment(volume, segmentation, RunOptions(edits="keep"))
    assert kept.segmentation is not segmentation
    assert np.array_equal(voxelsOf(segmentation, "LV", volume), mask)
    replaced = result.logic.segment(volume, segmentation, RunOptions(edits="replace"))
    assert replaced.segmentation is segmentation
    assert np.array_equal(voxelsOf(segmentation, "LV", volume), blocks(SHAPE) == 1)
    replaced.undo.toggle()
    assert np.array_equal(voxelsOf(segmentation, "LV", volume), mask)


def test_undo_takes_our_segments_out_of_a_segmentation_that_had_none(panel, volume, worker):
    import slicer

    mine = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Mine")
    mine.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    mine.GetSegmentation().AddEmptySegment("LV", "My LV")
    drawn = np.zeros(SHAPE, bool)
    drawn[1:4, 1:4, 1:4] = True
    paint(volume, "LV", drawn, mine)
    worker("good")
    driving.click(panel.ui.advancedCollapsibleButton)
    driving.choose(panel.ui.outputSelector, "Mine")
    segment(panel)
    assert mine.GetSegmentation().GetNumberOfSegments() == 8
    assert np.array_equal(voxelsOf(mine, "LV", volume), drawn)
    assert driving.tableTexts(panel.ui.resultsTable)[0][1] == f"{(blocks(SHAPE) == 1).sum() * VOXEL_ML:.1f}"
    undoing = panel.ui.undoButton
    driving.click(undoing)
    waitForFigures(panel)
    assert list(mine.GetSegmentation().GetSegmentIDs()) == ["LV"]
    assert np.array_equal(voxelsOf(mine, "LV", volume), drawn)
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLTableNode") == 0


def test_undo_and_redo_leave_segments_of_the_user_as_they_are(result, volume):
    (segmentation,) = segmentations()
    inner = segmentation.GetSegmentation()
    drawn, later = np.zeros((2, *SHAPE), bool)
    drawn[1:4, 1:4, 1:4], later[2:6, 1:4, 1:4] = True, True
    for segmentId in ("early", "gone"):
        inner.AddEmptySegment(segmentId, segmentId)
        paint(volume, segmentId, drawn)
    segment(result)
    inner.RemoveSegment("gone")
    paint(volume, "early", later)
    inner.AddEmptySegment("tumour", "Drawn in 3 h")
    paint(volume, "tumour", drawn)
    for _click in range(2):
        driving.click(result.ui.undoButton)
        waitForFigures(result)
        assert set(inner.GetSegmentIDs()) == {*KEYS, "early", "tumour"}
        assert np.array_equal(voxelsOf(segmentation, "tumour", volume), drawn)
        assert np.array_equal(voxelsOf(segmentation, "early", volume), later)
        for label, key in enumerate(KEYS, start=1):
            assert np.array_equal(voxelsOf(segmentation, key, volume), blocks(SHAPE) == label), key


# ---- what is gone, hidden or of another volume ----


def test_nothing_is_told_of_a_segmentation_that_was_deleted(result, volume):
    import slicer

    before = [content for content in sceneContent() if "heart" not in content[1]]
    assert "segmented" in result.ui.statusLabel.text
    slicer.mrmlScene.RemoveNode(segmentations()[0])
    waitForFigures(result)
    assert result.ui.statusLabel.text == "" and not result.ui.resultsTable.visible
    left = [content for content in sceneContent() if "Display" not in content[2]]
    assert left == [content for content in before if "Display" not in content[2]], "neither a table nor anything else"


def test_nothing_is_told_of_a_scene_that_was_closed(result):
    import slicer

    slicer.mrmlScene.Clear()
    driving.processEvents()
    assert "Load a CT or MR volume" in result.ui.statusLabel.text
    assert "segmented" not in result.ui.statusLabel.text


def test_overlays_go_with_their_segmentation(panel, volume, worker):
    import slicer

    worker("good")
    driving.click(panel.ui.advancedCollapsibleButton)
    driving.click(panel.ui.disagreementCheckBox)
    segment(panel)
    slicer.mrmlScene.RemoveNode(segmentations()[0])
    waitForFigures(panel)
    assert [node.GetName() for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")] == ["CT"]


def test_a_hidden_segmentation_is_shown_by_a_second_run(result):
    display = segmentations()[0].GetDisplayNode()
    display.SetVisibility(False)
    display.SetSegmentVisibility("LV", False)
    segment(result)
    assert display.GetVisibility() and display.GetSegmentVisibility("LV")


def test_the_segmentation_of_another_volume_is_not_drawn_over_the_selected_one(result, volume):
    (first,) = segmentations()
    addVolume("Second", seed=1)
    driving.choose(result.ui.inputSelector, "Second")
    assert not first.GetDisplayNode().GetVisibility()
    segment(result)
    (second,) = [node for node in segmentations() if node is not first]
    assert second.GetDisplayNode().GetVisibility() and not first.GetDisplayNode().GetVisibility()
    driving.choose(result.ui.inputSelector, "CT")
    assert first.GetDisplayNode().GetVisibility() and not second.GetDisplayNode().GetVisibility()


# ---- 4D ----


@pytest.fixture
def beat(panel, slicerApp, worker):
    """The panel after all frames of a sequence were segmented, and the volume node."""
    volume = addSequence()
    worker("beat")
    segmentAll(panel)
    return panel, volume


def halveFrame(volume, frame, key="LV"):
    """Take half of a structure away in a frame; returns the ml that are left."""
    browserOf(volume).SetSelectedItemNumber(frame)
    (shown,) = segmentations()
    mask = voxelsOf(shown, key, volume)
    mask[: int(np.argwhere(mask)[:, 0].mean())] = False
    paint(volume, key, mask, shown)
    return mask.sum() * VOXEL_ML


def test_an_edit_of_a_frame_changes_volumes_ejection_fraction_and_curve(beat):
    panel, volume = beat
    esv = halveFrame(volume, 2)
    waitForFigures(panel)
    edv = 5 * 6 * 10 * VOXEL_ML
    rows = functionRows(panel)
    assert rows["End-systolic volume (ml)"][0] == f"{esv:.0f}"
    assert rows["Ejection fraction (%)"] == [f"{100 * (edv - esv) / edv:.0f}", "60"]
    assert "Edited after the run: frame 3" in panel.ui.functionWarningsLabel.text
    (function,) = nodesNamed("Beat heart function")
    assert ["Ejection fraction (%)", f"{100 * (edv - esv) / edv:.0f}", "60"] in tableCells(function)
    (volumes,) = nodesNamed("Beat heart volumes")
    assert volumes.GetTable().GetValue(2, 1).ToDouble() == pytest.approx(esv)
    browserOf(volume).SetSelectedItemNumber(0)
    waitForFigures(panel)
    assert functionRows(panel) == rows, "the edit belongs to the frame, not to what is shown"
    esv = halveFrame(volume, 2)
    waitForFigures(panel)
    (function,) = nodesNamed("Beat heart function")
    again = ["Ejection fraction (%)", f"{100 * (edv - esv) / edv:.0f}", "60"]
    assert again in tableCells(function), "and so does a second edit"


def test_after_each_of_twenty_random_edits_the_figures_of_a_beat_equal_those_of_its_frames(beat):
    """Function, its node, volumes over time and their plot against the segments that the frames keep."""
    panel, volume = beat
    browser, edits = browserOf(volume), [RandomEdits(seed) for seed in range(FRAMES)]
    for count in range(20):
        frame = count % FRAMES
        browser.SetSelectedItemNumber(frame)
        (shown,) = segmentations()
        edits[frame].edit(shown, volume, mayDelete=frame == 1)
        waitForFigures(panel)
        curves = {key: [] for key in ("LV", "RV", "Myo")}
        sequence = framesOf(volume)
        for index in range(FRAMES):
            kept = sequence.GetNthDataNode(index)
            for key, curve in curves.items():
                curve.append(countedVoxels(kept, key) * VOXEL_ML or None)
        known = [index for index, ml in enumerate(curves["LV"]) if ml is not None]
        diastole, systole = max(known, key=curves["LV"].__getitem__), min(known, key=curves["LV"].__getitem__)
        expected = [["", ""] for _row in range(5)]
        for side, key in enumerate(("LV", "RV")):
            edv, esv = curves[key][diastole], curves[key][systole]
            if edv is not None and esv is not None:
                for row, value in enumerate((edv, esv, edv - esv, 100 * (edv - esv) / edv)):
                    expected[row][side] = f"{value:.0f}"
        if curves["Myo"][diastole] is not None:
            expected[4][0] = f"{1.05 * curves['Myo'][diastole]:.0f}"
        told = driving.tableTexts(panel.ui.functionTable)
        assert [row[1:] for row in told] == expected, edits[frame].done
        (function,) = nodesNamed("Beat heart function")
        assert tableCells(function)[:5] == told
        (volumes,) = nodesNamed("Beat heart volumes")
        for column, key in ((1, "LV"), (2, "RV"), (5, "Myo")):
            drawn = [volumes.GetTable().GetValue(index, column).ToDouble() for index in range(FRAMES)]
            assert np.allclose(drawn, [np.nan if ml is None else ml for ml in curves[key]], equal_nan=True)
        (chart,) = nodesNamed("Beat heart volume-time curves")
        assert chart.GetNthPlotSeriesNode(0).GetTableNode() is volumes


def countedVoxels(segmentation, key):
    """Return how many voxels a segment has in its label map; it may be in no scene."""
    from vtk.util import numpy_support

    segment = segmentation.GetSegmentation().GetSegment(key)
    image = segment.GetRepresentation("Binary labelmap") if segment is not None else None
    scalars = image.GetPointData().GetScalars() if image is not None else None
    return int((numpy_support.vtk_to_numpy(scalars) == segment.GetLabelValue()).sum()) if scalars is not None else 0


def test_only_the_segment_that_was_edited_in_a_frame_is_measured_again(beat, monkeypatch):
    panel, volume = beat
    browserOf(volume).SetSelectedItemNumber(2)
    waitForFigures(panel)
    measured = countMeasured(monkeypatch)
    esv = halveFrame(volume, 2)
    waitForFigures(panel)
    assert functionRows(panel)["End-systolic volume (ml)"][0] == f"{esv:.0f}"
    assert 1 <= len(measured) <= 2, "in the frame as it is shown, and maybe as it is kept"


def test_an_edit_can_move_the_end_of_systole_to_another_frame(beat):
    panel, volume = beat
    halveFrame(volume, 3)
    waitForFigures(panel)
    assert "end-systole frame 4" in panel.ui.functionWarningsLabel.text


def test_without_the_left_ventricle_of_two_neighbouring_frames_there_is_no_ejection_fraction(beat):
    panel, volume = beat
    for frame in (2, 3):
        browserOf(volume).SetSelectedItemNumber(frame)
        segmentations()[0].GetSegmentation().RemoveSegment("LV")
    waitForFigures(panel)
    assert functionRows(panel)["Ejection fraction (%)"] == ["", ""]
    assert "ejection fraction is not shown" in panel.ui.functionWarningsLabel.text


def test_a_second_run_over_all_frames_asks_about_edited_frames_and_can_keep_them(beat):
    panel, volume = beat
    left = halveFrame(volume, 1)
    driving.click(panel.ui.segmentSequenceButton)
    assert panel.ui.segmentButton.text == "Segment" and "frame 2" in panel.ui.editsLabel.text
    driving.click(panel.ui.keepEditsButton)
    waitUntilReady(panel)
    assert f"{FRAMES - 1} frames are segmented" in panel.ui.statusLabel.text
    browserOf(volume).SetSelectedItemNumber(1)
    assert voxelsOf(segmentations()[0], "LV", volume).sum() * VOXEL_ML == pytest.approx(left)
    driving.click(panel.ui.segmentSequenceButton)
    driving.click(panel.ui.replaceEditsButton)
    waitUntilReady(panel)
    assert voxelsOf(segmentations()[0], "LV", volume).sum() == 5 * 6 * 7


def leftVentricles(volume):
    """Return the voxels of the left ventricle in each frame, 0 where a frame has none."""
    counts = []
    for frame in range(FRAMES):
        browserOf(volume).SetSelectedItemNumber(frame)
        (shown,) = segmentations()
        hasLV = "LV" in shown.GetSegmentation().GetSegmentIDs()
        counts.append(int(voxelsOf(shown, "LV", volume).sum()) if hasLV else 0)
    return counts


def test_a_run_over_all_frames_can_be_undone_and_done_again(beat):
    panel, volume = beat
    assert not panel.ui.undoButton.visible, "the first run replaced nothing"
    halveFrame(volume, 1)
    waitForFigures(panel)
    before, rows = leftVentricles(volume), functionRows(panel)
    driving.click(panel.ui.segmentSequenceButton)
    driving.click(panel.ui.replaceEditsButton)
    waitUntilReady(panel)
    after = leftVentricles(volume)
    assert after != before and panel.ui.undoButton.visible
    driving.click(panel.ui.undoButton)
    waitForFigures(panel)
    assert leftVentricles(volume) == before and "undone" in panel.ui.statusLabel.text
    assert functionRows(panel) == rows and "Edited after the run: frame 2" in panel.ui.functionWarningsLabel.text
    driving.click(panel.ui.undoButton)
    waitForFigures(panel)
    assert leftVentricles(volume) == after and panel.ui.undoButton.text == "Undo this run"
    assert "Edited" not in panel.ui.functionWarningsLabel.text


def test_undo_takes_frames_away_that_had_no_segmentation_before_the_run(panel, slicerApp, worker, tmp_path):
    volume = addSequence()
    worker(f"beat-until:{tmp_path / 'go'}")
    driving.click(panel.ui.segmentSequenceButton)
    waitForStage(panel, f"Frame 3 of {FRAMES}: Looking")
    driving.click(panel.ui.segmentButton)
    waitUntilReady(panel)
    before = leftVentricles(volume)
    worker("beat")
    segmentAll(panel)
    assert 0 not in leftVentricles(volume)
    driving.click(panel.ui.undoButton)
    waitForFigures(panel)
    assert before[2:] == [0, 0, 0] and leftVentricles(volume) == before
    assert "the run was cancelled before all frames" in panel.ui.functionWarningsLabel.text


def test_undo_of_all_frames_leaves_segments_of_the_user_as_they_are(beat):
    panel, volume = beat
    before = leftVentricles(volume)
    segmentAll(panel)
    browserOf(volume).SetSelectedItemNumber(1)
    (shown,) = segmentations()
    drawn = np.zeros(SHAPE, bool)
    drawn[1:4, 1:4, 1:4] = True
    shown.GetSegmentation().AddEmptySegment("tumour", "Drawn in 3 h")
    paint(volume, "tumour", drawn, shown)
    for _click in range(2):
        driving.click(panel.ui.undoButton)
        waitForFigures(panel)
        assert leftVentricles(volume) == before
        browserOf(volume).SetSelectedItemNumber(1)
        assert np.array_equal(voxelsOf(segmentations()[0], "tumour", volume), drawn)
        browserOf(volume).SetSelectedItemNumber(0)
        assert "tumour" not in segmentations()[0].GetSegmentation().GetSegmentIDs()


def test_nothing_is_undone_in_a_sequence_that_was_removed(beat):
    import slicer

    panel, volume = beat
    segmentAll(panel)
    assert panel.ui.undoButton.visible
    slicer.mrmlScene.RemoveNode(browserOf(volume).GetSequenceNode(segmentations()[0]))
    waitForFigures(panel)
    assert not panel.ui.undoButton.visible


def test_a_script_says_what_becomes_of_edited_frames(beat):
    from MKDSegmentationLib.parameters import RunOptions

    panel, volume = beat
    halveFrame(volume, 1)
    with pytest.raises(ValueError, match="frame 2"):
        panel.logic.startSequence(volume)
    outcomes = []
    panel.logic.startSequence(volume, RunOptions(edits="keep"), onFinished=outcomes.append)
    driving.waitUntil(lambda: outcomes, message="the outcome")
    assert outcomes[0].status == "done"


def test_a_frame_that_is_edited_during_the_run_keeps_the_edit(beat, worker, tmp_path):
    panel, volume = beat
    worker(f"beat-until:{tmp_path / 'go'}")
    panel.logic._worker.stop()
    driving.click(panel.ui.segmentSequenceButton)
    waitForStage(panel, f"Frame 3 of {FRAMES}: Looking")
    left = halveFrame(volume, 2)
    (tmp_path / "go").touch()
    waitUntilReady(panel)
    assert "edited during the run" in panel.ui.statusLabel.text
    browserOf(volume).SetSelectedItemNumber(2)
    assert voxelsOf(segmentations()[0], "LV", volume).sum() * VOXEL_ML == pytest.approx(left)


def test_tables_and_plot_of_a_beat_go_with_its_segmentations(beat):
    import slicer

    panel, volume = beat
    browser = browserOf(volume)
    slicer.mrmlScene.RemoveNode(browser.GetSequenceNode(segmentations()[0]))
    waitForFigures(panel)
    for className in ("vtkMRMLTableNode", "vtkMRMLPlotChartNode", "vtkMRMLPlotSeriesNode"):
        assert slicer.util.getNodesByClass(className) == [], className
    assert not panel.ui.functionTable.visible
