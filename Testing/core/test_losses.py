"""Each loss term against values computed by hand."""

import math

import pytest

torch = pytest.importorskip("torch")

from mkd_core.method.losses import (
    IGNORE,
    cycle_loss,
    discriminator_loss,
    distillation_loss,
    generator_loss,
    segmentation_loss,
)
from mkd_core.training.image_pool import ImagePool


def _two_voxels(first, second):
    """Logits (1, 2, 1, 1, 2) of two voxels."""
    return torch.tensor([[[[[first[0], second[0]]]], [[[first[1], second[1]]]]]], dtype=torch.float32)


def test_the_segmentation_loss_of_undecided_logits_is_log_two_plus_half_a_dice():
    target = torch.tensor([[[[0, 1]]]])
    # p = 0.5 everywhere: CE = ln 2; foreground overlap 0.5, sizes 1 + 1: Dice loss 1 - (2*0.5 + 1) / (2 + 1) = 1/3.
    assert segmentation_loss(_two_voxels((0, 0), (0, 0)), target).item() == pytest.approx(math.log(2) + 1 / 3, abs=1e-6)


def test_a_sure_and_right_answer_costs_nothing():
    assert segmentation_loss(_two_voxels((30, 0), (0, 30)), torch.tensor([[[[0, 1]]]])).item() == pytest.approx(
        0, abs=1e-5
    )


def test_ignored_voxels_change_neither_the_loss_nor_its_gradient():
    logits = _two_voxels((0.3, -0.2), (5.0, -3.0)).requires_grad_()
    segmentation_loss(logits, torch.tensor([[[[1, IGNORE]]]])).backward()
    assert logits.grad[..., 1].abs().max() == 0
    assert logits.grad[..., 0].abs().max() > 0


def test_distillation_is_the_softened_divergence_times_the_squared_temperature():
    teacher, student = _two_voxels((2, 0), (0, 0)), _two_voxels((0, 0), (0, 0))
    # T = 2: teacher softmax((1, 0)) = (e/(1+e), 1/(1+e)), student (0.5, 0.5); the second voxel agrees.
    p = math.e / (1 + math.e)
    divergence = p * math.log(p / 0.5) + (1 - p) * math.log((1 - p) / 0.5)
    assert distillation_loss(teacher, student, 2.0).item() == pytest.approx(4 * divergence / 2, abs=1e-6)


def test_distillation_gives_the_teacher_no_gradient():
    teacher, student = _two_voxels((2, 0), (1, 0)).requires_grad_(), _two_voxels((0, 1), (0, 0)).requires_grad_()
    distillation_loss(teacher, student).backward()
    assert teacher.grad is None
    assert student.grad.abs().max() > 0


def test_least_squares_gan_terms_match_their_formulas():
    real, made = torch.tensor([0.5, 1.0]), torch.tensor([0.0, 0.5])
    assert generator_loss(made).item() == pytest.approx((1 + 0.25) / 2)
    assert discriminator_loss(real, made).item() == pytest.approx(0.5 * (0.25 / 2 + 0.25 / 2))
    assert cycle_loss(real, made).item() == pytest.approx(0.5)


def test_the_other_form_of_the_gan_is_cross_entropy_of_logits():
    real, made = torch.tensor([0.0]), torch.tensor([1.0])
    assert generator_loss(made, "cross-entropy").item() == pytest.approx(math.log(1 + math.exp(-1)))
    assert discriminator_loss(real, made, "cross-entropy").item() == pytest.approx(
        0.5 * (math.log(2) + math.log(1 + math.e))
    )


def test_class_weights_weigh_the_cross_entropy_and_not_the_dice():
    target, logits = torch.tensor([[[[0, 1]]]]), _two_voxels((1, 0), (0, 0))
    weights = torch.tensor([1.0, 3.0])
    plain = segmentation_loss(logits, target).item()
    # CE of the voxels: ln(1 + e^-1) and ln 2.
    first, second = math.log(1 + math.exp(-1)), math.log(2)
    expected = plain - (first + second) / 2 + (first + 3 * second) / 4
    assert segmentation_loss(logits, target, weights).item() == pytest.approx(expected, abs=1e-6)


def test_the_dice_averages_over_the_structures_that_are_there():
    # Three classes; the second structure is absent and would cost 1 - 1 / (sum p + 1) if it counted.
    logits = torch.zeros(1, 3, 1, 1, 3)
    loss = segmentation_loss(logits, torch.tensor([[[[0, 1, 1]]]])).item()
    # p = 1/3 everywhere: CE = ln 3; overlap 2/3, sizes 1 + 2.  The background would cost 1 - (2/3 + 1) / (1 + 1 + 1).
    assert loss == pytest.approx(math.log(3) + 1 - (4 / 3 + 1) / (1 + 2 + 1), abs=1e-6)


def test_the_dice_counts_no_ignored_voxel_as_predicted():
    logits = torch.zeros(1, 2, 1, 1, 2)
    counted = segmentation_loss(logits[..., :1], torch.tensor([[[[1]]]])).item()
    assert segmentation_loss(logits, torch.tensor([[[[1, IGNORE]]]])).item() == pytest.approx(counted, abs=1e-6)


def test_the_divergence_is_weighed_by_the_teachers_probabilities():
    teacher, student = _two_voxels((3, 0), (3, 0)), _two_voxels((0, 1), (0, 1))
    p, q = math.exp(3) / (1 + math.exp(3)), 1 / (1 + math.e)
    expected = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    assert distillation_loss(teacher, student, 1.0).item() == pytest.approx(expected, abs=1e-5)


def test_a_batch_in_which_nothing_counts_costs_nothing():
    logits = _two_voxels((1, 2), (3, 4)).requires_grad_()
    loss = segmentation_loss(logits, torch.tensor([[[[IGNORE, IGNORE]]]]))
    loss.backward()
    assert loss.item() == 0 and logits.grad.abs().max() == 0


def test_images_of_another_size_begin_a_new_pool_and_a_pool_survives_being_saved():
    pool = ImagePool(4, seed=3)
    pool.exchange(torch.zeros(2, 1, 4, 4, 4))
    assert pool.exchange(torch.ones(1, 1, 8, 8, 8)).shape == (1, 1, 8, 8, 8) and len(pool.images) == 1
    twin = ImagePool(4, seed=9)
    twin.restore(pool.state(), torch.device("cpu"))
    for value in range(20):
        image = torch.full((1, 1, 8, 8, 8), float(value))
        assert torch.equal(pool.exchange(image), twin.exchange(image))


def test_a_full_pool_hands_back_old_images_about_half_of_the_time():
    pool = ImagePool(4, seed=3)
    for value in range(4):
        assert pool.exchange(torch.full((1, 1, 1, 1, 1), float(value))).item() == value
    old = sum(pool.exchange(torch.full((1, 1, 1, 1, 1), 100.0 + n)).item() < 100 + n for n in range(200))
    assert 70 < old < 130
    assert len(pool.images) == 4


def test_a_pool_keeps_images_and_not_the_graph_that_made_them():
    pool = ImagePool(2, seed=3)
    weight = torch.ones(1, requires_grad=True)
    for _ in range(9):
        shown = pool.exchange(torch.ones(1, 1, 2, 2, 2) * weight)
        assert not shown.requires_grad and not any(image.requires_grad for image in pool.images)
    assert not ImagePool(0).exchange(torch.ones(1, 1, 2, 2, 2) * weight).requires_grad


def test_a_saved_pool_is_exact_to_the_last_bit():
    pool, twin = ImagePool(3, seed=3), ImagePool(3, seed=9)
    pool.exchange(torch.full((3, 1, 2, 2, 2), 1 / 3))
    twin.restore(pool.state(), torch.device("cpu"))
    assert all(torch.equal(one, other) for one, other in zip(pool.images, twin.images))
