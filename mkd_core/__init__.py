"""Whole-heart segmentation by image alignment and online mutual knowledge distillation.

Plain Python on torch, SimpleITK and numpy; never imports Slicer, Qt or VTK.  ``import mkd_core`` works and is quick
before torch is
installed: torch is imported when a network is needed.

Example:
    >>> import SimpleITK as sitk, mkd_core                                        # doctest: +SKIP
    >>> result = mkd_core.segment(sitk.ReadImage("ct.nii.gz"), mkd_core.default_bundle_path())   # doctest: +SKIP
    >>> sitk.WriteImage(result.labels, "heart.nii.gz")                            # doctest: +SKIP
"""

from __future__ import annotations

__version__ = "0.4.0"


def __getattr__(name: str):
    """Resolve the public functions at first use, so that importing the package costs nothing."""
    if name in ("segment", "SegmentationResult", "SegmentationOptions"):
        from mkd_core.inference import pipeline

        return getattr(pipeline, name)
    if name in ("Bundle", "load_bundle", "default_bundle_path"):
        from mkd_core.io import bundle

        return getattr(bundle, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
