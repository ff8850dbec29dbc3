"""What a sequence of segmented frames says about the heart as a pump: ejection fraction, stroke volume, mass, and what
to doubt.

End-diastole is the frame with the largest volume of the left ventricle, end-systole the one with the smallest; the
right ventricle is read at the same two frames.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mkd_core.measure.messages import finding
from mkd_core.protocol import Finding, weights_of
from mkd_core.structures import MYOCARDIUM_DENSITY, with_parts

#: Frames of a beat below which end-systole is likely to lie between two of them.
_FEWEST_FRAMES = 8

#: Without leaks and shunts both ventricles give off the same volume; difference, as a share of their mean, that raises
#: a doubt.
_STROKE_DIFFERENCE = 0.25

#: Muscle cannot be compressed; change of its volume from end-diastole to end-systole that raises a doubt.
_MYOCARDIUM_CHANGE = 0.2

#: A ventricle that changes by less than this share does not beat, or the frames do not show a beat.
_LEAST_CHANGE = 0.05

#: Ejection fractions outside raise a doubt.
_USUAL_EJECTION = (0.10, 0.85)

#: Departure of a frame from its two neighbours' mean, as a share of the range of the curve, that no beat has.
_JUMP = 0.6

#: What the figures are made of.
_MEASURED = ("LV", "RV", "Myo")


@dataclass(frozen=True)
class VentricleFunction:
    """Pump function of one ventricle.

    Attributes:
        end_diastolic_ml, end_systolic_ml: volumes in ml.
        stroke_volume_ml: their difference in ml.
        ejection_fraction: stroke volume as a share of the end-diastolic volume.
    """

    end_diastolic_ml: float
    end_systolic_ml: float
    stroke_volume_ml: float
    ejection_fraction: float


@dataclass(frozen=True)
class CardiacFunction:
    """Figures of a sequence.

    Attributes:
        end_diastole, end_systole: frame numbers from 0; None where no two frames with a left ventricle are there.
        left, right: the ventricles; None where a volume is missing.
        myocardial_mass_g: mass of the left ventricular myocardium at end-diastole, at 1.05 g/ml; None where it is
            missing.
        warnings: what to doubt.
    """

    end_diastole: int | None = None
    end_systole: int | None = None
    left: VentricleFunction | None = None
    right: VentricleFunction | None = None
    myocardial_mass_g: float | None = None
    warnings: list[Finding] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """The same as tables of numbers and texts, ready for JSON."""
        return dataclasses.asdict(self) | {"warnings": [warning.to_dict() for warning in self.warnings]}


def volume_curve(frames: Sequence[Mapping | None], key: str) -> list[float | None]:
    """Volume of a structure in ml in each frame, with its parts; None where the frame or the structure is missing.

    Args:
        frames: the pipeline's report of each frame, None for a frame without a result.
        key: structure, see `mkd_core.structures`.
    """
    curves = []
    for report in frames:
        entries = (report or {}).get("structures") or {}
        volumes = with_parts({name: (entry or {}).get("volume_ml") or 0.0 for name, entry in entries.items()})
        curves.append(volumes.get(key) or None)
    return curves


def cardiac_function(frames: Sequence[Mapping | None]) -> CardiacFunction:
    """Derive the pump function from the reports of a sequence's frames, in their order, None for a frame without a
    result.
    """
    curve = volume_curve(frames, "LV")
    known = {frame: volume for frame, volume in enumerate(curve) if volume is not None}
    warnings = _missing_frames(frames) + _mixed_origins(frames)
    if len(known) < 2:
        return CardiacFunction(warnings=[*warnings, finding("too_few_frames")])
    diastole, systole = max(known, key=known.__getitem__), min(known, key=known.__getitem__)
    change = known[diastole] - known[systole]
    if change < _LEAST_CHANGE * known[diastole]:
        warnings.append(finding("no_beat"))
    left, right = (_ventricle(volume_curve(frames, key), diastole, systole) for key in ("LV", "RV"))
    muscle = volume_curve(frames, "Myo")
    warnings += _frame_warnings(frames, diastole, systole)
    warnings += _curve_warnings(curve, change)
    warnings += _figure_warnings(left, right, muscle[diastole], muscle[systole])
    muscle_ml = muscle[diastole]
    mass = None if muscle_ml is None else muscle_ml * MYOCARDIUM_DENSITY
    return CardiacFunction(diastole, systole, left, right, mass, warnings)


def _structure(report: Mapping | None, key: str) -> Mapping:
    return ((report or {}).get("structures") or {}).get(key) or {}


def _ventricle(curve: Sequence[float | None], diastole: int, systole: int) -> VentricleFunction | None:
    full, empty = curve[diastole], curve[systole]
    if full is None or empty is None:
        return None
    return VentricleFunction(full, empty, full - empty, (full - empty) / full)


def _missing_frames(frames: Sequence[Mapping | None]) -> list[Finding]:
    missing = [str(frame + 1) for frame, report in enumerate(frames) if not report]
    if not missing:
        return []
    if len(missing) == 1:
        return [finding("frame_missing", frame=int(missing[0]))]
    return [finding("frames_missing", frames=", ".join(missing))]


def _mixed_origins(frames: Sequence[Mapping | None]) -> list[Finding]:
    """A frame without structures in detail has the seven from the same weights as one with them."""
    files = [weights_of(report) for report in frames if report]
    bundles, details = ({one[place].sha256 for one in files if len(one) > place} for place in (0, 1))
    return [finding("different_weights")] if len(bundles) > 1 or len(details) > 1 else []


def _frame_warnings(frames: Sequence[Mapping | None], diastole: int, systole: int) -> list[Finding]:
    """Doubts about the two frames that all figures come from."""
    warnings = []
    for when, frame in (("diastole", diastole), ("systole", systole)):
        for key in _MEASURED:
            entry = _structure(frames[frame], key)
            if not entry.get("volume_ml"):
                warnings.append(finding(f"not_found_at_{when}", structure=key, frame=frame + 1))
            elif entry.get("touches_border"):
                warnings.append(finding(f"touches_border_at_{when}", structure=key, frame=frame + 1))
    return warnings


def _curve_warnings(curve: Sequence[float | None], height: float) -> list[Finding]:
    warnings = []
    if len(curve) < _FEWEST_FRAMES:
        warnings.append(finding("few_frames", count=len(curve)))
    for frame in range(1, len(curve) - 1):
        before, here, after = curve[frame - 1 : frame + 2]
        if before is None or here is None or after is None:
            continue
        if height > 0 and abs(here - 0.5 * (before + after)) > _JUMP * height:
            warnings.append(finding("volume_jumps", structure="LV", frame=frame + 1))
    return warnings


def _figure_warnings(
    left: VentricleFunction | None,
    right: VentricleFunction | None,
    muscle_full: float | None,
    muscle_empty: float | None,
) -> list[Finding]:
    warnings = []
    lowest, highest = _USUAL_EJECTION
    for key, ventricle in (("LV", left), ("RV", right)):
        if ventricle is not None and not lowest <= ventricle.ejection_fraction <= highest:
            warnings.append(finding("ejection_fraction", structure=key, fraction=ventricle.ejection_fraction))
    if left is not None and right is not None:
        difference = abs(left.stroke_volume_ml - right.stroke_volume_ml)
        mean = 0.5 * (left.stroke_volume_ml + right.stroke_volume_ml)
        if difference > _STROKE_DIFFERENCE * abs(mean):
            warnings.append(finding("stroke_volumes_differ", difference_ml=difference))
    if muscle_full is not None and muscle_empty is not None:
        change = abs(muscle_empty - muscle_full) / muscle_full
        if change > _MYOCARDIUM_CHANGE:
            warnings.append(finding("myocardium_changes", structure="Myo", change=change))
    return warnings
