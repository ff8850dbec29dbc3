"""What CMake installs is what the source tree holds.

Slicer installs exactly the files a CMakeLists.txt names: a forgotten one is missed only after installation.  The last
tests configure, build and install the extension with a small stand-in for Slicer's CMake package (Testing/cmake) and
use the installed tree.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "MKDSegmentation"
PACKAGE = ROOT / "mkd_core"


def cmake_variable(folder: Path, name: str) -> list[str]:
    """Items of ``set(name ...)`` in a folder's CMakeLists.txt."""
    text = re.sub(r"#[^\n]*", "", (folder / "CMakeLists.txt").read_text(encoding="utf-8"))
    found = re.search(rf"set\({name}\s([^)]*)\)", text)
    assert found, f"{folder.name}/CMakeLists.txt does not set {name}"
    return found.group(1).split()


def files_below(folder: Path, *suffixes: str) -> list[str]:
    """Paths, relative to the folder and sorted, of its files with one of the suffixes (all files without any), caches
    left out.
    """
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and (not suffixes or path.suffix in suffixes)
    )


#: Folders of the package that no click needs: they stay out of Slicer.
NOT_INSTALLED = ("evaluation/", "training/")


def installed_files(*suffixes: str) -> list[str]:
    """Files of the package that belong into Slicer."""
    return [name for name in files_below(PACKAGE, *suffixes) if not name.startswith(NOT_INSTALLED)]


def test_every_python_file_that_a_click_may_need_is_listed_and_no_other():
    assert sorted(cmake_variable(PACKAGE, "PACKAGE_PYTHON_SCRIPTS")) == installed_files(".py")


def test_every_weights_file_of_the_package_is_listed():
    others = [name for name in installed_files() if not name.endswith(".py") and name != "CMakeLists.txt"]
    assert sorted(cmake_variable(PACKAGE, "PACKAGE_RESOURCES")) == others


def test_every_python_file_of_the_module_is_listed():
    scripts = [name for name in files_below(MODULE, ".py") if not name.startswith("Testing/")]
    assert sorted(cmake_variable(MODULE, "MODULE_PYTHON_SCRIPTS")) == scripts


def test_every_resource_of_the_module_is_listed():
    resources = ["Resources/" + name for name in files_below(MODULE / "Resources")]
    assert sorted(cmake_variable(MODULE, "MODULE_PYTHON_RESOURCES")) == resources


def test_the_module_file_stands_alone_in_its_folder():
    # Slicer takes every Python file beside a module for another module, and one that starts with "#!" for a
    # command-line program.
    assert [path.name for path in MODULE.glob("*.py")] == ["MKDSegmentation.py"]
    assert not (MODULE / "MKDSegmentation.py").read_text(encoding="utf-8").startswith("#!")


def test_the_names_of_installed_resources_tell_whose_they_are():
    # All modules of an extension share one Resources folder after installation.
    for name in cmake_variable(MODULE, "MODULE_PYTHON_RESOURCES"):
        assert Path(name).name.startswith("MKDSegmentation") or "/MKDSegmentation/" in name, name


def test_pictures_named_for_the_extension_catalogue_are_in_the_repository():
    text = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    for variable in ("EXTENSION_ICONURL", "EXTENSION_SCREENSHOTURLS"):
        urls = re.search(rf'set\({variable} "([^"]+)"\)', text)
        assert urls, f"{variable} must be one quoted line: the catalogue reads it with a pattern"
        for url in urls.group(1).split():
            assert (ROOT / url.split("/main/", 1)[1]).is_file(), url


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> tuple[Path, dict[str, str]]:
    """The installed qt-scripted-modules folder and what the extension said of itself."""
    if shutil.which("cmake") is None:
        pytest.skip("cmake is not installed")
    build, prefix = tmp_path_factory.mktemp("build"), tmp_path_factory.mktemp("install")
    # Nothing is compiled, so no compiler need be there: CMake is told not to look for one.
    no_compiler = [
        f"-DCMAKE_{language}_COMPILER{rest}"
        for language in ("C", "CXX")
        for rest in ("=" + sys.executable, "_FORCED=ON")
    ]
    commands = [
        [
            "cmake",
            "-S",
            str(ROOT),
            "-B",
            str(build),
            f"-DSlicer_DIR={ROOT / 'Testing' / 'cmake' / 'Slicer'}",
            f"-DCMAKE_INSTALL_PREFIX={prefix}",
            *no_compiler,
        ],
        ["cmake", "--build", str(build)],
        ["cmake", "--install", str(build)],
    ]
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
    said = dict(line.split("=", 1) for line in (build / "extension.txt").read_text(encoding="utf-8").splitlines())
    return prefix / "lib" / "Slicer-5.12" / "qt-scripted-modules", said


def test_the_installed_tree_holds_module_resources_and_package(installed):
    folder, _ = installed
    package = [f"mkd_core/{name}" for name in installed_files() if name != "CMakeLists.txt"]
    module = [name for name in files_below(MODULE) if name != "CMakeLists.txt" and not name.startswith("Testing/")]
    assert files_below(folder) == sorted(package + module)


def test_the_package_runs_from_the_installed_tree(installed, tmp_path):
    folder, _ = installed
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import mkd_core, mkd_core.structures, mkd_core.worker\n"
        "from mkd_core.synthesis.anatomy import make_heart\n"
        "assert 'torch' not in sys.modules\n"
        "print(mkd_core.__file__, mkd_core.default_bundle_path().is_file())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, timeout=600, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(folder / "mkd_core" / "__init__.py"), "True"]


def test_the_extension_describes_itself_as_the_catalogue_wants(installed):
    _, said = installed
    assert said["name"] == "MKDSegmentation"
    assert said["modules"] == "MKDSegmentation", "the package must not be taken for a module"
    assert said["tests"] == "py_MKDSegmentation"
    assert said["DEPENDS"] == "PyTorch"
    assert Path(said["LICENSE_FILE"]).read_text(encoding="utf-8").lstrip().startswith("Apache License")
    assert "esearch use only" in said["DESCRIPTION"]
    assert all(said[item] for item in ("HOMEPAGE", "CONTRIBUTORS", "ICONURL", "SCREENSHOTURLS", "KEYWORDS"))


def test_a_listed_file_that_is_missing_stops_the_configuration(tmp_path):
    if shutil.which("cmake") is None:
        pytest.skip("cmake is not installed")
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.16)\nproject(Broken NONE)\nfind_package(Slicer "
        "REQUIRED)\ninclude(${Slicer_USE_FILE})\n"
        "slicerMacroBuildScriptedModule(NAME Broken SCRIPTS Absent.py)\n"
    )
    done = subprocess.run(
        [
            "cmake",
            "-S",
            str(tmp_path),
            "-B",
            str(tmp_path / "build"),
            f"-DSlicer_DIR={ROOT / 'Testing' / 'cmake' / 'Slicer'}",
        ],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode != 0
    assert "Absent.py" in done.stderr
