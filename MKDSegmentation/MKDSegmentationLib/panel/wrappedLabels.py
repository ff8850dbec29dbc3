"""Room for word-wrapped texts."""

import qt


class WrappedLabels(qt.QObject):
    """Gives every word-wrapped label of a panel the height that its text needs at its width.

    Layouts know that height only as long as nothing asks for the panel's minimum height, as the scroll area of Slicer's
    module panel does: text is then painted over what stands below. The height is set again whenever the text, the font
    or the width changes.

    :param panel: QWidget with the labels.
    """

    def __init__(self, panel) -> None:
        super().__init__()
        self._watched = []  # pairs of a widget and the labels whose height its events may change
        self._fitted = {}  # label -> text and width that its height is for
        self._events = (qt.QEvent.Resize, qt.QEvent.Show, qt.QEvent.FontChange, qt.QEvent.LayoutRequest)
        for label in panel.findChildren("QLabel"):
            if label.wordWrap:
                # a label says that its text changed to the widget that it lies in, by a request for a new layout
                for widget in (label, label.parentWidget()):
                    self._watch(widget, label)
                self._fit(label)

    def _watch(self, widget, label) -> None:
        for known, labels in self._watched:
            if known == widget:
                labels.append(label)
                return
        self._watched.append((widget, [label]))
        widget.installEventFilter(self)

    def close(self) -> None:
        """Let the labels be."""
        for widget, _labels in self._watched:
            widget.removeEventFilter(self)
        self._watched, self._fitted = [], {}

    def eventFilter(self, watched, event) -> bool:
        """Called by Qt for each event of a label and of the widgets around the labels."""
        if event.type() in self._events:
            if event.type() == qt.QEvent.FontChange:
                self._fitted.clear()
            for widget, labels in self._watched:
                if widget == watched:
                    for label in labels:
                        self._fit(label)
        return False

    def _fit(self, label) -> None:
        text, width = label.text, label.width
        if self._fitted.get(label) != (text, width):
            self._fitted[label] = (text, width)
            label.minimumHeight = 0  # a label never asks for less than its minimum
        height = max(0, label.heightForWidth(width)) if text else 0
        if label.minimumHeight != height:
            label.minimumHeight = height
