"""Signals: finding them by signature, and calling Python slots as PythonQt does."""

import inspect
import types

import shiboken6
from PySide6 import QtCore

from . import api, failures

_connections = {}

#: Signatures of signals by name, for every kind of object: each use of a member asks for them.
_signals = {}


def normalized(signature):
    """Return a signal signature without PythonQt's leading digit and with Qt's canonical spelling."""
    text = bytes(signature).decode() if isinstance(signature, (bytes, QtCore.QByteArray)) else signature
    if not isinstance(text, str) or not text:
        raise ValueError(f"a signal is given by its signature, not by {signature!r}")
    if text[0].isdigit():
        text = text[1:]
    return bytes(QtCore.QMetaObject.normalizedSignature(text).data()).decode()


def signalsNamed(raw, name):
    """Return the metaobject's signatures of the signals called `name`, in the order PythonQt finds them."""
    meta = raw.metaObject()
    kind = type(raw), meta.className(), meta.methodCount()
    if kind not in _signals:
        _signals[kind] = {}
        for method in map(meta.method, range(meta.methodCount())):
            if method.methodType() == QtCore.QMetaMethod.MethodType.Signal:
                signatures = _signals[kind].setdefault(bytes(method.name().data()).decode(), [])
                signatures.append(bytes(method.methodSignature().data()).decode())
    return _signals[kind].get(name, [])


def _inMetaObject(cppType):
    """Spell a C++ argument type as PySide spells it for a signal that is declared in Python."""
    if cppType == "qSlicerIO::IOProperties":
        return "QVariantMap"
    return "PyObject" if cppType.endswith("*") else cppType


def findSignal(raw, signature):
    """Return the metaobject's signature of the signal called `signature` in Slicer.

    Raises ValueError if the real class has no such signal, NotImplementedError if the stand-in does not make it.
    """
    signature = normalized(signature)
    name, arguments = api.splitSignature(signature)
    for entry in api.apisOf(type(raw)):
        if arguments in entry.signals.get(name, []):
            spelled = f"{name}({','.join(_inMetaObject(kind) for kind in arguments)})"
            if raw.metaObject().indexOfSignal(spelled) < 0:
                raise NotImplementedError(
                    f"the stand-in GUI does not make the signal {signature} of {type(raw).__name__}"
                )
            return spelled
        if name in entry.signals:
            raise ValueError(f"{type(raw).__name__} has no signal {signature}, but {name} with {entry.signals[name]}")
    if raw.metaObject().indexOfSignal(signature) < 0 or "PyObject" in signature:
        raise ValueError(f"{type(raw).__name__} has no signal {signature}")
    return signature


def _argumentLimit(function):
    """Return how many arguments PythonQt passes to a callable: all (None), unless it is a function without *args."""
    bound = isinstance(function, types.MethodType)
    code = getattr(function.__func__ if bound else function, "__code__", None)
    if (
        not isinstance(function, (types.FunctionType, types.MethodType))
        or code is None
        or code.co_flags & inspect.CO_VARARGS
    ):
        return None
    return code.co_argcount - (1 if bound else 0)


def slotFor(function, wrap):
    """Return a slot that calls `function` with wrapped arguments, cut to what it takes, and collects its exceptions."""
    limit = _argumentLimit(function)

    def slot(*arguments):
        try:
            function(*[wrap(argument) for argument in arguments[:limit]])
        except Exception:
            failures.recordException("exception in a slot")

    return slot


def connect(raw, signature, function, wrap):
    """Connect a signal (metaobject signature) to a Python callable."""
    if not callable(function):
        raise ValueError(f"cannot connect {signature} to {function!r}")
    connection = QtCore.QObject.connect(raw, QtCore.SIGNAL(signature), slotFor(function, wrap))
    key = _key(raw)
    if key not in _connections:
        _connections[key] = []
        raw.destroyed.connect(lambda *_: _connections.pop(key, None))
    _connections[key].append((signature, function, connection))
    return True


def disconnect(raw, signature, function=None):
    """Disconnect one connection to `function`, or all of the signal. Returns whether there was one."""
    kept, removed = [], []
    for entry in _connections.get(_key(raw), []):
        matches = entry[0] == signature and (function is None or entry[1] == function)
        (removed if matches and not (removed and function is not None) else kept).append(entry)
    for entry in removed:
        QtCore.QObject.disconnect(entry[2])
    if removed:
        _connections[_key(raw)] = kept
    return bool(removed)


def _key(raw):
    return shiboken6.getCppPointer(raw)[0]
