"""A structure more, by settings alone: an entry of the catalogue and a list in the settings of a training run, from the
tissues of drawn hearts to segments in the right colour.
"""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import SimpleITK as sitk

import mkd_core
from mkd_core.evaluation.cases import Case, check_cases, read_case
from mkd_core.inference.resampling import _open_classes
from mkd_core.structures import BY_KEY, CATALOGUE, IGNORE, STRUCTURES, labelled, labels_of_the_seven
from mkd_core.synthesis.anatomy import make_heart
from mkd_core.synthesis.render import Canvas, random_patch
from mkd_core.synthesis.tissues import TARGET_OF, Tissue, targets_of
from Testing.support.known_heart import BODY, LEVELS, ByIntensity, dice, known_volume
from Testing.support.terminology import FILE, terminology

EIGHT = ("LV", "RV", "LA", "RA", "Myo", "AA", "PA", "LAA")

#: HU of the ball that stands for the appendage: between the body and the darkest of the others.
APPENDAGE = -50.0


def write_case(folder, modality: str) -> None:
    """A volume of eight bars side by side, labelled 1 to 8."""
    labels = np.zeros((24, 20, 24), np.uint8)
    labels[4:20, 4:16, 4:20] = np.repeat(np.arange(1, 9), 2)
    brightness = np.array([-900 if modality == "CT" else 90, *range(100, 900, 100)])
    image = brightness[labels] + np.random.default_rng(0).normal(0, 8, labels.shape)
    for array, kind in ((image.astype(np.int16), "image"), (labels, "label")):
        volume = sitk.GetImageFromArray(array)
        volume.SetSpacing((4.0, 4.0, 4.0))
        sitk.WriteImage(volume, str(folder / f"{modality.lower()}_train_1001_{kind}.nii.gz"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The bundle of a run of two steps whose settings name eight structures, and nothing else of them."""
    for package in ("monai", "lightning_fabric", "tensorboard", "tqdm"):
        pytest.importorskip(package)
    from mkd_core.training.config import config_from
    from mkd_core.training.trainer import train

    folder = tmp_path_factory.mktemp("eight")
    for modality in ("CT", "MR"):
        write_case(folder, modality)
    settings = {
        "out": str(folder / "run"),
        "data": {"cases": str(folder), "validation": 0.0, "structures": list(EIGHT)},
        "networks": {"segmentor": [4, 8, 8], "generator": 2, "generator_blocks": 1, "discriminator": 2},
        "stages": [{"steps": 2, "spacing_mm": 3.0, "patch": 16, "batch": 2}],
        "run": {"threads": 1, "num_workers": 0, "precision": "float32", "checkpoint_minutes": 0.0},
    }
    return mkd_core.load_bundle(train(config_from(settings)), self_test=False)


def test_a_run_makes_a_bundle_that_knows_eight_structures_and_a_localiser_that_knows_seven(trained):
    assert trained.metadata["format"] == 2 and trained.structures == labelled(EIGHT)
    assert [structure.label for structure in trained.structures] == list(range(1, 9))
    assert (
        trained.network("segmentor_real").head.out_channels == trained.network("segmentor_syn").head.out_channels == 9
    )
    assert trained.localiser_structures == STRUCTURES


def test_its_bundle_segments_all_eight(trained):
    image, truth = known_volume((84, 68, 76), (2.5, 2.5, 2.5))
    voxels, labels = sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(truth)
    centre = np.array(truth.TransformPhysicalPointToContinuousIndex((46.0, 30.0, 10.0)))[::-1]
    ball = np.linalg.norm((np.stack(np.indices(labels.shape), axis=-1) - centre) * 2.5, axis=-1) < 9.5
    assert not labels[ball].any()
    voxels[ball], labels[ball] = APPENDAGE, 8
    changed, known = sitk.GetImageFromArray(voxels), sitk.GetImageFromArray(labels)
    for made in (changed, known):
        made.CopyInformation(image)
    levels = {level: label for label, level in LEVELS.items()} | {-300.0: 0}
    segmentor = ByIntensity(levels | {BODY: 0, APPENDAGE: 8}, classes=9)
    localiser = ByIntensity(levels | {BODY: 5, APPENDAGE: 3})
    networks = {"localiser": localiser, "segmentor_real": segmentor, "segmentor_syn": segmentor}
    bundle = dataclasses.replace(trained, _networks={**trained._networks, **networks})
    options = mkd_core.SegmentationOptions(device="cpu", precision="float32", threads=1, alignment="none")
    result = mkd_core.segment(changed, bundle, options=options)
    assert all(dice(result.labels, known, label) > 0.85 for label in range(1, 9))
    assert list(result.report["structures"]) == list(EIGHT)
    assert result.report["labels"] == {key: label for label, key in enumerate(EIGHT, start=1)}
    assert result.report["structures"]["LAA"]["volume_ml"] == pytest.approx(np.count_nonzero(labels == 8) / 64, rel=0.2)
    only = dataclasses.replace(options, structures=("LAA",))
    assert set(np.unique(sitk.GetArrayViewFromImage(mkd_core.segment(changed, bundle, options=only).labels))) == {0, 8}
    assert mkd_core.parse_report(json.loads(json.dumps(result.report))) == result.report


def test_unknown_and_repeated_structures_and_weights_of_the_wrong_number_are_refused():
    config = pytest.importorskip("mkd_core.training.config", exc_type=ImportError)
    for settings, sentence in (
        ({"data": {"structures": ["LV", "spleen"]}}, "unknown structure “spleen”"),
        ({"data": {"structures": ["LV", "LV"]}}, "a structure twice"),
        ({"data": {"structures": list(EIGHT)}, "method": {"class_weights": [1.0] * 8}}, "must hold 9 numbers"),
    ):
        with pytest.raises(mkd_core.InputError, match=sentence):
            config.config_from(settings)
    weights = config.config_from({"data": {"structures": list(EIGHT)}}).method.class_weights
    assert weights == (*config.MethodConfig().class_weights, BY_KEY["LAA"].loss_weight)


def test_labels_mean_what_the_list_says(tmp_path):
    write_case(tmp_path, "CT")
    case = Case("a", tmp_path / "ct_train_1001_image.nii.gz", tmp_path / "ct_train_1001_label.nii.gz", "CT")
    assert sitk.GetArrayViewFromImage(read_case(case, labelled(EIGHT))[1]).max() == 8
    assert not [one for one in check_cases([case], structures=labelled(EIGHT)) if one.code == "label_missing"]
    with pytest.raises(mkd_core.InputError, match="means no structure"):
        read_case(case)


def test_tissues_of_drawn_hearts_follow_the_list():
    eight, turned = targets_of(labelled(EIGHT)), targets_of(labelled(("PA", "LA")))
    assert TARGET_OF[Tissue.LA_APPENDAGE] == TARGET_OF[Tissue.LA] == 3
    assert (eight[Tissue.LA_APPENDAGE], eight[Tissue.LA]) == (8, 3)
    assert (turned[Tissue.DISTAL_PULMONARY_ARTERY], turned[Tissue.LA_APPENDAGE], turned[Tissue.LV]) == (1, 2, 0)
    heart = make_heart(1)
    canvas = Canvas.from_array(sitk.GetArrayFromImage(heart), heart.GetSpacing()[0])
    patches = [
        random_patch(canvas, "CT", np.random.default_rng(0), 48, 3.0, structures=structures)
        for structures in (STRUCTURES, labelled(EIGHT))
    ]
    (image, seven), (same_image, target) = patches
    assert np.array_equal(image, same_image) and (target == 8).any()
    assert np.array_equal(np.where(target == 8, 3, target), seven) and (seven == IGNORE).any()


def test_rules_of_whole_hearts_see_an_appendage_as_part_of_its_atrium():
    assert labels_of_the_seven(STRUCTURES) == list(range(8))
    assert labels_of_the_seven(labelled(("LAA", "PA", "LV"))) == [0, 3, 7, 1]


@pytest.mark.parametrize("classes", [3, 8, 9, 20])
def test_a_class_that_may_be_the_best_is_never_left_out(classes):
    rng = np.random.default_rng(classes)
    scores = torch.from_numpy(rng.dirichlet(np.full(classes, 0.3), (5, 4, 3))).movedim(-1, 0).float()
    nearly_even = torch.full((classes, 2, 2, 2), 1 / classes)
    nearly_even[1:] -= 1e-4 / (classes - 1)
    nearly_even[0] += 1e-4
    for tile in (scores, nearly_even):
        assert set(tile.argmax(dim=0).unique().tolist()) <= set(_open_classes(tile))
    low = torch.zeros(classes, 2, 2, 2)
    low[0], low[1] = 1 - 0.9 / classes, 0.9 / classes
    assert _open_classes(low) == [0], "less than an equal share everywhere cannot win"


def test_the_terminology_offers_every_structure_of_the_catalogue():
    stored = json.loads(FILE.read_text(encoding="utf-8"))
    assert stored == terminology(), "python -m Testing.support.terminology writes it anew"
    (category,) = stored["SegmentationCodes"]["Category"]
    listed = {
        kind["3dSlicerLabel"]: (kind["CodeValue"], kind["recommendedDisplayRGBValue"]) for kind in category["Type"]
    }
    assert listed == {structure.key: (structure.code[1], list(structure.color)) for structure in CATALOGUE}
