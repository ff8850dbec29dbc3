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


def test_a_closed_button_is_higher_than_its_header_and_only_the_header_can_be_clicked(button):
    import qt

    from Testing.harness.pythonqt import unwrap

    box, *_ = button
    header = unwrap(box)._headerHeight()
    assert unwrap(box).hitButton(qt.QPoint(5, header - 1)) and not unwrap(box).hitButton(qt.QPoint(5, header + 1))
    box.collapsed = True
    assert unwrap(box).sizeHint().height() == unwrap(box).minimumSizeHint().height() == header + 14
    assert box.maximumHeight == header + 14
