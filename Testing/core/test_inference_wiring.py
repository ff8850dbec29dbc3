"""Steps between a volume and its label map that a whole segmentation hardly shows when they are wrong."""

from __future__ import annotations

import SimpleITK as sitk
import numpy as np
import pytest

torch = pytest.importorskip("torch")

import mkd_core
from Testing.support.known_heart import KnownBundle, known_volume
from mkd_core import SegmentationOptions
from mkd_core.inference import geometry, resampling
from mkd_core.inference.geometry import Grid, OrientedVolume

PLAIN = SegmentationOptions(device="cpu", precision="float32", threads=1, alignment="none")


class Recording(torch.nn.Module):
    """A segmentor that tells the sides of what it is given, also as the copy that an executor makes of it."""

    stride = 4

    def __init__(self, network: torch.nn.Module, tell) -> None:
        super().__init__()
        self.network, self.tell = network, tell

    def forward(self, image):
        self.tell(tuple(image.shape[2:]))
        return self.network(image)


@pytest.mark.parametrize("margin", [0.0, 24.0])
def test_the_segmentors_see_the_heart_with_the_margin_of_the_bundle(margin):
    seen = []
    bundle = KnownBundle(segmentor_real=Recording(KnownBundle().network("segmentor_real"), seen.append))
    bundle.metadata["localiser"]["margin_mm"] = margin
    mkd_core.segment(known_volume((96, 96, 96), (3, 3, 3))[0], bundle, options=PLAIN)
    heart = np.array([2 * 78, 2 * 72, 2 * 92])  # the known localiser takes the whole body for heart: (z, y, x), mm
    # The localiser's grid and the segmentors' stride round the box.
    assert seen
    for sides in seen:
        side = np.array(sides) * bundle.spacing - heart - 2 * margin
        assert (side > -bundle.localiser_spacing).all()
        assert (side < 2 * bundle.localiser_spacing + 4 * bundle.spacing).all()


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
