"""Whole-heart segmentation by image alignment and online mutual knowledge distillation.

Plain Python on torch, SimpleITK and numpy; never imports Slicer, Qt or VTK.  ``import mkd_core`` works and is quick
before torch is installed: what a name needs is imported when the name is used.

Example:
    >>> import SimpleITK as sitk, mkd_core                                        # doctest: +SKIP
    >>> result = mkd_core.segment(sitk.ReadImage("ct.nii.gz"))                    # doctest: +SKIP
    >>> result.report["structures"]["LV"]["volume_ml"]                            # doctest: +SKIP
    >>> sitk.WriteImage(result.labels, "heart.nii.gz")                            # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkd_core.errors import (
        BundleError,
        Cancelled,
        DeviceError,
        DownloadError,
        InputError,
        MKDError,
        NoHeartError,
        ProtocolError,
    )
    from mkd_core.inference.pipeline import SegmentationResult, segment
    from mkd_core.io.bundle import Bundle, default_bundle_path, load_bundle
    from mkd_core.measure.messages import describe
    from mkd_core.protocol import (
        Finding,
        Report,
        SegmentationOptions,
        StructureReport,
        findings,
        parse_report,
    )
    from mkd_core.structures import CATALOGUE, STRUCTURES, Structure

__version__ = "0.4.0"

#: Where each public name is defined.
_HOMES = {
    "mkd_core.errors": (
        "BundleError",
        "Cancelled",
        "DeviceError",
        "DownloadError",
        "InputError",
        "MKDError",
        "NoHeartError",
        "ProtocolError",
    ),
    "mkd_core.inference.pipeline": ("SegmentationResult", "segment"),
    "mkd_core.io.bundle": ("Bundle", "default_bundle_path", "load_bundle"),
    "mkd_core.measure.messages": ("describe",),
    "mkd_core.protocol": (
        "Finding",
        "Report",
        "SegmentationOptions",
        "StructureReport",
        "findings",
        "parse_report",
    ),
    "mkd_core.structures": ("CATALOGUE", "STRUCTURES", "Structure"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

# Written out, so that tools that do not run the package see it too; Testing/core/test_public_api.py compares the lists.
__all__ = [
    "CATALOGUE",
    "STRUCTURES",
    "Bundle",
    "BundleError",
    "Cancelled",
    "DeviceError",
    "DownloadError",
    "Finding",
    "InputError",
    "MKDError",
    "NoHeartError",
    "ProtocolError",
    "Report",
    "SegmentationOptions",
    "SegmentationResult",
    "Structure",
    "StructureReport",
    "default_bundle_path",
    "describe",
    "findings",
    "load_bundle",
    "parse_report",
    "segment",
]


def __getattr__(name: str) -> Any:
    """Resolve the public names at first use, so that importing the package costs nothing."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = globals()[name] = getattr(importlib.import_module(_HOME_OF[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
