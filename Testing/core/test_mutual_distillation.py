"""One step of the method: gradients go where the paper says and nowhere else, and the real training code can learn a
pair by heart.
"""

import copy

import pytest

torch = pytest.importorskip("torch")

from mkd_core.method.losses import segmentation_loss
from mkd_core.training.across_processes import freeze_batch_norm
from mkd_core.training.baselines import SingleSegmentor
from mkd_core.training.config import MethodConfig, NetworksConfig
from mkd_core.training.mkd import MutualDistillation
from mkd_core.training.schedule import StepPlan

SMALL = NetworksConfig(segmentor=(8, 16, 16), generator=4, generator_blocks=1, discriminator=4)


def _model(**switches):
    torch.manual_seed(0)
    return MutualDistillation(MethodConfig(**switches), SMALL)


#: Each segmentor learns from its own modality alone.
APART = StepPlan(generators="off", distillation=None)


def _moved(model, step):
    """Parts that a step changes."""
    before = {name: value.clone() for name, value in model.named_parameters()}
    step()
    return {name.split(".")[0] for name, value in model.named_parameters() if not torch.equal(value, before[name])}


def _pair(size=16):
    generator = torch.Generator().manual_seed(1)
    labels = torch.zeros(1, size, size, size, dtype=torch.uint8)
    for label in range(1, 8):  # seven slabs of two planes
        labels[:, 2 * label - 1 : 2 * label + 1, 3:-3, 3:-3] = label
    levels = torch.tensor([-0.9, -0.5, -0.1, 0.2, 0.5, 0.8, -0.3, 0.0])
    other = torch.tensor([-1.0, 0.6, 0.9, -0.2, 0.1, -0.6, 0.4, -0.4])
    noise = 0.02 * torch.randn(1, 1, size, size, size, generator=generator)
    return (
        (levels[labels.long()][:, None] + noise).clamp(-1, 1),
        labels,
        (other[labels.long()][:, None] + noise).clamp(-1, 1),
        labels,
    )


def _touched(model, term):
    model.zero_grad(set_to_none=True)
    terms, _ = model.losses(*_pair())
    terms[term].backward()
    parts = ("generator_a2t", "generator_t2a", "segmentor_real", "segmentor_syn")
    return {
        name
        for name in parts
        if any(p.grad is not None and p.grad.abs().max() > 0 for p in getattr(model, name).parameters())
    }


@pytest.mark.parametrize(
    ("term", "parts"),
    [
        ("adversarial", {"generator_a2t", "generator_t2a"}),
        ("cycle", {"generator_a2t", "generator_t2a"}),
        ("real", {"segmentor_real"}),
        ("syn", {"segmentor_syn", "generator_a2t"}),
        ("syn to real", {"segmentor_real"}),
        ("real to syn", {"segmentor_syn"}),
    ],
)
def test_each_loss_reaches_just_the_networks_that_the_method_names(term, parts):
    assert _touched(_model(), term) == parts


def test_teaching_on_the_students_own_stream_lets_distillation_reach_the_generator_only_through_the_student():
    assert _touched(_model(distillation_images="student-stream"), "real to syn") == {"segmentor_syn", "generator_a2t"}
    assert _touched(_model(distillation_images="student-stream"), "syn to real") == {"segmentor_real"}


@pytest.mark.parametrize(
    ("direction", "terms"),
    [
        ("both", {"syn to real", "real to syn"}),
        ("syn-to-real", {"syn to real"}),
        ("real-to-syn", {"real to syn"}),
        ("none", set()),
    ],
)
def test_each_direction_of_distillation_can_be_switched_off(direction, terms):
    found, _ = _model(distillation=direction).losses(*_pair())
    assert set(found) - {"adversarial", "cycle", "real", "syn"} == terms


def test_both_streams_teach_with_the_mean_of_their_distillation_terms():
    distillations = {
        stream: _model(distillation_images=stream).losses(*_pair())[0]
        for stream in ("teacher-stream", "student-stream", "both")
    }
    for term in ("syn to real", "real to syn"):
        mean = (distillations["teacher-stream"][term] + distillations["student-stream"][term]) / 2
        assert distillations["both"][term].item() == pytest.approx(mean.item(), rel=1e-5)


def test_a_plan_weighs_distillation_and_can_leave_it_out():
    model = _model()
    whole, half, nothing = (
        model.losses(*_pair(), StepPlan(distillation=weight))[0]["syn to real"].item() for weight in (1.0, 0.5, 0.0)
    )
    assert half == pytest.approx(whole / 2, rel=1e-5) and half > 0 and nothing == 0
    assert "syn to real" not in model.losses(*_pair(), StepPlan(distillation=None))[0]


def test_without_alignment_s_syn_sees_the_assistants_images_and_no_generator_moves():
    model, plan = _model(), StepPlan(generators="off")
    assert _moved(model, lambda: model.step(*_pair(), plan)) == {"segmentor_real", "segmentor_syn"}
    terms, images = model.losses(*_pair(), plan)
    assert set(terms) == {"real", "syn", "syn to real", "real to syn"}
    assert torch.equal(images.a2t, _pair()[2]) and images.t2a is None


def test_the_segmentors_can_learn_from_their_own_modality_alone():
    model = _model()
    assert _moved(model, lambda: model.step(*_pair(), APART)) == {"segmentor_real", "segmentor_syn"}
    assert set(model.losses(*_pair(), APART)[0]) == {"real", "syn"}


def test_the_whole_method_moves_every_part_and_names_every_term():
    model = _model()
    terms = {}
    moved = _moved(model, lambda: terms.update(model.step(*_pair())))
    assert moved == {name for name, _ in model.named_children()}
    assert set(terms) == {
        "adversarial",
        "cycle",
        "real",
        "syn",
        "syn to real",
        "real to syn",
        "discriminators",
        "accuracy of D_t",
        "accuracy of D_a",
    }


def test_frozen_generators_translate_and_only_the_segmentors_learn_and_teach_each_other():
    model, plan = _model(), StepPlan(generators="frozen")
    x_t, y_t, x_a, y_a = _pair()
    terms, images = model.losses(x_t, y_t, x_a, y_a, plan)
    assert set(terms) == {"real", "syn", "syn to real", "real to syn"}
    assert torch.allclose(images.a2t, model.generator_a2t(x_a), atol=1e-5) and not torch.equal(images.a2t, x_a)
    assert not images.a2t.requires_grad
    assert _moved(model, lambda: model.step(x_t, y_t, x_a, y_a, plan)) == {"segmentor_real", "segmentor_syn"}


def test_with_fixed_statistics_a_step_normalises_as_inference_does_and_leaves_them_alone():
    model, plan = _model(), StepPlan(generators="frozen")
    for _ in range(3):
        model.step(*_pair(), plan)  # statistics that say something
    freeze_batch_norm(model, True)
    kept = {name: value.clone() for name, value in model.named_buffers()}
    x_t, y_t, x_a, y_a = _pair()
    alone = model.losses(x_t[:1], y_t[:1], x_a[:1], y_a[:1], plan)[0]
    with torch.no_grad():
        logits = copy.deepcopy(model.segmentor_real).eval()(x_t[:1])
    assert alone["real"].item() == pytest.approx(
        segmentation_loss(logits, y_t[:1], model.class_weights).item(), rel=1e-4
    )
    model.step(x_t, y_t, x_a, y_a, plan)
    assert all(torch.equal(value, kept[name]) for name, value in model.named_buffers())
    freeze_batch_norm(model, False)
    model.step(x_t, y_t, x_a, y_a, plan)
    assert not all(torch.equal(value, kept[name]) for name, value in model.named_buffers())


def test_the_identity_term_asks_generators_to_leave_their_own_modality_alone():
    assert "identity" not in _model().losses(*_pair())[0]
    model = _model(identity_weight=5.0)
    x_t, _, x_a, _ = pair = _pair()
    expected = 5 * ((x_t - model.generator_a2t(x_t)).abs().mean() + (x_a - model.generator_t2a(x_a)).abs().mean())
    assert model.losses(*pair)[0]["identity"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_untrained_generators_leave_images_nearly_as_they_are():
    model = _model()
    x_a = _pair()[2]
    assert (model.generator_a2t(x_a) - x_a).abs().mean() < 0.25
    assert torch.corrcoef(torch.stack([model.generator_a2t(x_a).flatten(), x_a.flatten()]))[0, 1] > 0.9


def test_inference_statistics_are_those_of_target_images():
    model = _model()
    x_t, y_t, x_a, y_a = _pair()
    for segmentor in (model.segmentor_real, model.segmentor_syn):
        for module in segmentor.modules():
            if isinstance(module, torch.nn.BatchNorm3d):
                module.momentum = 1.0
    model.losses(x_t, y_t, x_a, y_a)
    for segmentor in (model.segmentor_real, model.segmentor_syn):
        first = segmentor.encoder[0][1]
        assert torch.allclose(first.running_mean, segmentor.encoder[0][0](x_t).mean((0, 2, 3, 4)), atol=1e-4)
        assert first.momentum == 1.0


@pytest.mark.parametrize(
    ("scheme", "expected"), [("target-only", [True, True]), ("joint", [True, True]), ("fine-tune", [False, True])]
)
def test_the_single_segmentors_see_what_their_scheme_says(scheme, expected):
    torch.manual_seed(0)
    model = SingleSegmentor(MethodConfig(scheme=scheme), SMALL, steps=2)
    x_t, y_t, x_a, y_a = _pair()
    seen = []
    for step in range(2):
        images = []
        handle = model.segmentor.register_forward_pre_hook(lambda _, given, images=images: images.append(given[0]))
        model.step(x_t, y_t, x_a, y_a, StepPlan(step=step))
        handle.remove()
        seen.append(bool((images[0][:1] == x_t).all()))
        assert len(images[0]) == (2 if scheme == "joint" else 1)
    assert seen == expected


def test_without_distillation_there_are_no_distillation_terms():
    terms, _ = _model(distillation_weight=0.0).losses(*_pair())
    assert set(terms) == {"adversarial", "cycle", "real", "syn"}


def test_the_discriminators_step_leaves_generators_untouched_and_moves_discriminators():
    model = _model(segmentor_lr=0.0, generator_lr=0.0)
    set_lr = model.set_lr

    def only_discriminators(factor):
        set_lr(factor)
        for group in model.optimisers["discriminators"].param_groups:
            group["lr"] = 1e-3

    model.set_lr = only_discriminators
    assert _moved(model, lambda: model.step(*_pair())) == {"discriminator_t", "discriminator_a"}


def test_training_learns_one_pair_by_heart():
    model = _model(segmentor_lr=6e-3, generator_lr=4e-4, class_weights=(1.0,) * 8)
    pair = _pair()
    for step in range(180):
        model.step(*pair, StepPlan(lr=1.0 if step < 140 else 0.2))
    model.eval()
    with torch.inference_mode():
        real = model.segmentor_real(pair[0]).argmax(1)
        synthetic = model.segmentor_syn(model.generator_a2t(pair[2])).argmax(1)
    for found, truth in ((real, pair[1]), (synthetic, pair[3])):
        for label in range(1, 8):
            a, b = found == label, truth == label
            assert 2 * (a & b).sum() / (a.sum() + b.sum()) > 0.95


def test_a_restored_model_continues_as_the_one_that_was_saved():
    pair = _pair()
    model = _model()
    model.step(*pair)
    twin = _model()
    twin.restore(model.state())
    twin.restore_pools(model.pools())
    terms, _ = model.losses(*pair)
    others, _ = twin.losses(*pair)
    assert {name: value.item() for name, value in terms.items()} == {
        name: value.item() for name, value in others.items()
    }
