"""Tables, plots and the panel follow the segments: what is shown of a segmentation is true of it as it is now."""

import qt
import slicer
import vtk
from slicer.util import VTKObservationMixin

from .frameSequence import FrameSequence, isSequenceOfSegmentations
from .functionNodes import nodesOfFunction, writeFunctionNodes
from .heartGeometry import linesOf
from .measurements import measurementRows, measurementsTable, writeMeasurementsTable
from .nodeSelection import volumeOf
from .ourSegments import declareAlgorithm, ourSegments
from .overlayVolumes import ALIGNED, DISAGREEMENT, overlayOf
from .provenance import hasReport
from .segmentMeasurement import EDITED, currentReport

#: Time from a change to the figures that follow it; changes within it count as one.
DELAY_MS = 200


class LiveMeasurements(VTKObservationMixin):
    """Keeps the tables of our segmentations, and the tables and plots of sequences of them, in step with the segments.

    Works while another module is shown too: segments are edited there. Takes the nodes away that were made of a
    segmentation when it is removed from the scene.

    :param onMeasured: called without arguments after figures may have changed.
    """

    def __init__(self, onMeasured=None) -> None:
        super().__init__()
        self.onMeasured = onMeasured
        self._changed = set()  # ids of segmentation nodes that changed
        self._rows = {}  # id of a segmentation or sequence node -> what its table or tables show
        self._orphans = []  # ids of nodes whose segmentation is being removed
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(DELAY_MS)
        self._timer.connect("timeout()", self.measureNow)
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.NodeAddedEvent, self._onNodeAdded)
        self.addObserver(scene, scene.NodeAboutToBeRemovedEvent, self._onNodeAboutToBeRemoved)
        self.addObserver(scene, scene.EndImportEvent, self._onSceneFilled)
        self.addObserver(scene, scene.EndRestoreEvent, self._onSceneFilled)
        self._onSceneFilled()

    def close(self) -> None:
        """Stop following."""
        self._timer.stop()
        self.removeObservers()
        self.onMeasured = None

    def measureNow(self) -> None:
        """Bring everything up to date that is waiting for the end of a delay."""
        self._timer.stop()
        self._removeOrphans()
        changed, self._changed = self._changed, set()
        if slicer.mrmlScene.IsBatchProcessing():
            self._changed = changed
            self._timer.start()
            return
        for nodeId in sorted(changed):
            node = slicer.mrmlScene.GetNodeByID(nodeId)
            if node is not None:
                self._measure(node)
        if self.onMeasured is not None:
            self.onMeasured()

    def _measure(self, node) -> None:
        if node.IsA("vtkMRMLSequenceNode"):
            frames = FrameSequence.ofSegmentations(node)
            if frames is None or not nodesOfFunction(node):
                return
            if frames.measureSome():
                self._measureFrames(node, frames)
            else:
                self._changed.add(node.GetID())  # goes on after the application had its turn
                self._timer.start()
            return
        report = currentReport(node, volumeOf(node))
        for key, segmentId in ourSegments(node).items():
            isEdited = report["structures"].get(key, {}).get("state") == EDITED
            declareAlgorithm(node.GetSegmentation().GetSegment(segmentId), isEdited)
        if measurementsTable(node) is None:
            return
        rows = measurementRows(report)
        if rows != self._rows.get(node.GetID()):
            writeMeasurementsTable(report, node)
            self._rows[node.GetID()] = rows

    def _measureFrames(self, sequence, frames: FrameSequence) -> None:
        shown = [
            [(key, entry.get("volume_ml"), entry.get("state")) for key, entry in report["structures"].items()]
            if report
            else None
            for report in frames.reports()
        ]
        if shown != self._rows.get(sequence.GetID()):  # browsing and playing change nothing
            writeFunctionNodes(frames)
            self._rows[sequence.GetID()] = shown

    def _onSceneFilled(self, caller=None, event=None) -> None:
        for className in ("vtkMRMLSegmentationNode", "vtkMRMLSequenceNode"):
            for node in slicer.util.getNodesByClass(className):
                self._follow(node)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _onNodeAdded(self, caller, event, node) -> None:
        if node.IsA("vtkMRMLSegmentationNode") or node.IsA("vtkMRMLSequenceNode"):
            self._follow(node)

    def _follow(self, node) -> None:
        events = [vtk.vtkCommand.ModifiedEvent]
        if node.IsA("vtkMRMLSegmentationNode"):
            segmentation = slicer.vtkSegmentation
            events += [
                segmentation.SegmentAdded,
                segmentation.SegmentRemoved,
                segmentation.SegmentModified,
                segmentation.SourceRepresentationModified,
                node.TransformModifiedEvent,
            ]
        for event in events:
            if not self.hasObserver(node, event, self._onChanged):
                self.addObserver(node, event, self._onChanged)
        self._onChanged(node)

    def _onChanged(self, node, event=None) -> None:
        if node.IsA("vtkMRMLSequenceNode"):
            if not isSequenceOfSegmentations(node):
                return
        elif not hasReport(node):
            return
        else:
            self._followVolume(node)
            sequence = FrameSequence.sequenceOfProxy(node)
            if sequence is not None:
                self._changed.add(sequence.GetID())
        self._changed.add(node.GetID())
        if not self._timer.active:
            self._timer.start()

    def _followVolume(self, segmentationNode) -> None:
        volume = volumeOf(segmentationNode)
        if volume is None or not hasattr(volume, "ImageDataModifiedEvent"):
            return
        for event in (vtk.vtkCommand.ModifiedEvent, volume.ImageDataModifiedEvent, volume.TransformModifiedEvent):
            if not self.hasObserver(volume, event, self._onVolumeChanged):
                self.addObserver(volume, event, self._onVolumeChanged)

    def _onVolumeChanged(self, volume, event) -> None:
        for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
            if hasReport(node) and volumeOf(node) is volume:
                self._onChanged(node)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _onNodeAboutToBeRemoved(self, scene, event, node) -> None:
        made = []
        if node.IsA("vtkMRMLSegmentationNode"):
            made = [
                measurementsTable(node),
                *(overlayOf(node, kind) for kind in (DISAGREEMENT, ALIGNED)),
                *linesOf(node),
            ]
        elif node.IsA("vtkMRMLSequenceNode") and isSequenceOfSegmentations(node):
            made = nodesOfFunction(node)
        else:
            return
        self._rows.pop(node.GetID(), None)
        if not scene.IsClosing():
            self._orphans += [one.GetID() for one in made if one is not None]
            self._timer.start()

    def _removeOrphans(self) -> None:
        orphans, self._orphans = self._orphans, []
        for nodeId in orphans:
            node = slicer.mrmlScene.GetNodeByID(nodeId)
            if node is not None:
                slicer.mrmlScene.RemoveNode(node)
