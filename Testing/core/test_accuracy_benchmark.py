"""The accuracy benchmark: what is aimed at is compared with what was measured, and nothing else."""

import shutil
from pathlib import Path

import numpy as np
import pytest

sitk = pytest.importorskip("SimpleITK")
pytest.importorskip("torch")

import mkd_core
from mkd_core.structures import STRUCTURES
from Testing.benchmarks import accuracy


def _rendered(mean, lowest, real, synthetic):
    both = {s.key: mean for s in STRUCTURES} | {"RV": lowest, "mean": mean}
    return {"ensemble": both, "real": {"mean": real}, "synthetic": {"mean": synthetic}}


def test_an_aim_is_met_where_the_measured_value_reaches_it():
    found = {
        aim["what"]: (aim["reached"], aim["met"])
        for aim in accuracy.aims(
            {
                "rendered CT": _rendered(0.96, 0.80, 0.95, 0.955),
                "refused without a heart": {"ct": True, "mr": False},
                "real MR left atrium": {"translate": {"mean": 0.88}, "none": {"mean": 0.89}},
            }
        )
    }
    assert found["rendered CT: mean Dice"] == (0.96, True)
    assert found["rendered CT: lowest structure"] == (0.80, False)
    assert found["rendered CT: ensemble less the better segmentor"] == (pytest.approx(0.005), True)
    assert found["volumes without a heart refused"][1] is False
    assert found["real MR: left atrium Dice"][1] is True and found["real MR: gain by image alignment"][1] is False
    assert not any("real CT" in what or "rendered MR" in what for what in found), "only what was measured"


def test_a_rendered_test_heart_is_scored_for_each_segmentor_and_the_worst_one_drawn(tmp_path, capsys):
    from mkd_core.io.bundle import update_metadata
    from mkd_core.synthesis.anatomy import make_heart

    hearts = tmp_path / "hearts"
    hearts.mkdir()
    for number in (200, 201):  # the first one is a training heart
        sitk.WriteImage(make_heart(number, spacing=2.5), str(hearts / f"heart_{number:04d}.nii.gz"))
    weights = Path(shutil.copy(mkd_core.default_bundle_path(), tmp_path))
    update_metadata(mkd_core.load_bundle(weights), quality={"validation Dice": 0.9})
    figures = accuracy.main(
        [
            "--weights",
            str(weights),
            "--describe",
            "--data",
            str(tmp_path),
            "--hearts",
            "5",
            "--in-detail",
            "0",
            "--pictures",
            str(tmp_path / "pictures"),
            "--json",
            str(tmp_path / "figures.json"),
        ]
    )
    assert figures["rendered CT"]["ensemble"]["cases"] == 1
    assert all(0 <= figures["rendered CT"][prediction]["mean"] <= 1 for prediction in ("real", "synthetic"))
    assert figures["rendered CT"]["ensemble"]["mean"] > 0.6, "the default weights find a heart that they have not seen"
    worst = [f"worst-rendered-{modality}" for modality in ("CT", "MR")]
    of_structures = [f"{name}-{structure.key}" for name in worst for structure in STRUCTURES]
    assert {path.stem for path in (tmp_path / "pictures").iterdir()} == {*worst, *of_structures}
    assert figures["rendered CT"]["worst"]["LV"]["case"] == "heart_0201.nii.gz"
    described = mkd_core.load_bundle(weights)
    assert described.sha256 == figures["bundle"]["sha256"] and described.alignment("CT") == mkd_core.load_bundle(
        mkd_core.default_bundle_path()
    ).alignment("CT")
    assert described.metadata["quality"]["rendered CT"]["mean"] == pytest.approx(
        figures["rendered CT"]["ensemble"]["mean"], abs=5e-4
    )
    assert "aims" not in described.metadata["quality"] and "validation Dice" in described.metadata["quality"]
    printed = capsys.readouterr().out
    assert "heart_0201.nii.gz CT" in printed and "heart_0200" not in printed
    assert "rendered CT: mean Dice" in printed and (tmp_path / "figures.json").exists()


def test_structures_in_detail_are_measured_as_their_own_command_does_where_the_bundle_fits(
    monkeypatch, tmp_path, capsys
):
    from Testing.benchmarks import details
    from Testing.support.known_heart import KnownBundle

    asked = []
    monkeypatch.setattr(details, "measure", lambda *arguments: asked.append(arguments) or {"rendered CT": {}})
    bundle = mkd_core.load_bundle(mkd_core.default_bundle_path(), self_test=False)
    assert accuracy._in_detail(bundle, tmp_path, 2, None) == {"rendered CT": {}}
    assert asked[0][3] == range(201, 203) and asked[0][1].sha256 == details.default_details().sha256
    assert accuracy._in_detail(KnownBundle(), tmp_path, 2, None) == {} and len(asked) == 1
    assert "trained for other weights" in capsys.readouterr().out


def test_the_worst_case_of_each_structure_is_kept_and_drawn_where_it_lies(tmp_path):
    image = sitk.Image([40, 40, 40], sitk.sitkInt16)
    truth = np.zeros((40, 40, 40), np.uint8)
    truth[4:10, 4:10, 4:10], truth[25:35, 25:35, 25:35] = 1, 2
    truth = sitk.GetImageFromArray(truth)
    worst = accuracy.WorstCases(STRUCTURES[:3])
    lv, rv = STRUCTURES[:2]
    for name, scores in (("a", [(lv, 0.9), (rv, 0.5)]), ("b", [(lv, 0.7), (rv, 0.6)]), ("c", [(lv, 0.8)])):
        worst.see(name, scores, image, truth, None if name == "b" else truth)
    assert worst.table() == {"LV": {"case": "b", "dice": 0.7}, "RV": {"case": "a", "dice": 0.5}}
    worst.draw(tmp_path, "CT")
    assert {path.name for path in tmp_path.iterdir()} == {"worst-rendered-CT-LV.png", "worst-rendered-CT-RV.png"}
    left, right = (
        sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / f"worst-rendered-CT-{key}.png"))) for key in ("LV", "RV")
    )
    assert left.shape < right.shape, "a small structure is seen from near"


def test_the_score_of_a_real_ct_is_perfect_for_labels_inside_the_reference_and_falls_for_what_lies_outside(tmp_path):
    heart, aorta, artery = (np.zeros((24, 24, 24), np.uint8) for _ in range(3))
    heart[4:14, 4:20, 4:20] = 1
    aorta[14:20, 4:9, 4:9] = 1
    artery[14:20, 14:19, 14:19] = 1
    labels = np.zeros(heart.shape, np.uint8)
    for number, label in enumerate((1, 2, 3, 4, 5)):
        labels[4 + 2 * number : 6 + 2 * number, 4:20, 4:20] = label
    labels[aorta > 0], labels[artery > 0] = 6, 7
    hu = np.where(labels == 5, 100, np.where(labels > 0, 400, -100)).astype(np.int16)
    for name, array in (("heart", heart), ("aorta", aorta), ("pulmonary_artery", artery), ("ct", hu)):
        sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / f"{name}.nii.gz"))
    perfect = accuracy.score_real_ct(sitk.GetImageFromArray(labels), tmp_path)
    assert perfect == {
        "inside": 1,
        "cover": 1,
        "pulmonary_artery": 1,
        "ascending_aorta": 1,
        "chambers": 1,
        "blood_minus_muscle": 300,
        "components": 1,
    }
    labels[0, 23, 23] = 2  # a stray voxel, far from everything
    strayed = accuracy.score_real_ct(sitk.GetImageFromArray(labels), tmp_path)
    assert strayed["components"] == 2 and strayed["inside"] < 1 and strayed["chambers"] < 1
