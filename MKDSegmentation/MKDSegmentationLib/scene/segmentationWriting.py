"""From a block of labels to a segmentation node with the structures of the heart, each in a segment of its own."""

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _
from vtk.util import numpy_support

from mkd_core.measure.steps import all_at_once
from mkd_core.structures import ANATOMICAL_STRUCTURE, STRUCTURES, Structure

from ..run.volumeTransfer import LabelBlock, ijkToRas
from .nodeSelection import placeBeside, showOnlyThoseOf
from .ourSegments import freeSegmentId, markAsOurs, ourSegments, segmentsOfOthers
from .segmentMeasurement import figuresInSteps, keepFigures

#: Name of our terminology context, see Resources/MKDSegmentation.term.json.
TERMINOLOGY_CONTEXT = "MKDSegmentation whole heart"
_REGION_CONTEXT = "Anatomic codes - DICOM master list"
_BINARY = slicer.vtkSegmentationConverter.GetBinaryLabelmapRepresentationName()
_SURFACE = slicer.vtkSegmentationConverter.GetClosedSurfaceRepresentationName()


def terminologyEntry(structure: Structure) -> str:
    """Return the serialised terminology of a structure as Slicer keeps it in a segment's tag."""
    category, code = "^".join(ANATOMICAL_STRUCTURE), "^".join(structure.code)
    return f"{TERMINOLOGY_CONTEXT}~{category}~{code}~^^~{_REGION_CONTEXT}~^^~^^"


def reasonSegmentationCannotBeUsed(segmentationNode, volumeNode) -> str:
    """Return why the segments of the volume cannot go into the node, one sentence, or an empty string if they
    can.

    A node that holds other segments must keep them untouched: they may be neither moved by another transform nor
        resampled to another grid.
    """
    if segmentationNode is None or volumeNode is None:
        return ""
    if not segmentsOfOthers(segmentationNode):
        return ""
    if segmentationNode.GetSegmentation().GetSourceRepresentationName() != _BINARY:
        return _("The output segmentation holds surfaces of other structures; select a new segmentation.")
    if segmentationNode.GetTransformNodeID() != volumeNode.GetTransformNodeID():
        return _("The output segmentation has other segments under another transform; select a new segmentation.")
    if not _sharesGrid(segmentationNode, volumeNode):
        return _("The output segmentation has other segments, made on another volume; select a new segmentation.")
    return ""


class SegmentationBackup:
    """A segmentation as it is now, to be put back if what comes fails half-way.

    :param segmentationNode: None, if there is none yet, makes a backup that restores nothing.
    """

    def __init__(self, segmentationNode) -> None:
        self._node = segmentationNode
        if segmentationNode is None:
            return
        self._content = slicer.vtkSegmentation()
        self._content.DeepCopy(segmentationNode.GetSegmentation())
        self._transformId = segmentationNode.GetTransformNodeID()
        self._attributes = {name: segmentationNode.GetAttribute(name) for name in segmentationNode.GetAttributeNames()}
        display = segmentationNode.GetDisplayNode()
        self._display = display.CreateNodeInstance() if display else None
        if display:
            self._display.Copy(display)

    @property
    def segmentation(self):
        """The segmentation node that the backup is of, or None."""
        return self._node

    @property
    def content(self):
        """The vtkSegmentation as it was."""
        return self._content

    def restore(self) -> None:
        """Bring segments, their look, the parent transform and the attributes back."""
        node = self._node
        if node is None:
            return
        with slicer.util.NodeModify(node):
            node.SetAndObserveTransformNodeID(self._transformId)
            node.GetSegmentation().DeepCopy(self._content)
            for name in {*node.GetAttributeNames(), *self._attributes}:
                node.SetAttribute(name, self._attributes.get(name))
            if self._display is not None and node.GetDisplayNode():
                node.GetDisplayNode().Copy(self._display)


def writeSegmentation(
    labels: LabelBlock,
    volumeNode,
    segmentationNode=None,
    algorithmName: str = "MKDSegmentation",
    structures=STRUCTURES,
    figures: dict | None = None,
):
    """Put the labels into segments, one for each structure, and return the segmentation node.

    :param labels: block of the volume's grid.
    :param volumeNode: the volume that was segmented; gives geometry, parent transform and place in the subject
        hierarchy.
    :param segmentationNode: receives the segments, replacing ours from an earlier run and no others; None makes a new
        node.
    :param algorithmName: recorded in each segment, and from there in DICOM.
    :param structures: what the label values mean, see mkd_core.structures.
    :param figures: of the structures (see figuresInSteps) if they are measured already; measuring takes most of the
        time.
    :raises RuntimeError: if Slicer does not take the labels; a node made here is removed again.
    """
    figures = all_at_once(figuresInSteps(labels, structures, volumeNode)) if figures is None else figures
    isNew = segmentationNode is None
    if isNew:
        name = slicer.mrmlScene.GenerateUniqueName(_("{volume} heart").format(volume=volumeNode.GetName()))
        segmentationNode = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    try:
        with slicer.util.NodeModify(segmentationNode):
            _fill(segmentationNode, labels, volumeNode, algorithmName, structures, figures)
    except Exception:
        if isNew:
            slicer.mrmlScene.RemoveNode(segmentationNode)
        raise
    if isNew:
        placeBeside(volumeNode, segmentationNode)
    showOnlyThoseOf(volumeNode)
    return segmentationNode


def _fill(segmentationNode, labels: LabelBlock, volumeNode, algorithmName: str, structures, figures: dict) -> None:
    segmentation = segmentationNode.GetSegmentation()
    if segmentation.GetSourceRepresentationName() == _BINARY:
        segmentation.RemoveRepresentation(_SURFACE)  # of what is replaced; making others here would take seconds
    if not segmentsOfOthers(segmentationNode):
        if segmentation.GetSourceRepresentationName() != _BINARY:
            segmentation.RemoveAllSegments()
            segmentation.SetSourceRepresentationName(_BINARY)
        # First the transform, then the geometry: the other way round the geometry would be taken to world space and the
        # labels resampled.
        segmentationNode.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
    segmentationNode.SetReferenceImageGeometryParameterFromVolumeNode(volumeNode)
    if not segmentationNode.GetDisplayNode():
        segmentationNode.CreateDefaultDisplayNodes()

    earlier, written = ourSegments(segmentationNode), {}
    known = {structure.key for structure in structures}
    for key, segmentId in earlier.items():
        if key not in known:  # of a run with weights that know other structures
            segmentation.RemoveSegment(segmentId)
    ids = vtk.vtkStringArray()  # the n-th id receives label n; an empty one is passed over
    for structure in structures:
        segmentId = earlier.get(structure.key)
        if structure.label in figures:
            written[structure] = segmentId or freeSegmentId(segmentationNode, structure.key)
        elif segmentId:
            segmentation.RemoveSegment(segmentId)
        ids.InsertNextValue(written.get(structure, ""))
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    if not logic.ImportLabelmapToSegmentationNode(_orientedImage(labels, volumeNode), segmentationNode, ids):
        raise RuntimeError("The labels could not be imported into the segmentation.")
    for structure, segmentId in written.items():
        _describe(segmentation.GetSegment(segmentId), structure, algorithmName)
        markAsOurs(segmentationNode, segmentId, structure.key, figures[structure.label].fingerprint)
        keepFigures(segmentationNode, segmentId, volumeNode, figures[structure.label])
    _show(segmentationNode, list(written.values()))


def _show(segmentationNode, segmentIds: list) -> None:
    """Let the new segments be seen, also where the user had hidden those of an earlier run."""
    display = segmentationNode.GetDisplayNode()
    display.SetVisibility(True)
    for segmentId in segmentIds:
        display.SetSegmentVisibility(segmentId, True)


def _orientedImage(labels: LabelBlock, volumeNode):
    """Return the block as an image whose extent says where it lies on the volume's grid."""
    extent = []
    for start, size in zip(reversed(labels.start), reversed(labels.values.shape)):
        extent += [start, start + size - 1]
    image = slicer.vtkOrientedImageData()
    image.SetExtent(extent)
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    numpy_support.vtk_to_numpy(image.GetPointData().GetScalars())[:] = labels.values.ravel()
    geometry = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(geometry)
    image.SetGeometryFromImageToWorldMatrix(geometry)
    return image


def _describe(segment, structure: Structure, algorithmName: str) -> None:
    # Slicer renames and recolours segments whose name or colour counts as generated
    segment.SetNameAutoGenerated(False)
    segment.SetColorAutoGenerated(False)
    segment.SetName(structure.name)
    segment.SetColor(*(channel / 255.0 for channel in structure.color))
    segment.SetTag(segment.GetTerminologyEntryTagName(), terminologyEntry(structure))
    segment.SetTag("DICOM.SegmentAlgorithmType", "AUTOMATIC")
    segment.SetTag("DICOM.SegmentAlgorithmName", algorithmName)


def _sharesGrid(segmentationNode, volumeNode) -> bool:
    """Tell whether the segmentation's reference geometry is the volume's grid; one that has none yet takes any."""
    parameter = slicer.vtkSegmentationConverter.GetReferenceImageGeometryParameterName()
    geometry = segmentationNode.GetSegmentation().GetConversionParameter(parameter)
    if not geometry:
        return True
    reference = slicer.vtkOrientedImageData()
    if not slicer.vtkSegmentationConverter.DeserializeImageGeometry(geometry, reference, False):
        return False
    matrix = vtk.vtkMatrix4x4()
    reference.GetImageToWorldMatrix(matrix)
    geometry = np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])
    sameSize = reference.GetDimensions() == volumeNode.GetImageData().GetDimensions()
    return sameSize and np.allclose(geometry, ijkToRas(volumeNode), atol=1e-3)
