"""Volumes on disk: read with reasons, written all or nothing."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import SimpleITK as sitk

from mkd_core.errors import InputError
from mkd_core.io.dicom import series_files, series_modality
from mkd_core.io.integrity import check_volume_file, unreadable
from mkd_core.protocol import MODALITY_TAG

#: File names that volumes can be written to.
WRITABLE = (".nrrd", ".nii.gz", ".nii", ".mha")


def read_volume(path: Path | str, *, check: bool = True) -> sitk.Image:
    """Read a volume from an image file, or from a folder that holds one DICOM series.

    Args:
        path: NRRD, NIfTI or MetaImage file, or the folder.
        check: whether to look first if the file is whole, which takes as long again for a compressed one; False for a
            file that was checked before.

    Raises:
        InputError: no such file, several series, not whole, or nothing that can be read; names the file.
    """
    path = Path(path)
    try:
        if path.is_dir():
            files = series_files(path)
            image = sitk.ReadImage(files)
            if modality := series_modality(files[0]):
                image.SetMetaData(MODALITY_TAG, modality)
            return image
        if not path.is_file():  # a pipe or a device would make us wait
            raise InputError(f"“{path}” is not a file." if path.exists() else f"There is no file “{path}”.")
        if check:
            check_volume_file(path)
        return sitk.ReadImage(str(path))
    except RuntimeError as error:
        if "orthonormal" in str(error):
            raise InputError(
                f"The axes of “{path.name}” are not at right angles.",
                "Resample it; or, if that is no more than rounding, set the environment variable "
                "ITK_NIFTI_SFORM_PERMISSIVE to YES.",
            ) from error
        if "allocate memory" in str(error):
            raise InputError(
                f"The memory of this computer is too small for “{path.name}”.",
                "Close other programs, or cut the volume to the chest.",
            ) from error
        raise unreadable(path) from error
    except OSError as error:
        raise InputError(f"“{path}” cannot be read ({error.strerror}).") from error


def check_writable(path: Path | str) -> None:
    """Refuse an output path before the work is done for it.

    Raises:
        InputError: a file name that means no volume format, or a folder that is not there or closed to us.
    """
    path = Path(path)
    if not path.name.lower().endswith(WRITABLE):
        raise InputError(f"“{path.name}” is not a name for a volume.", f"End it in one of {', '.join(WRITABLE)}.")
    check_folder(path)


def check_folder(path: Path | str) -> None:
    """Refuse a path in a folder that is not there or closed to us.

    Raises:
        InputError: with the folder's name.
    """
    path = Path(path)
    folder = path.absolute().parent
    if not folder.is_dir():
        raise InputError(f"There is no folder “{folder}”.")
    if path.is_dir() or not os.access(folder, os.W_OK):
        raise InputError(f"“{path}” cannot be written.")


def check_output_folder(path: Path | str) -> None:
    """Refuse a folder that results cannot be written to; it need not be there yet.

    Raises:
        InputError: with the folder's name.
    """
    path = Path(path).absolute()
    nearest = next(folder for folder in (path, *path.parents) if folder.exists())
    if not nearest.is_dir():
        raise InputError(f"“{nearest}” is a file where a folder for results is needed.")
    if not os.access(nearest, os.W_OK):
        raise InputError(f"The folder “{path}” cannot be written.")


def write_volume(image: sitk.Image, path: Path | str, *, compress: bool = True) -> None:
    """Write a volume under a temporary name and give it its own when it is complete.

    Args:
        image: the volume.
        path: ends in one of :data:`WRITABLE`.
        compress: smaller and slower; ``.nii.gz`` is always compressed.

    Raises:
        InputError: it cannot be written.
    """
    path = Path(path)
    suffix = next((ending for ending in WRITABLE if path.name.lower().endswith(ending)), path.suffix)
    handle, name = tempfile.mkstemp(prefix=".", suffix=suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        sitk.WriteImage(image, name, useCompression=compress)
        temporary.chmod(0o644)  # temporary files are private
        os.replace(temporary, path)
    except (RuntimeError, OSError) as error:
        raise InputError(f"“{path}” cannot be written.", "Check the folder and the space on the disk.") from error
    finally:
        temporary.unlink(missing_ok=True)
