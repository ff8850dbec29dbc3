"""A synthetic cross-modality benchmark: hearts drawn from formulas, rendered as CT and as MR, few of them labelled in
the target modality.

No two hearts are the same: those labelled in the target modality, those of the assistant modality and those of the test
    are all different people.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from mkd_core.evaluation.cases import Case
from mkd_core.io.volumes import write_volume
from mkd_core.synthesis import appearance, body, render
from mkd_core.synthesis.anatomy import make_heart
from mkd_core.synthesis.appearance import Appearance
from mkd_core.synthesis.render import TARGET_OF, Canvas
from mkd_core.synthesis.tissues import Tissue

#: Seed of the first heart of each part; far from those of training (10001) and demo.
_FIRST = {"labelled": 50001, "assistant": 51001, "test": 52001, "validation": 53001}

#: Voxel size of the tissue maps, and of the volumes, mm.
_TISSUE_MM, _VOLUME_MM = 1.5, 2.0

#: People of the benchmark differ this much more than the usual hearts of formulas do, so that a few of them are few.
_SPREAD = 1.5

#: Body shown around the heart, mm.
_AROUND_MM = 20.0


@dataclass(frozen=True)
class Part:
    """Hearts of one purpose in one modality.

    Attributes:
        kind: ``"labelled"`` (target modality, trains), ``"assistant"``, ``"validation"`` or ``"test"``.
        modality: "CT" or "MR".
        count: hearts.
    """

    kind: str
    modality: str
    count: int


def make_part(part: Part, folder: Path, jobs: int = 1) -> list[Case]:
    """Generate the volumes of a part; those that are there are kept.

    Args:
        part: what to make.
        folder: for the files.
        jobs: processes.

    Returns:
        The cases, in order of their seeds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    cases = []
    for number in range(part.count):
        name = f"{part.kind}_{part.modality}_{number:03d}"
        cases.append(Case(name, folder / f"{name}_image.nrrd", folder / f"{name}_label.nrrd", part.modality, part.kind))
    missing = [(case, _FIRST[part.kind] + number) for number, case in enumerate(cases) if not case.label.exists()]
    if missing:
        with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
            list(pool.map(_make, *zip(*missing)))
    return cases


def _make(case: Case, seed: int) -> None:
    image, truth = render_person(seed, case.modality)
    write_volume(image, case.image)
    write_volume(truth, case.label)  # last: it says that the case is complete


def _protocol_look(modality: str, rng: np.random.Generator) -> Appearance:
    """Appearance of a scan of one hospital's protocol: CT angiography with the right heart weaker, or bright-blood MR
    of fair quality.

    Few labelled scans of one protocol are what the method was made for; how well a network copes with protocols that it
    never saw is another question.
    """
    while True:
        look = appearance.draw(modality, rng)
        left, right, muscle = (float(look.mean[t]) for t in (Tissue.LV, Tissue.RV, Tissue.MYOCARDIUM))
        if modality == "CT":
            fits = (
                280 < left < 520
                and 0.3 < right / left < 0.9
                and not look.streaks
                and look.noise < 50
                and look.slice_mm < 2.5
            )
        else:
            fits = (
                0.75 < left < 1.25
                and 0.75 < right < 1.25
                and muscle < 0.55
                and look.noise < 0.08
                and look.bias < 0.3
                and look.slice_mm < 2.5
            )
        if fits:
            return look


def render_person(seed: int, modality: str) -> tuple[sitk.Image, sitk.Image]:
    """A volume and its truth (labels 0 to 7, the left atrium without stubs of its veins), LPS; one seed is one person,
    in whatever modality.
    """
    heart = make_heart(seed, _TISSUE_MM, _SPREAD)
    tissues = render.body_canvas(heart, seed, body.chest_extent(heart, _AROUND_MM))
    canvas = Canvas.from_array(sitk.GetArrayFromImage(tissues), _TISSUE_MM)
    rng = np.random.default_rng((seed, {"CT": 0, "MR": 1}[modality]))
    axes = [np.arange(int(count * _TISSUE_MM / _VOLUME_MM)) * _VOLUME_MM for count in canvas.tissues.shape]
    values, at = render.render_grid(canvas, _protocol_look(modality, rng), rng, axes, _VOLUME_MM, np.zeros(3))
    scale = 500.0 if modality == "MR" else 1.0
    volumes = []
    for array in (np.clip(np.rint(values * scale), -1024, 3071).astype(np.int16), TARGET_OF[at]):
        volume = sitk.GetImageFromArray(array)
        volume.SetSpacing([_VOLUME_MM] * 3)
        volumes.append(volume)
    return volumes[0], volumes[1]
