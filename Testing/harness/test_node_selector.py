"""qMRMLNodeComboBox in the stand-in GUI selects, offers and tells as the real one does (see Slicer's C++ and its
wrapper tests).
"""

import pytest

VOLUME = "vtkMRMLScalarVolumeNode"


@pytest.fixture
def makeSelector(slicerApp):
    """makeSelector(**properties) -> (selector with the scene set, list of what currentNodeChanged told)."""
    import slicer

    def make(**properties):
        selector, told = slicer.qMRMLNodeComboBox(), []
        selector.nodeTypes = [VOLUME]
        for name, value in properties.items():
            setattr(selector, name, value)
        selector.connect("currentNodeChanged(vtkMRMLNode*)", lambda node: told.append(node.GetName() if node else None))
        selector.setMRMLScene(slicer.mrmlScene)
        return selector, told

    return make


def _add(name):
    import slicer

    return slicer.mrmlScene.AddNewNodeByClass(VOLUME, name)


INPUT = {"addEnabled": False, "removeEnabled": False}


def test_without_a_scene_it_is_disabled(slicerApp):
    import slicer

    assert slicer.qMRMLNodeComboBox().enabled is False


def test_a_node_that_is_there_when_the_scene_is_set_is_selected(makeSelector):
    _add("first")
    _add("second")
    selector, told = makeSelector(**INPUT)
    assert selector.currentNode().GetName() == "first" and told == ["first"]


def test_a_node_that_comes_is_selected_only_if_the_list_was_empty(makeSelector):
    plain, withActions, withNone = (
        makeSelector(**INPUT)[0],
        makeSelector()[0],
        makeSelector(noneEnabled=True, **INPUT)[0],
    )
    _add("first")
    assert plain.currentNode().GetName() == "first"
    assert withActions.currentNode() is None and withNone.currentNode() is None
    _add("second")
    assert plain.currentNode().GetName() == "first"


def test_when_the_selected_node_goes_a_neighbour_is_selected(makeSelector):
    import slicer

    nodes = [_add("first"), _add("second"), _add("third")]
    selector, told = makeSelector(noneEnabled=True)
    selector.setCurrentNode(nodes[1])
    slicer.mrmlScene.RemoveNode(nodes[1])
    assert selector.currentNode() in (nodes[0], nodes[2]) and told[-1] == selector.currentNode().GetName()
    slicer.mrmlScene.RemoveNode(nodes[0])
    slicer.mrmlScene.RemoveNode(nodes[2])
    assert selector.currentNode() is None and told[-1] is None


def test_a_node_asked_for_before_the_scene_is_set_is_selected_then(slicerApp):
    import slicer

    _add("first")
    wanted = _add("second")
    selector = slicer.qMRMLNodeComboBox()
    selector.nodeTypes = [VOLUME]
    selector.setCurrentNode(wanted)
    assert selector.currentNode() is None
    selector.setMRMLScene(slicer.mrmlScene)
    assert selector.currentNodeID == wanted.GetID()


def test_closing_the_scene_empties_it(makeSelector):
    import slicer

    _add("first")
    selector, told = makeSelector(**INPUT)
    slicer.mrmlScene.Clear()
    assert selector.currentNode() is None and selector.nodeCount() == 0 and told[-1] is None


def test_only_fitting_visible_nodes_are_offered_and_names_follow(makeSelector):
    import slicer

    selector, told = makeSelector(**INPUT)
    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLModelNode")
    node = _add("ct")
    hidden = _add("hidden")
    hidden.SetHideFromEditors(True)
    assert selector.nodeCount() == 1
    node.SetName("renamed")
    assert selector.nodeFromIndex(0).GetName() == "renamed" and told == ["ct", "renamed"]


def test_a_user_creates_and_deletes_nodes_in_the_list(makeSelector):
    from Testing.harness import driving

    selector, _told = makeSelector(noneEnabled=True, baseName="Output")
    added = []
    selector.connect("nodeAddedByUserAction(vtkMRMLNode*)", lambda node: added.append(node.GetName()))
    selector.show()
    driving.choose(selector, "Create new Volume")
    assert added == ["Output"] and selector.currentNode().GetName() == "Output"
    driving.choose(selector, "Delete current Volume")
    assert selector.currentNode() is None and selector.nodeCount() == 0


def test_a_selector_that_is_deleted_stops_observing_the_scene(makeSelector):
    selector, _told = makeSelector()
    selector.delete()
    _add("later")


def test_a_selector_asks_for_the_width_of_the_longest_name_unless_its_policy_says_otherwise(slicerApp):
    import slicer

    from Testing.harness.pythonqt import unwrap

    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "A name that is as long as series descriptions are")
    selector = slicer.qMRMLNodeComboBox()
    selector.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    selector.setMRMLScene(slicer.mrmlScene)
    assert unwrap(selector).minimumSizeHint().width() > 250
    selector.delete()


def test_a_base_name_before_the_node_types_is_lost_with_a_message(slicerApp, expectedErrors):
    import slicer

    selector = slicer.qMRMLNodeComboBox()
    with expectedErrors("no node types have been set yet"):
        selector.baseName = "Heart"
    assert selector.baseName == ""
    selector.delete()
