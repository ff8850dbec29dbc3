"""What this Python and this computer offer, for the panel and for bug reports.  Works without torch."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import Any

from mkd_core import __version__


def describe_environment() -> dict[str, Any]:
    """Versions and devices, plain values.

    Returns:
        ``mkd_core``, ``python``, ``platform``, ``cores``, version of ``numpy``, ``scipy``, ``SimpleITK`` and ``torch``
        (None where missing). With torch also ``devices`` that can be chosen, what "auto" means: ``device``,
        ``precision`` and ``threads``, and ``no_gpu``, why no graphics card is used (empty if one is); without it
        ``torch_problem``.
    """
    report: dict[str, Any] = {
        "mkd_core": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
    } | {name: _version(name) for name in ("numpy", "scipy", "SimpleITK", "torch")}
    try:
        import torch

        from mkd_core.inference.execution import choose_device, choose_precision

        device = choose_device("auto")
    except Exception as error:  # whatever a broken installation comes up with
        return report | {"torch_problem": str(error)}
    return report | {
        "torch": torch.__version__,
        "devices": _devices(torch),
        "device": str(device),
        "precision": str(choose_precision("auto", device)).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "no_gpu": _why_no_gpu(torch, device),
    }


def available_memory() -> int | None:
    """Bytes of memory that programs can still get, None where this computer does not tell."""
    try:
        if platform.system() == "Linux":
            with open("/proc/meminfo", encoding="ascii", errors="replace") as info:
                return next(int(line.split()[1]) * 1024 for line in info if line.startswith("MemAvailable:"))
        if platform.system() == "Windows":
            return _available_on_windows()
    except (OSError, StopIteration, ValueError):
        pass
    return None


def _available_on_windows() -> int:
    import ctypes

    class MemoryStatus(ctypes.Structure):
        _fields_ = [("length", ctypes.c_uint32), ("load", ctypes.c_uint32)] + [
            (name, ctypes.c_uint64)
            for name in (
                "total",
                "available",
                "total_page",
                "available_page",
                "total_virtual",
                "available_virtual",
                "available_extended",
            )
        ]

    status = MemoryStatus(length=ctypes.sizeof(MemoryStatus))
    kernel = ctypes.windll.kernel32  # type: ignore[attr-defined,unused-ignore]  # known on Windows only
    if not kernel.GlobalMemoryStatusEx(ctypes.byref(status)):
        raise OSError("the memory status is not told")
    return status.available


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _why_no_gpu(torch, device) -> str:
    if device.type != "cpu":
        return ""
    if torch.backends.mps.is_available():
        return (
            "The Apple graphics processor is used only if it is chosen as device: the processor is as exact everywhere."
        )
    if torch.version.cuda is None and getattr(torch.version, "hip", None) is None:
        return "The installed PyTorch is a version without support for graphics cards."
    return "PyTorch finds no graphics card: there is none that it supports, or its driver is missing or too old."


def _devices(torch) -> list[dict[str, Any]]:
    devices = [{"device": "cpu", "name": platform.processor() or platform.machine()}]
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(number)
            devices.append(
                {
                    "device": f"cuda:{number}",
                    "name": properties.name,
                    "memory_gb": round(properties.total_memory / 2**30, 1),
                }
            )
    if torch.backends.mps.is_available():
        devices.append({"device": "mps", "name": "Metal"})
    return devices
