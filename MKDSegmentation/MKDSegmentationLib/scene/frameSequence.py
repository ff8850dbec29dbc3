"""A sequence of volumes and the sequence of segmentations that belongs to it, as the Sequences module browses them."""

import contextlib

import slicer

from mkd_core.protocol import Report

from .nodeSelection import placeBeside
from .ourSegments import ourSegments
from .provenance import reportOf
from .segmentMeasurement import currentReport, editedStructures, measureSegment, takeFigures, voxelsToMeasure
from .transformHardening import volumeScale

#: Role by which a sequence of segmentations refers to the sequence of volumes it was made of.
_VOLUMES_ROLE = "MKDSegmentation.Volumes"

#: Attribute of a sequence of segmentations whose run was cancelled.
_CANCELLED_ATTRIBUTE = "MKDSegmentation.Cancelled"

#: So many voxels are looked at without a break; it takes a few hundredths of a second.
_VOXELS_AT_ONCE = 60_000_000


def isSequenceOfSegmentations(sequenceNode) -> bool:
    """Tell whether a sequence node holds segmentations that were made of a sequence of volumes here."""
    return sequenceNode.GetNodeReferenceID(_VOLUMES_ROLE) is not None


class FrameSequence:
    """The frames behind a volume that a sequence browser shows.

    Example::

        frames = FrameSequence.of(volumeNode)
        if frames is not None:
            print(frames.count, frames.reports())

    :param browser: sequence browser node.
    :param volumes: sequence node of the volumes; its proxy in the browser is the volume node.
    """

    def __init__(self, browser, volumes) -> None:
        self.browser = browser
        self.volumes = volumes

    @classmethod
    def of(cls, volumeNode):
        """Return the frames behind a volume node, or None if it is none of a sequence of at least two volumes."""
        if volumeNode is None:
            return None
        browser = slicer.modules.sequences.logic().GetFirstBrowserNodeForProxyNode(volumeNode)
        volumes = browser.GetSequenceNode(volumeNode) if browser is not None else None
        return cls(browser, volumes) if volumes is not None and volumes.GetNumberOfDataNodes() > 1 else None

    @classmethod
    def ofSegmentations(cls, segmentations):
        """Return the frames behind a sequence node of segmentations, or None if its volumes or browser are gone."""
        volumes = segmentations.GetNodeReference(_VOLUMES_ROLE)
        browser = slicer.modules.sequences.logic().GetFirstBrowserNodeForSequenceNode(segmentations)
        return cls(browser, volumes) if volumes is not None and browser is not None else None

    @staticmethod
    def sequenceOfProxy(segmentationNode):
        """Return the sequence node of segmentations whose selected frame a node shows, or None."""
        browser = slicer.modules.sequences.logic().GetFirstBrowserNodeForProxyNode(segmentationNode)
        sequence = browser.GetSequenceNode(segmentationNode) if browser is not None else None
        return sequence if sequence is not None and isSequenceOfSegmentations(sequence) else None

    @property
    def count(self) -> int:
        """Number of frames."""
        return self.volumes.GetNumberOfDataNodes()

    def indexValues(self) -> list:
        """Return the index value (str, for example a time) of each frame."""
        return [self.volumes.GetNthIndexValue(frame) for frame in range(self.count)]

    def segmentations(self):
        """Return the sequence node of the segmentations made of these volumes, or None.

        It is one of the same browser.
        """
        for sequence in slicer.util.getNodesByClass("vtkMRMLSequenceNode"):
            if sequence.GetNodeReference(_VOLUMES_ROLE) is self.volumes and self.browser.IsSynchronizedSequenceNodeID(
                sequence.GetID(), True
            ):
                return sequence
        return None

    def segmentationNode(self):
        """Return the segmentation node that shows the segmentation of the selected frame, or None."""
        segmentations = self.segmentations()
        return self.browser.GetProxyNode(segmentations) if segmentations is not None else None

    def segmentationOfFrame(self, indexValue: str):
        """Return the segmentation kept for a frame, None if there is none yet.

        It belongs to the sequence, not to the scene.
        """
        segmentations = self.segmentations()
        return segmentations.GetDataNodeAtValue(indexValue, True) if segmentations is not None else None

    def reports(self) -> list:
        """Return the report of each frame with its segments measured as they are now, None for a frame that was not
        segmented.
        """
        return [self.reportOfFrame(value) for value in self.indexValues()]

    @property
    def isUnfinished(self) -> bool:
        """True if the last run was cancelled and frames are missing: they were never tried."""
        segmentations = self.segmentations()
        return (
            segmentations is not None
            and self.wasCancelled
            and not all(reportOf(self.segmentationOfFrame(value)) for value in self.indexValues())
        )

    @property
    def wasCancelled(self) -> bool:
        """True if the run that made the segmentations was cancelled."""
        return self.segmentations().GetAttribute(_CANCELLED_ATTRIBUTE) is not None

    def markCancelled(self, isCancelled: bool) -> None:
        """Remember with the scene whether the run that made the segmentations was cancelled."""
        with self.volumeAtRest():
            self.segmentations().SetAttribute(_CANCELLED_ATTRIBUTE, "true" if isCancelled else None)

    @contextlib.contextmanager
    def volumeAtRest(self):
        """While segmentations change, keep the browser from copying the selected volume once more into the node that
        shows it, as it does at each change of any of its sequences: a large one takes a tenth of a second.
        """
        wasPlayed = self.browser.GetPlayback(self.volumes)
        self._setPlayback(False)
        try:
            yield
        finally:
            self._setPlayback(wasPlayed)

    def _setPlayback(self, isPlayed: bool) -> None:
        wasDisabled = self.browser.GetDisableModifiedEvent()
        self.browser.SetDisableModifiedEvent(1)  # nothing is browsed
        self.browser.SetPlayback(self.volumes, isPlayed)
        self.browser.SetDisableModifiedEvent(wasDisabled)

    def reportOfFrame(self, indexValue: str) -> Report | None:
        """Return the current report of a frame (see segmentMeasurement), without intensities; None if it has none."""
        return currentReport(self.segmentationOfFrame(indexValue), scale=volumeScale(self.segmentationNode()))

    def measureSome(self) -> bool:
        """Measure some of the segments that were not measured since they changed; tell whether all frames are measured
        now.

        As long as they are not, `reports` takes long.
        """
        budget = _VOXELS_AT_ONCE
        for value in self.indexValues():
            segmentation = self.segmentationOfFrame(value)
            for segmentId in ourSegments(segmentation).values() if segmentation is not None else ():
                count = voxelsToMeasure(segmentation, [segmentId])
                if count and budget <= 0:
                    return False
                if count:
                    measureSegment(segmentation, segmentId)
                    budget -= count
        return True

    @property
    def isMeasured(self) -> bool:
        """True if `reports` has nothing to measure, and is quick."""
        return not any(voxelsToMeasure(self.segmentationOfFrame(value)) for value in self.indexValues())

    def editedFrames(self) -> list:
        """Return the numbers, from 0, of the frames whose segments are not as they were written."""
        segmentations = map(self.segmentationOfFrame, self.indexValues())
        return [
            frame
            for frame, segmentation in enumerate(segmentations)
            if segmentation is not None and editedStructures(segmentation)
        ]

    def select(self, frame: int) -> None:
        """Show a frame in the views; playback stops there."""
        self.browser.SetPlaybackActive(False)
        self.browser.SetSelectedItemByIndexValue(self.volumes.GetNthIndexValue(frame), False)

    def keep(self, segmentationNode, indexValue: str, name: str) -> None:
        """Keep a copy of a segmentation as that of a frame; the first one makes the sequence and the node that shows
        it.

        :param segmentationNode: segmentation to copy; with its attributes, so that the report of a frame comes and goes
            with the frame.
        :param indexValue: the frame's.
        :param name: of the sequence and the node, if they are made.
        """
        with self.volumeAtRest():
            segmentations = self.segmentations()
            if segmentations is not None:
                segmentations.SetDataNodeAtValue(segmentationNode, indexValue)
            else:
                self._makeSequence(segmentationNode, indexValue, name)
        takeFigures(self.segmentationOfFrame(indexValue), segmentationNode)

    def _makeSequence(self, segmentationNode, indexValue: str, name: str) -> None:
        segmentations = slicer.mrmlScene.AddNewNodeByClass(
            "vtkMRMLSequenceNode", slicer.mrmlScene.GenerateUniqueName(name)
        )
        segmentations.SetIndexName(self.volumes.GetIndexName())
        segmentations.SetIndexUnit(self.volumes.GetIndexUnit())
        segmentations.SetIndexType(self.volumes.GetIndexType())
        segmentations.SetNumericIndexValueTolerance(self.volumes.GetNumericIndexValueTolerance())
        segmentations.SetNodeReferenceID(_VOLUMES_ROLE, self.volumes.GetID())
        segmentations.SetDataNodeAtValue(segmentationNode, indexValue)
        self._show(segmentations)

    def copyOfFrame(self, indexValue: str):
        """Return a copy of the segmentation kept for a frame, which belongs to no scene; None if there is none."""
        kept = self.segmentationOfFrame(indexValue)
        if kept is None:
            return None
        copy = slicer.vtkMRMLSegmentationNode()
        copy.CopyContent(kept)
        copy.SetName(kept.GetName())
        return copy

    def replaceFrame(self, segmentationNode, indexValue: str) -> None:
        """Keep a copy of a segmentation as that of a frame, or none; the sequence must be there."""
        segmentations = self.segmentations()
        with self.volumeAtRest():
            if segmentationNode is not None:
                segmentations.SetDataNodeAtValue(segmentationNode, indexValue)
            else:
                segmentations.RemoveDataNodeAtValue(indexValue)

    def _show(self, segmentations) -> None:
        """Let the browser show the segmentation of the selected frame in a node of its own, under the transform of the
        volume.
        """
        volumeNode = self.browser.GetProxyNode(self.volumes)
        proxy = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", segmentations.GetName())
        proxy.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
        proxy.SetNodeReferenceID(proxy.GetReferenceImageGeometryReferenceRole(), volumeNode.GetID())
        with slicer.util.NodeModify(self.browser):  # nothing is browsed before all is set
            slicer.modules.sequences.logic().AddSynchronizedNode(segmentations, proxy, self.browser)
            # What a user corrects in the segment editor is kept in the frame.
            self.browser.SetSaveChanges(segmentations, True)
            self.browser.SetOverwriteProxyName(segmentations, False)
            # A frame that was not segmented shows nothing, not its neighbour; and what a user draws there is kept too.
            self.browser.SetMissingItemMode(segmentations, self.browser.MissingItemCreateFromDefault)
        placeBeside(volumeNode, proxy)
