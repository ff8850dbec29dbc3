"""Which of a result's extra volumes lies over the image in the slice views."""

from slicer.i18n import tr as _

from mkd_core.protocol import ALIGNED, DISAGREEMENT

from ..scene.overlayVolumes import overlayOf, showOverlay


class OverlayChoice:
    """Offers the extra volumes of a result.

    :param ui: the panel's widgets: overlayComboBox, to fill, and overlayLabel before it; both are hidden if there is
        nothing to offer.
    """

    def __init__(self, ui) -> None:
        self._label, self._comboBox = ui.overlayLabel, ui.overlayComboBox
        self._segmentation, self._volume, self._kinds = None, None, []
        self._comboBox.connect("currentIndexChanged(int)", self._onChosen)

    def show(self, state) -> None:
        """Offer what belongs to the segmentation in the state of the panel; the choice stays if it still can."""
        segmentationNode, volumeNode = state.segmentation, state.volume
        kinds = [kind for kind in (DISAGREEMENT, ALIGNED) if overlayOf(segmentationNode, kind) is not None]
        isOther = segmentationNode is not self._segmentation or kinds != self._kinds
        self._segmentation, self._volume = segmentationNode, volumeNode
        for widget in (self._label, self._comboBox):
            widget.visible = bool(kinds)
        if not isOther:
            return
        self._kinds = kinds
        titles = {DISAGREEMENT: _("Disagreement of the segmentors"), ALIGNED: _("Aligned volume (IAM)")}
        wasBlocked = self._comboBox.blockSignals(True)
        self._comboBox.clear()
        self._comboBox.addItem(_("Nothing"))
        for kind in kinds:
            self._comboBox.addItem(titles[kind])
        self._comboBox.blockSignals(wasBlocked)

    def showFirst(self) -> None:
        """Show the first of the volumes: it was asked for."""
        if self._kinds and self._comboBox.currentIndex == 0:
            self._comboBox.currentIndex = 1
        elif self._kinds:
            self._onChosen(self._comboBox.currentIndex)

    def _onChosen(self, index: int) -> None:
        if self._segmentation is not None and self._volume is not None and 0 <= index <= len(self._kinds):
            showOverlay(overlayOf(self._segmentation, self._kinds[index - 1]) if index else None, self._volume)
