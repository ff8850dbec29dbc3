"""Takes back what a run wrote into a segmentation that was there before, and brings it again.

Segments of the user stay as they are now: what was drawn since the run is not of the run.
"""

import slicer

from .measurements import removeMeasurementsTable, writeMeasurementsTable
from .nodeSelection import volumeOf
from .ourSegments import segmentsOfOthers, takeSegmentsOfOthers
from .overlayVolumes import ALIGNED, DISAGREEMENT, removeOverlay
from .provenance import hasReport
from .segmentationWriting import SegmentationBackup
from .segmentMeasurement import currentReport


class RunUndo:
    """The segmentation as it was before a run.

    :param backup: of the segmentation, made just before the run wrote into it.
    """

    def __init__(self, backup: SegmentationBackup) -> None:
        self._other = backup
        self.isUndone = False

    @property
    def segmentation(self):
        """The segmentation node, None once it is no longer in the scene."""
        node = self._other.segmentation
        return node if node is not None and slicer.mrmlScene.IsNodePresent(node) else None

    def toggle(self) -> None:
        """Undo the run; the second time, do it again. What was edited of ours meanwhile comes back with it."""
        node = self.segmentation
        now, theirs = SegmentationBackup(node), segmentsOfOthers(node)
        self._other.restore()
        takeSegmentsOfOthers(node, now.content, theirs)
        self._other, self.isUndone = now, not self.isUndone
        for kind in (DISAGREEMENT, ALIGNED):
            removeOverlay(kind, node)  # it belongs to the run that is undone
        if hasReport(node):
            writeMeasurementsTable(currentReport(node, volumeOf(node)), node)
        else:
            removeMeasurementsTable(node)
