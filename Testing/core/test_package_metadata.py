"""What pip is told of the package is so."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import mkd_core

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def names(requirements: list[str]) -> set[str]:
    return {re.match(r"[A-Za-z0-9_.-]+", requirement).group().lower().replace("_", "-") for requirement in requirements}


def imported_packages(folder: Path) -> set[str]:
    """Top-level names that the Python files of a folder import from outside the standard library and the project."""
    found = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                found.add(node.module.split(".")[0])
    return {name for name in found if name not in sys.stdlib_module_names and name != "mkd_core"}


def test_every_import_of_the_package_is_declared():
    declared = names(PROJECT["dependencies"])
    needed = {name.lower().replace("_", "-") for name in imported_packages(ROOT / "mkd_core")}
    extras = PROJECT["optional-dependencies"]
    # By the package of another name.
    provided = {"pil": "pillow", "psutil": "distributed", "requests": "dicomweb-client"}
    assert {provided.get(name, name) for name in needed} <= declared | names(extras["train"]) | names(extras["archive"])


def test_the_package_never_imports_the_application():
    assert not imported_packages(ROOT / "mkd_core") & {"slicer", "qt", "ctk", "vtk", "PySide6"}


def test_the_tested_versions_are_exact_and_cover_every_requirement():
    lines = (ROOT / "Testing" / "requirements-test.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9a-z.]*", pin) for pin in pins)
    extras = PROJECT["optional-dependencies"]
    required = (
        names(PROJECT["dependencies"])
        | names(extras["train"])
        | names(extras["archive"])
        | names(extras["test"])
        | {"ruff", "mypy"}
    )
    assert required <= names(pins)


def test_style_and_types_are_checked_by_one_version_everywhere():
    pins = (ROOT / "Testing" / "requirements-test.txt").read_text(encoding="utf-8").splitlines()
    development = PROJECT["optional-dependencies"]["dev"]
    for tool in ("ruff", "mypy"):
        [pin] = [pin for pin in pins if pin.startswith(f"{tool}==")]
        assert pin in development
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    assert set(re.findall(r"ruff==[0-9.]+", hooks)) == {pin for pin in pins if pin.startswith("ruff==")}


def test_continuous_integration_checks_style_and_types_before_the_tests():
    steps = [line for line in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines() if "make " in line]
    assert steps == ["make lint", "make test"]


def test_the_licence_of_every_requirement_is_told():
    table = (ROOT / "SECURITY.md").read_text(encoding="utf-8").split("## Licences")[1]
    told = {
        name.lower()
        for name in re.findall(
            r"^\| ([A-Za-z0-9-]+) \| (?:running|training|DICOM|archives|tests|development) \|", table, re.MULTILINE
        )
    }
    extras = PROJECT["optional-dependencies"]
    assert told == names(PROJECT["dependencies"]).union(*map(names, extras.values()))


def test_the_version_is_the_same_everywhere():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"version: {mkd_core.__version__}\n" in citation


def test_the_command_points_at_a_function():
    module, _, function = PROJECT["scripts"]["mkd"].partition(":")
    source = (ROOT / Path(*module.split("."))).with_suffix(".py").read_text(encoding="utf-8")
    assert re.search(rf"^def {function}\(", source, re.MULTILINE)
