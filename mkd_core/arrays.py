"""NumPy arrays as tensors and tensors as NumPy arrays, on the same memory.

``torch.from_numpy`` and ``Tensor.numpy`` work only where PyTorch was built for the generation of NumPy that is
installed.  The last PyTorch for Slicer on macOS (2.2.2, Intel) was built for NumPy 1, while Slicer comes with NumPy 2.
The buffer protocol and NumPy's array interface do not depend on how either was built.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

#: Types that both have, by the name that both give them.
_TYPES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")


def as_tensor(array: np.ndarray) -> torch.Tensor:
    """View an array as a CPU tensor of the same shape and type; copies only what is read-only or not C-contiguous.

    Raises:
        TypeError: PyTorch 2.2 has no such type, as it has none for unsigned integers of 16 bits and more.
    """
    import torch

    if array.dtype.name not in _TYPES or not array.dtype.isnative:
        raise TypeError(f"There is no tensor of type {array.dtype}.")
    dtype = getattr(torch, array.dtype.name)
    if array.size == 0:  # a buffer must have something in it
        return torch.empty(array.shape, dtype=dtype)
    whole = array if array.flags.c_contiguous and array.flags.writeable else array.copy(order="C")
    return torch.frombuffer(whole.reshape(-1), dtype=dtype).view(whole.shape)


def as_array(tensor: torch.Tensor) -> np.ndarray:
    """View a CPU tensor, whatever its strides, as a writable array of the same shape and type.

    Raises:
        TypeError: NumPy has no such type (bfloat16), or the tensor is on another device or part of a gradient.
    """
    name = str(tensor.dtype).removeprefix("torch.")
    if name not in _TYPES or tensor.device.type != "cpu" or tensor.requires_grad:
        raise TypeError(f"There is no array of {tensor.dtype} on {tensor.device}, gradient {tensor.requires_grad}.")
    if tensor.numel() == 0:  # without memory that NumPy could be shown
        return np.empty(tuple(tensor.shape), np.dtype(name))
    return np.asarray(_Memory(tensor, np.dtype(name)))


class _Memory:
    """What NumPy asks for. An array that is made of it keeps it, and so the tensor, alive."""

    def __init__(self, tensor: torch.Tensor, dtype: np.dtype) -> None:
        self.tensor = tensor
        self.__array_interface__: dict[str, Any] = {
            "version": 3,
            "typestr": dtype.str,
            "shape": tuple(tensor.shape),
            "strides": tuple(step * dtype.itemsize for step in tensor.stride()),
            "data": (tensor.data_ptr(), False),
        }
