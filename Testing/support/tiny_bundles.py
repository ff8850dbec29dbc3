"""Descriptions and weights of bundles with tiny networks."""

from __future__ import annotations

import torch

from mkd_core.method import networks

TINY_SEGMENTOR = {"type": "segmentor", "channels": [4, 8, 8]}
TINY_GENERATOR = {"type": "generator", "channels": 2, "blocks": 1}


def tiny_description() -> dict:
    """A complete description of a bundle with tiny networks."""
    return {
        "format": 1,
        "name": "tiny",
        "version": "0.0.1",
        "created": "2026-01-01",
        "target": "CT",
        "assistant": "MR",
        "structures": ["LV", "RV", "LA", "RA", "Myo", "AA", "PA"],
        "networks": {
            "localiser": TINY_SEGMENTOR,
            "generator_a2t": TINY_GENERATOR,
            "generator_t2a": TINY_GENERATOR,
            "segmentor_real": TINY_SEGMENTOR,
            "segmentor_syn": TINY_SEGMENTOR,
        },
        "localiser": {"spacing_mm": 5.0, "min_heart_ml": 150.0, "margin_mm": 15.0},
        "segmentor": {"spacing_mm": 2.0, "max_box_mm": [256, 256, 288]},
        "normalisation": {
            "CT": {"kind": "window", "low": -300.0, "high": 700.0},
            "MR": {"kind": "percentile", "low": 1.0, "high": 99.5},
        },
        "alignment": {"target": "cycle", "assistant": "translate"},
        "training": {},
        "quality": {},
        "licence": "Apache-2.0",
        "intended_use": "tests",
    }


def random_state_dicts(description: dict, seed: int = 0) -> dict:
    """Random weights for every network of a description."""
    torch.manual_seed(seed)
    return {part: networks.build(architecture).state_dict() for part, architecture in description["networks"].items()}
