"""Weights in the panel: card, remembered choice, download, removal; the module in the stand-in GUI.

Servers are on this computer only.
"""

import hashlib
from pathlib import Path

import pytest

pytest.importorskip("slicer")
pytest.importorskip("PySide6")
from Testing.support.loopback_server import certificate, serving
from Testing.support.panel_driving import addVolume, driving


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
    driving.waitUntil(lambda: panel.ui.downloadButton.text == "Download", 60, "the end of the download")


def files(folder):
    """Names in a folder."""
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_the_default_weights_have_a_card_that_tells_what_to_expect_of_them(loadModule, slicerApp):
    from Testing.support.panel_driving import MODULE

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
    from Testing.support.panel_driving import MODULE

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
    content = bytes(40 * 2**20)
    with serving({"/heart.safetensors": content}, trusted, pause=0.05) as address:
        enter(panel, address + "/heart.safetensors", hashlib.sha256(content).hexdigest())
        driving.click(panel.ui.downloadButton)
        driving.waitUntil(lambda: panel.ui.downloadProgressBar.value > 0, 60, "progress")
        assert "MB" in panel.ui.downloadLabel.text and panel.ui.downloadButton.text == "Cancel download"
        addVolume()
        driving.processEvents()
        assert panel.ui.segmentButton.enabled, "a run is possible meanwhile"
        driving.click(panel.ui.downloadButton)
        assert panel.ui.downloadLabel.text == "The download was cancelled."
        driving.waitUntil(lambda: files(folder) == [], 5, "the removal of the part")


def test_unloading_the_module_during_a_download_leaves_nothing(open_download, folder, trusted):
    from Testing.harness import bootstrap

    panel, content = open_download, bytes(40 * 2**20)
    with serving({"/heart.safetensors": content}, trusted, pause=0.05) as address:
        enter(panel, address + "/heart.safetensors", hashlib.sha256(content).hexdigest())
        driving.click(panel.ui.downloadButton)
        driving.waitUntil(lambda: panel.ui.downloadProgressBar.value > 0, 60, "progress")
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
    from Testing.support.panel_driving import MODULE

    driving.typeText(open_download.ui.folderLineEdit, str(tmp_path / "elsewhere"))
    _module, again = loadModule(MODULE)
    assert again.ui.folderLineEdit.currentPath == str(tmp_path / "elsewhere")
    assert not Path(tmp_path / "elsewhere").exists(), "nothing is made before it is needed"


def test_what_a_crash_left_of_a_download_is_removed_by_the_next_one(open_download, folder, trusted, tiny_bundle_path):
    panel, content = open_download, tiny_bundle_path.read_bytes()
    (folder / "MKDSegmentation-crashed").mkdir(parents=True)
    (folder / "MKDSegmentation-crashed" / "weights.part").touch()
    with serving({"/heart.safetensors": content}, trusted) as address:
        enter(panel, address + "/heart.safetensors", hashlib.sha256(content).hexdigest())
        download(panel)
    assert files(folder) == ["heart.safetensors"]


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_fetched(open_download, folder):
    folder.touch()  # a file has its name
    enter(open_download, "https://weights.example/heart.safetensors", "0" * 64)
    driving.click(open_download.ui.downloadButton)
    assert (
        "cannot be written" in open_download.ui.downloadLabel.text
        and "Choose another folder." in open_download.ui.downloadLabel.text
    )
    assert open_download.ui.downloadButton.text == "Download"
