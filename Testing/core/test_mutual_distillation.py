"""One step of the method: gradients go where the paper says and nowhere else, and the real training code can learn a pair by heart."""

import pytest

torch = pytest.importorskip("torch")

from mkd_core.training.mkd import MKDConfig, MutualDistillation  # noqa: E402

SMALL = {
    "segmentor": {"type": "segmentor", "channels": [8, 16, 16]},
    "generator": {"type": "generator", "channels": 4, "blocks": 1},
    "discriminator": {"type": "discriminator", "channels": 4},
}


def _model(**switches):
    torch.manual_seed(0)
    return MutualDistillation(MKDConfig(**SMALL, **switches))


def _pair(size=16):
    generator = torch.Generator().manual_seed(1)
    labels = torch.zeros(1, size, size, size, dtype=torch.uint8)
    for label in range(1, 8):  # seven slabs of two planes
        labels[:, 2 * label - 1 : 2 * label + 1, 3:-3, 3:-3] = label
    levels = torch.tensor([-0.9, -0.5, -0.1, 0.2, 0.5, 0.8, -0.3, 0.0])
    other = torch.tensor([-1.0, 0.6, 0.9, -0.2, 0.1, -0.6, 0.4, -0.4])
    noise = 0.02 * torch.randn(1, 1, size, size, size, generator=generator)
    return (levels[labels.long()][:, None] + noise).clamp(-1, 1), labels, (other[labels.long()][:, None] + noise).clamp(-1, 1), labels


def _touched(model, term):
    model.zero_grad(set_to_none=True)
    terms, _, _ = model.losses(*_pair())
    terms[term].backward()
    parts = ("generator_a2t", "generator_t2a", "segmentor_real", "segmentor_syn")
    return {name for name in parts if any(p.grad is not None and p.grad.abs().max() > 0 for p in getattr(model, name).parameters())}


@pytest.mark.parametrize(
    ("term", "parts"),
    [
        ("adversarial", {"generator_a2t", "generator_t2a"}),
        ("cycle", {"generator_a2t", "generator_t2a"}),
        ("real", {"segmentor_real"}),
        ("syn", {"segmentor_syn", "generator_a2t"}),
        ("syn to real", {"segmentor_real"}),
        # S_syn sees its own stream in the same batch, so that batch normalisation has one set of statistics; through them a trace reaches G_a2t.
        ("real to syn", {"segmentor_syn", "generator_a2t"}),
    ],
)
def test_each_loss_reaches_just_the_networks_that_the_method_names(term, parts):
    assert _touched(_model(), term) == parts


def test_teaching_on_the_students_own_stream_lets_distillation_reach_the_generator_only_through_the_student():
    assert _touched(_model(distillation_images="student-stream"), "real to syn") == {"segmentor_syn", "generator_a2t"}
    assert _touched(_model(distillation_images="student-stream"), "syn to real") == {"segmentor_real"}


def test_without_distillation_there_are_no_distillation_terms():
    terms, _, _ = _model(distillation_weight=0.0).losses(*_pair())
    assert set(terms) == {"adversarial", "cycle", "real", "syn"}


def test_the_discriminators_step_leaves_generators_untouched_and_moves_discriminators():
    model = _model()
    model.set_rate(0.0)
    for group in model.optimisers["discriminators"].param_groups:
        group["lr"] = 1e-3
    before = {name: value.clone() for name, value in model.named_parameters()}
    model.step(*_pair())
    moved = {name.split(".")[0] for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert moved == {"discriminator_t", "discriminator_a"}


def test_training_learns_one_pair_by_heart():
    model = _model(segmentor_rate=6e-3, class_weights=(1.0,) * 8)
    pair = _pair()
    for step in range(180):
        model.set_rate(1.0 if step < 140 else 0.2)
        model.step(*pair)
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
    twin.pool_t, twin.pool_a = model.pool_t, model.pool_a
    terms, _, _ = model.losses(*pair)
    others, _, _ = twin.losses(*pair)
    assert {name: value.item() for name, value in terms.items()} == {name: value.item() for name, value in others.items()}
