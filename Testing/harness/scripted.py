"""Stand-ins for the C++ side of a scripted module: the module, its widget, and what the application does to load
them.
"""

import importlib.util
import sys
from pathlib import Path

import shiboken6
import slicer
from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtCore import Property, Signal

from . import failures
from .api import standIn
from .application import qSlicerLoadableModule
from .pythonqt import wrap


@standIn
class qSlicerWidget(QtWidgets.QWidget):
    mrmlSceneChanged = Signal(object)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._scene = None

    def setMRMLScene(self, scene):
        if scene is not self._scene:
            self._scene = scene
            self.mrmlSceneChanged.emit(scene)


@standIn
class qSlicerAbstractModuleWidget(qSlicerWidget):
    def __init__(self, parent=None):
        super().__init__(parent)
        self._entered, self._module = False, None

    def enter(self):
        self._entered = True

    def exit(self):
        self._entered = False

    def module(self):
        return self._module

    isEntered = Property(bool, lambda self: self._entered)


@standIn
class qSlicerScriptedLoadableModuleWidget(qSlicerAbstractModuleWidget):
    """The parent of a scripted module's widget; exceptions in the Python methods are collected, as PythonQt only prints
    them.
    """

    def __init__(self, module):
        super().__init__()
        self._module, self._python = module, None
        QtWidgets.QVBoxLayout(self)

    def _create(self):
        widgetClass = getattr(sys.modules[self._module.name], self.moduleName + "Widget")
        self._python = widgetClass(wrap(self))
        setattr(slicer.modules, self.moduleName + "Widget", self._python)

    def _callPython(self, method):
        try:
            getattr(self._python, method, lambda: None)()
        except Exception:
            failures.recordException(f"exception in {self.moduleName}Widget.{method}")

    def enter(self):
        super().enter()
        self._callPython("enter")

    def exit(self):
        super().exit()
        self._callPython("exit")

    def reload(self):
        self._create()
        self._callPython("setup")

    def self(self):
        return self._python

    moduleName = Property(str, lambda self: self._module.name)


def _assigned(name):
    return lambda self: getattr(self, name), lambda self, value: setattr(self, name, value)


class ModulePanelArea(QtWidgets.QScrollArea):
    """Where Slicer shows the panel of a module: in a scroll area under other widgets.

    When another module was shown before, and when the panel needs a scroll bar, Slicer gives the panel the height of
    its minimumSizeHint, which knows nothing of the height that word-wrapped labels need at their width. This area
    always does, so that what overlaps there overlaps here.
    """

    def __init__(self, panel):
        super().__init__()
        self.setFrameShape(QtWidgets.QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(QtCore.Qt.ScrollBarPolicy.ScrollBarAsNeeded)
        self.setVerticalScrollBarPolicy(QtCore.Qt.ScrollBarPolicy.ScrollBarAlwaysOn)
        self.setWidget(panel)
        panel.installEventFilter(self)
        self.resize(500, 900)

    def eventFilter(self, watched, event):
        if watched is self.widget() and event.type() == QtCore.QEvent.Type.LayoutRequest:
            self._fit()
        return super().eventFilter(watched, event)

    def resizeEvent(self, event):
        super().resizeEvent(event)
        self._fit()

    def _fit(self):
        panel, smallest = self.widget(), self.widget().minimumSizeHint()
        if panel is not None:
            panel.resize(self.viewport().size().expandedTo(smallest))


@standIn
class qSlicerScriptedLoadableModule(qSlicerLoadableModule):
    def __init__(self, name, path):
        super().__init__(name, path, slicer.vtkSlicerScriptedLoadableModuleLogic())
        self._title = self._helpText = self._acknowledgementText = ""
        self._categories, self._contributors, self._dependencies, self._nodeTypes = [], [], [], []
        self._icon, self._hidden, self._index, self._widget = QtGui.QIcon(), False, -1, None
        self._area = None

    def createNewWidgetRepresentation(self):
        widget = qSlicerScriptedLoadableModuleWidget(self)
        widget._create()
        widget._callPython("setup")
        widget.setMRMLScene(slicer.mrmlScene)
        return widget

    def widgetRepresentation(self):
        if self._widget is None:
            self._widget = self.createNewWidgetRepresentation()
        return self._widget

    title = Property(str, *_assigned("_title"))
    helpText = Property(str, *_assigned("_helpText"))
    acknowledgementText = Property(str, *_assigned("_acknowledgementText"))
    categories = Property("QStringList", *_assigned("_categories"))
    contributors = Property("QStringList", *_assigned("_contributors"))
    dependencies = Property("QStringList", *_assigned("_dependencies"))
    associatedNodeTypes = Property("QStringList", *_assigned("_nodeTypes"))
    icon = Property(QtGui.QIcon, *_assigned("_icon"))
    hidden = Property(bool, *_assigned("_hidden"))
    index = Property(int, *_assigned("_index"))


def loadModule(path):
    """Load a scripted module as the application does at its start, open its panel and return (module, widget).

    The folder is appended to sys.path, the module class instantiated, startupCompleted emitted, then the widget made
    and entered. A module of that name loaded before is unloaded first. Exceptions are raised, not only printed.
    """
    path = Path(path).resolve()
    name = path.stem
    if wrap(slicer.app).moduleManager().module(name) is not None:
        unloadModule(name)
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    spec = importlib.util.spec_from_file_location(name, path)
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])
    raw = qSlicerScriptedLoadableModule(name, str(path))
    module = getattr(sys.modules[name], name)(wrap(raw))
    setattr(slicer.modules, name + "Instance", module)
    setattr(slicer.modules, name.lower(), wrap(raw))
    manager = slicer.app.moduleManager()._raw
    manager._modules[name] = raw
    manager.moduleLoaded.emit(name)
    slicer.app._raw.startupCompleted.emit()
    slicer.app.disconnect("startupCompleted()")
    widget = raw.widgetRepresentation()
    raw._area = ModulePanelArea(widget)
    raw._area.show()
    widget.show()
    widget.enter()
    QtCore.QCoreApplication.processEvents()
    return module, widget.self()


def unloadModule(name):
    """Leave a scripted module and unload it as the application does when it closes.

    Observations that the module's widget leaves behind are ended and noted as a failure: they would call a panel that
    is gone.
    """
    manager = slicer.app.moduleManager()._raw
    raw = manager._modules.pop(name)
    if raw._widget is not None:
        if raw._widget.isEntered:
            raw._widget.exit()
        manager.moduleAboutToBeUnloaded.emit(name)
        left = list(getattr(raw._widget.self(), "Observations", ()))
        if left:
            raw._widget.self().removeObservers()
            failures.record("observations left behind", f"{name}Widget.cleanup() left {len(left)}: {left}")
        shiboken6.delete(raw._area if raw._area is not None else raw._widget)
    for attribute in (name + "Instance", name + "Widget", name.lower()):
        if hasattr(slicer.modules, attribute):
            delattr(slicer.modules, attribute)
    del sys.modules[name]
