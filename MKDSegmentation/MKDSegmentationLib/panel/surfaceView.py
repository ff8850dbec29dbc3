"""Surfaces in the 3D views: shown after a run unless the user switched that off, and as smooth as the user likes."""

import slicer
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from ..parameters import MachineSettings
from ..run.incrementalTask import IncrementalTask
from ..scene.frameSequence import FrameSequence
from ..scene.surfaces import (
    canHaveSurfaces,
    hasSurfaces,
    is3DViewShown,
    removeSurfaces,
    setSmoothing,
    smoothingOf,
    surfaceSteps,
)


class SurfaceView(VTKObservationMixin):
    """Shows and hides the surfaces of the result. They are made in the background, one structure after the other; those
    that nobody asked for wait for the figures, and for the end of a run that has begun meanwhile.

    :param ui: the panel's widgets: show3DCheckBox, smoothingLabel and smoothingSlider, 0 to 20 for none to strongest.
    """

    def __init__(self, ui) -> None:
        super().__init__()
        self._checkBox, self._label, self._slider = ui.show3DCheckBox, ui.smoothingLabel, ui.smoothingSlider
        self._settings = MachineSettings()
        self._segmentation, self._frame = None, None
        self._isOn = False  # surfaces of the segmentation are there, or on their way
        self._task, self._onMade = None, None
        self._checkBox.connect("clicked(bool)", self._onClicked)
        self._slider.connect("valueChanged(int)", self._onSmoothing)

    def close(self) -> None:
        """End what is under way."""
        self._stop()
        self.removeObservers()

    def show(self, state) -> None:
        """Follow the segmentation in the state of the panel."""
        if self._task is not None:
            self._task.isPaused = state.isRunning and not self._task.isUrgent
        if not state.isRunning:  # what a run writes is shown when it is there
            self._follow(state.segmentation, state.volume)

    def showNew(self, segmentationNode, volumeNode, isAsked: bool = False) -> None:
        """Show the surfaces of a new result, in the middle of the 3D views, unless the user has switched that off.

        :param isAsked: the user asked for this result just now.
        """
        self._follow(segmentationNode, volumeNode)
        if self._settings.show3D and is3DViewShown():
            self._apply(True, slicer.util.resetThreeDViews, isAsked)
        self._refresh()

    def _follow(self, segmentationNode, volumeNode) -> None:
        """A frame that comes into view is shown as the one before: "Show 3D" is about what is seen, not about a
        frame.
        """
        frame = _frameOf(volumeNode, segmentationNode)
        isNextFrame = segmentationNode is self._segmentation and frame != self._frame
        self._frame = frame
        if segmentationNode is not self._segmentation:
            self._stop()
            self.removeObservers()
            self._segmentation = segmentationNode
            if segmentationNode is not None:
                event = slicer.vtkSegmentation.ContainedRepresentationNamesModified
                self.addObserver(segmentationNode, event, self._refresh)
        if isNextFrame and canHaveSurfaces(segmentationNode):
            self._takeSmoothing()
            self._apply(self._isOn, isAsked=True)
        self._refresh()

    def _takeSmoothing(self) -> None:
        if self._slider.value != self._valueOf(self._segmentation):
            removeSurfaces(self._segmentation)
            setSmoothing(self._segmentation, self._slider.value / self._slider.maximum)

    def _valueOf(self, segmentationNode) -> int:
        return round(self._slider.maximum * smoothingOf(segmentationNode))

    def _apply(self, isOn: bool, onMade=None, isAsked: bool = False) -> None:
        self._stop()
        if not canHaveSurfaces(self._segmentation):
            return
        if isOn and not hasSurfaces(self._segmentation):
            self._make(onMade, isAsked)
        elif not isOn and hasSurfaces(self._segmentation):
            removeSurfaces(self._segmentation)

    def _make(self, onMade=None, isAsked: bool = True) -> None:
        self._stop()
        self._onMade = onMade
        self._task = IncrementalTask(
            surfaceSteps(self._segmentation),
            self._onDone,
            self._onError,
            self._onStep,
            isUrgent=isAsked,
            restsWhileDrawing=True,
        )

    def _onStep(self, _value) -> None:
        if not slicer.mrmlScene.IsNodePresent(self._segmentation):
            self._stop()

    def _onDone(self, _value) -> None:
        self._task = None
        self._refresh()
        if self._onMade is not None:
            self._onMade()

    def _onError(self, error: Exception) -> None:
        self._task = None
        self._refresh()
        raise error

    def _stop(self) -> None:
        if self._task is not None:
            self._task.stop()
            self._task = None

    def _refresh(self, caller=None, event=None) -> None:
        node = self._segmentation
        self._isOn = self._task is not None or hasSurfaces(node)
        self._checkBox.enabled = canHaveSurfaces(node)
        self._checkBox.checked = self._isOn
        for widget in (self._label, self._slider):
            widget.enabled = canHaveSurfaces(node) and self._isOn
        if node is not None:
            wasBlocked = self._slider.blockSignals(True)
            self._slider.value = self._valueOf(node)
            self._slider.blockSignals(wasBlocked)

    def _onClicked(self, isOn: bool) -> None:
        self._settings.show3D = isOn
        self._apply(isOn, isAsked=True)
        if isOn and not is3DViewShown():
            slicer.util.showStatusMessage(
                _("The layout has no 3D view. Choose one that has, for example “Four-Up”."), 5000
            )
        self._refresh()

    def _onSmoothing(self, value: int) -> None:
        setSmoothing(self._segmentation, value / self._slider.maximum)
        self._make()


def _frameOf(volumeNode, segmentationNode):
    """Return the index value of the frame that a segmentation shows, None if it is none of a sequence."""
    frames = FrameSequence.of(volumeNode)
    if frames is None or segmentationNode is None or frames.segmentationNode() is not segmentationNode:
        return None
    return frames.volumes.GetNthIndexValue(max(0, frames.browser.GetSelectedItemNumber()))
