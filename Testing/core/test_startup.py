"""Slicer imports the module file at every start: that costs next to nothing until the user opens the module."""

from __future__ import annotations

import pytest

from Testing.benchmarks.startup import start


@pytest.fixture(scope="module")
def found():
    return start()


def test_registering_the_module_imports_nothing_but_the_module_file_and_the_way_to_the_rest(found):
    ours = {name for name in found.registering if name.startswith(("MKDSegmentation", "mkd_core"))}
    assert ours == {"MKDSegmentation", "MKDSegmentationLib", "MKDSegmentationLib.corePackage"}


def test_neither_registering_nor_what_follows_the_start_imports_a_large_library(found):
    assert not found.heavy


def test_what_follows_the_start_needs_neither_requests_nor_messages(found):
    assert not {"mkd_core.protocol", "mkd_core.measure.messages"} & {*found.registering, *found.after}


def test_registering_asks_for_no_class_of_vtk(found):
    assert set(found.vtk) <= {"vtk.calldata_type", "vtk.VTK_OBJECT"}


def test_every_name_that_the_module_file_takes_from_its_package_is_there(slicerApp):
    import MKDSegmentationLib as lib

    for name in lib.__all__:
        assert getattr(lib, name) is not None
    with pytest.raises(AttributeError):
        _ = lib.RunOption
