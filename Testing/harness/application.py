"""Stand-ins for slicer.app, its layout manager, module manager and the modules that are written in C++."""

import os
import tempfile
from pathlib import Path

import slicer
import vtk
from PySide6 import QtCore, QtWidgets
from PySide6.QtCore import Property, Signal

from .api import standIn


def constant(kind, value):
    """Return a read-only property with a fixed value."""
    return Property(kind, lambda self: value)


@standIn
class qSlicerCoreApplication(QtWidgets.QApplication):
    """The application's services; settings and temporary files live in a folder of their own."""

    mrmlSceneChanged = Signal(object)

    def __init__(self, arguments):
        super().__init__(arguments)
        self._folder = tempfile.TemporaryDirectory(prefix="slicer-stand-in-")
        self._temporaryPath, self._cachePath = (str(Path(self._folder.name) / name) for name in ("tmp", "cache"))
        for path in (self._temporaryPath, self._cachePath):
            Path(path).mkdir()
        self.setOrganizationName("StandIn")
        self.setApplicationName("Slicer")
        QtCore.QSettings.setDefaultFormat(QtCore.QSettings.Format.IniFormat)
        QtCore.QSettings.setPath(QtCore.QSettings.Format.IniFormat, QtCore.QSettings.Scope.UserScope, self._folder.name)
        self._userSettings = QtCore.QSettings()
        self._revisionSettings = QtCore.QSettings(
            str(Path(self._folder.name) / "revision.ini"), QtCore.QSettings.Format.IniFormat
        )
        self._logic, self._moduleManager, self._ioManager = None, None, None

    def mrmlScene(self):
        return slicer.mrmlScene

    def applicationLogic(self):
        return self._logic

    def moduleManager(self):
        return self._moduleManager

    def moduleLogic(self, name):
        module = self._moduleManager.module(name)
        return module.logic() if module is not None else None

    def coreIOManager(self):
        return self._ioManager

    def settings(self):
        return self._userSettings

    def userSettings(self):
        return self._userSettings

    def revisionUserSettings(self):
        return self._revisionSettings

    def startupEnvironment(self):
        return QtCore.QProcessEnvironment.systemEnvironment()

    def environment(self):
        return QtCore.QProcessEnvironment.systemEnvironment()

    def setEnvironmentVariable(self, name, value):
        os.environ[name] = value

    def testingEnabled(self):
        return True

    def pauseRender(self):
        """Nothing is rendered while the application runs."""

    def resumeRender(self):
        """See pauseRender."""

    def moduleDocumentationUrl(self, name):
        return self.documentationBaseUrl + f"user_guide/modules/{name.lower()}.html"

    def _setTemporaryPath(self, path):
        self._temporaryPath = path

    temporaryPath = Property(str, lambda self: self._temporaryPath, _setTemporaryPath)
    cachePath = Property(str, lambda self: self._cachePath)
    slicerUserSettingsFilePath = Property(str, lambda self: self._userSettings.fileName())
    slicerHome = Property(str, lambda self: self._folder.name)
    documentationBaseUrl = constant(str, "https://slicer.readthedocs.io/en/latest/")
    mainApplicationName = constant(str, "Slicer")
    majorVersion = constant(int, 5)
    minorVersion = constant(int, 12)
    isInstalled = constant(bool, False)


@standIn
class qSlicerApplication(qSlicerCoreApplication):
    startupCompleted = Signal()
    renderPaused = Signal(bool)

    def __init__(self, arguments):
        super().__init__(arguments)
        self._layoutManager = qSlicerLayoutManager(self)

    def layoutManager(self):
        return self._layoutManager

    def ioManager(self):
        return self._ioManager


@standIn
class qMRMLSliceWidget(QtWidgets.QWidget):
    """One slice view: its nodes and logic. It is not drawn; see views.py."""

    def __init__(self, logic, parent=None):
        super().__init__(parent)
        self._logic = logic

    def sliceLogic(self):
        return self._logic

    def mrmlSliceNode(self):
        return self._logic.GetSliceNode()

    def mrmlSliceCompositeNode(self):
        return self._logic.GetSliceCompositeNode()

    def fitSliceToBackground(self):
        self._logic.FitSliceToBackground()


@standIn
class qMRMLLayoutManager(QtCore.QObject):
    """Three slice views without a window, and no 3D view."""

    layoutChanged = Signal(int)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._sliceLogics, self._sliceWidgets, self._layout = vtk.vtkCollection(), {}, 3

    def mrmlScene(self):
        return slicer.mrmlScene

    def mrmlSliceLogics(self):
        return self._sliceLogics

    def sliceViewNames(self):
        return list(self._sliceWidgets)

    def sliceWidget(self, name):
        return self._sliceWidgets.get(name)

    def resetSliceViews(self):
        for widget in self._sliceWidgets.values():
            widget._logic.FitSliceToAll()

    def resetThreeDViews(self):
        """There is no 3D view."""

    def setLayout(self, layout):
        self._layout = layout
        self.layoutChanged.emit(layout)

    layout = Property(int, lambda self: self._layout, setLayout)
    threeDViewCount = constant(int, 0)


@standIn
class qSlicerLayoutManager(qMRMLLayoutManager):
    selectModule = Signal(str)


@standIn
class qSlicerModuleManager(QtCore.QObject):
    moduleLoaded = Signal(str)
    moduleAboutToBeUnloaded = Signal(str)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._modules = {}
        self._factoryManager = qSlicerModuleFactoryManager(self)

    def module(self, name):
        return self._modules.get(name)

    def modulesNames(self):
        return list(self._modules)

    def factoryManager(self):
        return self._factoryManager


@standIn
class qSlicerModuleFactoryManager(QtCore.QObject):
    def __init__(self, parent):
        super().__init__(parent)
        self._manager = parent

    def isLoaded(self, name):
        return name in self._manager._modules

    def loadedModuleNames(self):
        return list(self._manager._modules)

    def loadedModule(self, name):
        return self._manager._modules.get(name)


@standIn
class qSlicerAbstractCoreModule(QtCore.QObject):
    def __init__(self, name, path, logic):
        super().__init__()
        self._name, self._path, self._logic = name, path, logic
        self.setObjectName(name)

    def mrmlScene(self):
        return slicer.mrmlScene

    def logic(self):
        return self._logic

    name = Property(str, lambda self: self._name)
    path = Property(str, lambda self: self._path)


@standIn
class qSlicerAbstractModule(qSlicerAbstractCoreModule):
    pass


@standIn
class qSlicerLoadableModule(qSlicerAbstractModule):
    """A module written in C++, with its real logic and without its Qt part."""
