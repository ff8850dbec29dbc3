"""The stand-in of qMRMLSegmentationShow3DButton does what Slicer's does, and no more."""

import pytest


@pytest.fixture
def button(slicerApp):
    import slicer

    made = slicer.qMRMLSegmentationShow3DButton()
    yield made
    made.delete()


def test_naming_the_same_segmentation_again_brings_nothing_up_to_date(button):
    import slicer

    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    segmentation.GetSegmentation().AddEmptySegment("a")
    button.setSegmentationNode(segmentation)
    assert button.enabled
    button.enabled = False
    button.setSegmentationNode(segmentation)
    assert not button.enabled


def test_surfaces_that_are_the_source_are_not_removed(button):
    import slicer

    surface = "Closed surface"
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    segmentation.GetSegmentation().SetSourceRepresentationName(surface)
    sphere = slicer.vtkSegment()
    import vtk

    source = vtk.vtkSphereSource()
    source.Update()
    sphere.AddRepresentation(surface, source.GetOutput())
    segmentation.GetSegmentation().AddSegment(sphere, "a")
    button.setSegmentationNode(segmentation)
    assert not button.enabled and button.checked
    button.checked = False
    assert segmentation.GetSegmentation().ContainsRepresentation(surface)


def test_a_segment_that_goes_disables_the_button_when_it_was_the_last(button):
    import slicer

    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    segmentation.GetSegmentation().AddEmptySegment("a")
    button.setSegmentationNode(segmentation)
    segmentation.GetSegmentation().RemoveSegment("a")
    assert not button.enabled
