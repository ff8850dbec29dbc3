"""The ways in which one volume can be stored."""

import itertools

import numpy as np
import SimpleITK as sitk

#: Orders of the axes with the direction of each: the 48 orientations of an upright volume.
ORIENTATIONS = [
    (order, signs) for order in itertools.permutations(range(3)) for signs in itertools.product((1, -1), repeat=3)
]


def rotation(angles) -> np.ndarray:
    """Rotation matrix from three angles in radians."""
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        a, b = [other for other in range(3) if other != axis]
        turn = np.eye(3)
        turn[[a, a, b, b], [a, b, a, b]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
        matrix = matrix @ turn
    return matrix


def stored_otherwise(image: sitk.Image, order, signs) -> sitk.Image:
    """The same volume with its axes stored in another order and direction."""
    image = sitk.PermuteAxes(image, order)
    return sitk.Flip(image, [sign < 0 for sign in signs], flipAboutOrigin=False)
