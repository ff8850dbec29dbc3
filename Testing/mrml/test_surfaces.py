"""Surfaces for the views, on bare MRML nodes."""

import numpy as np
import pytest

pytest.importorskip("slicer")


def ball(spacing, radius=12.0):
    """Return a ball as label 1 on cubes of this size, mm."""
    half = int(radius / spacing) + 3
    places = np.indices((2 * half,) * 3) - half
    return (np.linalg.norm(places * spacing, axis=0) < radius).astype(np.uint8)


def surfaceOf(addVolume, spacing):
    """Return the surface of a ball that is shown, and the one that Slicer makes of all voxels."""
    import vtk

    from MKDSegmentationLib.run.volumeTransfer import LabelBlock
    from MKDSegmentationLib.scene.segmentationWriting import writeSegmentation
    from MKDSegmentationLib.scene.surfaces import surfaceSteps

    labels = ball(spacing)
    volume = addVolume(labels.astype(np.int16), np.diag([-spacing, -spacing, spacing, 1.0]))
    segmentation = writeSegmentation(LabelBlock(labels, (0, 0, 0)), volume).GetSegmentation()
    node = volume.GetScene().GetFirstNodeByClass("vtkMRMLSegmentationNode")
    list(surfaceSteps(node))
    shown = vtk.vtkPolyData()
    shown.DeepCopy(segmentation.GetSegment("LV").GetRepresentation("Closed surface"))
    segmentation.CreateRepresentation("Closed surface", True)
    return shown, segmentation.GetSegment("LV").GetRepresentation("Closed surface")


def millilitres(surface):
    import vtk

    properties = vtk.vtkMassProperties()
    properties.SetInputData(surface)
    return properties.GetVolume() / 1000.0


def test_of_fine_voxels_fewer_are_used_and_the_surface_lies_where_it_would(addVolume):
    shown, full = surfaceOf(addVolume, 0.4)
    assert shown.GetNumberOfPoints() < full.GetNumberOfPoints() / 3
    assert millilitres(shown) == pytest.approx(millilitres(full), rel=0.02)
    assert np.allclose(shown.GetBounds(), full.GetBounds(), atol=0.5), "within half of a larger voxel"


def test_of_usual_voxels_all_are_used(addVolume):
    shown, full = surfaceOf(addVolume, 1.0)
    assert shown.GetNumberOfPoints() == full.GetNumberOfPoints()
    assert np.allclose(shown.GetBounds(), full.GetBounds())
