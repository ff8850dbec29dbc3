"""What is known of the patient and of the moment of the beat: body size, sex, age, cardiac phase.

Imports neither numpy nor SimpleITK nor torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

Sex = Literal["M", "F"]

#: How body surface area is computed, to be named beside indexed figures.
BSA_FORMULA = "Mosteller, N Engl J Med 317 (1987), 1098"

#: Heights in m and weights in kg outside are mistakes of units.
HEIGHT_M, WEIGHT_KG = (0.4, 2.6), (2.0, 400.0)

#: DICOM tags, as ITK writes them.
SEX_TAG, AGE_TAG, SIZE_TAG, WEIGHT_TAG = "0010|0040", "0010|1010", "0010|1020", "0010|1030"
PERCENT_TAG, TRIGGER_TAG, INTERVAL_TAG = "0020|9241", "0018|1060", "0018|1062"
TEXT_TAGS = ("0008|103e", "0020|4000", "0018|1030")  # series description, image comments, protocol name


@dataclass(frozen=True)
class Patient:
    """What figures are related to.

    Attributes:
        height_m, weight_kg: None where they are not known.
        sex: "M" or "F", None where it is not known or neither.
        age_years: None where it is not known.
    """

    height_m: float | None = None
    weight_kg: float | None = None
    sex: Sex | None = None
    age_years: float | None = None

    @property
    def bsa_m2(self) -> float | None:
        """Body surface area in m² after Mosteller, N Engl J Med 317 (1987), 1098: the square root of height in cm times
        weight in kg over 3600.
        """
        if self.height_m is None or self.weight_kg is None:
            return None
        return math.sqrt(self.height_m * 100.0 * self.weight_kg / 3600.0)

    @classmethod
    def from_tags(cls, tags: Mapping[str, str]) -> Patient:
        """What DICOM tags say; what they do not say, or say in impossible numbers, is left out.

        Args:
            tags: values by tags such as "0010|1020".
        """
        sex = tags.get(SEX_TAG, "").strip().upper()
        return cls(
            height_m=number_within(tags.get(SIZE_TAG), HEIGHT_M),
            weight_kg=number_within(tags.get(WEIGHT_TAG), WEIGHT_KG),
            sex="M" if sex == "M" else "F" if sex == "F" else None,
            age_years=_age(tags.get(AGE_TAG, "")),
        )


def number_within(text: str | None, limits: tuple[float, float]) -> float | None:
    """The number that a text is, None if it is none or beyond the limits."""
    value = _number(text)
    return value if value is not None and limits[0] <= value <= limits[1] else None


def _number(text: str | None) -> float | None:
    try:
        value = float((text or "").strip())
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _age(text: str) -> float | None:
    """Years of an age string such as "064Y" or "018M"."""
    found = re.fullmatch(r"(\d{1,3})([DWMY])", text.strip().upper())
    if found is None:
        return None
    return int(found[1]) * {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}[found[2]]


#: Where in the beat: at end-diastole, at end-systole, between them while filling, or not known.
PhaseName = Literal["end-diastole", "end-systole", "diastole", "systole", "unknown"]


@dataclass(frozen=True)
class CardiacPhase:
    """Moment of the beat that a volume shows.

    Attributes:
        name: one of :data:`PhaseName`.
        percent: of the R-R interval after the R wave, None where it is not known.
        source: where that is said: "DICOM", "sequence" or "".
    """

    name: PhaseName = "unknown"
    percent: float | None = None
    source: str = ""

    @classmethod
    def at(cls, percent: float, source: str = "DICOM") -> CardiacPhase:
        """The phase at a share of the R-R interval, %.

        The R wave is end-diastole.  At rest the aortic valve closes at 35 to 45 % of the interval, and the ventricle is
        smallest then.
        """
        if percent <= 5.0 or percent >= 95.0:
            name: PhaseName = "end-diastole"
        elif 35.0 <= percent <= 45.0:
            name = "end-systole"
        else:
            name = "systole" if percent < 35.0 else "diastole"
        return cls(name, percent, source)

    @classmethod
    def from_tags(cls, tags: Mapping[str, str]) -> CardiacPhase:
        """The phase that DICOM tags state: a percentage, a delay with the length of the beat, or a percentage in the
        series' description; "unknown" where they do not.
        """
        percent = number_within(tags.get(PERCENT_TAG), (0.0, 100.0))
        delay, interval = _number(tags.get(TRIGGER_TAG)), number_within(tags.get(INTERVAL_TAG), (250.0, 3000.0))
        if percent is None and delay is not None and interval is not None and 0.0 <= delay <= interval:
            percent = 100.0 * delay / interval
        if percent is None:
            percent = phase_percent(tags.get(tag, "") for tag in TEXT_TAGS)
        return cls() if percent is None else cls.at(percent)


#: How strongly the reconstruction takes noise away, such as "ASIR-V 40 %", "ADMIRE 3" or "40 % ASIR"; no phase.
_STRENGTH = re.compile(
    r"(?<![a-z])(?:asir|admire|safire|idose|aidr|veo|imr|dlir|truefidelity|aice|blend|strength|noise)"
    r"[^\s\d%]*[\s(]*\d{1,3}(?:\.\d+)?\s*%?|\d{1,3}(?:\.\d+)?\s*%\s*asir(?![^\s\d%]*[\s(]*\d)",
    re.IGNORECASE,
)


def phase_percent(texts: Iterable[str]) -> float | None:
    """The cardiac phase in %, from the first text that has one, such as "CTA 0.75 Bv40 BestDiast 74 %".

    A text with several different percentages says nothing, and strengths of noise reduction are not counted.
    """
    for text in texts:
        found = {
            float(one)
            for one in re.findall(r"(?<![\d.,])(?<![\d\s]-)(\d{1,2}(?:\.\d+)?)\s*%", _STRENGTH.sub(" ", text))
        }
        if len(found) == 1:
            return found.pop()
    return None
