"""Settings of a training run: every one with its unit, its default and the values that make sense.

A run is described by a TOML file; its tables are the classes of this file::

    target = "CT"
    out = "runs/mine"
    [data]
    cases = "MMWHS"
    [[stages]]
    steps = 6000
    spacing_mm = 2.0
    patch = 64

``mkd train --settings`` prints all of them.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import tomllib
import types
import typing
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from mkd_core.errors import InputError
from mkd_core.inference.geometry import Spacing
from mkd_core.method.strides import level_strides, total
from mkd_core.protocol import (
    BOX_SIDE_RANGE,
    DEVICES_IN_WORDS,
    GRID_SPACING_RANGE,
    MAX_THREADS,
    Modality,
    Precision,
    TargetPolicy,
)
from mkd_core.structures import BY_KEY, STRUCTURES, Structure, labelled

#: What the generators do in a phase.
Generators = Literal["train", "frozen", "off"]


def _setting(default: Any, meaning: str, unit: str = "", least: float = -math.inf, most: float = math.inf) -> Any:
    return field(default=default, metadata={"meaning": meaning, "unit": unit, "least": least, "most": most})


@dataclass(frozen=True)
class DataConfig:
    """Where images and labels come from: labelled volumes (``cases``) or hearts that are rendered as the run goes
    (``hearts``).
    """

    cases: str = _setting(
        "", "MM-WHS folder as downloaded, or a CSV file with the columns image, label, modality, split"
    )
    hearts: str = _setting("", "folder of tissue maps NAME_NUMBER.nii.gz, rendered as CT and MR as the run goes")
    structures: tuple[str, ...] = _setting(
        tuple(structure.key for structure in STRUCTURES),
        "keys of the structures to segment, of those in mkd_core.structures; their labels run from 1 on in this order",
    )
    last_heart: int = _setting(200, "hearts with a higher number are never read", least=0)
    own_hearts: int = _setting(30, "hearts drawn by mkd_core.synthesis.anatomy that join those of the folder", least=0)
    bodies: int = _setting(
        1,
        "bodies that each heart is put into; from the second on the heart is anywhere in its beat and may have calcium "
        "or a lead",
        least=1,
    )
    validation: float = _setting(
        0.2, "share of the target's cases that validate, where the CSV does not say", least=0.0, most=0.9
    )
    validation_cases: int = _setting(5, "most cases that a validation segments", "cases", least=0)
    cache_gb: float = _setting(
        4.0, "memory in which volumes are kept, of all processes that read them together", "GB", least=0.0
    )
    folder: str = _setting("", "folder for volumes on the training grid and painted bodies; default OUT/prepared")
    heart_fraction: float = _setting(0.85, "share of the patches that are centred in the heart", least=0.0, most=1.0)
    structure_fraction: float = _setting(
        0.0,
        "share of the patches of labelled volumes that are centred on a voxel of a structure, all structures alike; "
        "the others go by heart_fraction",
        least=0.0,
        most=1.0,
    )
    ct_window: tuple[float, float] = _setting(
        (-300.0, 700.0), "range of CT that the networks see", "HU", least=-2000.0, most=10000.0
    )
    mr_percentiles: tuple[float, float] = _setting(
        (1.0, 99.5), "range of MR that the networks see", "%", least=0.0, most=100.0
    )

    @property
    def catalogue(self) -> tuple[Structure, ...]:
        """The structures to segment, with their labels."""
        return labelled(self.structures)

    def normalisation(self) -> dict[str, dict[str, Any]]:
        """Rules by modality, as a bundle holds them, see :func:`mkd_core.inference.normalisation.normalise`."""
        return {
            "CT": {"kind": "window", "low": self.ct_window[0], "high": self.ct_window[1]},
            "MR": {"kind": "percentile", "low": self.mr_percentiles[0], "high": self.mr_percentiles[1]},
        }


@dataclass(frozen=True)
class NetworksConfig:
    """Sizes of the networks."""

    segmentor: tuple[int, ...] = _setting(
        (16, 32, 64, 128, 160), "features of each level of the segmentors", least=1, most=1024
    )
    generator: int = _setting(8, "features of the generators at full resolution", least=1, most=512)
    generator_blocks: int = _setting(3, "residual blocks of the generators", least=0, most=32)
    discriminator: int = _setting(16, "features of the discriminators' first layer", least=1, most=512)
    segmentor_norm: Literal["batch", "instance", "batch-per-stream"] = _setting(
        "batch",
        "normalisation of the segmentors; batch-per-stream has statistics, scale and shift for each stream of images",
    )
    segmentor_syn_levels: int = _setting(
        0, "levels of S_syn; 0 for those of S_real, more repeat the last one's features", least=0, most=8
    )
    deep_supervision: int = _setting(0, "coarser levels of the segmentors that are supervised too", least=0, most=8)
    voxel: tuple[float, float, float] = _setting(
        (1.0, 1.0, 1.0),
        "sides (x, y, z) of a voxel, in any unit: the networks halve an axis only where its voxels are less than twice "
        "as long as the shortest; the last stage sets it where its slices are thick",
        least=0.01,
        most=100.0,
    )
    generator_levels: int = _setting(1, "how often the generators halve the resolution", least=1, most=4)
    generator_skips: bool = _setting(
        False, "the generators add the features of each level on the way down to those on the way up"
    )
    discriminator_halvings: int = _setting(
        2,
        "how often the discriminators halve the resolution; a score sees 12 voxels with 1, 26 with 2",
        least=1,
        most=4,
    )
    discriminator_scales: int = _setting(
        1, "discriminators of either modality, each at half the resolution of the one before", least=1, most=3
    )

    def architecture(self, kind: str, classes: int = len(STRUCTURES) + 1) -> dict[str, Any]:
        """Description of a network for :func:`mkd_core.method.networks.build`.

        Args:
            kind: ``"segmentor_real"``, ``"segmentor_syn"``, ``"generator"`` or ``"discriminator"``.
            classes: that segmentors tell apart.
        """
        voxel = {} if len(set(self.voxel)) == 1 else {"voxel": list(self.voxel[::-1])}
        if kind == "generator":
            sizes = {"channels": self.generator, "blocks": self.generator_blocks, "levels": self.generator_levels}
            return {"type": "generator", **sizes, **voxel, **({"skips": True} if self.generator_skips else {})}
        if kind == "discriminator":
            sizes = {"halvings": self.discriminator_halvings, "scales": self.discriminator_scales}
            return {"type": "discriminator", "channels": self.discriminator, **sizes, **voxel}
        segmentor: dict[str, Any] = {
            "type": "segmentor",
            "out_channels": classes,
            "channels": list(self.channels(kind)),
            "norm": self.segmentor_norm,
            **voxel,
        }
        return segmentor | ({"deep_supervision": self.deep_supervision} if self.deep_supervision else {})

    def channels(self, segmentor: str) -> tuple[int, ...]:
        """Features per level of ``"segmentor_real"`` or ``"segmentor_syn"``."""
        known = self.segmentor
        levels = self.segmentor_syn_levels if segmentor == "segmentor_syn" else 0
        return known[: levels or None] + known[-1:] * max(0, levels - len(known))

    @property
    def strides(self) -> tuple[int, int, int]:
        """Sides (z, y, x) of patches are multiples of so many voxels."""
        levels = [len(self.channels(name)) - 1 for name in ("segmentor_real", "segmentor_syn")]
        return total(level_strides(self.voxel[::-1], max(*levels, self.generator_levels)))


#: Weight of the background's cross-entropy; those of the structures are in the catalogue.
_BACKGROUND_WEIGHT = 0.6


def class_weights(structures: Iterable[Structure]) -> tuple[float, ...]:
    """Weights of the cross-entropy: background, then the structures in their order."""
    return (_BACKGROUND_WEIGHT, *(structure.loss_weight for structure in structures))


@dataclass(frozen=True)
class MethodConfig:
    """Switches of the method; defaults are the paper's where known, CycleGAN's elsewhere."""

    scheme: Literal[
        "mutual-distillation", "translated-joint", "target-only", "assistant-only", "joint", "fine-tune"
    ] = _setting(
        "mutual-distillation",
        "the method, or one segmentor to compare it with: trained on the target and on translated images of the "
        "assistant, on the target alone, on the assistant alone, on both modalities at once, or on the assistant first "
        "and then on the target",
    )

    @property
    def translates(self) -> bool:
        """Whether the scheme has generators."""
        return self.scheme in ("mutual-distillation", "translated-joint")

    gan: Literal["least-squares", "cross-entropy"] = _setting("least-squares", "form of the adversarial loss")
    adversarial_weight: float = _setting(1.0, "weight of the generators' adversarial loss", least=0.0)
    cycle_weight: float = _setting(10.0, "weight of the L1 cycle loss, both ways", least=0.0)
    identity_weight: float = _setting(0.0, "weight of the identity loss; CycleGAN's is half the cycle's", least=0.0)
    pool: int = _setting(50, "past translated images that each discriminator is shown", "images", least=0)
    distillation: Literal["both", "syn-to-real", "real-to-syn", "none"] = _setting(
        "both", "which segmentor teaches which"
    )
    distillation_images: Literal["teacher-stream", "student-stream", "both"] = _setting(
        "teacher-stream",
        "images that distillation looks at: those the teacher is supervised on, those the student is, or both",
    )
    distillation_weight: float = _setting(0.5, "weight w of both distillation losses", least=0.0)
    temperature: float = _setting(2.0, "T of the softened probabilities", least=0.1, most=100.0)
    distillation_dice: float = _setting(0.0, "weight of the Dice term in a distillation loss", least=0.0)
    distillation_foreground: float = _setting(
        1.0, "weight of a voxel that the teacher takes for a structure; background has 1", least=0.0
    )
    distillation_confidence: float = _setting(
        0.0, "least probability of the teacher's class; voxels below it teach nothing", least=0.0, most=1.0
    )
    segmentation_trains_generator: bool = _setting(
        True, "the loss of S_syn also trains G_a2t; false leaves it to the adversarial and cycle losses"
    )
    semantic_weight: float = _setting(
        0.0,
        "weight of the loss on translated images of the segmentors that see target images, which trains G_a2t alone: "
        "what the assistant labels has to look as they know it from the target",
        least=0.0,
    )
    clip: Literal["optimiser", "network"] = _setting(
        "optimiser",
        "whose gradients are scaled down to norm 5 together: both generators' and both segmentors', or each network's",
    )
    class_weights: tuple[float, ...] = _setting(
        class_weights(STRUCTURES),
        "weights of the cross-entropy: background, then the structures in their order; default: those of the catalogue",
        least=0.0,
    )
    segmentor_lr: float = _setting(2e-3, "peak learning rate of the segmentors (AdamW)", least=0.0, most=1.0)
    generator_lr: float = _setting(
        2e-4, "peak learning rate of generators and discriminators (Adam)", least=0.0, most=1.0
    )
    generator_beta1: float = _setting(0.5, "beta1 of generators and discriminators", least=0.0, most=0.999)


@dataclass(frozen=True)
class Stage:
    """Part of a run at one resolution."""

    steps: int = _setting(6000, "length", "steps", least=1)
    spacing_mm: float | tuple[float, float, float] = _setting(
        2.0, "voxel size; three numbers (x, y, z) where slices are thick", "mm", *GRID_SPACING_RANGE
    )
    patch: int | tuple[int, int, int] = _setting(
        64,
        "side of a patch, a multiple of the networks' stride; or three (x, y, z)",
        "voxels",
        least=4,
        most=512,
    )
    batch: int = _setting(2, "patches of either modality per step, of all processes together", "patches", least=1)
    lr_from: float = _setting(1.0, "learning rate at the start, of its peak; falls along a cosine", least=0.0, most=1.0)
    lr_to: float = _setting(0.0, "learning rate at the end, of its peak", least=0.0, most=1.0)
    class_weight_power: float = _setting(
        1.0,
        "power of the class weights: 1 wakes small structures early, 0 lets borders settle where they are likeliest",
        least=0.0,
        most=2.0,
    )
    freeze_batch_norm: bool = _setting(
        False,
        "normalise by the running statistics that the stage starts with, just as inference does, so that a batch may "
        "be one large patch; for networks that have learnt",
    )

    @property
    def spacing(self) -> Spacing:
        """Voxel size, mm; (z, y, x) where voxels are not cubic."""
        if not isinstance(self.spacing_mm, tuple):
            return self.spacing_mm
        x, y, z = self.spacing_mm
        return z, y, x

    @property
    def patch_size(self) -> tuple[int, int, int]:
        """Voxels of a patch along (z, y, x)."""
        x, y, z = self.patch if isinstance(self.patch, tuple) else (self.patch,) * 3
        return z, y, x


@dataclass(frozen=True)
class Phase:
    """Part of a run in which the same parts of the method learn; phases follow each other and the last one goes on to
    the end of the run, however the stages are cut.
    """

    steps: int = _setting(0, "length; 0, for the last phase, is the rest of the run", "steps", least=0)
    generators: Generators = _setting(
        "train",
        "image alignment (IAM): train the generators and discriminators online, as the paper does; frozen translates "
        "with the generators as they are (see run.start); off shows S_syn the assistant's images as they are",
    )
    distillation: bool = _setting(
        True,
        "the segmentors teach each other; false lets each learn from its own modality alone, for a quarter of the time",
    )
    distillation_ramp: int = _setting(
        0, "steps over which the weight of distillation rises from nothing", "steps", least=0
    )
    cross_supervision: float = _setting(
        0.0,
        "weight of supervising each segmentor also on the images and labels of the other one's stream; joins the two "
        "in a late phase",
        least=0.0,
    )


class StageSpan(NamedTuple):
    """Where a step is: its stage, the stage's number, and the stage's first step."""

    stage: Stage
    number: int
    first: int

    @property
    def end(self) -> int:
        """First step after the stage."""
        return self.first + self.stage.steps


@dataclass(frozen=True)
class AugmentationConfig:
    """Random changes of patches of labelled volumes (MONAI); patches of rendered hearts vary of themselves."""

    rotation_deg: float = _setting(12.0, "largest turn about each axis", "degrees", least=0.0, most=180.0)
    scale: float = _setting(0.15, "largest growth or shrinkage", least=0.0, most=0.8)
    elastic_mm: float = _setting(
        6.0, "largest elastic displacement of the patch's middle, roughly", "mm", least=0.0, most=50.0
    )
    elastic_probability: float = _setting(0.5, "share of the patches that are bent", least=0.0, most=1.0)
    noise: float = _setting(
        0.05, "largest standard deviation of added noise; the images' range is 2", least=0.0, most=1.0
    )
    blur: float = _setting(0.8, "largest standard deviation of smoothing", "voxels", least=0.0, most=10.0)
    contrast: float = _setting(0.3, "largest change of gamma; 0.3 draws from 0.7 to 1.3", least=0.0, most=0.9)
    brightness: float = _setting(0.15, "largest shift and change of scale; the images' range is 2", least=0.0, most=1.0)
    share: float = _setting(0.5, "share of the patches that each change of intensity meets", least=0.0, most=1.0)


@dataclass(frozen=True)
class RunConfig:
    """How the run is carried out."""

    seed: int = _setting(0, "decides weights, patches and augmentation", least=0)
    device: str = _setting("auto", DEVICES_IN_WORDS)
    precision: Precision = _setting("auto", "number format of the networks' arithmetic")
    processes: int = _setting(1, "training processes on this machine; under torchrun its own count", least=1, most=64)
    threads: int = _setting(0, "CPU threads of each process; 0 shares all cores", "threads", least=0, most=MAX_THREADS)
    num_workers: int = _setting(1, "processes that cut or render patches for each training process", least=0, most=64)
    average_decay: float = _setting(
        0.999, "decay of the exponential moving average of weights", least=0.0, most=0.99999
    )
    checkpoint_minutes: float = _setting(4.0, "time between checkpoints", "min", least=0.0)
    validate_every: int = _setting(500, "steps between validations", "steps", least=1)
    patience: int = _setting(
        0, "validations in a row without a better one after which the run ends; 0 never ends it early", least=0
    )
    localiser: str = _setting(
        "",
        "bundle whose heart localiser is taken, or localiser.pt of mkd_core.training.localiser; default: the bundle "
        "that comes with this package",
    )
    start: str = _setting("", "bundle whose generators and segmentors the run starts from")


@dataclass(frozen=True)
class BundleConfig:
    """What the run's bundle says about itself."""

    name: str = _setting("", "name of the weights; default: the name of the run's folder")
    version: str = _setting("1.0", "version of the weights")
    licence: str = _setting("not stated", "licence of the weights")
    data: str = _setting("", "training data in words")
    alignment: Literal["measured", TargetPolicy] = _setting(
        "measured",
        "what S_syn sees of a target volume: its reconstruction, itself, or both; measured takes what "
        "validates best (cycle, unless another gains 0.001 Dice)",
    )
    ensemble: Literal["mean", "measured"] = _setting(
        "mean",
        "how the segmentors' predictions are joined: both count half, as in the paper, or S_real has the weight that "
        "validates best",
    )
    intended_use: str = _setting(
        "Research. Not a medical device; not for clinical decisions.", "what the weights are for"
    )
    box_mm: tuple[float, float, float] = _setting(
        (256.0, 256.0, 320.0), "largest box that is segmented (x, y, z)", "mm", *BOX_SIDE_RANGE
    )
    numbers: Literal["float16", "int8"] = _setting(
        "float16", "how weights are stored; int8 halves the file and rounds them to 127 steps of each channel"
    )


@dataclass(frozen=True)
class TrainingConfig:
    """A training run."""

    target: Modality = _setting("CT", "modality that is to be segmented; the other one is the assistant")
    out: str = _setting("", "folder of the run")
    data: DataConfig = field(default_factory=DataConfig)
    networks: NetworksConfig = field(default_factory=NetworksConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    stages: tuple[Stage, ...] = (Stage(),)
    phases: tuple[Phase, ...] = (Phase(),)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    run: RunConfig = field(default_factory=RunConfig)
    bundle: BundleConfig = field(default_factory=BundleConfig)

    def __post_init__(self) -> None:
        if self.method.class_weights == class_weights(STRUCTURES) and set(self.data.structures) <= set(BY_KEY):
            weights = class_weights(self.data.catalogue)
            object.__setattr__(self, "method", dataclasses.replace(self.method, class_weights=weights))
        voxel = self.stages[-1].spacing_mm
        if isinstance(voxel, tuple):
            object.__setattr__(self, "networks", dataclasses.replace(self.networks, voxel=voxel))

    @property
    def assistant(self) -> str:
        """The other modality."""
        return "MR" if self.target == "CT" else "CT"

    @property
    def steps(self) -> int:
        """Length of the run."""
        return sum(stage.steps for stage in self.stages)

    def stage_at(self, step: int) -> StageSpan:
        """The stage of a step.

        Raises:
            ValueError: the run is shorter.
        """
        first = 0
        for number, stage in enumerate(self.stages):
            if step < first + stage.steps:
                return StageSpan(stage, number, first)
            first += stage.steps
        raise ValueError(f"the run ends at step {first}")

    def phase_at(self, step: int) -> tuple[Phase, int]:
        """(phase, its first step) of a step."""
        first = 0
        for phase in self.phases[:-1]:
            if step < first + phase.steps:
                return phase, first
            first += phase.steps
        return self.phases[-1], first


def load_config(path: Path | str, changes: Iterable[str] = ()) -> TrainingConfig:
    """Read and check the settings of a run; relative paths in them count from the file's folder.

    Args:
        path: TOML file.
        changes: settings that replace the file's, each like ``data.hearts=FOLDER``; relative paths in them count from
            the working folder.

    Raises:
        InputError: no such file, not TOML, a change that is none, or whatever :func:`config_from` refuses.
    """
    path = Path(path)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"“{path}” cannot be read.") from error
    except (ValueError, RecursionError) as error:  # not TOML, not UTF-8, or a number of thousands of digits
        raise InputError(f"“{path.name}” is not a TOML file: {error}.") from error
    here = path.absolute().parent
    _make_absolute(values, here)
    for change in changes:
        apply_change(change, values)
    return config_from(values)


#: Settings that name files and folders, by table.
_PATHS = {"": ("out",), "data": ("cases", "hearts", "folder"), "run": ("localiser", "start")}


def _make_absolute(values: dict[str, Any], folder: Path) -> None:
    for table, names in _PATHS.items():
        found = values.get(table, {}) if table else values
        for name in names if isinstance(found, dict) else ():
            if isinstance(found.get(name), str) and found[name]:
                found[name] = str(folder / found[name])


def apply_change(change: str, values: dict[str, Any]) -> None:
    """Set one value, written like ``method.temperature=3``, in plain settings; it is read as TOML if it is that, else
    as text.

    Raises:
        InputError: it does not set anything.
    """
    name, equals, text = change.partition("=")
    *tables, last = name.strip().split(".")
    if not (equals and last):
        raise InputError(f"“{change}” does not set anything.", "Write it like data.hearts=FOLDER.")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        value = text
    for table in tables:
        values = values.setdefault(table, {})
        if not isinstance(values, dict):
            raise InputError(f"There is no setting “{name.strip()}”.")
    if last in _PATHS.get(".".join(tables), ()) and isinstance(value, str) and value:
        value = str(Path(value).absolute())
    values[last] = value


#: Names that settings had up to version 0.3, by table; files that use them still load.
_OLD_NAMES = {
    "readers": "num_workers",
    "rate_from": "lr_from",
    "rate_to": "lr_to",
    "weighting": "class_weight_power",
    "fixed_statistics": "freeze_batch_norm",
    "segmentor_rate": "segmentor_lr",
    "generator_rate": "generator_lr",
    "generator_momentum": "generator_beta1",
    "heart_share": "heart_fraction",
    "elastic_share": "elastic_probability",
}


def config_from(values: dict[str, Any]) -> TrainingConfig:
    """Settings from plain values, such as come from TOML; what is not named keeps its default.

    Raises:
        InputError: an unknown setting, a value of the wrong kind or out of range, or settings that contradict each
            other; names it.
    """
    config = _build(TrainingConfig, _with_phases(values), "")
    _check_together(config)
    return config


@dataclass(frozen=True)
class _ScheduleFlags:
    """Settings of the table ``method`` that up to version 0.3 said what phases say now."""

    alignment: bool = True
    pretrain_steps: int = _setting(0, "", "steps", least=0)
    pretrain_alignment: bool = False
    freeze_generators: bool = False
    distillation_ramp: int = _setting(0, "", "steps", least=0)


#: Other names of these settings.
_OLD_FLAGS = {
    "separate_steps": "pretrain_steps",
    "separate_alignment": "pretrain_alignment",
    "resting_generators": "freeze_generators",
}


def _with_phases(values: dict[str, Any]) -> dict[str, Any]:
    """The same values with a list of phases instead of the flags of earlier versions."""
    method = values.get("method", {})
    if not isinstance(method, dict):
        return values
    flags = {one.name for one in dataclasses.fields(_ScheduleFlags)} | set(_OLD_FLAGS)
    found = [name for name in method if name in flags]
    if not found:
        return values
    listed = ", ".join(f"“method.{name}”" for name in found)
    if "phases" in values:
        raise InputError(f"Both “phases” and {listed} are set.", "Use “phases” alone.")
    warnings.warn(f"{listed}: use “phases” instead.", FutureWarning, stacklevel=3)
    old = _build(_ScheduleFlags, {_OLD_FLAGS.get(name, name): method[name] for name in found}, "method")
    generators = "off" if not old.alignment else "frozen" if old.freeze_generators else "train"
    phases: list[dict[str, Any]] = [{"generators": generators, "distillation_ramp": old.distillation_ramp}]
    if old.pretrain_steps:
        at_first = "frozen" if old.alignment and old.pretrain_alignment else "off"
        phases.insert(0, {"steps": old.pretrain_steps, "generators": at_first, "distillation": False})
    others = {name: value for name, value in method.items() if name not in found}
    return {**values, "method": others, "phases": phases}


def _build(kind: type, values: Any, place: str) -> Any:
    if not isinstance(values, dict):
        raise InputError(f"“{place}” must be a table of settings.")
    hints = typing.get_type_hints(kind)
    settings = {one.name: one for one in dataclasses.fields(kind)}
    values = {_current_name(name, settings, place): value for name, value in values.items()}
    for name in values:
        if name not in settings:
            near = difflib.get_close_matches(name, settings, 1)
            raise InputError(
                f"There is no setting “{_join(place, name)}”.",
                f"Did you mean “{_join(place, near[0])}”?" if near else "",
            )
    return kind(
        **{
            name: _value(hints[name], value, _join(place, name), settings[name].metadata)
            for name, value in values.items()
        }
    )


def _current_name(name: str, settings: typing.Container[str], place: str) -> str:
    new = _OLD_NAMES.get(name, name)
    if name in settings or new not in settings:
        return name
    warnings.warn(
        f"The setting “{_join(place, name)}” is now called “{_join(place, new)}”.", FutureWarning, stacklevel=2
    )
    return new


def _join(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name


#: Whole numbers beyond this fit into no library.
_LARGEST = 2**63 - 1


def _value(kind: Any, value: Any, place: str, limits: typing.Mapping[str, Any]) -> Any:
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return _build(kind, value, place)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:  # one value, or one for each axis
        one, each = arguments
        return _value(each if isinstance(value, (list, tuple)) else one, value, place, limits)
    if origin is tuple:
        if not isinstance(value, (list, tuple)) or not value:
            raise InputError(f"“{place}” must be a list.")
        many = arguments[-1] is Ellipsis
        if not many and len(value) != len(arguments):
            raise InputError(f"“{place}” must hold {len(arguments)} values, not {len(value)}.")
        kinds = [arguments[0]] * len(value) if many else arguments
        return tuple(
            _value(one, item, f"{place}[{number}]", limits) for number, (one, item) in enumerate(zip(kinds, value))
        )
    if origin is Literal:
        if value not in arguments:
            raise InputError(f"“{place}” cannot be {value!r}.", f"Choose one of {', '.join(map(repr, arguments))}.")
        return value
    if isinstance(value, int) and abs(value) > _LARGEST:
        raise InputError(f"“{place}” is too large a number.")
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not kind:
        named = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}[kind]
        raise InputError(f"“{place}” must be {named}, not {value!r}.")
    if kind in (int, float) and not limits["least"] <= value <= limits["most"]:
        unit = f" {limits['unit']}" if limits["unit"] else ""
        bounds = (
            f"at least {limits['least']:g}"
            if math.isinf(limits["most"])
            else f"from {limits['least']:g} to {limits['most']:g}"
        )
        raise InputError(f"“{place}” must be {bounds}{unit}, not {value:g}.")
    return value


def _check_together(config: TrainingConfig) -> None:
    if config.data.cases and config.data.hearts:
        raise InputError(
            "Both “data.cases” and “data.hearts” are set.", "Choose one: labelled volumes, or hearts that are rendered."
        )
    for key in config.data.structures:
        if key not in BY_KEY:
            raise InputError(
                f"“data.structures” names an unknown structure “{key}”.", f"Choose from {', '.join(BY_KEY)}."
            )
    if len(set(config.data.structures)) != len(config.data.structures):
        raise InputError("“data.structures” names a structure twice.")
    classes = len(config.data.structures) + 1
    if len(config.method.class_weights) != classes or not any(config.method.class_weights):
        raise InputError(f"“method.class_weights” must hold {classes} numbers that are not all 0.")
    for name in ("ct_window", "mr_percentiles"):
        low, high = getattr(config.data, name)
        if low >= high:
            raise InputError(f"“data.{name}” must rise: {low:g} is not below {high:g}.")
    uses = [phase.generators for phase in config.phases]
    if "frozen" in uses and "train" not in uses and not config.run.start:
        raise InputError(
            f"“phases[{uses.index('frozen')}].generators” needs generators that have learnt.",
            "Set “run.start” to a bundle, or let a phase train them.",
        )
    for number, phase in enumerate(config.phases[:-1]):
        if not phase.steps:
            raise InputError(f"“phases[{number}].steps” must be at least 1: only the last phase may be left open.")
    for number, stage in enumerate(config.stages):
        for axis, side, stride in zip("zyx", stage.patch_size, config.networks.strides):
            if side % stride:
                raise InputError(
                    f"“stages[{number}].patch” must be a multiple of {stride} along {axis}, not {side}: the networks "
                    f"halve it {stride.bit_length() - 1} times."
                )
        if config.data.hearts and (isinstance(stage.spacing_mm, tuple) or isinstance(stage.patch, tuple)):
            raise InputError(
                f"“stages[{number}]” has one number for each axis, which rendered hearts do not have.",
                "Give “spacing_mm” and “patch” one number, or train on labelled volumes (“data.cases”).",
            )


def settings_text(config: Any = None, place: str = "") -> str:
    """All settings with value, unit and meaning, one a line, grouped as in the TOML file.

    Args:
        config: whose; None for the defaults.
        place: table of the file that it is.
    """
    config = TrainingConfig() if config is None else config
    lines, tables = [], []
    hints = typing.get_type_hints(type(config))
    for one in dataclasses.fields(config):
        value, hint = getattr(config, one.name), hints[one.name]
        inner = typing.get_args(hint)[0] if typing.get_origin(hint) is tuple else hint
        if isinstance(inner, type) and dataclasses.is_dataclass(inner):
            heading = f"[[{one.name}]]" if inner is not hint else f"[{one.name}]"
            for number, part in enumerate(value if inner is not hint else (value,)):
                comment = f"  # {(inner.__doc__ or '').splitlines()[0]}" if not number else ""
                tables.append(f"\n{heading}{comment}\n{settings_text(part, one.name)}")
            continue
        unit = f", {one.metadata['unit']}" if one.metadata["unit"] else ""
        choices = f" ({', '.join(typing.get_args(hint))})" if typing.get_origin(hint) is Literal else ""
        lines.append(f"{one.name} = {_toml(value)}  # {one.metadata['meaning']}{choices}{unit}")
    return "\n".join(lines + tables)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return f"{value:g}" if isinstance(value, float) and value >= 1 else str(value)
