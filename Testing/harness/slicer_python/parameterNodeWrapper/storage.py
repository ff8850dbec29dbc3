"""How typed values are checked and kept as the strings and node references of a parameter node, in Slicer's own notation."""

import enum
import pathlib
import types
import typing

import slicer


class Default:
    """Annotation with the value (or the function that makes the value) of a parameter that was never set."""

    def __init__(self, value=None, *, generator=None):
        self._value, self._generator = value, generator

    @property
    def value(self):
        return self._generator() if self._generator else self._value


class Validator:
    """Base of the annotations that check a value; `validate` raises ValueError or TypeError."""

    def validate(self, value):
        raise NotImplementedError


class NotNone(Validator):
    def validate(self, value):
        if value is None:
            raise ValueError("Value must not be None")


class IsInstance(Validator):
    def __init__(self, classtype):
        self.classtype = classtype

    def validate(self, value):
        if value is not None and not isinstance(value, self.classtype):
            raise TypeError(f"Value must be of type {self.classtype}, is {value!r}")


class WithinRange(Validator):
    def __init__(self, minimum, maximum):
        self.minimum, self.maximum = minimum, maximum

    def validate(self, value):
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"Value must be within [{self.minimum}, {self.maximum}], is {value}")


class Minimum(Validator):
    def __init__(self, minimum):
        self.minimum = minimum

    def validate(self, value):
        if value < self.minimum:
            raise ValueError(f"Value must be at least {self.minimum}, is {value}")


class Maximum(Validator):
    def __init__(self, maximum):
        self.maximum = maximum

    def validate(self, value):
        if value > self.maximum:
            raise ValueError(f"Value must be at most {self.maximum}, is {value}")


class Choice(Validator):
    def __init__(self, choices):
        self.choices = choices

    def validate(self, value):
        if value not in self.choices:
            raise ValueError(f"Value must be one of {self.choices}, is {value!r}")


class Exclude(Validator):
    def __init__(self, excludedValues):
        self.excludedValues = excludedValues

    def validate(self, value):
        if value in self.excludedValues:
            raise ValueError(f"Value must not be one of {self.excludedValues}, is {value!r}")


def splitAnnotations(kind):
    """Return (type, annotations) of a type that may be Annotated."""
    annotated = typing.get_origin(kind) is typing.Annotated
    return (typing.get_args(kind)[0], list(kind.__metadata__)) if annotated else (kind, [])


def optionalOf(kind):
    """Return X of `X | None`, None of another type; a larger union raises NotImplementedError."""
    if typing.get_origin(kind) not in (typing.Union, types.UnionType):
        return None
    members = [member for member in typing.get_args(kind) if member is not type(None)]
    if len(members) != 1 or len(typing.get_args(kind)) != 2:
        raise NotImplementedError(f"the stand-in GUI does not make parameters of type {kind}")
    return members[0]


def isNodeClass(kind):
    return isinstance(kind, type) and issubclass(kind, slicer.vtkMRMLNode)


class Storage:
    """Reads and writes the values of one simple type under a name in a parameter node."""

    def __init__(self, kind):
        self.kind = kind
        known = kind in (str, int, float, bool, pathlib.Path) or isNodeClass(kind) or isinstance(kind, enum.EnumMeta)
        if not known:
            raise NotImplementedError(f"the stand-in GUI does not make parameters of type {kind}")
        accepted = (int, float) if kind is float else kind
        self.validators = [IsInstance(accepted)] if isNodeClass(kind) else [NotNone(), IsInstance(accepted)]

    def default(self):
        if isinstance(self.kind, enum.EnumMeta):
            return next(iter(self.kind))
        return None if isNodeClass(self.kind) else self.kind()

    def isIn(self, node, name):
        return node.HasParameter(name)

    def write(self, node, name, value):
        if isNodeClass(self.kind):
            node.SetParameter(name, "")
            node.SetNodeReferenceID(name, value.GetID() if value is not None else None)
        else:
            node.SetParameter(name, value.name if isinstance(self.kind, enum.EnumMeta) else str(value))

    def read(self, node, name):
        if isNodeClass(self.kind):
            return node.GetNodeReference(name)
        text = node.GetParameter(name)
        if isinstance(self.kind, enum.EnumMeta):
            return self.kind[text]
        return text == "True" if self.kind is bool else self.kind(text)

    def remove(self, node, name):
        node.UnsetParameter(name)
        if isNodeClass(self.kind):
            node.RemoveNodeReferenceIDs(name)


class OptionalStorage:
    """`X | None`: the value under "name.0", or the mark of None under "name.1"."""

    validators = ()

    def __init__(self, kind):
        inner, annotations = splitAnnotations(kind)
        self._value = Storage(inner)
        self._valueValidators = [*self._value.validators, *annotations]

    def default(self):
        return None

    def isIn(self, node, name):
        return self._value.isIn(node, f"{name}.0") or node.HasParameter(f"{name}.1")

    def write(self, node, name, value):
        if value is not None:
            for validator in self._valueValidators:
                validator.validate(value)
        with slicer.util.NodeModify(node):
            self.remove(node, name)
            if value is None:
                node.SetParameter(f"{name}.1", "True")
            else:
                self._value.write(node, f"{name}.0", value)

    def read(self, node, name):
        return self._value.read(node, f"{name}.0") if self._value.isIn(node, f"{name}.0") else None

    def remove(self, node, name):
        with slicer.util.NodeModify(node):
            self._value.remove(node, f"{name}.0")
            node.UnsetParameter(f"{name}.1")
