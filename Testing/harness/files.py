"""Stand-in for the application's IO manager: reads and writes through MRML's real storage nodes."""

from pathlib import Path

import slicer
from PySide6 import QtCore
from PySide6.QtCore import Signal

from .api import standIn

_VOLUME_ENDINGS = (".nrrd", ".nhdr", ".nii", ".nii.gz", ".mha", ".mhd", ".dcm", ".hdr")
_TYPE_BY_ENDING = {
    ".seg.nrrd": "SegmentationFile",
    ".seg.vtm": "SegmentationFile",
    ".h5": "TransformFile",
    ".tfm": "TransformFile",
    ".vtk": "ModelFile",
    ".vtp": "ModelFile",
    ".stl": "ModelFile",
    ".ply": "ModelFile",
    ".obj": "ModelFile",
    **dict.fromkeys(_VOLUME_ENDINGS, "VolumeFile"),
}
_TYPE_BY_NODE = (
    ("vtkMRMLSegmentationNode", "SegmentationFile"),
    ("vtkMRMLVolumeNode", "VolumeFile"),
    ("vtkMRMLTransformNode", "TransformFile"),
    ("vtkMRMLModelNode", "ModelFile"),
    ("vtkMRMLTableNode", "TableFile"),
)


@standIn
class qSlicerCoreIOManager(QtCore.QObject):
    newFileLoaded = Signal(dict)
    fileSaved = Signal(dict)

    def fileType(self, path):
        if not Path(path).exists():
            return "NoFile"
        return next((kind for ending, kind in _TYPE_BY_ENDING.items() if path.lower().endswith(ending)), "NoFile")

    def fileWriterFileType(self, node, _path=""):
        return next((kind for nodeClass, kind in _TYPE_BY_NODE if node.IsA(nodeClass)), "NoFile")

    def loadNodes(self, fileType, properties, collection=None, messages=None):
        """Load one file; returns success. Types made: volumes, segmentations, transforms, models."""
        path = properties["fileName"]
        node = _read(fileType, path, properties) if Path(path).is_file() else None
        if node is None:
            if messages is not None:
                messages.AddMessage(slicer.vtkCommand.ErrorEvent, f"Loading {path} failed.")
            return False
        if "name" in properties:
            node.SetName(slicer.mrmlScene.GetUniqueNameByString(properties["name"]))
        if collection is not None:
            collection.AddItem(node)
        self.newFileLoaded.emit({"fileName": path, "fileType": fileType, "nodeIDs": [node.GetID()]})
        return True

    def saveNodes(self, fileType, properties, messages=None, _scene=None):
        """Write one node through its storage node; returns success."""
        if fileType == "SceneFile":
            raise NotImplementedError("the stand-in GUI does not save scenes")
        node = slicer.mrmlScene.GetNodeByID(properties["nodeID"])
        node.AddDefaultStorageNode(properties["fileName"])
        storage = node.GetStorageNode()
        storage.SetFileName(properties["fileName"])
        if "useCompression" in properties:
            storage.SetUseCompression(properties["useCompression"])
        success = bool(storage.WriteData(node))
        if success:
            self.fileSaved.emit({"fileName": properties["fileName"], "nodeID": node.GetID()})
        return success


def _read(fileType, path, properties):
    name = properties.get("name", Path(path).name.split(".")[0])
    if fileType == "VolumeFile":
        # bit 0 of the options: label map; bit 1: centre the image
        options = int(bool(properties.get("labelmap"))) + 2 * int(bool(properties.get("center")))
        return slicer.modules.volumes.logic().AddArchetypeVolume(path, name, options)
    if fileType == "SegmentationFile":
        return slicer.modules.segmentations.logic().LoadSegmentationFromFile(path, True, name)
    if fileType == "TransformFile":
        return slicer.modules.transforms.logic().AddTransform(path, slicer.mrmlScene)
    if fileType == "ModelFile":
        return slicer.modules.models.logic().AddModel(path)
    raise NotImplementedError(f"the stand-in GUI does not load files of type {fileType}")


@standIn
class qSlicerIOManager(qSlicerCoreIOManager):
    pass
