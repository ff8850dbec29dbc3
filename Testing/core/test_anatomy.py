"""The heart built from formulas: whole, closed, in contact where blood flows, the right way round, reproducible."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from mkd_core.structures import BY_KEY, STRUCTURES
from mkd_core.synthesis.anatomy import HeartShape, draw_heart, make_heart
from mkd_core.synthesis.tissues import TARGET_OF, TISSUE_COUNT
from mkd_core.synthesis.tissues import Tissue as T

SEEDS = (0, 1, 3)


class Heart:
    """A drawn heart with the measures the tests ask for."""

    def __init__(self, image: sitk.Image) -> None:
        self.image = image
        self.spacing = image.GetSpacing()[0]
        self.tissues = sitk.GetArrayFromImage(image)
        self.labels = TARGET_OF[self.tissues]

    def ml(self, key: str) -> float:
        return float((self.labels == BY_KEY[key].label).sum() * self.spacing**3 / 1000)

    def centre(self, *tissues: T) -> np.ndarray:
        """Centroid (x, y, z) in mm: left, back, head."""
        at = np.argwhere(np.isin(self.tissues, tissues)).mean(axis=0)[::-1]
        return at * self.spacing + np.array(self.image.GetOrigin())

    @functools.cached_property
    def _contacts(self) -> np.ndarray:
        """Area in mm2 of voxel faces between every two tissues."""
        count = int(T.PULMONARY_ARTERY_WALL) + 1
        areas = np.zeros((count, count))
        for axis in range(3):
            along = np.moveaxis(self.tissues, axis, 0)
            pairs = along[:-1].ravel() * np.int32(count) + along[1:].ravel()
            areas += np.bincount(pairs, minlength=count**2).reshape(count, count)
        return (areas + areas.T) * self.spacing**2

    def faces(self, first: tuple[T, ...], second: tuple[T, ...] | None = None) -> float:
        """Area in mm2 of voxel faces between two groups of tissues, or of the whole surface of the first."""
        others = [t for t in range(len(self._contacts)) if t not in first] if second is None else list(second)
        return float(self._contacts[np.ix_(list(first), others)].sum())


@pytest.fixture(scope="module", params=SEEDS)
def heart(request) -> Heart:
    return Heart(make_heart(request.param))


def test_every_structure_is_one_piece_of_plausible_size(heart):
    for structure in STRUCTURES:
        mask = heart.labels == structure.label
        assert ndimage.label(mask)[1] == 1, structure.name
        smallest, largest = structure.plausible_ml
        assert smallest <= mask.sum() * heart.spacing**3 / 1000 <= largest, structure.name


def test_every_tissue_of_the_heart_is_there(heart):
    assert set(np.unique(heart.tissues)) == set(range(T.PULMONARY_ARTERY_WALL + 1))


def test_blood_passes_from_chamber_to_chamber_and_into_the_arteries(heart):
    # Areas of voxel faces: a valve of 20 mm diameter seen at a slant has about 400 mm2.
    for first, second, least in (
        (T.LA, T.LV, 200),
        (T.LV, T.ASCENDING_AORTA, 250),
        (T.RA, T.RV, 350),
        (T.RV, T.PULMONARY_ARTERY, 200),
        (T.ASCENDING_AORTA, T.AORTA_ARCH_DESCENDING, 300),
        (T.SVC, T.RA, 100),
        (T.IVC, T.RA, 100),
        (T.PULMONARY_VEINS, T.LA, 150),
        (T.LA_APPENDAGE, T.LA, 60),
        (T.PULMONARY_ARTERY, T.DISTAL_PULMONARY_ARTERY, 150),
    ):
        assert heart.faces((first,), (second,)) > least, f"{first.name} - {second.name}"


def test_blood_of_the_left_and_the_right_heart_never_meet(heart):
    left = (
        T.LV,
        T.PAPILLARY_MUSCLE,
        T.LA,
        T.LA_APPENDAGE,
        T.PULMONARY_VEINS,
        T.ASCENDING_AORTA,
        T.AORTA_ARCH_DESCENDING,
    )
    right = (T.RV, T.RA, T.SVC, T.IVC, T.CORONARY_SINUS, T.PULMONARY_ARTERY, T.DISTAL_PULMONARY_ARTERY)
    for a in left:
        for b in right:
            # A voxel's corner may poke through a wall of a millimetre and a half between two veins.
            assert heart.faces((a,), (b,)) <= 40, f"{a.name} - {b.name}"


def test_muscle_encloses_the_left_ventricle_but_for_its_valves(heart):
    cavity = (T.LV, T.PAPILLARY_MUSCLE)
    surface = heart.faces(cavity)
    assert heart.faces(cavity, (T.MYOCARDIUM,)) > 0.8 * surface
    assert heart.faces(cavity, (T.MYOCARDIUM, T.LA, T.ASCENDING_AORTA)) > 0.985 * surface


def test_the_septum_lies_between_the_ventricles(heart):
    assert heart.faces((T.RV,), (T.MYOCARDIUM,)) > 0.1 * heart.faces((T.RV,))
    wall = ndimage.distance_transform_edt(heart.tissues == T.MYOCARDIUM) * heart.spacing
    assert 4.0 < 2 * np.percentile(wall[wall > 0], 95) < 20.0


def test_the_heart_is_the_right_way_round(heart):
    lv, rv, la, ra = (heart.centre(t) for t in (T.LV, T.RV, T.LA, T.RA))
    assert ra[0] < lv[0] - 30, "right atrium to the patient's right of the left ventricle"
    assert la[1] > lv[1] + 5 and la[1] > rv[1] + 20, "left atrium behind the ventricles"
    assert rv[1] < lv[1] - 10, "right ventricle in front"
    muscle = np.argwhere(heart.tissues == T.MYOCARDIUM)[:, ::-1] * heart.spacing + np.array(heart.image.GetOrigin())
    apex = muscle[np.argmax(((muscle - la) ** 2).sum(axis=1))]
    assert apex[0] > la[0] + 25 and apex[1] < la[1] - 15 and apex[2] < la[2] - 35, (
        "apex to the left, in front and below"
    )


def test_the_pulmonary_trunk_starts_in_front_and_to_the_left_of_the_aorta(heart):
    def root(artery: T, ventricle: T) -> np.ndarray:
        touching = (heart.tissues == artery) & ndimage.binary_dilation(heart.tissues == ventricle)
        return np.argwhere(touching).mean(axis=0)[::-1] * heart.spacing

    difference = root(T.PULMONARY_ARTERY, T.RV) - root(T.ASCENDING_AORTA, T.LV)
    assert difference[0] > 0 and difference[1] < -5


def test_the_descending_aorta_runs_behind_the_left_atrium_to_the_bottom_of_the_box(heart):
    bottom = heart.tissues[: max(1, round(4 / heart.spacing))] == T.AORTA_ARCH_DESCENDING
    behind = heart.tissues[:, -1] == T.AORTA_ARCH_DESCENDING
    assert bottom.any() or behind.any(), "the aorta leaves the box below or behind"
    low = heart.tissues[: heart.tissues.shape[0] // 2] == T.AORTA_ARCH_DESCENDING
    assert np.argwhere(low)[:, 1].mean() * heart.spacing + heart.image.GetOrigin()[1] > heart.centre(T.LA)[1]


def test_the_box_keeps_fifteen_millimetres_around_the_heart(heart):
    chambers = np.argwhere(
        np.isin(heart.tissues, (T.LV, T.RV, T.LA, T.RA, T.MYOCARDIUM, T.LA_APPENDAGE, T.ASCENDING_AORTA))
    )
    below = chambers.min(axis=0) * heart.spacing
    above = (np.array(heart.tissues.shape) - 1 - chambers.max(axis=0)) * heart.spacing
    assert min(below.min(), above.min()) >= 10
    assert below[0] <= 20, "nothing but the heart decides where the box begins below"


def test_the_image_is_an_upright_label_map(heart):
    assert heart.image.GetPixelID() == sitk.sitkUInt8
    assert heart.image.GetDirection() == (1, 0, 0, 0, 1, 0, 0, 0, 1)
    assert heart.image.GetSpacing() == (1.0, 1.0, 1.0)


def test_the_same_seed_gives_the_same_heart_and_another_seed_another():
    first, again, other = (sitk.GetArrayFromImage(make_heart(seed, spacing=3.0)) for seed in (7, 7, 8))
    assert np.array_equal(first, again)
    assert first.shape != other.shape or (first != other).mean() > 0.05


def test_volumes_do_not_depend_on_the_spacing():
    coarse, fine = Heart(make_heart(3, spacing=2.0)), Heart(make_heart(3, spacing=0.8))
    for structure in STRUCTURES:
        assert coarse.ml(structure.key) == pytest.approx(fine.ml(structure.key), rel=0.03), structure.name


def test_both_spacings_show_the_heart_at_the_same_place():
    coarse, fine = Heart(make_heart(5, spacing=2.5)), Heart(make_heart(5, spacing=1.0))
    for tissue in (T.LV, T.RA, T.PULMONARY_ARTERY):
        assert np.linalg.norm(coarse.centre(tissue) - fine.centre(tissue)) < 0.5


def test_seeds_draw_hearts_of_different_sizes():
    hearts = [Heart(make_heart(seed, spacing=3.0)) for seed in range(20, 26)]
    for structure in STRUCTURES:
        volumes = np.array([heart.ml(structure.key) for heart in hearts])
        assert volumes.std() > 0.12 * volumes.mean(), structure.name


@pytest.mark.parametrize("part, key", [("lv", "LV"), ("rv", "RV"), ("la", "LA"), ("ra", "RA")])
def test_a_chamber_told_to_grow_grows(part, key):
    def heart(factor: float) -> Heart:
        growth = dict.fromkeys(("lv", "rv", "la", "ra"), 1.0) | {part: factor}
        return Heart(draw_heart(HeartShape(growth=growth), np.random.default_rng(0), spacing=3.0))

    assert heart(1.2).ml(key) > 1.6 * heart(0.8).ml(key)


def test_a_thick_wall_is_thick():
    thin, thick = (
        Heart(draw_heart(HeartShape(lv_wall=wall), np.random.default_rng(0), spacing=2.0)) for wall in (7.0, 12.0)
    )
    assert thick.ml("Myo") > 1.5 * thin.ml("Myo")
    assert thick.ml("LV") == pytest.approx(thin.ml("LV"), rel=0.05)


def test_an_impossible_spacing_is_refused():
    with pytest.raises(ValueError, match="spacing"):
        make_heart(0, spacing=0.0)


def test_the_tissue_table_covers_every_value_and_names_the_targets():
    assert TARGET_OF.shape == (TISSUE_COUNT,) and max(T) < TISSUE_COUNT
    merged = {tissue.name: int(TARGET_OF[tissue]) for tissue in T if TARGET_OF[tissue]}
    assert merged == {
        "LV": 1,
        "PAPILLARY_MUSCLE": 1,
        "RV": 2,
        "LA": 3,
        "LA_APPENDAGE": 3,
        "RA": 4,
        "MYOCARDIUM": 5,
        "ASCENDING_AORTA": 6,
        "PULMONARY_ARTERY": 7,
        "DISTAL_PULMONARY_ARTERY": 7,
        "LEAD_IN_RA": 4,
        "LEAD_IN_RV": 2,
        "PULMONARY_VEIN_STUB": 3,
    }
