"""The stand-in of ctkCollapsibleButton treats its children as CTK's does."""

import pytest


@pytest.fixture
def button(slicerApp):
    """A shown collapsible button, and two labels in it, the second hidden by its owner."""
    import ctk
    import qt

    box = ctk.ctkCollapsibleButton()
    box.setLayout(qt.QVBoxLayout())
    labels = [qt.QLabel("first"), qt.QLabel("second")]
    for label in labels:
        box.layout().addWidget(label)
    labels[1].visible = False
    box.show()
    yield box, *labels
    box.delete()


def test_what_its_owner_hid_stays_hidden_when_the_button_opens_again(button):
    box, first, second = button
    assert first.visible and not second.visible
    box.collapsed = True
    assert not first.visible and not second.visible
    box.collapsed = False
    assert first.visible and not second.visible


def test_what_its_owner_shows_while_the_button_is_closed_appears_when_it_opens(button):
    box, first, second = button
    box.collapsed = True
    second.visible = True
    first.visible = False
    assert not second.visible
    box.collapsed = False
    assert second.visible and not first.visible
