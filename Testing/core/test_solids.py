"""Distances and maps of space from which hearts are made."""

from __future__ import annotations

import numpy as np
import pytest

from mkd_core.synthesis.solids import FAR, Space, smooth_max, smooth_min, spline
from mkd_core.synthesis.warp import FreeForm, basis, rotation, shrink_back, spread, twist_back


def grid(half: float = 30.0, step: float = 3.0) -> np.ndarray:
    """Points ``(3, n)`` of a cube around the origin."""
    axis = np.arange(-half, half + step / 2, step, dtype=np.float32)
    return np.stack(np.meshgrid(axis, axis, axis, indexing="ij")).reshape(3, -1)


def lengths(vectors: np.ndarray) -> np.ndarray:
    return np.sqrt((vectors**2).sum(axis=0))


def test_an_ellipsoid_with_equal_radii_is_a_sphere_with_exact_distances():
    points = grid()
    found = Space(points).ellipsoid((1.0, 2.0, 3.0), (10.0, 10.0, 10.0))
    exact = lengths(points - np.array([[1.0], [2.0], [3.0]])) - 10.0
    near = np.abs(exact) < 8
    assert found[near] == pytest.approx(exact[near], abs=1e-3)


def test_the_surface_of_a_turned_ellipsoid_is_where_it_should_be():
    axes, radii = rotation((20.0, 30.0, 40.0)).T, np.array([20.0, 12.0, 8.0])
    tips = (axes * radii[:, None]).T.astype(np.float32)
    assert Space(tips).ellipsoid((0, 0, 0), radii, axes) == pytest.approx(np.zeros(3), abs=1e-3)


def test_a_straight_tube_has_the_radius_and_the_length_it_was_given():
    points = np.array([[1, 5, 0], [3, 5, 0], [0, 5, 10.5]], dtype=np.float32).T
    distance, arc = Space(points).tube_with_arc([(0, 0, 0, 2.0), (0, 10, 0, 2.0)])
    assert distance == pytest.approx([-1.0, 1.0, 8.5], abs=0.05)
    assert arc == pytest.approx([5.0, 5.0, 5.0], abs=0.5)


def test_far_points_are_far():
    distance, arc = Space(np.array([[500.0], [0.0], [0.0]], dtype=np.float32)).tube_with_arc(
        [(0, 0, 0, 2.0), (0, 10, 0, 2.0)]
    )
    assert distance == [FAR] and np.isinf(arc).all()


def test_a_spline_goes_through_its_points():
    points = np.array([[0.0, 0, 0], [10, 0, 0], [10, 10, 0], [10, 10, 20]])
    curve, radius, arc = spline(points, np.array([1.0, 2.0, 3.0, 4.0]))
    for point, value in zip(points, (1.0, 2.0, 3.0, 4.0)):
        nearest = np.argmin(((curve - point) ** 2).sum(axis=1))
        assert np.linalg.norm(curve[nearest] - point) < 1e-6 and radius[nearest] == pytest.approx(value)
    assert np.all(np.diff(arc) > 0) and arc[-1] > 40


def test_blending_adds_a_fillet_only_where_the_solids_are_near_each_other():
    a, b = np.array([0.0, 0.0, -5.0]), np.array([0.0, 10.0, 5.0])
    assert smooth_min(a, b, 4.0) == pytest.approx([-1.0, 0.0, -5.0])
    assert smooth_max(a, b, 4.0) == pytest.approx([1.0, 10.0, 5.0])


def test_growth_makes_the_middle_larger_and_leaves_what_is_far_alone():
    points = np.array([[1.0, 0, 0], [200.0, 0, 0]], dtype=np.float32).T
    moved = shrink_back(points, (0, 0, 0), 1.25, 20.0)
    assert moved[0] == pytest.approx([0.8, 200.0], abs=0.01)


@pytest.mark.parametrize("factor", [0.7, 1.4])
def test_growth_folds_nothing(factor):
    line = np.zeros((3, 400), dtype=np.float32)
    line[0] = np.linspace(-80, 80, 400)
    assert np.all(np.diff(shrink_back(line, (0, 0, 0), factor, 28.0)[0]) > 0)


def test_a_twist_turns_the_middle_keeps_distances_to_it_and_leaves_the_outside():
    points = np.array([[10.0, 0, 0], [60.0, 0, 5.0], [150.0, 0, 0]], dtype=np.float32).T
    turned = twist_back(points, (0, 0, 0), (0, 0, 1), 30.0, 20.0, 100.0)
    assert lengths(turned) == pytest.approx(lengths(points), rel=1e-5)
    assert turned[:, 0] == pytest.approx([10 * np.cos(np.pi / 6), -10 * np.sin(np.pi / 6), 0], abs=1e-3)
    assert turned[:, 2] == pytest.approx(points[:, 2])


def test_linear_weights_interpolate_a_linear_field_exactly():
    axes = [np.arange(0.0, 20.0, 2.0), np.arange(0.0, 14.0, 2.0), np.arange(0.0, 12.0, 2.0)]
    fine = [np.arange(1.0, 9.0, 0.7)] * 3

    def field(x, y, z):
        return x[None, None, :] + 2 * y[None, :, None] - 3 * z[:, None, None]

    weights = tuple(basis(at, axis[0], 2.0, len(axis), cubic=False) for at, axis in zip(fine, axes[::-1]))
    assert spread(field(*axes).astype(np.float32), weights) == pytest.approx(field(*fine), abs=1e-3)


def test_a_random_field_is_the_same_however_it_is_sampled():
    field = FreeForm(np.random.default_rng(0), (-50, -50, -50), (50, 50, 50), 20.0, 1)
    fine, coarse = np.arange(-48.0, 49.0, 2.0), np.arange(-48.0, 49.0, 8.0)
    values = field.on_grid((fine, fine, fine))
    assert field.on_grid((coarse, coarse, coarse)) == pytest.approx(values[:, ::4, ::4, ::4], abs=1e-4)
    assert 0.7 < values.std() < 1.3
