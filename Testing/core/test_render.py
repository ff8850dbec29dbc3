"""Bodies and images round a heart: what is rendered is what the truth says."""

import numpy as np
import pytest

sitk = pytest.importorskip("SimpleITK")
pytest.importorskip("scipy")

from mkd_core.synthesis import appearance, body, render
from mkd_core.synthesis.tissues import TARGET_OF
from mkd_core.synthesis.tissues import Tissue as T


@pytest.fixture(scope="module")
def heart():
    from mkd_core.synthesis.anatomy import make_heart

    return make_heart(3, spacing=2.0)


@pytest.fixture(scope="module")
def canvas(heart):
    return render.Canvas.from_array(sitk.GetArrayFromImage(render.body_canvas(heart, 1)), 2.0)


def test_the_heart_survives_being_put_into_a_body(heart):
    surrounded = render.body_canvas(heart, 5)
    inside = sitk.GetArrayFromImage(sitk.Resample(surrounded, heart, sitk.Transform(), sitk.sitkNearestNeighbor))
    own = sitk.GetArrayFromImage(heart)
    assert np.array_equal(inside[own > 0], own[own > 0])


@pytest.mark.parametrize("seed", range(4))
def test_a_torso_has_lungs_spine_liver_and_air_where_people_have_them(heart, seed):
    image = body.surround(heart, seed, 4.0, body.torso_extent(heart))
    tissues = sitk.GetArrayFromImage(image)
    where = {
        t: np.argwhere(tissues == t).mean(axis=0) for t in (T.LUNG, T.SPONGY_BONE, T.LIVER, T.LV, T.AIR, T.SPINAL_CANAL)
    }
    assert where[T.SPINAL_CANAL][1] > where[T.LV][1], "the spine is behind"
    assert where[T.LIVER][0] < where[T.LV][0], "the liver is below"
    assert where[T.LIVER][2] < where[T.LV][2], "and to the right"
    lung = tissues == T.LUNG
    assert 1.5 < np.count_nonzero(lung) * 4.0**3 / 1e6 < 9, "litres of lung"
    assert lung[:, :, : tissues.shape[2] // 2].any() and lung[:, :, tissues.shape[2] // 2 :].any()


def test_the_same_seed_gives_the_same_body_and_another_seed_another(heart):
    first, again, other = (sitk.GetArrayFromImage(body.surround(heart, seed, 4.0)) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_an_appearance_without_noise_renders_each_tissues_own_value(canvas):
    look = appearance.Appearance("CT", mean=np.arange(64, dtype=np.float32) * 10)
    axes = [np.arange(40) * 2.0 - 40] * 3
    centre = (np.array(canvas.heart_low) + canvas.heart_high) / 2
    image, tissues = render.render_grid(
        canvas, look, np.random.default_rng(0), axes, 2.0, np.floor(centre), noise=False
    )
    from scipy import ndimage

    pure = ndimage.minimum_filter(tissues, 3) == ndimage.maximum_filter(tissues, 3)
    assert pure.mean() > 0.3
    assert np.abs(image[pure] - tissues[pure] * 10.0).max() < 1e-3


def test_repeated_positions_replicate_the_edge_of_the_field_of_view(canvas):
    look = appearance.Appearance("CT", mean=np.arange(64, dtype=np.float32))
    axes = [np.arange(32) * 2.0 - 32] * 3
    axes[0] = np.maximum(axes[0], axes[0][10])
    centre = (np.array(canvas.heart_low) + canvas.heart_high) / 2
    _, tissues = render.render_grid(canvas, look, np.random.default_rng(0), axes, 2.0, centre, noise=False)
    assert (tissues[:10] == tissues[10]).all()


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_patches_are_finite_reproducible_and_show_all_structures_sooner_or_later(canvas, modality):
    seen = set()
    for seed in range(12):
        image, target = render.random_patch(canvas, modality, np.random.default_rng(seed), 48, 3.0)
        assert np.isfinite(image).all() and image.std() > 0
        seen |= set(np.unique(target))
    again, _ = render.random_patch(canvas, modality, np.random.default_rng(11), 48, 3.0)
    assert np.array_equal(again, image)
    assert set(range(8)) <= seen


def test_blood_is_brighter_than_muscle_in_a_contrast_ct_and_air_is_black():
    looks = [appearance.draw("CT", np.random.default_rng(seed)) for seed in range(60)]
    brighter = [look.mean[T.LV] > look.mean[T.MYOCARDIUM] for look in looks]
    assert np.mean(brighter) > 0.85
    assert all(look.mean[T.AIR] <= -990 for look in looks)


def test_an_unknown_modality_is_refused_by_name():
    with pytest.raises(ValueError, match="PET"):
        appearance.draw("PET", np.random.default_rng(0))


def test_the_stubs_of_the_pulmonary_veins_belong_to_the_left_atrium_and_look_like_the_rest(canvas):
    from scipy import ndimage

    tissues = canvas.tissues.copy()
    render.mark_vein_stubs(tissues, canvas.spacing)
    stub, veins, atrium = tissues == T.PULMONARY_VEIN_STUB, canvas.tissues == T.PULMONARY_VEINS, canvas.tissues == T.LA
    assert np.array_equal(tissues[~stub], canvas.tissues[~stub]) and veins[stub].all()
    distance = ndimage.distance_transform_edt(~atrium) * canvas.spacing
    assert distance[stub].max() <= 7.0
    assert stub[veins & (distance <= 2.5)].mean() > 0.95
    assert np.any(veins & ~stub) and not stub[veins & (distance > 7)].any()
    assert ndimage.label(stub | atrium)[1] == ndimage.label(atrium)[1], "no stub without its atrium"
    assert TARGET_OF[T.PULMONARY_VEIN_STUB] == TARGET_OF[T.LA] and TARGET_OF[T.PULMONARY_VEINS] == 0
    for modality in ("CT", "MR"):
        look = appearance.draw(modality, np.random.default_rng(2))
        assert (
            look.mean[T.PULMONARY_VEIN_STUB] == look.mean[T.PULMONARY_VEINS]
            and look.fine[T.PULMONARY_VEIN_STUB] == look.fine[T.PULMONARY_VEINS]
        )


def test_a_heart_without_pulmonary_veins_has_no_stubs():
    tissues = np.full((8, 8, 8), T.LA, np.uint8)
    render.mark_vein_stubs(tissues, 1.0)
    assert (tissues == T.LA).all()


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_a_synthesised_volume_and_its_truth_share_one_grid(heart, modality):
    image, truth = render.synthesize(heart, modality, seed=4, spacing=2.0)
    assert image.GetPixelID() == sitk.sitkInt16 and truth.GetPixelID() == sitk.sitkUInt8
    for of in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(image, of)() == getattr(truth, of)()
    labels = sitk.GetArrayFromImage(truth)
    assert set(np.unique(labels)) == set(range(8))
    tissues = sitk.GetArrayFromImage(heart)
    render.mark_vein_stubs(tissues, heart.GetSpacing()[0])
    own = np.bincount(TARGET_OF[tissues].ravel(), minlength=8)[1:]
    found = np.bincount(labels.ravel(), minlength=8)[1:]
    assert np.all(np.abs(found / own - 1) < 0.12)
    values = sitk.GetArrayFromImage(image)
    contrast = np.median(values[labels == 1]) - np.median(values[labels == 5])
    assert contrast > 20


def test_every_tissue_has_a_look_of_its_own_in_ct():
    look = appearance.draw("CT", np.random.default_rng(1))
    unset = [t.name for t in T if look.mean[t] == 0 and t not in (T.OUTSIDE,)]
    assert unset in ([], ["SKIN"])


def _borders(fat_sign):
    """Signal along a line from fat to blood where the border lies in the middle of a voxel."""
    tissues = np.full((12, 12, 13), T.FAT, np.uint8)
    tissues[:, :, 7:] = T.LV
    look = appearance.Appearance("MR")
    look.mean[T.FAT], look.mean[T.LV] = fat_sign * 1.0, 1.0
    canvas = render.Canvas(tissues, 1.0, (0, 0, 0), (12, 12, 12))
    axes = [np.arange(6) * 2.0 + 0.5] * 3
    image, _ = render.render_grid(canvas, look, np.random.default_rng(0), axes, 2.0, np.zeros(3), noise=False)
    return image[3, 3]


def test_opposed_fat_and_water_leave_a_black_line_between_them():
    assert np.allclose(_borders(1), 1.0)
    opposed = _borders(-1)
    assert opposed.min() < 0.1 and np.count_nonzero(opposed > 0.9) == len(opposed) - 1


@pytest.mark.parametrize("seed", range(6))
def test_balanced_mr_shows_bright_blood_and_late_enhancement_bright_scars(seed):
    balanced = appearance.balanced_mr(np.random.default_rng(seed))
    assert balanced.mean[T.MYOCARDIUM] < 0.98 * balanced.mean[T.LV]
    assert balanced.mean[T.AIR] < 0.05
    late = appearance.late_enhancement(np.random.default_rng(seed))
    assert late.mean[T.MYOCARDIUM] < 1.05 and late.bands == 0 and late.voids == 0
    assert late.scar == 0 or late.scar >= 0.8


@pytest.mark.parametrize("seed", range(6))
def test_a_ct_without_contrast_agent_shows_blood_and_muscle_alike_and_fat_darker(seed):
    look = appearance.plain_ct(np.random.default_rng(seed))
    blood = look.mean[[T.LV, T.RV, T.LA, T.RA, T.ASCENDING_AORTA, T.PULMONARY_ARTERY]]
    assert blood.min() > 15 and blood.max() < 70 and np.ptp(blood) < 20
    assert -15 < look.mean[T.MYOCARDIUM] - blood.mean() < 30
    assert look.mean[T.FAT] < -60


def test_varied_draws_have_the_shares_that_they_are_said_to_have():
    plain = np.mean([appearance.draw_varied("CT", np.random.default_rng(seed)).mean[T.LV] < 70 for seed in range(300)])
    assert abs(plain - appearance.SHARE_PLAIN) < 0.09  # the usual draw has a few such, too
    opposed = np.mean(
        [appearance.draw_varied("MR", np.random.default_rng(seed)).mean[T.FAT] < 0 for seed in range(300)]
    )
    assert abs(opposed - 0.7 * appearance.SHARE_BALANCED) < 0.08


def test_scars_voids_bands_and_coils_do_to_the_image_what_they_say(canvas):
    centre = (np.array(canvas.heart_low) + canvas.heart_high) / 2
    axes = [(np.arange(40) - 19.5) * 3.0] * 3
    plain = appearance.Appearance("MR")
    plain.mean[:] = 1.0

    def rendered(**changes):
        look = appearance.Appearance("MR", plain.mean.copy(), **changes)
        return render.render_grid(canvas, look, np.random.default_rng(1), axes, 3.0, centre, noise=False)

    for change, where in (({"scar": 3.0}, [T.MYOCARDIUM]), ({"voids": 0.8}, list(appearance.BLOOD))):
        image, tissues = rendered(**change)
        changed = ~np.isclose(image, 1.0)
        assert changed.any() and np.isin(tissues[changed], where).all()
    image, _ = rendered(bands=0.9)
    assert image.min() < 0.3 and np.median(image) > 0.9
    image, _ = rendered(coil=1.0)
    assert max(image[:, 0].mean(), image[:, -1].mean()) > 1.2 and np.ptp(image, axis=0).max() < 1e-5


def test_examples_show_hearts_from_a_childs_to_a_giants():
    sizes = [1 / render.draw_size(np.random.default_rng(seed)) for seed in range(400)]
    assert 0.59 < min(sizes) < 0.65 and 1.25 < max(sizes) < 1.31
    assert 0.06 < np.mean(np.array(sizes) < 0.86) < 0.19
