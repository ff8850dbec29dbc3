"""Tables, plots and the panel follow the segments: what is shown of a segmentation is true of it as it is now."""

import qt
import slicer
import vtk
from slicer.util import VTKObservationMixin

from ..run.incrementalTask import IncrementalTask
from .frameSequence import FrameSequence, isSequenceOfSegmentations
from .functionNodes import nodesOfFunction, writeFunctionNodes
from .heartGeometry import linesOf
from .measurements import measurementRows, measurementsTable, writeMeasurementsTable
from .nodeSelection import volumeOf
from .ourSegments import declareAlgorithm, ourSegments
from .overlayVolumes import ALIGNED, DISAGREEMENT, overlayOf
from .provenance import hasReport
from .segmentMeasurement import EDITED, currentReport, measureSegment, unchangedSteps, voxelsToMeasure

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
        self._changed = set()  # ids of nodes that changed
        self._underWay, self._task = set(), None  # ids of those that are measured now, and the task that does it
        self._rows = {}  # id of a segmentation or sequence node -> what its table or tables show
        self._orphans = []  # ids of nodes whose segmentation is being removed
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(DELAY_MS)
        self._timer.connect("timeout()", self._begin)
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.NodeAddedEvent, self._onNodeAdded)
        self.addObserver(scene, scene.NodeAboutToBeRemovedEvent, self._onNodeAboutToBeRemoved)
        self.addObserver(scene, scene.EndImportEvent, self._onSceneFilled)
        self.addObserver(scene, scene.EndRestoreEvent, self._onSceneFilled)
        self._onSceneFilled()

    def close(self) -> None:
        """Stop following."""
        self._timer.stop()
        if self._task is not None:
            self._task.stop()
            self._task = None
        self.removeObservers()
        self.onMeasured = None

    @property
    def isBusy(self) -> bool:
        """True from a change to the figures that follow it."""
        return self._timer.active or self._task is not None

    def isWaitingFor(self, node) -> bool:
        """Tell whether a node changed and its figures do not follow yet."""
        return node is not None and node.GetID() in self._changed | self._underWay

    def _begin(self) -> None:
        """Bring everything up to date that changed, in short steps."""
        self._removeOrphans()
        if self._task is not None or slicer.mrmlScene.IsBatchProcessing():
            self._timer.start()
            return
        self._underWay, self._changed = self._changed, set()
        self._task = IncrementalTask(
            self._steps(sorted(self._underWay)), self._onDone, self._onError, restsWhileDrawing=True
        )

    def _steps(self, nodeIds: list):
        for nodeId in nodeIds:
            node = slicer.mrmlScene.GetNodeByID(nodeId)
            if node is None:
                continue
            yield from self._segmentSteps(node)
            # What was removed or changed again meanwhile is not shown: its turn comes.
            if slicer.mrmlScene.GetNodeByID(nodeId) is node and nodeId not in self._changed:
                self._show(node)
                yield

    def _segmentSteps(self, node):
        """Measure what is not measured yet, so that the reports of a node take no time."""
        if node.IsA("vtkMRMLSequenceNode"):
            frames = FrameSequence.ofSegmentations(node)
            if frames is not None and nodesOfFunction(node):
                for value in frames.indexValues():
                    segmentation = frames.segmentationOfFrame(value)
                    if voxelsToMeasure(segmentation):
                        yield from unchangedSteps(segmentation)
                while not frames.measureSome():
                    yield
            return
        yield from unchangedSteps(node)
        for segmentId in ourSegments(node).values():
            if node.GetSegmentation().GetSegment(segmentId) is not None:
                measureSegment(node, segmentId, volumeOf(node))
                yield

    def _onDone(self, _value) -> None:
        self._task, self._underWay = None, set()
        if self.onMeasured is not None:
            self.onMeasured()

    def _onError(self, error: Exception) -> None:
        self._task, self._underWay = None, set()
        raise error

    def _show(self, node) -> None:
        if node.IsA("vtkMRMLSequenceNode"):
            frames = FrameSequence.ofSegmentations(node)
            if frames is not None and nodesOfFunction(node):
                self._showFrames(node, frames)
            return
        report = currentReport(node, volumeOf(node))
        if report is None:  # taken back meanwhile
            return
        for key, segmentId in ourSegments(node).items():
            isEdited = report["structures"].get(key, {}).get("state") == EDITED
            declareAlgorithm(node.GetSegmentation().GetSegment(segmentId), isEdited)
        if measurementsTable(node) is None:
            return
        rows = measurementRows(report)
        if rows != self._rows.get(node.GetID()):
            writeMeasurementsTable(report, node)
            self._rows[node.GetID()] = rows

    def _showFrames(self, sequence, frames: FrameSequence) -> None:
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
