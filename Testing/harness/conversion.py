"""Type checks of values on their way from Python to C++, after PythonQt's conversion rules.

Where PythonQt itself would convert silently to something nobody meant (None to "None", a Path through str(), a string
to a list of its characters, a float to a truncated int), the value is refused: the stand-in GUI errs on the strict
side.
"""

import enum
import operator

import slicer
import vtk
from PySide6 import QtCore, QtGui, QtWidgets

_INTEGERS = {"int", "uint", "unsigned int", "qint64", "qlonglong", "quint64", "short", "long", "ulong", "vtkIdType"}
_VALUE_MODULES = (QtCore, QtGui, QtWidgets)


def accepts(cppType, value):
    """Tell whether `value`, already unwrapped, may be passed where C++ wants `cppType`."""
    kind = cppType.replace("const ", "").rstrip("&").strip()
    if kind in ("QVariant", "PyObject*"):
        return True
    if kind == "QString":
        return isinstance(value, str)
    if kind in ("QByteArray", "char*"):
        return isinstance(value, (str, bytes, QtCore.QByteArray))
    if kind == "bool":
        return isinstance(value, (bool, int))
    if kind in _INTEGERS:
        return _isInteger(value)
    if kind in ("double", "float"):
        return isinstance(value, (int, float)) and not isinstance(value, enum.Enum)
    if kind == "QStringList":
        return isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value)
    if kind in ("QVariantMap", "qSlicerIO::IOProperties"):
        return isinstance(value, dict)
    if kind == "QVariantList" or kind.startswith("QList<"):
        return isinstance(value, (list, tuple))
    if kind == "qSlicerIO::IOFileType":
        return isinstance(value, str)
    if kind.startswith("vtk") and kind.endswith("*"):
        return value is None or isinstance(value, getattr(slicer, kind[:-1], None) or getattr(vtk, kind[:-1]))
    if kind.endswith("*"):
        return value is None or (isinstance(value, QtCore.QObject) and value.inherits(kind[:-1]))
    return _acceptsValueClass(kind, value)


def converted(cppType, value):
    """Return an accepted `value` as PySide takes it: tuples become lists, NumPy's whole numbers become int."""
    if isinstance(value, tuple):
        return list(value)
    if cppType in _INTEGERS and not isinstance(value, int):
        return operator.index(value)
    return value


def _isInteger(value):
    try:
        operator.index(value)
    except TypeError:
        return False
    return True


def _acceptsValueClass(kind, value):
    for module in _VALUE_MODULES:
        valueClass = getattr(module, kind, None)
        if valueClass is not None:
            return isinstance(value, valueClass)
    # what is left are enumerations and flags, which are whole numbers to PythonQt
    return isinstance(value, (int, enum.Enum))
