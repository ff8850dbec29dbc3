"""Pictures of what Slicer's views would show: its real displayable managers, rendered off screen, and the panel as Qt
draws it.
"""

import os
from pathlib import Path

import slicer
import vtk
from PySide6 import QtGui
from vtk.util import numpy_support

from . import driving
from .pythonqt import unwrap

SLICE_MANAGERS = ("vtkMRMLModelSliceDisplayableManager", "vtkMRMLSegmentationsDisplayableManager2D")
THREED_MANAGERS = (
    "vtkMRMLCameraDisplayableManager",
    "vtkMRMLViewDisplayableManager",
    "vtkMRMLModelDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager3D",
)
ORIENTATIONS = {"Red": "Axial", "Yellow": "Sagittal", "Green": "Coronal"}


def sliceImage(name="Green", point=None, size=(480, 480), field=None):
    """Return a QImage of a slice view ("Red" axial, "Yellow" sagittal, "Green" coronal).

    :param point: RAS position in mm through which the slice goes; by default the middle of the background volume.
    :param field: width of the picture in mm around `point`; by default the whole volume is shown.
    The background is what slicer.util.setSliceViewerLayers chose; segmentations show by their own display settings.
    """
    logic = slicer.app.layoutManager().sliceWidget(name).sliceLogic()
    sliceNode = logic.GetSliceNode()
    sliceNode.SetOrientation(ORIENTATIONS[name])
    logic.ResizeSliceNode(*size)
    logic.FitSliceToBackground(*size)
    logic.SnapSliceOffsetToIJK()
    if point is not None:
        sliceNode.JumpSliceByCentering(*point)
        if field is None:
            logic.FitSliceToBackground(*size)
            sliceNode.JumpSliceByOffsetting(*point)
        else:
            sliceNode.SetFieldOfView(field, field * size[1] / size[0], sliceNode.GetFieldOfView()[2])
    renderer, window = _window(size)
    overlay = vtk.vtkRenderer()  # as in Slicer: the image below, what lies over it in a layer of its own
    overlay.SetLayer(1)
    window.SetNumberOfLayers(2)
    window.AddRenderer(overlay)
    factory = slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance()
    with _Group(factory, SLICE_MANAGERS, overlay, sliceNode):
        mapper = vtk.vtkImageMapper()
        mapper.SetColorWindow(255)
        mapper.SetColorLevel(127.5)
        mapper.SetInputConnection(logic.GetImageDataConnection())
        picture = vtk.vtkActor2D()
        picture.SetMapper(mapper)
        picture.GetProperty().SetDisplayLocationToBackground()
        if logic.GetBackgroundLayer().GetVolumeNode() is not None:
            renderer.AddViewProp(picture)
        return _render(window)


def threeDImage(direction=(-0.35, 1.0, 0.25), size=(480, 480), zoom=1.15):
    """Return a QImage of the 3D view, seen from `direction` in RAS: by default the patient's front, a little from the
    right and above.
    """
    viewNode = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLViewNode")
    viewNode.SetBoxVisible(False)
    viewNode.SetAxisLabelsVisible(False)  # they would count when the camera is fitted
    renderer, window = _window(size)
    with _Group(slicer.vtkMRMLThreeDViewDisplayableManagerFactory.GetInstance(), THREED_MANAGERS, renderer, viewNode):
        renderer.GradientBackgroundOn()
        renderer.SetBackground(viewNode.GetBackgroundColor())
        renderer.SetBackground2(viewNode.GetBackgroundColor2())
        window.Render()
        camera = renderer.GetActiveCamera()
        camera.SetFocalPoint(0, 0, 0)
        camera.SetPosition(*direction)
        camera.SetViewUp(0, 0, 1)
        renderer.ResetCamera()
        camera.Zoom(zoom)
        renderer.ResetCameraClippingRange()
        return _render(window)


def panelImage(widget, width=440, height=None):
    """Return a QImage of a module's panel (the widget that `loadModule` returns) in `width` pixels.

    With a height, it is what an area of that height shows, scroll bar included: one picture per position of the scroll
    bar, side by side.
    """
    raw = unwrap(widget.parent)
    area = raw.window()  # what it is shown in, with a scroll bar at its side
    if height is not None:
        return _pages(area, width, height)
    seen = []
    for _round in range(20):  # the height depends on the width, and layouts ask one by one
        beside = area.width() - area.viewport().width()
        area.resize(width + beside, max(raw.sizeHint().height(), raw.minimumSizeHint().height()))
        driving.processEvents(0.05)
        seen.append((raw.width(), raw.height()))
        if len(seen) >= 4 and len(set(seen[-4:])) == 1:
            break
    return raw.grab().toImage()


def _pages(area, width, height):
    area.resize(width, height)
    for _round in range(4):
        driving.processEvents(0.05)
    bar = area.verticalScrollBar()
    pages = []
    for position in range(0, bar.maximum() + area.viewport().height(), area.viewport().height()):
        bar.setValue(position)
        driving.processEvents(0.05)
        pages.append(area.grab().toImage())
        if bar.value() == bar.maximum():
            break
    bar.setValue(0)
    canvas = QtGui.QImage(len(pages) * (width + 8) - 8, height, QtGui.QImage.Format.Format_RGB32)
    canvas.fill(QtGui.QColor(60, 60, 60))
    painter = QtGui.QPainter(canvas)
    for number, page in enumerate(pages):
        painter.drawImage(number * (width + 8), 0, page)
    painter.end()
    return canvas


def screenshot(path, widget, point=None, field=None, view=None):
    """Write a PNG of :func:`windowImage`."""
    save(windowImage(widget, point, field, view), path)


def windowImage(widget, point=None, field=None, view=None, width=440, height=None):
    """Return a QImage laid out like Slicer's window: the panel on the left; axial, 3D, coronal and sagittal views on
    the right, as high as the panel together if no size is given.
    """
    panel = panelImage(widget, width, height)
    half = max(400, (panel.height() - 4) // 2)
    wide, high = view or min(half, 640), view or half
    images = (
        ("Red", sliceImage("Red", point, (wide, high), field)),
        ("3D", threeDImage(size=(wide, high))),
        ("Green", sliceImage("Green", point, (wide, high), field)),
        ("Yellow", sliceImage("Yellow", point, (wide, high), field)),
    )
    canvas = QtGui.QImage(
        panel.width() + 2 * wide + 12, max(panel.height(), 2 * high + 4), QtGui.QImage.Format.Format_RGB32
    )
    canvas.fill(QtGui.QColor(60, 60, 60))
    painter = QtGui.QPainter(canvas)
    painter.drawImage(0, 0, panel)
    for index, (_name, image) in enumerate(images):
        painter.drawImage(panel.width() + 8 + (index % 2) * (wide + 4), (index // 2) * (high + 4), image)
    painter.end()
    return canvas


def save(image, path):
    """Write a QImage; raises OSError if that fails."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    if not image.save(os.fspath(path), "PNG", 0):  # smallest file
        raise OSError(f"could not write {path}")


class _Group:
    """The displayable managers of one view, for as long as the block lasts."""

    def __init__(self, factory, managers, renderer, node):
        for manager in managers:
            if not factory.IsDisplayableManagerRegistered(manager):
                factory.RegisterDisplayableManager(manager)
        self._group = slicer.vtkMRMLDisplayableManagerGroup()
        self._group.Initialize(factory, renderer)
        self._group.SetMRMLDisplayableNode(node)

    def __enter__(self):
        return self._group

    def __exit__(self, *_error):
        self._group.SetMRMLDisplayableNode(None)


def _window(size):
    renderer = vtk.vtkRenderer()
    window = vtk.vtkRenderWindow()
    window.SetOffScreenRendering(1)
    window.SetMultiSamples(4)
    window.SetSize(*size)
    window.AddRenderer(renderer)
    interactor = vtk.vtkRenderWindowInteractor()  # the displayable managers ask for one
    interactor.SetRenderWindow(window)
    return renderer, window


def _render(window):
    window.Render()
    grabber = vtk.vtkWindowToImageFilter()
    grabber.SetInput(window)
    grabber.ReadFrontBufferOff()
    grabber.Update()
    image = grabber.GetOutput()
    width, height, _depth = image.GetDimensions()
    pixels = numpy_support.vtk_to_numpy(image.GetPointData().GetScalars()).reshape(height, width, 3)[::-1].copy()
    window.Finalize()
    return QtGui.QImage(pixels.data, width, height, 3 * width, QtGui.QImage.Format.Format_RGB888).copy()
