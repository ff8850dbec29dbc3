"""Published normal values of adults, with their source, modality and method: the only table of them.

A range is shown only where it holds: for the modality it was measured with, for adults of known sex, and, where a
figure changes through the beat, for the phase it was measured in.  Figures without an entry have no range here.

Imports neither numpy nor SimpleITK nor torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from mkd_core.measure.patient import CardiacPhase, Patient, PhaseName

#: Age from which ranges of adults hold, years.
ADULT_YEARS = 18.0


@dataclass(frozen=True)
class ReferenceRange:
    """A normal range.

    Attributes:
        low, high: limits in the figure's unit, None where the source gives none.
        source: citation.
        method: how it was measured, what the limits are, and whom they hold for.
        phases: of the beat that it holds for; empty for any.
    """

    low: float | None
    high: float | None
    source: str
    method: str
    phases: tuple[PhaseName, ...] = ()

    def text(self, digits: int = 0) -> str:
        """The range as people write it, such as "57–105" or "≤ 97"."""
        if self.low is not None and self.high is not None:
            return f"{self.low:.{digits}f}–{self.high:.{digits}f}"
        return f"≤ {self.high:.{digits}f}" if self.high is not None else f"≥ {self.low:.{digits}f}"

    def verdict(self, value: float, digits: int) -> str:
        """ "low", "high" or "normal", comparing what is shown: value and limits with so many digits."""
        if self.high is not None and round(value, digits) > round(self.high, digits):
            return "high"
        return "low" if self.low is not None and round(value, digits) < round(self.low, digits) else "normal"


_FUCHS = "Fuchs et al., Eur Heart J Cardiovasc Imaging 17 (2016), 1009"
_FUCHS_METHOD = "Cardiac CT angiography, 569 healthy adults of 40 to 84 years, upper limit: 97.5th percentile"
_ROGERS = "Rogers et al., Am J Cardiol 111 (2013), 1510"
_ROGERS_METHOD = "ECG-gated CT without contrast, 3,431 adults (Framingham), axial diameter, mean ± 2 SD"
_TRUONG = "Truong et al., Circ Cardiovasc Imaging 5 (2012), 147"
_TRUONG_METHOD = "ECG-gated CT without contrast, 706 healthy adults (Framingham), axial diameter, 90th percentile"
_KAWEL_BOEHM = "Kawel-Boehm et al., J Cardiovasc Magn Reson 17 (2015), 29"
_KAWEL_BOEHM_METHOD = "Cine MR (SSFP), adults, papillary muscles not in the volume, mean ± 2 SD"
_PETERSEN = "Petersen et al., J Cardiovasc Magn Reson 19 (2017), 18"
_PETERSEN_METHOD = (
    "Cine MR (SSFP) at 1.5 T, 804 healthy Caucasian adults of 45 to 74 years (UK Biobank), papillary muscles in the "
    "volume, mean ± 2 SD"
)
_KAWEL = "Kawel et al., Circ Cardiovasc Imaging 5 (2012), 500"
_KAWEL_METHOD = "Cine MR (SSFP), 300 adults (MESA), short axis, mid-cavity at end-diastole, mean ± 2 SD"

_FILLED: tuple[PhaseName, ...] = ("diastole", "end-diastole")
_FULL: tuple[PhaseName, ...] = ("end-diastole",)


def _table() -> dict[tuple[str, str, str], ReferenceRange]:
    """Ranges by figure, modality and sex; values of men and women beside each other."""
    table: dict[tuple[str, str, str], ReferenceRange] = {}

    def add(figure, modality, men, women, source, method, phases=()):
        for sex, (low, high) in (("M", men), ("F", women)):
            table[figure, modality, sex] = ReferenceRange(low, high, source, method, phases)

    for figure, men, women in (
        ("LV_index", 97.0, 83.0),
        ("RV_index", 120.0, 102.0),
        ("LA_index", 60.0, 57.0),
        ("RA_index", 85.0, 73.0),
    ):
        add(figure, "CT", (None, men), (None, women), _FUCHS, _FUCHS_METHOD, _FILLED)
    add("mass_index", "CT", (None, 80.0), (None, 65.0), _FUCHS, _FUCHS_METHOD)
    add("AA_diameter", "CT", (26.3, 41.9), (24.9, 38.9), _ROGERS, _ROGERS_METHOD)
    add("PA_diameter", "CT", (None, 28.9), (None, 26.9), _TRUONG, _TRUONG_METHOD)
    add("PA_AA_ratio", "CT", (None, 0.91), (None, 0.91), _TRUONG, _TRUONG_METHOD)
    add("LV_index", "MR", (57.0, 105.0), (56.0, 96.0), _KAWEL_BOEHM, _KAWEL_BOEHM_METHOD, _FULL)
    add("mass_index", "MR", (35.0, 71.0), (28.0, 56.0), _PETERSEN, _PETERSEN_METHOD)
    add("LV_ejection_fraction", "MR", (48.0, 68.0), (51.0, 71.0), _PETERSEN, _PETERSEN_METHOD)
    add("wall_mean", "MR", (4.1, 8.5), (3.5, 7.1), _KAWEL, _KAWEL_METHOD, _FULL)
    return table


_RANGES = _table()


def reference_range(figure: str, modality: str, patient: Patient, phase: CardiacPhase) -> ReferenceRange | None:
    """The normal range of a figure, None where none is known to hold.

    Args:
        figure: key of a figure, see :mod:`mkd_core.measure.clinical_figures`.
        modality: "CT" or "MR".
        patient: of unknown sex, or a child, has none.
        phase: of the beat.
    """
    if patient.sex is None or (patient.age_years is not None and patient.age_years < ADULT_YEARS):
        return None
    found = _RANGES.get((figure, modality, patient.sex))
    if found is None or (found.phases and phase.name not in found.phases):
        return None
    return found
