"""Every way in which a scanner or a program can store one heart: the labels must lie on exactly the volume's grid and,
in the world, on the heart.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

import mkd_core
from mkd_core.errors import MKDError
from mkd_core.io.volumes import WRITABLE, read_volume, write_volume
from Testing.support.known_heart import BALLS, KnownBundle, known_volume
from Testing.support.stored_volumes import ORIENTATIONS, rotation, stored_otherwise
from Testing.trust.outcome import Outcome

_GROUP = "geometry"

#: Types of voxels, and how the known CT is brought into each: factor, summand, what it is then said to be.  Where no
#: value can lie below zero, an MR.
KINDS: dict[str, tuple[float, float, str]] = {
    "int8": (0.1, 0, "CT"),
    "uint8": (0.15, 150, "MR"),
    "int16": (1, 0, "CT"),
    "uint16": (1, 1000, "MR"),
    "int32": (1, 0, "CT"),
    "uint32": (1, 1000, "MR"),
    "int64": (1, 0, "CT"),
    "uint64": (1, 1000, "MR"),
    "float32": (1, 0, "CT"),
    "float64": (1, 0, "CT"),
}

#: Voxels of the networks' grids, mm: the answer can be no finer.
_NETWORK_SPACING = 3.0

#: What the heart fills, with air around it, mm.
_EXTENT = (200, 160, 175)


@dataclass(frozen=True)
class Stored:
    """How the known heart is stored.

    Attributes:
        spacing: mm along the stored axes.
        order, signs: how the axes are permuted and flipped.
        angles: how far the volume is turned, radians.
        mirrored: whether the axes are left-handed.
        middle: where in the world its heart lies, mm.
        cut: how far the middle of the field of view lies from that of the heart, mm.
        kind: type of the voxels, a key of :data:`KINDS`.
    """

    spacing: tuple[float, float, float] = (5.0, 5.0, 5.0)
    order: tuple[int, int, int] = (0, 1, 2)
    signs: tuple[int, int, int] = (1, 1, 1)
    angles: tuple[float, float, float] = (0.0, 0.0, 0.0)
    mirrored: bool = False
    middle: tuple[float, float, float] = (0.0, 0.0, 0.0)
    cut: tuple[float, float, float] = (0.0, 0.0, 0.0)
    kind: str = "int16"


def judge(stored: Stored) -> str:
    """Segment the heart as it is stored.

    Returns:
        What is wrong with the result; empty if nothing is.  Voxels further from the surface of a ball than 1.5 voxels,
        of the volume or of the networks' grid, whichever are larger, must have the ball's label, or not have it
        outside; one in a hundred may differ, as where two balls nearly touch.
    """
    image = _image(stored)
    scale, shift, modality = KINDS[stored.kind]
    bundle = KnownBundle()
    if modality == "MR":
        bundle.metadata.update(target="MR", assistant="CT")
    bundle.metadata["normalisation"][modality] = {
        "kind": "window",
        "low": -300.0 * scale + shift,
        "high": 700.0 * scale + shift,
    }
    try:
        result = mkd_core.segment(
            image,
            bundle,
            modality=modality,
            options=mkd_core.SegmentationOptions(device="cpu", precision="float32", threads=1),
        )
    except MKDError as error:
        return str(error)
    labels = result.labels
    if _grid(labels) != _grid(image):
        return "the labels lie on another grid"
    found = sitk.GetArrayViewFromImage(labels)
    distance = _distances(image, stored.middle)
    tolerance = 1.5 * max(_NETWORK_SPACING, *image.GetSpacing())
    for label, inside in distance.items():
        core = found[inside < -tolerance] == label
        if np.count_nonzero(~core) > 0.01 * core.size:
            return f"label {label} is missing where its structure is"
        if np.count_nonzero(found[inside > tolerance] == label) > 0.01 * core.size:
            return f"label {label} lies where its structure is not"
    return ""


def _image(stored: Stored) -> sitk.Image:
    size = [max(8, round(extent / step)) for extent, step in zip(_EXTENT, stored.spacing)]
    direction = rotation(stored.angles) @ np.diag((-1.0 if stored.mirrored else 1.0, 1.0, 1.0))
    middle = np.array(stored.middle)
    image = stored_otherwise(
        known_volume(size, stored.spacing, direction, middle + stored.cut, middle)[0], stored.order, stored.signs
    )
    scale, shift, _ = KINDS[stored.kind]
    values = sitk.GetArrayFromImage(image) * scale + shift
    if (
        stored.kind == "uint8"
    ):  # few different values would look like a label map: let the air, which is far below the window, vary
        values += np.where(values < 1, np.random.default_rng(0).integers(0, 90, values.shape), 0)
    result = sitk.GetImageFromArray(np.rint(values).astype(stored.kind))
    result.CopyInformation(image)
    return result


def _grid(image: sitk.Image) -> tuple:
    return image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection()


def _distances(image: sitk.Image, middle: Sequence[float]) -> dict[int, np.ndarray]:
    """Distance of every voxel's centre from the surface of each ball, negative inside, (z, y, x), mm; by ITK's own
    grid, not by ours.
    """
    axes = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    index = np.indices(image.GetSize()[::-1], dtype=np.float32)[::-1]
    centres = np.tensordot(axes, index, axes=1) + (np.array(image.GetOrigin()) - middle)[:, None, None, None]
    return {
        label: np.linalg.norm(centres - np.array(centre)[:, None, None, None], axis=0) - radius
        for label, (centre, radius) in BALLS.items()
    }


def outcomes(*, quick: bool) -> Iterator[Outcome]:
    """All orders and directions of the axes, all types of voxels, and very many grids by chance."""
    generator = np.random.default_rng(0)
    yield _all(
        "the 48 orders and directions of the axes",
        [Stored(order=order, signs=signs) for order, signs in ORIENTATIONS[:: 12 if quick else 1]],
    )
    yield _all("types of voxels", [Stored(kind=kind) for kind in (("uint8", "uint16", "float64") if quick else KINDS)])
    yield _all(
        "oblique and left-handed",
        [by_chance(generator, "angles", "mirrored", "order", "signs") for _ in range(2 if quick else 30)],
    )
    yield _all(
        "voxels of 0.2 to 10 mm", [by_chance(generator, "spacing", "order", "signs") for _ in range(2 if quick else 30)]
    )
    yield _all(
        "a hundred metres from the origin",
        [by_chance(generator, "middle", "angles") for _ in range(1 if quick else 10)],
    )
    yield _all(
        "a field of view that cuts the heart",
        [by_chance(generator, "cut", "order", "signs") for _ in range(2 if quick else 20)],
    )
    yield _all(
        "everything at once", [by_chance(generator, *Stored.__dataclass_fields__) for _ in range(2 if quick else 40)]
    )
    yield _files(generator, 10 if quick else 200)


def by_chance(generator: np.random.Generator, *names: str) -> Stored:
    """A way of storing that differs by chance from the plain one in some attributes."""
    order, signs = ORIENTATIONS[generator.integers(len(ORIENTATIONS))]
    spacing = np.exp(generator.uniform(np.log(0.2), np.log(10), 3))
    while np.prod(_EXTENT / spacing) > 600_000:  # thin voxels along one axis or two, so that the volume stays small
        spacing[spacing.argmin() if generator.random() < 0.3 else generator.integers(3)] *= 1.5
    spacing = spacing.clip(0.2, 10)
    values = {
        "spacing": tuple(spacing.tolist()),
        "order": order,
        "signs": signs,
        "angles": tuple(generator.uniform(-3, 3, 3).tolist()),
        "mirrored": bool(generator.integers(2)),
        "middle": tuple(generator.uniform(-1e5, 1e5, 3).tolist()),
        "cut": tuple(generator.uniform(-25, 25, 3).tolist()),
        "kind": list(KINDS)[generator.integers(len(KINDS))],
    }
    return Stored(**{name: values[name] for name in names})


def _all(name: str, ways: Sequence[Stored]) -> Outcome:
    notes = [f"{note}: {way}" for way in ways if (note := judge(way))]
    return Outcome(_GROUP, name, not notes, len(ways), note="; ".join(notes[:3]))


def _files(generator: np.random.Generator, count: int) -> Outcome:
    """Labels written beside the volume, each in every format: read again, they must lie on one grid but for the digits
    that a format keeps.
    """
    notes = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(count):
            way = by_chance(generator, "spacing", "order", "signs", "angles", "middle", "mirrored")
            image = sitk.Image([9, 10, 11], sitk.sitkInt16)
            image.SetSpacing(way.spacing)
            image.SetOrigin(np.array(way.middle) / 100)
            direction = rotation(way.angles) @ np.diag((-1.0 if way.mirrored else 1.0, 1.0, 1.0))
            image.SetDirection(direction.ravel().tolist())
            image = stored_otherwise(image, way.order, way.signs)
            for ending in WRITABLE:
                write_volume(image, Path(folder, f"volume{ending}"))
                read = read_volume(Path(folder, f"volume{ending}"))
                labels = sitk.Image(read.GetSize(), sitk.sitkUInt8)
                labels.CopyInformation(read)
                write_volume(labels, Path(folder, f"labels{ending}"))
                again = read_volume(Path(folder, f"labels{ending}"))
                apart = max(
                    np.abs(_corner(again, corner) - _corner(read, corner)).max() for corner in np.ndindex(2, 2, 2)
                )
                if again.GetSize() != read.GetSize() or apart > 1e-3:
                    notes.append(f"{apart:.2g} mm apart in {ending}: {way}")
    return Outcome(_GROUP, "files of labels beside files of volumes", not notes, 4 * count, note="; ".join(notes[:3]))


def _corner(image: sitk.Image, corner: Sequence[int]) -> np.ndarray:
    return np.array(
        image.TransformIndexToPhysicalPoint([int(at * (count - 1)) for at, count in zip(corner, image.GetSize())])
    )
