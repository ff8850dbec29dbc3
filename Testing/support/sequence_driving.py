"""A sequence of volumes in the scene, and what a user sees of what is made of it."""

import numpy as np
import slicer
import vtk

from Testing.support.panel_driving import SHAPE, driving, waitUntilReady

FRAMES = 5


def addSequence(name="Beat", frames=FRAMES):
    """Add a sequence of noise volumes with a browser; returns the volume node that shows the selected frame.

    The first voxel of frame k has the value k: by it the fake worker knows the frame.
    """
    sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", name)
    sequence.SetIndexName("time")
    sequence.SetIndexUnit("ms")
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(np.diag([-2.0, -2.0, 2.0, 1.0]).ravel().tolist())
    volume = slicer.vtkMRMLScalarVolumeNode()
    for frame in range(frames):
        voxels = np.random.default_rng(frame).integers(-1000, 1000, SHAPE).astype(np.int16)
        voxels[0, 0, 0] = frame
        slicer.util.updateVolumeFromArray(volume, voxels)
        volume.SetIJKToRASMatrix(matrix)
        sequence.SetDataNodeAtValue(volume, str(80 * frame))
    browser = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", f"{name} browser")
    browser.SetAndObserveMasterSequenceNodeID(sequence.GetID())
    driving.processEvents()
    return browser.GetProxyNode(sequence)


def browserOf(volume):
    """Return the sequence browser that shows the volume."""
    return slicer.modules.sequences.logic().GetFirstBrowserNodeForProxyNode(volume)


def framesOf(volume):
    """Return the sequence of segmentations in the browser of the volume."""
    (segmentation,) = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    return browserOf(volume).GetSequenceNode(segmentation)


def nodesNamed(name):
    """Return all nodes of this name."""
    return list(slicer.util.getNodes(name, useLists=True).get(name, []))


def segmentAll(panel, seconds=driving.WAIT_S):
    """Click "Segment all frames" and wait until the panel is ready again."""
    driving.click(panel.ui.segmentSequenceButton)
    waitUntilReady(panel, seconds)


def functionRows(panel):
    """Return the figures of the heart's function that the panel shows, by their titles."""
    return {row[0]: row[1:] for row in driving.tableTexts(panel.ui.functionTable)}
