"""Images that show no tissue where the heart is: blacked out, saturated, in coarse steps."""

from __future__ import annotations

import numpy as np
import pytest

from mkd_core.measure.grey_values import hole_findings, one_value_findings
from mkd_core.structures import BY_KEY, STRUCTURES

SPACING = np.array([2.0, 2.0, 2.0])


def heart() -> tuple[np.ndarray, np.ndarray]:
    """Labels of a ball of blood in muscle, 80 mm wide, and a CT of it."""
    z, y, x = np.ogrid[-30:30, -30:30, -30:30]
    radius = np.sqrt(z**2 + y**2 + x**2)
    labels = np.where(radius < 14, BY_KEY["LV"].label, np.where(radius < 20, BY_KEY["Myo"].label, 0)).astype(np.uint8)
    clean = np.where(labels == BY_KEY["LV"].label, 300.0, np.where(labels > 0, 90.0, -80.0))
    noise = np.random.default_rng(0).normal(0, 15, clean.shape)
    return labels, np.rint(clean + noise).astype(np.int16)


def codes(labels: np.ndarray, voxels: np.ndarray) -> list[str]:
    return [one.code for one in hole_findings(labels, voxels, SPACING)]


def test_tissue_has_no_hole_and_no_value_that_most_voxels_share():
    labels, voxels = heart()
    assert codes(labels, voxels) == []
    assert one_value_findings(labels, voxels, STRUCTURES) == {}
    assert one_value_findings(labels, voxels.astype(np.float32), STRUCTURES) == {}
    assert codes(np.zeros_like(labels), voxels) == []


@pytest.mark.parametrize("value", [-1000, 0, 300])
@pytest.mark.parametrize("is_labelled", [True, False])
def test_a_region_that_was_blacked_out_or_filled_is_told(value, is_labelled):
    labels, voxels = heart()
    cube = (slice(24, 35),) * 3  # 22 mm, 10.6 ml
    voxels[cube] = value
    if not is_labelled:
        labels[cube] = 0
    (found,) = hole_findings(labels, voxels, SPACING)
    assert found.code == "hole" and found.figures["ml"] == pytest.approx(10.6, rel=0.25)


@pytest.mark.parametrize(
    ("every", "kind"), [((1, 1, 1), ">i2"), ((1, 1, 1), "f8"), ((3, 1, 1), "i2"), ((1, 4, 1), "f4")]
)
def test_a_hole_is_told_of_whatever_the_voxels_are(every, kind):
    labels, voxels = heart()
    voxels[(slice(22, 37),) * 3] = -1000  # 30 mm, 27 ml
    thin = tuple(slice(None, None, step) for step in every)
    labels, voxels = labels[thin], voxels[thin].astype(kind)
    voxels.setflags(write=False)
    (found,) = hole_findings(labels, voxels, SPACING * every)
    assert found.code == "hole" and found.figures["ml"] == pytest.approx(27, rel=0.35)


def test_air_beside_the_heart_and_what_is_small_are_no_hole():
    labels, voxels = heart()
    voxels[:, :, :12] = -1024  # lung that was cut off at the least value, up to the heart
    assert codes(labels, voxels) == []
    voxels[30:35, 30:35, 30:35] = 3071  # metal, 1 ml
    assert codes(labels, voxels) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda voxels: np.floor(voxels / 100.0) * 100,
        lambda voxels: np.minimum(voxels, 200),
        lambda voxels: (voxels > 150) * 250.0,
    ],
    ids=["steps of 100", "cut off at 200", "two values"],
)
def test_structures_of_which_most_voxels_have_one_value_are_told(change):
    labels, voxels = heart()
    found = one_value_findings(labels, change(voxels), STRUCTURES)
    assert [one.code for one in found["LV"]] == ["one_value"] and found["LV"][0].structure == "LV"


def test_an_eight_bit_image_is_fine_enough():
    labels, voxels = heart()
    assert one_value_findings(labels, np.rint((voxels + 200.0) / 600 * 255), STRUCTURES) == {}
