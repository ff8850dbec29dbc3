"""The paper's comparison: which runs it takes, that they run and resume, and that its table says what the numbers
say.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

torch = pytest.importorskip("torch")
for package in ("monai", "lightning_fabric", "tensorboard", "tqdm"):
    pytest.importorskip(package)

from mkd_core.structures import STRUCTURES
from mkd_core.training.bundling import box_margin_mm
from mkd_core.training.config import TrainingConfig
from mkd_core.training.experiments import benchmark_data, paper_table, paper_table_report
from mkd_core.training.experiments.benchmark_data import render_person
from mkd_core.training.experiments.paper_table import ROWS, SCALES, run_all, runs_of

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results"


def test_the_comparison_has_every_row_at_few_and_more_labels_twice():
    runs = list(runs_of(SCALES["small"]))
    assert len(set(runs)) == len(runs) and len({run.name for run in runs}) == len(runs)
    compared = [
        "target only",
        "fine-tuned from the assistant",
        "joint training",
        "IAM images, no distillation",
        "MKD without IAM",
        "MKD without s->r",
        "MKD without r->s",
        "MKD",
    ]
    for labelled in (4, 10):
        for row in compared:
            assert {
                run.seed
                for run in runs
                if (run.row, run.target, run.labelled, run.assistants) == (row, "CT", labelled, 20)
            } == {0, 1}
    assert {run.assistants for run in runs if run.row == "MKD" and run.target == "CT"} == {5, 10, 20}
    assert {run.row for run in runs if run.target == "MR"} == {"target only", "MKD"}
    assert {"MKD, student's stream", "MKD, both streams"} < {run.row for run in runs}


def test_people_of_the_benchmark_look_like_their_modality_and_are_whole():
    for modality, blood in (("CT", (250, 560)), ("MR", (350, 700))):
        image, truth = render_person(52001, modality)
        values, labels = sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(truth)
        assert set(np.unique(labels)) == set(range(8)) and image.GetSize() == truth.GetSize()
        assert blood[0] < np.median(values[labels == 1]) < blood[1]
        assert np.median(values[labels == 5]) < np.median(values[labels == 1]) - 80
    assert np.array_equal(
        sitk.GetArrayFromImage(render_person(52001, "CT")[1]), labels
    )  # one seed is one person in whatever modality


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The whole experiment with networks and runs too small to learn anything, on volumes as coarse as these runs see
    them, most of which show the same two people; the experiment makes the one that is missing.
    """
    folder = tmp_path_factory.mktemp("paper-table")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark_data, "_TISSUE_MM", 3.0)
        patch.setattr(benchmark_data, "_VOLUME_MM", 4.0)
        people = {modality: [render_person(52001 + n, modality) for n in range(2)] for modality in ("CT", "MR")}
    (folder / "volumes").mkdir()
    for part in paper_table._parts(SCALES["tiny"]):
        for number in range(part.count):
            if (part.kind, part.modality) != ("validation", "MR"):
                for volume, name in zip(people[part.modality][number], ("image", "label")):
                    path = folder / "volumes" / f"{part.kind}_{part.modality}_{number:03d}_{name}.nrrd"
                    sitk.WriteImage(volume, str(path), True)
    return folder, run_all(SCALES["tiny"], folder, folder / "kept.json", jobs=2, device="cpu", say=lambda text: None)


def test_every_row_trains_and_is_tested_with_every_answer_it_can_give(tiny):
    _, results = tiny
    assert {result["row"] for result in results} == set(ROWS)
    for result in results:
        aligned = result["row"].startswith(("MKD", "IAM")) and result["row"] != "MKD without IAM"
        policies = ("cycle", "none", "mean") if aligned else ("none",)
        expected = {"S_real"} | {
            f"{prediction} {policy}" for prediction in ("S_syn", "ensemble") for policy in policies
        }
        assert set(result["test"]) == set(result["validation"]) == expected
        assert all(np.shape(rows) == (2, 7) for rows in result["test"].values())


def test_finished_runs_are_kept_and_missing_ones_carried_out(tiny):
    folder, results = tiny
    path = folder / "kept.json"
    assert json.loads(path.read_text()) == results and len(path.read_text().splitlines()) == len(results) + 2
    path.write_text(json.dumps(results[1:]))
    said = []
    again = run_all(SCALES["tiny"], folder, path, device="cpu", say=said.append)
    assert f"{len(results)} runs, {len(results) - 1} of them done" in said
    assert json.loads(path.read_text()) == again and again[1:] == results[1:]
    for first, second in zip(results, again):
        assert {k: v for k, v in first.items() if k != "cpu_seconds"} == {
            k: v for k, v in second.items() if k != "cpu_seconds"
        }


def test_a_result_of_other_settings_counts_for_nothing(tiny):
    folder, results = tiny
    path = folder / "kept.json"
    path.write_text(path.read_text().replace('"steps": 4', '"steps": 5', 1))
    said = []
    again = run_all(SCALES["tiny"], folder, path, device="cpu", say=said.append)
    assert f"{len(results)} runs, {len(results) - 1} of them done" in said
    assert json.loads(path.read_text()) == again
    assert [result["test"] for result in again] == [result["test"] for result in results]


def test_a_result_from_before_a_setting_existed_or_had_its_name_counts(tiny):
    folder, results = tiny
    path = folder / "kept.json"
    entries = json.loads(path.read_text())
    for entry in entries:
        del entry["settings"]["phases"], entry["settings"]["method"]["temperature"]
        lr = entry["settings"]["method"].pop("segmentor_lr")
        entry["settings"]["method"] |= {
            "alignment": entry["row"] != "MKD without IAM",
            "separate_steps": 0,
            "segmentor_rate": lr,
        }
    path.write_text(json.dumps(entries))
    said = []
    run_all(SCALES["tiny"], folder, path, device="cpu", say=said.append)
    assert f"{len(results)} runs, {len(results)} of them done" in said


def test_a_result_scored_with_another_margin_round_the_heart_counts_for_nothing(tiny):
    folder, results = tiny
    runs, path = list(runs_of(SCALES["tiny"])), folder / "margins.json"
    assert all(result["settings"]["margin_mm"] == box_margin_mm(TrainingConfig()) == 14.0 for result in results)
    path.write_text(json.dumps(results))
    assert len(paper_table._kept_results(path, runs, SCALES["tiny"])) == len(results)
    entries = json.loads(json.dumps(results))
    entries[0]["settings"]["margin_mm"] = 20.0
    del entries[1]["settings"]["margin_mm"]  # from a time when it was always 20
    path.write_text(json.dumps(entries))
    assert len(paper_table._kept_results(path, runs, SCALES["tiny"])) == len(results) - 2


@pytest.mark.parametrize("content", ["", "[{}]", '{"runs": 1}', "[1, 2]", '[{"row": []}]'])
def test_a_damaged_file_of_results_counts_for_nothing(tmp_path, content):
    (tmp_path / "kept.json").write_text(content)
    assert paper_table._kept_results(tmp_path / "kept.json", list(runs_of(SCALES["tiny"])), SCALES["tiny"]) == {}


def test_the_committed_table_is_made_of_the_committed_runs(monkeypatch):
    monkeypatch.setattr(paper_table, "box_margin_mm", lambda config: 20.0)  # as it was when they were carried out
    runs = list(dict.fromkeys(runs_of(SCALES["small"])))
    results = paper_table._kept_results(RESULTS / "paper-table-small-runs.json", runs, SCALES["small"])
    assert list(results) == runs
    written = paper_table_report.summarise(list(results.values()), "small")
    committed = json.loads((RESULTS / "paper-table.json").read_text())
    assert {**written, "version": "", "machine": ""} == {**committed, "version": "", "machine": ""}


def test_table_plot_and_json_are_written(tiny, tmp_path):
    pytest.importorskip("matplotlib")
    _, results = tiny
    text = paper_table_report.write(results, "tiny", tmp_path)
    assert text == (tmp_path / "paper-table.md").read_text() and "| joint training | 2 |" in text
    assert (tmp_path / "paper-table.png").stat().st_size > 5000
    assert len(json.loads((tmp_path / "paper-table.json").read_text())["rows"]) == len(results)


def _result(row, seed, real, syn, both, labelled=4, assistants=20):
    predictions = {"S_real": real}
    for policy, shift in (("cycle", 0.0), ("none", 0.02), ("mean", 0.01)):
        predictions |= {f"S_syn {policy}": syn + shift, f"ensemble {policy}": both + shift}
    scores = {name: [[value] * 7] * 3 for name, value in predictions.items()}
    return {
        "row": row,
        "target": "CT",
        "labelled": labelled,
        "assistants": assistants,
        "seed": seed,
        "cpu_seconds": 1.0,
        "test": scores,
        "validation": scores,
    }


def test_the_summary_averages_over_seeds_with_the_alignment_that_validated_best():
    results = [
        _result("MKD", 0, 0.80, 0.70, 0.82),
        _result("MKD", 1, 0.84, 0.74, 0.86),
        _result("target only", 0, 0.78, 0.78, 0.75),
        _result("MKD", 0, 0.7, 0.6, 0.72, assistants=5),
    ]
    summary = paper_table_report.summarise(results, "small")
    assert summary["alignment at inference"]["kept"] == "none"
    row = summary["rows"][0]
    assert (row["S_real"]["mean"], row["S_syn"]["mean"], row["ensemble"]["mean"]) == (0.82, 0.74, 0.86)
    assert row["ensemble"]["by seed"] == [0.84, 0.88] and row["ensemble"]["by structure"] == {
        s.key: 0.86 for s in STRUCTURES
    }
    claims = {one["claim"]: (one["points"], one["holds"]) for one in summary["claims"]}
    assert claims["4 labelled CT: MKD's ensemble over the target alone"] == (9.0, True)
    assert claims["4 labelled CT: MKD's ensemble over S_real"] == (4.0, True)
    assert claims["4 labelled CT: 20 assistant volumes over 5"] == (12.0, True)
    assert not any("competitor" in claim for claim in claims)


def test_a_claim_that_does_not_hold_is_said_not_to():
    results = [_result("MKD", 0, 0.80, 0.70, 0.78), _result("joint training", 0, 0.85, 0.85, 0.83)]
    text = paper_table_report._text(paper_table_report.summarise(results, "small"))
    assert "| 4 labelled CT: MKD's ensemble over every competitor | -5.00 | no |" in text
