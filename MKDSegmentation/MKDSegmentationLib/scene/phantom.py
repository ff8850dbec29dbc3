"""A synthetic heart as a volume node, to try the module without any data."""

import slicer
from slicer.i18n import tr as _

from ..run.volumeTransfer import setVolumeFromImage


def addHeartPhantom(seed: int = 1, modality: str = "CT", spacing: float = 1.0) -> tuple:
    """Add a synthetic CT or MR of a heart to the scene.

    :param seed: chooses the anatomy and the appearance.
    :param modality: "CT" or "MR".
    :param spacing: voxel size in mm.
    :return: the volume node, and its true labels as a uint8 array (k, j, i) with values of mkd_core.structures.
    """
    import SimpleITK as sitk  # here, because it takes a while and Slicer loads this file at its start

    from mkd_core.synthesis import synthesize

    image, truth = synthesize(None, modality, seed, spacing=spacing)
    return addVolume(image, f"Synthetic heart {modality} {seed}"), sitk.GetArrayFromImage(truth)


def addVolume(image, name: str):
    """Add a SimpleITK image (LPS) to the scene as a scalar volume node (RAS)."""
    volumeNode = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    setVolumeFromImage(volumeNode, image)
    volumeNode.CreateDefaultDisplayNodes()
    return volumeNode


def addSequence(images: list, name: str, indexName: str, indexUnit: str, indexValues: list) -> tuple:
    """Add SimpleITK images (LPS) to the scene as a sequence of scalar volumes with a browser.

    :param indexValues: the index of each image, as text.
    :return: the volume node that shows the selected frame, and the sequence node.
    """
    sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", slicer.mrmlScene.GenerateUniqueName(name))
    sequence.SetIndexName(indexName)
    sequence.SetIndexUnit(indexUnit)
    frame = slicer.vtkMRMLScalarVolumeNode()
    frame.SetName(name)
    for image, value in zip(images, indexValues):
        setVolumeFromImage(frame, image)
        sequence.SetDataNodeAtValue(frame, value)
    browser = slicer.mrmlScene.AddNewNodeByClass(
        "vtkMRMLSequenceBrowserNode", slicer.mrmlScene.GenerateUniqueName(_("{name} browser").format(name=name))
    )
    browser.SetAndObserveMasterSequenceNodeID(sequence.GetID())
    return browser.GetProxyNode(sequence), sequence
