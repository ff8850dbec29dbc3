"""A bare MRML scene of slicer-core: the real nodes and logics, no application and no Qt."""

import sys
import types
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def _slicerPackage():
    slicer = pytest.importorskip("slicer")
    stand_ins = str(ROOT / "Testing" / "harness" / "slicer_python")
    if stand_ins not in slicer.__path__ and "slicer.i18n" not in sys.modules:
        slicer.__path__.append(stand_ins)  # slicer-core lacks slicer.i18n
    module_folder = str(ROOT / "MKDSegmentation")
    if module_folder not in sys.path:
        sys.path.append(module_folder)
    return slicer


@pytest.fixture
def scene(_slicerPackage, tmp_path, monkeypatch):
    """An empty scene, with as much of `slicer` as the MRML layer of the module uses."""
    slicer = _slicerPackage
    mrmlScene = slicer.vtkMRMLScene()
    monkeypatch.setattr(slicer, "mrmlScene", mrmlScene, raising=False)
    monkeypatch.setattr(slicer, "app", types.SimpleNamespace(temporaryPath=str(tmp_path)), raising=False)
    logic = slicer.vtkSlicerApplicationLogic()
    logic.SetMRMLScene(mrmlScene)
    logic.GetColorLogic().SetMRMLScene(mrmlScene)
    logic.GetColorLogic().AddDefaultColorNodes()
    modules = types.SimpleNamespace()
    for name, logicClass in (
        ("volumes", slicer.vtkSlicerVolumesLogic),
        ("segmentations", slicer.vtkSlicerSegmentationsModuleLogic),
    ):
        moduleLogic = logicClass()
        moduleLogic.SetMRMLScene(mrmlScene)
        moduleLogic.SetMRMLApplicationLogic(logic)
        setattr(modules, name, types.SimpleNamespace(logic=lambda moduleLogic=moduleLogic: moduleLogic))
    monkeypatch.setattr(slicer, "modules", modules, raising=False)
    yield mrmlScene
    mrmlScene.Clear(1)


@pytest.fixture
def addVolume(scene):
    """Function that adds a volume node with the given array (k, j, i) and IJKToRAS matrix."""
    import slicer
    import vtk

    def add(array, ijkToRas=np.diag([-0.5, -0.5, 0.8, 1.0]), name="CT"):
        matrix = vtk.vtkMatrix4x4()
        matrix.DeepCopy(np.asarray(ijkToRas, dtype=float).ravel().tolist())
        return slicer.util.addVolumeFromArray(array, ijkToRAS=matrix, name=name)

    return add


@pytest.fixture
def addTransform(scene):
    """Function that adds a linear transform node that turns by some degrees about an axis and shifts."""
    import vtk

    def add(degrees=20.0, axis=(0.3, 0.5, 0.8), shift=(10.0, -20.0, 30.0)):
        transform = vtk.vtkTransform()
        transform.Translate(*shift)
        transform.RotateWXYZ(degrees, *axis)
        node = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        node.SetMatrixTransformToParent(transform.GetMatrix())
        return node

    return add


@pytest.fixture
def transformOf(scene):
    """Function that adds a linear transform node of steps such as ("Scale", 2.0, 2.0, 2.0), methods of vtkTransform."""
    import vtk

    def add(*steps):
        transform = vtk.vtkTransform()
        for name, *arguments in steps:
            getattr(transform, name)(*arguments)
        node = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        node.SetMatrixTransformToParent(transform.GetMatrix())
        return node

    return add


@pytest.fixture
def labels():
    """Label map (k, j, i) with all seven structures as blocks, away from the border of the grid."""
    array = np.zeros((20, 24, 28), dtype=np.uint8)
    for label in range(1, 8):
        array[5 + label : 9 + label, 4:12, 2 * label + 4 : 2 * label + 6] = label
    return array


@pytest.fixture
def obliqueIjkToRas():
    """IJKToRAS with unequal spacing and no axis along the patient's."""
    import vtk

    transform = vtk.vtkTransform()
    transform.Translate(-31.5, 17.25, -104.0)
    transform.RotateWXYZ(33.0, 0.2, -0.7, 0.4)
    transform.Scale(-0.6, -0.7, 1.3)
    matrix = transform.GetMatrix()
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])
