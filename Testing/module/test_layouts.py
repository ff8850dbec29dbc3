"""The module finds mkd_core where each way of installing puts it: stand-in GUI, one process per layout."""

import shutil
import subprocess
import sys

import pytest

pytest.importorskip("slicer")
pytest.importorskip("PySide6")
from Testing.support.panel_driving import ROOT

# The program forgets an mkd_core that is installed in this Python: Slicer's Python has none.
PROGRAM = """
import sys
testing, module, expected = sys.argv[1:]
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in str(finder).lower()]
sys.path[:] = [testing] + [path for path in sys.path[1:] if path != {root!r}]
from Testing.harness import bootstrap
bootstrap.start()
bootstrap.loadModule(module)
import os, mkd_core
from MKDSegmentationLib.corePackage import coreSearchPath
assert os.path.samefile(os.path.dirname(mkd_core.__file__), os.path.join(expected, "mkd_core")), mkd_core.__file__
assert os.path.samefile(coreSearchPath(), expected)
assert sys.path[0] == testing, "nothing may come before what was there"
print("found")
"""


def load(module, expected, cwd):
    """Load the module in a new process that sees the stand-in GUI but not the source tree; return what the process
    says.
    """
    (cwd / "stand-in").mkdir()
    (cwd / "stand-in" / "Testing").symlink_to(ROOT / "Testing")
    command = [sys.executable, "-c", PROGRAM.format(root=str(ROOT)), cwd / "stand-in", module, expected]
    return subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True)


def test_in_the_source_tree_mkd_core_is_the_neighbour_of_the_modules_folder(tmp_path):
    run = load(ROOT / "MKDSegmentation" / "MKDSegmentation.py", ROOT, tmp_path)
    assert run.stdout.strip() == "found", run.stderr


def test_once_installed_mkd_core_lies_beside_the_module(tmp_path):
    installed = tmp_path / "qt-scripted-modules"
    ignored = shutil.ignore_patterns("__pycache__", "CMakeLists.txt")
    shutil.copytree(ROOT / "MKDSegmentation", installed, ignore=ignored)
    shutil.copytree(ROOT / "mkd_core", installed / "mkd_core", ignore=ignored)
    run = load(installed / "MKDSegmentation.py", installed, tmp_path)
    assert run.stdout.strip() == "found", run.stderr


def test_an_incomplete_installation_is_told_in_a_sentence(tmp_path):
    installed = tmp_path / "qt-scripted-modules"
    shutil.copytree(ROOT / "MKDSegmentation", installed, ignore=shutil.ignore_patterns("__pycache__"))
    run = load(installed / "MKDSegmentation.py", installed, tmp_path)
    assert run.returncode != 0 and "the package mkd_core is missing" in run.stderr
