"""Ledgers of archives that never were: any number of studies with figures as a cohort has them."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from mkd_core.archive.identity import Pseudonyms
from mkd_core.archive.ledger import Found, Ledger, Outcome
from mkd_core.archive.study import doubt, result_folder, severity
from mkd_core.measure.messages import finding
from mkd_core.structures import STRUCTURES

#: Mean volumes of the seven structures, ml, and the standard deviation of their logarithms.
_MEAN_ML = {"LV": 130.0, "RV": 150.0, "LA": 85.0, "RA": 95.0, "Myo": 120.0, "AA": 65.0, "PA": 75.0}
_SPREAD = 0.2

_PSEUDONYMS = Pseudonyms(bytes(range(32)))

#: Share of studies that fail, and of volumes that are far from what hearts have.
_FAILED = 0.02
_FAR = 0.004

_BATCH = 20_000


def identifier(number: int) -> str:
    """Id of the study of a number."""
    return _PSEUDONYMS.of("series", f"1.2.826.{number}")


def indexed(numbers: Sequence[int]) -> Iterator[Found]:
    """Series of studies as an index finds them."""
    for number in numbers:
        names = [f"{slice_:04d}.dcm" for slice_ in range(20)]
        yield Found(
            identifier(number),
            _PSEUDONYMS.of("study", str(number)),
            _PSEUDONYMS.of("patient", str(number // 2)),
            f"/archive/{number // 1000:04d}",
            {"kind": "dicom", "series": {"uid": f"1.2.826.{number}", "folder": f"/archive/{number}", "names": names}},
            "CT",
        )


def outcome(number: int) -> Outcome:
    """What became of the study of a number; the same in every call."""
    random = np.random.default_rng(number)
    if random.random() < _FAILED:
        return Outcome(identifier(number), "failed", "no_heart", "No heart was found in the volume.")
    structures, warnings = {}, []
    for structure in STRUCTURES:
        volume = _MEAN_ML[structure.key] * float(np.exp(random.normal(0.0, _SPREAD)))
        agreement = float(np.clip(random.normal(0.945, 0.015), 0.0, 1.0))
        if random.random() < _FAR:
            volume, agreement = volume * 2.6, 0.71
            limits = {"smallest_ml": structure.plausible_ml[0], "largest_ml": structure.plausible_ml[1]}
            warnings.append(finding("too_large", structure=structure.key, **limits))
            warnings.append(finding("agreement_very_low", structure=structure.key, agreement=agreement, limit=0.75))
        figures = {"volume_ml": round(volume, 2), "mean_intensity": 310.0, "agreement": round(agreement, 4)}
        structures[structure.key] = figures if structure.is_blood else {**figures, "mass_g": round(volume * 1.05, 2)}
    if random.random() < 0.08:
        warnings.append(finding("touches_border", structure="PA"))
    summary = {
        "modality": "CT",
        "size": [512, 512, 300],
        "spacing_mm": [0.4, 0.4, 0.5],
        "structures": structures,
        "warnings": [one.to_dict() for one in warnings],
        "joint_agreement": min(figures["agreement"] for figures in structures.values()),
        "weights": "tiny 0.0.1",
        "version": "0.4.0",
    }
    return Outcome(
        identifier(number),
        "done",
        severity=severity(summary),
        doubt=doubt(summary),
        summary=summary,
        seconds=1.0 + number % 7,
    )


def fill(ledger: Ledger, count: int, kinds: int | None = None) -> None:
    """Index and finish so many studies; of so many kinds, to make up fewer, or all different."""
    owner = "nowhere|1|0.00|00"
    outcomes = [outcome(number) for number in range(kinds or count)]
    for first in range(0, count, _BATCH):
        numbers = range(first, min(first + _BATCH, count))
        ledger.add(indexed(numbers))
        ledger.claim(owner, len(numbers))
        ledger.commit(
            owner, [dataclasses.replace(outcomes[number % len(outcomes)], id=identifier(number)) for number in numbers]
        )


def give_pictures(ledger: Ledger, pictures: Sequence[Path]) -> None:
    """Give all finished studies one of some folders with thumbnail and picture."""
    for number, row in enumerate(ledger.rows(states=("done",))):
        folder = result_folder(ledger.folder, row["id"])
        folder.mkdir(parents=True, exist_ok=True)
        for file in pictures[number % len(pictures)].glob("*.webp"):
            shutil.copy(file, folder / file.name)
