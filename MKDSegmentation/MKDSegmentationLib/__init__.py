"""Collaborators of the MKDSegmentation module, one subject per file.

Importing this package makes mkd_core importable; nothing else happens at import. The names that the module file uses
are imported from their files when they are first used: Slicer imports the module file at every start, and none of them
is needed before the user opens the module.
"""

import importlib

from .corePackage import makeCoreImportable

makeCoreImportable()

_NAMES_OF_FILES = {
    "panel.batchSection": ("BatchSection",),
    "panel.clinicalSection": ("ClinicalSection",),
    "panel.computingSettings": ("ComputingSettings",),
    "panel.dicomSaving": ("DicomSaving",),
    "panel.exportMenu": ("ExportMenu",),
    "panel.keyboardAccess": ("KeyboardAccess",),
    "panel.newerWeights": ("NewerWeights",),
    "panel.outputChoices": ("OutputChoices",),
    "panel.overlayChoice": ("OverlayChoice",),
    "panel.panelState": ("PanelState",),
    "panel.reportButtons": ("ReportButtons",),
    "panel.resultsTable": ("ResultsTable",),
    "panel.runButtons": ("RunButtons",),
    "panel.runtimeEstimate": ("RuntimeEstimate",),
    "panel.segmentExport": ("SegmentExport",),
    "panel.sequenceSection": ("SequenceSection",),
    "panel.shownVolume": ("ShownVolume",),
    "panel.structureNavigation": ("StructureNavigation",),
    "panel.surfaceView": ("SurfaceView",),
    "panel.undoButton": ("UndoButton",),
    "panel.volumeAdvice": ("VolumeAdvice", "VolumeAssessment", "VolumeLook", "assessVolume"),
    "panel.weightsDownload": ("WeightsDownload",),
    "panel.weightsSettings": ("WeightsSettings",),
    "panel.wrappedLabels": ("WrappedLabels",),
    "parameters": ("MKDSegmentationParameterNode", "RunOptions", "forgetUnknownChoices"),
    "run.archiveRun": ("ArchiveRun",),
    "run.batchRun": ("DONE", "RUNNING", "BatchRow", "BatchRun", "rowsOfScene"),
    "run.contracts": ("Logic", "Worker"),
    "run.environment": ("torchProblem", "torchVersion"),
    "run.privateFolder": ("removeLeftovers",),
    "run.segmentationRun": ("RunOutcome", "SegmentationRun"),
    "run.sequenceRun": ("SequenceRun",),
    "run.volumeTransfer": ("LabelBlock", "reasonVolumeCannotBeUsed"),
    "run.workerProcess": ("WorkerProcess",),
    "scene.frameSequence": ("FrameSequence",),
    "scene.heartBox": ("boxOf", "isBoxOfAnother", "keepForVolume", "placeInVolume", "reasonBoxCannotBeUsed"),
    "scene.heartView": ("showHeart",),
    "scene.liveMeasurements": ("LiveMeasurements",),
    "scene.nodeSelection": ("preferredVolume", "segmentationOf", "showOnlyThoseOf"),
    "scene.ourSegments": ("ourSegments",),
    "scene.phantom": ("addHeartPhantom",),
    "scene.provenance": ("reportOf",),
    "scene.sampleData": ("BEAT", "CT", "TRUTH_ATTRIBUTE", "loadSample", "registerSampleData"),
    "scene.segmentMeasurement": ("currentReport", "measureSegment"),
    "scene.segmentationWriting": ("reasonSegmentationCannotBeUsed", "writeSegmentation"),
    "scene.transformHardening": ("hardenedCopy",),
}
_FILES = {name: file for file, names in _NAMES_OF_FILES.items() for name in names}

__all__ = sorted(_FILES)


def __getattr__(name: str):
    if name not in _FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_FILES[name]}", __name__), name)
    globals()[name] = value  # so that this is asked once
    return value
