"""What to know of the selected volume before the run, in plain words, with a button where one helps.

Silent on a good volume.
"""

import numpy as np
import slicer
from slicer.i18n import tr as _

from mkd_core.inference.image_check import BETTER_MODALITY, quick_check

from ..run.volumeTransfer import ijkToRas, reasonVolumeCannotBeUsed
from ..scene.findingTexts import findingText
from ..scene.transformHardening import isUnderNonLinearTransform


class VolumeAdvice:
    """Looks at a volume when it is selected, and shows what was noticed.

    :param frame: QFrame that is shown if there is something to say.
    :param label: QLabel in it.
    :param switchButton: QPushButton in it that takes the other modality.
    :param onSwitch: called with the modality, "CT" or "MR", when the user agrees.
    :param hardenButton: QPushButton in it that takes a hardened copy of a volume under a non-linear transform.
    """

    def __init__(self, frame, label, switchButton, onSwitch, hardenButton) -> None:
        self._frame, self._label, self._switchButton, self._onSwitch = frame, label, switchButton, onSwitch
        self._hardenButton = hardenButton
        self._seen = None
        self._findings = []
        switchButton.connect("clicked(bool)", self._onClicked)

    def look(self, volumeNode, modality: str, extraWarning: str = "") -> str:
        """Look at a volume, once for each state of it, and return why it cannot be segmented, or an empty string.

        :param extraWarning: something else to know before the run, such as a lack of memory.
        """
        reason = reasonVolumeCannotBeUsed(volumeNode)
        if reason:
            self._seen, self._findings = None, []
            self._hardenButton.visible = False
            self._show("")
            return reason
        state = _stateOf(volumeNode) + (modality,)
        if state != self._seen:
            spacing = np.linalg.norm(ijkToRas(volumeNode)[:3, :3], axis=0)[::-1]  # along k, j, i
            self._findings = quick_check(slicer.util.arrayFromVolume(volumeNode), spacing, modality)
            self._seen = state
        stopping = [findingText(finding) for finding in self._findings if finding.severity == "refusal"]
        doubts = [findingText(finding) for finding in self._findings if finding.severity != "refusal"]
        isWarped = isUnderNonLinearTransform(volumeNode)
        self._hardenButton.visible = isWarped
        if isWarped:
            doubts.append(
                _(
                    "The volume is under a non-linear transform, for example of a tilted gantry. It will be segmented "
                    "as it was "
                    "before; for true volumes segment a copy into which the transform is hardened."
                )
            )
        self._show(
            "\n".join("\N{WARNING SIGN} " + text for text in doubts + [extraWarning] if text), self._betterModality()
        )
        return " ".join(stopping)

    def _betterModality(self) -> str:
        return next(
            (BETTER_MODALITY[finding.code] for finding in self._findings if finding.code in BETTER_MODALITY), ""
        )

    def _show(self, text: str, betterModality: str = "") -> None:
        self._label.text = text
        self._switchButton.text = _("Segment as {modality}").format(modality=betterModality)
        self._switchButton.visible = bool(betterModality)
        self._frame.visible = bool(text)

    def _onClicked(self) -> None:
        self._onSwitch(self._betterModality())


def _stateOf(volumeNode) -> tuple:
    """Return what changes when the voxels or the grid change."""
    return (
        volumeNode.GetID(),
        volumeNode.GetImageData().GetPointData().GetScalars().GetMTime(),
        ijkToRas(volumeNode).tobytes(),
    )
