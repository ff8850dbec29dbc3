"""The decorator `parameterNodeWrapper`."""

import typing
import weakref

import qt
import slicer
import vtk

from .connectors import GuiConnector, createGuiConnector
from .storage import Default, OptionalStorage, Storage, Validator, optionalOf, splitAnnotations

SlicerParameterNamePropertyName = "SlicerParameterName"


class _Parameter:
    """One annotated field of a wrapper class."""

    def __init__(self, name, declared, default):
        self.name, self.unalteredType = name, declared
        kind, annotations = splitAnnotations(declared)
        inner = optionalOf(kind)
        self.storage = OptionalStorage(inner) if inner is not None else Storage(kind)
        self._validators = [*self.storage.validators, *[a for a in annotations if isinstance(a, Validator)]]
        annotated = next((a for a in annotations if isinstance(a, Default)), None)
        self.default = default or annotated or Default(self.storage.default())

    def write(self, node, value):
        for validator in self._validators:
            validator.validate(value)
        self.storage.write(node, self.name, value)

    def read(self, node):
        """Return the value; the default is written first if there is none, as after closing the scene."""
        if not self.storage.isIn(node, self.name):
            self.write(node, self.default.value)
        return self.storage.read(node, self.name)


class _Value:
    """The value of one parameter in one node; kept until the node is modified."""

    def __init__(self, parameter, node):
        self._parameter, self._node, self._writing = parameter, node, False
        self._value = parameter.read(node)
        # a reference to self in the observer would keep the wrapper, and so the observation, for ever
        reference = weakref.ref(self)

        def onModified(_caller, _event):
            value = reference()
            if value is not None and not value._writing:
                value._value = value._parameter.read(value._node)

        self._tag = node.AddObserver(vtk.vtkCommand.ModifiedEvent, onModified)

    def __del__(self):
        if hasattr(self, "_tag"):
            self._node.RemoveObserver(self._tag)

    def read(self):
        return self._value

    def write(self, value):
        self._writing = True
        try:
            # read back before the observers are called: they may ask for the new value
            with slicer.util.NodeModify(self._node):
                self._parameter.write(self._node, value)
                self._value = self._parameter.read(self._node)
        finally:
            self._writing = False


class _Members:
    """What the decorator adds to a class."""

    def _init(self, parameterNode, prefix=None):
        if prefix is not None:
            raise NotImplementedError("the stand-in GUI does not make prefixes of parameters")
        self.parameterNode = parameterNode
        self._values = {name: _Value(parameter, parameterNode) for name, parameter in self.allParameters.items()}
        self._connections, self._nextTag, self._updatingGui = {}, 0, False

    def getValue(self, name):
        self._check(name)
        return self._values[name].read()

    def setValue(self, name, value):
        self._check(name)
        self._values[name].write(value)

    @classmethod
    def _check(cls, name):
        if name not in cls.allParameters:
            raise ValueError(f"Cannot find a param with the given name: {name}")

    def default(self, name):
        self._check(name)
        return self.allParameters[name].default

    @classmethod
    def dataType(cls, name):
        cls._check(name)
        return cls.allParameters[name].unalteredType

    def connectParametersToGui(self, mapping):
        """Connect {parameter name: widget or GuiConnector}; returns the tag for disconnectGui."""
        for name in mapping:
            self._check(name)
        connectors = {
            name: widget if isinstance(widget, GuiConnector) else createGuiConnector(widget, self.dataType(name))
            for name, widget in mapping.items()
        }
        tag, self._nextTag = self._nextTag, self._nextTag + 1
        for name, connector in connectors.items():
            connector.write(self.getValue(name))
            connector.onChanged(self._guiCallback(name, connector))
        observer = self.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda _caller, _event: self._updateGui())
        self._connections[tag] = (connectors, observer)
        return tag

    def _guiCallback(self, name, connector):
        def onChanged():
            with slicer.util.NodeModify(self):
                if not self._updatingGui:
                    self.setValue(name, connector.read())

        return onChanged

    def _updateGui(self):
        if self._updatingGui:
            return
        self._updatingGui = True
        try:
            with slicer.util.NodeModify(self):
                for connectors, _observer in self._connections.values():
                    for name, connector in connectors.items():
                        connector.write(self.getValue(name))
        finally:
            self._updatingGui = False

    def connectGui(self, gui):
        """Connect every widget with the dynamic property SlicerParameterName, of a widget or of childWidgetVariables()."""
        widgets = gui.findChildren(qt.QWidget) if getattr(gui, "isWidgetType", lambda: False)() else vars(gui).values()
        names = {widget.property(SlicerParameterNamePropertyName): widget for widget in widgets}
        return self.connectParametersToGui({name: widget for name, widget in names.items() if name})

    def disconnectGui(self, tag):
        if tag in self._connections:
            connectors, observer = self._connections.pop(tag)
            for connector in connectors.values():
                connector.onChanged(None)
            self.RemoveObserver(observer)

    def StartModify(self):
        return self.parameterNode.StartModify()

    def EndModify(self, wasModified):
        return self.parameterNode.EndModify(wasModified)

    def AddObserver(self, event, callback, priority=0.0):
        return self.parameterNode.AddObserver(event, callback, priority)

    def RemoveObserver(self, tag):
        return self.parameterNode.RemoveObserver(tag)

    def Modified(self):
        return self.parameterNode.Modified()


def _makeProperty(name):
    return property(lambda self: self._values[name].read(), lambda self, value: self._values[name].write(value))


def parameterNodeWrapper(classtype=None):
    """Class decorator: every annotated field becomes a typed parameter of the node given to the constructor."""
    if classtype is None:
        return parameterNodeWrapper
    parameters = {}
    for name, declared in typing.get_type_hints(classtype, include_extras=True).items():
        default = Default(getattr(classtype, name)) if hasattr(classtype, name) else None
        parameters[name] = _Parameter(name, declared, default)
    for name, member in vars(_Members).items():
        if not name.startswith("__") and name != "_init":
            if hasattr(classtype, name):
                raise ValueError(f"Cannot use reserved name {name!r} in a parameterNodeWrapper")
            setattr(classtype, name, member)
    for name in parameters:
        if hasattr(_Members, name):
            raise ValueError(f"Cannot use reserved name {name!r} in a parameterNodeWrapper")
        setattr(classtype, name, _makeProperty(name))
    classtype.allParameters = parameters
    classtype._is_parameter_node_wrapper = True
    classtype.__init__ = _Members._init
    return classtype


def isParameterNodeWrapper(classOrObject):
    return getattr(classOrObject, "_is_parameter_node_wrapper", False)


def findChildWidgetForParameter(widget, parameter):
    """Return the child widget bound to a parameter, None if there is none."""
    return next((w for w in widget.findChildren(qt.QWidget) if w.property(SlicerParameterNamePropertyName) == parameter), None)
