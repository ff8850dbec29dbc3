"""Reduce the table of Slicer's and CTK's C++ API to the classes that the stand-in GUI makes.

The full table comes from Qt's moc, run over Slicer's and CTK's headers: class -> super, properties, methods, signals,
enums.

    python Testing/harness/reduce_api.py FULL_TABLE.json

writes api.json beside this file. Methods that the Python decorator classes add are listed with the class they decorate.
"""

import json
import sys
from pathlib import Path

MADE = (
    "ctkCollapsibleButton",
    "ctkComboBox",
    "ctkDICOMDatabase",
    "ctkMenuButton",
    "ctkMessageBox",
    "ctkPathLineEdit",
    "qMRMLLayoutManager",
    "qMRMLNodeComboBox",
    "qMRMLSegmentationShow3DButton",
    "qMRMLSliceWidget",
    "qMRMLWidget",
    "qSlicerAbstractCoreModule",
    "qSlicerAbstractModule",
    "qSlicerAbstractModuleFactoryManager",
    "qSlicerAbstractModuleWidget",
    "qSlicerApplication",
    "qSlicerCoreApplication",
    "qSlicerCoreIOManager",
    "qSlicerIOManager",
    "qSlicerLayoutManager",
    "qSlicerLoadableModule",
    "qSlicerModuleFactoryManager",
    "qSlicerModuleManager",
    "qSlicerScriptedLoadableModule",
    "qSlicerScriptedLoadableModuleWidget",
    "qSlicerWidget",
)

#: Members inside an #ifdef that moc did not see; set in every build of Slicer that people download.
CONDITIONAL = {"qSlicerCoreApplication": ["extensionsManagerModel()", "pythonManager()"]}


def _decorations(table):
    """Yield (class, method signature) for every method that a decorator class adds to another class."""
    for name, entry in table.items():
        if not name.endswith("PythonQtDecorators"):
            continue
        for signature in entry["methods"]:
            method, arguments = signature[:-1].split("(", 1)
            if method.startswith("static_"):
                decorated, method = method.removeprefix("static_").split("_", 1)
                yield decorated, f"{method}({arguments})"
            elif not method.startswith(("new_", "delete_")):
                decorated, _, rest = arguments.partition(",")
                yield decorated.rstrip("*"), f"{method}({rest})"


def reduceTable(table):
    """Return the reduced table: entries of the classes in MADE and of their ancestors, and the names of all classes."""
    classes = {}
    for name in MADE:
        while name in table:
            classes[name] = table[name]
            name = table[name]["super"][0]
    for name, signatures in CONDITIONAL.items():
        classes[name]["methods"] += signatures
    for decorated, signature in _decorations(table):
        if decorated in classes:
            classes[decorated]["methods"].append(signature)
    return {"classes": classes, "names": sorted(name for name in table if name.startswith(("ctk", "qMRML", "qSlicer")))}


if __name__ == "__main__":
    reduced = reduceTable(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    target = Path(__file__).with_name("api.json")
    target.write_text(json.dumps(reduced, sort_keys=True, separators=(",", ":")).replace('},"', '},\n"') + "\n")
    missing = [name for name in MADE if name not in reduced["classes"]]
    print(f"{target}: {len(reduced['classes'])} classes, not in the table: {missing}")
