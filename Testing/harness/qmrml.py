"""Stand-ins for Slicer's MRML widgets, the node selector excepted (node_selector.py)."""

import slicer
import vtk
from PySide6 import QtCore, QtWidgets
from PySide6.QtCore import Property, Signal

from .api import standIn
from .ctk import ctkMenuButton
from .observations import Observations

CLOSED_SURFACE = "Closed surface"
BINARY_LABELMAP = "Binary labelmap"


@standIn
class qMRMLWidget(QtWidgets.QWidget):
    """A widget that hands the scene on through a signal."""

    mrmlSceneChanged = Signal(object)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._scene = None

    def mrmlScene(self):
        return self._scene

    def setMRMLScene(self, scene):
        if scene is not self._scene:
            self._scene = scene
            self.mrmlSceneChanged.emit(scene)


@standIn
class qMRMLSegmentationShow3DButton(ctkMenuButton):
    """A check button that makes and removes the closed surfaces of a segmentation; its menu of smoothing settings is
    not made.
    """

    def __init__(self, parent=None):
        super().__init__(parent)
        self._node, self._locked = None, False
        self._observations = Observations(self)
        self.setText("Show 3D")
        self.setCheckable(True)
        self.setEnabled(False)
        self.toggled.connect(self._onToggled)

    def segmentationNode(self):
        return self._node

    def setSegmentationNode(self, node):
        if node is self._node:
            return  # as in Slicer: saying it again brings nothing up to date
        self._observations.removeAll()
        self._node = node
        if node is not None:
            segmentation = slicer.vtkSegmentation
            events = (
                segmentation.SegmentAdded,
                segmentation.SegmentRemoved,
                segmentation.ContainedRepresentationNamesModified,
            )
            for event in (vtk.vtkCommand.ModifiedEvent, *events):
                self._observations.add(node, event, self._update)
        self._update()

    def _update(self, _data=None):
        segmentation = self._node.GetSegmentation() if self._node is not None else None
        sourceIsSurface = segmentation is not None and segmentation.GetSourceRepresentationName() == CLOSED_SURFACE
        self.setEnabled(
            segmentation is not None
            and not self._locked
            and segmentation.GetNumberOfSegments() > 0
            and not sourceIsSurface
        )
        if segmentation is not None:
            blocker = QtCore.QSignalBlocker(self)
            self.setChecked(segmentation.ContainsRepresentation(CLOSED_SURFACE))
            del blocker

    def _onToggled(self, on):
        segmentation = self._node.GetSegmentation() if self._node is not None else None
        if segmentation is None:
            return
        if not on:
            if segmentation.GetSourceRepresentationName() != CLOSED_SURFACE:
                segmentation.RemoveRepresentation(CLOSED_SURFACE)
        elif segmentation.CreateRepresentation(CLOSED_SURFACE) and self._node.GetDisplayNode() is not None:
            self._node.GetDisplayNode().SetPreferredDisplayRepresentationName3D(CLOSED_SURFACE)
            if segmentation.ContainsRepresentation(BINARY_LABELMAP):
                self._node.GetDisplayNode().SetPreferredDisplayRepresentationName2D(BINARY_LABELMAP)

    def setLocked(self, locked):
        self._locked = locked
        self._update()

    locked = Property(bool, lambda self: self._locked, setLocked)
