"""Nothing that lies in a folder of data, and nothing that a shell says about Python, is run by a click: the module in
the stand-in GUI with real processes.
"""

import dataclasses
import os
import stat
import sys
from pathlib import Path

import pytest

pytest.importorskip("slicer")
pytest.importorskip("PySide6")
pytest.importorskip("torch")
from Testing.support.panel_driving import ROOT, addVolume, childProcesses, driving, segment

#: Names of files that somebody may well have among data, and that a worker imports at some time.
NAMES = ("statistics", "numpy", "queue", "json", "torch", "SimpleITK", "mkd_core", "sitecustomize", "usercustomize")


@pytest.fixture
def dataFolder(tmp_path, monkeypatch):
    """The folder in which the application was started: full of Python files that leave a trace if they are run."""
    folder = tmp_path / "my data"
    folder.mkdir()
    for name in NAMES:
        (folder / f"{name}.py").write_text(f"open({str(tmp_path / 'ran.txt')!r}, 'a').write('{name} ')\n")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def whatRan(tmp_path):
    """Function that returns what of the data folder ran."""
    return lambda: (tmp_path / "ran.txt").read_text(encoding="utf-8") if (tmp_path / "ran.txt").exists() else ""


@pytest.fixture
def shell(dataFolder, monkeypatch):
    """A shell that was set up for another Python."""
    for name in ("PYTHONPATH", "PYTHONSTARTUP", "PYTHONUSERBASE"):
        monkeypatch.setenv(name, str(dataFolder) if name != "PYTHONSTARTUP" else str(dataFolder / "numpy.py"))
    monkeypatch.setenv("PYTHONHOME", str(dataFolder))
    monkeypatch.setenv("PYTHONWARNINGS", "ignore::queue.Empty")


def test_a_run_in_a_folder_full_of_python_files_runs_none_of_them(panel, dataFolder, shell, whatRan):
    addVolume(shape=(40, 40, 40), spacing=3.0)
    segment(panel, 600)
    assert "heart" in panel.ui.statusLabel.text and "could not" not in panel.ui.statusLabel.text
    assert whatRan() == ""


def test_a_launcher_gets_the_options_and_an_environment_of_our_own(panel, dataFolder, shell, whatRan, tmp_path):
    """In Slicer, a launcher of its own starts Python; it passes on what it is given."""
    if sys.platform == "win32":
        pytest.skip("the launcher is a shell script")
    launcher = tmp_path / "bin" / "PythonSlicer"
    launcher.parent.mkdir()
    told = tmp_path / "told.txt"
    launcher.write_text(f"#!/bin/sh\n(pwd; echo \"$@\"; env) > '{told}'\nexec '{sys.executable}' \"$@\"\n")
    launcher.chmod(launcher.stat().st_mode | stat.S_IXUSR)
    os.environ["PATH"] = f"{launcher.parent}{os.pathsep}{os.environ['PATH']}"
    try:
        addVolume(shape=(40, 40, 40), spacing=3.0)
        segment(panel, 600)
    finally:
        os.environ["PATH"] = os.environ["PATH"].partition(os.pathsep)[2]
    workingFolder, options, *environment = told.read_text(encoding="utf-8").splitlines()
    assert options == "-P -m mkd_core.worker" and Path(workingFolder) == ROOT
    assert f"PYTHONPATH={ROOT}" in environment and "PYTHONSAFEPATH=1" in environment
    assert not any(str(dataFolder) in line for line in environment if line.startswith("PYTHON"))
    assert whatRan() == ""


def test_a_launcher_in_the_current_folder_is_not_taken(panel, dataFolder, tmp_path, monkeypatch):
    from MKDSegmentationLib.run.workerProcess import pythonCommand

    for name in ("PythonSlicer", "PythonSlicer.exe", "PythonSlicer.bat"):
        (dataFolder / name).write_text("#!/bin/sh\n")
        (dataFolder / name).chmod(0o755)
    monkeypatch.setenv("PATH", os.pathsep.join([".", "", os.environ["PATH"]]))
    assert pythonCommand("-m", "mkd_core.worker")[0] == sys.executable


def test_the_home_of_this_python_is_kept_and_another_one_is_not(slicerApp, monkeypatch, tmp_path):
    from MKDSegmentationLib.run.workerProcess import coreEnvironment

    import Testing.support.panel_driving  # noqa: F401  (the application comes first)

    monkeypatch.setenv("PYTHONHOME", sys.base_prefix)
    assert coreEnvironment().value("PYTHONHOME", "") == sys.base_prefix
    monkeypatch.setenv("PYTHONHOME", str(tmp_path))
    assert coreEnvironment().value("PYTHONHOME", "none") == "none"


def test_sample_data_run_none_of_them_either(slicerApp, dataFolder, shell, whatRan, panel):
    from MKDSegmentationLib.scene.sampleData import CT, loadSample

    assert loadSample(dataclasses.replace(CT, spacing=4.0)) is not None
    assert whatRan() == ""


def test_a_worker_that_lacks_a_package_says_so_and_does_not_speak_of_memory(panel, volume, tmp_path, monkeypatch):
    """The process ends in its imports, before it can say a word."""
    from MKDSegmentationLib.run import workerProcess

    program = "import a_package_that_is_not_there"
    others = set(childProcesses())  # of tests before this one, such as the resource tracker of multiprocessing
    monkeypatch.setattr(workerProcess, "workerCommand", lambda: [sys.executable, "-P", "-c", program])
    segment(panel)
    text = panel.ui.statusLabel.text
    assert "could not load what it needs" in text and "a_package_that_is_not_there" in text and "memory" not in text
    driving.waitUntil(lambda: set(childProcesses()) <= others, message="the end of the process")
