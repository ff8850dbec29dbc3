"""Few labelled CT, many labelled MR of other people, on hearts that differ.

    mkd experiment scarce-labels --hearts FOLDER --out runs/scarce-labels

Without a folder of hearts they are drawn from formulas, see :mod:`mkd_core.training.experiments.people`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mkd_core.evaluation.cases import Case
from mkd_core.training.config import DataConfig, NetworksConfig, Stage
from mkd_core.training.experiments.people import Cohort, scans
from mkd_core.training.experiments.runs import QUICK, SMALL_NETWORKS, TINY_NETWORKS, Kind, Scale

#: Labelled people are drawn so many times.
_DRAWS = 3


@dataclass(frozen=True)
class ScarceLabels:
    """The benchmark: CT is the target."""

    cohort: Cohort = field(default_factory=Cohort)
    target: Literal["CT"] = "CT"
    margin_mm: None = None

    @property
    def name(self) -> str:
        """Fit for a file name."""
        return f"scarce-labels-{self.cohort.name}"

    @property
    def data(self) -> DataConfig:
        """Settings of the data."""
        return DataConfig()

    @property
    def normalisation(self) -> dict[str, dict[str, Any]]:
        """Intensity rules by modality."""
        return self.data.normalisation()

    def cases(self, kind: Kind, count: int, pair: int, folder: Path) -> list[Case]:
        """See :class:`mkd_core.training.experiments.runs.Benchmark`."""
        group, modality = {"oracle": ("assistant", "CT"), "assistant": ("assistant", "MR")}.get(kind, (kind, "CT"))
        return scans(self.cohort, self.cohort.drawn(group, count, pair % _DRAWS), modality, folder)


SCALES = {
    "tiny": Scale(
        Stage(4, 8.0, 16, 2),
        TINY_NETWORKS,
        labelled=(2,),
        assistants=2,
        fewer_assistants=(1,),
        validating=1,
        tested=2,
        pairs=(1, 1),
        curve=2,
    ),
    "small": Scale(
        Stage(1000, 5.0, 32, 2),
        SMALL_NETWORKS,
        QUICK,
    ),
    "full": Scale(Stage(20000, 2.0, 64, 2), NetworksConfig()),
}
