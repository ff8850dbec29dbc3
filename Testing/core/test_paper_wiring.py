"""Which part sees what, learns from what and teaches whom.

Every network is a fake that can be told from all others, and every figure is the paper's formula written out, so that
no two parts can be exchanged unnoticed.
"""

import dataclasses

import pytest

torch = pytest.importorskip("torch")
from torch import nn

from mkd_core.method.alignment import align_for_segmentors
from mkd_core.method.ensemble import ensemble
from mkd_core.method.losses import distillation_loss, segmentation_loss
from mkd_core.training import mkd
from mkd_core.training.config import MethodConfig, NetworksConfig
from mkd_core.training.mkd import MutualDistillation
from mkd_core.training.schedule import StepPlan
from mkd_core.training.updates import update

#: A method in which every weight is another number.
CONFIG = MethodConfig(
    adversarial_weight=0.3,
    cycle_weight=7.0,
    identity_weight=1.7,
    distillation_weight=0.9,
    temperature=3.0,
    class_weights=(0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0),
    pool=0,
)


class Line(nn.Module):
    """``a x + b``: generators and discriminators."""

    def __init__(self, factor, shift):
        super().__init__()
        self.factor, self.shift = nn.Parameter(torch.tensor(factor)), shift
        self.seen = []

    def forward(self, image):
        self.seen.append(image)
        return self.factor * image + self.shift


class Fan(nn.Module):
    """Eight logits that are multiples of the image: segmentors."""

    def __init__(self, *factors):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factors).view(1, -1, 1, 1, 1))
        self.seen = []

    def forward(self, image):
        self.seen.append(image)
        return self.factor * image


@pytest.fixture()
def make(monkeypatch):
    """A method of fakes; arguments replace settings."""

    def method(**settings):
        fakes = {
            "generator_a2t": Line(0.9, 0.05),
            "generator_t2a": Line(0.6, -0.11),
            "discriminator_t": Line(1.3, 0.2),
            "discriminator_a": Line(-0.7, 0.4),
            "segmentor_real": Fan(0.1, 0.5, -0.3, 0.9, 0.2, -0.8, 0.4, 0.7),
            "segmentor_syn": Fan(-0.6, 0.3, 1.1, -0.2, 0.8, 0.05, -0.4, 0.6),
        }
        order = iter(fakes.values())
        monkeypatch.setattr(mkd, "build", lambda architecture: next(order))
        model = MutualDistillation(
            dataclasses.replace(CONFIG, **settings), NetworksConfig(), precision=torch.float32, seed=1
        )
        assert all(getattr(model, name) is fake for name, fake in fakes.items())
        return model

    return method


def _pair():
    random = torch.Generator().manual_seed(5)
    x_t, x_a = (torch.rand(2, 1, 4, 4, 4, generator=random) * 2 - 1 for _ in range(2))
    y_t, y_a = (torch.randint(0, 8, (2, 4, 4, 4), generator=random).to(torch.uint8) for _ in range(2))
    return x_t, y_t, x_a, y_a


def _expected(model, plan=StepPlan(), distillations=(("syn", "real", "a2t"), ("real", "syn", "t"))):  # noqa: B008
    """The paper's terms."""
    x_t, y_t, x_a, y_a = _pair()
    g_a2t, g_t2a = model.generator_a2t, model.generator_t2a
    seen = {"t": x_t, "a2t": g_a2t(x_a)}
    segmentors = {"real": model.segmentor_real, "syn": model.segmentor_syn}
    weights = torch.tensor(CONFIG.class_weights) ** plan.class_weight_power
    terms = {
        "adversarial": 0.3
        * (
            (model.discriminator_t(g_a2t(x_a)) - 1).square().mean()
            + (model.discriminator_a(g_t2a(x_t)) - 1).square().mean()
        ),
        "cycle": 7.0 * ((g_t2a(g_a2t(x_a)) - x_a).abs().mean() + (g_a2t(g_t2a(x_t)) - x_t).abs().mean()),
        "identity": 1.7 * ((g_a2t(x_t) - x_t).abs().mean() + (g_t2a(x_a) - x_a).abs().mean()),
        "real": segmentation_loss(model.segmentor_real(x_t), y_t, weights),
        "syn": segmentation_loss(model.segmentor_syn(g_a2t(x_a)), y_a, weights),
    }
    for teacher, student, stream in distillations:
        image = seen[stream] if student == "syn" else seen[stream].detach()  # what S_real learns is not G_a2t's
        loss = distillation_loss(segmentors[teacher](image), segmentors[student](image), 3.0)
        terms[f"{teacher} to {student}"] = 0.9 * loss
    return terms


def _values(terms):
    return {name: pytest.approx(value.item(), rel=1e-5) for name, value in terms.items()}


def test_every_term_is_the_papers(make):
    model = make()
    terms, images = model.losses(*_pair())
    assert {name: value.item() for name, value in terms.items()} == _values(_expected(model))
    assert torch.equal(images.a2t, model.generator_a2t(_pair()[2]))
    assert torch.equal(images.t2a, model.generator_t2a(_pair()[0]))


@pytest.mark.parametrize(
    ("settings", "distillations"),
    [
        ({"distillation": "syn-to-real"}, [("syn", "real", "a2t")]),
        ({"distillation": "real-to-syn"}, [("real", "syn", "t")]),
        ({"distillation_images": "student-stream"}, [("syn", "real", "t"), ("real", "syn", "a2t")]),
    ],
)
def test_who_teaches_whom_on_which_images_is_as_the_settings_say(make, settings, distillations):
    model = make(**settings)
    terms, _ = model.losses(*_pair())
    assert {name: value.item() for name, value in terms.items()} == _values(
        _expected(model, distillations=distillations)
    )


def test_the_power_of_a_plan_reaches_the_class_weights(make):
    for power in (0.0, 0.5, 2.0):
        model, plan = make(), StepPlan(class_weight_power=power)
        found = model.losses(*_pair(), plan)[0]
        expected = _expected(model, plan)
        assert found["real"].item() == pytest.approx(expected["real"].item(), rel=1e-5)
        assert found["syn"].item() == pytest.approx(expected["syn"].item(), rel=1e-5)


@pytest.mark.parametrize(
    ("term", "parts"),
    [
        ("adversarial", {"generator_a2t", "generator_t2a", "discriminator_t", "discriminator_a"}),
        ("cycle", {"generator_a2t", "generator_t2a"}),
        ("real", {"segmentor_real"}),
        ("syn", {"segmentor_syn", "generator_a2t"}),
        ("syn to real", {"segmentor_real"}),
        ("real to syn", {"segmentor_syn"}),
    ],
)
def test_every_term_teaches_just_the_parts_that_the_paper_names(make, term, parts):
    model = make()
    model.losses(*_pair())[0][term].backward()
    assert {name for name, network in model.named_children() if network.factor.grad is not None} == parts


def test_s_syns_supervision_reaches_the_generator_with_its_whole_gradient(make):
    model, other = make(), make()
    model.losses(*_pair())[0]["syn"].backward()
    _expected(other)["syn"].backward()
    assert model.generator_a2t.factor.grad.item() == pytest.approx(other.generator_a2t.factor.grad.item(), rel=1e-5)
    assert model.generator_a2t.factor.grad != 0


def test_discriminators_judge_real_images_and_what_their_own_pool_hands_back(make, monkeypatch):
    model = make(segmentor_lr=0.0, generator_lr=0.0)
    x_t, y_t, x_a, y_a = _pair()
    handed_in = {}

    def exchange(name, value):
        def pooled(images):
            handed_in[name] = images
            return torch.full_like(images, value)

        return pooled

    monkeypatch.setattr(model.pool_t, "exchange", exchange("t", 0.25))
    monkeypatch.setattr(model.pool_a, "exchange", exchange("a", -0.75))
    a2t, t2a = model.generator_a2t(x_a), model.generator_t2a(x_t)
    real_t, real_a = model.discriminator_t(x_t), model.discriminator_a(x_a)
    fake_t, fake_a = 1.3 * 0.25 + 0.2, -0.7 * -0.75 + 0.4
    expected = 0.5 * ((real_t - 1).square().mean() + fake_t**2 + (real_a - 1).square().mean() + fake_a**2)
    assert float(model.step(x_t, y_t, x_a, y_a)["discriminators"]) == pytest.approx(float(expected), rel=1e-5)
    assert torch.equal(handed_in["t"], a2t) and torch.equal(handed_in["a"], t2a)


def test_the_discriminators_loss_teaches_the_discriminators_alone(make):
    model = make(pool=50)
    _, images = model.losses(*_pair())
    model.discriminator_loss(images)[0].backward()
    assert {name for name, network in model.named_children() if network.factor.grad is not None} == {
        "discriminator_t",
        "discriminator_a",
    }


def _step_by_hand(expected_terms, names, limit):
    """Gradients of a sum of terms, by part, scaled down to a norm by group."""
    groups = (("generator_a2t", "generator_t2a"), ("segmentor_real", "segmentor_syn"))
    sum(expected_terms.values()).backward()
    result = {}
    for group in groups:
        gradients = {name: names[name].factor.grad for name in group}
        norm = torch.cat([gradient.reshape(-1) for gradient in gradients.values()]).norm()
        result |= {name: gradient * min(1.0, limit / float(norm)) for name, gradient in gradients.items()}
    return result


def test_a_step_clips_generators_and_segmentors_each_by_themselves_and_no_discriminator(make):
    weights = {"cycle_weight": 700.0, "distillation_weight": 900.0}
    model, other = make(**weights), make(**weights)
    for optimiser in model.optimisers.values():
        optimiser.step = lambda: None
    model.step(*_pair())
    terms = _expected(other)
    terms["cycle"] = terms["cycle"] * 100
    for name in ("syn to real", "real to syn"):
        terms[name] = terms[name] * 1000
    expected = _step_by_hand(terms, dict(other.named_children()), 5.0)
    for name, gradient in expected.items():
        assert torch.allclose(getattr(model, name).factor.grad, gradient, rtol=1e-3), name
    for group in (("generator_a2t", "generator_t2a"), ("segmentor_real", "segmentor_syn")):
        norm = torch.cat([getattr(model, name).factor.grad.reshape(-1) for name in group]).norm()
        assert float(norm) == pytest.approx(5.0, rel=1e-3)


def test_gradients_are_scaled_down_to_the_limit_and_small_ones_left_alone():
    weight = nn.Parameter(torch.tensor([0.0, 0.0]))
    optimiser = torch.optim.SGD([weight], lr=1.0)
    update((weight * torch.tensor([30.0, 40.0])).sum(), {optimiser: [weight]})
    assert torch.allclose(weight, torch.tensor([-3.0, -4.0]), rtol=1e-4)
    update((weight * torch.tensor([0.3, 0.4])).sum(), {optimiser: [weight]})
    assert torch.allclose(weight, torch.tensor([-3.3, -4.4]), rtol=1e-4)
    update((weight * torch.tensor([30.0, 40.0])).sum(), {optimiser: [weight]}, None)
    assert torch.allclose(weight, torch.tensor([-33.3, -44.4]), rtol=1e-4)


def test_the_plans_rate_scales_every_parts_own_peak(make):
    model = make(segmentor_lr=4e-3, generator_lr=6e-4)
    model.step(*_pair(), StepPlan(lr=0.25))
    rates = {name: optimiser.param_groups[0]["lr"] for name, optimiser in model.optimisers.items()}
    assert rates == pytest.approx({"segmentors": 1e-3, "generators": 1.5e-4, "discriminators": 1.5e-4})


def test_discriminators_learn_in_a_step_though_they_rest_while_the_generators_do(make):
    model = make()
    before = model.discriminator_t.factor.item(), model.discriminator_a.factor.item()
    model.step(*_pair())
    assert model.discriminator_t.factor.item() != before[0] and model.discriminator_a.factor.item() != before[1]
    assert model.discriminator_t.factor.requires_grad


def _run(name, image):
    return {"generator_a2t": image * 0.5 + 0.1, "generator_t2a": image * 0.3 - 0.2}[name]


def test_at_inference_s_syn_sees_the_target_there_and_back_and_s_real_the_target_itself():
    image = torch.linspace(-1, 1, 8).view(1, 1, 2, 2, 2)
    cycled = (image * 0.3 - 0.2) * 0.5 + 0.1
    views = align_for_segmentors(image, "cycle", _run)
    assert torch.equal(views.real[0], image) and len(views.real) == len(views.synthetic) == 1
    assert torch.allclose(views.synthetic[0], cycled) and torch.allclose(views.rendered, cycled)
    views = align_for_segmentors(image, "mean", _run)
    assert torch.equal(views.real[0], image) and len(views.real) == 1
    assert torch.equal(views.synthetic[0], image) and torch.allclose(views.synthetic[1], cycled)


def test_at_inference_both_segmentors_see_an_assistants_volume_translated_to_the_target():
    image = torch.linspace(-1, 1, 8).view(1, 1, 2, 2, 2)
    views = align_for_segmentors(image, "translate", _run)
    for shown in (*views.real, *views.synthetic, views.rendered):
        assert torch.allclose(shown, image * 0.5 + 0.1)
    plain = align_for_segmentors(image, "none", _run)
    assert torch.equal(plain.real[0], image) and torch.equal(plain.synthetic[0], image) and plain.rendered is None


def test_an_assistants_volume_is_never_normalised_as_one_of_the_target():
    image = torch.linspace(-1, 1, 8).view(1, 1, 2, 2, 2)
    for policy in ("none", "translate"):
        views = align_for_segmentors(image, policy, _run, is_target=False)
        assert {views.stream(view) for view in (*views.real, *views.synthetic)} == {"translated"}
    views = align_for_segmentors(image, "mean", _run)
    assert [views.stream(view) for view in (*views.real, *views.synthetic)] == ["target", "target", "translated"]


def test_the_ensembles_weight_is_s_reals():
    real, synthetic = torch.tensor([4.0, 0.0]).view(2, 1, 1, 1), torch.tensor([0.0, 4.0]).view(2, 1, 1, 1)
    together, from_real, from_synthetic = ensemble([real], [synthetic], 0.8)
    assert torch.allclose(together, 0.8 * from_real + 0.2 * from_synthetic)
    assert from_real.flatten()[0] > 0.9 and from_synthetic.flatten()[1] > 0.9
