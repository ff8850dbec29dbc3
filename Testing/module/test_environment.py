"""PyTorch is asked for at the click, never earlier: the module in the stand-in GUI on machines that lack it."""

import importlib.machinery
import importlib.metadata
import logging
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import types

import pytest

pytest.importorskip("slicer")
pytest.importorskip("PySide6")
from Testing.support.panel_driving import ROOT, driving, sceneContent, segment, segmentations


@pytest.fixture
def installed(monkeypatch):
    """Dictionary of distribution names and versions that overrides what is installed; None means absent."""
    versions = {}
    real = importlib.metadata.version

    def version(name):
        if name not in versions:
            return real(name)
        if versions[name] is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    return versions


#: What pip prints when it installs PyTorch, in pieces; the file that it waits for lets a test look in between.
DOWNLOAD = """
import pathlib, sys, time
print("Collecting torch>=2.2", flush=True)
print("  Downloading https://some.where/torch-2.9.1%2Bcpu-cp311-cp311-manylinux_2_28_x86_64.whl (190.2 MB)", flush=True)
print("Progress 50 of 200", flush=True)
while not pathlib.Path(sys.argv[1]).exists():
    time.sleep(0.02)
print("Installing collected packages: torch, torchvision", flush=True)
while not pathlib.Path(sys.argv[1] + "2").exists():
    time.sleep(0.02)
print("Successfully installed torch-2.9.1 torchvision-0.24.1", flush=True)
"""


@pytest.fixture
def pytorchExtension(monkeypatch, tmp_path):
    """pytorchExtension(program, *arguments): the extension PyTorch with its light-the-torch, which a Python program
    stands in for; returns the command lines that were run.
    """
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # nobody else's folders are there

    def install(program, *arguments):
        commands = []
        extension = types.ModuleType("PyTorchUtils")

        class PyTorchUtilsLogic:
            @staticmethod
            def getCompatibleComputationBackends(forceComputationBackend=None, torchVersionRequirement=None):
                package = types.ModuleType("light_the_torch")
                package.__spec__ = importlib.machinery.ModuleSpec("light_the_torch", None)
                monkeypatch.setitem(sys.modules, "light_the_torch", package)
                return ["cpu"]

        extension.PyTorchUtilsLogic = PyTorchUtilsLogic
        monkeypatch.setitem(sys.modules, "PyTorchUtils", extension)

        def command(*words):
            commands.append(words)
            return [sys.executable, "-c", program, *map(str, arguments)]

        monkeypatch.setattr("MKDSegmentationLib.run.torchInstaller.pythonCommand", command)
        return commands

    return install


def temporaryFolders():
    return [name for name in os.listdir(tempfile.gettempdir()) if name.startswith("MKDSegmentation-torch-")]


def test_pytorch_is_installed_after_asking_with_progress_while_the_application_lives_and_the_run_goes_on(
    panel, volume, worker, installed, pytorchExtension, tmp_path
):
    worker("good")
    installed["torch"] = None
    before = temporaryFolders()
    go = tmp_path / "go"
    commands = pytorchExtension(DOWNLOAD, go)
    ui = panel.ui
    driving.click(ui.segmentButton)
    assert commands == [], "nothing happens before the user agreed"
    text = ui.installLabel.text.replace("\N{ZERO WIDTH SPACE}", "")
    assert "0.2 GB are downloaded" in text or "3 GB are downloaded" in text
    assert sysconfig.get_paths()["purelib"] in text

    driving.click(ui.installButton)
    driving.waitUntil(lambda: ui.installProgressBar.value == 25)
    assert ui.installLabel.text == "Downloading torch-2.9.1 (190.2 MB)"
    assert not ui.segmentButton.enabled
    assert len(temporaryFolders()) == len(before) + 1
    [words] = commands
    assert words[:4] == ("-m", "mkd_core.tether", "light_the_torch", "install")
    assert any(word.startswith("torch>=2.") for word in words) and "torchvision" in words

    go.touch()
    driving.waitUntil(lambda: not ui.cancelInstallButton.enabled)
    installed["torch"] = "2.9.1+cpu"
    pathlib.Path(f"{go}2").touch()
    driving.waitUntil(lambda: len(segmentations()) == 1 and ui.segmentButton.text == "Segment")
    assert not ui.installFrame.visible
    assert temporaryFolders() == before


def test_a_download_of_pytorch_can_be_cancelled_and_leaves_nothing(
    panel, volume, worker, workerProcesses, installed, pytorchExtension, tmp_path
):
    worker("good")
    installed["torch"] = None
    before, folders = sceneContent(), temporaryFolders()
    pytorchExtension(DOWNLOAD, tmp_path / "never")
    driving.click(panel.ui.segmentButton)
    driving.click(panel.ui.installButton)
    driving.waitUntil(lambda: panel.ui.installProgressBar.value == 25)
    driving.click(panel.ui.cancelInstallButton)
    assert panel.ui.statusLabel.text == "The installation of PyTorch was cancelled."
    assert panel.ui.segmentButton.enabled and not panel.ui.installFrame.visible
    driving.waitAside(lambda: not workerProcesses(), message="the end of pip")
    assert sceneContent() == before and temporaryFolders() == folders


def test_cancelling_ends_what_slicers_launcher_has_started(
    panel, volume, workerProcesses, installed, pytorchExtension, monkeypatch, tmp_path
):
    installed["torch"] = None
    pytorchExtension("")

    def command(*words):
        # PythonSlicer waits for Python and does not take it along when it is killed; a server never ends by itself.
        assert words[:3] == ("-m", "mkd_core.tether", "light_the_torch")
        launcher = ("/bin/sh", "-c", '"$@"; exit $?', "launcher")
        module = ("-m", "mkd_core.tether", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(tmp_path))
        return [*launcher, sys.executable, "-P", *module]

    monkeypatch.setattr("MKDSegmentationLib.run.torchInstaller.pythonCommand", command)
    driving.click(panel.ui.segmentButton)
    driving.click(panel.ui.installButton)
    driving.waitUntil(lambda: len(workerProcesses()) == 2, message="the launcher and Python")
    driving.click(panel.ui.cancelInstallButton)
    driving.waitUntil(lambda: workerProcesses() == [], message="their end")


#: Puts files in their places when it is told to, and ends with its input as mkd_core.tether does.
PLACING = """
import os, pathlib, sys, time
from mkd_core.isolation import when_stdin_ends
when_stdin_ends(lambda: os._exit(1))
print("Installing collected packages: torch, torchvision", flush=True)
while not pathlib.Path(sys.argv[1]).exists():
    time.sleep(0.2)
pathlib.Path(sys.argv[2]).touch()
"""


def test_slicer_closes_when_files_are_in_their_places(
    panel, volume, installed, pytorchExtension, tmp_path, monkeypatch
):
    from Testing.harness import bootstrap

    installed["torch"] = None
    go, placed = tmp_path / "go", tmp_path / "placed"
    pytorchExtension(PLACING, go, placed)
    driving.click(panel.ui.segmentButton)
    driving.click(panel.ui.installButton)
    driving.waitUntil(lambda: not panel.ui.cancelInstallButton.enabled)
    usual = logging.info
    monkeypatch.setattr(
        logging, "info", lambda text, *more: (go.touch() if text.startswith("Waiting") else None, usual(text, *more))
    )
    bootstrap.unloadModule("MKDSegmentation")
    assert placed.exists()


def test_whoever_does_not_want_pytorch_is_asked_again_at_the_next_click(
    panel, volume, worker, installed, pytorchExtension
):
    worker("good")
    installed["torch"] = None
    commands = pytorchExtension(DOWNLOAD)
    for _ in range(2):
        driving.waitUntil(lambda: panel.ui.segmentButton.enabled)
        driving.click(panel.ui.segmentButton)
        assert panel.ui.installFrame.visible
        driving.click(panel.ui.cancelInstallButton)
        assert not panel.ui.installFrame.visible
    assert commands == []


def test_the_question_goes_when_another_volume_is_chosen(panel, volume, installed, pytorchExtension):
    installed["torch"] = None
    pytorchExtension(DOWNLOAD)
    driving.click(panel.ui.segmentButton)
    panel.ui.inputSelector.setCurrentNode(None)
    assert not panel.ui.installFrame.visible


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "WARNING: Retrying after connection broken by 'ProxyError('Cannot connect to proxy.', OSError('Tunnel "
            "connection failed: 407 Proxy Authentication Required'))': /whl/torch/\nERROR: No matching distribution",
            "HTTPS_PROXY",
        ),
        ("SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] self-signed'))", "PIP_CERT"),
        ("NewConnectionError(': Failed to establish a new connection: [Errno -3]')\nERROR: No matching", "firewall"),
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "disk is full"),
        ("ERROR: Could not install packages: [Errno 13] Permission denied: '/opt/x'", "cannot be written"),
        ("ERROR: Could not install packages: [WinError 206] The filename or extension is too long", "short path"),
        ("ERROR: No matching distribution found for torch>=2.2", "no PyTorch for this computer"),
        ("ERROR: Something else.", "Something else."),
        ("", "details are in the application log"),
    ],
)
def test_what_pip_says_is_told_in_words_and_starts_nothing(
    panel, volume, worker, workerProcesses, installed, pytorchExtension, said, told
):
    worker("good")
    installed["torch"] = None
    # pip shows where in its code it gave up, and light-the-torch ends with exit code 0 whatever pip says.
    pytorchExtension(f"print({said!r}, *['  File pip.py, line 1'] * 100, sep='\\n')")
    driving.click(panel.ui.segmentButton)
    driving.click(panel.ui.installButton)
    driving.waitUntil(lambda: not panel.ui.installFrame.visible)
    assert panel.ui.statusLabel.text.startswith("PyTorch was not installed")
    assert told in panel.ui.statusLabel.text
    assert panel.ui.segmentButton.text == "Segment" and panel.ui.segmentButton.enabled
    assert workerProcesses() == []


def test_an_installation_that_only_claims_to_have_worked_is_told(panel, volume, installed, pytorchExtension):
    installed["torch"] = None
    pytorchExtension("print('Successfully installed torch')")
    driving.click(panel.ui.segmentButton)
    driving.click(panel.ui.installButton)
    driving.waitUntil(lambda: not panel.ui.installFrame.visible)
    assert panel.ui.statusLabel.text.startswith("PyTorch was not installed")


def test_too_little_space_is_told_before_anything_is_downloaded(
    panel, volume, installed, pytorchExtension, monkeypatch
):
    installed["torch"] = None
    pytorchExtension(DOWNLOAD)
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=0.5e9))
    driving.click(panel.ui.segmentButton)
    assert "lacks" in panel.ui.installLabel.text
    assert not panel.ui.installButton.enabled


def test_an_installed_torch_is_not_installed_again_and_not_imported_into_slicer(
    panel, volume, worker, pytorchExtension
):
    worker("good")
    commands = pytorchExtension(DOWNLOAD)
    before = "torch" in sys.modules
    segment(panel)
    assert commands == [] and ("torch" in sys.modules) == before


def test_without_the_pytorch_extension_the_panel_says_how_to_get_it(panel, volume, worker, installed, monkeypatch):
    installed["torch"] = None
    monkeypatch.setitem(sys.modules, "PyTorchUtils", None)
    driving.click(panel.ui.segmentButton)
    driving.click(panel.ui.installButton)
    assert "Install the extension 'PyTorch'" in panel.ui.statusLabel.text


def test_a_torch_that_is_too_old_is_told_with_both_versions(panel, volume, worker, installed):
    installed["torch"] = "1.13.1"
    driving.click(panel.ui.segmentButton)
    assert "1.13.1" in panel.ui.statusLabel.text and "or newer is needed" in panel.ui.statusLabel.text


def test_loading_the_module_imports_nothing_heavy_and_starts_no_process():
    program = (
        "import sys; sys.path[:0] = ['.'];"
        "from Testing.harness import bootstrap; bootstrap.start(); "
        "bootstrap.loadModule('MKDSegmentation/MKDSegmentation.py');"
        "import os; children = open(f'/proc/{os.getpid()}/task/{os.getpid()}/children').read().split();"
        "print([name for name in ('torch', 'SimpleITK', 'scipy') if name in sys.modules], children)"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[] []"
