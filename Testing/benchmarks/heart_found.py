"""Is a heart found where there is one, and none where there is none?

    python -m Testing.benchmarks.heart_found [--data FOLDER] [--json FILE] [--quick | --unseen]

Volumes with a heart: every real one of the data folder, and pieces of some that hold half a heart or more.  Volumes
without: the real abdomens, what remains of the chest CTs below, above and beside the heart, and phantoms: noise, water,
legs, a head, bright lumps with and without a shell, of many sizes; and all of these as stacks of thick slices, too.
Prints for each what both stages saw and what came of it, then false refusals and false acceptances, and how far from
the rule's limits the nearest volumes lie.
``--unseen`` looks at a random half of the short-axis stacks of other people instead (cine and late enhancement), by
which nothing was chosen.  ``--json`` writes the file after each volume; volumes that stand in it already are not looked
at again, so that a run that was broken off goes on.
``FOLDER`` is the data folder (environment variable MKD_DATA, else ../shared/data beside the checkout).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

import mkd_core
from mkd_core.errors import InputError, NoHeartError
from mkd_core.inference.geometry import OrientedVolume
from mkd_core.io.atomic import write_text
from mkd_core.measure import heart_evidence
from mkd_core.protocol import MIN_SIDE
from Testing.benchmarks.accuracy import data_folder


@dataclass(frozen=True)
class Case:
    """A volume, and whether it holds a heart."""

    name: str
    modality: str
    holds_heart: bool
    make: Callable[[], sitk.Image]


@dataclass(frozen=True)
class Found:
    """What came of a volume: whether it was segmented, and the evidence."""

    name: str
    holds_heart: bool
    segmented: bool
    verdict: str
    recognition: float
    joint_agreement: float

    @property
    def right(self) -> bool:
        """Segmented exactly if there is a heart."""
        return self.segmented == self.holds_heart


def _read(path: Path) -> sitk.Image:
    volume = OrientedVolume(sitk.ReadImage(str(path)))
    return _image(volume.voxels, volume.spacing)


def _image(voxels: np.ndarray, spacing: np.ndarray | tuple[float, ...]) -> sitk.Image:
    """Image of voxels with a spacing along z, y, x, upright."""
    result = sitk.GetImageFromArray(np.ascontiguousarray(voxels))
    result.SetSpacing([float(step) for step in spacing[::-1]])
    return result


def _piece(path: Path, **bounds: tuple[float, float]) -> sitk.Image:
    """The voxels between bounds along z, y or x, mm from the first voxel; the volume is upright first."""
    volume = OrientedVolume(sitk.ReadImage(str(path)))
    block = []
    for axis, spacing in zip("zyx", volume.spacing):
        low, high = bounds.get(axis, (0.0, 1e9))
        block.append(slice(int(low / spacing), int(min(high, 1e6) / spacing)))
    return _image(volume.voxels[tuple(block)], volume.spacing)


# Where the heart with its great vessels lies in the chest CTs, mm from the first voxel of the upright volume: z, x.
_HEARTS = {
    "ct_thorax/ct.nii.gz": ((50, 205), None),
    "chest_ct/contrast.nii.gz": ((115, 260), (115, 272)),
    "chest_ct/plain_4mm.nii.gz": ((62, 185), (80, 248)),
    "chest_ct/plain_5mm.nii.gz": ((62, 225), (58, 210)),
    "chest_ct/plain_ringing.nii.gz": ((57, 230), (125, 272)),
}

# Pieces that hold half a heart or more.
_HALVES = {
    "lower part": ("chest_ct/contrast.nii.gz", "CT", {"z": (0, 200)}),
    "upper part": ("chest_ct/contrast.nii.gz", "CT", {"z": (170, 400)}),
    "left part": ("chest_ct/contrast.nii.gz", "CT", {"x": (190, 400)}),
    "heart alone": ("chest_ct/contrast.nii.gz", "CT", {"z": (120, 255), "y": (95, 222), "x": (120, 270)}),
    "lower part, other patient": ("ct_thorax/ct.nii.gz", "CT", {"z": (0, 135)}),
    "right part": ("ct_thorax/ct.nii.gz", "CT", {"x": (0, 95)}),
    "lower part, no contrast": ("chest_ct/plain_5mm.nii.gz", "CT", {"z": (0, 150)}),
    "heart alone, no contrast": ("chest_ct/plain_5mm.nii.gz", "CT", {"z": (75, 215), "y": (40, 185), "x": (60, 215)}),
    "heart alone, MR": ("mr_cine_4d/phase_00.nii.gz", "MR", {"z": (50, 186), "y": (60, 160)}),
    "lower part, MR": ("mr_cine_4d/phase_08.nii.gz", "MR", {"z": (0, 130)}),
    "middle, MR": ("mr_left_atrium/mr_004_image.nii.gz", "MR", {"z": (15, 95), "y": (5, 70), "x": (15, 105)}),
}

# Real MR of which stacks of thick slices are made that keep their directions.
_STACKED = ("mr_cine_4d/phase_00.nii.gz", "mr_left_atrium/mr_004_image.nii.gz", "mr_refused/mr_00_image.nii.gz")

#: Slices of stacks that are made of volumes, mm.
_STACK_MM = (8.0, 10.0)

# Pieces of real MR that hold no heart.
_BESIDE = {
    "mr_cine_4d/phase_00.nii.gz": {"below": {"z": (0, 45)}, "back": {"y": (165, 1e9)}},
}


def with_heart(data: Path) -> Iterator[Case]:
    """Volumes that hold a heart, or half of one."""
    for pattern, modality in (
        ("ct_thorax/ct.nii.gz", "CT"),
        ("chest_ct/contrast.nii.gz", "CT"),
        ("chest_ct/plain_*.nii.gz", "CT"),
        ("mr_refused/*_image.nii.gz", "MR"),
        ("mr_left_atrium/*_image.nii.gz", "MR"),
        ("mr_cine_4d/*.nii.gz", "MR"),
    ):
        for path in sorted(data.glob(pattern)):
            yield Case(f"{path.parent.name}/{path.name[:-7]}", modality, True, lambda path=path: _read(path))
    for name, (file, modality, bounds) in _HALVES.items():
        if (data / file).exists():
            yield Case(name, modality, True, lambda file=file, bounds=bounds: _piece(data / file, **bounds))
    for file in _STACKED:
        for axis in range(3):
            if (data / file).exists():
                name = f"{file.split('/')[0]} in slices along {'xyz'[axis]}"
                yield Case(
                    name, "MR", True, lambda file=file, axis=axis: _stack(sitk.ReadImage(str(data / file)), axis)
                )


def unseen(data: Path) -> Iterator[Case]:
    """A random half of the labelled short-axis stacks, all of which hold a heart."""
    for kind in ("cine", "lge"):
        paths = sorted((data / "cine_lge" / kind).glob("*_image.nii.gz"))
        for path in sorted(random.Random(_UNSEEN_SEED).sample(paths, len(paths) // 2)):
            yield Case(f"{kind}/{path.name[:-13]}", "MR", True, lambda path=path: sitk.ReadImage(str(path)))


def without_heart(data: Path) -> Iterator[Case]:
    """Volumes that hold none."""
    yield from abdomens(data)
    yield from pieces_without_heart(data)
    yield from phantoms()
    yield from stacks(data)


def abdomens(data: Path) -> Iterator[Case]:
    """Real CT and MR of an abdomen."""
    for path in sorted((data / "no_heart").glob("*.nii.gz")):
        modality = "MR" if path.name.startswith("mr") else "CT"
        yield Case(f"no_heart/{path.name[:-7]}", modality, False, lambda path=path: _read(path))


def pieces_without_heart(data: Path) -> Iterator[Case]:
    """What chest CTs show below, above and beside the heart."""
    for file, (along_z, along_x) in _HEARTS.items():
        if not (data / file).exists():
            continue
        pieces = {"below": {"z": (0, along_z[0])}, "above": {"z": (along_z[1], 1e9)}}
        if along_x is not None:
            pieces |= {"right lung": {"x": (0, along_x[0])}, "left lung": {"x": (along_x[1], 1e9)}}
        for name, bounds in pieces.items():
            image = _piece(data / file, **bounds)
            if min(image.GetSize()) >= 8:
                yield Case(f"{file.split('/')[1][:-7]}: {name}", "CT", False, lambda image=image: image)


def stacks(data: Path) -> Iterator[Case]:
    """Volumes without a heart as stacks of thick slices that lost their directions, which are tried as short-axis ones:
    MR, and CT with intensities such as MR has.
    """
    volumes = [(case.name, case.make) for case in phantoms() if case.modality == "MR"]
    volumes += [(path.name[:-7], lambda path=path: _read(path)) for path in sorted(data.glob("no_heart/mr*.nii.gz"))]
    for file, pieces in _BESIDE.items():
        if (data / file).exists():
            volumes += [
                (f"{file.split('/')[0]}: {name}", lambda file=file, bounds=bounds: _piece(data / file, **bounds))
                for name, bounds in pieces.items()
            ]
    for number, (name, make) in enumerate(volumes):
        for axis in (number % 3,) if name.startswith("lump") else range(3):
            yield from _stack_case(f"{name}, stack along {'xyz'[axis]}", make(), axis, _STACK_MM[0])
    others = [*phantoms(), *abdomens(data), *pieces_without_heart(data)]
    others = [case for case in others if case.modality == "CT" and not case.name.startswith("lump")]
    for number, case in enumerate(others):
        axis, slices_mm = number % 3, _STACK_MM[number % 2]
        yield from _stack_case(f"{case.name} as MR, stack along {'xyz'[axis]}", _as_mr(case.make()), axis, slices_mm)


def _stack_case(name: str, image: sitk.Image, axis: int, slices_mm: float) -> Iterator[Case]:
    stack = _stack(image, axis, slices_mm)
    stack = _image(sitk.GetArrayFromImage(stack), stack.GetSpacing()[::-1])
    if min(stack.GetSize()) >= MIN_SIDE:
        yield Case(name, "MR", False, lambda: stack)


def _stack(image: sitk.Image, axis: int, slices_mm: float = _STACK_MM[0]) -> sitk.Image:
    """A volume as thick slices across an axis, with its directions."""
    factors = [1, 1, 1]
    factors[axis] = max(1, round(slices_mm / image.GetSpacing()[axis]))
    thick = sitk.BinShrink(sitk.Cast(image, sitk.sitkFloat32), factors)
    return sitk.PermuteAxes(thick, [other for other in range(3) if other != axis] + [axis])


def _as_mr(image: sitk.Image) -> sitk.Image:
    """A CT with the intensities that its tissues have in MR: air dark, fat bright, muscle less so, contrast most."""
    values = np.interp(sitk.GetArrayViewFromImage(image), (-1000, -200, -50, 100, 500), (0, 40, 400, 300, 900))
    return _image(values.astype(np.float32), image.GetSpacing()[::-1])


def phantoms() -> Iterator[Case]:
    """Things that are no heart, drawn."""
    for name, (modality, spacing, draw) in _PHANTOMS.items():
        yield Case(name, modality, False, lambda draw=draw, spacing=spacing: _image(draw(), spacing))
    for number in range(24):
        modality = ("CT", "MR")[number % 2]
        yield Case(f"lump {number}", modality, False, lambda number=number: _random_lump(number))


_SIDE = 60
_Z, _Y, _X = np.meshgrid(*[np.arange(_SIDE) - 29.5] * 3, indexing="ij")
_BODY = (_Y / 1.4) ** 2 + _X**2 < 27**2


def _noisy(values: np.ndarray, deviation: float, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, deviation, values.shape)
    return np.rint(values + noise).clip(-1024, 3071).astype(np.int16)


def _water() -> np.ndarray:
    return _noisy(np.where(_Y**2 + _X**2 < 25**2, 0.0, -1000.0), 15)


def _inserts() -> np.ndarray:
    values = np.where(_Y**2 + _X**2 < 25**2, 0.0, -1000.0)
    for number, hu in enumerate((-100, -35, 120, 340, 990, 50, 200)):
        angle = 2 * np.pi * number / 7
        values[np.hypot(_Y - 14 * np.sin(angle), _X - 14 * np.cos(angle)) < 4] = hu
    return _noisy(values, 15)


def _legs(air: float, fat: float, muscle: float, bone: float, marrow: float, vessel: float) -> np.ndarray:
    values = np.full(_X.shape, air)
    for side in (-12, 12):
        radius = np.hypot(_Y, _X - side)
        for limit, value in ((10, fat), (8.5, muscle), (2.2, bone), (1.4, marrow)):
            values[radius < limit] = value
        values[np.hypot(_Y - 3, _X - side - 3) < 1] = vessel
    return values


def _head() -> np.ndarray:
    radius = np.sqrt((_Y / 1.2) ** 2 + _X**2 + (_Z / 1.1) ** 2)
    values = np.full(_X.shape, -1000.0)
    for limit, value in ((22, 40), (20, 1000), (18, 35)):
        values[radius < limit] = value
    values[np.sqrt(_Y**2 + ((np.abs(_X) - 3) * 2) ** 2 + _Z**2) < 6] = 5
    return _noisy(values, 8)


def _smooth_noise(scale: float, middle: float) -> np.ndarray:
    values = ndimage.gaussian_filter(np.random.default_rng(1).normal(0, 1, _X.shape), 4)
    return (values / values.std() * scale + middle).astype(np.int16)


def _random_lump(seed: int) -> sitk.Image:
    """A bright ellipsoid in a body or in air, at times in a shell or between lungs, of the size of a heart or not."""
    rng = np.random.default_rng(seed)
    axes, centre = rng.uniform(5, 18, 3), rng.uniform(-6, 6, 3)
    radius = np.sqrt(sum(((grid - at) / axis) ** 2 for grid, at, axis in zip((_Z, _Y, _X), centre, axes)))
    values = np.where(_BODY, 30.0, -1000.0) if rng.random() < 0.7 else np.full(_X.shape, -1000.0)
    if rng.random() < 0.5:
        values[((np.abs(_X) - 14) / 9) ** 2 + (_Y / 18) ** 2 < 1] = -850
    if rng.random() < 0.5:
        values[radius < rng.uniform(1.15, 1.5)] = 110
    values[radius < 1] = rng.uniform(150, 500)
    if seed % 2:
        values = np.abs(np.interp(values, (-1000, -200, 30, 500), (0, 20, 250, 900)))
    return _image(_noisy(values, 15, seed), (rng.uniform(2.5, 5),) * 3)


_FLAT = np.zeros((_SIDE,) * 3)

_PHANTOMS: dict[str, tuple[str, tuple[float, ...], Callable[[], np.ndarray]]] = {
    "water": ("CT", (4, 4, 4), _water),
    "water with inserts": ("CT", (4, 4, 4), _inserts),
    "legs": ("CT", (9, 6, 6), lambda: _noisy(_legs(-1000, -80, 55, 900, 20, 250), 20)),
    "legs, MR": ("MR", (9, 6, 6), lambda: np.abs(_noisy(_legs(0, 900, 300, 20, 800, 700), 20))),
    "head": ("CT", (4, 4, 4), _head),
    "noise": ("CT", (4, 4, 4), lambda: _noisy(_FLAT, 300)),
    "noise, MR": ("MR", (3, 3, 3), lambda: np.abs(_noisy(_FLAT, 100))),
    "smooth noise": ("CT", (4, 4, 4), lambda: _smooth_noise(400, 0)),
    "smooth noise, MR": ("MR", (3, 3, 3), lambda: _smooth_noise(200, 500)),
    "body of one kind": ("CT", (5, 5, 5), lambda: _noisy(np.where(_BODY, 30.0, -1000.0), 15)),
}

#: By which the half of the unseen volumes is drawn.
_UNSEEN_SEED = 20_261_126


def look(case: Case) -> Found:
    """Segment a volume and see what comes of it."""
    options = mkd_core.SegmentationOptions(device="cpu", precision="float32", threads=1)
    try:
        report = mkd_core.segment(case.make(), modality=case.modality, options=options).report
    except NoHeartError as error:
        code = error.finding.code if error.finding is not None else "no_heart"
        seen = error.evidence
        return Found(
            case.name, case.holds_heart, False, code, seen.get("recognition", 0.0), seen.get("joint_agreement", 0.0)
        )
    except InputError as error:
        code = error.finding.code if error.finding is not None else "unusable"
        return Found(case.name, case.holds_heart, False, code, 0.0, 0.0)
    evidence = report["evidence"]
    return Found(
        case.name, case.holds_heart, True, evidence["verdict"], evidence["recognition"], evidence["joint_agreement"]
    )


def summary(found: Sequence[Found]) -> dict[str, float | None]:
    """The counts, and how far from the rule's limit the nearest volumes lie."""
    hearts = [one for one in found if one.holds_heart]
    others = [one for one in found if not one.holds_heart]
    return {
        "with a heart": len(hearts),
        "false refusals": sum(not one.right for one in hearts),
        "without a heart": len(others),
        "false acceptances": sum(not one.right for one in others),
        "least joint agreement of a confirmed heart": min(
            (one.joint_agreement for one in hearts if one.verdict == "confirmed"), default=None
        ),
        "greatest joint agreement without a heart": max((one.joint_agreement for one in others), default=None),
        "limit": heart_evidence.CONFIRMED,
    }


def _known(path: Path | None) -> dict[str, Found]:
    """What a run that was broken off had found, by the names of the volumes."""
    if path is None or not path.exists():
        return {}
    return {row["name"]: Found(**row) for row in json.loads(path.read_text(encoding="utf-8"))["volumes"]}


def main() -> int:
    """Print the table and the counts."""
    parser = argparse.ArgumentParser(prog="python -m Testing.benchmarks.heart_found", description=__doc__)
    parser.add_argument("--data", type=Path, default=data_folder())
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="phantoms alone")
    parser.add_argument("--unseen", action="store_true", help="a random half of the short-axis stacks alone")
    chosen = parser.parse_args()
    if chosen.unseen:
        cases = list(unseen(chosen.data))
    else:
        cases = list(phantoms()) if chosen.quick else [*with_heart(chosen.data), *without_heart(chosen.data)]
    known = _known(chosen.json)
    found = []
    print(f"{'':<40}{'recognised':>11}{'agreed':>8}  outcome")
    for case in cases:
        last = known.get(case.name) or look(case)
        found.append(last)
        print(
            f"{last.name:<40}{last.recognition:>11.2f}{last.joint_agreement:>8.2f}  {last.verdict}"
            f"{'' if last.right else '   WRONG'}",
            flush=True,
        )
        if chosen.json is not None and case.name not in known:
            # Those that were known and come later stay in the file if this run is broken off, too.
            rows = [dataclasses.asdict(one) for one in ({one.name: one for one in found} | known).values()]
            write_text(chosen.json, json.dumps({"summary": summary(found), "volumes": rows}, indent=1) + "\n")
    print(*(f"{name}: {value}" for name, value in summary(found).items()), sep="\n")
    return 0 if all(one.right for one in found) else 1


if __name__ == "__main__":
    sys.exit(main())
