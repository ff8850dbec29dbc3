"""The stand-in's ctkPathLineEdit is as silent as the real one: its validator decides which texts are told."""

import pytest

pytest.importorskip("slicer")
pytest.importorskip("PySide6")


@pytest.fixture
def told(slicerApp):
    """Function told(*nameFilters): a path line edit, and the list of the paths that it tells."""
    import ctk

    def make(*nameFilters):
        edit = ctk.ctkPathLineEdit()
        edit.nameFilters = list(nameFilters)
        paths = []
        edit.connect("currentPathChanged(QString)", paths.append)
        return edit, paths

    return make


def test_with_a_name_filter_only_paths_that_match_are_told_though_every_text_is_shown(told):
    edit, paths = told("Weights bundle (*.safetensors)")
    for text in ("/x/a.safetensors", "", "/x/weights.pt", "/x/b.safetensor", "/x/c.safetensors.part"):
        edit.currentPath = text
        assert edit.currentPath == text
    assert paths == ["/x/a.safetensors", "/x/b.safetensor"], "the last letter of an ending is optional in CTK"


def test_without_a_name_filter_every_text_but_an_empty_one_is_told(told):
    edit, paths = told()
    for text in ("/x/folder", "", "y"):
        edit.currentPath = text
    assert paths == ["/x/folder", "y"]


def test_whether_the_text_is_valid_is_told_when_it_changes(told):
    edit, _paths = told("Images (*.png *.jpg)")
    seen = []
    edit.connect("validInputChanged(bool)", seen.append)
    for text in ("/a.png", "/b.jpg", "/b.txt", ""):
        edit.currentPath = text
    assert seen == [True, False]


def test_the_line_edit_inside_tells_every_text(told):
    edit, _paths = told("Weights bundle (*.safetensors)")
    texts = []
    edit.comboBox().lineEdit().connect("textChanged(QString)", texts.append)
    edit.currentPath = "/x/a.safetensors"
    edit.currentPath = ""
    assert texts == ["/x/a.safetensors", ""]
