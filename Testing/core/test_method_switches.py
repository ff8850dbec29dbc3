"""Switches of the method: each against values computed by hand, and each does something that its absence does not."""

import copy
import dataclasses
import io
import json
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn

from mkd_core.inference.execution import Executor
from mkd_core.io.bundle import load_bundle, save_bundle
from mkd_core.method.losses import IGNORE, discriminator_accuracy, distillation_loss, segmentation_loss
from mkd_core.method.networks import Discriminator, Generator, Segmentor, build, deployed, select_stream, stride_of
from mkd_core.training.config import MethodConfig, NetworksConfig, Phase, Stage, TrainingConfig
from mkd_core.training.labelled_volumes import LabelledVolumes, PreparedVolume
from mkd_core.training.mkd import MutualDistillation, supervision_loss
from mkd_core.training.schedule import StepPlan, plan_at
from Testing.core.test_mutual_distillation import _pair
from Testing.core.test_paper_wiring import _pair as _fake_pair
from Testing.core.test_paper_wiring import make  # noqa: F401  (a fixture)
from Testing.support.tiny_bundles import random_state_dicts, tiny_description


def _logits(*voxels):
    """Logits (1, C, 1, 1, number of voxels)."""
    return torch.tensor(voxels, dtype=torch.float32).T[None, :, None, None]


def _softmax(*logits):
    powers = [math.exp(value) for value in logits]
    return [power / sum(powers) for power in powers]


# Distillation


def _divergence(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q))


TEACHER, STUDENT = ((3.0, 0.0), (0.0, 1.0)), ((0.0, 0.0), (0.5, 0.0))
P, Q = [_softmax(*one) for one in TEACHER], [_softmax(*one) for one in STUDENT]


def test_a_voxel_counts_in_distillation_by_the_teachers_certainty_that_it_is_a_structure():
    weights = [1 + 4 * p[1] for p in P]
    expected = sum(w * _divergence(p, q) for w, p, q in zip(weights, P, Q)) / sum(weights)
    found = distillation_loss(_logits(*TEACHER), _logits(*STUDENT), 1.0, foreground_weight=5.0)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_voxels_of_which_the_teacher_is_unsure_teach_nothing():
    assert P[0][0] > 0.9 > P[1][1]
    found = distillation_loss(_logits(*TEACHER), _logits(*STUDENT), 1.0, least_confidence=0.9)
    assert found.item() == pytest.approx(_divergence(P[0], Q[0]), rel=1e-5)
    masked = distillation_loss(_logits(*TEACHER), _logits(*STUDENT), 1.0, least_confidence=0.9, dice_weight=2.0)
    dice = 1 - (2 * P[0][1] * Q[0][1] + 1) / (P[0][1] ** 2 + Q[0][1] ** 2 + 1)
    assert masked.item() == pytest.approx(_divergence(P[0], Q[0]) + 2 * dice, rel=1e-5)
    assert distillation_loss(_logits(*TEACHER), _logits(*STUDENT), 1.0, least_confidence=1.0).item() == 0


def test_the_dice_term_of_distillation_is_nothing_where_both_agree_and_takes_no_temperature():
    plain = distillation_loss(_logits(*TEACHER), _logits(*STUDENT), 2.0)
    found = distillation_loss(_logits(*TEACHER), _logits(*STUDENT), 2.0, dice_weight=0.5)
    overlap, sizes = sum(p[1] * q[1] for p, q in zip(P, Q)), sum(p[1] ** 2 + q[1] ** 2 for p, q in zip(P, Q))
    dice = 1 - (2 * overlap + 1) / (sizes + 1)
    assert (found - plain).item() == pytest.approx(0.5 * dice, rel=1e-4)
    assert distillation_loss(_logits(*TEACHER), _logits(*TEACHER), 1.0, dice_weight=1.0).item() == pytest.approx(0)


def test_the_settings_of_distillation_reach_both_terms(make):  # noqa: F811
    form = {"distillation_dice": 0.7, "distillation_foreground": 3.0, "distillation_confidence": 0.2}
    model = make(**form)
    terms, images = model.losses(*_fake_pair())
    for teacher, student, image in (("syn", "real", images.a2t), ("real", "syn", images.t)):
        networks = {"real": model.segmentor_real, "syn": model.segmentor_syn}
        expected = distillation_loss(
            networks[teacher](image),
            networks[student](image),
            3.0,
            dice_weight=0.7,
            foreground_weight=3.0,
            least_confidence=0.2,
        )
        assert terms[f"{teacher} to {student}"].item() == pytest.approx(0.9 * expected.item(), rel=1e-5)


# Who learns from what


def test_in_a_late_phase_each_segmentor_learns_the_labels_of_the_other_ones_stream_too(make):  # noqa: F811
    model = make()
    x_t, y_t, x_a, y_a = _fake_pair()
    terms, images = model.losses(x_t, y_t, x_a, y_a, StepPlan(cross_supervision=0.25))
    assert not {"real on a2t", "syn on t"} & set(model.losses(x_t, y_t, x_a, y_a)[0])
    weights = model.class_weights
    expected = {
        "real on a2t": segmentation_loss(model.segmentor_real(images.a2t), y_a, weights),
        "syn on t": segmentation_loss(model.segmentor_syn(x_t), y_t, weights),
    }
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(0.25 * value.item(), rel=1e-5)
    (terms["real on a2t"] + terms["syn on t"]).backward()
    assert {name for name, network in model.named_children() if network.factor.grad is not None} == {
        "segmentor_real",
        "segmentor_syn",
    }


def test_phases_say_when_labels_of_the_other_stream_count():
    config = TrainingConfig(stages=(Stage(steps=4),), phases=(Phase(steps=2), Phase(cross_supervision=0.5)))
    assert [plan_at(config, step).cross_supervision for step in range(4)] == [0, 0, 0.5, 0.5]


def test_s_syns_loss_can_be_kept_from_the_generator(make):  # noqa: F811
    for trains in (True, False):
        model = make(segmentation_trains_generator=trains)
        model.losses(*_fake_pair())[0]["syn"].backward()
        assert (model.generator_a2t.factor.grad is not None) == trains
        assert model.segmentor_syn.factor.grad is not None


def test_what_segmentors_know_of_the_target_trains_the_generator_of_translated_images_alone():
    torch.manual_seed(0)
    config, networks = MethodConfig(semantic_weight=0.5), dataclasses.replace(SMALL, segmentor_norm="batch-per-stream")
    model = MutualDistillation(config, networks, precision=torch.float32)
    x_t, y_t, x_a, y_a = _pair(8)
    images = model.translate(x_t, x_a, "train")
    for judge in (model.segmentor_real, model.segmentor_syn):
        as_it_is = copy.deepcopy(judge)
        found = model._semantic_loss(judge, images, y_a, None, model.class_weights)
        select_stream(as_it_is, "target")
        expected = segmentation_loss(as_it_is.eval()(images.a2t), y_a, model.class_weights)
        assert found.item() == pytest.approx(expected.item(), rel=1e-5)
        changed = zip(judge.state_dict().values(), as_it_is.state_dict().values())
        assert judge.training and all(torch.equal(one, other) for one, other in changed)
    terms, _ = model.losses(x_t, y_t, x_a, y_a)
    model.zero_grad(set_to_none=True)
    terms["semantic"].backward()
    touched = {name for name, part in model.named_children() if any(one.grad is not None for one in part.parameters())}
    assert touched == {"generator_a2t"}
    assert "semantic" not in model.losses(x_t, y_t, x_a, y_a, StepPlan(generators="off"))[0]


@pytest.mark.parametrize(("plan", "judges"), [(StepPlan(distillation=None), 1), (StepPlan(cross_supervision=1.0), 2)])
def test_only_segmentors_that_see_target_images_judge_translated_ones(monkeypatch, plan, judges):
    model = MutualDistillation(MethodConfig(semantic_weight=0.5), SMALL, precision=torch.float32)
    asked = []
    monkeypatch.setattr(
        model, "_semantic_loss", lambda judge, *others: asked.append(judge) or torch.tensor(2.0 * len(asked))
    )
    terms, _ = model.losses(*_pair(8), plan)
    assert asked == [model.segmentor_real, model.segmentor_syn][:judges]
    assert terms["semantic"].item() == pytest.approx(0.5 * (2.0 if judges == 1 else 3.0))
    assert "semantic" not in MutualDistillation(MethodConfig(), SMALL).losses(*_pair(8))[0]


def test_one_segmentor_can_learn_from_the_target_and_from_translated_images():
    model = MutualDistillation(MethodConfig(scheme="translated-joint"), SMALL, precision=torch.float32)
    assert model.parts()["segmentor_syn"] is model.segmentor_real
    (group,) = model.optimisers["segmentors"].param_groups
    assert len(group["params"]) == len(list(model.segmentor_real.parameters()))
    terms, _ = model.losses(*_pair(8))
    assert set(terms) == {"adversarial", "cycle", "real", "syn"}
    for term, trains_generator in (("real", False), ("syn", True)):
        model.zero_grad(set_to_none=True)
        model.losses(*_pair(8))[0][term].backward()
        assert all(one.grad is not None for one in model.segmentor_real.parameters())
        assert any(one.grad is not None for one in model.generator_a2t.parameters()) == trains_generator


def test_gradients_can_be_clipped_for_each_network_by_itself(make):  # noqa: F811
    for clip, norms in (("network", [5.0, 5.0]), ("optimiser", [None, None])):
        model = make(clip=clip, distillation_weight=9e4)
        for optimiser in model.optimisers.values():
            optimiser.step = lambda: None
        model.step(*_fake_pair())
        found = [float(network.factor.grad.norm()) for network in (model.segmentor_real, model.segmentor_syn)]
        if clip == "network":
            assert found == pytest.approx(norms, rel=1e-3)
        else:
            assert math.hypot(*found) == pytest.approx(5.0, rel=1e-3)


def test_accuracy_counts_real_and_made_scores_alike():
    real, made = torch.tensor([0.9, 0.4, 0.6, 0.7]), torch.tensor([0.1, 0.6])
    assert discriminator_accuracy(real, made).item() == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert discriminator_accuracy(real, made, "cross-entropy").item() == pytest.approx((1 + 0) / 2)
    about_zero = discriminator_accuracy(real - 0.5, made - 0.5, "cross-entropy")
    assert about_zero.item() == pytest.approx((3 / 4 + 1 / 2) / 2)


# Networks

SMALL = NetworksConfig(segmentor=(4, 8, 8), generator=2, generator_blocks=1, discriminator=2)


def test_generators_can_have_half_a_million_parameters_and_blocks_at_low_resolution():
    generator = Generator(10, 6, 2)
    assert sum(one.numel() for one in generator.parameters()) >= 500_000
    assert generator.strides == (4, 4, 4) and Generator(4, 1).strides == (2, 2, 2)
    image = torch.rand(1, 1, 8, 12, 16) * 2 - 1
    assert generator(image).shape == image.shape
    (residual, *_) = [one for one in generator.body if type(one).__name__ == "_Residual"]
    seen = []
    residual.register_forward_hook(lambda _, given, __: seen.append(given[0].shape[2:]))
    generator(image)
    assert tuple(seen[0]) == (2, 3, 4)


@pytest.mark.parametrize("voxel", [(1.0, 1.0, 1.0), (8.0, 2.0, 2.0)], ids=["cubic", "thick"])
def test_skips_let_a_generator_change_single_voxels_whatever_its_lowest_resolution_says(voxel):
    torch.manual_seed(0)
    image = torch.rand(1, 1, 4, 8, 8) * 2 - 1

    def influence(network):
        """Share of the body's output that changes with the image where the lowest resolution is kept from it."""
        (block,) = [one for one in network.body if type(one).__name__ == "_Residual"]
        block.forward = torch.zeros_like
        features = network._with_skips if network.skips else network.body
        return (features(image) - features(-image)).abs().mean().item()

    assert influence(Generator(2, 1, 2, voxel)) == 0.0
    with_skips = Generator(2, 1, 2, voxel, skips=True)
    assert influence(with_skips) > 0.1 and with_skips(image).shape == image.shape
    described = NetworksConfig(generator=2, generator_blocks=1, generator_levels=2, generator_skips=True)
    assert build(described.architecture("generator")).skips
    assert "skips" not in NetworksConfig().architecture("generator")


def _seen(network, size=48):
    """Voxels along x that the middle score depends on."""
    image = torch.zeros(1, 1, 8, 8, size).requires_grad_()
    for module in network.modules():
        if isinstance(module, nn.InstanceNorm3d):
            module.forward = lambda values: values  # statistics see everything
    score = network(image)
    score[0, 0, score.shape[2] // 2, score.shape[3] // 2, score.shape[4] // 2].backward()
    return int((image.grad.abs().amax(dim=(0, 1, 2, 3)) > 0).sum())


def test_a_discriminators_score_sees_as_many_voxels_as_the_settings_say():
    torch.manual_seed(0)
    assert (_seen(Discriminator(2, 1)), _seen(Discriminator(2, 2))) == (12, 26)


def test_every_scale_of_a_discriminator_counts_alike_and_sees_its_own_resolution():
    torch.manual_seed(0)
    network, image = Discriminator(2, 1, scales=2), torch.rand(1, 1, 16, 16, 16)
    scores = network(image)
    assert scores.shape == (1, 2, 8, 8, 8)
    coarse = network.scales[1](nn.functional.avg_pool3d(image, 2))
    assert scores[:, 1].mean().item() == pytest.approx(coarse.mean().item(), abs=1e-6)
    assert torch.equal(scores[:, :1], network.scales[0](image))


def test_s_syn_can_have_another_depth_and_patches_fit_all_networks():
    networks = dataclasses.replace(SMALL, segmentor_syn_levels=2)
    assert networks.channels("segmentor_real") == (4, 8, 8) and networks.channels("segmentor_syn") == (4, 8)
    assert dataclasses.replace(SMALL, segmentor_syn_levels=5).channels("segmentor_syn") == (4, 8, 8, 8, 8)
    assert SMALL.strides == (4, 4, 4) and dataclasses.replace(SMALL, segmentor_syn_levels=5).strides == (16, 16, 16)
    assert dataclasses.replace(SMALL, generator_levels=3).strides == (8, 8, 8)
    model = MutualDistillation(MethodConfig(), networks, precision=torch.float32)
    assert (stride_of(model.segmentor_real), stride_of(model.segmentor_syn)) == (4, 2)


def test_deep_supervision_halves_the_weight_from_level_to_level_and_stays_out_of_bundles():
    architecture = dataclasses.replace(SMALL, deep_supervision=1).architecture("segmentor_real")
    network = build(architecture)
    image, target = torch.rand(1, 1, 8, 8, 8), torch.randint(0, 8, (1, 8, 8, 8))
    fine, coarse = network.levels(image)
    assert fine.shape == (1, 8, 8, 8, 8) and coarse.shape == (1, 8, 4, 4, 4)
    weights = torch.linspace(0.5, 1.5, 8)
    expected = segmentation_loss(fine, target, weights) * 2 / 3
    expected = expected + segmentation_loss(coarse, target[:, ::2, ::2, ::2], weights) / 3
    assert supervision_loss([fine, coarse], target, None, weights).item() == pytest.approx(expected.item(), rel=1e-5)
    flat = torch.rand(1, 8, 8, 4, 4)  # of a network that leaves slices as they are
    expected = segmentation_loss(fine, target, weights) * 2 / 3
    expected = expected + segmentation_loss(flat, target[:, :, ::2, ::2], weights) / 3
    assert supervision_loss([fine, flat], target, None, weights).item() == pytest.approx(expected.item(), rel=1e-5)
    kept = {name for name in network.state_dict() if not name.startswith("auxiliary.")}
    assert kept == set(build(deployed(architecture)).state_dict()) != set(network.state_dict())


@pytest.mark.parametrize("scheme", ["mutual-distillation", "translated-joint", "target-only"])
def test_a_runs_bundle_describes_the_networks_that_it_holds(tmp_path, scheme):
    pytest.importorskip("lightning_fabric")
    from mkd_core.training.bundling import BundleWriter
    from mkd_core.training.trainer import _method

    networks = dataclasses.replace(SMALL, segmentor_syn_levels=2, deep_supervision=1, segmentor_norm="batch-per-stream")
    config = TrainingConfig(out=str(tmp_path), networks=networks, method=MethodConfig(scheme=scheme))
    parts = _method(config, torch.device("cpu")).parts()
    writer = BundleWriter(config, "no data")
    bundle = writer.write(tmp_path / "a.safetensors", parts, steps=1, alignment="cycle", translate=True)
    image = torch.rand(1, 1, 8, 8, 8)
    for name, network in parts.items():
        assert torch.allclose(bundle.network(name)(image), network.eval()(image), atol=1e-2)
        assert bundle.metadata["networks"][name] == deployed(network.architecture)
    levels = [len(bundle.metadata["networks"][name]["channels"]) for name in ("segmentor_real", "segmentor_syn")]
    assert levels == ([3, 2] if scheme == "mutual-distillation" else [3, 3])


def test_a_step_supervises_the_coarser_levels_too():
    model = MutualDistillation(MethodConfig(), dataclasses.replace(SMALL, deep_supervision=1), precision=torch.float32)
    model.losses(*_pair(8))[0]["real"].backward()
    assert all(one.grad.abs().max() > 0 for one in model.segmentor_real.auxiliary.parameters())
    assert all(one.grad is None for one in model.segmentor_syn.auxiliary.parameters())


def test_normalisation_per_stream_learns_and_remembers_either_stream_by_itself():
    torch.manual_seed(0)
    networks = dataclasses.replace(SMALL, segmentor_norm="batch-per-stream")
    model = MutualDistillation(MethodConfig(), networks, precision=torch.float32)
    x_t, y_t, x_a, y_a = _pair(8)
    model.losses(x_t, y_t, x_a, y_a, StepPlan(generators="off"))
    first = model.segmentor_real.encoder[0][0](x_t), model.segmentor_real.encoder[0][0](x_a)
    for norm, values in zip(model.segmentor_real.encoder[0][1].streams, first):
        assert torch.allclose(norm.running_mean, 0.1 * values.mean((0, 2, 3, 4)), atol=1e-6)


@pytest.mark.parametrize("norm", ["instance", "batch-per-stream"])
def test_a_bundle_carries_the_normalisation_and_inference_computes_what_training_did(tmp_path, norm):
    description = tiny_description()
    for part in ("segmentor_real", "segmentor_syn"):
        description["networks"][part]["norm"] = norm
    weights = random_state_dicts(description)
    for name, values in weights["segmentor_syn"].items():
        if "streams.1.running_mean" in name:
            values += 1.0
    bundle = save_bundle(tmp_path / "a.safetensors", description, weights, "float32")
    executor = Executor(load_bundle(bundle.path, self_test=False), torch.device("cpu"), torch.float32)
    image = torch.rand(1, 1, 16, 16, 16, generator=torch.Generator().manual_seed(2)) * 2 - 1
    network = bundle.network("segmentor_syn")
    found = {stream: executor.run("segmentor_syn", image, stream=stream) for stream in ("target", "translated")}
    for stream, logits in found.items():
        select_stream(network, stream)
        assert torch.allclose(logits, network(image), atol=1e-4)
    assert torch.equal(*found.values()) == (norm == "instance")


def test_a_bundle_carries_generators_with_skips_and_inference_computes_what_training_did(tmp_path):
    description = tiny_description()
    description["networks"]["generator_t2a"] = {
        "type": "generator",
        "channels": 2,
        "blocks": 1,
        "levels": 2,
        "skips": True,
    }
    bundle = save_bundle(tmp_path / "a.safetensors", description, random_state_dicts(description), "float32")
    image = torch.rand(1, 1, 16, 16, 16, generator=torch.Generator().manual_seed(2)) * 2 - 1
    found = Executor(load_bundle(bundle.path, self_test=False), torch.device("cpu"), torch.float32).run(
        "generator_t2a", image
    )
    network = bundle.network("generator_t2a")
    assert network.skips and torch.allclose(found, network(image), atol=1e-5)


# Partial labels


def test_where_a_structure_is_not_labelled_its_probability_is_the_backgrounds():
    logits, target = _logits((0.2, 1.0, -0.5), (0.3, 0.1, 0.9)), torch.tensor([[[[0, 1]]]])
    p, q = _softmax(0.2, 1.0, -0.5), _softmax(0.3, 0.1, 0.9)
    labelled = torch.tensor([[True, True, False]])
    cross_entropy = -(math.log(p[0] + p[2]) + 2 * math.log(q[1])) / 3  # the weights of the classes are 1, 2, 5
    dice = 1 - (2 * q[1] + 1) / (p[1] + q[1] + 1 + 1)
    found = segmentation_loss(logits, target, torch.tensor([1.0, 2.0, 5.0]), labelled=labelled)
    assert found.item() == pytest.approx(cross_entropy + dice, rel=1e-5)


def test_the_dice_of_a_structure_leaves_out_images_in_which_it_is_not_labelled():
    one, other = _logits((0.2, 1.0, -0.5)), _logits((0.0, 3.0, 1.0))
    target = torch.tensor([[[[1]]], [[[2]]]])
    labelled = torch.tensor([[True, True, False], [True, False, True]])
    p, q = _softmax(0.2, 1.0, -0.5), _softmax(0.0, 3.0, 1.0)
    cross_entropy = -(math.log(p[1]) + math.log(q[2])) / 2
    dice = [1 - (2 * value + 1) / (value + 1 + 1) for value in (p[1], q[2])]
    found = segmentation_loss(torch.cat([one, other]), target, labelled=labelled)
    assert found.item() == pytest.approx(cross_entropy + sum(dice) / 2, rel=1e-5)


def test_all_classes_labelled_is_the_usual_loss_and_its_gradients_are_finite_otherwise():
    torch.manual_seed(0)
    logits = (40 * torch.randn(2, 3, 2, 2, 2)).requires_grad_()
    target = torch.randint(0, 2, (2, 2, 2, 2))
    target[0, 0] = IGNORE
    every = torch.ones(2, 3, dtype=torch.bool)
    assert segmentation_loss(logits, target, labelled=every).item() == pytest.approx(
        segmentation_loss(logits, target).item(), rel=1e-5
    )
    every[:, 2] = False
    segmentation_loss(logits, target, labelled=every).backward()
    assert torch.isfinite(logits.grad).all()


def test_a_network_that_sees_two_half_labelled_sets_learns_all_structures():
    """Images with two bars; either set labels one of them."""
    torch.manual_seed(0)
    image = torch.zeros(2, 1, 8, 8, 8)
    whole = torch.zeros(2, 8, 8, 8, dtype=torch.long)
    whole[:, :, 1:4], whole[:, :, 5:7] = 1, 2
    image[:, 0] += torch.tensor([-0.8, 0.1, 0.9])[whole]
    target = whole.clone()
    target[0][whole[0] == 2], target[1][whole[1] == 1] = 0, 0
    labelled = torch.tensor([[True, True, False], [True, False, True]])
    network = Segmentor(out_channels=3, channels=(8, 8))
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)

    def learn(known):
        for _ in range(60):
            optimiser.zero_grad()
            segmentation_loss(network(image), target, labelled=known).backward()
            optimiser.step()
        return network(image).argmax(dim=1)

    assert torch.equal(learn(labelled), whole)


def test_patches_can_be_centred_on_a_voxel_of_any_structure(tmp_path):
    labels = np.zeros((40, 40, 40), np.uint8)
    labels[:20, :20, :20], labels[39, 39, 39] = 1, 2
    np.save(tmp_path / "image.npy", np.zeros(labels.shape, np.float16))
    np.save(tmp_path / "labels.npy", labels)
    known = (True, True, True, False)
    volume = PreparedVolume(tmp_path / "image.npy", tmp_path / "labels.npy", (0, 0, 0), (40, 40, 40), known)
    rng = np.random.default_rng(0)
    for share, found in ((1.0, lambda count: 20 < count < 40), (0.0, lambda count: count <= 3)):
        source = LabelledVolumes([volume], 4, 0.0, 1e9, structure_fraction=share)
        assert found(sum((source.draw(rng).target == 2).any() for _ in range(60)))
    assert source.draw(rng).labelled.tolist() == list(known)


# Runs


def test_a_run_ends_when_validation_has_not_improved_for_long_and_stays_ended(tmp_path, monkeypatch):
    for package in ("monai", "lightning_fabric", "tensorboard", "tqdm"):
        pytest.importorskip(package)
    from mkd_core.training import trainer
    from Testing.core import test_training_run as runs

    folder = tmp_path / "MMWHS"
    folder.mkdir()
    for modality in ("CT", "MR"):
        for number in (1001, 1002):
            for volume, kind in zip(runs._volume(number, modality), ("image", "label")):
                runs.sitk.WriteImage(volume, str(folder / f"{modality.lower()}_train_{number}_{kind}.nii.gz"))
    config = runs._config(
        folder,
        tmp_path / "run",
        steps=9,
        data=runs.DataConfig(cases=str(folder), validation=0.5),
        bundle=trainer.TrainingConfig().bundle.__class__(alignment="cycle"),
        run=runs.RunConfig(threads=1, num_workers=0, precision="float32", validate_every=1, patience=2),
    )
    dice = iter([0.3, 0.5, 0.4, 0.5])
    monkeypatch.setattr(trainer, "validate", lambda *_: {"mean": next(dice)})
    monkeypatch.setattr(trainer, "_RECORDED_TOGETHER", 1)
    monkeypatch.setattr(trainer, "_JUDGED_TOGETHER", 2)
    monkeypatch.setattr("mkd_core.training.mkd.discriminator_accuracy", lambda *_: torch.tensor(0.5))
    shown = io.StringIO()
    trainer.Trainer(config, stream=shown).run()
    steps = [
        json.loads(line)["step"] for line in (tmp_path / "run" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert max(steps) == 4
    assert load_bundle(tmp_path / "run" / "best.safetensors", self_test=False).metadata["training"]["steps"] == 2
    assert "step 2: The accuracy of D_t is 0.50, which is chance" in shown.getvalue()
    again = trainer.Trainer(config, stream=io.StringIO())
    again.run()
    assert again.step == 4


def test_an_accuracy_is_doubted_at_chance_and_near_perfection_only():
    pytest.importorskip("lightning_fabric")
    from mkd_core.training.trainer import doubt_of_accuracy

    assert [bool(doubt_of_accuracy("D", value)) for value in (0.5, 0.6, 0.97, 0.995)] == [True, False, False, True]
    assert "chance" in doubt_of_accuracy("D", 0.5) and "perfect" in doubt_of_accuracy("D", 0.995)
