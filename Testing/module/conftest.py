"""What the tests of the module share: its panel in the stand-in GUI, a volume, and a worker that does as told."""

import os
import stat
import sys
from pathlib import Path

import pytest


@pytest.fixture
def worker(tmp_path, monkeypatch):
    """Function worker(mode): the next worker process is the fake one in this mode. A process that is starting just now
    may be of either mode: wait for its stage first.

    It is started as in Slicer, through a launcher named PythonSlicer that has a process id of its own and survives
    nothing but does not take its child along when it is killed.
    """
    if sys.platform == "win32":
        pytest.skip("the launcher of the fake worker is a shell script")
    folder = tmp_path / "bin"
    folder.mkdir()
    launcher = folder / "PythonSlicer"
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)

    def use(mode):
        script = Path(__file__).resolve().parents[1] / "support" / "fake_worker.py"
        draft = folder / "draft"  # a shell that is reading the launcher finds the one or the other, never half of it
        draft.write_text(f"#!/bin/sh\n'{sys.executable}' '{script}' '{mode}' '{tmp_path}'\nexit $?\n")
        draft.chmod(draft.stat().st_mode | stat.S_IXUSR)
        draft.replace(launcher)

    return use


@pytest.fixture
def loadModule(loadModule):
    """The same; our panel starts no worker before the click unless the test lets it."""
    from Testing.support.panel_driving import stayCold

    def load(path):
        module, widget = loadModule(path)
        stayCold(widget)
        return module, widget

    return load


@pytest.fixture
def panel(loadModule, slicerApp, tiny_bundle_path):
    """The module's widget, shown in the stand-in GUI, with tiny weights remembered from an earlier day."""
    from Testing.support.panel_driving import MODULE

    slicerApp.userSettings().setValue("MKDSegmentation/WeightsPath", str(tiny_bundle_path))
    _module, widget = loadModule(MODULE)
    return widget


@pytest.fixture
def volume(slicerApp):
    """A volume that passes for a CT, as node."""
    from Testing.support.panel_driving import addVolume

    return addVolume()


@pytest.fixture
def workerProcesses(tmp_path):
    """Function that returns the process ids of the fake workers and launchers of this test that are alive."""

    def find():
        if not Path("/proc").is_dir():
            pytest.skip("processes are looked for in /proc")
        alive = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                command = (entry / "cmdline").read_bytes()
                state = (entry / "stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0]
            except (FileNotFoundError, ProcessLookupError):
                continue
            if state != "Z" and int(entry.name) != os.getpid() and str(tmp_path).encode() in command:
                alive.append(int(entry.name))
        return alive

    return find


@pytest.fixture
def tiny_bundle_path(tmp_path):
    """A weights bundle with tiny random networks, quick to make and to load."""
    from mkd_core.io.bundle import save_bundle
    from Testing.support.tiny_bundles import random_state_dicts, tiny_description

    path = tmp_path / "tiny.safetensors"
    save_bundle(path, tiny_description(), random_state_dicts(tiny_description()))
    return path
