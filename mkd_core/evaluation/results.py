"""Results of single cases, kept as files so that a run that was stopped can go on."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from mkd_core.errors import InputError, ProtocolError
from mkd_core.evaluation.cases import Case
from mkd_core.evaluation.measures import StructureMeasures
from mkd_core.io.atomic import OutputFiles, write_text
from mkd_core.io.volumes import input_files, read_volume, write_volume
from mkd_core.protocol import Finding

#: Files of an evaluation as a whole.
SUMMARY_FILES = ("cases.csv", "summary.json", "summary.md", "evaluation.png", "evaluation.pdf")

#: Says that the files with our names in a folder are results of evaluations.
_MARKER = "mkd-evaluation.txt"
_MARKER_TEXT = (
    "The files cases.csv, summary.*, evaluation.*, cases/*.json and segmentations/*.nii.gz in this folder are results "
    "of mkd evaluate, which replaces them when it runs again.\n"
)


def check_targets(folder: Path, cases: Sequence[Case], inputs: Sequence[Path], *, overwrite: bool = False) -> None:
    """Refuse a folder for results before any work is done, if one of them would replace what no evaluation made.

    Args:
        folder: for the results; need not be there.
        cases: whose results are to come.
        inputs: what else is read: the table of cases, the weights.
        overwrite: whether files in it that no evaluation made may be replaced.

    Raises:
        InputError: a result would replace a file that is read, or one that no evaluation made.
    """
    results = ResultFolder(folder, {})
    targets = [folder / name for name in SUMMARY_FILES]
    targets += [path for case in cases for path in (results.record_path(case), results.segmentation_path(case))]
    read = [path for path in inputs if path.is_file()]
    read += [path for case in cases for file in (case.image, case.label) for path in input_files(file)]
    files = OutputFiles(inputs=read, overwrite=overwrite or (folder / _MARKER).is_file())
    files.check(*(path for path in targets if path.parent.is_dir()))


@dataclass(frozen=True)
class CaseResult:
    """What an evaluation found in one case.

    Attributes:
        case: image and labels.
        structures: measures by key of structure.
        failure: why the case could not be segmented; empty if it was.
        warnings: the pipeline's doubts.
        seconds: of the segmentation alone.
        device: that computed it; empty for a case that could not be segmented.
    """

    case: Case
    structures: dict[str, StructureMeasures]
    failure: str = ""
    warnings: tuple[Finding, ...] = ()
    seconds: float = 0.0
    device: str = ""

    def mean(self, measure: str) -> float | None:
        """Mean of a measure over the structures for which it is defined; None if there are none.

        Args:
            measure: "dice", "hd95_mm" or "assd_mm".
        """
        known = [value for measured in self.structures.values() if (value := getattr(measured, measure)) is not None]
        return float(np.mean(known)) if known else None


class ResultFolder:
    """Finished cases in a folder: ``cases/NAME.json`` with the figures, ``segmentations/NAME.nii.gz`` with the labels.

    Args:
        folder: made when the first result is kept.
        setting: what all results depend on, plain values; a result of another setting, or of files that have changed
            since, does not count.
    """

    def __init__(self, folder: Path, setting: Mapping[str, Any]) -> None:
        self._folder = folder
        self._setting = dict(setting)

    def segmentation_path(self, case: Case) -> Path:
        """Where the labels of a case are kept."""
        return self._folder / "segmentations" / f"{case.name}.nii.gz"

    def find(self, case: Case) -> CaseResult | None:
        """The result of a case if it is there and still holds."""
        try:
            record = json.loads(self.record_path(case).read_text(encoding="utf-8"))
            if record["of"] != self._origin(case):
                return None
            found = record["result"]
            result = CaseResult(
                case,
                {key: StructureMeasures(**values) for key, values in found["structures"].items()},
                found["failure"],
                tuple(map(Finding.from_dict, found["warnings"])),
                found["seconds"],
                found["device"],
            )
        except (OSError, ValueError, KeyError, TypeError, ProtocolError):  # never written, or not by us
            return None
        return result if result.failure or self.segmentation_path(case).exists() else None

    def keep(self, result: CaseResult, labels: sitk.Image | None) -> None:
        """Keep a result; one that is there already is replaced.

        Raises:
            InputError: the folder cannot be written.
        """
        path, segmentation = self.record_path(result.case), self.segmentation_path(result.case)
        try:
            for file in (path, segmentation):
                file.parent.mkdir(parents=True, exist_ok=True)
                file.unlink(missing_ok=True)
            if not (self._folder / _MARKER).exists():
                write_text(self._folder / _MARKER, _MARKER_TEXT)
            if labels is not None:
                write_volume(labels, segmentation)
            values = {
                field.name: getattr(result, field.name)
                for field in dataclasses.fields(result)
                if field.name not in ("case", "structures", "warnings")
            }
            values["warnings"] = [warning.to_dict() for warning in result.warnings]
            values["structures"] = {key: dataclasses.asdict(measured) for key, measured in result.structures.items()}
            write_text(path, json.dumps({"of": self._origin(result.case), "result": values}, indent=1) + "\n")
        except OSError as error:
            raise InputError(f"“{path}” cannot be written.", "Check the folder and the space on the disk.") from error

    def segmentation(self, result: CaseResult) -> sitk.Image | None:
        """Labels of a finished case; None if it could not be segmented."""
        return None if result.failure else read_volume(self.segmentation_path(result.case))

    def record_path(self, case: Case) -> Path:
        """Where the figures of a case are kept."""
        return self._folder / "cases" / f"{case.name}.json"

    def _origin(self, case: Case) -> dict[str, Any]:
        files = [
            [str(path.resolve()), stat.st_size, stat.st_mtime_ns]
            for path in (case.image, case.label)
            for stat in (path.stat(),)
        ]
        origin = {**self._setting, "modality": case.modality, "files": files}
        return origin if case.structures is None else origin | {"structures": list(case.structures)}
