"""Settings to start a run from: the paper's, which are the defaults; those with what was added to the method since; and
those of the target alone, to compare with.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mkd_core.training.config import MethodConfig, NetworksConfig, Phase, Stage, TrainingConfig

#: Generators of half a million parameters in which grey values can change from voxel to voxel, and discriminators that
#: see texture.
GENERATORS: dict[str, Any] = {
    "generator": 8,
    "generator_levels": 3,
    "generator_blocks": 2,
    "generator_skips": True,
    "discriminator": 8,
    "discriminator_halvings": 1,
}

#: Segmentors teach G_a2t what target images look like, and the cycle does not hold it back.
ALIGNMENT: dict[str, Any] = {"semantic_weight": 1.0, "cycle_weight": 2.0, "generator_lr": 2e-3}

#: Segmentors have to know something before they can teach, and images that change no more are easier to learn from.
#: Lengths are thousandths of a run.
_PHASES = (Phase(300, "off"), Phase(200), Phase(0, "frozen"))

#: A coarse stage, where a step is cheap and sees the whole heart, before a fine one.
_STAGES = (
    Stage(4000, 3.0, 48, lr_to=0.3),
    Stage(8000, 2.0, 64, lr_from=0.6, class_weight_power=0.2),
)


def phases(steps: int, cross_supervision: float = 1.0) -> tuple[Phase, ...]:
    """Phases of a run of so many steps.

    Args:
        steps: of the run.
        cross_supervision: weight of the labels of the other segmentor's stream.
    """
    lengths = [max(1, round(steps * phase.steps / 1000)) if phase.steps else 0 for phase in _PHASES]
    return tuple(
        replace(phase, steps=length, cross_supervision=cross_supervision) for phase, length in zip(_PHASES, lengths)
    )


#: By name; ``mkd train --settings NAME`` prints them.
RECIPES: dict[str, TrainingConfig] = {
    "paper": TrainingConfig(),
    "few-labels": TrainingConfig(
        networks=NetworksConfig(segmentor_norm="batch-per-stream", **GENERATORS),
        method=MethodConfig(**ALIGNMENT),
        stages=_STAGES,
        phases=phases(sum(stage.steps for stage in _STAGES)),
    ),
    "target-only": TrainingConfig(method=MethodConfig(scheme="target-only"), stages=_STAGES),
}
