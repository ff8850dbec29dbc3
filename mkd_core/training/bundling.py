"""From a run's networks to a weights bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from mkd_core.errors import InputError
from mkd_core.io.bundle import Bundle, default_bundle_path, load_bundle, read_description, save_bundle
from mkd_core.method.networks import TRAINING_ONLY, deployed
from mkd_core.protocol import MODALITIES
from mkd_core.training import localiser
from mkd_core.training.config import TrainingConfig


@dataclass(frozen=True)
class _Localiser:
    """The heart localiser, a network of its own that is trained apart: architecture, what a bundle says of it,
    weights.
    """

    architecture: dict[str, Any]
    description: dict[str, Any]
    weights: Mapping[str, torch.Tensor]


def _localiser(config: TrainingConfig) -> _Localiser:
    """The localiser that the settings name: of a bundle, or fresh from :mod:`mkd_core.training.localiser`.

    Raises:
        InputError: it was trained on another range of intensities than the run's.
    """
    path = Path(config.run.localiser or default_bundle_path())
    if path.suffix == ".pt":
        found = _Localiser(
            localiser.ARCHITECTURE, localiser.DESCRIPTION, torch.load(path, map_location="cpu", weights_only=True)
        )
        seen = localiser.NORMALISATION
    else:
        bundle = load_bundle(path, self_test=False)
        found = _Localiser(
            bundle.metadata["networks"]["localiser"],
            bundle.metadata["localiser"] | {"structures": [one.key for one in bundle.localiser_structures]},
            bundle.network("localiser").state_dict(),
        )
        seen = {modality: bundle.normalisation(modality) for modality in MODALITIES}
    if seen != config.data.normalisation():
        raise InputError(
            f"The heart localiser of “{path.name}” was trained on other ranges of intensities than “data.ct_window” "
            "and “data.mr_percentiles” say.",
            "Set them back, or train a localiser of your own (mkd_core.training.localiser).",
        )
    return found


def box_margin_mm(config: TrainingConfig) -> float:
    """Margin round the heart of the box that the run's bundles will segment, mm: the one its localiser comes with."""
    path = Path(config.run.localiser or default_bundle_path())
    if path.suffix == ".pt":
        return localiser.MARGIN_MM
    return float(read_description(path)["localiser"]["margin_mm"])


def _name_of(path: Path | str) -> str:
    described = load_bundle(path, self_test=False).metadata
    return f"{described['name']} {described['version']}"


class BundleWriter:
    """Writes the bundles of a run.

    Args:
        config: of the run.
        data: the training data in words, unless the settings say them.
    """

    def __init__(self, config: TrainingConfig, data: str) -> None:
        self._config = config
        self._data = config.bundle.data or data
        self._localiser = _localiser(config)
        self._start = _name_of(config.run.start) if config.run.start else None

    def write(
        self,
        path: Path,
        parts: Mapping[str, nn.Module],
        *,
        steps: int,
        alignment: str,
        translate: bool,
        quality: Mapping[str, Any] | None = None,
    ) -> Bundle:
        """Write a bundle; one that is there already is replaced when the new one is complete.

        Args:
            path: file to write.
            parts: both generators and both segmentors, made by :func:`mkd_core.method.networks.build`.
            steps: how far the run is.
            alignment: what S_syn sees of a target volume, see :mod:`mkd_core.method.alignment`.
            translate: whether volumes of the assistant modality are translated.
            quality: measured figures.

        Returns:
            The bundle as it was read back.
        """
        config = self._config
        stage, _, _ = config.stage_at(max(0, min(steps, config.steps) - 1))
        architectures = {part: deployed(cast(dict[str, Any], network.architecture)) for part, network in parts.items()}
        metadata = {
            "name": config.bundle.name or Path(config.out).name or "unnamed",
            "version": config.bundle.version,
            "target": config.target,
            "assistant": config.assistant,
            "structures": list(config.data.structures),
            "networks": {"localiser": self._localiser.architecture, **architectures},
            "localiser": self._localiser.description,
            "segmentor": {"spacing_mm": _plain(stage.spacing_mm), "max_box_mm": list(config.bundle.box_mm)},
            "normalisation": config.data.normalisation(),
            "alignment": {"target": alignment, "assistant": "translate" if translate else "none"},
            "training": {
                "data": self._data,
                "scheme": "online mutual knowledge distillation, Li, Yu, Wang, Heng, AAAI 2020"
                if config.method.scheme == "mutual-distillation"
                else config.method.scheme,
                "steps": steps,
                "seed": config.run.seed,
                "distillation": config.method.distillation,
                "distillation_images": config.method.distillation_images,
                "distillation_weight": config.method.distillation_weight,
            }
            | ({"started_from": self._start} if self._start else {}),
            "quality": dict(quality or {}),
            "licence": config.bundle.licence,
            "intended_use": config.bundle.intended_use,
        }
        weights = {"localiser": self._localiser.weights}
        weights |= {
            part: {name: one for name, one in network.state_dict().items() if not name.startswith(TRAINING_ONLY)}
            for part, network in parts.items()
        }
        return save_bundle(path, metadata, weights, dtype=config.bundle.numbers)


def _plain(spacing: float | tuple[float, float, float]) -> float | list[float]:
    return list(spacing) if isinstance(spacing, tuple) else spacing
