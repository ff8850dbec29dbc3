"""What may be imported where: the core knows nothing of Slicer, and is quick until a network is needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "mkd_core").rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Top-level names of all modules that a file imports anywhere."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_file_of_the_core_imports_anything_of_slicer_or_unpickles(path):
    assert not imported(path) & {"slicer", "qt", "ctk", "vtk", "mrml", "sitkUtils", "PySide6", "pickle"}


def loaded_by(statement: str) -> set[str]:
    """Heavy modules that a statement loads."""
    heavy = {"torch", "numpy", "scipy", "SimpleITK", "safetensors", "matplotlib"}
    heavy |= {"pydicom", "highdicom", "dicomweb_client", "requests", "dask", "distributed", "pyarrow", "PIL"}
    code = f"{statement}\nimport sys; print(*sorted({heavy} & set(sys.modules)))"
    return set(
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
        ).stdout.split()
    )


@pytest.mark.parametrize(
    ("statement", "allowed"),
    [
        ("import mkd_core, mkd_core.structures, mkd_core.errors, mkd_core.worker, mkd_core.cli", set()),
        ("from mkd_core.io.bundle import read_description, default_bundle_path", {"numpy"}),
        (
            "from mkd_core import segment, SegmentationOptions; from mkd_core.io import preview",
            {"numpy", "scipy", "SimpleITK"},
        ),
        (
            "from mkd_core.io import volumes, dicom, dicom_out, dicomweb; from mkd_core import worker",
            {"numpy", "scipy", "SimpleITK"},
        ),
    ],
)
def test_nothing_heavy_is_loaded_before_it_is_needed(statement, allowed):
    assert loaded_by(statement) <= allowed


def test_a_first_click_loads_no_package_that_it_does_not_need(tmp_path):
    # Each of them takes a good part of a second: PyTorch's compiler, its computer algebra, and parts of SciPy.
    code = (
        "import sys, SimpleITK as sitk\n"
        "from mkd_core.synthesis.render import synthesize\n"
        f"sitk.WriteImage(synthesize(None, 'CT', 3, spacing=3.0)[0], {str(tmp_path / 'ct.nrrd')!r})\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    code = (
        "import sys, torch\n"
        "with torch.device('meta'):\n"  # old ones load their computer algebra for any layer without data
        "    torch.nn.Conv3d(1, 1, 1), torch.nn.BatchNorm3d(1)\n"
        "of_torch = set(sys.modules)\n"
        "from mkd_core import cli\n"
        f"assert cli.main(['segment', '--quiet', {str(tmp_path / 'ct.nrrd')!r}, {str(tmp_path / 'out.nrrd')!r}]) == 0\n"
        "heavy = ('torch._dynamo', 'torch._inductor', 'sympy', 'scipy.optimize', 'scipy.stats', 'scipy.interpolate')\n"
        "print(*(name for name in heavy if name in sys.modules and name not in of_torch))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.split() == []
