"""The picture: the right slices, the right way round."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from mkd_core.io.preview import comparison, picture, write_png
from mkd_core.structures import BY_LABEL
from Testing.support.known_heart import BALLS, known_volume
from Testing.support.stored_volumes import rotation, stored_otherwise


def colour_centre(pixels: np.ndarray, label: int, panel: int) -> np.ndarray:
    """Middle (row, column) of a structure's colour in one of the painted slices."""
    side = (pixels.shape[1] - 12) // 3
    painted = pixels[side + 6 :, panel * (side + 6) : panel * (side + 6) + side]
    found = np.argwhere((painted == BY_LABEL[label].color).all(axis=-1))
    assert len(found) > 20, BY_LABEL[label].key
    return found.mean(axis=0)


def level_volume():
    """A known heart whose balls lie at the height of the picture's slices."""
    image, _ = known_volume((100, 90, 90), (2, 2, 2))
    known = np.zeros(image.GetSize()[::-1], np.uint8)
    z, y, x = np.indices(known.shape)
    for label, (dx, dy, dz) in {
        1: (20, 0, 0),
        4: (-20, 0, 0),
        3: (0, 20, 0),
        2: (0, -20, 0),
        6: (0, 0, 20),
        5: (0, 0, -20),
    }.items():
        known[(x - 50 - dx) ** 2 + (y - 45 - dy) ** 2 + (z - 45 - dz) ** 2 < 64] = label
    labels = sitk.GetImageFromArray(known)
    labels.CopyInformation(image)
    return image, labels


def assert_the_right_way_round(pixels: np.ndarray) -> None:
    left, right, back, front, head, feet = (1, 4, 3, 2, 6, 5)
    assert (
        colour_centre(pixels, left, 0)[1] > colour_centre(pixels, right, 0)[1] + 50
    )  # the patient's left on the right
    assert colour_centre(pixels, back, 0)[0] > colour_centre(pixels, front, 0)[0] + 50  # the back below
    assert colour_centre(pixels, left, 1)[1] > colour_centre(pixels, right, 1)[1] + 50
    assert colour_centre(pixels, head, 1)[0] < colour_centre(pixels, feet, 1)[0] - 50  # the head above
    assert colour_centre(pixels, back, 2)[1] > colour_centre(pixels, front, 2)[1] + 50
    assert colour_centre(pixels, head, 2)[0] < colour_centre(pixels, feet, 2)[0] - 50


def test_slices_are_the_way_radiologists_look_at_them():
    assert_the_right_way_round(picture(*level_volume()))


def test_however_the_volume_is_stored_the_picture_is_the_same():
    image, labels = level_volume()
    plain = picture(image, labels)
    for order, signs in (((2, 0, 1), (1, -1, 1)), ((0, 1, 2), (-1, -1, -1))):
        other = picture(stored_otherwise(image, order, signs), stored_otherwise(labels, order, signs))
        assert other.shape == plain.shape
        # Pixels exactly between two voxels may fall to either.
        assert np.mean(np.any(other != plain, axis=-1)) < 0.01
    turned = []
    for volume in (image, labels):
        volume = sitk.Image(volume)
        volume.SetDirection(rotation((0.2, -0.2, 0.1)).ravel().tolist())
        volume.SetOrigin((rotation((0.2, -0.2, 0.1)) @ np.array(volume.GetOrigin())).tolist())
        turned.append(volume)
    assert_the_right_way_round(picture(*turned))


def test_plain_slices_stay_grey_and_painted_ones_have_an_outline_in_full_colour(tmp_path):
    image, truth = known_volume((84, 68, 76), (2.5, 2.5, 2.5))
    pixels = picture(image, truth)
    assert pixels.dtype == np.uint8 and pixels.shape[2] == 3
    side = (pixels.shape[0] - 6) // 2
    assert np.ptp(pixels[:side].astype(int), axis=2).max() == 0
    found = {label for label in BALLS if (pixels == BY_LABEL[label].color).all(axis=-1).any()}
    assert len(found) >= 3
    write_png(pixels, tmp_path / "p.png")
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "p.png"))), pixels)


def test_an_mr_is_windowed_by_its_own_intensities():
    image, truth = known_volume((84, 68, 76), (2.5, 2.5, 2.5))
    scaled = sitk.Cast((sitk.Cast(image, sitk.sitkFloat32) + 1000) * 0.01, sitk.sitkFloat32)
    grey = picture(scaled, truth, "MR")
    assert grey.max() > 200 and len(np.unique(grey)) > 5


def test_a_comparison_fills_the_segmentation_and_outlines_the_truth():
    image, truth = level_volume()
    moved = sitk.GetImageFromArray(
        np.roll(sitk.GetArrayFromImage(truth), 8, axis=2)
    )  # 16 mm to the left: balls half beside themselves
    moved.CopyInformation(truth)
    slices = comparison(image, truth, moved)
    assert list(slices) == ["axial", "coronal", "sagittal"]
    assert len({pixels.shape for pixels in slices.values()}) == 1
    axial, colour = slices["axial"], BY_LABEL[1].color
    line = np.argwhere((axial == colour).all(axis=-1))
    assert np.ptp(line, axis=0).tolist() == pytest.approx(
        [62, 62], abs=4
    )  # balls of 32 mm, pixels of half a millimetre
    row = axial[round(line[:, 0].mean())].astype(int)
    tinted = np.flatnonzero(np.ptp(row, axis=1))
    assert tinted.max() - line[:, 1].max() == pytest.approx(32, abs=3)  # the filling reaches 16 mm further to the left
    between = row[(line[:, 1].max() + tinted.max()) // 2]
    assert between.argmax() == np.argmax(colour) and not np.array_equal(between, colour)


def test_a_comparison_without_a_segmentation_shows_the_truth_alone_and_without_labels_nothing():
    image, truth = level_volume()
    pixels = comparison(image, truth, None)["axial"].astype(int)
    coloured = np.ptp(pixels, axis=-1) > 0
    pure = np.any([(pixels == structure.color).all(axis=-1) for structure in BY_LABEL.values()], axis=0)
    assert coloured.any() and np.array_equal(coloured, coloured & pure)
    assert comparison(image, truth * 0, None) == {}
    assert comparison(image, truth * 0, truth) != {}
