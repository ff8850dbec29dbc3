"""Labelled volumes on the training grid: at the right place, the right way round, within the memory that was
allowed.
"""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import SimpleITK as sitk

from mkd_core.errors import InputError
from mkd_core.evaluation.cases import Case
from mkd_core.io.bundle import default_bundle_path, load_bundle, save_bundle
from mkd_core.structures import IGNORE
from mkd_core.training.bundling import box_margin_mm
from mkd_core.training.config import RunConfig, TrainingConfig
from mkd_core.training.labelled_volumes import ArrayCache, LabelledVolumes, PreparedVolume, prepare_volume
from mkd_core.training.localiser import DESCRIPTION

CT = {"kind": "window", "low": -300.0, "high": 700.0}
MR = {"kind": "percentile", "low": 0.0, "high": 100.0}
MARGIN_MM = 14.0


def _case(folder, image, labels, name="one"):
    paths = folder / f"{name}_image.nrrd", folder / f"{name}_label.nrrd"
    for volume, path in zip((image, labels), paths):
        sitk.WriteImage(volume, str(path))
    return Case(name, *paths, "CT")


def _blocks(shape=(20, 24, 28), spacing=(1.0, 1.0, 1.0)):
    """A volume whose seven blocks of 4 voxels along x carry labels 1 to 7 and brightness 100 times that; axes (z, y,
    x).
    """
    labels = np.zeros(shape, np.uint8)
    labels[4:16, 4:20] = np.repeat(np.arange(1, 8), 4)
    volumes = sitk.GetImageFromArray(labels.astype(np.int16) * 100), sitk.GetImageFromArray(labels)
    for volume in volumes:
        volume.SetSpacing(spacing)
    return volumes


def test_a_volume_keeps_its_labels_on_its_own_grid_and_halves_evenly(tmp_path):
    image, labels = _blocks()
    case = _case(tmp_path, image, labels)
    same = prepare_volume(case, 1.0, CT, tmp_path / "prepared", MARGIN_MM)
    assert (np.load(same.labels) == sitk.GetArrayFromImage(labels)).all()
    assert np.allclose(np.load(same.image), sitk.GetArrayFromImage(image) / 500.0 - 0.4, atol=2e-3)
    assert same.heart_low == (4, 4, 0) and same.heart_high == (16, 20, 28)
    half = np.load(prepare_volume(case, 2.0, CT, tmp_path / "prepared", MARGIN_MM).labels)
    assert (half == sitk.GetArrayFromImage(labels)[::2, ::2, ::2]).all()


def test_storage_order_and_direction_make_no_difference(tmp_path):
    image, labels = _blocks(spacing=(1.0, 1.5, 2.0))
    turned = [sitk.Flip(sitk.PermuteAxes(volume, [1, 2, 0]), [True, False, True]) for volume in (image, labels)]
    straight = prepare_volume(_case(tmp_path, image, labels, "straight"), 1.5, CT, tmp_path / "prepared", MARGIN_MM)
    other = prepare_volume(_case(tmp_path, *turned, "turned"), 1.5, CT, tmp_path / "prepared", MARGIN_MM)
    assert (np.load(straight.labels) == np.load(other.labels)).all()
    assert (np.load(straight.image) == np.load(other.image)).all()


def test_percentiles_are_taken_round_the_heart_not_of_a_bright_arm(tmp_path):
    labels = np.zeros((60, 60, 60), np.uint8)
    labels[28:32, 28:32, 28:35] = np.arange(1, 8)
    image = labels.astype(np.float32) * 10
    image[0, 0, 0] = 1e4
    case = _case(tmp_path, sitk.GetImageFromArray(image), sitk.GetImageFromArray(labels))
    values = np.load(prepare_volume(case, 1.0, MR, tmp_path / "prepared", MARGIN_MM).image)
    assert values[30, 30, 34] == 1.0 and values[5, 5, 5] == -1.0


@pytest.mark.parametrize(("margin_mm", "bright"), [(14.0, 2), (20.0, 3), (2.0, 1)])
def test_percentiles_are_taken_within_the_margin_and_not_beyond(tmp_path, margin_mm, bright):
    labels = np.zeros((80, 20, 20), np.uint8)
    labels[8:12, 8:12, 8:15] = np.arange(1, 8)
    image = labels.astype(np.float32)
    brightest = {1: 7.0, 2: 100.0, 3: 1000.0}
    image[11 + 10, 10, 10], image[11 + 17, 10, 10] = brightest[2], brightest[3]  # 10 and 17 mm above the heart
    case = _case(tmp_path, sitk.GetImageFromArray(image), sitk.GetImageFromArray(labels))
    values = np.load(prepare_volume(case, 1.0, MR, tmp_path / "prepared", margin_mm).image)
    lowest, highest = 0.0, brightest[bright]
    assert values[10, 10, 14] == pytest.approx(2 * (7.0 - lowest) / (highest - lowest) - 1, abs=2e-3)


def test_another_margin_is_another_prepared_volume(tmp_path):
    case = _case(tmp_path, *_blocks())
    first, second = (prepare_volume(case, 2.0, MR, tmp_path / "prepared", margin) for margin in (14.0, 20.0))
    assert first.image != second.image


def test_the_margin_is_that_of_the_bundle_whose_localiser_the_run_takes(tmp_path):
    default = load_bundle(default_bundle_path())
    assert box_margin_mm(TrainingConfig()) == default.margin
    metadata = default.metadata | {"localiser": default.metadata["localiser"] | {"margin_mm": 9.0}}
    weights = {part: default.network(part).state_dict() for part in metadata["networks"]}
    other = save_bundle(tmp_path / "other.safetensors", metadata, weights)
    assert box_margin_mm(TrainingConfig(run=RunConfig(localiser=str(other.path)))) == 9.0
    assert box_margin_mm(TrainingConfig(run=RunConfig(localiser="fresh.pt"))) == DESCRIPTION["margin_mm"] == 14.0


def test_work_is_done_once_and_anew_when_the_file_changes(tmp_path):
    image, labels = _blocks()
    case = _case(tmp_path, image, labels)
    first = prepare_volume(case, 2.0, CT, tmp_path / "prepared", MARGIN_MM)
    stamp = first.image.stat().st_mtime_ns
    assert (
        prepare_volume(case, 2.0, CT, tmp_path / "prepared", MARGIN_MM) == first
        and first.image.stat().st_mtime_ns == stamp
    )
    sitk.WriteImage(image + 100, str(case.image))
    again = prepare_volume(case, 2.0, CT, tmp_path / "prepared", MARGIN_MM)
    assert again.image != first.image and np.load(again.image).min() > np.load(first.image).min()


def test_a_case_without_any_label_is_refused(tmp_path):
    image, labels = _blocks()
    with pytest.raises(InputError, match=r"“one_label\.nrrd” labels nothing"):
        prepare_volume(_case(tmp_path, image, labels * 0), 2.0, CT, tmp_path / "prepared", MARGIN_MM)


@pytest.fixture()
def volumes(tmp_path):
    made = []
    for number in range(3):
        paths = tmp_path / f"{number}_image.npy", tmp_path / f"{number}_labels.npy"
        np.save(paths[0], np.full((10, 12, 14), number / 4, np.float16))
        np.save(paths[1], np.full((10, 12, 14), number + 1, np.uint8))
        made.append(PreparedVolume(*paths, (3, 3, 3), (7, 7, 7), (True,) * 8))
    return made


def test_patches_carry_the_volumes_labels_and_count_nothing_outside_it(volumes):
    source = LabelledVolumes(volumes, 16, heart_fraction=0.5, budget=1e9)
    rng = np.random.default_rng(0)
    for _ in range(20):
        image, labels, labelled = source.draw(rng)
        assert image.shape == (1, 16, 16, 16) and image.dtype == np.float32 and labels.dtype == np.uint8
        inside = labels != IGNORE
        assert inside.any() and not inside.all()  # the patch is larger than the volume
        assert labelled.all() and labelled.shape == (8,)
        assert len(set(labels[inside])) == 1 and image.min() == image.max() == (labels[inside][0] - 1) / 4


def test_memory_stays_within_its_budget_and_what_does_not_fit_is_still_read(volumes):
    one = np.load(volumes[0].image).nbytes
    cache = ArrayCache(2.5 * one)
    for volume in volumes * 3:
        assert (cache.get(volume.image) == np.load(volume.image)).all()
        assert cache.held <= 2.5 * one
    assert cache.held == 2 * one
    nothing = ArrayCache(0)
    assert (nothing.get(volumes[1].image) == 0.25).all() and nothing.held == 0
