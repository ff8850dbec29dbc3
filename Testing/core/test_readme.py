"""What README and docs say of the project is so."""

from __future__ import annotations

import hashlib
import json
import re
import struct
import tomllib
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mkd_core.structures import DETAILED

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "mkd_core" / "weights" / "MODEL_CARD.md",
]
TEXTS = {path: path.read_text(encoding="utf-8") for path in PAGES}
README = TEXTS[ROOT / "README.md"]
PANEL = TEXTS[ROOT / "docs" / "panel.md"]
BENCHMARKS = TEXTS[ROOT / "docs" / "benchmarks.md"]
METHOD = TEXTS[ROOT / "docs" / "method.md"]
MODEL_CARD = TEXTS[ROOT / "mkd_core" / "weights" / "MODEL_CARD.md"]

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def results(name: str):
    return json.loads((ROOT / "Testing" / "benchmarks" / "results" / name).read_text(encoding="utf-8"))


def sources() -> str:
    """All product code with the pieces of wrapped string literals joined."""
    files = [path for folder in ("MKDSegmentation", "mkd_core") for path in sorted((ROOT / folder).rglob("*.py"))]
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    return re.sub(r'"\s*\n\s*f?"', "", text)


def rows(text: str, first: str) -> list[list[str]]:
    """Cells of the table rows whose first cell begins with a text."""
    lines = [line for line in text.splitlines() if line.startswith(f"| {first}")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def anchors(text: str) -> set[str]:
    """Names under which a page's headings can be linked, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# ---- texts and links ----


def test_every_message_under_troubleshooting_is_one_the_software_gives():
    section = PANEL.split("## Troubleshooting")[1].split("\n## ")[0]
    messages = re.findall(r"^\| `([^`]+)`", section, flags=re.MULTILINE)
    assert len(messages) >= 8
    code = sources()
    assert [message for message in messages if message not in code] == []


@every_page
def test_every_file_heading_and_picture_that_is_linked_is_there(page):
    text = TEXTS[page]
    broken = []
    for link in re.findall(r"\]\((?!https?://)([^)]+)\)", text) + re.findall(r'<img src="([^"]+)"', text):
        path, _, heading = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (heading and heading not in anchors(target.read_text(encoding="utf-8"))):
            broken.append(link)
    assert broken == []


@every_page
def test_every_page_of_the_docs_can_be_reached(page):
    if page.parent.name == "docs":
        assert any(f"{page.name}" in text for other, text in TEXTS.items() if other != page)


@every_page
def test_every_make_target_and_module_that_is_named_is_there(page):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"(?:`|^)make ([a-z-]+)", TEXTS[page], flags=re.MULTILINE))
    assert [target for target in targets if not re.search(rf"^{target}:", makefile, flags=re.MULTILINE)] == []
    modules = set(re.findall(r"python -m ((?:Testing|mkd_core)[\w.]*)", TEXTS[page]))
    places = {module: ROOT / Path(*module.split(".")) for module in modules}
    assert [m for m, p in places.items() if not (p.with_suffix(".py").exists() or (p / "__main__.py").exists())] == []


def test_a_newcomer_is_shown_the_two_commands_and_told_what_the_software_is_not_for():
    first_screen = README.split("\n## ")[0]
    assert "make demo" in first_screen and "make test" in first_screen and len(first_screen.splitlines()) < 30
    assert "Research use only. Not for clinical decisions." in first_screen


@pytest.mark.parametrize("path", ["Resources/MKDSegmentation.png"])
def test_the_icon_for_the_catalogue_has_128_pixels(path):
    header = (ROOT / path).read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", header[16:24]) == (128, 128)


# ---- examples ----


def test_the_settings_shown_for_a_training_run_are_settings():
    config = pytest.importorskip("mkd_core.training.config", exc_type=ImportError)
    [example] = re.findall(r"```toml\n(.*?)```", TEXTS[ROOT / "docs" / "training.md"], flags=re.DOTALL)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a name of an earlier version
        made = config.config_from(tomllib.loads(example))
    assert len(made.stages) == 2


def test_the_python_example_segments_a_volume(tmp_path, monkeypatch, capsys):
    pytest.importorskip("torch")
    import SimpleITK as sitk

    from mkd_core.cli import main
    from mkd_core.io.bundle import default_bundle_path

    if not default_bundle_path().exists():
        pytest.skip("there are no default weights")
    [example] = [code for code in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL) if "mkd_core" in code]
    monkeypatch.chdir(tmp_path)
    assert main(["synthesize", "ct.nii.gz", "truth.nii.gz", "--modality", "CT", "--seed", "1", "--spacing", "3"]) == 0
    capsys.readouterr()
    exec(compile(example, "README.md", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed if line.endswith(" ml")] == ["LV", "RV", "LA", "RA", "Myo", "AA", "PA"]
    found, truth = (sitk.GetArrayFromImage(sitk.ReadImage(name)) for name in ("heart.nii.gz", "truth.nii.gz"))
    assert found.shape == truth.shape and ((found > 0) & (truth > 0)).sum() > 0.7 * (truth > 0).sum()


# ---- figures ----


@pytest.mark.parametrize("text", [README, BENCHMARKS, MODEL_CARD], ids=["README", "benchmarks", "model card"])
@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_the_dice_that_are_shown_were_measured(text, modality):
    measured = results("default-bundle.json")[f"rendered {modality}"]
    blocks = {"": "ensemble", "S_real alone": "real", "S_syn alone": "synthetic"}
    start = text.index(f"| {measured['ensemble']['cases']} rendered {modality}")
    lines = text[start:].splitlines()[: 3 if text is MODEL_CARD else 1]
    for line in lines:
        name, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        figures = measured[blocks.get(name, "ensemble")]
        assert cells == [f"{figures[key]:.3f}" for key in ("LV", "RV", "LA", "RA", "Myo", "AA", "PA", "mean")]
    assert len(lines) == (3 if text is MODEL_CARD else 1)


def test_the_dice_in_detail_of_the_model_card_were_measured_with_the_weights_that_are_shipped():
    measured = results("detailed.json")
    weights = (ROOT / "mkd_core" / "weights" / "detailed.safetensors").read_bytes()
    assert hashlib.sha256(weights).hexdigest() == measured["weights"]["sha256"]
    for modality in ("CT", "MR"):
        figures = measured[f"rendered {modality}"]
        [row] = rows(MODEL_CARD, f"{figures['cases']} rendered {modality}, in detail")
        assert row[1:] == [f"{figures[key]:.3f}" for key in (*DETAILED, "mean")]
    [row] = rows(MODEL_CARD, "real CT, in detail")
    figures = measured["real CT"] | {"DAo": measured["real CT"]["aorta"], "CS": None}
    assert row[1:] == ["–" if figures[key] is None else f"{figures[key]:.3f}" for key in (*DETAILED, "mean")]
    assert f"adds {measured['CPU seconds added']:.1f} CPU seconds" in MODEL_CARD


def test_the_aims_of_the_model_card_were_measured():
    table = MODEL_CARD.split("| aim | | reached |")[1].split("\n\n")[0].splitlines()[2:]
    shown = {row[0]: row[2] for row in ([cell.strip() for cell in line.strip("|").split("|")] for line in table)}
    aims = results("default-bundle.json")["aims"]
    assert shown == {aim["what"]: f"{aim['reached']:.3f}" + ("" if aim["met"] else ", not met") for aim in aims}
    assert f"{sum(aim['met'] for aim in aims)} of the {len(aims)} aims" in BENCHMARKS


def test_what_is_said_of_real_scans_and_of_vessel_ends_was_measured():
    measured, page = results("default-bundle.json"), " ".join(BENCHMARKS.split())
    thorax, chest, beat = (measured[name] for name in ("real CT", "contrast CT", "beating heart"))
    shares = [f"{100 * thorax[key]:.1f} %" for key in ("inside", "cover", "ascending_aorta")]
    assert f"{shares[0]} of all labelled voxels lie within 3 mm" in page
    assert "{} of the heart mask is labelled, {} of the labelled ascending aorta".format(*shares[1:]) in page
    assert f"has a Dice of {thorax['pulmonary_artery']:.3f}" in page
    shares = [f"{100 * chest[key]:.1f} %" for key in ("inside", "cover", "bright", "ascending_aorta", "chambers")]
    assert "the same shares are {}, {} ({} of its bright voxels), {} and, for the chambers, {}".format(*shares) in page
    left, right, differ = (
        f"{100 * beat[key]:.0f} %" for key in ("LV ejection fraction", "RV ejection fraction", "stroke volumes differ")
    )
    assert f"ejection fractions of {left} and {right}, and stroke volumes that differ by {differ}" in page
    cut = [measured[f"rendered {modality}"]["vessels as MM-WHS cuts them"] for modality in ("CT", "MR")]
    told = [f"{one[key]:.3f}" for one in cut for key in ("AA", "PA")]
    assert "have {} and {} on the rendered CT, {} and {} on the MR".format(*told) in page


def ranged(figures: dict, name: str, unit: str, decimals: int) -> str:
    """A figure as it is shown, followed by the range of all runs, if there were several: "0.90 s (0.88 to 0.95 s)"."""
    shown = f"{figures[name]:.{decimals}f}{unit}"
    for measured, ends in figures.items():
        if measured.startswith(f"{name}, range"):
            low, high = (f"{end:.{decimals}f}" for end in ends)
            shown += f" ({low} to {high}{unit})"
    return shown


def test_the_click_that_is_shown_was_measured():
    measured = results("click.json")
    for which in ("first click", "second click"):
        figures = measured[which]
        [row] = rows(BENCHMARKS, which)
        assert row[1:] == [
            ranged(figures, "wall s", " s", 1),
            ranged(figures, "worker CPU s", " s", 1),
            f"{figures['worker peak MiB'] / 1024:.2f} GiB",
        ]
    longest = max(measured[which]["longest pause of the application ms"] for which in ("first click", "second click"))
    assert f"never busy for more than {longest / 1000:.2f} s" in BENCHMARKS


def test_the_speed_that_is_shown_was_measured():
    for case in ("heart", "thorax"):
        measured = results("speed.json")["cases"][case]
        ours, theirs = measured["ours"], measured["monai"]
        [row] = rows(BENCHMARKS, f"{case} CT")
        assert row[1:] == [
            ranged(ours, "CPU s", " s", 2),
            ranged(theirs, "CPU s", " s", 1),
            ranged(measured, "ratio of CPU seconds", "", 0),
            f"{ours['peak MiB'] / 1024:.2f} GiB",
            f"{theirs['peak MiB'] / 1024:.1f} GiB",
        ]
    heart = results("speed.json")["cases"]["heart"]
    ratio = ranged(heart, "ratio of CPU seconds", "", 0)
    claim = (
        f"{ranged(heart['ours'], 'CPU s', ' s', 2)} of CPU time and {heart['ours']['peak MiB'] / 1024:.2f} GiB "
        f"of memory on one core, {ratio} times less"
    )
    assert claim in " ".join(README.split())
    slower = results("speed-slower.json")["cases"]["heart"]
    seconds, ratio = f"{slower['ours']['CPU s']:.1f} s", f"{slower['ratio of CPU seconds']:.0f} times less"
    assert f"that were added since, {seconds}, {ratio}." in " ".join(README.split())
    page = " ".join(BENCHMARKS.split())
    assert f"the heart CT took {seconds}, {ratio} than MONAI's way" in page
    assert f"before it is segmented took {slower['ours']['stages CPU s']['check']:.2f} s of these" in page
    huge = results("speed-huge.json")
    assert f"takes {huge['CPU s']:.1f} s and {huge['peak GB']:.1f} GB" in " ".join(BENCHMARKS.split())


def test_what_grids_and_alignment_are_worth_was_measured():
    of_grids = results("resolution.json")["rows"]
    [at_2mm] = (row for row in of_grids if row["spacing mm"] == 2.0)
    names = ("mean", "reached, CT", "reached, MR", *(name for name in at_2mm if name.startswith("real CT")))
    table = BENCHMARKS.split("| grid (mm) |")[1].split("\n\n")[0].splitlines()[2:]
    shown = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    assert shown == [
        [
            f"{row['spacing mm']:g}",
            f"{row['CPU s'] / at_2mm['CPU s']:.1f}",
            *(f"{row[name]:.3f}" for name in names),
        ]
        for row in of_grids
    ]
    policies = results("alignment.json")["policies"]
    [dice] = {f"{policies[name]['mean Dice']:.3f}" for name in ("cycle", "none")}
    assert f"rendered CT ({dice} with and without it" in " ".join(BENCHMARKS.split())
    shipped = results("default-bundle.json")["bundle"]["sha256"]
    assert {results(f"{name}.json")["bundle"]["sha256"] for name in ("resolution", "alignment")} == {shipped}


@pytest.mark.parametrize(
    ("place", "file"),
    [
        (0, "scarce-labels-long.json"),
        (1, "scarce-labels-10000.json"),
        (2, "scarce-labels.json"),
        (3, "cine-lge.json"),
        (4, "cine-lge-cine.json"),
    ],
)
def test_the_tables_of_few_labels_were_measured(place, file):
    measured = results(file)
    found = {(row["row"], row["labelled"]): row for row in measured["rows"]}
    over = {(one["over"], one["labelled"]): one for one in measured["comparisons"]}
    table = BENCHMARKS.split("| trained |")[place + 1].split("\n\n")[0].splitlines()[2:]
    assert len(table) == len(found)
    for line in table:
        name, labelled, steps, *cells, distance, difference = [cell.strip() for cell in line.strip("|").split("|")]
        row = found[name, int(labelled)]
        means = [np.mean(row[kind]) for kind in ("S_real", "S_syn", "ensemble")]
        assert [float(cell) for cell in cells] == pytest.approx(means, abs=0.00051)
        assert int(steps) == row["steps"] and float(distance) == pytest.approx(row["HD95 (mm)"], abs=0.051)
        if (name, int(labelled)) in over:
            assert difference == points(over[name, int(labelled)])
        elif name != "MKD":  # a single pair of which people's figures are not known is not compared
            [pair] = row["pairs"]
            ours = found["MKD", int(labelled)]["ensemble"][pair]
            assert difference == f"{100 * (ours - row['ensemble'][0]):+.1f} (one pair)"


@pytest.mark.parametrize(
    ("head", "file", "seen"),
    [
        ("| learning curve, step |", "scarce-labels-long.json", "none"),
        ("| learning curve of the longer runs, step |", "scarce-labels-10000.json", "cycle"),
    ],
)
def test_the_learning_curves_that_are_shown_were_measured(head, file, seen):
    measured = results(file)
    assert measured["alignment at inference"]["kept"] == seen
    head, *_, table = BENCHMARKS.split(head)[1].split("\n\n")[0].partition("| --- | --- | --- | --- | --- |\n")
    steps = [int(cell) for cell in head.strip().strip("|").split("|")]
    shown = ("target only", "joint, norm per modality", "MKD")
    curves = {
        row["row"]: {one["step"]: one for one in row["curve"]}
        for row in measured["rows"]
        if row["labelled"] == 4 and row["row"] in shown
    }
    lines = table.splitlines()
    assert len(lines) == len(curves) + 2
    for line in lines:
        name, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        row, _, kind = name.rpartition(", ") if name.startswith("MKD") else (name, "", "ensemble")
        assert cells == [f"{dice_of(kind, curves[row][step], seen):.3f}" for step in steps]


def dice_of(kind, point, seen):
    """Of a point of a learning curve; as long as nothing is translated, volumes are seen as they are."""
    return next(point[name] for name in (f"{kind} {seen}", f"{kind} none", kind) if name in point)


def test_what_is_said_of_ten_thousand_steps_was_measured():
    measured = results("scarce-labels-10000.json")
    rows = {row["row"]: row for row in measured["rows"]}
    dice = {name: f"{np.mean(row['ensemble']):.3f}" for name, row in rows.items()}
    over = {one["over"]: f"{100 * one['mean']:.1f}" for one in measured["comparisons"]}
    method, ct, joint, two = "MKD", "target only", "joint, norm per modality", "target only, two networks"
    page, readme, method_page = (" ".join(text.split()) for text in (BENCHMARKS, README, METHOD))
    by_pair = {name: " and ".join(f"{one:.3f}" for one in row["ensemble"]) for name, row in rows.items()}
    told = f"ensemble is {over[ct]} points above CT alone**, and {over[joint]} above joint training, in both pairs"
    assert f"{told} ({by_pair[method]}; CT alone {by_pair[ct]}; joint training {by_pair[joint]})" in page
    against = f"({dice[method]} against {dice[ct]} and {dice[joint]}, two runs each)"
    assert f"lead is {over[ct]} and {over[joint]} points {against}, and {over[two]} over two networks" in readme
    assert f"The method then has {dice[method]}, CT alone {dice[ct]}." in method_page
    assert [len(rows[name]["pairs"]) for name in (method, ct, joint, two)] == [2, 2, 2, 2]
    assert f"S_real alone ({np.mean(rows[method]['S_real']):.3f})" in page
    assert f"it is {over[two]} points ahead (they have {by_pair[two]})" in page
    assert f"took {rows[method]['cpu_seconds'] / rows[ct]['cpu_seconds']:.1f} times the CPU time" in page
    half = next(one for one in rows[method]["curve"] if one["step"] == 5000)["ensemble cycle"]
    best = max(one["ensemble none"] for one in rows[ct]["curve"])
    assert (
        f"{100 * (half - best):.1f} points above the best of CT alone ({half:.3f} and {best:.3f}, first pair)" in page
    )
    kept = measured["alignment at inference"]["validation Dice"]
    told = "(ensemble {cycle:.3f}; {none:.3f} with the image alone, {mean:.3f} with the mean of both)"
    assert told.format(**kept) in page
    gain = f"{100 * (kept['cycle'] - kept['none']):.1f} points"
    assert f"validates {gain} better with the reconstruction" in page
    assert f"alignment at inference gains {gain} in validation" in method_page


def test_what_is_said_of_equal_computing_and_of_the_oracle_was_measured():
    rows = {row["row"]: row for row in results("scarce-labels-long.json")["rows"] if row["labelled"] == 4}
    equal, oracle = rows["target only, MKD's computing"], rows["oracle"]
    assert equal["pairs"] == rows["MKD"]["pairs"] == oracle["pairs"] == list(range(5))
    theirs, ours = (f"{np.mean(rows[name]['ensemble']):.3f}" for name in (equal["row"], "MKD"))
    page = " ".join(BENCHMARKS.split())
    assert f"CT alone reaches {theirs} in the mean of the five pairs, the method {ours}: level." in page
    [over] = [one for one in results("scarce-labels-long.json")["comparisons"] if one["over"] == equal["row"]]
    assert over["low"] < 0 < over["high"]
    told = f"reaches {theirs} in the mean of the five pairs, where the method has {ours} after 2000"
    assert told in " ".join(METHOD.split())
    assert f"reaches {np.mean(oracle['ensemble']):.3f} in {len(oracle['pairs'])} pairs" in page


def test_what_is_said_of_the_parts_was_measured():
    dice = {
        row["row"]: row["ensemble"][0] for row in results("scarce-labels-long.json")["rows"] if row["labelled"] == 4
    }
    page = " ".join(METHOD.split())
    parts = [f"{dice[f'MKD without {part}']:.3f}" for part in ("IAM", "s->r", "r->s")]
    told = "the ensemble has {} after 2000 steps, without s->r {}, without r->s {}, with all {:.3f}"
    assert told.format(*parts, dice["MKD"]) in page
    two = "over two joint networks ({:.3f} and {:.3f} after 2000 steps, one pair)"
    assert two.format(dice["joint, norm per modality, two networks"], dice["MKD"]) in page
    assert f"the ensemble has {min(parts)} to {max(parts)}, with all {dice['MKD']:.3f}" in " ".join(BENCHMARKS.split())


def test_what_is_said_of_real_scans_was_measured():
    measured = results("cine-lge.json")
    page, readme = " ".join(BENCHMARKS.split()), " ".join(README.split())
    method = " ".join(METHOD.split())
    assert measured["alignment at inference"]["kept"] == "none"
    by_row = {(row["row"], row["labelled"]): row for row in measured["rows"]}
    over = {(one["over"], one["labelled"]): one for one in measured["comparisons"]}
    for labelled in (5, 2):
        ours, alone, joint = (by_row[name, labelled] for name in ("MKD", "target only", "joint, norm per modality"))
        assert all(more > less for more, less in zip(ours["ensemble"], alone["ensemble"])) and len(ours["pairs"]) == 5
        assert over["target only", labelled]["low"] > 0
        assert joint["cpu_seconds"] / ours["cpu_seconds"] == pytest.approx(2 / 5, abs=0.02)
    assert over["joint, norm per modality", 2]["high"] < 0 < over["joint, norm per modality", 5]["high"]
    parts = by_row["MKD without IAM", 5]
    assert parts["pairs"] == [0, 1]
    told = "without it the ensemble has {:.3f} in two pairs, with it {:.3f}"
    assert told.format(np.mean(parts["ensemble"]), np.mean(by_row["MKD", 5]["ensemble"][:2])) in page
    gains = [over["target only", labelled] for labelled in (5, 2)]
    lags = [over["joint, norm per modality", labelled] for labelled in (5, 2)]
    five, two = (points(one) for one in gains)
    behind_five, behind_two = (points(one) for one in lags)
    assert f"| late enhancement alone | {five} | {two} |" in method
    assert f"| joint training, statistics for each modality | {behind_five} | {behind_two} |" in method
    told = "{:.1f} points with 5 labelled people and {:.1f} with 2 above late enhancement alone"
    assert told.format(*(100 * one["mean"] for one in gains)) in readme


def test_what_is_said_of_real_scans_the_other_way_round_was_measured():
    measured = results("cine-lge-cine.json")
    page, readme, method = (" ".join(text.split()) for text in (BENCHMARKS, README, METHOD))
    seen = measured["alignment at inference"]
    told = "(ensemble {cycle:.3f}; {none:.3f} with the stacks as they are, {mean:.3f} with the mean of both)"
    assert seen["kept"] == "cycle" and told.format(**seen["validation Dice"]) in page
    dice = {row["row"]: row["ensemble"] for row in measured["rows"]}
    assert {len(one) for one in dice.values()} == {5}
    over = {one["over"]: one for one in measured["comparisons"]}
    alone, joint = over["target only"], over["joint, norm per modality"]
    assert all(ours > theirs for ours, theirs in zip(dice["MKD"], dice["target only"])) and alone["low"] > 0
    assert joint["low"] < 0 < joint["high"]
    wins = sum(ours > theirs for ours, theirs in zip(dice["MKD"], dice["joint, norm per modality"]))
    told = f"**Joint training** is {-100 * joint['mean']:.1f} points ahead, which may be chance ({wins} of the five"
    assert f"The method is {100 * alone['mean']:.1f} points above **cine alone**" in page and told in page
    assert f"the ensemble is {points(alone)} points above cine alone, and {points(joint)} from joint training" in method
    assert f"and {100 * alone['mean']:.1f} above cine alone the other way round" in readme


def test_what_is_said_of_longer_runs_on_real_scans_was_measured():
    rows = {row["row"]: row for row in results("cine-lge-long.json")["rows"]}
    told = [f"{rows[row]['ensemble'][0]:.3f}" for row in ("target only", "joint, norm per modality", "MKD")]
    told += [f"{rows['MKD'][kind][0]:.3f}" for kind in ("S_real", "S_syn")]
    sentence = (
        "late enhancement alone reached {}, joint training {}, and the method's ensemble {} (S_real {}, S_syn {})"
    )
    assert sentence.format(*told) in " ".join(BENCHMARKS.split())


#: Rows of the table in docs/method.md.
SHOWN = {
    "joint training, shared normalisation": "joint",
    "joint training, statistics for each modality": "joint, norm per modality",
    "CT alone": "target only",
    "two networks of CT alone": "target only, two networks",
    "CT alone with the method's computing": "target only, MKD's computing",
}


@pytest.mark.parametrize(
    ("head", "file"),
    [
        ("| the ensemble minus, 2000 steps |", "scarce-labels-long.json"),
        ("| the ensemble minus, 10,000 steps |", "scarce-labels-10000.json"),
        ("| the ensemble minus |", "scarce-labels.json"),
    ],
)
def test_what_was_shown_of_the_method_was_measured(head, file):
    over = {one["over"]: one for one in results(file)["comparisons"] if one["labelled"] == 4}
    table = TEXTS[ROOT / "docs" / "method.md"].split(head)[1].split("\n\n")[0].splitlines()[2:]
    cells = dict([cell.strip() for cell in line.strip("|").split("|")] for line in table)
    assert cells == {name: points(over[row]) for name, row in SHOWN.items() if row in over}


def points(one):
    """A difference with its interval."""
    mean, low, high = (100 * one[key] for key in ("mean", "low", "high"))
    return f"{mean:+.1f} ({low:+.1f} to {high:+.1f})"


def test_the_table_of_variants_was_measured():
    found = {one["variant"]: one["scarce-labels"] + one["cine-lge"] for one in results("method-variants.json")}
    table = BENCHMARKS.split("| variant |")[1].split("\n\n")[0].splitlines()[2:]
    assert {line.split("|")[1].strip() for line in table} == set(found)
    for line in table:
        name, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert [float(value) for cell in cells for value in cell.split(", ")] == pytest.approx(found[name], abs=0.00051)


def test_the_number_of_fault_injection_trials_was_counted():
    measured = results("faults.json")
    counts, text = measured["counts"]["all"], " ".join(README.split())
    kinds = f"{counts['kinds']} scenarios, {counts['survived']} of them handled; the other one is a voxel size"
    assert counts["lost"] == 1 and f"{counts['tried']:,} fault-injection trials in {kinds}" in text
    [lost] = [
        one["name"] for section in measured["sections"].values() for one in section["outcomes"] if not one["survived"]
    ]
    assert lost.startswith("voxel size, one axis by a quarter")
    found, groups = results("doubts.json")["all"], results("doubts.json")["volumes"].values()
    name = "voxel size, one axis"
    one = sum(tallies[name]["wrong"] - tallies[name]["warned"] for tallies in groups if name in tallies)
    silent = found["wrong"] - found["warned"]
    assert f"{silent} of {found['wrong']:,} without a warning: {one} because one side of the voxels was said" in text


def test_distorted_volumes_were_counted():
    page, groups = " ".join(TEXTS[ROOT / "docs" / "benchmarks.md"].split()), {}
    for found in results("doubts.json")["volumes"].values():
        for name, tally in found.items():
            group = groups.setdefault(name, Counter())
            group.update(wrong=tally["wrong"], silent=tally["wrong"] - tally["warned"])
            group.update(good=tally["good"], flagged=tally["flagged"])
    told = results("doubts.json")["all"]
    wrong, silent = told["wrong"], told["wrong"] - told["warned"]
    one, half, quarter, size, plain = (
        groups[name]
        for name in (
            "voxel size, one axis",
            "slice distance",
            "voxel size, one axis by a quarter",
            "voxel size, all by a quarter",
            "undistorted",
        )
    )
    assert len(results("doubts.json")["volumes"]) == 2 * (6 + 24)
    assert f"{wrong:,} structures came out wrong, {silent} of them without a warning: {one['silent']} of" in page
    assert f"{one['silent']} of {one['wrong']} where one side" in page
    assert "and {} of the other {:,}.".format(silent - one["silent"], wrong - one["wrong"]) in page
    assert half["silent"] == 0
    assert f"Of the {half['wrong']} where every second slice of one half was missing all have one." in page
    assert f"Of {plain['good']} good structures of undistorted volumes {plain['flagged']} were flagged" in page
    assert f"nothing was said of {quarter['silent']} of {quarter['wrong']};" in page
    assert f"where all were, of {size['silent']} of {size['wrong']}" in page


def test_refused_hearts_and_wrong_orientations_were_counted():
    page = " ".join(TEXTS[ROOT / "docs" / "benchmarks.md"].split())
    found = results("heart-found.json")["summary"]
    assert f"Of the {found['with a heart']}, none is refused; of the {found['without a heart']}, none is" in page
    assert found["false refusals"] == found["false acceptances"] == 0
    unseen = [(one["name"].split("/")[0], one["segmented"]) for one in results("heart-found-unseen.json")["volumes"]]
    tried, refused = Counter(kind for kind, _ in unseen), Counter(kind for kind, is_found in unseen if not is_found)
    assert f"Of {tried['cine']} cine stacks {refused['cine']} is refused" in page
    assert f"of {tried['lge']} late-enhancement stacks {refused['lge']} (" in page
    turned = results("orientations.json")["volumes"].values()
    assert f"{sum(one['wrong'] for one in turned)} structures came out wrong, none without a warning" in page
    of_rendered = [one for name, one in results("orientations.json")["volumes"].items() if name.startswith("rendered")]
    refused, told = (sum(one[what] for one in of_rendered) for what in ("refused", "told"))
    assert len(of_rendered) == 3 and f"two in CT and one in MR, {refused} and {told}." in page
    assert all(one["tried"] == 48 for one in turned)
    assert not any(one["silent"] or one["untold"] or one["false_alarm"] for one in turned)


def test_what_the_shape_of_a_heart_tells_of_voxel_sizes_was_measured():
    page = TEXTS[ROOT / "docs" / "benchmarks.md"]
    table = ROOT / "mkd_core" / "measure" / "heart_stretch.json"
    found = json.loads(table.read_text(encoding="utf-8"))["doubted_test_hearts"]
    assert found.pop("1.0") == 0 and "As they are, none is doubted" in page
    for factor, shares in found.items():
        cells = [f"{100 * shares[name]:.0f} %" for name in ("height", "depth", "width")]
        assert f"| {factor} | {' | '.join(cells)} |" in page


def test_the_costs_of_an_archive_were_measured():
    measured, page = results("archive.json"), TEXTS[ROOT / "docs" / "archive.md"]
    archive, ledger, alone = (measured[name] for name in ("archive", "ledger, CPU s", "pipeline alone"))
    assert f"| two workers, {archive['studies']} small" in page and f"| a ledger of {ledger['rows']:,} series" in page
    [study] = rows(page, "CPU time of a study")
    assert re.findall(r"[0-9.]+ s", study[1]) == [
        f"{one:.2f} s" for one in (archive["CPU s a study"], alone["CPU s a study"], alone["with report and pictures"])
    ]
    [added] = rows(page, "so the archive adds")
    over = [archive["CPU s a study"] / alone[name] - 1 for name in ("CPU s a study", "with report and pictures")]
    assert re.findall(r"-?[0-9]+ %", added[1]) == [f"{100 * one:.0f} %" for one in over]
    [memory] = rows(page, "memory of a worker")
    early, late = (archive[f"MiB of a worker, {part} quarter"] for part in ("second", "last"))
    assert memory[1] == f"{early:.0f} MiB in the second quarter of the run, {late:.0f} MiB in the last"
    killed = measured["killed"]
    assert (
        f"After {sum(killed.values())} kills ({killed['worker']} workers, {killed['client']} clients, "
        f"{killed['everything']} times everything) the {measured['equal rows']} rows of the table and all "
        f"{measured['equal files']} files were equal"
    ) in " ".join(page.split())
    for first, name, digits in (
        ("index without", "index", 1),
        ("lease and", "claim and commit", 1),
        ("status", "status", 2),
        ("export as CSV", "export CSV", 1),
        ("export as Parquet", "export Parquet", 1),
    ):
        [row] = rows(page, first)
        assert row[1] == f"{ledger[name]:.{digits}f} s"
