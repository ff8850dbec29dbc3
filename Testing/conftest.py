"""Fixtures of the stand-in GUI, for the tests that ask for them. Tests of mkd_core alone import nothing of it."""

import importlib.util
import sys
import types
from pathlib import Path

import pytest
from hypothesis import settings

import Testing.harness  # noqa: F401  (the package alone: it tells PySide6 how to be imported, before any test file imports it)

settings.register_profile("any machine", deadline=None)  # no test fails because the machine is slow
settings.load_profile("any machine")

HAS_STAND_IN = all(importlib.util.find_spec(name) for name in ("slicer", "PySide6", "vtk"))


@pytest.fixture(scope="session")
def runningApplication():
    """slicer.app of the stand-in GUI, started once."""
    if not HAS_STAND_IN:
        pytest.skip("slicer-core and PySide6-Essentials are not installed (the extra `test`)")
    from Testing.harness import bootstrap

    return bootstrap.start()


@pytest.fixture
def expectedErrors():
    """Context manager expectedErrors(pattern, atLeast=1): errors whose text matches are allowed inside, and must
    come.
    """
    from Testing.harness import failures

    return failures.expectedErrors


@pytest.fixture
def slicerApp(runningApplication, tmp_path):
    """slicer.app with an empty scene, empty settings and an empty temporary folder.

    The test fails on any exception in a slot or VTK observer, VTK error or warning, or logging.ERROR that it did not
    expect.
    """
    from Testing.harness import bootstrap, driving, failures

    app = runningApplication
    app.userSettings().clear()
    app.temporaryPath = str(tmp_path / "slicer-tmp")
    Path(app.temporaryPath).mkdir()
    bootstrap.clear()
    failures.take()
    yield app
    driving.processEvents()
    bootstrap.clear()
    driving.processEvents()
    collected = failures.take()
    assert not collected, "unexpected errors in the stand-in GUI:\n" + "\n".join(collected)


@pytest.fixture
def loadModule(slicerApp):
    """loadModule(path) -> (module, widget): a scripted module, loaded and shown; it is unloaded after the test."""
    from Testing.harness import bootstrap

    return bootstrap.loadModule


@pytest.fixture
def torchExtension(monkeypatch):
    """Put a PyTorchUtils in place that says torch is installed; without this fixture the PyTorch extension is
    absent.
    """
    extension = types.ModuleType("PyTorchUtils")

    class PyTorchUtilsLogic:
        installCalls = []

        @staticmethod
        def torchInstalled():
            return importlib.util.find_spec("torch") is not None

        def installTorch(
            self,
            askConfirmation=False,
            forceComputationBackend=None,
            torchVersionRequirement=None,
            torchvisionVersionRequirement=None,
        ):
            self.installCalls.append(
                {"askConfirmation": askConfirmation, "torchVersionRequirement": torchVersionRequirement}
            )
            import torch

            return torch

    extension.PyTorchUtilsLogic = PyTorchUtilsLogic
    monkeypatch.setitem(sys.modules, "PyTorchUtils", extension)
    return extension
