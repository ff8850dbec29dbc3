"""Clinical figures in the panel: of the segments as they are, with a body size from DICOM or typed; in the stand-in
GUI.
"""

import csv
import re
import types

import numpy as np
import pytest

pytest.importorskip("slicer")
pytest.importorskip("PySide6")
from mkd_core.structures import BY_KEY
from Testing.harness.pythonqt import unwrap
from Testing.support.panel_driving import addSolidHeart, draw, driving, segment, segmentations, waitForClinicalFigures
from Testing.support.solid_heart import AORTA_MM, TRUNK_MM, WALL_MM


@pytest.fixture
def heart(panel, worker):
    """Panel after a run whose segments were then drawn as a heart of solids, on an oblique grid."""
    volume, labels = addSolidHeart()
    worker("good")
    segment(panel)
    draw(volume, labels)
    waitForClinicalFigures(panel)
    return types.SimpleNamespace(panel=panel, volume=volume, labels=labels)


def shown(panel) -> dict:
    """Return value and normal range by the name of the figure."""
    return {row[0]: tuple(row[1:]) for row in driving.tableTexts(panel.ui.clinicalTable)}


def lines():
    import slicer

    return slicer.util.getNodesByClass("vtkMRMLMarkupsLineNode")


def millimetres(text) -> float:
    return float(text.split()[0])


def test_figures_are_those_of_the_drawn_heart_and_follow_height_weight_and_sex(heart):
    panel = heart.panel
    figures = shown(panel)
    assert millimetres(figures["Ascending aorta"][0]) == pytest.approx(AORTA_MM, abs=1.5)
    assert millimetres(figures["Main pulmonary artery"][0]) == pytest.approx(TRUNK_MM, abs=1.5)
    assert millimetres(figures["LV wall, mean"][0]) == pytest.approx(WALL_MM, abs=1.0)
    assert figures["LV volume index"] == ("–", "") and figures["Ascending aorta"][1] == ""
    assert "Height and weight are needed." in panel.ui.clinicalNotesLabel.text
    assert "phase unknown: neither ED nor ES" in panel.ui.clinicalNotesLabel.text
    assert "Research use only" in panel.ui.clinicalNotesLabel.text
    assert panel.ui.bullseyeLabel.visible
    assert "<b>All structures:</b> edited after the run" in panel.ui.warningsLabel.text

    panel.ui.heightSpinBox.value, panel.ui.weightSpinBox.value = 180, 80
    panel.ui.sexComboBox.currentIndex = 2
    figures = shown(panel)
    volume = next(row for row in driving.tableTexts(panel.ui.resultsTable) if row[0] == "Left ventricle")[1]
    assert millimetres(figures["LV volume index"][0]) == pytest.approx(float(volume) / 2.0, abs=1.0)
    assert figures["Ascending aorta"][1] == "26–42"
    assert "Rogers" in panel.ui.clinicalNotesLabel.text and "2.00 m²" in panel.ui.clinicalNotesLabel.text


def test_after_an_edit_only_what_depends_on_it_is_measured_again(heart, monkeypatch):
    import slicer

    from MKDSegmentationLib.scene import heartGeometry

    started = []

    def record(name):
        real = getattr(heartGeometry, name)

        def steps(grid, *key):
            started.extend(key or ("wall",))
            return (yield from real(grid, *key))

        monkeypatch.setattr(heartGeometry, name, steps)

    record("vessel_diameter_steps")
    record("wall_thickness_steps")
    before = shown(heart.panel)
    trunk = heart.labels == BY_KEY["PA"].label
    planes = np.flatnonzero(trunk.any(axis=(1, 2)))
    trunk[planes[len(planes) // 2 :][:3]] = False
    slicer.util.updateSegmentBinaryLabelmapFromArray(trunk.astype(np.uint8), segmentations()[0], "PA", heart.volume)
    waitForClinicalFigures(heart.panel)
    assert started == ["PA"]
    after = shown(heart.panel)
    assert after["Ascending aorta"] == before["Ascending aorta"] and after["LV wall, mean"] == before["LV wall, mean"]
    assert after["Main pulmonary artery"] != before["Main pulmonary artery"]


def test_captions_of_the_bulls_eye_have_the_ink_of_the_theme(heart):
    from PySide6 import QtGui

    panel = heart.panel
    label = unwrap(panel.ui.bullseyeLabel)
    seen = []
    for ink in ("#000000", "#eeeeee"):
        palette = QtGui.QPalette(label.palette())
        palette.setColor(QtGui.QPalette.ColorRole.WindowText, QtGui.QColor(ink))
        unwrap(panel.parent).setPalette(palette)
        panel._updatePanel()
        picture = label.pixmap().toImage()
        above = [picture.pixelColor(x, y) for x in range(90, 160) for y in range(8, 24)]  # where "Anterior" stands
        seen.append([colour.lightness() for colour in above if colour.alpha() > 230])
    assert seen[0] and max(seen[0]) < 60 and seen[1] and min(seen[1]) > 180


def test_what_was_typed_stays_with_its_volume(heart):
    import slicer

    panel = heart.panel
    panel.ui.heightSpinBox.value, panel.ui.weightSpinBox.value = 180, 80
    other = slicer.util.addVolumeFromArray(slicer.util.arrayFromVolume(heart.volume), name="Other CT")
    panel._parameterNode.inputVolume = other
    segment(panel)
    assert (panel.ui.heightSpinBox.value, panel.ui.weightSpinBox.value) == (0, 0)
    panel._parameterNode.inputVolume = heart.volume
    assert (panel.ui.heightSpinBox.value, panel.ui.weightSpinBox.value) == (180, 80)


def test_body_size_and_phase_come_from_dicom_unless_the_user_says_otherwise(heart, monkeypatch):
    import slicer

    tags = {"0010,0040": "F", "0010,1020": "1.65", "0010,1030": "60", "0008,103e": "CTA BestDiast 75 %"}
    database = types.SimpleNamespace(isOpen=True, instanceValue=lambda uid, tag: tags.get(tag, ""))
    monkeypatch.setattr(slicer, "dicomDatabase", database, raising=False)
    panel = heart.panel
    heart.volume.SetAttribute("DICOM.instanceUIDs", "1.2.3.4.5 1.2.3.4.6")
    panel._updatePanel()
    assert (panel.ui.heightSpinBox.value, panel.ui.weightSpinBox.value) == (165, 60)
    assert panel.ui.sexComboBox.currentText == "female"
    assert shown(panel)["LV volume index"][1] == "≤ 83"
    assert "75 % of the R-R interval" in panel.ui.clinicalNotesLabel.text
    panel.ui.heightSpinBox.value = 0
    assert shown(panel)["LV volume index"] == ("–", "")


def test_an_edit_changes_the_figures_and_a_structure_that_goes_takes_its_figures_along(heart):
    panel = heart.panel
    before = millimetres(shown(panel)["Ascending aorta"][0])
    wider = heart.labels.copy()
    aorta = heart.labels == BY_KEY["AA"].label
    for axis in range(3):
        for step in (-1, 1):
            wider[np.roll(aorta, step, axis) & (heart.labels == 0)] = BY_KEY["AA"].label
    draw(heart.volume, wider, ("AA",))
    waitForClinicalFigures(panel)
    assert millimetres(shown(panel)["Ascending aorta"][0]) > before + 2.0
    segmentations()[0].GetSegmentation().RemoveSegment("PA")
    waitForClinicalFigures(panel)
    assert shown(panel)["Main pulmonary artery"][0] == "–" and shown(panel)["PA/aorta ratio"][0] == "–"
    assert "Pulmonary artery is missing" in panel.ui.clinicalNotesLabel.text


def test_diameters_are_shown_as_lines_that_lie_in_the_vessels_move_with_edits_and_go_with_the_segmentation(heart):
    import slicer

    from MKDSegmentationLib.run.volumeTransfer import ijkToRas

    panel = heart.panel
    driving.click(panel.ui.linesCheckBox)
    aorta, trunk = sorted(lines(), key=lambda line: line.GetName())
    assert aorta.GetName() == "Ascending aorta diameter" and aorta.GetLocked()
    assert aorta.GetLineLengthWorld() == pytest.approx(AORTA_MM, abs=1.5)
    assert trunk.GetLineLengthWorld() == pytest.approx(TRUNK_MM, abs=1.5)
    rasToIjk = np.linalg.inv(ijkToRas(heart.volume))
    middle = 0.5 * (np.array(aorta.GetLineStartPositionWorld()) + aorta.GetLineEndPositionWorld())
    i, j, k = np.round(rasToIjk @ [*middle, 1.0])[:3].astype(int)
    assert heart.labels[k, j, i] == BY_KEY["AA"].label
    segmentations()[0].GetSegmentation().RemoveSegment("PA")
    waitForClinicalFigures(panel)
    assert [line.GetName() for line in lines()] == ["Ascending aorta diameter"]
    driving.click(panel.ui.linesCheckBox)
    assert not lines()
    driving.click(panel.ui.linesCheckBox)
    assert len(lines()) == 1
    slicer.mrmlScene.RemoveNode(segmentations()[0])
    driving.waitUntil(lambda: not lines(), message="the lines to go")


def test_a_transform_of_the_heart_moves_the_lines_and_scales_the_diameters(heart):
    import slicer

    panel = heart.panel
    before = millimetres(shown(panel)["Ascending aorta"][0])
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(np.diag([1.2, 1.2, 1.2, 1.0])))
    for node in (heart.volume, segmentations()[0]):
        node.SetAndObserveTransformNodeID(transform.GetID())
    waitForClinicalFigures(panel)
    assert millimetres(shown(panel)["Ascending aorta"][0]) == pytest.approx(1.2 * before, abs=1.0)


def choosing(monkeypatch, path):
    """Let the file dialog answer with a path."""
    import qt

    monkeypatch.setattr(qt.QFileDialog, "getSaveFileName", lambda *arguments: str(path))


def test_the_report_is_one_page_whose_figures_are_those_of_the_panel(heart, monkeypatch, tmp_path):
    panel = heart.panel
    panel.ui.heightSpinBox.value, panel.ui.weightSpinBox.value = 180, 80
    panel.ui.sexComboBox.currentIndex = 2
    driving.typeText(panel.ui.personLineEdit, "Patient <17>")
    choosing(monkeypatch, tmp_path / "heart.html")
    driving.click(panel.ui.reportButton)
    driving.waitUntil(lambda: panel.ui.savedLabel.text == "Saved “heart.html”.", message="the report")
    source = (tmp_path / "heart.html").read_text(encoding="utf-8")
    text = " ".join(re.sub(r"<style>.*?</style>|<title>.*?</title>|<[^>]+>", " ", source).split())
    assert "Patient &lt;17&gt;" in text and "Heart CT" in text and "Research use only" in text
    for name, (value, _normal) in shown(panel).items():
        assert value == "–" or f"{name} {value}" in text, name
    for row in driving.tableTexts(panel.ui.resultsTable):
        assert row[1] == "edited" or f"{row[0]} edited {row[1]} " in text, row  # one has no voxel left
    assert source.count("data:image/png;base64,") == 3 and 'class="bullseye"' in source


def numbers(text):
    """Return every number of a text, in order."""
    return re.findall(r"\d+(?:[.,]\d+)?", text)


def test_the_report_as_pdf_is_one_page_nothing_is_cut_and_every_number_is_that_of_the_panel(
    heart, monkeypatch, tmp_path
):
    pdfium = pytest.importorskip("pypdfium2")
    panel, path = heart.panel, tmp_path / "heart.pdf"
    panel.ui.heightSpinBox.value, panel.ui.weightSpinBox.value = 180, 80
    panel.ui.sexComboBox.currentIndex = 2
    driving.typeText(panel.ui.personLineEdit, "Patient <17>")
    choosing(monkeypatch, path)
    driving.click(panel.ui.reportButton)
    driving.waitUntil(lambda: panel.ui.savedLabel.text == "Saved “heart.pdf”.", message="the report")
    document = pdfium.PdfDocument(path)
    assert len(document) == 1
    page = document[0]
    width, height = page.get_size()
    assert (round(width), round(height)) == (595, 842), "A4"
    text = page.get_textpage()
    boxes = [text.get_rect(number) for number in range(text.count_rects())]
    assert len(boxes) > 50
    assert min(box[0] for box in boxes) > 20 and max(box[2] for box in boxes) < width - 20
    assert min(box[1] for box in boxes) > 20 and max(box[3] for box in boxes) < height - 20
    said = " ".join(text.get_text_range().split())
    assert "Patient <17>" in said and "Heart CT" in said and said.count("Research use only") == 2
    for name, (value, _normal) in shown(panel).items():
        assert value == "–" or f"{name} {value}" in said, name
    rows = driving.tableTexts(panel.ui.resultsTable)
    table = said[said.index("Structures") : said.index("no sign of a failed")]
    masses = [re.search(r"(\d+) g\b", panel.ui.resultsTable.item(row, 0).toolTip()) for row in range(len(rows))]
    expected = [(row[1], mass[1] if mass else "", row[2], row[3]) for row, mass in zip(rows, masses)]
    assert numbers(table) == [number for row in expected for number in numbers(" ".join(row))]
    picture = page.render(scale=1.5).to_numpy()
    edges = (picture[:12], picture[-12:], picture[:, :12], picture[:, -12:])
    assert picture.min() < 64 and all((edge == 255).all() for edge in edges)


def test_a_pdf_that_cannot_be_written_is_told_and_nothing_is_left(heart, monkeypatch, tmp_path):
    import slicer

    told = []
    monkeypatch.setattr(slicer.util, "warningDisplay", told.append)
    choosing(monkeypatch, tmp_path / "nowhere" / "heart.pdf")
    driving.click(heart.panel.ui.reportButton)
    driving.waitUntil(lambda: told, message="the warning")
    assert "could not be written" in told[0] and heart.panel.ui.savedLabel.text == ""
    assert not list(tmp_path.rglob("*.pdf"))


def test_a_report_of_segments_that_are_edited_meanwhile_is_not_written(heart, monkeypatch, tmp_path):
    import slicer

    told = []
    monkeypatch.setattr(slicer.util, "warningDisplay", told.append)
    choosing(monkeypatch, tmp_path / "heart.html")
    heart.panel.ui.reportButton.click()
    segmentations()[0].GetSegmentation().RemoveSegment("PA")
    driving.waitUntil(lambda: told, message="the warning")
    assert "edited meanwhile" in told[0] and not list(tmp_path.glob("*.html"))


def test_hearts_are_added_to_the_table_of_a_study_and_another_file_is_left_alone(heart, monkeypatch, tmp_path):
    import slicer

    panel, path = heart.panel, tmp_path / "study.csv"
    driving.typeText(panel.ui.personLineEdit, "P 17")
    choosing(monkeypatch, path)
    driving.click(panel.ui.studyButton)
    driving.click(panel.ui.studyButton)
    assert panel.ui.savedLabel.text == "Added to “study.csv”, which has 2 rows now."
    with path.open(encoding="utf-8-sig", newline="") as file:
        first, second = csv.DictReader(file)
    assert first == second and first["person"] == "P 17" and first["volume"] == "Heart CT"
    assert f"{float(first['AA_diameter_mm']):.0f} mm" == shown(panel)["Ascending aorta"][0]
    assert set(first["edited"].split()) == {"LV", "RV", "LA", "RA", "Myo", "AA", "PA"} and "Research" in first["use"]
    path.write_text("something else", encoding="utf-8")
    told = []
    monkeypatch.setattr(slicer.util, "warningDisplay", told.append)
    driving.click(panel.ui.studyButton)
    assert "no table of this program" in told[0]
    assert path.read_text(encoding="utf-8") == "something else"
    panel._parameterNode.inputVolume = None
    assert panel.ui.personLineEdit.text == ""


def test_voxels_that_go_between_two_steps_do_no_harm(heart):
    from MKDSegmentationLib.scene.heartGeometry import labelSteps
    from MKDSegmentationLib.scene.ourSegments import ourSegments

    from mkd_core.measure.steps import all_at_once

    (segmentation,) = segmentations()
    segmentation.GetSegmentation().SeparateSegmentLabelmap(ourSegments(segmentation)["LV"])
    (expected, _matrix, _structures) = all_at_once(labelSteps(segmentation))
    steps = labelSteps(segmentation)
    next(steps)
    for segmentId in ourSegments(segmentation).values():
        segmentation.GetBinaryLabelmapInternalRepresentation(segmentId).Initialize()
    labels, _matrix, _structures = all_at_once(steps)
    assert np.array_equal(labels, expected) and labels.any()


def test_lines_show_the_diameters_of_the_aorta_beyond_its_ascending_part_too(panel):
    import slicer

    from MKDSegmentationLib.scene.heartGeometry import linesOf, showLines

    from mkd_core.measure.clinical_figures import HeartGeometry
    from mkd_core.measure.messages import finding
    from mkd_core.measure.vessel_diameter import VesselDiameter

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    missing = finding("figure_needs_structure", structure="AA")
    arch = VesselDiameter(28.0, 27.0, 29.0, ((0.0, 0.0, 0.0), (28.0, 0.0, 0.0)), (0.0, 0.0, 1.0))
    showLines(node, HeartGeometry(missing, missing, missing, {"arch": arch, "descending": missing}))
    (line,) = linesOf(node)
    assert line.GetName() == "Aortic arch diameter" and line.GetMeasurement("length").GetValue() == pytest.approx(28.0)
    showLines(node, HeartGeometry(missing, missing, missing))
    assert linesOf(node) == [] == lines()
