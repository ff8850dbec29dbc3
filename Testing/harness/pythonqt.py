"""PythonQt's view of QObjects, over PySide6.

A module never sees a PySide object. It sees a `Wrapper`, which follows the rules of PythonQt's instance wrapper:
properties are attributes, slots and other methods are called, signals are connected by signature string or through
`.connect`, children are found by name, and everything unknown is refused on reading and on writing. Classes of Slicer
and CTK (see api.py) follow the API table.
"""

import enum
import functools
import weakref

import shiboken6
from PySide6 import QtCore

from . import api, connections, conversion, failures

_classes = {}
_wrappers = weakref.WeakValueDictionary()
_OWN = {"delete", "className", "inherits", "help"}


def wrap(value):
    """Return what Python code in Slicer would get for a value that comes from Qt."""
    if isinstance(value, Wrapper) or not isinstance(value, (QtCore.QObject, list, tuple)):
        return value
    if isinstance(value, (list, tuple)):
        return tuple(wrap(item) for item in value)
    known = _wrappers.get(_key(value))
    if known is not None and known._raw is value:
        return known
    wrapper = object.__new__(wrapperClass(type(value)))
    _attach(wrapper, value)
    return wrapper


def unwrap(value):
    """Return the PySide value for a value that goes to Qt."""
    if isinstance(value, Wrapper):
        return value._alive()
    if isinstance(value, BoundMethod):
        return value
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return type(value)(unwrap(item) for item in value)
    if isinstance(value, QtCore.QObject):
        raise TypeError(f"a PySide object got into the module: {value!r}")
    return value


def _key(raw):
    return shiboken6.getCppPointer(raw)[0]


def _attach(wrapper, raw):
    object.__setattr__(wrapper, "_raw", raw)
    _wrappers[_key(raw)] = wrapper


def wrapperClass(rawClass):
    """Return the wrapper class of a PySide or raw stand-in class.

    As in PythonQt, wrapper classes do not inherit from each other: isinstance(label, qt.QWidget) is False; what a
    widget is, its method inherits() tells.
    """
    if rawClass not in _classes:
        _classes[rawClass] = WrapperType(rawClass.__name__, (Wrapper,), {"_rawClass": rawClass})
    return _classes[rawClass]


class WrapperType(type):
    """Class of the wrapper classes: gives static methods and enumerations, refuses overrides of virtual functions."""

    def __new__(mcs, name, bases, namespace):
        if "_rawClass" not in namespace:
            for base in bases:
                rawClass = getattr(base, "_rawClass", None)
                for member in namespace:
                    if member == "eventFilter":
                        continue  # the one that PythonQt forwards and modules use; see Wrapper.__init__
                    if rawClass is not None and not member.startswith("_") and hasattr(rawClass, member):
                        raise NotImplementedError(
                            f"{name}.{member}: the stand-in GUI does not forward virtual functions to Python"
                        )
        return super().__new__(mcs, name, bases, namespace)

    def __getattr__(cls, name):
        if name.startswith("_"):
            raise AttributeError(f"type object {cls.__name__!r} has no attribute {name!r}")
        _refuseUnmade(cls._rawClass, name)
        value = getattr(cls._rawClass, name)
        if isinstance(value, (enum.Enum, enum.EnumMeta, int)):
            return value
        if callable(value):
            return _StaticMethod(cls._rawClass, name)
        raise AttributeError(f"type object {cls.__name__!r} has no attribute {name!r}")


def _refuseUnmade(rawClass, name):
    """Raise NotImplementedError for a member of the real class that the stand-in does not make, AttributeError for
    invented ones.
    """
    entries = api.apisOf(rawClass)
    if not entries:
        return
    if any(name in entry for entry in entries):
        if not hasattr(rawClass, name):
            raise NotImplementedError(f"the stand-in GUI does not make {rawClass.__name__}.{name}")
        return
    qtBase = next(c for c in rawClass.__mro__ if c.__module__.startswith("PySide6."))
    if hasattr(rawClass, name) and not hasattr(qtBase, name):
        raise AttributeError(f"{rawClass.__name__} has no attribute named {name!r}")


def call(rawClass, name, function, arguments, keywords):
    """Call a Qt method with unwrapped, checked arguments; returns the wrapped result."""
    if keywords:
        raise TypeError(f"{rawClass.__name__}.{name}: PythonQt takes no keyword arguments, got {sorted(keywords)}")
    values = [unwrap(argument) for argument in arguments]
    for entry in api.apisOf(rawClass):
        if name in entry.methods:
            overloads = entry.methods[name]
            if not any(
                len(kinds) == len(values) and all(map(conversion.accepts, kinds, values)) for kinds in overloads
            ):
                raise ValueError(
                    f"called {rawClass.__name__}.{name} with wrong arguments {arguments}, expected one of {overloads}"
                )
            break
    else:
        values = [_callback(rawClass, name, value) for value in values]
    return wrap(_onlyReturnValue(name, function(*values)))


def _callback(rawClass, name, value):
    if not callable(value) or isinstance(value, (enum.EnumMeta, type)):
        return value
    if (rawClass.__name__, name) != ("QTimer", "singleShot"):
        raise ValueError(f"{rawClass.__name__}.{name} does not take a Python callable in PythonQt")
    return connections.slotFor(value, wrap)


def _onlyReturnValue(name, result):
    """QFileDialog's functions return the chosen file alone: PythonQt does not return the selected filter as PySide
    does.
    """
    return result[0] if name in ("getOpenFileName", "getOpenFileNames", "getSaveFileName") else result


class _StaticMethod:
    """A method fetched from the class: static, or called with the object as first argument."""

    def __init__(self, rawClass, name):
        self._rawClass, self._name = rawClass, name

    def __call__(self, *arguments, **keywords):
        return call(self._rawClass, self._name, getattr(self._rawClass, self._name), arguments, keywords)


class BoundMethod:
    """A method of one object; equal to another one of the same object and name, so that it can be disconnected."""

    def __init__(self, raw, name):
        self._raw, self._name = raw, name

    def __call__(self, *arguments, **keywords):
        return call(type(self._raw), self._name, getattr(self._raw, self._name), arguments, keywords)

    def __eq__(self, other):
        return isinstance(other, BoundMethod) and other._raw is self._raw and other._name == self._name

    def __hash__(self):
        return hash((id(self._raw), self._name))

    def __repr__(self):
        return f"<method {type(self._raw).__name__}.{self._name}>"


class BoundSignal:
    """A signal of one object. `connect` takes the first overload, as PythonQt does."""

    def __init__(self, raw, name):
        self._raw, self._name = raw, name

    def connect(self, function):
        return connections.connect(self._raw, connections.signalsNamed(self._raw, self._name)[0], function, wrap)

    def disconnect(self, function=None):
        return connections.disconnect(self._raw, connections.signalsNamed(self._raw, self._name)[0], function)

    def emit(self, *arguments):
        getattr(self._raw, self._name).emit(*[unwrap(argument) for argument in arguments])

    __call__ = emit


class Wrapper(metaclass=WrapperType):
    """A QObject as Python code in Slicer sees it."""

    _rawClass = QtCore.QObject

    def __init__(self, *arguments, **keywords):
        if keywords:
            raise TypeError(f"{type(self).__name__}: PythonQt takes no keyword arguments, got {sorted(keywords)}")
        rawClass = _filtering(self._rawClass) if "eventFilter" in dir(type(self)) else self._rawClass
        _attach(self, rawClass(*[unwrap(argument) for argument in arguments]))

    def _alive(self):
        if not shiboken6.isValid(self._raw):
            raise ValueError(f"the {type(self).__name__} was destroyed")
        return self._raw

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        raw = self._alive()
        if _propertyOf(raw, name) is not None:
            return _readProperty(raw, name)
        _refuseUnmade(type(raw), name)
        if connections.signalsNamed(raw, name):
            return BoundSignal(raw, name)
        member = getattr(raw, name, None)
        if isinstance(member, (enum.Enum, enum.EnumMeta)):
            return member
        if callable(member):
            return BoundMethod(raw, name)
        if name in _dynamicProperties(raw):
            return wrap(raw.property(name))
        for child in raw.children():
            if child.objectName() == name:
                return wrap(child)
        raise AttributeError(f"{type(raw).__name__} has no attribute named {name!r}")

    def __setattr__(self, name, value):
        raw = self._alive()
        if _propertyOf(raw, name) is not None:
            _writeProperty(raw, name, value)
            return
        _refuseUnmade(type(raw), name)
        if hasattr(raw, name) or name in _OWN:
            raise AttributeError(f"{name!r} can not be overwritten on {type(raw).__name__} object")
        if name in _dynamicProperties(raw):
            raw.setProperty(name, unwrap(value))
        elif "_rawClass" in vars(type(self)):
            raise AttributeError(
                f"{name!r} does not exist on {type(raw).__name__} and creating new attributes is not allowed"
            )
        else:
            object.__setattr__(self, name, value)

    def __eq__(self, other):
        return isinstance(other, Wrapper) and other._raw is self._raw

    def __hash__(self):
        return id(self._raw)

    def __repr__(self):
        return f"{type(self).__name__} (stand-in for PythonQt, at: {id(self._raw):#x})"

    def connect(self, signal, *target):
        """connect(signal, callable) or connect(signal, receiver, slot)."""
        raw = self._alive()
        return connections.connect(raw, connections.findSignal(raw, signal), _target(target), wrap)

    def disconnect(self, signal, *target):
        """disconnect(signal), disconnect(signal, callable) or disconnect(signal, receiver, slot)."""
        raw = self._alive()
        return connections.disconnect(raw, connections.findSignal(raw, signal), _target(target) if target else None)

    def className(self):
        return self._alive().metaObject().className()

    def inherits(self, name):
        return any(c.__name__ == name for c in type(self._alive()).__mro__)

    def delete(self):
        shiboken6.delete(self._alive())

    def findChildren(self, kind, name=None):
        wanted = kind if isinstance(kind, str) else kind._rawClass
        matching = (
            child for child in self._alive().findChildren(QtCore.QObject) if name is None or child.objectName() == name
        )
        return tuple(
            wrap(c) for c in matching if (c.inherits(wanted) if isinstance(wanted, str) else isinstance(c, wanted))
        )

    def findChild(self, kind, name=None):
        return next(iter(self.findChildren(kind, name)), None)


def _filtering(rawClass):
    """Return a class that hands the events of watched objects to the method eventFilter of its wrapper."""

    class Filtering(rawClass):
        def eventFilter(self, watched, event):
            wrapper = _wrappers.get(_key(self))
            if wrapper is None or not shiboken6.isValid(watched):
                return False
            try:
                answer = wrapper.eventFilter(wrap(watched), event)
            except Exception:
                failures.recordException("exception in an event filter")
                return False
            if not isinstance(answer, bool):
                failures.record("event filter", f"{type(wrapper).__name__}.eventFilter returned {answer!r}, not a bool")
            return bool(answer)

    return Filtering


def _target(target):
    if len(target) == 1:
        return target[0]
    receiver, slot = target
    name, _types = api.splitSignature(connections.normalized(slot))
    method = getattr(receiver, name)
    if not isinstance(method, (BoundMethod, BoundSignal)):
        raise ValueError(f"{receiver!r} has no slot {slot}")
    return method


def _dynamicProperties(raw):
    return [bytes(name.data()).decode() for name in raw.dynamicPropertyNames()]


def _propertyOf(raw, name):
    """Return (C++ type, writable, metaobject name) of a property, None if the object has no such property."""
    if name == "singleShot" and isinstance(raw, QtCore.QTimer):
        # PythonQt leaves this property out, in favour of the static QTimer.singleShot: there is setSingleShot()
        return None
    name = "objectName" if name == "name" and raw.metaObject().indexOfProperty("name") < 0 else name
    index = raw.metaObject().indexOfProperty(name)
    if index < 0:
        return None
    for entry in api.apisOf(type(raw)):
        if name in entry.properties:
            return (*entry.properties[name], name)
    declared = raw.metaObject().property(index)
    return declared.typeName(), declared.isWritable(), name


@functools.cache
def _isDeclaredInPython(rawClass, name):
    return any(isinstance(vars(c).get(name), QtCore.Property) for c in rawClass.__mro__)


def _readProperty(raw, name):
    name = _propertyOf(raw, name)[2]
    if _isDeclaredInPython(type(raw), name):
        return wrap(getattr(raw, name))
    return wrap(raw.metaObject().property(raw.metaObject().indexOfProperty(name)).read(raw))


def _writeProperty(raw, name, value):
    kind, writable, name = _propertyOf(raw, name)
    value = unwrap(value)
    if not writable:
        raise AttributeError(f"property {name!r} of {type(raw).__name__} object is not writable")
    if not conversion.accepts(kind, value):
        raise AttributeError(
            f"property {name!r} of type {kind!r} does not accept an object of type {type(value).__name__} ({value!r})"
        )
    value = conversion.converted(kind, value)
    if _isDeclaredInPython(type(raw), name):
        setattr(raw, name, value)
    elif not raw.setProperty(name, value):
        raise AttributeError(f"property {name!r} of type {kind!r} does not accept {value!r}")
