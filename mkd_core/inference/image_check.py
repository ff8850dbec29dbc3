"""Is this a volume that can be segmented?  Refusals and doubts, in the user's words, before any network runs."""

from __future__ import annotations

import SimpleITK as sitk
import numpy as np

from mkd_core.errors import InputError
from mkd_core.inference.quick_check import AIR_OR_LUNG, MAX_EXTENT, SPACING_RANGE, quick_check

#: Fewest voxels along each axis.
MIN_VOXELS = 8

_EXAMINED_SLICES = 64


def validate_image(image: sitk.Image, modality: str) -> list[str]:
    """Refuse what cannot be segmented.

    Args:
        image: the volume.
        modality: "CT" or "MR".

    Returns:
        Doubts that do not stop the segmentation, one sentence each.

    Raises:
        InputError: with the reason and what to do.
    """
    _check_kind(image)
    _check_grid(image)
    return _check_intensities(sitk.GetArrayViewFromImage(image), image.GetSpacing()[::-1], modality)


def _check_kind(image: sitk.Image) -> None:
    if image.GetDimension() == 4:
        raise InputError("The volume is a time series.", "Choose one frame of it.")
    if image.GetDimension() != 3:
        raise InputError(
            f"The image has {image.GetDimension()} dimensions where a volume has 3.",
            "Choose a volume, not a single slice.",
        )
    if image.GetNumberOfComponentsPerPixel() != 1:
        raise InputError(
            "The volume has colours or vectors, not plain intensities.", "Choose the original CT or MR volume."
        )
    if "complex" in image.GetPixelIDTypeAsString():
        raise InputError("The volume holds complex numbers.", "Choose its magnitude.")


def _check_grid(image: sitk.Image) -> None:
    size, spacing = image.GetSize(), image.GetSpacing()
    if min(size) < MIN_VOXELS:
        raise InputError(
            f"The volume has only {' x '.join(map(str, size))} voxels.", "Choose a whole series, not a few slices."
        )
    low, high = SPACING_RANGE
    if not all(low <= step <= high for step in spacing):
        raise InputError(
            f"The voxel size {' x '.join(f'{step:.4g}' for step in spacing)} mm cannot be right.",
            "Check the volume's spacing in the Volumes module.",
        )
    longest = max(count * step for count, step in zip(size, spacing))
    if longest > MAX_EXTENT:
        raise InputError(
            f"The volume is {longest / 1000:.1f} m long, which cannot be right.",
            "Check the volume's spacing in the Volumes module.",
        )
    if not np.isfinite(image.GetOrigin()).all():
        raise InputError("The volume's position is not a number.", "Centre the volume in the Volumes module.")


def _check_intensities(all_voxels: np.ndarray, spacing: tuple[float, ...], modality: str) -> list[str]:
    if all_voxels.dtype.kind == "f":
        for voxels_of_slice in all_voxels:
            if not np.isfinite(voxels_of_slice).all():
                kind = "NaN (not a number)" if np.isnan(voxels_of_slice).any() else "infinite"
                raise InputError(
                    f"The volume holds voxels that are {kind}.",
                    "Replace them, for example by the Threshold Scalar Volume module.",
                )
    # The few slices are spread over all axes' middle, whatever the axes are.
    step = max(1, len(all_voxels) // _EXAMINED_SLICES)
    some = all_voxels[::step]
    low, high = float(some.min()), float(some.max())
    if low == high:
        raise InputError("All voxels of the volume have the same value.", "Choose another volume.")
    if low >= 0:
        _check_kind_of_image(all_voxels, spacing, modality)
    if modality == "CT":
        return _check_hounsfield(some, low, high)
    if low < -900 and np.mean(some[:, ::4, ::4] < -800) > 0.02:
        return ["The intensities look like CT in Hounsfield units, but the volume is taken for an MR."]
    return []


def _check_kind_of_image(voxels: np.ndarray, spacing: tuple[float, ...], modality: str) -> None:
    """Refuse what is known by having no value below zero: a label map, or a CT without its offset."""
    for finding in quick_check(voxels, spacing, modality):
        if finding.code == "labels":
            raise InputError(
                f"The volume looks like a label map with {finding.figures['values']:.0f} different values, not like "
                "an image.",
                "Choose the CT or MR that belongs to it.",
            )
        if finding.code == "stored_ct":
            raise InputError(
                "The intensities are not Hounsfield units: no voxel is below zero, and water lies near 1000 instead "
                "of 0.",
                "Load the CT from its DICOM files; or subtract 1024, if that is how it was shifted.",
            )


def _check_hounsfield(some: np.ndarray, low: float, high: float) -> list[str]:
    if low >= 0:
        raise InputError(
            "The intensities are not Hounsfield units: no voxel is below zero.",
            "Choose the modality MR for an MR volume; load a CT from its DICOM files.",
        )
    if high < 50:
        raise InputError(
            "The intensities are not Hounsfield units: no voxel is as bright as soft tissue.",
            "Load the CT from its DICOM files.",
        )
    if low > AIR_OR_LUNG:
        return [
            "The volume shows neither air nor lung, which is unusual for a CT in Hounsfield units: check that it is "
            "one."
        ]
    return []
