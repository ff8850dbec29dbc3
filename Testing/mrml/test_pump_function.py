"""Which figures of the beat the reports of its frames allow."""

import pytest


def frame(ml):
    """Return the report of a frame in which the left ventricle has this volume; None stands for a missing frame."""
    return None if ml is None else {"structures": {"LV": {"volume_ml": ml}, "RV": {"volume_ml": ml + 10}}}


@pytest.mark.parametrize(
    ("volumes", "isUnfinished", "isTold"),
    [
        ([120, 80, 50, 90], False, True),
        ([120, None, 50, 90], False, True),
        ([120, None, None, 90], False, False),
        ([120, 80, None, None], False, False),
        ([None, 80, None, 90, None], False, True),
        ([120, None, 50, 90], True, False),
    ],
)
def test_an_ejection_fraction_is_told_where_no_two_neighbouring_frames_are_missing(
    scene, volumes, isUnfinished, isTold
):
    from MKDSegmentationLib.scene.functionNodes import functionNotes, functionOfReports

    reports = [frame(ml) for ml in volumes]
    function = functionOfReports(reports, isUnfinished)
    assert (function.left is not None, function.end_diastole is not None) == (isTold, isTold)
    assert bool(functionNotes(reports, isUnfinished)) != isTold
