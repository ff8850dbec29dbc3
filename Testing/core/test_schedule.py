"""What each step of a run does: learning rate, class weights, what learns."""

import pytest

pytest.importorskip("torch")

from mkd_core.training.config import MethodConfig, Phase, Stage, TrainingConfig
from mkd_core.training.schedule import learning_rate, plan_at, translates

APART = Phase(steps=4, generators="off", distillation=False)


def test_the_rate_warms_up_and_falls_along_a_cosine_in_every_stage():
    config = TrainingConfig(stages=(Stage(steps=100, lr_from=1.0, lr_to=0.2), Stage(steps=100, lr_from=0.5, lr_to=0.0)))
    rates = [learning_rate(config, step) for step in (0, 24, 100, 150)]
    assert rates[0] == pytest.approx(0.02) and rates[1] < 0.5
    assert rates[2:] == pytest.approx([0.5, 0.25])


def test_a_plan_joins_the_stage_and_the_phase_of_a_step():
    config = TrainingConfig(
        stages=(Stage(steps=6, class_weight_power=1.0), Stage(steps=6, class_weight_power=0.25)),
        phases=(APART, Phase(distillation_ramp=4)),
    )
    plans = [plan_at(config, step) for step in range(12)]
    assert [plan.step for plan in plans] == list(range(12))
    assert [plan.class_weight_power for plan in plans] == [1.0] * 6 + [0.25] * 6
    assert [plan.generators for plan in plans] == ["off"] * 4 + ["train"] * 8
    assert [plan.distillation for plan in plans] == [None] * 4 + [0.0, 0.25, 0.5, 0.75] + [1.0] * 4
    assert [plan.lr for plan in plans] == [learning_rate(config, step) for step in range(12)]


def test_a_bundle_translates_what_s_syn_has_last_learnt_from():
    config = TrainingConfig(stages=(Stage(steps=8),), phases=(APART, Phase()))
    assert [translates(config, steps) for steps in (0, 4, 5, 8)] == [False, False, True, True]
    frozen = TrainingConfig(phases=(Phase(generators="frozen"),))
    assert translates(frozen, 1)
    assert not translates(TrainingConfig(method=MethodConfig(scheme="joint")), 5)
