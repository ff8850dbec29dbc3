"""What to know of the selected volume before the run, in plain words, with a button where one helps.

Silent on a good volume.
"""

from dataclasses import dataclass

import slicer
from slicer.i18n import tr as _

from mkd_core.inference.image_check import BETTER_MODALITY, quick_check

from ..run.volumeTransfer import WorldGrid, reasonVolumeCannotBeUsed
from ..scene.findingTexts import findingText
from ..scene.transformHardening import isUnderNonLinearTransform
from .runtimeEstimate import RunEstimate


@dataclass(frozen=True)
class VolumeAssessment:
    """What is known of a volume before it is segmented.

    blockingReason - why it cannot be segmented; empty if it can.
    warnings - sentences on what to doubt.
    betterModality - "CT" or "MR" if it looks like the other one than was chosen, else empty.
    offersHardening - True if a hardened copy of the volume would be segmented better.
    estimate - what a run costs, None if there can be none.
    """

    blockingReason: str = ""
    warnings: tuple = ()
    betterModality: str = ""
    offersHardening: bool = False
    estimate: RunEstimate | None = None


def assessVolume(volumeNode, modality: str, findings=(), estimate: RunEstimate | None = None) -> VolumeAssessment:
    """Return what is known of a volume. Looks at nothing but its arguments, and changes nothing.

    :param volumeNode: scalar volume node, or None.
    :param modality: what it is said to be, "CT" or "MR".
    :param findings: of mkd_core.inference.image_check.quick_check on its voxels.
    :param estimate: what a run costs; its warning is one of the assessment's.
    """
    reason = reasonVolumeCannotBeUsed(volumeNode)
    if reason:
        return VolumeAssessment(reason)
    transform = _transformWarning(volumeNode)
    warnings = [findingText(finding) for finding in findings if finding.severity != "refusal"]
    warnings += [transform, estimate.warning if estimate else ""]
    better = (BETTER_MODALITY.get(finding.code, "") for finding in findings)
    return VolumeAssessment(
        " ".join(findingText(finding) for finding in findings if finding.severity == "refusal"),
        tuple(text for text in warnings if text),
        next((other for other in better if other and other != modality), ""),
        offersHardening=bool(transform),
        estimate=estimate,
    )


def _transformWarning(volumeNode) -> str:
    if isUnderNonLinearTransform(volumeNode):
        return _(
            "The volume is under a non-linear transform, for example of a tilted gantry. It will be segmented as it "
            "was before; for true volumes segment a copy into which the transform is hardened."
        )
    grid = WorldGrid.of(volumeNode)
    if grid.shears:
        return _(
            "The volume is sheared by its transform, which the networks do not see. "
            "For better outlines segment a copy into which the transform is hardened."
        )
    if grid.scales:
        return _(
            "The volume is scaled by its transform, and volumes in ml count it. If it should not be, correct the "
            "transform; to make the new size permanent, segment a copy into which the transform is hardened."
        )
    return ""


class VolumeLook:
    """Looks at the voxels of a volume, once for each state of it."""

    def __init__(self) -> None:
        self._seen = None
        self._findings = []

    def findings(self, volumeNode, modality: str) -> list:
        """Return what mkd_core.inference.image_check.quick_check finds in a volume that can be segmented."""
        grid = WorldGrid.of(volumeNode)
        state = (
            volumeNode.GetID(),
            volumeNode.GetImageData().GetPointData().GetScalars().GetMTime(),
            grid.spacing.tobytes(),
            modality,
        )
        if state != self._seen:
            self._findings = quick_check(slicer.util.arrayFromVolume(volumeNode), grid.spacing[::-1], modality)
            self._seen = state
        return self._findings


class VolumeAdvice:
    """Shows what was noticed.

    :param ui: the panel's widgets: adviceFrame and those in it.
    :param onSwitchModality: called with the modality, "CT" or "MR", when the user agrees.
    :param onHarden: called when the user wants a hardened copy of the volume.
    """

    def __init__(self, ui, onSwitchModality, onHarden) -> None:
        self._ui, self._onSwitchModality = ui, onSwitchModality
        self._betterModality = ""
        ui.switchModalityButton.connect("clicked(bool)", self._onSwitch)
        ui.hardenTransformButton.connect("clicked(bool)", lambda _checked: onHarden())

    def show(self, state) -> None:
        """Show the assessment in the state of the panel."""
        ui, assessment = self._ui, state.assessment
        self._betterModality = assessment.betterModality
        ui.adviceLabel.text = "\n".join("\N{WARNING SIGN} " + text for text in assessment.warnings)
        ui.switchModalityButton.text = _("Segment as {modality}").format(modality=assessment.betterModality)
        ui.switchModalityButton.visible = bool(assessment.betterModality)
        ui.hardenTransformButton.visible = assessment.offersHardening
        ui.adviceFrame.visible = bool(assessment.warnings)

    def _onSwitch(self, _checked: bool) -> None:
        self._onSwitchModality(self._betterModality)
