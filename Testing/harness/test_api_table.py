"""The stand-ins of the stand-in GUI are held to the table of Slicer's and CTK's real classes."""

import json
from pathlib import Path

import pytest


@pytest.fixture
def standIn(runningApplication, monkeypatch):
    """The decorator of stand-in classes; what a test declares is forgotten afterwards."""
    from Testing.harness import api

    monkeypatch.setattr(api, "standIns", dict(api.standIns))
    return api.standIn


def _declare(standIn, name, base, **members):
    return standIn(type(name, (base,), members))


def test_a_stand_in_with_an_invented_public_member_is_refused(standIn):
    from PySide6 import QtWidgets

    with pytest.raises(TypeError, match="has no member 'fold'"):
        _declare(standIn, "ctkMessageBox", QtWidgets.QMessageBox, fold=lambda self: None)
    _declare(standIn, "ctkMessageBox", QtWidgets.QMessageBox, dontShowAgain=None, _fold=lambda self: None)


def test_a_stand_in_of_a_class_that_does_not_exist_or_has_another_base_is_refused(standIn):
    from PySide6 import QtWidgets

    with pytest.raises(TypeError, match="not in the API table"):
        _declare(standIn, "ctkMagicButton", QtWidgets.QPushButton)
    with pytest.raises(TypeError, match="derives from QLabel"):
        _declare(standIn, "ctkMessageBox", QtWidgets.QLabel)


def test_every_stand_in_can_be_made_in_python_or_is_made_by_the_application(slicerApp):
    import ctk
    import slicer

    from Testing.harness import api

    byApplication = ("qSlicer", "qMRMLLayoutManager", "qMRMLSliceWidget")
    for name in api.standIns:
        if not name.startswith(byApplication):
            widget = getattr(ctk if name.startswith("ctk") else slicer, name)()
            assert widget.className() == name


def test_signatures_with_templates_are_split_at_the_right_commas():
    from Testing.harness.api import splitSignature

    assert splitSignature("f(QMap<int,int>,QString)") == ("f", ("QMap<int,int>", "QString"))
    assert splitSignature("clicked()") == ("clicked", ())


def test_the_reduced_table_gets_decorated_methods_and_ancestors(monkeypatch):
    from Testing.harness import reduce_api

    def entry(base, *methods):
        return {"super": [base], "methods": list(methods), "properties": {}, "signals": [], "enums": {}}

    table = {
        "ctkPushButton": entry("QPushButton"),
        "ctkMenuButton": entry("ctkPushButton"),
        "qSlicerCoreApplication": entry("QApplication"),
        "ctkOther": entry("QWidget"),
        "ctkPythonQtDecorators": entry(
            "QObject", "press(ctkMenuButton*,int)", "static_ctkMenuButton_all()", "new_ctkMenuButton()"
        ),
    }
    reduced = reduce_api.reduceTable(table)
    assert set(reduced["classes"]) == {"ctkMenuButton", "ctkPushButton", "qSlicerCoreApplication"}
    assert reduced["classes"]["ctkMenuButton"]["methods"] == ["press(int)", "all()"]
    assert "ctkOther" in reduced["names"]


def test_the_stored_table_has_every_class_that_the_script_names():
    from Testing.harness import reduce_api

    stored = json.loads(Path(reduce_api.__file__).with_name("api.json").read_text(encoding="utf-8"))
    assert set(reduce_api.MADE) <= set(stored["classes"])
