"""Ejection fraction and the like against values computed by hand, and the sentence for each doubt."""

from __future__ import annotations

import json

import pytest

from mkd_core.measure.cardiac_function import cardiac_function, volume_curve
from mkd_core.measure.messages import describe

#: ml of one beat in ten frames, by hand: EDV 140, ESV 60 at frame 4; the right ventricle 150 and 72 at those frames.
LV = [140.0, 120.0, 85.0, 65.0, 60.0, 82.0, 115.0, 122.0, 124.0, 132.0]
RV = [150.0, 131.0, 96.0, 78.0, 72.0, 92.0, 126.0, 133.0, 134.0, 141.0]
MYO = [110.0] * 4 + [112.0] + [110.0] * 5


def sentences(function) -> list[str]:
    """What is doubted, in words."""
    return [describe(warning) for warning in function.warnings]


def report(lv: float, rv: float, myo: float, **border: bool) -> dict:
    """What the pipeline reports of a frame, as far as it counts here."""
    volumes = {"LV": lv, "RV": rv, "Myo": myo}
    return {
        "structures": {key: {"volume_ml": ml, "touches_border": border.get(key, False)} for key, ml in volumes.items()}
    }


@pytest.fixture
def beat() -> list:
    return [report(*volumes) for volumes in zip(LV, RV, MYO)]


def test_the_figures_of_a_beat_are_those_computed_by_hand(beat):
    function = cardiac_function(beat)
    assert (function.end_diastole, function.end_systole) == (0, 4)
    assert function.left.end_diastolic_ml == 140.0 and function.left.end_systolic_ml == 60.0
    assert function.left.stroke_volume_ml == 80.0
    assert function.left.ejection_fraction == pytest.approx(80 / 140)
    assert function.right.stroke_volume_ml == 78.0
    assert function.right.ejection_fraction == pytest.approx(0.52)
    assert function.myocardial_mass_g == pytest.approx(115.5), "110 ml at 1.05 g/ml, at end-diastole"
    assert sentences(function) == []


def test_the_figures_can_be_kept_as_json(beat):
    kept = json.loads(json.dumps(cardiac_function(beat).as_dict()))
    assert kept["left"]["stroke_volume_ml"] == 80.0 and kept["end_systole"] == 4


def test_a_frame_without_a_result_leaves_a_gap_in_the_curve_and_a_warning(beat):
    beat[2] = None
    beat[7] = {"structures": {"LV": {"volume_ml": 0.0}}}
    assert volume_curve(beat, "LV")[1:4] == [120.0, None, 65.0]
    assert volume_curve(beat, "LV")[7] is None
    function = cardiac_function(beat)
    assert function.left.stroke_volume_ml == 80.0
    assert sentences(function) == ["Frame 3 is not segmented: end-diastole or end-systole may be what is missing."]
    beat[3] = None
    assert sentences(cardiac_function(beat))[0].startswith("Frames 3, 4 are not segmented")


def test_less_than_two_frames_have_no_function():
    for frames in ([], [None, None], [report(140, 150, 110), None]):
        function = cardiac_function(frames)
        assert function.left is None and function.end_diastole is None
        assert sentences(function)[-1] == "At least two frames with a left ventricle are needed for its function."


def test_frames_that_are_all_alike_are_no_heartbeat():
    function = cardiac_function([report(140.0, 150.0, 110.0)] * 10)
    assert function.end_diastole == function.end_systole == 0
    assert function.left.ejection_fraction == 0.0
    assert "these frames do not show a heartbeat" in sentences(function)[0]


def test_ventricles_that_give_off_different_volumes_are_doubted(beat):
    beat[4] = report(60.0, 110.0, 112.0)
    (warning,) = sentences(cardiac_function(beat))
    assert (
        warning
        == "The stroke volumes of left and right ventricle differ by 40 ml: without a leak or shunt they are equal."
    )


def test_muscle_that_changes_its_volume_is_doubted(beat):
    beat[4] = report(60.0, 72.0, 143.0)
    (warning,) = sentences(cardiac_function(beat))
    assert warning.startswith("The volume of the myocardium changes by 30% from end-diastole to end-systole")


def test_a_ventricle_cut_at_end_systole_is_told_with_its_frame(beat):
    beat[4] = report(60.0, 72.0, 112.0, LV=True)
    assert sentences(cardiac_function(beat)) == [
        "Left ventricle reaches the edge of the volume at end-systole (frame 5): part of it may be missing."
    ]
    beat[4]["structures"]["LV"]["touches_border"] = False
    beat[2]["structures"]["LV"]["touches_border"] = True
    assert sentences(cardiac_function(beat)) == [], "no figure comes from frame 3"


def test_frames_of_different_weights_are_told(beat):
    for frame in beat:
        frame["bundle"] = {"sha256": "a"}
    assert sentences(cardiac_function(beat)) == []
    for frame in beat[2:]:  # the seven of the others are of the same weights
        frame["detail_weights"] = {"sha256": "d"}
    assert sentences(cardiac_function(beat)) == []
    beat[4]["detail_weights"] = {"sha256": "e"}
    assert [one.code for one in cardiac_function(beat).warnings] == ["different_weights"]
    beat[4]["detail_weights"] = {"sha256": "d"}
    beat[5]["bundle"] = {"sha256": "b"}
    assert sentences(cardiac_function(beat)) == [
        "The frames were segmented with different weights: segment all of them again."
    ]


def test_a_missing_right_ventricle_has_no_figures_and_a_warning(beat):
    del beat[0]["structures"]["RV"]
    function = cardiac_function(beat)
    assert function.right is None and function.left is not None
    assert sentences(function) == ["Right ventricle was not found at end-diastole (frame 1)."]


def test_a_frame_that_falls_out_of_the_curve_is_doubted(beat):
    beat[7] = report(25.0, 133.0, 110.0)
    warnings = sentences(cardiac_function(beat))
    assert "The volume of the left ventricle jumps at frame 8: check its outline there." in warnings


def test_few_frames_and_unusual_fractions_are_told():
    warnings = sentences(cardiac_function([report(140.0, 150.0, 110.0), report(10.0, 20.0, 110.0)]))
    assert any(warning.startswith("Only 2 frames") for warning in warnings)
    assert any("ejection fraction of 93% of the left ventricle is unusual" in warning for warning in warnings)
