"""What to know of the selected volume before the run, in plain words, with a button where one helps.

Silent on a good volume.
"""

import numpy as np
import slicer
from slicer.i18n import tr as _

from mkd_core.inference.quick_check import quick_check

from ..run.volumeTransfer import ijkToRas, reasonVolumeCannotBeUsed
from ..scene.transformHardening import isUnderNonLinearTransform


def adviceText(finding) -> str:
    """Return the sentence for a finding of mkd_core.inference.quick_check."""
    texts = {
        "spacing": _("A voxel size of {mm:g} mm cannot be right. Check the volume's spacing in the module Volumes."),
        "extent": _("The volume is {m:.1f} m long, which cannot be right. Check its spacing in the module Volumes."),
        "constant": _("All voxels of the volume have the same value."),
        "labels": _(
            "This looks like a label map ({values:.0f} different values), not like an image. "
            "Select the CT or MR that belongs to it."
        ),
        "looks_like_mr": _("This looks like MR: no value lies below zero, as air does in CT. Segment it as MR?"),
        "no_air": _(
            "The volume shows neither air nor lung. Is it really a CT in Hounsfield units? An MR must be segmented as "
            "MR."
        ),
        "looks_like_ct": _("This looks like CT, with air at -1000. Segment it as CT?"),
        "stored_ct": _(
            "This looks like a CT whose values are not Hounsfield units: water lies near 1000 instead of 0. "
            "Load it from its DICOM files."
        ),
        "heart_cut": _(
            "The volume is only {mm:.0f} mm wide in one direction. A whole heart with its vessels needs more than "
            "{needed_mm:.0f} mm: parts that are cut off get no volume."
        ),
        "thick": _("The slices are {mm:.1f} mm thick: thin walls will be blurred and volumes less exact."),
    }
    return texts[finding.code].format(**finding.figures)


#: What a volume may really be, by what was noticed.
_BETTER_MODALITY = {"looks_like_mr": "MR", "no_air": "MR", "looks_like_ct": "CT"}


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
        stopping = [adviceText(finding) for finding in self._findings if finding.stops]
        doubts = [adviceText(finding) for finding in self._findings if not finding.stops]
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
            (_BETTER_MODALITY[finding.code] for finding in self._findings if finding.code in _BETTER_MODALITY), ""
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
