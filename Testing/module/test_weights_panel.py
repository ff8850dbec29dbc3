"""Weights in the panel: card, remembered choice, download, removal; the module in the stand-in GUI.

Servers are on this computer only.
"""

import hashlib
import json
import subprocess
import sys
import types
from pathlib import Path

import pytest

pytest.importorskip("slicer")
pytest.importorskip("PySide6")
from Testing.support.loopback_server import certificate, serving
from Testing.support.panel_driving import MODULE, ROOT, addVolume, driving, segment, segmentations


@pytest.fixture
def folder(slicerApp, tmp_path):
    """Folder for downloads, chosen on an earlier day."""
    slicerApp.userSettings().setValue("MKDSegmentation/WeightsFolder", str(tmp_path / "my weights"))
    return tmp_path / "my weights"


@pytest.fixture
def open_download(folder, panel):
    """The panel with its download controls open."""
    driving.click(panel.ui.weightsCollapsibleButton)
    driving.click(panel.ui.downloadCollapsibleButton)
    return panel


@pytest.fixture
def trusted(tmp_path, monkeypatch):
    """Certificate of a server that the worker trusts."""
    key = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(key))
    return key


def enter(panel, url, sha256):
    """Type address and check sum."""
    driving.typeText(panel.ui.urlLineEdit, url)
    driving.typeText(panel.ui.sha256LineEdit, sha256)


def download(panel):
    """Click Download and wait for the end."""
    driving.click(panel.ui.downloadButton)
    driving.waitUntil(lambda: panel.ui.downloadButton.text == "Download", message="the end of the download")


def files(folder):
    """Names in a folder."""
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_the_default_weights_have_a_card_that_tells_what_to_expect_of_them(loadModule, slicerApp):
    _module, panel = loadModule(MODULE)
    driving.click(panel.ui.weightsCollapsibleButton)
    for words in (
        "Made for:",
        "CT",
        "Trained on:",
        "No image of a person",
        "Measured quality:",
        "Dice 0.",
        "Licence:",
        "Apache-2.0",
        "not for clinical decisions",
        "default.safetensors",
    ):
        assert words in panel.ui.modelLabel.text, words
    assert not panel.ui.removeWeightsButton.enabled, "what comes with the extension stays"


def test_only_overlaps_of_segmentations_are_told_as_quality(slicerApp, loadModule):
    loadModule(MODULE)
    from MKDSegmentationLib.panel.modelCard import _quality

    assert (
        _quality(
            {
                "validation Dice": {"LV": 0.96, "Myo": 0.87, "mean": 0.92},
                "validation Dice by alignment": {"cycle": 0.92, "none": 0.91, "mean": 0.9},
                "real MR": {"mean": 0.83, "cases": 16},
                "refused": {"a.nii.gz": True},
            }
        )
        == "validation Dice: Dice 0.92, lowest left ventricular myocardium 0.87; real MR: Dice 0.83 (16 cases)"
    )


def test_a_file_of_the_user_is_described_and_cannot_be_removed_here(panel, tiny_bundle_path):
    driving.click(panel.ui.weightsCollapsibleButton)
    assert "tiny.safetensors" in panel.ui.modelLabel.text and "not told" in panel.ui.modelLabel.text
    assert not panel.ui.removeWeightsButton.enabled


def test_downloaded_weights_are_checked_selected_remembered_and_used(
    open_download, folder, trusted, tiny_bundle_path, slicerApp
):
    panel = open_download
    content = tiny_bundle_path.read_bytes()
    with serving({"/heart.safetensors": content}, trusted) as address:
        enter(panel, address + "/heart.safetensors", hashlib.sha256(content).hexdigest())
        download(panel)
    assert "downloaded and are selected" in panel.ui.downloadLabel.text
    assert (folder / "heart.safetensors").read_bytes() == content and files(folder) == ["heart.safetensors"]
    assert panel.ui.weightsPathLineEdit.currentPath == str(folder / "heart.safetensors")
    assert slicerApp.userSettings().value("MKDSegmentation/WeightsPath") == str(folder / "heart.safetensors")
    assert "heart.safetensors" in panel.ui.modelLabel.text
    addVolume()
    driving.processEvents()
    assert panel.ui.segmentButton.enabled


def test_a_file_with_another_sha256_is_refused_and_nothing_is_left(open_download, folder, trusted, tiny_bundle_path):
    panel = open_download
    with serving({"/heart.safetensors": tiny_bundle_path.read_bytes()}, trusted) as address:
        enter(panel, address + "/heart.safetensors", "0" * 64)
        download(panel)
    assert "another SHA-256" in panel.ui.downloadLabel.text
    assert files(folder) == [] and panel.ui.weightsPathLineEdit.currentPath == str(tiny_bundle_path)


def test_a_download_shows_how_far_it_is_leaves_the_panel_usable_and_can_be_cancelled(
    open_download, folder, trusted, workerProcesses
):
    panel = open_download
    content = bytes(4 * 2**20)
    with serving({"/heart.safetensors": content}, trusted, sends_half=True) as address:
        enter(panel, address + "/heart.safetensors", hashlib.sha256(content).hexdigest())
        driving.click(panel.ui.downloadButton)
        driving.waitUntil(lambda: panel.ui.downloadProgressBar.value > 0, message="progress")
        assert "MB" in panel.ui.downloadLabel.text and panel.ui.downloadButton.text == "Cancel download"
        addVolume()
        driving.processEvents()
        assert panel.ui.segmentButton.enabled, "a run is possible meanwhile"
        driving.click(panel.ui.downloadButton)
        assert panel.ui.downloadLabel.text == "The download was cancelled."
        driving.waitUntil(lambda: files(folder) == [], message="the removal of the part")


def test_unloading_the_module_during_a_download_leaves_nothing(open_download, folder, trusted):
    from Testing.harness import bootstrap

    panel, content = open_download, bytes(4 * 2**20)
    with serving({"/heart.safetensors": content}, trusted, sends_half=True) as address:
        enter(panel, address + "/heart.safetensors", hashlib.sha256(content).hexdigest())
        driving.click(panel.ui.downloadButton)
        driving.waitUntil(lambda: panel.ui.downloadProgressBar.value > 0, message="progress")
        bootstrap.unloadModule("MKDSegmentation")
        assert files(folder) == []


@pytest.mark.parametrize(
    ("url", "sha256", "words"),
    [
        ("http://weights.example/a.safetensors", "0" * 64, "does not begin with https://"),
        ("https://weights.example/a.safetensors", "", "not 64 hexadecimal digits"),
    ],
)
def test_what_cannot_be_downloaded_cannot_be_clicked_and_the_reason_stands_below(open_download, url, sha256, words):
    enter(open_download, url, sha256)
    assert not open_download.ui.downloadButton.enabled
    assert words in open_download.ui.downloadLabel.text


def test_removing_downloaded_weights_asks_once_more_and_returns_to_the_default(open_download, folder, tiny_bundle_path):
    panel = open_download
    folder.mkdir()
    kept = folder / "heart.safetensors"
    kept.write_bytes(tiny_bundle_path.read_bytes())
    driving.typeText(panel.ui.weightsPathLineEdit, str(kept))
    driving.click(panel.ui.removeWeightsButton)
    assert panel.ui.removeWeightsButton.text == "Remove for good?" and kept.exists()
    driving.click(panel.ui.removeWeightsButton)
    assert not kept.exists() and panel.ui.weightsPathLineEdit.currentPath == ""
    assert "default.safetensors" in panel.ui.modelLabel.text


def test_the_folder_is_the_users_choice_and_remembered(open_download, tmp_path, loadModule):
    driving.typeText(open_download.ui.folderLineEdit, str(tmp_path / "elsewhere"))
    _module, again = loadModule(MODULE)
    assert again.ui.folderLineEdit.currentPath == str(tmp_path / "elsewhere")
    assert not Path(tmp_path / "elsewhere").exists(), "nothing is made before it is needed"


def test_what_a_crash_left_of_a_download_is_removed_by_the_next_one_and_nothing_else(
    open_download, folder, trusted, tiny_bundle_path, slicerApp
):
    """In the folder of the user lies what the user unpacked there, under a name like ours."""
    panel, content = open_download, tiny_bundle_path.read_bytes()
    folder.mkdir(parents=True)
    program = (
        "import os, sys; sys.path.append(sys.argv[1])\n"
        "from MKDSegmentationLib.run.privateFolder import PrivateFolder, openPrivate\n"
        "for _ in range(2):\n"
        "    folder = PrivateFolder(sys.argv[2]).path; openPrivate(folder + '/weights.part').close(); print(folder)\n"
        "sys.stdout.flush(); os._exit(1)"
    )
    crashed = subprocess.run(
        [sys.executable, "-c", program, str(ROOT / "MKDSegmentation"), str(folder)], capture_output=True, text=True
    )
    recorded, other = crashed.stdout.splitlines()
    slicerApp.userSettings().setValue("MKDSegmentation/DownloadUnderWay", recorded)
    (folder / "MKDSegmentation-main").mkdir()
    (folder / "MKDSegmentation-main" / "thesis.txt").touch()
    with serving({"/heart.safetensors": content}, trusted) as address:
        enter(panel, address + "/heart.safetensors", hashlib.sha256(content).hexdigest())
        download(panel)
    assert files(folder) == sorted(["heart.safetensors", "MKDSegmentation-main", Path(other).name])
    assert files(folder / "MKDSegmentation-main") == ["thesis.txt"]


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_fetched(open_download, folder):
    folder.touch()  # a file has its name
    enter(open_download, "https://weights.example/heart.safetensors", "0" * 64)
    driving.click(open_download.ui.downloadButton)
    assert (
        "cannot be written" in open_download.ui.downloadLabel.text
        and "Choose another folder." in open_download.ui.downloadLabel.text
    )
    assert open_download.ui.downloadButton.text == "Download"


# ---- which weights are used: always what the field shows ----


@pytest.fixture
def bundles(tmp_path):
    """Function bundles(name): a weights bundle of this name, each with a name and numbers of its own."""
    from mkd_core.io.bundle import save_bundle
    from Testing.support.tiny_bundles import random_state_dicts, tiny_description

    def make(name, seed=0):
        description = tiny_description() | {"name": Path(name).stem}
        save_bundle(tmp_path / name, description, random_state_dicts(description, seed=seed))
        return tmp_path / name

    return make


@pytest.fixture
def open_weights(panel):
    """The panel with its section Weights open."""
    driving.click(panel.ui.weightsCollapsibleButton)
    return panel


def used():
    """Return the path of the weights that the last run was asked to use; None for the default."""
    import json

    return json.loads(segmentations()[-1].GetAttribute("MKDSegmentation.Report"))["request"].get("bundle")


def lineEditOf(pathLineEdit):
    """Return the line edit inside a path field."""
    return pathLineEdit.comboBox().lineEdit()


def test_a_file_chosen_in_the_dialog_is_described_used_and_remembered(open_weights, worker, bundles, slicerApp):
    worker("good")
    path = bundles("mine.safetensors")
    driving.answerFileDialog(path)
    driving.click(open_weights.ui.weightsPathLineEdit.findChild("QToolButton"))
    assert "mine.safetensors" in open_weights.ui.modelLabel.text
    assert slicerApp.userSettings().value("MKDSegmentation/WeightsPath") == str(path)
    addVolume()
    segment(open_weights)
    assert used() == str(path)


def test_an_emptied_field_means_the_weights_that_come_with_the_extension(open_weights, worker, slicerApp):
    worker("good")
    driving.typeText(open_weights.ui.weightsPathLineEdit, "")
    assert "default.safetensors" in open_weights.ui.modelLabel.text
    assert not slicerApp.userSettings().value("MKDSegmentation/WeightsPath")
    assert not open_weights.ui.useDefaultWeightsButton.enabled
    addVolume()
    segment(open_weights)
    assert used() is None


def test_a_click_on_use_default_empties_the_field_and_leaves_the_file(open_weights, worker, tiny_bundle_path):
    worker("good")
    driving.click(open_weights.ui.useDefaultWeightsButton)
    assert open_weights.ui.weightsPathLineEdit.currentPath == "" and tiny_bundle_path.exists()
    assert "default.safetensors" in open_weights.ui.modelLabel.text
    addVolume()
    segment(open_weights)
    assert used() is None


@pytest.mark.parametrize("text", ["/x/weights.pt", "/nowhere/a.safetensors", "rubbish", "/"])
def test_a_text_that_is_no_bundle_is_told_and_never_replaced_by_the_file_before(open_weights, text):
    addVolume()
    driving.processEvents()
    assert open_weights.ui.segmentButton.enabled
    driving.typeText(open_weights.ui.weightsPathLineEdit, text)
    assert not open_weights.ui.segmentButton.enabled
    assert open_weights.ui.statusLabel.text and "tiny" not in open_weights.ui.modelLabel.text
    assert "\N{WARNING SIGN}" in open_weights.ui.modelLabel.text
    driving.click(open_weights.ui.useDefaultWeightsButton)
    assert open_weights.ui.segmentButton.enabled


def test_removing_a_downloaded_file_empties_the_field_and_the_default_is_used(open_weights, worker, folder, bundles):
    worker("good")
    folder.mkdir()
    path = bundles("heart.safetensors").rename(folder / "heart.safetensors")
    driving.typeText(open_weights.ui.weightsPathLineEdit, str(path))
    driving.click(open_weights.ui.removeWeightsButton)
    driving.click(open_weights.ui.removeWeightsButton)
    assert not path.exists()
    addVolume()
    segment(open_weights)
    assert used() is None


@pytest.mark.parametrize("form", ["{path}", "  {path} ", '"{path}"', "file://{path}"])
def test_a_path_that_was_pasted_or_dropped_is_understood(open_weights, bundles, form):
    path = bundles("dropped one.safetensors")
    lineEditOf(open_weights.ui.weightsPathLineEdit).text = form.format(path=path)
    assert "dropped one.safetensors" in open_weights.ui.modelLabel.text
    assert open_weights._weights.path == str(path)


def test_a_path_that_is_dragged_onto_the_field_counts_without_a_key_being_pressed(open_weights, bundles):
    from PySide6 import QtCore, QtGui, QtWidgets

    from Testing.harness.pythonqt import unwrap

    path = bundles("dragged.safetensors")
    field = unwrap(lineEditOf(open_weights.ui.weightsPathLineEdit))
    field.clear()
    data, place = QtCore.QMimeData(), QtCore.QPointF(field.rect().center())
    data.setText(str(path))
    left, none = QtCore.Qt.MouseButton.LeftButton, QtCore.Qt.KeyboardModifier.NoModifier
    for event in (
        QtGui.QDragEnterEvent(place.toPoint(), QtCore.Qt.DropAction.CopyAction, data, left, none),
        QtGui.QDropEvent(place, QtCore.Qt.DropAction.CopyAction, data, left, none),
    ):
        QtWidgets.QApplication.sendEvent(field, event)
    assert "dragged.safetensors" in open_weights.ui.modelLabel.text


def test_after_a_restart_the_field_shows_what_is_used_and_a_dead_path_can_be_cleared(
    loadModule, slicerApp, tmp_path, worker, bundles
):
    worker("good")
    path = bundles("gone.safetensors")
    slicerApp.userSettings().setValue("MKDSegmentation/WeightsPath", str(path))
    path.unlink()
    _module, panel = loadModule(MODULE)
    addVolume()
    driving.click(panel.ui.weightsCollapsibleButton)
    assert panel.ui.weightsPathLineEdit.currentPath == str(path)
    assert not panel.ui.segmentButton.enabled and "gone.safetensors" in panel.ui.statusLabel.text
    driving.typeText(panel.ui.weightsPathLineEdit, "")
    assert panel.ui.segmentButton.enabled
    _module, again = loadModule(MODULE)
    assert again.ui.weightsPathLineEdit.currentPath == "" and again.ui.segmentButton.enabled
    segment(again)
    assert used() is None


def test_a_file_that_was_deleted_meanwhile_is_told_at_the_click_and_comes_back_with_the_file(
    open_weights, worker, tiny_bundle_path
):
    worker("good")
    addVolume()
    content = tiny_bundle_path.read_bytes()
    tiny_bundle_path.unlink()
    driving.click(open_weights.ui.segmentButton)
    assert open_weights.ui.segmentButton.text == "Segment" and "tiny.safetensors" in open_weights.ui.statusLabel.text
    assert segmentations() == []
    tiny_bundle_path.write_bytes(content)
    driving.typeText(open_weights.ui.weightsPathLineEdit, str(tiny_bundle_path))
    segment(open_weights)
    assert used() == str(tiny_bundle_path)


def test_a_broken_file_is_told_in_words_and_stops_nothing_else(open_weights, tmp_path, worker):
    worker("good")
    addVolume()
    (tmp_path / "broken.safetensors").write_bytes(b"not a bundle <b>")
    driving.typeText(open_weights.ui.weightsPathLineEdit, str(tmp_path / "broken.safetensors"))
    assert "broken.safetensors" in open_weights.ui.statusLabel.text and not open_weights.ui.segmentButton.enabled
    driving.click(open_weights.ui.useDefaultWeightsButton)
    segment(open_weights)
    assert used() is None


def test_reasons_of_the_core_are_shown_in_the_language_of_the_application(open_download, tmp_path, monkeypatch):
    from MKDSegmentationLib.scene import findingTexts

    def german(context, text):
        return (
            {
                "The file is too short to be a .safetensors file.": "Die Datei ist zu kurz.",
                "The SHA-256 is not 64 hexadecimal digits.": "Die SHA-256 hat nicht 64 Stellen.",
            }.get(text, text)
            if context == "measure.messages"
            else text
        )

    monkeypatch.setattr(findingTexts, "translate", german)
    (tmp_path / "a.safetensors").write_bytes(b"abc")
    driving.typeText(open_download.ui.weightsPathLineEdit, str(tmp_path / "a.safetensors"))
    assert "“a.safetensors”: Die Datei ist zu kurz." in open_download.ui.modelLabel.text
    enter(open_download, "https://weights.example/a.safetensors", "12")
    assert "Die SHA-256 hat nicht 64 Stellen." in open_download.ui.downloadLabel.text
    entry = {"name": "a", "version": "1", "sha256": "12", "url": "https://weights.example/a", "size_bytes": 9}
    reply = types.SimpleNamespace(outcome="result", report={"releases": [entry]}, message="")
    open_download._newerWeights._onReply(reply)
    assert "Die SHA-256 hat nicht 64 Stellen." in open_download.ui.checkWeightsLabel.text


def test_other_weights_are_used_at_the_next_click(open_weights, worker, bundles):
    worker("good")
    addVolume()
    for name in ("first.safetensors", "second.safetensors"):
        path = bundles(name)
        driving.typeText(open_weights.ui.weightsPathLineEdit, str(path))
        segment(open_weights)
        assert used() == str(path)


def test_an_emptied_folder_field_means_the_folder_beside_the_settings(open_download, folder, slicerApp):
    driving.typeText(open_download.ui.folderLineEdit, "")
    placeholder = lineEditOf(open_download.ui.folderLineEdit).placeholderText
    settings = open_download._download._settings
    assert (
        settings.weightsFolder
        == placeholder
        == str(Path(slicerApp.slicerUserSettingsFilePath).parent / "MKDSegmentation")
    )


def test_the_list_of_structures_follows_the_weights(panel, tmp_path):
    from mkd_core.io.bundle import save_bundle
    from Testing.support.tiny_bundles import TINY_SEGMENTOR, random_state_dicts, tiny_description

    description = tiny_description()
    keys = [*description["structures"], "LAA"]
    description |= {"format": 2, "structures": keys}
    description["localiser"]["structures"] = keys[:7]
    for part in ("segmentor_real", "segmentor_syn"):
        description["networks"][part] = TINY_SEGMENTOR | {"out_channels": 9}
    eight = tmp_path / "eight.safetensors"
    save_bundle(eight, description, random_state_dicts(description))

    def shown():
        return [panel.ui.structuresList.item(row).text() for row in range(panel.ui.structuresList.count)]

    seven = shown()
    assert len(seven) == 7 and panel._choices.structures is None
    panel._weights.choose(str(eight))
    assert shown() == [*seven, "Left atrial appendage"] and panel._choices.structures is None
    driving.click(panel.ui.advancedCollapsibleButton)
    for name in ("Left atrial appendage", "Left ventricle"):
        driving.tick(panel.ui.structuresList, name, on=False)
    assert panel._choices.structures == tuple(keys[1:7])
    panel._weights.choose("")
    assert len(shown()) == 7 and panel._choices.structures == tuple(keys[1:7]), "what was ticked off stays so"
    panel._weights.choose(str(eight))
    assert panel._choices.structures == tuple(keys[1:7])


def test_a_short_card_takes_no_more_room_than_its_text(open_weights):
    driving.click(open_weights.ui.useDefaultWeightsButton)
    long = open_weights.ui.modelLabel.height
    driving.typeText(open_weights.ui.weightsPathLineEdit, "/x/weights.pt")
    driving.waitUntil(lambda: open_weights.ui.modelLabel.height < long / 2, message="a lower card")


def offer(monkeypatch, address, **entry):
    """Let the panel ask this server, which offers one bundle."""
    monkeypatch.setattr("mkd_core.io.releases.ADDRESS", address + "/weights.json")
    entry = {
        "name": "Rendered hearts",
        "sha256": 64 * "a",
        "url": address + "/new.safetensors",
        "size_bytes": 15_000_000,
    } | entry
    return {"/weights.json": json.dumps({"format": 1, "weights": [entry]}).encode()}


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"version": "9.1"}, "Version 9.1 (15 MB) is newer than 0."),
        ({"version": "0.1"}, "There is no newer version"),
        ({"version": "9.1", "name": "Lungs"}, "There is no newer version"),
        ({"version": "9.1", "url": "http://somewhere"}, "https"),
    ],
)
def test_newer_weights_are_looked_for_by_a_click_and_offered_to_the_download(
    loadModule, folder, trusted, monkeypatch, entry, told
):
    _module, panel = loadModule(MODULE)
    ui = panel.ui
    driving.click(ui.weightsCollapsibleButton)
    contents = {}
    with serving(contents, trusted) as address:
        contents |= offer(monkeypatch, address, **entry)
        driving.click(ui.checkWeightsButton)
        assert not ui.checkWeightsButton.enabled
        driving.waitUntil(lambda: ui.checkWeightsButton.enabled, message="the answer")
    assert told in ui.checkWeightsLabel.text
    isNewer = "is newer" in told
    assert ui.downloadCollapsibleButton.collapsed == (not isNewer)
    assert ui.urlLineEdit.text == (address + "/new.safetensors" if isNewer else "")
    assert ui.downloadButton.enabled == isNewer, "whether to download it is asked, not done"
    assert files(folder) == []


@pytest.mark.parametrize("report", [{}, {"releases": None}, {"releases": [{"name": "Hearts", "colour": "red"}]}])
def test_an_answer_about_newer_weights_that_makes_no_sense_is_told_in_words(open_download, report):
    open_download._newerWeights._onReply(types.SimpleNamespace(outcome="result", report=report, message=""))
    assert "The list of weights that came cannot be read." in open_download.ui.checkWeightsLabel.text


def test_nobody_is_asked_about_newer_weights_without_a_click(open_download, monkeypatch):
    from MKDSegmentationLib.run import workerProcess

    asked = []
    monkeypatch.setattr(workerProcess.WorkerProcess, "request", lambda self, message, *_more: asked.append(message))
    addVolume()
    driving.processEvents(0.2)
    assert not [message for message in asked if message.op in ("releases", "download")]


def test_without_a_connection_the_question_about_newer_weights_is_answered_in_words(open_download, monkeypatch):
    monkeypatch.setattr("mkd_core.io.releases.ADDRESS", "https://127.0.0.1:9/weights.json")
    ui = open_download.ui
    driving.click(ui.checkWeightsButton)
    driving.waitUntil(lambda: ui.checkWeightsButton.enabled, message="the answer")
    assert "No connection" in ui.checkWeightsLabel.text
