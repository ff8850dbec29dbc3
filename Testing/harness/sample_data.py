"""Stand-in for the module Sample Data: what other modules register there, and the click of a user on it.

With SLICER_SOURCE_DIR naming a checkout of Slicer, the two classes of its own SampleData.py are used instead; the
panel's buttons are made here in any case, because widgets that it needs are not.
"""

import ast
import os
import sys
import types
from pathlib import Path

import slicer
from PySide6 import QtCore, QtGui, QtWidgets

from . import failures


class SampleDataSource:
    """One sample; the arguments are those of Slicer's class, of which this one keeps what registering and clicking
    need.
    """

    def __init__(
        self,
        sampleName=None,
        sampleDescription=None,
        uris=None,
        fileNames=None,
        nodeNames=None,
        checksums=None,
        loadFiles=None,
        customDownloader=None,
        thumbnailFileName=None,
        loadFileTypes=None,
        loadFileProperties=None,
        loadFileType=None,
    ):
        if loadFileType is not None and loadFileTypes is not None:
            raise ValueError("loadFileType and loadFileTypes cannot be specified at the same time")
        lists = [uris, fileNames, nodeNames, loadFiles, loadFileTypes or loadFileType, checksums]
        if isinstance(uris, str):
            lists = [[value] for value in lists]
        else:  # Slicer takes the length of what it is given, which None does not have
            lists[2:] = [[None] * len(uris) if value is None else value for value in lists[2:]]
        if len({len(value) for value in lists}) != 1:
            raise ValueError("All fields of sample data source must have the same length")
        self.uris, self.fileNames, self.nodeNames, self.loadFiles, self.loadFileTypes, self.checksums = lists
        self.sampleName, self.sampleDescription = sampleName, sampleDescription or sampleName
        self.customDownloader, self.thumbnailFileName = customDownloader, thumbnailFileName
        self.loadFileProperties = loadFileProperties or {}

    def __str__(self):
        return str(vars(self))

    def __eq__(self, other):
        return str(self) == str(other)


class SampleDataLogic:
    """The registering part of Slicer's class."""

    @staticmethod
    def registerCustomSampleDataCategory(category, title):
        if not hasattr(slicer.modules, "sampleDataSourceCategories"):
            slicer.modules.sampleDataSourceCategories = {}
        slicer.modules.sampleDataSourceCategories.setdefault(category, {})["title"] = title

    @staticmethod
    def registerCustomSampleDataSource(
        category="Custom",
        sampleName=None,
        uris=None,
        fileNames=None,
        nodeNames=None,
        customDownloader=None,
        thumbnailFileName=None,
        loadFileTypes=None,
        loadFiles=None,
        loadFileProperties={},  # noqa: B006  (as in Slicer)
        checksums=None,
        loadFileType=None,
    ):
        source = SampleDataSource(
            sampleName=sampleName,
            uris=uris,
            fileNames=fileNames,
            nodeNames=nodeNames,
            checksums=checksums,
            loadFiles=loadFiles,
            customDownloader=customDownloader,
            thumbnailFileName=thumbnailFileName,
            loadFileTypes=loadFileTypes,
            loadFileProperties=loadFileProperties,
            loadFileType=loadFileType,
        )
        sources = SampleDataLogic.sampleDataSourcesByCategory().setdefault(category, [])
        if source not in sources:
            sources.append(source)

    @staticmethod
    def sampleDataSourcesByCategory(category=None):
        if not hasattr(slicer.modules, "sampleDataSources"):
            slicer.modules.sampleDataSources = {}
        sources = slicer.modules.sampleDataSources
        return sources if category is None else sources.get(category, [])

    @staticmethod
    def categoryTitle(category):
        return getattr(slicer.modules, "sampleDataSourceCategories", {}).get(category, {}).get("title", category)


def slicersOwn():
    """Return Slicer's SampleData.py of the checkout that SLICER_SOURCE_DIR names, or None."""
    checkout = os.environ.get("SLICER_SOURCE_DIR")
    path = Path(checkout, "Modules", "Scripted", "SampleData", "SampleData.py") if checkout else None
    return path if path is not None and path.is_file() else None


def install():
    """Put the module `SampleData` in place and return it; nothing is registered in it."""
    for name in ("sampleDataSources", "sampleDataSourceCategories"):
        if hasattr(slicer.modules, name):
            delattr(slicer.modules, name)
    path, module = slicersOwn(), types.ModuleType("SampleData", __doc__)
    if path is None:
        module.SampleDataSource, module.SampleDataLogic = SampleDataSource, SampleDataLogic
    else:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        tree.body = [
            part
            for part in tree.body
            if isinstance(part, (ast.Import, ast.ImportFrom))
            or (isinstance(part, ast.ClassDef) and part.name in ("SampleDataSource", "SampleDataLogic"))
        ]
        exec(compile(tree, str(path), "exec"), vars(module))
    sys.modules["SampleData"] = module
    return module


def uninstall():
    """Take the module `SampleData` away again."""
    sys.modules.pop("SampleData", None)


def click(sampleName):
    """Click the button of a sample: its picture and its name, as Slicer's panel makes it. Returns the button's icon and
    text.

    Raises AssertionError if no sample of this name is registered.
    """
    sources = [
        source
        for sources in slicer.modules.sampleDataSources.values()
        for source in sources
        if source.sampleName == sampleName
    ]
    if len(sources) != 1:
        raise AssertionError(f"there are {len(sources)} samples named {sampleName!r}")
    source, button = sources[0], QtWidgets.QToolButton()
    button.setText(source.sampleDescription)
    if source.thumbnailFileName and os.path.exists(source.thumbnailFileName):
        button.setIcon(QtGui.QIcon(source.thumbnailFileName))

    def clicked():
        try:
            source.customDownloader(source)
        except Exception:
            failures.recordException("exception in a slot")

    button.clicked.connect(clicked)
    button.click()
    QtCore.QCoreApplication.processEvents()
    return button.icon(), button.text()
