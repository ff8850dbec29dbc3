"""A volume that Slicer's DICOM module would have loaded."""

from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk

from mkd_core.io import dicom
from Testing.support.dicom_exports import write_export
from Testing.support.panel_driving import SHAPE
from Testing.support.stored_volumes import rotation


def ct(turned: bool = True) -> sitk.Image:
    """A volume of noise, as DICOM has them, in an oblique direction."""
    image = sitk.GetImageFromArray(np.random.default_rng(0).integers(-1000, 1000, SHAPE).astype(np.int16))
    image.SetSpacing((1.5, 1.5, 2.0))
    image.SetOrigin((-40.0, 30.0, 100.0))
    if turned:
        image.SetDirection(rotation((0.3, 0, 0.3)).ravel().tolist())
    return image


def loadFromDatabase(folder: Path, **how):
    """Put a series into the DICOM database and add it to the scene, as Slicer's DICOM module does; the node, and the
    image as other programs read it.
    """
    import slicer

    paths = write_export(ct(), folder, **how)
    for path in paths:
        slicer.dicomDatabase.insert(str(path), False)
    image, _ = dicom.read(dicom.choose(dicom.index([folder]).series).series)
    lps = np.eye(4)
    lps[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    lps[:3, 3] = image.GetOrigin()
    ijkToRas = slicer.util.vtkMatrixFromArray(np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps)
    node = slicer.util.addVolumeFromArray(sitk.GetArrayFromImage(image), ijkToRAS=ijkToRas, name="CT")
    uids = [str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in paths]
    node.SetAttribute("DICOM.instanceUIDs", " ".join(uids))
    return node, image
