"""An evaluation as a researcher meets it: the command, the files it writes, stopping and going on, cases that fail."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from mkd_core import cli
from mkd_core.errors import Cancelled, InputError
from mkd_core.evaluation import run
from mkd_core.evaluation.cases import find_cases
from mkd_core.evaluation.figure import exemplary_cases
from mkd_core.evaluation.measures import StructureMeasures
from mkd_core.evaluation.report import COLUMNS, summarise
from mkd_core.evaluation.results import CaseResult
from mkd_core.protocol import SegmentationOptions
from mkd_core.structures import STRUCTURES
from Testing.support.known_heart import KnownBundle, dice, known_volume

SIZE, SPACING = (56, 48, 52), (4.0, 4.0, 4.0)
KEYS = [structure.key for structure in STRUCTURES]
NO_HEART = "No heart was found in this volume."
TO_MMWHS = {structure.label: structure.mmwhs[0] for structure in STRUCTURES}


def write_case(folder: Path, name: str, shift: int = 0, heart: bool = True, without: tuple[int, ...] = ()) -> None:
    """A known heart named as in MM-WHS, its truth shifted by some voxels to the left against it, or a body without a
    heart.
    """
    image, truth = known_volume(SIZE, SPACING)
    voxels, labels = sitk.GetArrayFromImage(image), np.roll(sitk.GetArrayFromImage(truth), shift, axis=2)
    if not heart:
        voxels = np.where(voxels > -200, np.int16(-150), voxels)
        voxels[20:24, 20:24, 20:24] = 300  # bright as bone, and too small for a chamber
    labels = np.vectorize({0: 0, **TO_MMWHS}.get, otypes=[np.int16])(np.where(np.isin(labels, without), 0, labels))
    folder.mkdir(exist_ok=True)
    for kind, array in (("image", voxels), ("label", labels)):
        volume = sitk.GetImageFromArray(array)
        volume.CopyInformation(image)
        sitk.WriteImage(volume, str(folder / f"{name}_{kind}.nii.gz"))


@pytest.fixture()
def data(tmp_path):
    """Three CT: exact, shifted by a voxel, and one without a heart."""
    write_case(tmp_path / "data", "ct_train_1001")
    write_case(tmp_path / "data", "ct_train_1002", shift=1)
    write_case(tmp_path / "data", "ct_train_1003", heart=False)
    return tmp_path / "data"


@pytest.fixture()
def known_weights(monkeypatch):
    """Weights that classify by intensity, whatever file is named; gives the names of the cases that were segmented."""
    segmented = []
    segment = run.segment

    def noted(image, *arguments, **options):
        segmented.append(image.GetSize())
        return segment(image, *arguments, **options)

    monkeypatch.setattr("mkd_core.io.bundle.load_bundle", lambda path: KnownBundle())
    monkeypatch.setattr(run, "segment", noted)
    return segmented


def evaluated(*arguments) -> int:
    return cli.main(["evaluate", "any.safetensors", *map(str, arguments), "--device", "cpu", "--threads", "1"])


def rows(folder: Path) -> dict[tuple[str, str], dict[str, str]]:
    """Rows of cases.csv by case and structure."""
    with (folder / "cases.csv").open(encoding="utf-8", newline="") as file:
        return {(row["case"], row["structure"]): row for row in csv.DictReader(file)}


def refused(capsys, *arguments) -> str:
    assert evaluated(*arguments) == 1
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("mkd: ") and printed.err.count("\n") == 1
    return printed.err


def test_a_folder_is_evaluated_into_tables_figure_and_segmentations(known_weights, data, tmp_path, capsys):
    out = tmp_path / "results" / "known"
    assert evaluated(data, "--out", out) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()} == {
        *(f"cases/ct_train_100{number}.json" for number in (1, 2, 3)),
        "mkd-evaluation.txt",
        "cases.csv",
        "evaluation.pdf",
        "evaluation.png",
        "segmentations/ct_train_1001.nii.gz",
        "segmentations/ct_train_1002.nii.gz",
        "summary.json",
        "summary.md",
    }

    table = rows(out)
    assert list(table) == [(f"ct_train_100{number}", key) for number in (1, 2, 3) for key in KEYS]
    assert tuple(table["ct_train_1001", "LV"]) == COLUMNS
    image, truth = known_volume(SIZE, SPACING)
    found = sitk.ReadImage(str(out / "segmentations" / "ct_train_1001.nii.gz"))
    assert found.GetSize() == image.GetSize() and np.allclose(found.GetOrigin(), image.GetOrigin(), atol=1e-4)
    for structure in STRUCTURES:
        exact, shifted = (table[case, structure.key] for case in ("ct_train_1001", "ct_train_1002"))
        assert float(exact["dice"]) == pytest.approx(dice(found, truth, structure.label), abs=1e-5)
        assert float(exact["dice"]) > 0.9 > float(shifted["dice"])
        assert float(exact["hd95_mm"]) <= 4.0 <= float(shifted["hd95_mm"])
        assert float(exact["truth_ml"]) == pytest.approx(
            np.count_nonzero(sitk.GetArrayViewFromImage(truth) == structure.label) * 0.064
        )
        assert float(exact["difference_ml"]) == pytest.approx(
            float(exact["volume_ml"]) - float(exact["truth_ml"]), abs=1e-3
        )

    for case in ("ct_train_1001", "ct_train_1002"):
        assert f"{case:<20} Dice {np.mean([float(table[case, key]['dice']) for key in KEYS]):.3f}" in printed.out
    assert f"ct_train_1003        {NO_HEART}" in printed.out
    assert "| CT, n = 3 | LV | RV | LA | RA | Myo | AA | PA | mean |" in printed.out
    assert str(out / "evaluation.png") in printed.out


def test_a_case_without_a_heart_counts_with_dice_zero_and_its_reason(known_weights, data, tmp_path):
    out = tmp_path / "out"
    assert evaluated(data, "--out", out, "--no-figure", "--quiet") == 0
    table = rows(out)
    for key in KEYS:
        row = table["ct_train_1003", key]
        assert (row["dice"], row["hd95_mm"], row["assd_mm"], row["volume_ml"], row["difference_ml"]) == (
            "0",
            "",
            "",
            "",
            "",
        )
        assert row["failure"].startswith(NO_HEART) and float(row["truth_ml"]) > 0
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))["modalities"]["CT"]
    assert summary["cases"] == 3 and list(summary["failures"]) == ["ct_train_1003"]
    assert summary["failures"]["ct_train_1003"].startswith(NO_HEART)
    for key in KEYS:
        values = [float(table[f"ct_train_100{number}", key]["dice"]) for number in (1, 2, 3)]
        found = summary["structures"][key]
        assert found["dice"]["mean"] == pytest.approx(np.mean(values), abs=1e-5)
        assert found["dice"]["sd"] == pytest.approx(np.std(values, ddof=1), abs=1e-5)
        assert (found["dice"]["count"], found["dice"]["missing"]) == (3, 0)
        assert (found["hd95_mm"]["count"], found["hd95_mm"]["missing"], found["volume_ml"]["missing"]) == (2, 1, 1)
    text = (out / "summary.md").read_text(encoding="utf-8")
    assert f"- Not segmented: ct_train_1003. {NO_HEART}" in text
    assert "- No distances: LV in 1, RV in 1, LA in 1, RA in 1, Myo in 1, AA in 1, PA in 1 of 3 cases." in text


def test_the_table_for_a_paper_shows_the_figures_of_the_cases(known_weights, data, tmp_path):
    out = tmp_path / "out"
    assert evaluated(data, "--out", out, "--limit", 2, "--no-figure") == 0
    table, text = rows(out), (out / "summary.md").read_text(encoding="utf-8").replace("−", "-")
    lines = {
        cells[1]: cells[2:-1]
        for line in text.splitlines()
        if line.startswith("|")
        for cells in [[cell.strip() for cell in line.split("|")]]
    }
    for number, key in enumerate(KEYS):
        first, second = (table[f"ct_train_100{number}", key] for number in (1, 2))
        values = [float(first["dice"]), float(second["dice"])]
        assert lines["Dice"][number] == f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"
        differences = np.array([float(first["difference_ml"]), float(second["difference_ml"])])
        assert float(lines["Volume bias (ml)"][number]) == pytest.approx(differences.mean(), abs=0.051)
        lower, upper = map(float, lines["95 % limits (ml)"][number].split(" to "))
        assert (upper - lower) / 2 == pytest.approx(1.96 * differences.std(ddof=1), abs=0.11)
    means = [np.mean([float(table[f"ct_train_100{number}", key]["dice"]) for key in KEYS]) for number in (1, 2)]
    assert lines["Dice"][-1] == f"{np.mean(means):.3f} ± {np.std(means, ddof=1):.3f}"
    assert "0" * 64 in text and "Not segmented" not in text and "No distances" not in text


def test_a_single_case_has_no_spread(known_weights, data, tmp_path):
    assert evaluated(data, "--out", tmp_path / "out", "--limit", 1) == 0
    text = (tmp_path / "out" / "summary.md").read_text(encoding="utf-8")
    assert "±" not in text.split("\n- ")[0] and "| 95 % limits (ml) | – |" in text


def test_a_run_that_was_stopped_goes_on_where_it_was(known_weights, data, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    noted, calls = run.segment, []

    def interrupted(*arguments, **options):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return noted(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(run, "segment", interrupted)
        assert evaluated(data, "--out", out, "--no-figure") == 130
    assert sorted(path.name for path in out.rglob("*.json")) == ["ct_train_1001.json"]
    capsys.readouterr()
    del known_weights[:]
    assert evaluated(data, "--out", out, "--no-figure") == 0
    printed = capsys.readouterr().out
    assert (
        len(known_weights) == 2 and "1 of 3 cases were finished before." in printed and "ct_train_1001  " not in printed
    )
    first = rows(out)

    del known_weights[:]
    assert evaluated(data, "--out", out, "--no-figure") == 0
    assert known_weights == [] and rows(out) == first
    assert evaluated(data, "--out", tmp_path / "other", "--quiet", "--no-figure") == 0
    for key, row in rows(tmp_path / "other").items():
        assert {name: value for name, value in row.items() if name != "seconds"} == {
            name: value for name, value in first[key].items() if name != "seconds"
        }


def test_other_weights_options_or_files_are_evaluated_anew(known_weights, data, tmp_path, monkeypatch):
    out = tmp_path / "out"
    assert evaluated(data, "--out", out, "--limit", 1, "--no-figure") == 0

    def count(*more) -> int:
        del known_weights[:]
        assert evaluated(data, "--out", out, "--limit", 1, "--no-figure", *more) == 0
        return len(known_weights)

    assert count() == 0
    assert count("--alignment", "none") == 1
    assert count("--alignment", "none") == 0
    (out / "segmentations" / "ct_train_1001.nii.gz").unlink()
    assert count("--alignment", "none") == 1
    write_case(data, "ct_train_1001", shift=2)
    assert count("--alignment", "none") == 1
    (out / "cases" / "ct_train_1001.json").write_text("{half a resu")
    assert count("--alignment", "none") == 1
    other = KnownBundle()
    object.__setattr__(other, "sha256", "1" * 64)
    monkeypatch.setattr("mkd_core.io.bundle.load_bundle", lambda path: other)
    assert count("--alignment", "none") == 1


def test_more_threads_need_no_new_run(data, tmp_path):
    cases = find_cases(data)[:1]
    for threads, kept in ((1, 0), (2, 1)):
        found = run.evaluate(
            KnownBundle(), cases, tmp_path / "out", options=SegmentationOptions(device="cpu", threads=threads)
        )
        assert found.kept == kept


def test_a_structure_that_the_truth_lacks_is_counted_not_dropped(known_weights, tmp_path):
    for number, without in ((1, (3,)), (2, ())):
        write_case(tmp_path / "data", f"ct_train_100{number}", without=without)
    assert evaluated(tmp_path / "data", "--out", tmp_path / "out", "--no-figure") == 0
    row = rows(tmp_path / "out")["ct_train_1001", "LA"]
    assert (row["dice"], row["hd95_mm"], row["truth_ml"]) == ("0", "", "0") and float(row["volume_ml"]) > 10
    text = (tmp_path / "out" / "summary.md").read_text(encoding="utf-8")
    assert "- Not labelled in the truth: LA in 1 of 2 cases." in text and "- No distances: LA in 1 of 2 cases." in text


def test_modality_and_split_choose_cases_and_modalities_are_summed_up_apart(known_weights, tmp_path):
    write_case(tmp_path / "data", "ct_a")
    write_case(tmp_path / "data", "mr_b", shift=1)
    table = tmp_path / "data" / "cases.csv"
    table.write_text(
        "image,label,modality,split\nct_a_image.nii.gz,ct_a_label.nii.gz,CT,train\nmr_b_image.nii.gz,mr_b_label.nii.gz,MR,test\n"
    )
    assert evaluated(table, "--out", tmp_path / "both") == 0
    assert sitk.ReadImage(str(tmp_path / "both" / "evaluation.png")).GetWidth() == 3600  # a block for each
    assert list(json.loads((tmp_path / "both" / "summary.json").read_text(encoding="utf-8"))["modalities"]) == [
        "CT",
        "MR",
    ]
    for arguments, expected in ((["--modality", "CT"], {"ct_a"}), (["--split", "Test"], {"mr_b"})):
        assert evaluated(table, "--out", tmp_path / "some", "--no-figure", *arguments) == 0
        assert {case for case, _ in rows(tmp_path / "some")} == expected


def test_what_cannot_be_evaluated_is_refused_before_anything_is_segmented_or_written(
    known_weights, data, tmp_path, capsys, monkeypatch
):
    def said(*arguments):
        return refused(capsys, *arguments, "--no-figure")  # it needs matplotlib, which is not everywhere

    out = tmp_path / "out"
    assert "There is no folder or file" in said(tmp_path / "none", "--out", out)
    assert "None of the 3 cases has modality MR" in said(data, "--out", out, "--modality", "MR")
    assert "None of the 3 cases has split “test”" in said(data, "--out", out, "--split", "test")
    assert "0 is not a number of cases" in said(data, "--out", out, "--limit", 0)
    assert "“translate” is not an alignment for CT volumes" in said(data, "--out", out, "--alignment", "translate")
    assert "is a file where a folder" in said(data, "--out", data / "ct_train_1001_label.nii.gz")
    assert "is a file where a folder" in said(data, "--out", data / "ct_train_1001_label.nii.gz" / "deeper")
    (data / "ct_train_1003_label.nii.gz").write_bytes((data / "ct_train_1003_label.nii.gz").read_bytes()[:-40])
    assert "“ct_train_1003_label.nii.gz” is cut off" in said(data, "--out", out)
    assert known_weights == [] and not out.exists()


def test_without_matplotlib_the_command_says_what_to_install_before_the_work(
    known_weights, data, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    message = refused(capsys, data, "--out", tmp_path / "out")
    assert "matplotlib" in message and "pip install matplotlib" in message and "--no-figure" in message
    assert known_weights == []
    assert evaluated(data, "--out", tmp_path / "out", "--no-figure", "--limit", 1) == 0


def test_a_bundle_file_is_evaluated_by_the_command_as_it_is(tiny_bundle_path, data, tmp_path, capsys):
    arguments = [str(data), "--out", str(tmp_path / "out"), "--limit", "1", "--device", "cpu"]
    assert (
        cli.main(["evaluate", str(tiny_bundle_path), *arguments]) == 0
    )  # random weights: whatever comes out is measured
    assert "# Evaluation of tiny 0.0.1" in (tmp_path / "out" / "summary.md").read_text(encoding="utf-8")
    assert cli.main(["evaluate", str(tmp_path / "none.safetensors"), *arguments]) == 1
    assert "“none.safetensors”: There is no such file." in capsys.readouterr().err


def test_progress_rises_and_tells_the_time_left(data, tmp_path):
    told = []
    run.evaluate(
        KnownBundle(),
        find_cases(data),
        tmp_path / "out",
        options=SegmentationOptions(device="cpu"),
        progress=lambda stage, fraction, message: told.append((fraction, message)),
    )
    fractions = [fraction for fraction, _ in told]
    assert fractions == sorted(fractions) and fractions[0] == 0.0 and 0.66 < fractions[-1] <= 1.0
    assert told[0][1] == "Checking volume 1 of 3"
    first = [message for _, message in told if message.startswith("ct_train_1001 (1 of 3)")]
    second = [message for _, message in told if message.startswith("ct_train_1002 (2 of 3)")]
    assert [message for message in first if "Segmenting" in message] and not [
        message for message in first if "Segmenting" in message and " left" in message
    ]
    assert second and all(message.endswith(" left") for message in second)


def test_time_left_is_told_in_words(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(run.time, "monotonic", lambda: now[0])
    clock = run._RemainingTime(10)
    for seconds, done, expected in (
        (50, 0.05, ""),
        (4, 0.1, "36 s left"),
        (60, 0.1, "9 min left"),
        (1200, 0.1, "3 h 0 min left"),
    ):
        now[0] = seconds
        assert clock.left(done) == expected


def test_a_run_can_be_cancelled_and_keeps_what_is_finished(data, tmp_path):
    finished = []
    with pytest.raises(Cancelled):
        run.evaluate(
            KnownBundle(),
            find_cases(data),
            tmp_path / "out",
            options=SegmentationOptions(device="cpu"),
            finished=finished.append,
            cancelled=lambda: bool(finished),
        )
    assert [path.name for path in (tmp_path / "out" / "cases").iterdir()] == ["ct_train_1001.json"]


def test_results_that_cannot_be_written_are_said_so(data, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "cases").write_text("in the way")
    with pytest.raises(InputError, match="cannot be written"):
        run.evaluate(KnownBundle(), find_cases(data)[:1], tmp_path / "out", options=SegmentationOptions(device="cpu"))


def result_with_dice(name: str, value: float | None, case) -> CaseResult:
    measured = StructureMeasures(value, 1.0 if value else None, 1.0 if value else None, 10.0, 10.0)
    return CaseResult(case.__class__(name, case.image, case.label, case.modality), dict.fromkeys(KEYS, measured))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.9, 0.7, 0.8, 0.1], ["Best a", "Median c", "Worst d"]),
        ([0.2, 0.9, 0.5], ["Best b", "Median c", "Worst a"]),
        ([0.5, 0.6], ["Best b", "Worst a"]),
        ([0.5], ["Only case a"]),
        ([None], []),
        ([0.5, None], ["Only case a"]),
    ],
)
def test_best_median_and_worst_case_are_shown(data, values, expected):
    case = find_cases(data)[0]
    shown = exemplary_cases([result_with_dice(name, value, case) for name, value in zip("abcdef", values)])
    assert [f"{word} {result.case.name}" for word, result in shown] == expected


def test_a_mean_over_structures_leaves_out_what_is_not_defined_and_counts_it(data):
    case = find_cases(data)[0]
    result = result_with_dice("a", 0.8, case)
    result.structures["PA"] = StructureMeasures(0.1, None, None, 0.0, 5.0)
    (summary,) = summarise([result])
    assert summary.mean["dice"].mean == pytest.approx((6 * 0.8 + 0.1) / 7)
    assert summary.mean["hd95_mm"].mean == pytest.approx(1.0)
    assert (summary.mean["hd95_mm"].missing, summary.structures["PA"].hd95_mm.missing) == (1, 1)


def test_a_folder_with_a_users_table_of_the_same_name_is_refused_and_the_table_stays(
    known_weights, data, tmp_path, capsys
):
    """As with the table of cases and “--out .”."""
    table = data / "cases.csv"
    table.write_text("image,label,modality\nct_train_1001_image.nii.gz,ct_train_1001_label.nii.gz,CT\n")
    before = table.read_bytes()
    for more in ((), ("--overwrite",)):
        assert "a file that is read for it" in refused(capsys, table, "--out", data, "--no-figure", *more)
    assert "“cases.csv” exists already" in refused(capsys, data / "..", "--out", data, "--no-figure")
    assert table.read_bytes() == before and known_weights == []
    assert evaluated(data, "--out", data, "--limit", 1, "--no-figure", "--overwrite") == 0
    assert table.read_bytes() != before


def test_an_evaluation_replaces_its_own_results_but_not_an_image_that_is_named_like_one(known_weights, data, tmp_path):
    out = tmp_path / "out"
    for _ in range(2):
        assert evaluated(data, "--out", out, "--limit", 1, "--no-figure") == 0
    (out / "cases.csv").write_text("opened and saved by a spreadsheet")
    assert evaluated(data, "--out", out, "--limit", 1, "--no-figure") == 0
    assert rows(out)
    image = out / "segmentations" / "ct_train_1001.nii.gz"
    table = tmp_path / "again.csv"
    table.write_text(f"image,label,modality\n{image},{image},CT\n")
    before = image.read_bytes()
    assert evaluated(table, "--out", out, "--no-figure") == 1
    assert image.read_bytes() == before


def test_structures_that_a_case_does_not_label_are_left_out_of_its_scores(known_weights, tmp_path):
    unlabelled = [structure.label for structure in STRUCTURES if structure.key not in ("LV", "Myo")]
    write_case(tmp_path / "data", "ct_train_1001")
    write_case(tmp_path / "data", "ct_train_1002", without=tuple(unlabelled))
    table = tmp_path / "cases.csv"
    table.write_text(
        "image,label,modality,structures\n"
        "data/ct_train_1001_image.nii.gz,data/ct_train_1001_label.nii.gz,CT,\n"
        "data/ct_train_1002_image.nii.gz,data/ct_train_1002_label.nii.gz,CT,LV Myo\n"
    )
    assert evaluated(table, "--out", tmp_path / "out") == 0
    found = rows(tmp_path / "out")
    assert float(found["ct_train_1002", "LV"]["dice"]) > 0.98
    assert found["ct_train_1002", "RV"]["dice"] == found["ct_train_1002", "RV"]["truth_ml"] == ""
    assert found["ct_train_1001", "RV"]["dice"] != ""
    summary = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))["modalities"]["CT"]
    assert summary["structures"]["RV"]["dice"]["count"] == 1 and summary["structures"]["RV"]["dice"]["missing"] == 0
    assert summary["structures"]["RV"]["volume_ml"]["count"] == 1 and summary["structures"]["LV"]["dice"]["count"] == 2
    assert summary["mean"]["dice"]["mean"] > 0.98
