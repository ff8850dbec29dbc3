"""Print the public names of PyTorch and NumPy in this environment, one namespace a line.

Usage: .venv-oldest/bin/python -m Testing.oldest_names > Testing/core/oldest_names.txt

Testing/core/test_arrays.py holds what a click runs to these names, so that a newer one is noticed on every machine.
Run it again when Testing/requirements-oldest.txt has other versions.
"""

from __future__ import annotations

import importlib

NAMESPACES = (
    *("numpy", "numpy.fft", "numpy.lib.stride_tricks", "numpy.linalg", "numpy.ma", "numpy.random", "numpy.typing"),
    *("torch", "torch.backends", "torch.cpu", "torch.cuda", "torch.fft"),
    *("torch.linalg", "torch.nn", "torch.nn.functional", "torch.nn.init", "torch.nn.utils", "torch.nn.utils.fusion"),
    *("torch.special", "torch.utils.data", "torch.version"),
)

if __name__ == "__main__":
    for namespace in NAMESPACES:
        names = sorted(
            name
            for name in dir(importlib.import_module(namespace))
            if not name.startswith("_") or name == "__version__"
        )
        print(f"{namespace}:", *names)
