"""PyTorch is asked for at the click, never earlier: the module in the stand-in GUI on machines that lack it."""

import importlib.metadata
import subprocess
import sys
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


def pytorchExtension(monkeypatch, install):
    """Put the PyTorch extension's module in place with this function as installTorch; returns the list of its calls."""
    calls = []
    extension = types.ModuleType("PyTorchUtils")

    class PyTorchUtilsLogic:
        def installTorch(
            self,
            askConfirmation=False,
            forceComputationBackend=None,
            torchVersionRequirement=None,
            torchvisionVersionRequirement=None,
        ):
            calls.append((askConfirmation, torchVersionRequirement))
            return install()

    extension.PyTorchUtilsLogic = PyTorchUtilsLogic
    monkeypatch.setitem(sys.modules, "PyTorchUtils", extension)
    return calls


def test_a_click_installs_torch_through_the_pytorch_extension_and_goes_on(
    panel, volume, worker, installed, monkeypatch
):
    worker("good")
    installed["torch"] = None
    calls = pytorchExtension(monkeypatch, lambda: installed.update(torch="2.9.1+cpu"))
    segment(panel)
    assert len(calls) == 1
    askedFirst, requirement = calls[0]
    assert askedFirst and requirement.startswith(">=2.")
    assert len(segmentations()) == 1


def test_an_installed_torch_is_not_installed_again_and_not_imported_into_slicer(panel, volume, worker, monkeypatch):
    worker("good")
    calls = pytorchExtension(monkeypatch, lambda: None)
    before = "torch" in sys.modules
    segment(panel)
    assert calls == [] and ("torch" in sys.modules) == before


@pytest.mark.parametrize("answer", [None, types.ModuleType("torch")], ids=["declined", "claimed"])
def test_an_installation_that_was_declined_or_only_claimed_is_told_and_starts_nothing(
    panel, volume, worker, workerProcesses, installed, monkeypatch, answer
):
    worker("good")
    installed["torch"] = None
    pytorchExtension(monkeypatch, lambda: answer)
    before = sceneContent()
    driving.click(panel.ui.segmentButton)
    assert "PyTorch is not installed" in panel.ui.statusLabel.text
    assert panel.ui.segmentButton.text == "Segment" and panel.ui.segmentButton.enabled
    assert workerProcesses() == [] and sceneContent() == before


def test_without_the_pytorch_extension_the_panel_says_how_to_get_it(panel, volume, worker, installed, monkeypatch):
    installed["torch"] = None
    monkeypatch.setitem(sys.modules, "PyTorchUtils", None)
    driving.click(panel.ui.segmentButton)
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
