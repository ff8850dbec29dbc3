"""Everything that the sections of the panel show, put together once for each change."""

from dataclasses import dataclass, field

from mkd_core.protocol import Report

from .volumeAdvice import VolumeAssessment


@dataclass(frozen=True)
class PanelState:
    """What the panel shows.

    volume - selected volume node, or None.
    segmentation - segmentation node of the result, or None for a new one.
    assessment - of the volume.
    blockingReason - why nothing can be segmented now, whatever the cause; empty if it can.
    report - of the run that made the segmentation, with the figures of the segments as they are now; None without one.
    isRunning - True during a run.
    message - how the last run ended; empty if there was none for this volume.
    batchReason - why no batch can be started now, whatever its volumes; empty if one can.
    box - markups ROI node round the heart that the user chose, or None.
    """

    volume: object = None
    segmentation: object = None
    assessment: VolumeAssessment = field(default_factory=VolumeAssessment)
    blockingReason: str = ""
    report: Report | None = None
    isRunning: bool = False
    message: str = ""
    box: object = None
    batchReason: str = ""
