"""The beating phantom: what it gives off is what was chosen, muscle keeps its volume, and the motion is that of a
heart.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from mkd_core.structures import BY_KEY, STRUCTURES
from mkd_core.synthesis.anatomy import make_heart
from mkd_core.synthesis.heartbeat import EJECTION_FRACTION, contracted, emptied, synthesize_beat
from mkd_core.synthesis.render import Canvas, canvas_around
from mkd_core.synthesis.tissues import Tissue as T

SPACING = 2.0


class Frame:
    """Image and truth of one frame, with the measures the tests ask for."""

    def __init__(self, image: sitk.Image, truth: sitk.Image) -> None:
        self.image, self.truth = image, truth
        self.labels = sitk.GetArrayFromImage(truth)

    def ml(self, key: str) -> float:
        return float((self.labels == BY_KEY[key].label).sum()) * SPACING**3 / 1000

    def touching(self, first: str, second: str) -> np.ndarray:
        """Middle (z, y, x) in mm of where two structures touch: the place of a valve."""
        first, second = (self.labels == BY_KEY[key].label for key in (first, second))
        places = []
        for axis in range(3):
            one, other = np.moveaxis(first, axis, 0), np.moveaxis(second, axis, 0)
            faces = np.argwhere((one[:-1] & other[1:]) | (other[:-1] & one[1:]))
            places.append(np.insert(faces[:, 1:], axis, faces[:, 0], axis=1))
        return np.concatenate(places).mean(axis=0) * SPACING


@pytest.fixture(scope="module")
def beat() -> list[Frame]:
    return [Frame(*frame) for frame in synthesize_beat(None, "CT", seed=7, spacing=SPACING, frames=5)]


def test_the_left_ventricle_gives_off_the_chosen_share_and_the_right_one_the_same_volume(beat):
    full, empty = beat[0], beat[2]
    stroke = full.ml("LV") - empty.ml("LV")
    assert stroke / full.ml("LV") == pytest.approx(EJECTION_FRACTION, abs=0.02)
    assert full.ml("RV") - empty.ml("RV") == pytest.approx(EJECTION_FRACTION * full.ml("LV"), rel=0.05)


def test_end_diastole_comes_first_and_end_systole_where_the_beat_says(beat):
    volumes = [frame.ml("LV") for frame in beat]
    assert np.argmax(volumes) == 0 and np.argmin(volumes) == 2
    for phase, frame in enumerate(beat):
        expected = volumes[0] * (1 - EJECTION_FRACTION * emptied(phase / 5))
        assert frame.ml("LV") == pytest.approx(expected, rel=0.03)


def test_muscle_and_vessels_keep_their_volumes(beat):
    for key in ("Myo", "AA", "PA"):
        for frame in beat:
            assert frame.ml(key) == pytest.approx(beat[0].ml(key), rel=0.03), key


def test_atria_fill_while_ventricles_empty(beat):
    for key, least in (("LA", 1.25), ("RA", 1.2)):
        assert beat[2].ml(key) > least * beat[0].ml(key)


def test_the_wall_thickens_and_the_valves_come_down(beat):
    def thickness(frame: Frame) -> float:
        myocardium = BY_KEY["Myo"].label
        box = ndimage.find_objects((frame.labels == myocardium).astype(np.uint8))[0]
        depth = ndimage.distance_transform_edt(frame.labels[box] == myocardium)
        return float(np.percentile(depth[depth > 0], 95))

    assert thickness(beat[2]) > 1.2 * thickness(beat[0])
    apex_to_base = np.array([0.70, 0.55, -0.46])  # (z, y, x), see mkd_core/synthesis/heart_solids.py
    for first, second in (("LV", "LA"), ("RV", "RA")):
        moved = (beat[2].touching(first, second) - beat[0].touching(first, second)) @ apex_to_base
        assert -25 < moved < -3, f"{first}: {moved:.1f} mm"


def test_every_structure_stays_in_one_piece(beat):
    end_systole = beat[2].labels
    for structure, box in zip(STRUCTURES, ndimage.find_objects(end_systole)):
        pieces, _count = ndimage.label(end_systole[box] == structure.label, ndimage.generate_binary_structure(3, 3))
        sizes = np.bincount(pieces.ravel())[1:]
        assert sizes.max() > 0.999 * sizes.sum(), structure.name


def test_frames_share_grid_and_body_and_differ_in_noise(beat):
    first = sitk.GetArrayFromImage(beat[0].image)
    for frame in beat[1:]:
        assert frame.image.GetOrigin() == beat[0].image.GetOrigin() and frame.image.GetSize() == frame.truth.GetSize()
        assert not np.array_equal(sitk.GetArrayFromImage(frame.image), first)
    skin = first[:, -3:].astype(float), sitk.GetArrayFromImage(beat[2].image)[:, -3:].astype(float)
    assert np.corrcoef(skin[0].ravel(), skin[1].ravel())[0, 1] > 0.9


def test_the_same_seed_gives_the_same_frame(beat):
    again = next(synthesize_beat(None, "CT", seed=7, spacing=SPACING, frames=5))
    for one, other in zip((beat[0].image, beat[0].truth), again):
        assert np.array_equal(sitk.GetArrayFromImage(one), sitk.GetArrayFromImage(other))


def test_a_beat_without_frames_is_refused():
    with pytest.raises(ValueError, match="at least one frame"):
        next(synthesize_beat(frames=0))


def test_a_right_ventricle_that_holds_less_than_the_left_one_ejects_limits_both():
    image, _ = canvas_around(make_heart(7, SPACING), 7, 10.0)
    tissues = image.tissues.copy()
    right = tissues == T.RV
    tissues[right & (ndimage.distance_transform_edt(right) * SPACING < 9.0)] = T.RV_WALL
    small = Canvas.from_array(tissues, SPACING)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        empty = contracted(small, 1.0)
    left = [np.count_nonzero(canvas.tissues == T.LV) for canvas in (small, empty)]
    right = [np.count_nonzero(canvas.tissues == T.RV) for canvas in (small, empty)]
    assert left[0] * EJECTION_FRACTION > right[0], "the heart is what the name says"
    assert 0 < left[0] - left[1] < right[0] and 0 < right[1] < right[0]
