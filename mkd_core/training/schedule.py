"""What every step of a run does, computed from the settings: learning rate, class weights, and what learns.

Stages say at which resolution and rate a run learns, phases say which parts of the method learn; both are lists in the
settings, and nothing else depends on how far a run is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mkd_core.training.config import Generators, TrainingConfig

#: Steps over which a run's learning rate rises from nothing.
WARM_UP_STEPS = 50


@dataclass(frozen=True)
class StepPlan:
    """One step; the defaults are the whole method at its peak learning rate.

    Attributes:
        step: its number in the run, from 0.
        lr: learning rate as a fraction of its peak.
        class_weight_power: power to which the class weights of the cross-entropy are raised.
        generators: whether the generators train, only translate, or are not used.
        distillation: fraction of the weight of distillation, 0 to 1; None leaves distillation out.
        cross_supervision: weight of the labels of the other stream.
    """

    step: int = 0
    lr: float = 1.0
    class_weight_power: float = 1.0
    generators: Generators = "train"
    distillation: float | None = 1.0
    cross_supervision: float = 0.0


def plan_at(config: TrainingConfig, step: int) -> StepPlan:
    """What a step of a run does.

    Args:
        config: of the run.
        step: 0 up to the length of the run.
    """
    stage = config.stage_at(step).stage
    phase, first = config.phase_at(step)
    ramp = phase.distillation_ramp
    distillation = (min(1.0, (step - first) / ramp) if ramp else 1.0) if phase.distillation else None
    return StepPlan(
        step,
        learning_rate(config, step),
        stage.class_weight_power,
        phase.generators,
        distillation,
        phase.cross_supervision,
    )


def learning_rate(config: TrainingConfig, step: int) -> float:
    """Learning rate of a step as a fraction of its peak: a short warm-up, then in every stage a cosine from ``lr_from``
    to ``lr_to`` (Loshchilov and Hutter, "SGDR", ICLR 2017).
    """
    stage, _, first = config.stage_at(step)
    fall = 0.5 * (1 + np.cos(np.pi * (step - first) / stage.steps))
    return float(stage.lr_to + (stage.lr_from - stage.lr_to) * fall) * min(1.0, (step + 1) / WARM_UP_STEPS)


def translates(config: TrainingConfig, steps: int) -> bool:
    """Whether after so many steps S_syn has last learnt from translated images, so that a bundle should translate."""
    phase, _ = config.phase_at(max(0, steps - 1))
    return config.method.translates and phase.generators != "off"
