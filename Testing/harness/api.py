"""The table of Slicer's and CTK's real C++ classes, and the checks of stand-ins against it.

api.json is written by reduce_api.py. A public member of a stand-in which the real class lacks is refused when the
stand-in is declared; a real member which the stand-in does not make is known as such, so that its use can be refused in
words.
"""

import json
from functools import cache
from pathlib import Path

_table = json.loads(Path(__file__).with_name("api.json").read_text(encoding="utf-8"))

#: Names of all classes of Slicer's and CTK's API, made here or not.
CLASS_NAMES = frozenset(_table["names"])


class Api:
    """What PythonQt exposes of one C++ class, not counting inherited members.

    properties: name -> (C++ type, writable); methods and signals: name -> list of tuples of C++ argument types; enums:
        set of names.
    """

    def __init__(self, entry):
        self.properties = {name: (kind, writable) for name, (kind, writable, _notify) in entry["properties"].items()}
        self.methods = _overloads(entry["methods"])
        self.signals = _overloads(entry["signals"])
        self.enums = {name for names in entry["enums"].values() for name in names} | set(entry["enums"])

    def __contains__(self, name):
        return name in self.properties or name in self.methods or name in self.signals or name in self.enums


def splitSignature(signature):
    """Split "name(A,B)" into ("name", ("A", "B")); commas inside <> do not separate."""
    name, _, arguments = signature.rstrip(")").partition("(")
    types, depth = [""], 0
    for character in arguments:
        depth += {"<": 1, ">": -1}.get(character, 0)
        if character == "," and depth == 0:
            types.append("")
        else:
            types[-1] += character
    return name, tuple(types) if arguments else ()


def _overloads(signatures):
    overloads = {}
    for signature in signatures:
        name, types = splitSignature(signature)
        overloads.setdefault(name, []).append(types)
    return overloads


CLASSES = {name: Api(entry) for name, entry in _table["classes"].items()}
SUPERS = {name: entry["super"] for name, entry in _table["classes"].items()}

#: Raw stand-in classes by name, in the order of their declaration.
standIns = {}


def standIn(rawClass):
    """Class decorator: check a raw stand-in against the real class of the same name and register it.

    Raises TypeError if the real class does not exist, has another base class, or lacks a public member of the stand-in.
    """
    name = rawClass.__name__
    if name not in CLASSES:
        raise TypeError(f"{name} is not in the API table: add it to reduce_api.py")
    base = rawClass.__mro__[1]
    if base.__name__ not in ancestors(name):
        raise TypeError(f"{name} derives from {base.__name__}, the real class from {ancestors(name)}")
    for member in vars(rawClass):
        invented = not any(member in entry for entry in apisOf(rawClass)) and not hasattr(base, member)
        if invented and not member.startswith("_"):
            raise TypeError(f"the real {name} has no member {member!r}")
    standIns[name] = rawClass
    return rawClass


def ancestors(name):
    """Return the names of the base classes of a class of the table, nearest first, down to the first class of Qt."""
    names = []
    while name in SUPERS:
        name = SUPERS[name][0]
        names.append(name)
    return names


@cache
def apisOf(rawClass):
    """Return the API table entries of a raw class and of the real class's bases, most derived first (empty for plain Qt
    classes).
    """
    name = next((c.__name__ for c in rawClass.__mro__ if c.__name__ in CLASSES), None)
    return [CLASSES[n] for n in [name, *ancestors(name)] if n in CLASSES] if name else []
