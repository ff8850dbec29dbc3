"""What to do about segments that were edited since they were written, before a run replaces them."""

from slicer.i18n import tr as _

#: What a run does about them, see RunOptions.edits.
REPLACE, KEEP = "replace", "keep"


class EditsQuestion:
    """Asks in the panel; nothing happens until the user answers.

    :param ui: the panel's widgets: editsFrame, which is shown while a question is open, with editsLabel and the buttons
        replaceEditsButton, keepEditsButton and cancelEditsButton in it.
    """

    def __init__(self, ui) -> None:
        self._frame, self._label, self._keepButton = ui.editsFrame, ui.editsLabel, ui.keepEditsButton
        self._onAnswer = None
        ui.replaceEditsButton.connect("clicked(bool)", lambda _checked: self._answer(REPLACE))
        ui.keepEditsButton.connect("clicked(bool)", lambda _checked: self._answer(KEEP))
        ui.cancelEditsButton.connect("clicked(bool)", lambda _checked: self.close())

    def ask(self, edited: list, onAnswer) -> None:
        """Ask about the segments of a segmentation.

        :param edited: names of the segments.
        :param onAnswer: called with REPLACE or KEEP, unless the user cancels.
        """
        self._open(
            _(
                "Edited since the last run: {segments}. A new run would replace these edits; to keep them, it makes a "
                "new segmentation."
            ).format(segments=", ".join(edited)),
            _("Segment again into a new segmentation. The edited one stays as it is."),
            onAnswer,
        )

    def askAboutFrames(self, edited: list, onAnswer) -> None:
        """Ask about the frames of a sequence.

        :param edited: numbers of the frames, from 0.
        :param onAnswer: called with REPLACE or KEEP, unless the user cancels.
        """
        self._open(
            _(
                "Edited since the last run: frame {frames}. A new run would replace these edits; to keep them, it "
                "leaves these frames out."
            ).format(frames=", ".join(str(frame + 1) for frame in edited)),
            _("Segment the other frames again. The edited ones stay as they are."),
            onAnswer,
        )

    def close(self) -> None:
        """Take the question back."""
        self._onAnswer = None
        self._frame.visible = False

    def _open(self, text: str, keepTip: str, onAnswer) -> None:
        self._label.text, self._keepButton.toolTip = text, keepTip
        self._onAnswer = onAnswer
        self._frame.visible = True

    def _answer(self, edits: str) -> None:
        onAnswer = self._onAnswer
        self.close()
        if onAnswer is not None:
            onAnswer(edits)
