"""The page for quality control by eye: one HTML file that needs nothing else, and the decisions that it saves.

Outliers are volumes whose modified z-score within the cohort exceeds 3.5 (Iglewicz and Hoaglin, "How to Detect and
Handle Outliers", 1993), on a logarithmic scale, because volumes are positive and skewed.
"""

from __future__ import annotations

import base64
import datetime
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from mkd_core.archive.ledger import DECISIONS, Ledger, Review
from mkd_core.archive.study import POINTS, result_folder
from mkd_core.errors import InputError
from mkd_core.measure.messages import describe
from mkd_core.protocol import Finding
from mkd_core.structures import BY_KEY

#: A page of more studies than this shows the most doubtful of them.
MOST_STUDIES = 50_000

#: Points of doubt of every outlier, beside those of :data:`mkd_core.archive.study.POINTS`.
OUTLIER_POINTS = 5.0

#: Modified z-scores beyond this are outliers, in cohorts of at least so many.
_FAR = 3.5
_FEWEST = 20

_FORMAT = "mkd archive review 1"
_LONGEST_NOTE = 2000
_LARGEST_REVIEW = 256 << 20

_PICTURES = {"small": "thumbnail.webp", "large": "picture.webp"}

#: Pictures in one element of the page: few elements, and none that is very long.
_BLOCK = 250

_PAGE = Path(__file__).parent / "page"


def write_report(ledger: Ledger, path: Path, *, pictures: str = "small", overwrite: bool = False) -> int:
    """Write the page.

    Args:
        ledger: of the run.
        path: of the page.
        pictures: those inside it: "small", "large" or "none".  Where the page lies in the folder of the run it shows
            the large ones beside it in any case.
        overwrite: whether a file that the run did not make may be replaced.

    Returns:
        How many studies it shows.

    Raises:
        InputError: it cannot be written.
    """
    rows = list(ledger.rows(states=("done", "failed")))
    structures = next((list(row["summary"]["structures"]) for row in rows if row["summary"]), [])
    outliers = _outliers(rows, structures)
    for row, bits in zip(rows, outliers):
        row["outliers"] = bits
        if row["doubt"] is not None:
            row["doubt"] += OUTLIER_POINTS * bits.bit_count()
    rows.sort(key=lambda row: (np.inf if row["doubt"] is None else -row["doubt"], row["number"]))
    total = len(rows)
    rows = rows[:MOST_STUDIES]
    data = _data(rows, structures) | {
        "run": ledger.get("run"),
        "format": _FORMAT,
        "facts": _facts(ledger, rows, total),
        "doubtText": (
            f"{POINTS['red']:g} for a red warning, {POINTS['amber']:g} for an amber one, {OUTLIER_POINTS:g} for an "
            f"outlier, up to {POINTS['disagreement']:g} for segmentors that differ"
        ),
        "hasLargePictures": pictures == "large",
    }
    before, between, after = _page()
    files = [_picture(ledger.folder, row, pictures) for row in rows]
    places = _places(files)
    data["pictures"] = places

    def write(draft: Path) -> None:
        with draft.open("w", encoding="utf-8") as file:
            file.write(before)
            file.write(_script_safe(json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)))
            file.write(between)
            _write_pictures(file, files, places)
            file.write(after)

    ledger.write_output(path, write, overwrite=overwrite)
    return len(rows)


def _page() -> tuple[str, str, str]:
    """The page before the data, between data and pictures, and after them."""
    html, style, script = ((_PAGE / name).read_text(encoding="utf-8") for name in ("page.html", "page.css", "page.js"))
    html = html.replace("/*STYLE*/", style).replace("/*SCRIPT*/", script)
    before, rest = html.split("/*DATA*/")
    between, after = rest.split("<!--PICTURES-->")
    return before, between, after


def _script_safe(text: str) -> str:
    """JSON that cannot end the element that it stands in."""
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _facts(ledger: Ledger, rows: Sequence[dict[str, Any]], total: int) -> str:
    counts = ledger.state_counts()
    weights = sorted({row["summary"]["weights"] for row in rows if row["summary"]})
    now = datetime.datetime.now(datetime.UTC)
    facts = [f"the most doubtful of {total:,}"] if total > len(rows) else []
    facts += [f"{counts['failed']:,} failed", f"{counts['aside']:,} series set aside"]
    if left := counts["waiting"] + counts["running"]:
        facts.append(f"{left:,} not yet segmented")
    return " · ".join([*facts, *(f"weights {one}" for one in weights), f"{now:%Y-%m-%d %H:%M} UTC"])


# ---- data ----


def _data(rows: Sequence[dict[str, Any]], structures: Sequence[str]) -> dict[str, Any]:
    """What the page shows of every study, in columns."""
    codes: dict[tuple[str, str, str | None], int] = {}
    texts: dict[str, int] = {}
    warnings = []
    for row in rows:
        found = [Finding.from_dict(values) for values in (row["summary"] or {}).get("warnings", ())]
        found.sort(key=lambda one: ("red", "amber", "info", "refusal").index(one.severity))
        warnings.append(
            [
                (
                    codes.setdefault((one.code, one.severity, one.structure), len(codes)),
                    texts.setdefault(describe(one), len(texts)),
                )
                for one in found
            ]
        )
    return {
        "structures": [_structure(key) for key in structures],
        "codes": [_code(*code) for code in codes],
        "texts": list(texts),
        "ids": [row["id"] for row in rows],
        "studies": [row["study"] for row in rows],
        "patients": [row["patient"] for row in rows],
        "states": [row["state"] for row in rows],
        "modalities": [(row["summary"] or row)["modality"] for row in rows],
        "grids": [_grid(row["summary"]) for row in rows],
        "reasons": [row["reason_text"] or "" for row in rows],
        "severities": [row["severity"] or "red" for row in rows],
        "doubts": [None if row["doubt"] is None else round(row["doubt"], 2) for row in rows],
        "warnings": warnings,
        "agreements": [(row["summary"] or {}).get("joint_agreement") for row in rows],
        "volumes": [_figures(rows, key, "volume_ml", 2) for key in structures],
        "masses": [_figures(rows, key, "mass_g", 1) for key in structures],
        "intensities": [_figures(rows, key, "mean_intensity", 1) for key in structures],
        "byStructure": [_figures(rows, key, "agreement", 3) for key in structures],
        "outliers": [row["outliers"] for row in rows],
        "decisions": [row["decision"] for row in rows],
        "notes": [row["note"] for row in rows],
        "decided": [row["decided"] for row in rows],
    }


def _structure(key: str) -> dict[str, Any]:
    structure = BY_KEY[key]
    return {
        "key": key,
        "name": structure.name,
        "abbreviation": structure.abbreviation,
        "colour": "#" + "".join(f"{part:02x}" for part in structure.color),
        "usual": [round(limit) for limit in structure.plausible_ml],
        "isBlood": structure.is_blood,
    }


def _code(name: str, severity: str, structure: str | None) -> dict[str, Any]:
    title = name.replace("_", " ")
    label = title if structure is None else f"{BY_KEY[structure].abbreviation} {title}"
    return {
        "name": name,
        "severity": severity,
        "title": title,
        "label": label,
        "structure": "" if structure is None else BY_KEY[structure].name,
    }


def _grid(summary: dict[str, Any] | None) -> str:
    if summary is None:
        return ""
    size = " × ".join(f"{side:g}" for side in summary["size"])
    return f"{size} voxels of {' × '.join(f'{step:.3g}' for step in summary['spacing_mm'])} mm"


def _figures(rows: Sequence[dict[str, Any]], key: str, name: str, digits: int) -> list[float | None]:
    found = ((row["summary"] or {}).get("structures", {}).get(key, {}).get(name) for row in rows)
    return [None if value is None else round(value, digits) for value in found]


def _outliers(rows: Sequence[dict[str, Any]], structures: Sequence[str]) -> list[int]:
    """For every row, bit s is set if the volume of structure s is an outlier among those of its modality."""
    bits = np.zeros(len(rows), np.int64)
    modalities = np.array([(row["summary"] or row)["modality"] for row in rows])
    for number, key in enumerate(structures):
        volumes = np.array([volume or 0.0 for volume in _figures(rows, key, "volume_ml", 3)])
        for modality in np.unique(modalities):
            those = (volumes > 0) & (modalities == modality)
            bits[those] |= modified_z_scores_exceed(np.log(volumes[those])).astype(np.int64) << number
    return [int(one) for one in bits]


def modified_z_scores_exceed(values: np.ndarray) -> np.ndarray:
    """Which values ``(N,)`` are outliers; none of fewer than 20, and none where most values are equal."""
    if len(values) < _FEWEST:
        return np.zeros(len(values), bool)
    distances = values - np.median(values)
    spread = np.median(np.abs(distances))
    return np.abs(0.6745 * distances) > _FAR * spread if spread > 0 else np.zeros(len(values), bool)


# ---- pictures ----


def _picture(run: Path, row: dict[str, Any], kind: str) -> Path | None:
    if kind == "none" or row["state"] != "done":
        return None
    path = result_folder(run, row["id"]) / _PICTURES[kind]
    return path if path.is_file() else None


def _places(files: Sequence[Path | None]) -> list[tuple[int, int, int]]:
    """Block, start and length of every picture in base64; a length of 0 where there is none."""
    places = []
    start = 0
    for number, path in enumerate(files):
        start = 0 if number % _BLOCK == 0 else start
        length = 0 if path is None else 4 * -(-path.stat().st_size // 3)
        places.append((number // _BLOCK, start, length))
        start += length
    return places


def _write_pictures(file: IO[str], files: Sequence[Path | None], places: Sequence[tuple[int, int, int]]) -> None:
    for first in range(0, len(files), _BLOCK):
        file.write(f'<script type="text/plain" id="pictures-{first // _BLOCK}">')
        for path, (_, _, length) in zip(files[first : first + _BLOCK], places[first:]):
            if path is not None:
                text = base64.b64encode(path.read_bytes()).decode("ascii")
                file.write(text[:length].ljust(length, "="))  # a run may just have replaced it
        file.write("</script>\n")


# ---- decisions ----


def read_reviews(path: Path, run: str) -> Iterator[Review]:
    """The decisions in a file that the page has saved.

    Raises:
        InputError: it is no such file, or one of another run.
    """
    try:
        if path.stat().st_size > _LARGEST_REVIEW:
            raise ValueError("too large")
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != _FORMAT:
            raise ValueError("another format")
        reviews = [_review(one) for one in content["reviews"]]
        of_run = content["run"]
    except OSError as error:
        raise InputError(f"“{path}” cannot be read ({error.strerror or error}).") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"“{path.name}” is not a file of decisions that the page has saved.") from error
    if of_run != run:
        raise InputError(
            f"The decisions in “{path.name}” are about another run.", "Name the run that its page was made of."
        )
    yield from reviews


def _review(values: Any) -> Review:
    identifier, decision, note, when = (values[name] for name in ("id", "decision", "note", "when"))
    if not (isinstance(identifier, str) and (decision is None or decision in DECISIONS)):
        raise ValueError("no decision")
    if note is not None and not (isinstance(note, str) and len(note) <= _LONGEST_NOTE):
        raise ValueError("no note")
    moment = datetime.datetime.fromisoformat(when).astimezone(datetime.UTC)
    return Review(identifier, decision, note or "", moment.isoformat(timespec="milliseconds"))
