"""No word about the patient leaves the scene, and nothing goes over a network: the module in the stand-in GUI, with
workers of each kind.
"""

import contextlib
import json
import logging
import os
import sys
from pathlib import Path

import pytest

pytest.importorskip("slicer")
pytest.importorskip("PySide6")
from Testing.support.panel_driving import (
    ROOT,
    addVolume,
    childProcesses,
    driving,
    segmentations,
    waitForStage,
    waitUntilReady,
)

PATIENT = ("DOE^JANE", "DOE JANE", "19700101", "1.2.840.99999", "PID-4711")

#: Put on the search path of the worker as sitecustomize: notes every use of a socket in a file.
AUDIT = """
import os, sys
def note(event, arguments):
    if event.startswith("socket."):
        with open({path!r}, "a") as file:
            file.write(f"{{event}} {{arguments}}\\n")
sys.addaudithook(note)
open({path!r}, "a").close()
"""

_socketsUsed, _isListening = [], []


@pytest.fixture
def patient(slicerApp):
    """A volume that names its patient wherever a volume can."""
    volume = addVolume("DOE^JANE PID-4711")
    volume.SetAttribute("DICOM.instanceUIDs", "1.2.840.99999")
    volume.SetAttribute("DICOM.PatientName", "DOE JANE")
    volume.SetDescription("DOE JANE born 19700101")
    volume.AddDefaultStorageNode("/data/DOE JANE/19700101.nrrd")
    return volume


def named(text):
    """Return what of the patient stands in a text."""
    return [word for word in PATIENT if word in text]


@pytest.mark.parametrize("mode", ["good", "crash", "no-heart", "wrong-grid", "garbage"])
def test_neither_log_nor_process_nor_file_nor_report_names_the_patient(
    panel, patient, worker, slicerApp, caplog, expectedErrors, mode
):
    worker(mode)
    seen = []

    def look():
        for folder in Path(slicerApp.temporaryPath).rglob("*"):
            seen.append(str(folder))
        return panel.ui.segmentButton.text == "Segment"

    with caplog.at_level(logging.DEBUG), expectedErrors("could not be put into the scene", atLeast=0):
        driving.click(panel.ui.segmentButton)
        driving.waitUntil(look, message="the end of the run")
    assert any("volume.nrrd" in path for path in seen) and caplog.text
    reports = [
        node.GetAttribute("MKDSegmentation.Report") for node in segmentations()
    ]  # holds the request, word for word
    assert (mode not in ("good", "garbage")) or '"op": "segment"' in reports[0]
    for text in (caplog.text, panel.ui.logTextEdit.toPlainText(), panel.ui.statusLabel.text, *seen, *reports):
        assert named(text) == [], text


def test_the_process_is_told_nothing_of_the_patient(panel, patient, worker, workerProcesses, tmp_path):
    worker(f"waits-for:{tmp_path / 'go'}")
    driving.click(panel.ui.segmentButton)
    waitForStage(panel, "Looking for the heart")
    for pid in workerProcesses():
        for part in ("cmdline", "environ"):
            assert named(Path(f"/proc/{pid}/{part}").read_bytes().decode(errors="replace")) == []
    (tmp_path / "go").touch()
    waitUntilReady(panel)


@pytest.fixture
def noSocketHere():
    """Function that returns which sockets this process used since the start of the test, by Python's own word."""
    if not _isListening:
        sys.addaudithook(
            lambda event, arguments: (
                _socketsUsed.append(event) if _isListening[-1] and event.startswith("socket.") else None
            )
        )
    _socketsUsed.clear()
    _isListening.append(True)
    yield lambda: list(_socketsUsed)
    _isListening.append(False)


def test_a_run_with_the_real_pipeline_opens_no_socket_in_the_application_or_in_the_worker(
    panel, patient, tmp_path, monkeypatch, noSocketHere, worker
):
    pytest.importorskip("torch")
    from MKDSegmentationLib.run.volumeTransfer import setVolumeFromImage

    from Testing.support.known_heart import known_volume

    noted = tmp_path / "sockets.txt"
    (tmp_path / "audit").mkdir()
    (tmp_path / "audit" / "sitecustomize.py").write_text(AUDIT.format(path=str(noted)))
    worker("good")  # makes the launcher, which is then another one
    launcher = tmp_path / "bin" / "PythonSlicer"
    launcher.write_text(
        f"#!/bin/sh\nexport PYTHONPATH='{tmp_path / 'audit'}':$PYTHONPATH\n"
        f"exec '{sys.executable}' '{ROOT / 'Testing' / 'trust' / 'faulty_worker.py'}' '{tmp_path}' '' --real\n"
    )
    setVolumeFromImage(patient, known_volume((44, 36, 40), (5, 5, 5))[0])
    driving.processEvents()
    links = []

    def look():
        for child in childProcesses():
            links.extend(_open_files(child))
        return panel.ui.segmentButton.text == "Segment"

    driving.click(panel.ui.segmentButton)
    driving.waitUntil(look, 300, "the end of the run")
    assert len(segmentations()) == 1, panel.ui.statusLabel.text
    assert noted.exists(), "the audit was at work"
    assert noted.read_text(encoding="utf-8") == "" and noSocketHere() == []
    assert links and not any(link.startswith("socket:") for link in links)


def _open_files(pid):
    """What a process has open at this moment; a file may be closed, and the process end, between being listed and being
    read.
    """
    found = []
    with contextlib.suppress(OSError):
        for path in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found.append(os.readlink(path))
    return found


def test_every_source_of_the_module_names_a_network_only_where_weights_or_series_are_fetched():
    users = []
    for folder in ("MKDSegmentation", "mkd_core"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            if any(
                word in text
                for word in (
                    "import urllib",
                    "import http",
                    "import socket",
                    "import requests",
                    "QNetwork",
                    "QTcp",
                    "QUdp",
                    "downloadFile",
                    "import ftplib",
                    "import smtplib",
                )
            ):
                users.append(path.relative_to(ROOT).as_posix())
    assert users == ["mkd_core/io/dicomweb.py", "mkd_core/io/download.py"], json.dumps(users)
    modules = (ROOT / "MKDSegmentation").rglob("*.py")
    assert not any("dicomweb" in path.read_text(encoding="utf-8") for path in modules)
