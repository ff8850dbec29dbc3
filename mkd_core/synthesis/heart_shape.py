"""What tells one drawn heart from another, and how a random one is chosen."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

CHAMBERS = ("lv", "rv", "la", "ra")


@dataclass(frozen=True)
class HeartShape:
    """What a seed decides.  Lengths in mm before `scale` (but `lv_wall` after it), angles in degrees, growth factors
    are linear.

    Attributes:
        scale: size along x, y, z.
        body_turn: turns of everything about x, y, z.
        heart_turn: turns of the heart against the vessels about x, y, z.
        growth: factor of each chamber.
        lv_wall: thickness of the left ventricular wall.
        rv_wall, atrial_wall: thicknesses of the other walls.
        aorta: radius of the ascending aorta.
        pulmonary_trunk: radius of the pulmonary trunk.
        fat: mean thickness of the fat on the heart.
        bending: standard deviation of the coarse and of the fine free-form deformation.
    """

    scale: np.ndarray = field(default_factory=lambda: np.ones(3))
    body_turn: np.ndarray = field(default_factory=lambda: np.zeros(3))
    heart_turn: np.ndarray = field(default_factory=lambda: np.zeros(3))
    growth: dict[str, float] = field(default_factory=lambda: dict.fromkeys(CHAMBERS, 1.0))
    lv_wall: float = 9.0
    rv_wall: float = 3.5
    atrial_wall: float = 2.0
    aorta: float = 17.4
    pulmonary_trunk: float = 13.5
    fat: float = 2.2
    bending: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def draw(cls, rng: np.random.Generator, spread: float = 1.0) -> HeartShape:
        """A random heart: mostly ordinary ones, some dilated, small, thick- or thin-walled.

        Args:
            rng: decides it.
            spread: how far sizes may lie from the average, as a multiple of what is usual.
        """

        def normal(mean: float, deviation: float, low: float, high: float) -> float:
            drawn = np.clip(rng.normal(mean, deviation), low, high)
            return float(mean + spread * (drawn - mean))

        size = normal(1.0, 0.08, 0.86, 1.17)
        body_turn = rng.uniform(-9.0, 9.0, 3)
        # Upright in the end, and the pulmonary trunk not turned to the right of the aorta.
        limit = np.array([19.0, 16.0, 9.0])
        heart_turn = np.clip(rng.uniform(-17.0, 17.0, 3) + body_turn, -limit, limit) - body_turn
        return cls(
            scale=size * (1.0 + spread * (np.clip(rng.normal(1.0, 0.04, 3), 0.92, 1.08) - 1.0)),
            body_turn=body_turn,
            heart_turn=heart_turn,
            growth={
                "lv": normal(1.0, 0.12, 0.82, 1.27),
                "rv": normal(1.0, 0.10, 0.82, 1.25),
                "la": normal(1.0, 0.15, 0.76, 1.4),
                "ra": normal(1.04, 0.15, 0.8, 1.4),
            },
            lv_wall=normal(9.0, 1.5, 6.0, 13.0),
            rv_wall=normal(3.5, 0.4, 2.6, 4.5),
            atrial_wall=normal(2.0, 0.25, 1.5, 2.6),
            aorta=normal(17.4, 2.0, 12.5, 22.0),
            pulmonary_trunk=normal(13.4, 1.2, 10.5, 15.5),
            fat=normal(2.2, 1.4, 0.4, 5.0),
            bending=(normal(2.5, 0.5, 1.5, 3.5), normal(0.7, 0.2, 0.3, 1.1)),
        )
