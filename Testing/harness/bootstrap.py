"""Start the stand-in application: slicer-core's real MRML scene and logics under the stand-in GUI layer."""

import json
import os
import sys
import types
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
    os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")

import slicer
import vtk

from . import (  # noqa: F401  (some only register classes)
    api,
    application,
    ctk,
    dicom_database,
    failures,
    files,
    node_selector,
    qmrml,
    scripted,
)
from . import qt as _qt
from .pythonqt import wrap, wrapperClass
from .scripted import loadModule, unloadModule  # noqa: F401  (part of this module's interface)

SLICE_VIEWS = ("Red", "Green", "Yellow")
_LOGICS = {
    "Terminologies": "vtkSlicerTerminologiesModuleLogic",
    "Volumes": "vtkSlicerVolumesLogic",
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
    "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "Transforms": "vtkSlicerTransformLogic",
    "Models": "vtkSlicerModelsLogic",
    "Tables": "vtkSlicerTablesLogic",
    "Texts": "vtkSlicerTextsLogic",
    "Sequences": "vtkSlicerSequencesLogic",
    "Markups": "vtkSlicerMarkupsLogic",
    "Plots": "vtkSlicerPlotsLogic",
    "Units": "vtkSlicerUnitsLogic",
}
_SLICER_PYTHON = Path(__file__).with_name("slicer_python")


def start():
    """Start the application once per process and return slicer.app. Later calls return the running one."""
    if hasattr(slicer, "app"):
        return slicer.app
    failures.install()
    _installModules()
    raw = application.qSlicerApplication(["Slicer"])
    slicer.app = wrap(raw)
    slicer.modules = types.SimpleNamespace()
    raw._dicomDatabase = dicom_database.ctkDICOMDatabase(raw)
    slicer.dicomDatabase = wrap(raw._dicomDatabase)
    _openDicomDatabase()
    raw._moduleManager = application.qSlicerModuleManager(raw)
    raw._ioManager = files.qSlicerIOManager(raw)
    raw._logic = _startScene(raw)
    _startLogics(raw)
    _addPythonFiles()
    return slicer.app


def clear():
    """Unload all scripted modules and close the scene, parameter nodes included: nothing of one test reaches the
    next.
    """
    manager = slicer.app.moduleManager()
    for name in manager.modulesNames():
        if isinstance(manager.module(name), slicer.qSlicerScriptedLoadableModule):
            unloadModule(name)
    manager.disconnect("moduleAboutToBeUnloaded(QString)")
    slicer.app.disconnect("startupCompleted()")
    slicer.mrmlScene.Clear(0)
    for node in slicer.util.getNodesByClass("vtkMRMLScriptedModuleNode"):
        slicer.mrmlScene.RemoveNode(node)
    _mapViews()
    _openDicomDatabase()


def _openDicomDatabase():
    """Open an empty database, as Slicer's DICOM module does at its start with that of the user."""
    slicer.dicomDatabase.openDatabase(os.path.join(slicer.app.temporaryPath, "ctkDICOM.sql"))


def slicerSource():
    """Return the folder of Slicer's own Python files if SLICER_SOURCE_DIR names a checkout, else None."""
    checkout = os.environ.get("SLICER_SOURCE_DIR")
    return Path(checkout) / "Base" / "Python" / "slicer" if checkout else None


def _installModules():
    _qt.install()
    ctk.install()
    for name, rawClass in api.standIns.items():
        if not name.startswith("ctk"):
            setattr(slicer, name, wrapperClass(rawClass))
    slicer.__getattr__ = _unmadeClass
    for name in ("vtkSegmentationCore", "vtkSlicerSegmentationsModuleMRML"):
        for alias in (name, name + "Python"):
            sys.modules.setdefault(alias, sys.modules[f"slicer_core.{name}"])


def _unmadeClass(name):
    if name in api.CLASS_NAMES:
        return ctk.unmade(name)
    raise AttributeError(f"module 'slicer' has no attribute {name!r}")


def _startScene(raw):
    scene = slicer.vtkMRMLScene()
    slicer.mrmlScene = scene
    raw._remoteIO = slicer.vtkMRMLRemoteIOLogic()  # scene bundles and sequences are unpacked into its cache
    raw._remoteIO.SetMRMLScene(scene)
    raw._remoteIO.GetCacheManager().SetRemoteCacheDirectory(raw.cachePath)
    raw._remoteIO.AddDataIOToScene()
    logic = slicer.vtkSlicerApplicationLogic()
    logic.SetTemporaryPath(raw.temporaryPath)
    logic.SetMRMLScene(scene)
    logic.GetColorLogic().SetMRMLScene(scene)
    logic.GetColorLogic().AddDefaultColorNodes()
    logic.SetModuleLogic("Colors", logic.GetColorLogic())  # the volumes logic asks for it by this name
    layout = raw.layoutManager()
    logic.SetSliceLogics(layout.mrmlSliceLogics())
    viewLogics = vtk.vtkCollection()
    logic.SetViewLogics(viewLogics)
    for factory in (
        slicer.vtkMRMLSliceViewDisplayableManagerFactory,
        slicer.vtkMRMLThreeDViewDisplayableManagerFactory,
    ):
        factory.GetInstance().SetMRMLApplicationLogic(logic)
    slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene, True)
    for name in SLICE_VIEWS:
        sliceLogic = slicer.vtkMRMLSliceLogic()
        sliceLogic.SetMRMLApplicationLogic(logic)
        sliceLogic.SetMRMLScene(scene)
        sliceLogic.AddSliceNode(name)
        layout.mrmlSliceLogics().AddItem(sliceLogic)
        layout._sliceWidgets[name] = application.qMRMLSliceWidget(sliceLogic)
    viewLogic = slicer.vtkMRMLViewLogic()
    viewLogic.SetMRMLApplicationLogic(logic)
    viewLogic.SetMRMLScene(scene)
    viewLogic.AddViewNode("1")
    viewLogics.AddItem(viewLogic)
    _mapViews()
    return logic


def _mapViews():
    """Say that the layout has all views, as Slicer's layout manager does for its default, Four-Up."""
    for className in ("vtkMRMLSliceNode", "vtkMRMLViewNode"):
        for node in slicer.util.getNodesByClass(className):
            node.SetMappedInLayout(1)


def _startLogics(raw):
    share = Path(raw.slicerHome) / "share"
    share.mkdir()
    _writeTerminologies(share)
    for name, className in _LOGICS.items():
        logic = getattr(slicer, className)()
        if hasattr(logic, "SetModuleShareDirectory"):
            logic.SetModuleShareDirectory(str(share))
        logic.SetMRMLApplicationLogic(raw._logic)
        logic.SetMRMLScene(slicer.mrmlScene)
        raw._logic.SetModuleLogic(name, logic)
        module = application.qSlicerLoadableModule(name, "", logic)
        raw._moduleManager._modules[name] = module
        setattr(slicer.modules, name.lower(), wrap(module))
    slicer.mrmlScene.AddObserver(slicer.vtkMRMLScene.NodeAddedEvent, _addToSubjectHierarchy)
    slicer.mrmlScene.AddObserver(slicer.vtkMRMLScene.NodeAboutToBeRemovedEvent, _removeFromSubjectHierarchy)


def _writeTerminologies(share):
    """slicer-core has no terminology files: write the few entries that the logics need at their start."""

    def code(value, meaning, **more):
        return {"CodingSchemeDesignator": "SCT", "CodeValue": value, "CodeMeaning": meaning, **more}

    tissue = code(
        "85756007",
        "Tissue",
        showAnatomy="true",
        recommendedDisplayRGBValue=[128, 174, 128],
        **{"3dSlicerLabel": "tissue"},
    )
    structure = code("80891009", "Heart", recommendedDisplayRGBValue=[206, 110, 84])
    categories = [
        code("85756007", "Tissue", showAnatomy="true", Type=[tissue]),
        code("123037004", "Anatomical Structure", showAnatomy="false", Type=[structure]),
    ]
    schema = "https://raw.githubusercontent.com/qiicr/dcmqi/master/doc/{}-context-schema.json#"
    for name, context in (
        ("SlicerGeneralAnatomy", "3D Slicer General Anatomy list"),
        ("DICOM-Master", "DICOM master list"),
    ):
        terminology = {
            "SegmentationCategoryTypeContextName": f"Segmentation category and type - {context}",
            "@schema": schema.format("segment"),
            "SegmentationCodes": {"Category": categories},
        }
        (share / f"SegmentationCategoryTypeModifier-{name}.term.json").write_text(json.dumps(terminology))
    regions = {
        "AnatomicContextName": "Anatomic codes - DICOM master list",
        "@schema": schema.format("anatomic"),
        "AnatomicCodes": {"AnatomicRegion": [code("80891009", "Heart")]},
    }
    (share / "AnatomicRegionAndModifier-DICOM-Master.term.json").write_text(json.dumps(regions))


@vtk.calldata_type(vtk.VTK_OBJECT)
def _addToSubjectHierarchy(scene, _event, node):
    """Make the item that Slicer's Qt plug-ins make for a data node."""
    isData = any(node.IsA(kind) for kind in ("vtkMRMLDisplayableNode", "vtkMRMLTableNode", "vtkMRMLTextNode"))
    hierarchy = (
        slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
        if isData and not node.GetHideFromEditors()
        else None
    )
    if hierarchy is not None and not hierarchy.GetItemByDataNode(node):
        hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)


@vtk.calldata_type(vtk.VTK_OBJECT)
def _removeFromSubjectHierarchy(scene, _event, node):
    hierarchy = scene.GetFirstNodeByClass("vtkMRMLSubjectHierarchyNode")
    if hierarchy is not None and not scene.IsClosing():
        item = hierarchy.GetItemByDataNode(node)
        if item:
            hierarchy.RemoveItem(item, False, False)


def _addPythonFiles():
    """Add the Python files that slicer-core lacks: Slicer's own of a checkout, else the stand-ins.

    It is done after `import slicer`, because that package imports everything it finds on its path.
    """
    source = slicerSource()
    if source is not None and not source.is_dir():
        raise FileNotFoundError(f"SLICER_SOURCE_DIR has no {source}")
    slicer.__path__.append(str(source or _SLICER_PYTHON))
