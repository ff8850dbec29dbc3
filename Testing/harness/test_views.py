"""Pictures of the stand-in GUI's views show the image and the segmentation where Slicer would show them."""

import numpy
import pytest

RED, BLUE = (230, 30, 30), (30, 60, 230)


@pytest.fixture
def segmentedVolume(slicerApp):
    """A volume of 60 mm that is bright at the patient's head, with a red segment on the right and a blue one on the
    left, both behind.
    """
    import slicer
    import vtk

    voxels = numpy.full((30, 30, 30), -500, numpy.int16)
    voxels[20:] = 500
    ijkToRas = vtk.vtkMatrix4x4()
    ijkToRas.DeepCopy(
        [-2, 0, 0, 30, 0, -2, 0, 30, 0, 0, 2, -30, 0, 0, 0, 1]
    )  # i to the left, j to the back, k to the head
    volume = slicer.util.addVolumeFromArray(voxels, ijkToRAS=ijkToRas, name="ct")
    labels = numpy.zeros_like(voxels, numpy.uint8)
    labels[10:20, 18:26, 4:12] = 1
    labels[10:20, 18:26, 18:26] = 2
    labelNode = slicer.util.addVolumeFromArray(labels, ijkToRAS=ijkToRas, nodeClassName="vtkMRMLLabelMapVolumeNode")
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    segmentation.CreateDefaultDisplayNodes()
    slicer.modules.segmentations.logic().ImportLabelmapToSegmentationNode(labelNode, segmentation)
    slicer.mrmlScene.RemoveNode(labelNode)
    for index, color in enumerate((RED, BLUE)):
        segmentation.GetSegmentation().GetNthSegment(index).SetColor(*[value / 255 for value in color])
    segmentation.CreateClosedSurfaceRepresentation()
    slicer.util.setSliceViewerLayers(background=volume)
    return segmentation


def _pixels(image):
    from PySide6 import QtGui

    image = image.convertToFormat(QtGui.QImage.Format.Format_RGB888)
    rows = numpy.array(image.constBits()).reshape(image.height(), image.bytesPerLine())
    return rows[:, : image.width() * 3].reshape(image.height(), -1, 3).astype(int)


def _centre(pixels, color):
    """Return the (row, column) of the middle of what is coloured like `color`, as fractions of the picture."""
    strongest = int(numpy.argmax(color))
    others = [channel for channel in range(3) if channel != strongest]
    coloured = pixels[..., strongest] > pixels[..., others].max(axis=2) + 40
    assert coloured.mean() > 0.005, "the colour is not in the picture"
    return numpy.argwhere(coloured).mean(axis=0) / coloured.shape


def test_an_axial_slice_shows_the_patients_right_on_the_left_and_the_back_below(segmentedVolume):
    from Testing.harness import views

    pixels = _pixels(views.sliceImage("Red"))
    red, blue = _centre(pixels, RED), _centre(pixels, BLUE)
    assert red[1] < 0.45 < 0.55 < blue[1]
    assert red[0] > 0.55


def test_a_coronal_slice_shows_the_head_above_and_overlays_are_transparent(segmentedVolume):
    from Testing.harness import views

    pixels = _pixels(views.sliceImage("Green", point=(0, -12, 0)))
    gray = pixels.mean(axis=2)
    assert gray[:100].mean() > gray[-100:].mean() + 50
    height, width = gray.shape
    row, column = (_centre(pixels, RED) * (height, width)).astype(int)
    assert pixels[row, column, 0] < 200, "the fill hides the image"


def test_a_slice_can_be_put_through_a_point_with_a_chosen_field_of_view(segmentedVolume):
    from Testing.harness import views

    pixels = _pixels(views.sliceImage("Red", point=(14, -12, 0), field=24))
    assert numpy.allclose(_centre(pixels, RED), 0.5, atol=0.12)


def test_the_3d_view_shows_the_surfaces_as_seen_from_the_front(segmentedVolume):
    from Testing.harness import views

    pixels = _pixels(views.threeDImage(direction=(0, 1, 0)))
    assert _centre(pixels, RED)[1] < 0.5 < (pixels[..., 2] - pixels[..., 1] > 120).nonzero()[1].mean() / pixels.shape[1]


def test_a_screenshot_with_panel_and_views_is_written(segmentedVolume, loadModule, tmp_path):
    from pathlib import Path

    from PySide6 import QtGui

    from Testing.harness import views

    _module, widget = loadModule(Path(__file__).with_name("sample") / "StandInSample.py")
    views.screenshot(tmp_path / "new folder" / "shot.png", widget, view=200)
    image = QtGui.QImage(str(tmp_path / "new folder" / "shot.png"))
    assert (image.width(), image.height()) == (440 + 412, max(404, image.height()))
    assert len(numpy.unique(_pixels(image)[:, :440].reshape(-1, 3), axis=0)) > 20
