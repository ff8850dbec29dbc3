"""Our segments in files of other programs: surfaces as STL or OBJ, labels as NIfTI."""

from pathlib import Path

import slicer
import vtk

from mkd_core.io.atomic import OutputFiles
from mkd_core.measure.messages import finding, refusal
from mkd_core.measure.steps import all_at_once
from mkd_core.structures import BY_KEY

from ..run.volumeTransfer import ijkToRas
from .heartGeometry import imageFromArray, labelsOnVolume
from .ourSegments import ourSegments
from .provenance import reportOf
from .surfaces import surfacesInSteps

#: Endings of files with surfaces.
STL, OBJ = ".stl", ".obj"


def surfaceFiles(segmentationNode, folder: Path, ending: str, fileName) -> dict:
    """Return the files for the surfaces of our segments by the ids of the segments: each is called after the
    segmentation and what the user calls the structure.

    :param fileName: returns a name that every disk allows for one that may not be allowed.
    """
    files: dict = {}
    for segmentId in ourSegments(segmentationNode).values():
        name = segmentationNode.GetSegmentation().GetSegment(segmentId).GetName()
        stem = fileName(f"{segmentationNode.GetName()} - {name}")
        taken = {path.name.lower() for path in files.values()}
        number, file = 2, f"{stem}{ending}"
        while file.lower() in taken:
            number, file = number + 1, f"{stem} {number}{ending}"
        files[segmentId] = folder / file
    return files


def saveSurfaces(segmentationNode, files: dict) -> None:
    """Write surfaces as they are seen in the world, in mm and LPS, the space that other programs expect; it is said in
    the files too. Files that are there are replaced.

    :param files: see surfaceFiles.
    :raises MKDError: there is no surface, or a file cannot be written.
    """
    surfaces = {segmentId: surface for segmentId, surface in _surfaces(segmentationNode).items() if segmentId in files}
    if not any(surface.GetNumberOfCells() for surface in surfaces.values()):
        raise refusal(finding("dicom_no_segments"))
    with OutputFiles(overwrite=True) as outputs:
        for segmentId, surface in surfaces.items():
            if surface.GetNumberOfCells():
                outputs.write(files[segmentId], lambda draft, surface=surface: _write(surface, draft))


def saveLabels(segmentationNode, volumeNode, path: Path) -> dict:
    """Write our segments as labels on the voxels of the volume, where its own file has them: without its transforms.

    :param path: ends in .nii.gz or another ending of a label map; one that is there is replaced.
    :return: names of the structures by their labels.
    :raises MKDError: structures overlap, there is none, or the file cannot be written.
    """
    from mkd_core.io.volumes import store_volume

    values = reportOf(segmentationNode)["labels"]
    labels = labelsOnVolume(segmentationNode, volumeNode, values)
    with OutputFiles(overwrite=True) as outputs:
        outputs.write(path, lambda draft: store_volume(imageFromArray(labels, ijkToRas(volumeNode)), draft))
    segmentation, ours = segmentationNode.GetSegmentation(), ourSegments(segmentationNode)
    names = {values.get(key, BY_KEY[key].label): segmentation.GetSegment(ours[key]).GetName() for key in ours}
    return dict(sorted(names.items()))


def _surfaces(segmentationNode) -> dict:
    """Return surfaces in the world, RAS, by the ids of the segments: of all voxels, as smooth as those shown."""
    made = all_at_once(surfacesInSteps(segmentationNode, isFine=True))
    transformNode = segmentationNode.GetParentTransformNode()
    if transformNode is None:
        return made
    toWorld = vtk.vtkGeneralTransform()
    transformNode.GetTransformToWorld(toWorld)
    return {segmentId: _moved(surface, toWorld) for segmentId, surface in made.items()}


def _moved(surface, transform):
    mover = vtk.vtkTransformPolyDataFilter()
    mover.SetTransform(transform)
    mover.SetInputData(surface)
    mover.Update()
    return mover.GetOutput()


def _write(surface, path: Path) -> None:
    """Write a surface by Slicer's own writer of models, which notes the space for readers."""
    scene = slicer.vtkMRMLScene()
    node = scene.AddNewNodeByClass("vtkMRMLModelNode")
    node.SetAndObserveMesh(surface)
    storage = scene.AddNewNodeByClass("vtkMRMLModelStorageNode")
    storage.SetCoordinateSystem(slicer.vtkMRMLStorageNode.CoordinateSystemLPS)
    storage.SetFileName(str(path))
    if not storage.WriteData(node):
        raise OSError(f"{path.name} could not be written")
