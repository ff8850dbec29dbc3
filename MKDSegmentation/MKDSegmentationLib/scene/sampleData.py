"""Sample data for the module Sample Data: synthetic hearts, made on this computer when they are first asked for, and
kept in Slicer's cache.

Example, in the Python console::

    from MKDSegmentationLib.scene.sampleData import BEAT, loadSample
    volumeNode = loadSample(BEAT)
"""

import json
import os
import pathlib
import shutil
import tempfile
from dataclasses import dataclass

import qt
import slicer
from slicer.i18n import tr as _

from mkd_core import __version__ as coreVersion

# Only light imports up here, because Slicer loads this file at its start.

CATEGORY = "MKDSegmentation"

#: Attribute of a volume node, or of the sequence node of a beat, with the true volumes in ml as JSON: a table, or a
#: list of one per frame.
TRUTH_ATTRIBUTE = "MKDSegmentation.Truth"


@dataclass(frozen=True)
class Sample:
    """A synthetic heart.

    name - as the user reads it; also the name of the node.
    modality - "CT" or "MR".
    seed - decides heart, body and appearance.
    spacing - voxel size in mm.
    frames - of one beat; 0 for a single volume.
    thumbnail - file in Resources/Icons.
    """

    name: str
    modality: str
    seed: int
    spacing: float
    frames: int
    thumbnail: str

    @property
    def folderName(self) -> str:
        """Name of its folder in the cache; hearts of another version are others."""
        beat = f"-{self.frames}frames" if self.frames else ""
        return f"{self.modality}-{self.seed}-{self.spacing:g}mm{beat}-{coreVersion}"


CT = Sample("MKD heart phantom CT", "CT", 7, 1.0, 0, "MKDSegmentationPhantomCT.png")
MR = Sample("MKD heart phantom MR", "MR", 7, 1.2, 0, "MKDSegmentationPhantomMR.png")
BEAT = Sample("MKD beating heart phantom CT", "CT", 7, 1.5, 10, "MKDSegmentationPhantomBeat.png")
SAMPLES = (CT, MR, BEAT)


class SampleError(RuntimeError):
    """A sample could not be made; the message tells the user why."""


def registerSampleData(iconFolder: str) -> None:
    """Offer the samples in the module Sample Data, if this Slicer has it.

    :param iconFolder: folder of the thumbnails.
    """
    try:
        from SampleData import SampleDataLogic
    except ImportError:
        return
    if hasattr(SampleDataLogic, "registerCustomSampleDataCategory"):  # since 2026
        SampleDataLogic.registerCustomSampleDataCategory(CATEGORY, _("Heart Segmentation (MKD)"))
    for sample in SAMPLES:
        SampleDataLogic.registerCustomSampleDataSource(
            category=CATEGORY,
            sampleName=sample.name,
            uris=pathlib.Path(
                _cacheFolder(), sample.folderName
            ).as_uri(),  # nothing is fetched from it: the loader below does all
            fileNames=sample.folderName,
            nodeNames=sample.name,
            customDownloader=_Loader(sample),
            thumbnailFileName=os.path.join(iconFolder, sample.thumbnail),
        )


def loadSample(sample: Sample):
    """Make a sample, unless it is in the cache, add it to the scene and show it in the slice views.

    It is made by another process, while a dialog with progress and Cancel keeps the application responsive.

    :return: the volume node; of a beat the one that shows the selected frame. None if the user cancelled.
    :raises SampleError: if it could not be made.
    """
    from mkd_core.io.volumes import read_volume  # ITK cannot open a path outside the code page of Windows

    from .phantom import addSequence, addVolume

    folder = _madeFolder(sample)
    if folder is None:
        return None
    images = [read_volume(path) for path in sorted(folder.glob("image*.nrrd"))]
    truths = [_volumesMl(read_volume(path)) for path in sorted(folder.glob("truth*.nrrd"))]
    if sample.frames:
        from mkd_core.synthesis.heartbeat import BEAT_MS

        times = [f"{BEAT_MS * frame / sample.frames:g}" for frame in range(sample.frames)]
        volume, sequence = addSequence(images, sample.name, "time", "ms", times)
        sequence.SetAttribute(TRUTH_ATTRIBUTE, json.dumps(truths))
    else:
        volume = addVolume(images[0], sample.name)
        volume.SetAttribute(TRUTH_ATTRIBUTE, json.dumps(truths[0]))
    display = volume.GetDisplayNode()
    if sample.modality == "CT" and display is not None:
        from mkd_core.protocol import SHOWN_HU  # here, because Slicer imports this file at its start

        display.SetAutoWindowLevel(False)
        display.SetWindowLevelMinMax(*SHOWN_HU)
    slicer.util.setSliceViewerLayers(background=volume, fit=True)
    return volume


@dataclass(frozen=True)
class _Loader:
    """What a click on a sample calls.

    Loaders of the same sample read alike: by that Sample Data knows what is registered already.
    """

    sample: Sample

    def __call__(self, source) -> None:
        with slicer.util.tryWithErrorDisplay(_("The sample data could not be made."), waitCursor=False):
            loadSample(self.sample)


def _cacheFolder() -> str:
    """Return Slicer's folder for what can be had again; the user clears it in the application settings."""
    return os.path.join(slicer.app.cachePath, "MKDSegmentation")


def _volumesMl(truth) -> dict:
    import numpy as np
    import SimpleITK as sitk

    from mkd_core.structures import CLASS_COUNT, STRUCTURES

    counts = np.bincount(sitk.GetArrayViewFromImage(truth).ravel(), minlength=CLASS_COUNT)
    voxelMl = float(np.prod(truth.GetSpacing())) / 1000.0
    return {structure.key: round(float(counts[structure.label]) * voxelMl, 3) for structure in STRUCTURES}


def _madeFolder(sample: Sample):
    """Return the folder with the sample's files, which are made if they are not there; None if the user cancelled."""
    from mkd_core.io.atomic import replace

    folder = pathlib.Path(_cacheFolder(), sample.folderName)
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished = tempfile.mkdtemp(prefix="making-", dir=folder.parent)
    except OSError as error:
        raise SampleError(_("The cache folder {folder} cannot be written.").format(folder=folder.parent)) from error
    try:
        if not _make(sample, unfinished):
            return None
        replace(unfinished, folder)  # so the cache never holds half a sample
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def _make(sample: Sample, folder: str) -> bool:
    """Make the files in a process of its own; returns False if the user cancelled."""
    from ..run.workerProcess import prepare, pythonCommand

    image, truth = (os.path.join(folder, f"{name}.nrrd") for name in ("image", "truth"))
    beat = ["--frames", str(sample.frames)] if sample.frames else []
    command = pythonCommand(
        "-m",
        "mkd_core",
        "synthesize",
        image,
        truth,
        "--modality",
        sample.modality,
        "--seed",
        str(sample.seed),
        "--spacing",
        f"{sample.spacing:g}",
        *beat,
    )
    dialog = slicer.util.createProgressDialog(
        maximum=max(1, sample.frames),
        windowTitle=_("Sample data"),
        modal=True,  # so that no second one is begun meanwhile
        labelText=_("Making {name} on this computer ...").format(name=sample.name),
    )
    process = qt.QProcess()
    prepare(process)
    process.start(command[0], command[1:])
    try:
        while not process.waitForFinished(20) and process.state() != qt.QProcess.NotRunning:
            dialog.value = len(list(pathlib.Path(folder).glob("truth_*")))
            slicer.app.processEvents()
            if dialog.wasCanceled:
                return False
    finally:
        process.kill()
        process.waitForFinished(1000)
        dialog.close()
    if process.exitStatus() != qt.QProcess.NormalExit or process.exitCode() != 0:
        reason = process.readAllStandardError().data().decode("utf-8", errors="replace").strip().splitlines()
        raise SampleError(reason[-1] if reason else _("The process that makes it could not be started."))
    return True
