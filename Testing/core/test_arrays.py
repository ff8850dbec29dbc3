"""What a click runs works with every PyTorch and NumPy that Slicer has, from torch 2.2.2 and NumPy 1.26 on.

`make test-oldest` runs this file, among others, with the oldest versions.
"""

from __future__ import annotations

import ast
import gc
import importlib
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from mkd_core.arrays import as_array, as_tensor

ROOT = Path(__file__).resolve().parents[2]
#: Folders of the package that no click runs.
TRAINING = ("evaluation", "training")
#: Public names of the oldest versions by their namespace (`python -m Testing.oldest_names`).
OLDEST_NAMES = {
    line.partition(":")[0]: set(line.partition(":")[2].split())
    for line in (ROOT / "Testing" / "core" / "oldest_names.txt").read_text(encoding="utf-8").splitlines()
}

#: Newer names that the code asks for with hasattr() first.
GUARDED = {"torch.cpu.get_capabilities"}

TYPES = (np.bool_, np.uint8, np.int16, np.int32, np.int64, np.float16, np.float32, np.float64)


@pytest.mark.parametrize("dtype", TYPES)
def test_an_array_and_its_tensor_are_the_same_memory(dtype):
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    tensor = as_tensor(array)
    assert tuple(tensor.shape) == (2, 3, 4)
    assert str(tensor.dtype) == f"torch.{array.dtype.name}"
    assert tensor.tolist() == array.tolist()
    tensor[1, 2, 3] = 0
    assert array[1, 2, 3] == 0


@pytest.mark.parametrize("dtype", TYPES)
def test_a_tensor_and_its_array_are_the_same_memory_whatever_the_strides(dtype):
    whole = as_tensor(np.arange(60).reshape(3, 4, 5).astype(dtype))
    for tensor in (whole, whole.permute(2, 0, 1), whole[1:, ::2, 3:], whole[0, 0, 0], whole[:0]):
        array = as_array(tensor)
        assert array.shape == tuple(tensor.shape)
        assert array.dtype == dtype
        assert array.tolist() == tensor.tolist()
    array = as_array(whole.permute(2, 0, 1))
    array[4, 2, 3] = 0
    assert whole[2, 3, 4] == 0


def test_an_array_outlives_its_tensor_and_a_tensor_its_array():
    array = as_array(torch.full((1000,), 7.0))
    tensor = as_tensor(np.full(1000, 5.0))
    gc.collect()
    _other = [torch.zeros(1000) for _ in range(50)]
    assert (array == 7.0).all()
    assert bool((tensor == 5.0).all())


def test_what_is_read_only_or_in_another_order_is_copied():
    array = np.arange(6.0).reshape(2, 3)
    array.flags.writeable = False
    tensor = as_tensor(array)
    tensor += 1.0
    assert array[0, 0] == 0.0
    assert as_tensor(np.arange(6.0).reshape(2, 3).T).tolist() == [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]
    assert as_tensor(np.zeros((0, 4), np.float32)).shape == (0, 4)


def test_types_that_the_other_does_not_have_are_refused():
    for array in (np.zeros(2, np.uint16), np.zeros(2, ">f4"), np.zeros(2, complex)):
        with pytest.raises(TypeError):
            as_tensor(array)
    for tensor in (torch.zeros(2, dtype=torch.bfloat16), torch.zeros(2, requires_grad=True), torch.zeros(2).to("meta")):
        with pytest.raises(TypeError):
            as_array(tensor)


def sources_of_a_click() -> dict[str, ast.Module]:
    """Parsed Python files that a click may run, by their path."""
    files = [*(ROOT / "mkd_core").rglob("*.py"), *(ROOT / "MKDSegmentation").rglob("*.py")]
    return {
        path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
        for path in files
        if path.relative_to(ROOT).parts[1] not in TRAINING
    }


def names_used(tree: ast.Module) -> set[str]:
    """Dotted names of PyTorch and NumPy in a file, such as "torch.nn.functional.interpolate"."""
    modules = {}
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] in ("torch", "numpy"):
                    modules[alias.asname or alias.name.split(".")[0]] = (
                        alias.name if alias.asname else alias.name.split(".")[0]
                    )
                    found.add(alias.name)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module.split(".")[0] in ("torch", "numpy"):
            for alias in node.names:
                modules[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                found.add(f"{node.module}.{alias.name}")
    for node in ast.walk(tree):
        parts = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if parts and isinstance(node, ast.Name) and node.id in modules:
            found.add(".".join([modules[node.id], *reversed(parts)]))
    return found


USED_NAMES = sorted(set().union(*map(names_used, sources_of_a_click().values())) - GUARDED)


@pytest.mark.parametrize("name", USED_NAMES)
def test_a_click_uses_no_name_that_the_oldest_torch_and_numpy_do_not_have(name):
    namespace = max((known for known in OLDEST_NAMES if f"{name}.".startswith(f"{known}.")), key=len)
    first, *_deeper = name.removeprefix(namespace).removeprefix(".").split(".")
    assert not first or first in OLDEST_NAMES[namespace] or f"{namespace}.{first}" in OLDEST_NAMES


@pytest.mark.parametrize("name", USED_NAMES)
def test_every_name_that_a_click_uses_is_in_this_torch_and_numpy(name):
    parts = name.split(".")
    value = importlib.import_module(parts[0])
    for number, part in enumerate(parts[1:], 2):
        if not hasattr(value, part):
            importlib.import_module(".".join(parts[:number]))
        value = getattr(value, part)


def test_a_click_never_relies_on_torch_and_numpy_being_built_for_each_other():
    for path, tree in sources_of_a_click().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                assert node.attr not in ("from_numpy", "numpy"), f"{path}:{node.lineno}: use mkd_core.arrays"


def test_a_click_never_unpickles():
    for path, tree in sources_of_a_click().items():
        names = names_used(tree)
        assert not names & {"torch.load", "torch.jit.load", "torch.hub", "numpy.load"}, path
