"""The module `qt` of the stand-in GUI: Qt's classes by their flat names, QObjects under PythonQt's rules."""

import enum
import sys
import types
from pathlib import Path
from xml.etree import ElementTree

import shiboken6
from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets

from . import api, connections
from .pythonqt import unwrap, wrap, wrapperClass

_MODULES = (QtCore, QtGui, QtWidgets)
_NOT_IN_PYTHONQT = {"Signal", "Slot", "Property", "QtMsgType", "ClassInfo", "QEnum", "QFlag", "SignalInstance"}


def _refuseAttribute(self, name, value):
    if not hasattr(self, name) and type(self).__module__.startswith("PySide6."):
        raise AttributeError(
            f"{name!r} does not exist on {type(self).__name__} and creating new attributes is not allowed"
        )
    object.__setattr__(self, name, value)


def _valueClass(valueClass):
    """Close a class that is no QObject against new attributes; such classes have methods only, in PythonQt as in
    PySide.
    """
    if valueClass.__setattr__ is not _refuseAttribute:
        valueClass.__setattr__ = _refuseAttribute
    return valueClass


class _LayoutItemMethod:
    """QLayoutItem is no QObject, but its widget() and layout() are."""

    def __init__(self, function):
        self._function = function

    def __get__(self, item, _owner):
        return lambda: wrap(self._function(item))


class _MethodThatTakesObjects:
    """A method of a class that is no QObject, whose arguments may be QObjects: PythonQt takes them as they are."""

    def __init__(self, function):
        self._function = function

    def __get__(self, item, _owner):
        return lambda *arguments: self._function(item, *map(unwrap, arguments))


def _find(name):
    if name == "QUiLoader":
        return UiLoader
    for module in _MODULES:
        if hasattr(module, name) and name not in _NOT_IN_PYTHONQT:
            return getattr(module, name)
    raise AttributeError(f"qt has no attribute {name!r}")


class _QtModule(types.ModuleType):
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        value = _find(name)
        if isinstance(value, type) and issubclass(value, QtCore.QObject):
            value = wrapperClass(value)
        elif isinstance(value, type) and issubclass(value, shiboken6.Object) and not isinstance(value, enum.EnumMeta):
            value = _valueClass(value)
        setattr(self, name, value)
        return value


class UiLoader(QtUiTools.QUiLoader):
    """QUiLoader that makes stand-ins for custom widgets, and refuses what the real widgets would not know.

    Connections between custom widgets are made by PythonQt's rules, because PySide spells signatures with VTK types
    differently.
    """

    def createWidget(self, className, parent=None, name=""):
        if className not in api.standIns:
            if className in api.CLASS_NAMES:
                raise NotImplementedError(f"the stand-in GUI does not make {className}")
            return super().createWidget(className, parent, name)
        widget = api.standIns[className](parent)
        widget.setObjectName(name)
        return widget

    def load(self, device, parent=None):
        tree = ElementTree.fromstring(bytes(device.readAll().data()))
        found = [
            (c.findtext("sender"), c.findtext("signal"), c.findtext("receiver"), c.findtext("slot"))
            for c in tree.iter("connection")
        ]
        for element in tree.findall("connections"):
            tree.remove(element)
        buffer = QtCore.QBuffer()
        buffer.setData(ElementTree.tostring(tree))
        buffer.open(QtCore.QIODevice.OpenModeFlag.ReadOnly)
        root = super().load(buffer, parent)
        if root is None:
            raise RuntimeError(self.errorString())
        _checkProperties(tree, root)
        for sender, signal, receiver, slot in found:
            wrap(_named(root, sender)).connect(signal, wrap(_named(root, receiver)), slot)
        return root


def _named(root, name):
    found = root if root.objectName() == name else root.findChild(QtCore.QObject, name)
    if found is None:
        raise ValueError(f"a connection in the .ui file names {name!r}, which does not exist")
    return found


def _checkProperties(tree, root):
    """Raise AttributeError for a property in the .ui file that its widget's class does not have (dynamic ones carry
    stdset="0").
    """
    for element in tree.iter("widget"):
        widget = _named(root, element.get("name"))
        if widget.metaObject().className() == "QWidget" and element.get("class") not in ("QWidget", None):
            raise ValueError(f"{element.get('class')} {element.get('name')} was loaded as a plain QWidget")
        for item in element.findall("property"):
            isBuddy = item.get("name") == "buddy" and isinstance(
                widget, QtWidgets.QLabel
            )  # Qt's loader calls setBuddy() for it
            known = isBuddy or widget.metaObject().indexOfProperty(item.get("name")) >= 0
            if not known and item.get("stdset") != "0":
                raise AttributeError(
                    f"{element.get('class')} {element.get('name')} has no property {item.get('name')!r} (in the .ui "
                    "file)"
                )


def uiProperties(path):
    """Return {widget name: {dynamic property: text}} of a .ui file, such as the SlicerParameterName of each widget."""
    tree = ElementTree.parse(Path(path))
    return {
        widget.get("name"): {
            p.get("name"): "".join(p.itertext()).strip() for p in widget.findall("property") if p.get("stdset") == "0"
        }
        for widget in tree.iter("widget")
    }


def install():
    """Put the module `qt` in place."""
    module = _QtModule("qt", __doc__)
    module.SIGNAL = lambda signature: f"2{connections.normalized(signature)}"
    module.SLOT = lambda signature: f"1{connections.normalized(signature)}"
    for itemClass, name in (
        (QtWidgets.QLayoutItem, "widget"),
        (QtWidgets.QWidgetItem, "widget"),
        (QtWidgets.QLayoutItem, "layout"),
    ):
        setattr(itemClass, name, _LayoutItemMethod(getattr(itemClass, name)))
    QtGui.QPainter.begin = _MethodThatTakesObjects(QtGui.QPainter.begin)
    sys.modules["qt"] = module
    return module
