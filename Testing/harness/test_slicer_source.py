"""Against Slicer's own Python files, where SLICER_SOURCE_DIR names a checkout of Slicer: the stand-ins invent nothing,
and Slicer's own tests pass in the stand-in GUI except for what says of itself that it is not made."""

import ast
import importlib.util
import os
import sys
import unittest
from pathlib import Path

import pytest

STAND_IN = Path(__file__).with_name("slicer_python")
OWN_TESTS = (
    "parameter_node_wrapper",
    "parameter_node_wrapper_guis",
    "parameter_pack",
    "util_VTKObservationMixin",
    "util_childWidgetVariables",
    "util_getNodes",
)


@pytest.fixture
def source():
    """The folder of Slicer's own Python files."""
    if not os.environ.get("SLICER_SOURCE_DIR"):
        pytest.skip("SLICER_SOURCE_DIR does not name a checkout of Slicer")
    folder = Path(os.environ["SLICER_SOURCE_DIR"]) / "Base" / "Python" / "slicer"
    assert folder.is_dir(), f"{folder} is missing"
    return folder


def _publicNames(path):
    """Return the public names of a Python file or package: functions, classes, "class.method", and arguments as
    "function(argument)".
    """
    names = set()
    for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            members = node.body if isinstance(node, ast.ClassDef) else []
            for owner, item in [("", node), *[(node.name + ".", member) for member in members]]:
                if isinstance(item, (ast.FunctionDef, ast.ClassDef)) and not item.name.startswith("_"):
                    names.add(owner + item.name)
                if isinstance(item, ast.FunctionDef) and not owner and not item.name.startswith("_"):
                    names |= {f"{item.name}({argument.arg})" for argument in item.args.args}
    return names


@pytest.mark.parametrize("name", ["ScriptedLoadableModule.py", "i18n.py", "packaging.py", "testing.py"])
def test_the_stand_ins_of_slicers_files_have_no_public_name_that_slicer_lacks(name, source):
    invented = _publicNames(STAND_IN / name) - _publicNames(source / name)
    assert not invented


def test_the_stand_in_of_the_parameter_node_wrapper_exports_nothing_that_slicer_lacks(source):
    exported = ast.literal_eval(
        next(
            node.value
            for node in ast.parse((STAND_IN / "parameterNodeWrapper/__init__.py").read_text(encoding="utf-8")).body
            if isinstance(node, ast.Assign)
        )
    )
    real = (source / "parameterNodeWrapper").glob("*.py")
    text = "\n".join(path.read_text(encoding="utf-8") for path in real)
    assert [
        name
        for name in exported
        if f"def {name}(" not in text and f"class {name}" not in text and f"\n{name} = " not in text
    ] == []


@pytest.mark.parametrize("name", OWN_TESTS)
def test_slicers_own_test_passes_in_the_stand_in_gui_as_far_as_that_is_made(
    name, source, runningApplication, monkeypatch
):
    path = source / "tests" / f"test_slicer_{name}.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, path.stem, module)
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        pytest.skip(
            f"Slicer's files need a newer Python than {sys.version_info.major}.{sys.version_info.minor}: {error}"
        )
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromModule(module).run(result)
    from Testing.harness import bootstrap, failures

    bootstrap.clear()
    failures.take()
    unmade = "NotImplementedError: the stand-in GUI does not"
    problems = [(str(test), text) for test, text in result.failures + result.errors if unmade not in text]
    assert problems == []
    assert result.testsRun > len(result.errors)
