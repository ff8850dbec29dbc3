"""Steps between a volume and its label map that a whole segmentation hardly shows when they are wrong."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import SimpleITK as sitk

torch = pytest.importorskip("torch")

from mkd_core.inference import geometry, resampling
from mkd_core.inference.geometry import Grid, OrientedVolume
from mkd_core.measure import heart_evidence
from mkd_core.measure.heart_evidence import Verdict
from mkd_core.structures import BY_KEY, CLASS_COUNT, STRUCTURES


def _volumes(parts: dict[str, float]) -> np.ndarray:
    volumes = np.zeros(CLASS_COUNT)
    for key, ml in parts.items():
        volumes[BY_KEY[key].label] = ml
    return volumes


def test_three_parts_make_a_heart_and_two_do_not():
    for parts in itertools.combinations(heart_evidence.PARTS, 3):
        assert heart_evidence.is_enough(_volumes(dict.fromkeys(parts, 50.0)))
        assert not heart_evidence.is_enough(_volumes(dict.fromkeys(parts, 15.0))), "too small"
        assert not heart_evidence.is_enough(_volumes(dict.fromkeys(parts[:2], 200.0)))
    # The vessels are no parts: they do not make up for a chamber.
    assert not heart_evidence.is_enough(_volumes({"LV": 100.0, "LA": 100.0, "AA": 100.0, "PA": 100.0}))


@pytest.mark.parametrize(("count", "expected"), [(7, Verdict.COARSE), (6, Verdict.COARSE), (5, Verdict.NONE)])
def test_the_localiser_alone_is_believed_from_six_structures_on(count, expected):
    evidence = heart_evidence.Evidence(
        recognition=0.9,
        localised_ml=_volumes({structure.key: 100.0 for structure in STRUCTURES[:count]}),
        mirrored_recognition=0.5,
    )
    assert heart_evidence.judge(evidence, 150.0) is expected


def _upright(size: tuple[int, int, int], spacing: float = 1.0) -> OrientedVolume:
    image = sitk.GetImageFromArray(np.zeros(size, np.int16))
    image.SetSpacing((spacing,) * 3)
    return OrientedVolume(image)


@pytest.mark.parametrize(
    ("low", "high"), [((-40, 5, 5), (20, 30, 30)), ((10, 10, 10), (90, 35, 200)), ((-50, -50, -50), (99, 99, 99))]
)
def test_a_box_that_sticks_out_is_cut_to_the_volume_and_holds_no_padding_it_need_not_hold(low, high):
    field = _upright((60, 48, 52))
    bound_low, bound_high = field.bounds()
    grid, is_cut = geometry.box_grid(field, np.array(low, float), np.array(high, float), 2.0, 4, (500.0,) * 3)
    assert not is_cut
    for axis in range(3):
        inside = min(high[axis], bound_high[axis]) - max(low[axis], bound_low[axis])
        side = grid.size[axis] * grid.spacing
        assert inside <= side < inside + 4 * grid.spacing + 1e-6
        if side <= bound_high[axis] - bound_low[axis]:
            assert grid.low[axis] >= bound_low[axis] - 1e-6 and grid.high[axis] <= bound_high[axis] + 1e-6
        else:
            assert grid.low[axis] + grid.high[axis] == pytest.approx(bound_low[axis] + bound_high[axis])


@pytest.mark.parametrize("classes", [2, 8, 9])
def test_the_best_class_counts_even_where_all_are_nearly_alike(classes):
    field = _upright((24, 24, 24))
    low, _ = field.bounds()
    grid = Grid((12, 12, 12), tuple(float(value) + 1.0 for value in low), 2.0)
    noise = torch.randn((classes, *grid.size), generator=torch.Generator().manual_seed(0))
    scores = torch.softmax(0.05 * noise, dim=0)
    assert float(scores.max()) < 1.3 / classes
    labels = np.full((24, 24, 24), 255, np.uint8)
    for _ in resampling.write_labels(scores, grid, field, labels):
        pass
    fine = torch.nn.functional.interpolate(scores[None], scale_factor=2, mode="trilinear", align_corners=False)[0]
    assert np.array_equal(labels, fine.argmax(dim=0).numpy())
