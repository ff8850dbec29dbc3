"""What `import mkd_core` offers: listed, typed, and without loading anything heavy."""

from __future__ import annotations

import ast
import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

import mkd_core
from mkd_core import errors

ROOT = Path(__file__).resolve().parents[2]


def run(code: str) -> dict:
    """What a fresh Python prints as JSON."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return json.loads(done.stdout)


def test_importing_the_package_and_listing_its_names_loads_nothing_heavy():
    seen = run(
        "import json, sys; before = set(sys.modules); import mkd_core; names = [*mkd_core.__all__, *dir(mkd_core)]; "
        "print(json.dumps([names, sorted(set(sys.modules) - before)]))"
    )
    names, loaded = seen
    assert set(mkd_core.__all__) <= set(names)
    assert not [name for name in loaded if name.split(".")[0] in ("torch", "numpy", "SimpleITK", "scipy")]
    assert [name for name in loaded if name.startswith("mkd_core")] == ["mkd_core"], "names are resolved at first use"


def test_every_listed_name_exists_and_every_error_is_listed():
    for name in mkd_core.__all__:
        assert getattr(mkd_core, name) is not None
    kinds = [name for name, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.MKDError)]
    assert set(kinds) <= set(mkd_core.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        mkd_core.nothing  # noqa: B018


def test_tools_that_only_read_the_file_see_the_same_names():
    tree = ast.parse(Path(mkd_core.__file__).read_text(encoding="utf-8"))
    (typed,) = [node for node in tree.body if isinstance(node, ast.If)]
    imported = {alias.name for statement in typed.body for alias in statement.names}
    assert imported == set(mkd_core.__all__) == set(mkd_core._HOME_OF)


def test_mypy_reveals_the_types_of_the_public_names(tmp_path):
    pytest.importorskip("mypy")
    snippet = tmp_path / "snippet.py"
    snippet.write_text(
        "import mkd_core\n"
        "reveal_type(mkd_core.segment)\n"
        "reveal_type(mkd_core.load_bundle)\n"
        "reveal_type(mkd_core.STRUCTURES)\n"
        "def volume(result: mkd_core.SegmentationResult) -> float:\n"
        '    return result.report["structures"]["LV"]["volume_ml"]\n'
        "def wrong(result: mkd_core.SegmentationResult) -> None:\n"
        '    result.report["no such entry"]\n'
    )
    command = [sys.executable, "-m", "mypy", "--ignore-missing-imports", "--follow-imports=silent", str(snippet)]
    command += ["--cache-dir", str(tmp_path / "cache")]
    shown = subprocess.run(command, capture_output=True, text=True, cwd=ROOT).stdout
    loading = "(def () -> mkd_core.io.bundle.Bundle)"
    bundle = f"mkd_core.io.bundle.Bundle | pathlib.Path | str | {loading} | None"
    assert f"def (image: Any, bundle: {bundle}" in shown, shown
    assert "-> mkd_core.inference.pipeline.SegmentationResult" in shown
    assert "-> mkd_core.io.bundle.Bundle" in shown
    assert "mkd_core.structures.Structure" in shown
    assert 'TypedDict "Report" has no key "no such entry"' in shown
    assert "Found 1 error" in shown, shown
