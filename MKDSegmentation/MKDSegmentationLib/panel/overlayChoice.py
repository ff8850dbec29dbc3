"""Which of a result's extra volumes lies over the image in the slice views."""

from slicer.i18n import tr as _

from mkd_core.protocol import ALIGNED, DISAGREEMENT

from ..scene.overlayVolumes import GRADES, hideOverlay, overlayOf, showOverlay


class OverlayChoice:
    """Offers the extra volumes of a result.

    :param ui: the panel's widgets: overlayComboBox, to fill, and overlayLabel before it, both hidden if there is
        nothing to offer; legendLabel for what the colours of the disagreement map mean.
    """

    def __init__(self, ui) -> None:
        self._label, self._comboBox, self._legend = ui.overlayLabel, ui.overlayComboBox, ui.legendLabel
        self._legend.text = _legendText()
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
            self._showLegend()
            return
        self._kinds = kinds
        titles = {DISAGREEMENT: _("Disagreement of the segmentors"), ALIGNED: _("Aligned volume (IAM)")}
        wasBlocked = self._comboBox.blockSignals(True)
        self._comboBox.clear()
        self._comboBox.addItem(_("Nothing"))
        for kind in kinds:
            self._comboBox.addItem(titles[kind])
        self._comboBox.blockSignals(wasBlocked)
        self._showLegend()

    def showFirst(self) -> None:
        """Show the first of the volumes: it was asked for."""
        if self._kinds and self._comboBox.currentIndex == 0:
            self._comboBox.currentIndex = 1
        elif self._kinds:
            self._onChosen(self._comboBox.currentIndex)

    def _onChosen(self, index: int) -> None:
        self._showLegend()
        if self._segmentation is None or self._volume is None:
            return
        kind = self._kind()
        if kind is None:
            hideOverlay(self._volume)
        else:
            showOverlay(kind, self._segmentation, self._volume)

    def _kind(self) -> str | None:
        """Return which volume is chosen, None for nothing."""
        index = self._comboBox.currentIndex
        return self._kinds[index - 1] if 0 < index <= len(self._kinds) else None

    def _showLegend(self) -> None:
        self._legend.visible = self._kind() == DISAGREEMENT


def _legendText() -> str:
    """Return what the colours of the disagreement map mean, as HTML with a patch of each."""
    ends = [start for start, _color in GRADES[1:]]
    grades = []
    for (start, color), end in zip(GRADES, [*ends, None]):
        text = _("over {start} %") if end is None else _("{start} to {end} %")
        patch = f'<span style="background-color:#{bytes(color).hex()}">&nbsp;&nbsp;&nbsp;&nbsp;</span>'
        grades.append(f"{patch}&nbsp;" + text.format(start=round(100 * start), end=round(100 * (end or 1.0))))
    return _("Where the two segmentors differ (share of probability):") + "<br>" + "&nbsp; ".join(grades)
