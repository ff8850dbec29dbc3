"""What a user does with our panel, and what a user sees of the scene."""

import contextlib
import importlib.metadata
import os
from pathlib import Path

import numpy as np
import slicer
import vtk

from mkd_core.structures import BY_KEY, STRUCTURES
from Testing.harness import bootstrap, driving  # noqa: F401  (the application comes before every other use of Qt)
from Testing.support.solid_heart import phantom, turned

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "MKDSegmentation" / "MKDSegmentation.py"
SHAPE = (20, 24, 36)


def addVolume(name="CT", shape=SHAPE, spacing=2.0, seed=0):
    """Add a scalar volume node of noise to the scene; array shape (k, j, i), spacing in mm."""
    ijkToRas = vtk.vtkMatrix4x4()
    ijkToRas.DeepCopy((np.diag([-spacing, -spacing, spacing, 1.0])).ravel().tolist())
    voxels = np.random.default_rng(seed).integers(-1000, 1000, shape).astype(np.int16)
    return slicer.util.addVolumeFromArray(voxels, ijkToRAS=ijkToRas, name=name)


def addSolidHeart():
    """Add a volume of the heart of solids on an oblique grid; return its node and its labels (k, j, i)."""
    affine, shape = turned((2.4, 2.4, 2.4), size=(60, 64, 64))
    labels = phantom(affine, shape)
    voxels = np.where(labels > 0, 200, -900).astype(np.int16)
    ijkToRas = slicer.util.vtkMatrixFromArray(np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine)
    return slicer.util.addVolumeFromArray(voxels, ijkToRAS=ijkToRas, name="Heart CT"), labels


def draw(volume, labels, keys=tuple(structure.key for structure in STRUCTURES)):
    """Give segments of the result the voxels of a label map on the grid of the volume."""
    for key in keys:
        mask = (labels == BY_KEY[key].label).astype(np.uint8)
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, segmentations()[0], key, volume)


def stayCold(panel):
    """Let the panel start no worker before the click: on a slow machine it would be another one than the test asks for
    later.
    """
    panel._warmTimer.setInterval(10**8)


def segment(panel, seconds=driving.WAIT_S):
    """Click Segment and wait until the panel is ready again."""
    driving.click(panel.ui.segmentButton)
    waitUntilReady(panel, seconds)


def waitUntilReady(panel, seconds=driving.WAIT_S):
    """Wait until a run is over, as far as the panel tells."""
    driving.waitUntil(lambda: panel.ui.segmentButton.text == "Segment", seconds, "the end of the run")


def waitForFigures(panel, seconds=driving.WAIT_S):
    """Wait until the figures follow every change of the segments."""
    driving.waitUntil(lambda: not panel.logic.measurements.isBusy, seconds, "the figures")


def waitForClinicalFigures(panel, seconds=driving.WAIT_S):
    """Wait until they do, and diameters and wall thickness are measured too."""
    driving.waitUntil(
        lambda: not panel.logic.measurements.isBusy and panel._clinical.geometry is not None,
        seconds,
        "the clinical figures",
    )


def waitForStage(panel, text, seconds=driving.WAIT_S):
    """Wait until the panel tells that the run has come so far."""
    driving.waitUntil(lambda: text in panel.ui.statusLabel.text, seconds, f"the stage {text!r}")


def segmentations():
    """Return all segmentation nodes of the scene."""
    return slicer.util.getNodesByClass("vtkMRMLSegmentationNode")


def voxelsOf(segmentation, segmentId, volume):
    """Return a segment as a boolean array (k, j, i) on the grid of the volume."""
    return slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segmentId, volume) > 0


def hideTorch(monkeypatch):
    """Let no PyTorch be installed, as far as the module can see."""

    def version(name, real=importlib.metadata.version):
        if name == "torch":
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)


def sceneContent():
    """Return what a user would miss or find too much: id, name and class of every node."""
    nodes = [slicer.mrmlScene.GetNthNode(index) for index in range(slicer.mrmlScene.GetNumberOfNodes())]
    return sorted((node.GetID(), node.GetName(), node.GetClassName()) for node in nodes)


def childProcesses():
    """Return the process ids of what this process has started; threads that end while they are asked are passed over
    (Linux only).
    """
    children = []
    for task in Path(f"/proc/{os.getpid()}/task").iterdir():
        with contextlib.suppress(OSError):
            children += [int(pid) for pid in (task / "children").read_text(encoding="utf-8").split()]
    return children
