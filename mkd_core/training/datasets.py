"""What a run trains on and validates with, opened from its settings and checked before any work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import SimpleITK as sitk

from mkd_core.errors import InputError
from mkd_core.evaluation.cases import Case, check_cases, find_cases
from mkd_core.inference.geometry import steps_of
from mkd_core.protocol import MODALITIES
from mkd_core.structures import Structure
from mkd_core.synthesis import appearance, render
from mkd_core.training.bundling import box_margin_mm
from mkd_core.training.config import DataConfig, Stage, TrainingConfig
from mkd_core.training.fingerprints import Fingerprints
from mkd_core.training.labelled_volumes import LabelledVolumes, PreparedVolume, prepare_volume
from mkd_core.training.pairs import PatchSource
from mkd_core.training.rendered_hearts import RenderedHearts, open_canvas, prepare_canvases, training_hearts

#: Called with what is being done and the done share of it.
Notice = Callable[[str, float], None]

#: Seeds of our own hearts that train; the demo and tests use smaller ones.
FIRST_OWN_SEED = 10001

#: Voxel size of rendered hearts that validate, mm.
_VALIDATION_MM = 1.5

_GIGABYTE = 1e9


class TrainingData(Protocol):
    """Patches to train on and whole volumes to validate with.

    Attributes:
        validation: labelled volumes of the target modality that are never trained on.
        assistant_validation: such volumes of the assistant modality, if there are any.
        augments: whether patches need augmentation.
        description: the data in words.
    """

    validation: list[Case]
    assistant_validation: list[Case]
    augments: bool
    description: str

    def fingerprints(self) -> dict[str, str]:
        """SHA-256 of every image and label that trains or validates, by what it is for and its name."""

    def prepare(self, stage: Stage, notice: Notice) -> None:
        """Write the files that a stage needs."""

    def patches(self, modality: str, stage: Stage, size: tuple[int, int, int], budget: float) -> PatchSource:
        """Patches of ``size`` voxels (z, y, x), held in ``budget`` bytes of memory."""


def open_data(config: TrainingConfig, folder: Path) -> TrainingData:
    """The data that settings name.

    Args:
        config: of the run.
        folder: for prepared files.

    Raises:
        InputError: nothing named, or data that cannot be used; names the file.
    """
    if config.data.cases:
        cases = find_cases(Path(config.data.cases))
        return LabelledData.split(cases, config, folder, box_margin_mm(config))
    if config.data.hearts:
        return HeartData(config.data, config.target, folder)
    raise InputError(
        "The settings name no data.", "Set “data.cases” to labelled volumes, or “data.hearts” to tissue maps of hearts."
    )


class LabelledData:
    """Labelled volumes of both modalities.

    Args:
        training: cases of either modality that train.
        validation: cases of the target modality that validate.
        config: of the data.
        folder: for volumes on the training grid.
        margin_mm: of the box round the heart in which a bundle of the run will measure percentiles, mm.
        normalisation: intensity rules by modality; None for those of the settings.
    """

    augments = True

    def __init__(
        self,
        training: Sequence[Case],
        validation: Sequence[Case],
        config: DataConfig,
        folder: Path,
        margin_mm: float,
        normalisation: dict[str, dict[str, Any]] | None = None,
    ) -> None:
        self._rules = normalisation or config.normalisation()
        self.training = list(training)
        self.validation = list(validation)[: config.validation_cases]
        self.assistant_validation: list[Case] = []
        self._config = config
        self._folder = folder
        self._margin_mm = margin_mm
        counts = {modality: sum(case.modality == modality for case in training) for modality in MODALITIES}
        self.description = f"{counts['CT']} labelled CT and {counts['MR']} labelled MR volumes"

    @classmethod
    def split(cls, cases: Sequence[Case], config: TrainingConfig, folder: Path, margin_mm: float) -> LabelledData:
        """Decide which cases train and which validate, and check them all.

        A case trains or validates where its ``split`` says so (``train``, ``validation``), is left alone where it says
        anything else, and where it says nothing the last of the target's cases validate.

        Raises:
            InputError: a case cannot be used, or none is left to train on; names the file.
        """
        needs_assistant = config.method.scheme != "target-only"
        known = [case for case in cases if case.split in ("", "train", "validation")]
        open_target = [case for case in known if case.modality == config.target and not case.split]
        validating = [case for case in known if case.modality == config.target and case.split == "validation"]
        if not validating and config.data.validation:
            share = int(np.ceil(config.data.validation * len(open_target))) if len(open_target) > 1 else 0
            validating = open_target[len(open_target) - share :]
        training = [case for case in known if case.split != "validation" and case not in validating]
        if not needs_assistant:
            training = [case for case in training if case.modality == config.target]
        check_cases(
            training,
            needed=(config.target, config.assistant) if needs_assistant else (config.target,),
            require_all=True,
            structures=config.data.catalogue,
        )
        check_cases(validating, structures=config.data.catalogue)
        return cls(training, validating, config.data, folder, margin_mm)

    def fingerprints(self) -> dict[str, str]:
        """See :class:`TrainingData`."""
        known = Fingerprints(self._folder)
        purposes = [("train", self.training), ("validation", self.validation)]
        found = {
            f"{purpose} {case.modality} {case.name} {kind}": known.of(path)
            for purpose, cases in purposes
            for case in cases
            for kind, path in (("image", case.image), ("label", case.label))
        }
        known.save()
        return found

    def prepare(self, stage: Stage, notice: Notice) -> None:
        """Bring the training volumes to the stage's grid; finished ones are kept."""
        for number, case in enumerate(self.training):
            notice(f"Preparing {case.name}", number / len(self.training))
            self._prepared(case, stage)

    def _prepared(self, case: Case, stage: Stage) -> PreparedVolume:
        rule = self._rules[case.modality]
        return prepare_volume(case, stage.spacing, rule, self._folder, self._margin_mm, self._config.catalogue)

    def patches(self, modality: str, stage: Stage, size: tuple[int, int, int], budget: float) -> PatchSource:
        """See :class:`TrainingData`."""
        volumes = [self._prepared(case, stage) for case in self.training if case.modality == modality]
        config = self._config
        return LabelledVolumes(volumes, size, config.heart_fraction, budget, config.structure_fraction)


class HeartData:
    """Hearts that are rendered as the run goes, in either modality.

    Args:
        config: of the data.
        target: modality that validates.
        folder: for painted bodies and validation volumes.
    """

    augments = False

    #: Of the folder's hearts the last so many are kept from training; every third of them validates.
    _kept_back = 10

    def __init__(self, config: DataConfig, target: str, folder: Path) -> None:
        self._config = config
        self._folder = folder
        self._target = target
        hearts = training_hearts(Path(config.hearts), config.last_heart)
        if not hearts:
            raise InputError(
                f"The folder “{config.hearts}” holds no tissue maps named NAME_NUMBER.nii.gz up to number "
                f"{config.last_heart}."
            )
        kept_back = min(self._kept_back, len(hearts) // 4)
        self._training, kept = hearts[: len(hearts) - kept_back], hearts[len(hearts) - kept_back :]
        self._validating = kept[::3][: config.validation_cases]
        self._own = [folder / f"own_{FIRST_OWN_SEED + number}.nii.gz" for number in range(config.own_hearts)]
        self.validation, self.assistant_validation = (
            self._rendered(modality) for modality in (target, "MR" if target == "CT" else "CT")
        )
        self.description = (
            f"{len(self._training)} hearts of the folder {Path(config.hearts).name} and {config.own_hearts} of "
            "mkd_core.synthesis.anatomy, put into bodies and rendered as CT and MR by mkd_core.synthesis"
        )

    def fingerprints(self) -> dict[str, str]:
        """See :class:`TrainingData`; our own hearts follow from their seeds, and all volumes from the hearts."""
        known = Fingerprints(self._folder)
        purposes = [("train", self._training), ("validation", self._validating)]
        found = {f"{purpose} {path.name}": known.of(path) for purpose, paths in purposes for path in paths}
        known.save()
        return found

    def prepare(self, stage: Stage, notice: Notice) -> None:
        """Draw our own hearts, paint bodies round all, render the volumes that validate; finished files are kept."""
        from mkd_core.synthesis.anatomy import make_heart

        self._folder.mkdir(parents=True, exist_ok=True)
        jobs = len(self._own) + len(self._training) + len(self._validating)
        for number, path in enumerate(self._own):
            notice(f"Drawing {path.name}", number / jobs)
            if not path.exists():
                _write(make_heart(FIRST_OWN_SEED + number), path)
        for number, path in enumerate([*self._training, *self._own]):
            notice(f"Painting a body round {path.name}", number / jobs)
            prepare_canvases([path], self._folder, self._config.bodies)
        for number, path in enumerate(self._validating):
            for case in (self.validation[number], self.assistant_validation[number]):
                notice(f"Rendering {case.name}", 1 - (len(self._validating) - number) / jobs)
                if not case.label.exists():
                    (canvas,) = prepare_canvases([path], self._folder)
                    image, truth = _render_whole(canvas, case.modality, number, self._config.catalogue)
                    _write(image, case.image)
                    _write(truth, case.label)

    def _rendered(self, modality: str) -> list[Case]:
        keys = self._config.structures
        others = "" if keys == DataConfig().structures else "_" + "_".join(keys)  # their truth is another
        return [
            Case(
                path.name.split(".")[0],
                self._folder / f"{modality}_{path.name}",
                self._folder / f"{modality}_truth{others}_{path.name}",
                modality,
                "validation",
            )
            for path in self._validating
        ]

    def patches(self, modality: str, stage: Stage, size: tuple[int, int, int], budget: float) -> PatchSource:
        """See :class:`TrainingData`; canvases are mapped into memory and need no budget."""
        canvases = prepare_canvases([*self._training, *self._own], self._folder, self._config.bodies)
        return RenderedHearts(
            tuple(canvases),
            modality,
            size[0],
            float(steps_of(stage.spacing)[0]),
            self._config.normalisation()[modality],
            self._config.heart_fraction,
            self._config.catalogue,
        )


def _render_whole(
    description: Path, modality: str, number: int, structures: Sequence[Structure]
) -> tuple[sitk.Image, sitk.Image]:
    canvas = open_canvas(description)
    rng = np.random.default_rng(1000 + number)
    axes = render.grid_axes(canvas, _VALIDATION_MM)
    image, tissues = render.render_grid(canvas, appearance.draw(modality, rng), rng, axes, _VALIDATION_MM, np.zeros(3))
    return render.as_images(image, tissues, modality, _VALIDATION_MM, (0.0, 0.0, 0.0), structures)


def _write(image: sitk.Image, path: Path) -> None:
    from mkd_core.io.volumes import write_volume

    write_volume(image, path)


def memory_of_each(config: TrainingConfig) -> float:
    """Bytes that each source of patches may keep in memory, of all processes and both modalities."""
    return config.data.cache_gb * _GIGABYTE / (2 * max(1, config.run.num_workers) * config.run.processes)
