"""Calcium, leads, later moments of the beat, and what goes wrong in scanners: where it should be, and nowhere else."""

import numpy as np
import pytest

sitk = pytest.importorskip("SimpleITK")
pytest.importorskip("scipy")

from scipy import ndimage

from mkd_core.structures import BY_KEY
from mkd_core.synthesis import artefacts, findings, render
from mkd_core.synthesis.anatomy import make_heart
from mkd_core.synthesis.appearance import LEADS
from mkd_core.synthesis.heartbeat import contracted
from mkd_core.synthesis.tissues import TARGET_OF
from mkd_core.synthesis.tissues import Tissue as T


@pytest.fixture(scope="module")
def canvas():
    return render.Canvas.from_array(sitk.GetArrayFromImage(render.body_canvas(make_heart(3, spacing=1.5), 1)), 1.5)


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def test_a_lead_is_one_thin_wire_from_the_vein_to_the_right_ventricle_and_changes_no_label(canvas, rng):
    tissues = canvas.tissues.copy()
    findings.paint_lead(tissues, canvas.spacing, rng)
    lead = np.isin(tissues, LEADS)
    assert all((tissues == part).any() for part in LEADS)
    assert np.array_equal(TARGET_OF[tissues], TARGET_OF[canvas.tissues])
    assert set(np.unique(canvas.tissues[lead])) == {T.SVC, T.RA, T.RV}
    grown, _ = ndimage.label(ndimage.binary_dilation(lead, iterations=4))  # the wire crosses walls unseen
    sizes = np.bincount(grown.ravel())[1:]
    assert sizes.max() > 0.9 * sizes.sum()
    assert ndimage.distance_transform_edt(lead).max() * canvas.spacing <= 3.0
    assert lead.sum() * canvas.spacing**3 < 3000, "mm³"


def test_no_lead_where_there_is_no_way_for_one(canvas, rng):
    tissues = np.where(canvas.tissues == T.SVC, T.FAT, canvas.tissues)
    before = tissues.copy()
    findings.paint_lead(tissues, canvas.spacing, rng)
    assert np.array_equal(tissues, before)


def test_calcium_lies_in_walls_of_arteries_and_changes_no_label(canvas, rng):
    tissues = canvas.tissues.copy()
    findings.paint_calcium(tissues, canvas.spacing, rng)
    changed = tissues != canvas.tissues
    assert changed.any() and (tissues[changed] == T.CALCIUM).all()
    assert set(np.unique(canvas.tissues[changed])) <= {T.AORTIC_WALL, T.CORONARY}
    assert np.array_equal(TARGET_OF[tissues], TARGET_OF[canvas.tissues])
    assert changed.sum() < 0.3 * np.isin(canvas.tissues, (T.AORTIC_WALL, T.CORONARY)).sum()


def test_later_in_the_beat_the_ventricles_are_smaller_and_the_muscle_is_all_there(canvas):
    later = contracted(canvas, 1.0)

    def volumes(tissues):
        counts = np.bincount(TARGET_OF[tissues].ravel(), minlength=8)
        return {key: counts[BY_KEY[key].label] for key in ("LV", "RV", "LA", "Myo")}

    before, after = volumes(canvas.tissues), volumes(later.tissues)
    assert after["LV"] < 0.65 * before["LV"] and after["RV"] < 0.8 * before["RV"] and after["LA"] > before["LA"]
    assert after["Myo"] == pytest.approx(before["Myo"], rel=0.1)
    assert later.tissues.shape == canvas.tissues.shape and later.spacing == canvas.spacing
    assert np.array_equal(contracted(canvas, 0.0).tissues, canvas.tissues)


def test_streaks_spare_what_is_far_away_and_slices_without_a_source(rng):
    image, source = np.zeros((20, 80, 80), np.float32), np.zeros((20, 80, 80), bool)
    source[4:9, 38:42, 38:42] = True
    artefacts.add_streaks(image, source, 100.0, rng, 2.0)
    near = image[6, 30:50, 30:50].std()
    assert near > 20
    assert image[6, :4].std() < 0.3 * near
    assert np.abs(image[16:]).max() < 1e-3
    assert (image[6, 40, 40], image[6, 39, 40]) == (0, 0), "the source itself"


def test_no_streaks_without_a_source(rng):
    image = np.zeros((8, 16, 16), np.float32)
    artefacts.add_streaks(image, np.zeros(image.shape, bool), 100.0, rng, 2.0)
    assert not image.any()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_thick_slices_keep_means_and_ramps_and_smear_edges_across_slices_only(rng, axis):
    ramp = np.broadcast_to(np.moveaxis(np.arange(30, dtype=np.float32).reshape(-1, 1, 1), 0, axis), [30, 30, 30])
    middle = [slice(None)] * 3
    middle[axis] = slice(6, -6)
    assert np.abs(artefacts.thick_slices(ramp, 5.0, rng, 1.0, axis)[tuple(middle)] - ramp[tuple(middle)]).max() < 0.6
    edge = (ramp >= 15).astype(np.float32)
    thick = artefacts.thick_slices(edge, 5.0, rng, 1.0, axis)
    between = (thick > 0.01) & (thick < 0.99)
    line = np.moveaxis(between, axis, 0)[:, 0, 0]
    assert 3 <= line.sum() <= 11
    across = np.moveaxis(edge, axis, (axis + 1) % 3)
    assert np.allclose(artefacts.thick_slices(across, 5.0, rng, 1.0, axis), across, atol=1e-5), (
        "edges along the slices stay"
    )


def test_double_contours_show_a_fainter_second_heart_nearby(rng):
    image = np.zeros((40, 40, 40), np.float32)
    image[15:25, 15:25, 15:25] = 1
    ghost = artefacts.double_contours(image, rng, 1.0)
    assert ghost.sum() == pytest.approx(image.sum(), rel=0.01)
    outside = ghost[image == 0]
    assert 0.05 < outside.max() <= 0.4 + 1e-6
    assert not ghost[:9].any() and not ghost[31:].any()


def test_an_effusion_lies_behind_the_lungs_or_round_the_heart_and_changes_no_label(canvas):
    found = []
    for seed in range(2):
        tissues = canvas.tissues.copy()
        findings.paint_effusion(tissues, canvas.spacing, np.random.default_rng(seed))
        fluid = (tissues == T.FLUID) & (canvas.tissues != T.FLUID)
        assert np.array_equal(TARGET_OF[tissues], TARGET_OF[canvas.tissues])
        assert set(np.unique(canvas.tissues[fluid])) <= {T.LUNG, T.LUNG_VESSEL, T.MEDIASTINAL_FAT}
        lung = canvas.tissues == T.LUNG
        rows = np.broadcast_to(np.arange(tissues.shape[1]).reshape(1, -1, 1), tissues.shape)[lung]
        found.append((fluid[lung][rows > np.percentile(rows, 95)].mean(), fluid[lung][rows < np.median(rows)].mean()))
    behind, before = np.mean(found, axis=0)
    assert behind > 0.2 and behind > 2 * before


def test_a_stack_is_constant_over_a_slice_and_repeats_the_edge_of_its_field_of_view():
    image = np.tile(np.arange(40, dtype=np.float32).reshape(-1, 1, 1), (1, 24, 24))
    reach = np.array([12.0, 8.0, 8.0])
    seen, outside = artefacts.as_stack(image, np.eye(3), 8.0, np.zeros(3), reach, 1.0)
    inside = ~outside
    assert inside.any() and inside[:, 12, 12].sum() == 24  # three slices of 8 mm
    assert np.allclose(seen[12:28, 12, 12], image[12:28, 12, 12], atol=0.01)  # linear, so means and slopes stay
    assert np.allclose(seen[:11], seen[0]) and np.allclose(seen[-11:], seen[-1])
    step = (image > 19.5).astype(np.float32)
    blurred, _ = artefacts.as_stack(step, np.eye(3), 8.0, np.zeros(3), reach, 1.0)
    assert np.count_nonzero((blurred[:, 12, 12] > 0.02) & (blurred[:, 12, 12] < 0.98)) >= 12


def test_a_stack_in_any_plane_leaves_an_even_image_as_it_is(rng):
    frame = artefacts.long_axis_frame(rng)
    assert np.allclose(frame.T @ frame, np.eye(3), atol=1e-6)
    assert frame[:, 0] @ [-0.5, -0.6, 0.62] > 0.7
    seen, outside = artefacts.as_stack(
        np.full((20, 20, 20), 2.0, np.float32), frame, 9.0, np.ones(3), np.full(3, 15.0), 2.0
    )
    assert np.allclose(seen, 2.0, atol=1e-4) and outside.any() and not outside.all()
