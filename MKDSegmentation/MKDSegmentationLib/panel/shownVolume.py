"""Says when the slice views show another volume than the one that would be segmented."""

import html

import slicer
import vtk
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from ..scene.heartView import backgroundsInView, isInView

#: Nodes that say what the slice views show, and which of them the layout has.
_OF_VIEWS = ("vtkMRMLSliceCompositeNode", "vtkMRMLSliceNode")


class ShownVolume(VTKObservationMixin):
    """A sentence with a link that brings the views to the selected volume; nothing as long as they show it.

    :param ui: the panel's widgets: shownVolumeLabel.
    """

    def __init__(self, ui) -> None:
        super().__init__()
        self._label = ui.shownVolumeLabel
        self._volume = None
        self._label.connect("linkActivated(QString)", self._onLink)
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.NodeAddedEvent, self._onNodeAdded)
        for className in _OF_VIEWS:
            for node in slicer.util.getNodesByClass(className):
                self._observe(node)

    def close(self) -> None:
        """Stop following the views."""
        self.removeObservers()

    def show(self, state) -> None:
        """Follow the volume in the state of the panel."""
        self._volume = state.volume if state.volume is not None and state.volume.GetImageData() else None
        self._refresh()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _onNodeAdded(self, caller, event, node) -> None:
        if any(node.IsA(className) for className in _OF_VIEWS):
            self._observe(node)

    def _observe(self, node) -> None:
        if not self.hasObserver(node, vtk.vtkCommand.ModifiedEvent, self._refresh):
            self.addObserver(node, vtk.vtkCommand.ModifiedEvent, self._refresh)

    def _refresh(self, caller=None, event=None) -> None:
        text = ""
        if self._volume is not None and not isInView(self._volume):
            shown = ", ".join(map(_quoted, backgroundsInView()))
            text = _("No slice view shows {volume}, which is selected.")
            if shown:
                text = _("The slice views show {names}, not {volume}, which is selected.")
            text = text.format(names=shown, volume=_quoted(self._volume))
            text += f' <a href="show">{_("Show it")}</a>'
        if self._label.text != text:
            self._label.text = text
        self._label.visible = bool(text)

    def _onLink(self, _link: str) -> None:
        slicer.util.setSliceViewerLayers(background=self._volume, fit=True)


def _quoted(node) -> str:
    return f"“{html.escape(node.GetName())}”"
