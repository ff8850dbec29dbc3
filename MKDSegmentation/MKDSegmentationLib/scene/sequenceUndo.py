"""Takes back what a run over all frames of a sequence replaced, and brings it again.

Segments of the user stay as they are now, as in :mod:`.runUndo`.
"""

import slicer

from .frameSequence import FrameSequence
from .functionNodes import removeFunctionNodes, writeFunctionNodes
from .ourSegments import ourSegments, segmentsOfOthers, takeSegmentsOfOthers
from .provenance import REPORT_ATTRIBUTE


class SequenceUndo:
    """The segmentations of a sequence as they were before a run.

    :param frames: the sequence that the run wrote into.
    :param earlier: what the segmentation of each frame that the run wrote was, by its index value; None for a frame
        that had none.
    :param wasCancelled: whether the run before had been cancelled.
    """

    def __init__(self, frames: FrameSequence, earlier: dict, wasCancelled: bool) -> None:
        self._frames, self._other, self._otherCancelled = frames, earlier, wasCancelled
        self._sequence = frames.segmentations()
        self.isUndone = False

    @property
    def segmentation(self):
        """The segmentation node that shows the selected frame, None once it or the sequence is no longer there."""
        nodes = (self._frames.browser, self._frames.volumes, self._sequence)
        if not all(slicer.mrmlScene.IsNodePresent(node) for node in nodes):
            return None
        return self._frames.segmentationNode() if self._frames.segmentations() is self._sequence else None

    def toggle(self) -> None:
        """Undo the run; the second time, do it again. What was edited of ours meanwhile comes back with it."""
        frames = self._frames
        now, wasCancelled = {value: frames.copyOfFrame(value) for value in self._other}, frames.wasCancelled
        for value, segmentation in self._other.items():
            frames.replaceFrame(_withSegmentsOfOthers(segmentation, now[value]), value)
        frames.markCancelled(self._otherCancelled)
        self._other, self._otherCancelled, self.isUndone = now, wasCancelled, not self.isUndone
        if any(frames.reports()):
            writeFunctionNodes(frames)
        else:
            removeFunctionNodes(self._sequence)


def _withSegmentsOfOthers(segmentation, now):
    """Return the segmentation of a frame as it was, with the segments that are not ours as they are now.

    :param segmentation: as it was, None if there was none; is changed.
    :param now: as it is, None if there is none.
    """
    theirs = segmentsOfOthers(now) if now is not None else []
    if segmentation is None and theirs:
        segmentation = slicer.vtkMRMLSegmentationNode()
        segmentation.CopyContent(now)
        segmentation.SetName(now.GetName())
        for segmentId in ourSegments(segmentation).values():
            segmentation.GetSegmentation().RemoveSegment(segmentId)
        segmentation.RemoveAttribute(REPORT_ATTRIBUTE)  # it is of what the run had made
    elif segmentation is not None:
        takeSegmentsOfOthers(segmentation, now.GetSegmentation() if now is not None else None, theirs)
    return segmentation
