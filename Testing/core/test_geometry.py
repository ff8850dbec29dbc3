"""Grids: flips and permutations change nothing, interpolation is what it says, class scores come back exactly."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from hypothesis import given, settings, strategies
from torch.nn import functional

from mkd_core.errors import InputError
from mkd_core.inference import geometry, resampling
from mkd_core.inference.geometry import Grid, OrientedVolume
from Testing.support.stored_volumes import ORIENTATIONS, rotation, stored_otherwise


def random_image(size, spacing, direction=None, origin=(0.0, 0.0, 0.0), seed=0) -> sitk.Image:
    """Noise on a grid; ``size`` and ``spacing`` are (x, y, z)."""
    image = sitk.GetImageFromArray(np.random.default_rng(seed).integers(-1000, 1000, size[::-1]).astype(np.int16))
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    if direction is not None:
        image.SetDirection(np.asarray(direction).ravel().tolist())
    return image


def random_scores(shape, seed=0, smooth=True) -> torch.Tensor:
    """Class probabilities (8, D, H, W), neighbouring ones alike."""
    noise = torch.from_numpy(np.random.default_rng(seed).normal(size=(1, 8, *shape)).astype(np.float32))
    return (6 * functional.avg_pool3d(noise, 3, 1, 1, count_include_pad=False) if smooth else noise)[0].softmax(dim=0)


sizes = strategies.tuples(*[strategies.integers(8, 14)] * 3)
spacings = strategies.tuples(*[strategies.sampled_from([0.4, 0.75, 1.0, 1.3, 2.0, 4.5])] * 3)
oblique = strategies.tuples(*[strategies.integers(-60, 60)] * 3).map(
    lambda angles: rotation([angle / 100 for angle in angles])
)


@settings(max_examples=60)
@given(
    orientation=strategies.sampled_from(ORIENTATIONS),
    size=sizes,
    spacing=spacings,
    direction=strategies.one_of(strategies.none(), oblique),
)
def test_however_a_volume_is_stored_its_field_is_the_same(orientation, size, spacing, direction):
    plain = OrientedVolume(random_image(size, spacing, direction, (11.0, -70.0, 5.0)))
    other = OrientedVolume(stored_otherwise(plain.image, *orientation))
    assert np.array_equal(plain.voxels, other.voxels)
    assert np.array_equal(plain.spacing, other.spacing)
    assert np.array_equal(plain.rotation, other.rotation)
    assert np.allclose(plain.to_world((0, 0, 0)), other.to_world((0, 0, 0)), atol=1e-6)


@settings(max_examples=30)
@given(
    orientation=strategies.sampled_from(ORIENTATIONS),
    direction=strategies.one_of(strategies.none(), oblique),
    data=strategies.data(),
)
def test_positions_in_the_local_frame_are_positions_in_the_world(orientation, direction, data):
    image = stored_otherwise(random_image((9, 10, 11), (0.7, 1.1, 2.0), direction, (5.0, -3.0, 90.0)), *orientation)
    field = OrientedVolume(image)
    index = [data.draw(strategies.integers(0, count - 1)) for count in field.size]
    world = field.to_world(field.rotation @ (np.array(index) * field.spacing))
    there = image.TransformPhysicalPointToIndex(world)
    assert np.allclose(image.TransformIndexToPhysicalPoint(there), world, atol=1e-4)
    assert image.GetPixel(*there) == field.voxels[tuple(index)]


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
def test_the_labels_of_a_block_come_to_their_place_in_the_image(order, signs):
    image = stored_otherwise(random_image((8, 9, 10), (1.0, 2.0, 3.0)), order, signs)
    field = OrientedVolume(image)
    block = tuple(slice(first, first + count) for first, count in zip((1, 2, 0), (4, 3, min(5, field.size[2]))))
    labels = np.random.default_rng(0).integers(0, 8, [side.stop - side.start for side in block]).astype(np.uint8)
    result = field.block_to_image(labels, block)
    expected = np.zeros(field.size, np.uint8)
    expected[block] = labels
    assert np.array_equal(OrientedVolume(result).voxels, expected)
    assert result.GetPixelID() == sitk.sitkUInt8
    assert (result.GetSize(), result.GetSpacing(), result.GetOrigin(), result.GetDirection()) == (
        image.GetSize(),
        image.GetSpacing(),
        image.GetOrigin(),
        image.GetDirection(),
    )


def test_a_direction_that_is_upright_but_for_rounding_is_upright():
    assert OrientedVolume(random_image((8, 8, 8), (1, 1, 1), rotation((3e-5, -2e-5, 1e-5)))).is_upright
    assert not OrientedVolume(random_image((8, 8, 8), (1, 1, 1), rotation((1e-3, 0, 0)))).is_upright


def test_sheared_axes_are_refused():
    class Sheared:
        """What ITK would say of an image whose axes are not at right angles."""

        def GetDirection(self):
            return (1.0, 0.1, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)

    with pytest.raises(InputError, match="right angles"):
        OrientedVolume(Sheared())


@given(
    count=strategies.integers(2, 30),
    spacing=strategies.floats(0.2, 5),
    width=strategies.floats(0.2, 12),
    positions=strategies.lists(strategies.floats(-40, 200), min_size=1, max_size=10),
)
def test_interpolation_weights_add_up_to_one_and_reproduce_straight_lines(count, spacing, width, positions):
    width = max(width, spacing)
    positions = np.sort(np.array(positions))
    matrix = resampling.weights(count, spacing, positions, width)
    assert matrix.min() >= 0
    assert np.allclose(matrix.sum(axis=1), 1, atol=1e-5)
    samples = spacing * np.arange(count)
    last = samples[-1]
    assert np.allclose((matrix @ samples)[positions <= -width], 0, atol=1e-4 * max(1, last))
    assert np.allclose((matrix @ samples)[positions >= last + width], last, rtol=1e-4)
    if width == spacing:
        assert np.allclose(matrix @ samples, np.clip(positions, 0, last), atol=1e-3)


@settings(max_examples=25)
@given(
    size=sizes, spacing=spacings, step=strategies.sampled_from([0.5, 1.0, 2.0]), stride=strategies.sampled_from([1, 4])
)
def test_an_upright_volume_is_sampled_as_by_antialiased_interpolation(size, spacing, step, stride):
    field = OrientedVolume(random_image(size, spacing))
    grid = geometry.enclosing_grid(field, step, stride)
    values = resampling.sample(field, grid).double()
    expected = torch.from_numpy(field.voxels.astype(np.float64))
    for axis in range(3):
        positions = grid.start[axis] + grid.spacing * np.arange(grid.size[axis])
        samples = np.arange(-60, field.size[axis] + 60)
        kernel = np.maximum(
            0, 1 - np.abs(samples * field.spacing[axis] - positions[:, None]) / max(step, field.spacing[axis])
        )
        kernel /= kernel.sum(axis=1, keepdims=True)
        padded = expected.index_select(axis, torch.from_numpy(samples.clip(0, field.size[axis] - 1)))
        expected = torch.tensordot(torch.from_numpy(kernel), padded, ([1], [axis])).movedim(0, axis)
    assert torch.allclose(values, expected, atol=0.02)


@settings(max_examples=20)
@given(direction=oblique, spacing=spacings)
def test_sampling_a_ramp_gives_the_ramp_whatever_the_directions(direction, spacing):
    size = (24, 22, 20)
    image = random_image(size, spacing, direction)
    index = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), axis=-1)
    slope = np.array((1.0, -2.0, 0.5))
    ramp = ((index * spacing) @ direction.T @ slope).transpose(2, 1, 0)
    values = sitk.GetImageFromArray(np.ascontiguousarray(ramp))
    values.CopyInformation(image)
    field = OrientedVolume(values)
    low, high = field.bounds()
    middle = (low + high) / 2
    step = 0.1 * min(count * s for count, s in zip(size, spacing))  # so that no kernel reaches the edge
    grid = Grid((3, 3, 3), tuple(middle - step), step)
    sampled = resampling.sample(field, grid).numpy()
    for k, j, i in itertools.product(range(3), repeat=3):
        world = field.to_world(np.array(grid.start) + np.array((k, j, i)) * grid.spacing)
        # A triangle of few samples is not exactly even: a tenth of a sample's width at most.
        assert sampled[k, j, i] == pytest.approx(
            np.dot(world, slope), abs=0.01 + 0.1 * max(spacing) * np.linalg.norm(slope)
        )


def test_averaging_lowers_noise_as_much_for_oblique_as_for_upright_volumes():
    image = random_image((48, 48, 48), (1, 1, 1))
    upright = resampling.sample(OrientedVolume(image), Grid((12, 12, 12), (12, 12, 12), 2.0)).std()
    image.SetDirection(rotation((0.3, 0.2, -0.3)).ravel().tolist())
    field = OrientedVolume(image)
    low, high = field.bounds()
    turned = resampling.sample(field, Grid((12, 12, 12), tuple((low + high) / 2 - 11), 2.0)).std()
    assert turned == pytest.approx(float(upright), rel=0.25)
    assert upright < 0.4 * np.std(sitk.GetArrayViewFromImage(image))


def dense_labels(scores: torch.Tensor, grid: Grid, field: OrientedVolume) -> tuple[np.ndarray, np.ndarray]:
    """Trilinear interpolation of all classes at all voxels, and the gap between best and second-best; -1 outside the
    grid.
    """
    index = np.stack(np.meshgrid(*map(np.arange, field.size), indexing="ij"), axis=-1)
    position = (index * field.spacing) @ field.rotation.T
    coordinates = (position - grid.start) / grid.steps
    scaled = torch.from_numpy(coordinates * 2 / (np.array(grid.size) - 1) - 1).flip(-1)
    values = functional.grid_sample(scores[None].double(), scaled[None], padding_mode="border", align_corners=True)[0]
    best = values.topk(2, dim=0).values
    outside = ((coordinates < -0.5) | (coordinates > np.array(grid.size) - 0.5)).any(axis=-1)
    labels = values.argmax(dim=0).numpy().astype(int)
    labels[outside] = -1
    return labels, (best[0] - best[1]).numpy()


@settings(max_examples=40)
@given(
    seed=strategies.integers(0, 1000),
    spacing=spacings,
    direction=strategies.one_of(strategies.none(), oblique),
    shape=strategies.tuples(*[strategies.sampled_from([4, 8, 28])] * 3),
    smooth=strategies.booleans(),
    start=strategies.tuples(*[strategies.floats(-20, 8)] * 3),
    voxel=strategies.sampled_from([2.0, (7.0, 1.5, 2.0)]),
)
def test_class_scores_come_back_as_by_interpolating_all_of_them(seed, spacing, direction, shape, smooth, start, voxel):
    field = OrientedVolume(random_image((19, 23, 21), spacing, direction))
    scores = random_scores(shape, seed, smooth)
    grid = Grid(shape, start, voxel)
    labels = np.full(field.size, 99, np.uint8)
    assert list(resampling.write_labels(scores, grid, field, labels[geometry.overlap_slices(grid, field)]))[-1:] in (
        [],
        [1.0],
    )
    expected, gap = dense_labels(scores, grid, field)
    outside = expected < 0
    # Voxels exactly on the grid's border may fall on either side by rounding; near-ties may go either way.
    index = np.stack(np.meshgrid(*map(np.arange, field.size), indexing="ij"), axis=-1)
    coordinates = ((index * field.spacing) @ field.rotation.T - grid.start) / grid.steps
    on_border = ((np.abs(coordinates + 0.5) < 1e-4) | (np.abs(coordinates - np.array(shape) + 0.5) < 1e-4)).any(axis=-1)
    assert (labels[outside & ~on_border] == 99).all()
    clear = ~outside & ~on_border & (gap > 1e-4)
    assert np.array_equal(labels[clear], expected[clear])


def test_a_grid_beside_the_volume_writes_nothing():
    for direction in (None, rotation((0.3, 0, 0))):
        field = OrientedVolume(random_image((8, 8, 8), (1, 1, 1), direction))
        grid = Grid((4, 4, 4), (500, 0, 0), 2.0)
        block = geometry.overlap_slices(grid, field)
        labels = np.zeros(field.size, np.uint8)[block]
        list(resampling.write_labels(random_scores((4, 4, 4)), grid, field, labels))
        assert not sitk.GetArrayFromImage(field.block_to_image(labels, block)).any()


boxes = strategies.tuples(*[strategies.floats(-30, 60)] * 3)


@settings(max_examples=80)
@given(
    low=boxes,
    extent=strategies.tuples(*[strategies.floats(5, 70)] * 3),
    stride=strategies.sampled_from([4, 16]),
    limit=strategies.floats(40, 200),
)
def test_a_box_holds_what_was_asked_for_and_stays_in_the_volume_if_it_can(low, extent, stride, limit):
    field = OrientedVolume(random_image((40, 50, 60), (1.0, 1.0, 1.0)))
    low = np.array(low)
    high = low + extent
    bound_low, bound_high = field.bounds()
    if (np.minimum(high, bound_high) <= np.maximum(low, bound_low)).any():
        return
    grid, is_cut = geometry.box_grid(field, low, high, 2.0, stride, (limit,) * 3)
    assert all(count % stride == 0 for count in grid.size)
    assert all(count * 2.0 <= max(limit, 2.0 * stride) for count in grid.size)
    if not is_cut:
        assert (grid.low <= np.maximum(low, bound_low) + 1e-6).all()
        assert (grid.high >= np.minimum(high, bound_high) - 1e-6).all()
    for axis in range(3):
        if grid.size[axis] * 2.0 <= bound_high[axis] - bound_low[axis]:
            assert grid.low[axis] >= bound_low[axis] - 1e-6 and grid.high[axis] <= bound_high[axis] + 1e-6
        else:
            assert grid.low[axis] <= bound_low[axis] + 1e-6 and grid.high[axis] >= bound_high[axis] - 1e-6


def test_a_box_that_reaches_out_of_the_volume_is_no_larger_for_that():
    """Else padding takes the place of image, and the largest box is used up outside of the volume."""
    field = OrientedVolume(random_image((40, 50, 60), (1.0, 1.0, 1.0)))
    grid, is_cut = geometry.box_grid(field, (-100, 10, 20), (30, 30, 200), 2.0, 4, (64.0,) * 3)
    assert not is_cut and grid.size == (16, 12, 12)
    assert grid.low[0] == pytest.approx(-0.5) and grid.high[2] == pytest.approx(39.5)


def test_a_class_that_wins_by_little_over_all_others_is_written():
    """Of eight classes one is the best with hardly more than an eighth."""
    field = OrientedVolume(random_image((20, 20, 20), (1.0, 1.0, 1.0)))
    noise = torch.from_numpy(np.random.default_rng(0).normal(0, 0.05, (8, 10, 10, 10)).astype(np.float32))
    scores = noise.softmax(dim=0)
    assert scores.max() < 0.16
    grid = Grid((10, 10, 10), (0.5, 0.5, 0.5), 2.0)
    labels = np.full(field.size, 99, np.uint8)
    list(resampling.write_labels(scores, grid, field, labels[geometry.overlap_slices(grid, field)]))
    expected, gap = dense_labels(scores, grid, field)
    clear = (expected >= 0) & (gap > 1e-4)
    assert clear.mean() > 0.5 and np.array_equal(labels[clear], expected[clear])


def test_the_covering_grid_covers_and_is_no_larger_than_needed():
    field = OrientedVolume(random_image((40, 50, 60), (1.0, 1.2, 2.0), rotation((0.2, 0.1, 0.3))))
    grid = geometry.enclosing_grid(field, 5.0, 8)
    low, high = field.bounds()
    assert (grid.low <= low + 1e-6).all() and (grid.high >= high - 1e-6).all()
    assert all(side < extent + 8 * 5.0 for side, extent in zip(grid.high - grid.low, high - low))
