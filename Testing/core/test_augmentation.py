"""Random changes of patches: repeatable, of the size that the settings say, labels and image together."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("monai")

from mkd_core.training.augmentation import Augmentation
from mkd_core.training.config import AugmentationConfig

NOTHING = {
    "rotation_deg": 0.0,
    "scale": 0.0,
    "elastic_mm": 0.0,
    "noise": 0.0,
    "blur": 0.0,
    "contrast": 0.0,
    "brightness": 0.0,
}
SIZE, PATCH = 32, 24


def _ramp():
    """Image that rises along z by a known step, ``(1, 1, d, d, d)``, and labels 0 and 1 below and above its middle."""
    image = torch.linspace(-0.8, 0.8, SIZE).view(1, 1, SIZE, 1, 1).expand(1, 1, SIZE, SIZE, SIZE).contiguous()
    return image, (image[:, 0] > 0).to(torch.uint8)


def _changed(seed, **settings):
    config = AugmentationConfig(**{**NOTHING, "share": 1.0, "elastic_probability": 1.0, **settings})
    return Augmentation(config, PATCH, 2.0)(*_ramp(), [seed])


def _middle(tensor):
    cut = (SIZE - PATCH) // 2
    return tensor[..., cut:-cut, cut:-cut, cut:-cut]


def test_no_change_is_the_middle_of_the_patch():
    image, labels = _changed(1)
    assert torch.allclose(image, _middle(_ramp()[0]), atol=1e-5) and torch.equal(labels, _middle(_ramp()[1]))
    assert labels.dtype == torch.uint8


def test_a_patch_is_cut_larger_only_if_it_is_going_to_move():
    assert Augmentation.cut_size(AugmentationConfig(), (8, 40, 40)) == (11, 52, 52)
    assert Augmentation.cut_size(AugmentationConfig(**NOTHING), (40,) * 3) == (40,) * 3
    assert Augmentation.cut_size(AugmentationConfig(**{**NOTHING, "elastic_mm": 5.0}), (40,) * 3) == (52,) * 3


def test_the_same_seed_makes_the_same_change_and_another_seed_another():
    config = AugmentationConfig()
    first, second = (Augmentation(config, PATCH, 2.0)(*_ramp(), [7]) for _ in range(2))
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
    assert not torch.equal(first[0], Augmentation(config, PATCH, 2.0)(*_ramp(), [8])[0])


def test_a_batch_is_changed_patch_by_patch_whoever_holds_the_rest_of_it():
    config = AugmentationConfig()
    image, labels = _ramp()
    both = Augmentation(config, PATCH, 2.0)(image.repeat(2, 1, 1, 1, 1), labels.repeat(2, 1, 1, 1), [3, 4])
    alone = Augmentation(config, PATCH, 2.0)(image, labels, [4])
    assert torch.equal(both[0][1:], alone[0]) and torch.equal(both[1][1:], alone[1])


def test_turns_stay_below_the_largest_and_reach_for_it():
    step = 1.6 / (SIZE - 1)
    tilts = []
    for seed in range(40):
        gradient = (
            torch.stack(torch.gradient(_changed(seed, rotation_deg=20.0)[0][0, 0, 8:16, 8:16, 8:16])).mean((1, 2, 3))
            / step
        )
        tilts.append(float(torch.rad2deg(torch.atan2(gradient[1:].norm(), gradient[0]))))
    assert 15 < max(tilts) <= np.hypot(20, 20) + 1 and np.median(tilts) > 5


def test_scaling_stays_within_its_share():
    step = 1.6 / (SIZE - 1)
    steps = [
        float((image := _changed(seed, scale=0.2)[0])[0, 0, 13, 12, 12] - image[0, 0, 11, 12, 12]) / 2 / step
        for seed in range(40)
    ]
    assert 0.79 < min(steps) < 0.9 and 1.1 < max(steps) < 1.27


def test_bending_moves_tissue_by_millimetres_as_asked():
    step = 1.6 / (SIZE - 1) / 2.0  # brightness of a millimetre
    largest = [
        float((_changed(seed, elastic_mm=6.0)[0] - _middle(_ramp()[0])).abs().max()) / step for seed in range(20)
    ]
    assert 1.0 < np.median(largest) < 6 and max(largest) < 9


def test_labels_go_where_the_image_goes_and_stay_labels():
    image, labels = _changed(5, rotation_deg=25.0, scale=0.2, elastic_mm=6.0)
    clear = image[:, 0].abs() > 0.05
    assert set(labels.unique().tolist()) == {0, 1}
    assert torch.equal(labels[clear].bool(), (image[:, 0] > 0)[clear])


def test_no_label_is_made_up_between_two_others():
    image, _ = _ramp()
    apart = (image[:, 0] > 0).to(torch.uint8) * 7  # what lies between them is 1 to 6
    for settings in ({"rotation_deg": 25.0, "scale": 0.2}, {"elastic_mm": 8.0}):
        config = AugmentationConfig(**{**NOTHING, "elastic_probability": 1.0, **settings})
        _, labels = Augmentation(config, PATCH, 2.0)(image, apart, [5])
        assert set(labels.unique().tolist()) == {0, 7}


@pytest.mark.parametrize("change", [{"noise": 0.1}, {"blur": 1.0}, {"contrast": 0.4}, {"brightness": 0.2}])
def test_changes_of_intensity_leave_labels_and_range_alone(change):
    image, labels = _changed(3, **change)
    assert not torch.allclose(image, _middle(_ramp()[0]), atol=1e-3)
    assert torch.equal(labels, _middle(_ramp()[1])) and image.abs().max() <= 1
