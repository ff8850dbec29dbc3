"""Experiments: who is in which group, which runs there are, that they resume, and that tables say what numbers say."""

import dataclasses
import json
import shutil
import sys
import typing
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

torch = pytest.importorskip("torch")
for package in ("monai", "lightning_fabric", "tensorboard", "tqdm"):
    pytest.importorskip(package)

from mkd_core import cli
from mkd_core.errors import InputError
from mkd_core.method.networks.segmentor import StreamNorm
from mkd_core.structures import STRUCTURES
from mkd_core.synthesis.anatomy import make_heart
from mkd_core.training.experiments import cine_lge, people, report, runs, scoring
from mkd_core.training.experiments.comparison import difference, difference_of_means, holm
from mkd_core.training.experiments.people import GROUPS, Cohort, coverage, render_person
from mkd_core.training.experiments.runs import ROWS, run_all, runs_of
from mkd_core.training.experiments.scarce_labels import SCALES, ScarceLabels
from mkd_core.training.labelled_volumes import PreparedVolume
from mkd_core.training.validation import panel

KEYS = [structure.key for structure in STRUCTURES]


@pytest.fixture(scope="module")
def hearts(tmp_path_factory):
    """A cohort of one heart under the numbers that the smallest experiment asks for, and a larger one of a test."""
    folder = tmp_path_factory.mktemp("hearts")
    heart = make_heart(3, 3.0)
    wanted = Cohort(folder).drawn("labelled", 2) + [101, 102, 201, 209, 210]
    for number in wanted:
        sitk.WriteImage(heart, str(folder / f"heart_{number:04d}.nii.gz"))
    return folder


def test_groups_share_no_one_and_fewer_labelled_are_the_first_of_more():
    cohort = Cohort()
    groups = [set(range(first, last + 1)) for first, last in GROUPS.values()]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 240
    ten, four = cohort.drawn("labelled", 10, 1), cohort.drawn("labelled", 4, 1)
    assert ten[:4] == four and len(set(ten)) == 10 and set(ten) <= set(range(1, 101))
    assert ten != cohort.drawn("labelled", 10, 0) and ten != sorted(ten)
    assert cohort.drawn("assistant", 3) == [101, 102, 103] == cohort.drawn("assistant", 3, 1)


def test_a_person_has_one_anatomy_and_the_mr_is_dark_where_the_ct_is_bright(hearts):
    cohort = Cohort(hearts)
    (ct, truth), (mr, same) = (render_person(cohort, 101, modality) for modality in ("CT", "MR"))
    labels = sitk.GetArrayFromImage(truth)
    assert np.array_equal(labels, sitk.GetArrayFromImage(same)) and set(np.unique(labels)) == set(range(8))
    for image, sign in ((ct, 1), (mr, -1)):
        values = sitk.GetArrayFromImage(image)
        blood, muscle = (np.median(values[labels == label]) for label in (1, 5))
        assert sign * (blood - muscle) > 80
    with pytest.raises(InputError, match="NAME_0007"):
        cohort.heart(7)


def test_people_of_one_heart_are_covered_by_each_other_and_the_command_prints_it(hearts, capsys):
    assert coverage(Cohort(hearts), 2, 2, 1) == pytest.approx(1.0)
    people.main([str(hearts), "--labelled", "2", "--tested", "2", "--draws", "1"])
    assert capsys.readouterr().out.endswith("the nearest of 2 hearts covers a test heart with a Dice of 1.000\n")


def test_every_claim_has_five_pairs_of_draw_and_seed_and_every_ablation_two():
    found = runs_of(SCALES["small"])
    assert len(set(found)) == len(found) == len({run.name for run in found})
    for name, row in ROWS.items():
        for labelled in (4, 10):
            pairs = {run.pair for run in found if (run.row, run.labelled, run.assistants) == (name, labelled, 20)}
            assert pairs == set(range(5 if row.claim else 2))
    assert {run.assistants for run in found if run.row == "MKD"} == {5, 10, 20}
    assert [ROWS[run.row].claim for run in found if run.assistants == 20] == sorted(
        (ROWS[run.row].claim for run in found if run.assistants == 20), reverse=True
    )


def test_rows_with_equal_computing_are_as_much_longer_as_the_method_computes_more():
    benchmark, scale = ScarceLabels(), SCALES["small"]
    found = [run for run in runs_of(scale) if run.pair == 0]
    steps = {run.row: runs._config(benchmark, run, scale, Path(), 1, "cpu").stages[0].steps for run in found}
    assert steps["target only, MKD's computing"] == 5 * steps["MKD"] and steps["fine-tuned"] == 2 * steps["MKD"]
    assert {steps[row] for row in ROWS if not ROWS[row].length > 1} == {1000}


TRIED = ["target only", "target only, two networks", "joint, norm per modality", "MKD", "MKD without IAM", "oracle"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, hearts):
    """Rows of all kinds with networks and runs too small to learn anything."""
    folder = tmp_path_factory.mktemp("scarce-labels")
    chosen = [run for run in runs_of(SCALES["tiny"], TRIED) if run.assistants == 2]
    results = run_all(
        ScarceLabels(Cohort(hearts)), SCALES["tiny"], chosen, folder, folder / "kept.json", device="cpu", say=str
    )
    return folder, chosen, results


def test_rows_train_on_what_they_say_and_are_tested_with_every_prediction_they_can_give(tiny):
    _, chosen, results = tiny
    assert [result["row"] for result in results] == [run.row for run in chosen]
    by_row = {result["row"]: result for result in results}
    for row, result in by_row.items():
        policies = ("cycle", "none", "mean") if row == "MKD" else ("none",)
        expected = {"S_real"} | {f"{kind} {policy}" for kind in ("S_syn", "ensemble") for policy in policies}
        assert set(result["test"]) == set(result["validation"]) == expected
        assert np.shape(result["test"]["S_real"]) == (2, 7) and np.shape(result["validation"]["S_real"]) == (1, 7)
        assert [point["step"] for point in result["curve"]] == [2, 4]
    single = by_row["target only"]["test"]
    assert single["S_real"] == single["S_syn none"] == by_row["target only, two networks"]["test"]["S_real"]


def test_finished_runs_are_kept_and_missing_ones_and_those_of_other_settings_carried_out(tiny, hearts):
    folder, chosen, results = tiny
    path = folder / "kept.json"
    assert json.loads(path.read_text(encoding="utf-8")) == results
    others = results[1:-1] + [results[-1] | {"settings": results[-1]["settings"] | {"tested": 99}}]
    path.write_text(json.dumps(others))
    (folder / "runs" / chosen[0].name / "cpu_seconds.txt").write_text("1000.0")
    said = []
    again = run_all(ScarceLabels(Cohort(hearts)), SCALES["tiny"], chosen, folder, path, device="cpu", say=said.append)
    assert said[0].endswith(f"{len(chosen)} runs, {len(chosen) - 2} of them done")
    assert [one["test"] for one in again] == [one["test"] for one in results]
    assert again[0]["cpu_seconds"] >= 1000 > again[-1]["cpu_seconds"] > 0, "those of earlier starts count"
    assert len(json.loads(path.read_text(encoding="utf-8"))) == len(results) + 1  # results of other settings stay


def test_a_result_that_is_older_than_a_setting_counts_as_one_of_its_default(tiny):
    _, chosen, results = tiny
    run, settings = chosen[0], results[0]["settings"]

    def without(table, name):
        entries = settings[table]
        cut = [
            {key: one[key] for key in one if key != name}
            for one in ([entries] if isinstance(entries, dict) else entries)
        ]
        return [results[0] | {"settings": settings | {table: cut[0] if isinstance(entries, dict) else cut}}]

    assert runs._find(without("method", "clip"), run, settings) and runs._find(
        without("phases", "generators"), run, settings
    )
    assert not runs._find(without("networks", "segmentor"), run, settings)  # here it is not the default


@pytest.mark.parametrize("content", ["", "[{}]", '{"runs": 1}', "[1, 2]", '[{"row": []}]'])
def test_a_damaged_file_of_results_counts_for_nothing(tmp_path, content):
    (tmp_path / "kept.json").write_text(content)
    assert runs._read(tmp_path / "kept.json") == []


# Comparisons


def test_a_bootstrap_draws_pairs_first_and_people_within_them():
    found = difference([[0.8, 0.8]], [[0.7, 0.5]], replicates=4000)
    assert found.mean == pytest.approx(0.2) and (found.pairs, found.people) == (1, 2)
    # With one pair of runs a replicate is the mean of two people drawn from 0.1 and 0.3: 0.1, 0.2 or 0.3.
    assert (found.low, found.high) == (pytest.approx(0.1), pytest.approx(0.3))
    assert found.p == pytest.approx(2 / 4001)
    # Two pairs that disagree: people within a pair are alike, so that all spread is between the pairs.
    two = difference([[0.9] * 50, [0.5] * 50], [[0.6] * 50] * 2, replicates=4000)
    assert (two.mean, two.low, two.high) == (pytest.approx(0.1), pytest.approx(-0.1), pytest.approx(0.3))
    assert two.p == pytest.approx(2 * 0.25, abs=0.05)
    with pytest.raises(ValueError, match="cannot be compared"):
        difference([[0.1, 0.2]], [[0.1]])


def test_holms_correction_is_the_published_one():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0]) and holm([]) == []


def _result(row, pair, real, both, labelled=4, assistants=20):
    scores = {"S_real": [[real] * 7] * 3}
    for policy, shift in (("cycle", 0.0), ("none", 0.02), ("mean", 0.01)) if row == "MKD" else (("none", 0.0),):
        scores |= {f"{kind} {policy}": [[both + shift] * 7] * 3 for kind in ("S_syn", "ensemble")}
    curve = [{"step": 10, **dict.fromkeys(scores, 0.5)}]
    settings = {"stages": [{"steps": 10}]}
    ends = {"cpu_seconds": 1.0, "test": scores, "validation": scores, "curve": curve, "settings": settings}
    ends["test HD95"] = {name: [[100 * value for value in row] for row in rows] for name, rows in scores.items()}
    return {"row": row, "labelled": labelled, "assistants": assistants, "pair": pair, **ends}


def test_the_table_compares_the_method_with_each_row_on_the_pairs_that_both_have(tmp_path):
    results = [
        _result("MKD", 1, 0.8, 0.86),
        _result("MKD", 0, 0.8, 0.82),
        _result("target only", 0, 0.7, 0.74),
        _result("joint", 1, 0.9, 0.90),
        _result("MKD", 0, 0.7, 0.72, assistants=5),
        _result("target only", 0, 0.7, 0.7, labelled=10),
    ]
    summary = report.summarise("one", results, KEYS)
    assert summary["alignment at inference"]["kept"] == "none"
    row = summary["rows"][0]
    assert row["HD95 (mm)"] == pytest.approx(86.0)
    assert (row["pairs"], row["ensemble"]) == ([0, 1], [0.84, 0.88]) and row["structures"]["LV"] == 0.86
    found = {(one["over"], one["assistants"]): one for one in summary["comparisons"]}
    assert set(found) == {("target only", 20), ("joint", 20), ("MKD", 5)}
    assert found["target only", 20]["mean"] == pytest.approx(0.10) and found["joint", 20]["mean"] == pytest.approx(
        -0.02
    )
    assert all(one["p corrected"] >= one["p"] for one in found.values())
    text = report.write("one", results, tmp_path, KEYS)
    assert "| 4 | joint (20 assistants) | -2.00 |" in text and "says nothing of how runs differ" in text
    assert json.loads((tmp_path / "one.json").read_text(encoding="utf-8")) == summary
    pytest.importorskip("matplotlib")
    assert (tmp_path / "one.png").stat().st_size > 5000


def test_reports_of_several_days_are_joined_and_compared_by_people_where_these_are_known(tmp_path, monkeypatch):
    ours = [_result("MKD", pair, 0.8, value) for pair, value in enumerate((0.84, 0.86, 0.88))]
    twins = [_result("two networks", pair, 0.8, value) for pair, value in enumerate((0.85, 0.86, 0.87))]
    oracle = [_result("oracle", pair, 0.8, value) for pair, value in enumerate((0.89, 0.91, 0.93))]
    groups = ([*ours, _result("joint", 0, 0.9, 0.8)], twins, oracle)
    old, new, newest = (report.summarise("one", results, KEYS) for results in groups)
    both = report.joined([old, new])
    assert both == report.summarise("one", [*ours, _result("joint", 0, 0.9, 0.8), *twins], KEYS)

    for row in old["rows"]:  # as reports were before they said what every person has
        del row["ensemble by person"]
    paths = [tmp_path / f"{number}.json" for number in range(3)]
    for path, summary in zip(paths, (old, new, newest)):
        path.write_text(json.dumps(summary), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["report", *map(str, paths), "--out", str(tmp_path)])
    assert report.main() == 0
    found = json.loads((tmp_path / "one.json").read_text(encoding="utf-8"))
    over = {one["over"]: one for one in found["comparisons"]}
    kept = next(one for one in old["comparisons"] if one["over"] == "joint")
    assert {**over["joint"], "p corrected": 0} == {**kept, "p corrected": 0}, "it is as the report with both has it"
    # By hand: differences 0.01, 0.02, 0.03 (MKD sees the target as it is, 0.02 better), t(2) = 4.303, sd 0.01.
    assert over["two networks"]["mean"] == pytest.approx(0.02)
    half = 4.30265 * 0.01 / 3**0.5
    assert over["two networks"]["low"] == pytest.approx(0.02 - half, abs=1e-5)
    assert over["two networks"]["pairs"] == 3 and over["two networks"]["people"] == 3
    corrected = {one["over"]: one["p corrected"] for one in found["comparisons"]}
    assert corrected["oracle"] >= over["oracle"]["p"] and over["oracle"]["mean"] == pytest.approx(-0.03)

    assert "not by the bootstrap: two networks, oracle" in (tmp_path / "one.md").read_text(encoding="utf-8")

    with pytest.raises(ValueError, match="not of one experiment"):
        report.joined([old, {**new, "experiment": "another"}])
    with pytest.raises(ValueError, match="cannot be compared"):
        difference_of_means([0.1], [0.2], 3)


def test_a_joined_report_compares_the_rows_that_it_shows():
    def method(value, **more):
        return [_result("MKD", pair, 0.8, value + 0.01 * pair, **more) for pair in range(2)]

    joint = [_result("joint", pair, 0.8, 0.80 + 0.02 * pair) for pair in range(2)]
    before = report.summarise("one", [*method(0.84), *joint], KEYS)
    for trained_anew in (method(0.94), method(0.94, assistants=40)):
        (found,) = (
            one
            for one in report.joined([report.summarise("one", trained_anew, KEYS), before])["comparisons"]
            if one["over"] == "joint"
        )
        assert found["mean"] == pytest.approx(0.94 + 0.005 + 0.02 - 0.81), "not that of the method as it was before"


def test_rows_that_share_a_single_pair_of_which_only_the_mean_is_known_are_joined_but_not_compared():
    summaries = [report.summarise("one", [_result(row, 0, 0.8, 0.84)], KEYS) for row in ("MKD", "joint")]
    for summary in summaries:
        del summary["rows"][0]["ensemble by person"]
    found = report.joined(summaries)
    assert len(found["rows"]) == 2 and found["comparisons"] == []


def test_reports_in_which_s_syn_saw_other_images_are_not_joined():
    def aligned_best(results):
        for one in results:
            one["validation"] = {"ensemble cycle": [[0.9]], "ensemble none": [[0.5]], "ensemble mean": [[0.5]]}
        return report.summarise("one", results, KEYS)

    method = aligned_best([_result("MKD", 0, 0.8, 0.84)])
    assert method["alignment at inference"]["kept"] == "cycle"
    assert report.joined([method, report.summarise("one", [_result("joint", 0, 0.8, 0.84)], KEYS)])
    other = _result("MKD", 0, 0.8, 0.84) | {"row": "another that translates"}
    with pytest.raises(ValueError, match="one way to align"):
        report.joined([method, report.summarise("one", [other], KEYS)])


# Real scans of two kinds


@pytest.fixture(scope="module")
def stacks(tmp_path_factory):
    """Stacks of 10 mm slices of either kind, named as the real ones are: a ring round a disc, RV beside it."""
    folder = tmp_path_factory.mktemp("cine-lge")
    y, x = np.mgrid[:32, :32] - 15.5
    labels = np.where(np.hypot(y, x) < 6, 1, np.where(np.hypot(y, x) < 9, 5, np.where(x < -11, 2, 0))).astype(np.uint8)
    labels = np.repeat(labels[None], 6, axis=0)
    for kind, count, look in (("cine", 6, [0, 300, 280, 0, 0, 80]), ("lge", 52, [60, 120, 110, 0, 0, 200])):
        (folder / kind).mkdir()
        for number in range(count):
            noise = np.random.default_rng(number).normal(0, 5, labels.shape)
            for name, array in (("image", np.array(look)[labels] + noise), ("label", labels)):
                stack = sitk.GetImageFromArray(array.astype(np.int16))
                stack.SetSpacing((4.0, 4.0, 10.0))
                sitk.WriteImage(stack, str(folder / kind / f"{kind}_{number:03d}_{name}.nii.gz"))
    return folder


def test_people_of_real_scans_test_validate_are_labelled_or_assist(stacks, tmp_path):
    benchmark = cine_lge.CineLge(stacks)
    groups = {
        kind: benchmark.cases(kind, count, 0, tmp_path)
        for kind, count in (("test", 40), ("validation", 8), ("labelled", 4), ("assistant", 3))
    }
    names = [case.name for cases in groups.values() for case in cases]
    assert len(set(names)) == len(names) == 55
    assert {case.name[:4] for case in groups["assistant"]} == {"cine"} and groups["assistant"][0].modality == "CT"
    assert {case.name[:3] for case in groups["test"]} == {"lge"} and groups["test"][0].modality == "MR"
    assert benchmark.cases("labelled", 2, 0, tmp_path) == groups["labelled"][:2]
    assert {tuple(case.name for case in benchmark.cases("labelled", 4, pair, tmp_path)) for pair in range(4)} != {
        tuple(case.name for case in groups["labelled"])
    }
    label = sitk.GetArrayFromImage(sitk.ReadImage(str(groups["labelled"][0].label)))
    assert set(np.unique(label)) == {0, 1, 2} and label[0, 15, 15] == 1 and label[0, 15, 7] == 2
    with pytest.raises(InputError, match="4 scans for “labelled”, not 5"):
        benchmark.cases("labelled", 5, 0, tmp_path)
    with pytest.raises(InputError, match="no scans"):
        cine_lge.CineLge(tmp_path).cases("test", 1, 0, tmp_path)


def test_late_enhancement_that_is_stored_another_way_is_turned_as_cine_is_stored(stacks, tmp_path):
    benchmark = cine_lge.CineLge(stacks, lge_axes="YXZ")
    kept, turned = cine_lge.CineLge(stacks).cases("test", 1, 0, tmp_path), benchmark.cases("test", 1, 0, tmp_path)
    for old, new in ((kept[0].image, turned[0].image), (kept[0].label, turned[0].label)):
        old, new = sitk.ReadImage(str(old)), sitk.ReadImage(str(new))
        expected = sitk.GetArrayFromImage(old).transpose(0, 2, 1)[::-1, ::-1, ::-1]
        assert np.array_equal(sitk.GetArrayFromImage(new), expected)
        assert new.GetDirection() == old.GetDirection() and new.GetSpacing() == old.GetSpacing()
    assert benchmark.name != cine_lge.CineLge(stacks).name
    assert benchmark.cases("assistant", 1, 0, tmp_path) == cine_lge.CineLge(stacks).cases("assistant", 1, 0, tmp_path)
    for wrong in ("xy", "xxz", "abc"):
        with pytest.raises(InputError, match="once each"):
            cine_lge.CineLge(stacks, lge_axes=wrong)


def test_every_slice_of_a_stack_is_brought_to_the_same_brightness(stacks, tmp_path):
    image, label = (stacks / "cine" / f"cine_000_{kind}.nii.gz" for kind in ("image", "label"))
    stack = sitk.ReadImage(str(image), sitk.sitkFloat32)
    contrast, brightness = np.array([1, 3, 0.5, 1, 8, 2])[:, None, None], np.array([0, 50, 9, 0, -30, 7])[:, None, None]
    found = {}
    for name, scale, shift in (("even", 1.0, 0.0), ("uneven", contrast, brightness)):
        changed = sitk.GetImageFromArray((scale * sitk.GetArrayFromImage(stack) + shift).astype(np.float32))
        changed.CopyInformation(stack)
        (tmp_path / name / "cine").mkdir(parents=True)
        for person in ("a", "b"):  # half of the people assist
            sitk.WriteImage(changed, str(tmp_path / name / "cine" / f"{person}_image.nii.gz"))
            shutil.copy(label, tmp_path / name / "cine" / f"{person}_label.nii.gz")
        (case,) = cine_lge.CineLge(tmp_path / name).cases("assistant", 1, 0, tmp_path / name)
        found[name] = sitk.GetArrayFromImage(sitk.ReadImage(str(case.image)))
    assert np.allclose(found["even"], found["uneven"], atol=1e-4)
    assert np.allclose(np.percentile(found["even"], (1, 99.5), axis=(1, 2)).T, (0, 1), atol=1e-4)


@pytest.mark.parametrize("slices", [5, 8, 9])
def test_only_what_the_scan_shows_is_scored(tmp_path, slices):
    """A network takes so many slices at a time; those that are made up of the last one again say nothing."""
    labels = np.zeros((slices, 24, 24), np.uint8)
    labels[:, 8:16, 8:16] = 1
    labels[0, 8:12, 8:16] = 0  # whatever is found there would count several times over
    np.save(tmp_path / "image.npy", labels.astype(np.float16))
    np.save(tmp_path / "labels.npy", labels)
    volume = PreparedVolume(tmp_path / "image.npy", tmp_path / "labels.npy", (0, 8, 8), (slices, 16, 16), (True, True))
    parts = {part: _Square() for part in ("segmentor_real", "segmentor_syn")}
    structures = [dataclasses.replace(STRUCTURES[0], label=1)]
    found = scoring.score(parts, [volume], (10.0, 2.0, 2.0), False, 300.0, structures, ("dice", "hd95"))
    square = slices * 64
    assert found["dice"]["ensemble none"][0][0] == pytest.approx(2 * (square - 32) / (2 * square - 32), abs=1e-3)
    assert {shape[0] % 4 for shape in _Square.seen} == {0} and {shape[1:] for shape in _Square.seen} == {(24, 24)}


class _Square(torch.nn.Module):
    """Finds a square of 8 x 8 voxels in the middle of every slice."""

    strides = (4, 8, 8)
    seen: typing.ClassVar[list[tuple[int, ...]]] = []

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, image):
        self.seen.append(tuple(image.shape[2:]))
        scores = torch.zeros(1, 2, *image.shape[2:])
        scores[:, 1] = -9.0
        scores[:, 1, :, 8:16, 8:16] = 9.0
        return scores


def test_the_command_compares_rows_on_real_scans(stacks, tmp_path, capsys):
    arguments = ["experiment", "cine-lge", "--data", str(stacks), "--out", str(tmp_path / "out"), "--scale", "tiny"]
    arguments += ["--set", "method.distillation_dice=0.5", "--set", "networks.segmentor_norm=instance"]
    assert cli.main([*arguments, "--jobs", "1", "--device", "cpu", "--rows", "target only", "MKD"]) == 0
    (kept,) = (tmp_path / "out").glob("cine-lge-lge-runs.json")
    results = json.loads(kept.read_text(encoding="utf-8"))
    assert [one["row"] for one in results] == ["target only", "MKD", "MKD"]
    assert np.shape(results[0]["test"]["S_real"]) == np.shape(results[0]["test HD95"]["S_real"]) == (2, 2)
    assert results[0]["settings"]["networks"]["voxel"] == [6.0, 6.0, 10.0]
    assert results[0]["settings"]["networks"]["segmentor_norm"] == "instance"  # what a row names goes before it
    assert results[1]["settings"]["method"]["distillation_dice"] == 0.5
    assert "| 2 | target only (2 assistants) |" in capsys.readouterr().out
    pictures = list((tmp_path / "out" / "runs").glob("*/panel.png"))
    assert {picture.parent.name for picture in pictures} == {"02_02_MKD_0", "02_01_MKD_0"}
    for wrong in (["experiment", "cine-lge"], [*arguments, "--rows", "MKT"]):
        with pytest.raises(SystemExit):
            cli.main(wrong)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_runs_on_a_graphics_card_are_scored_there(hearts, tmp_path):
    benchmark, scale = ScarceLabels(Cohort(hearts)), SCALES["tiny"]
    [run] = runs_of(scale, ["target only"])
    [result] = run_all(benchmark, scale, [run], tmp_path, tmp_path / "kept.json", device="cuda")
    assert len(result["test"]["S_real"]) == scale.tested


def test_pictures_normalise_every_image_as_its_stream():
    streams = []

    class Segments(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = StreamNorm(1)

        def forward(self, image):
            streams.append(self.norm.stream)
            return torch.cat([image, -image], dim=1)

    class Shifts(torch.nn.Module):
        def forward(self, image):
            return image + 0.1

    parts = {name: Shifts() for name in ("generator_a2t", "generator_t2a")}
    parts |= {name: Segments() for name in ("segmentor_real", "segmentor_syn")}
    image, labels = torch.zeros(1, 1, 4, 4, 4), torch.zeros(1, 4, 4, 4, dtype=torch.uint8)
    assert panel(parts, image, labels, image.clone(), labels).shape == (8, 24, 3)
    assert streams == ["translated", "translated", "target", "translated"]
