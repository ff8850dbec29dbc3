"""Put the networks of a finished (or still running) training into a weights bundle.

python -m mkd_core.training.make_bundle --run runs/first --localiser runs/localiser --out mkd_core/weights/default.safetensors
"""

from __future__ import annotations

import argparse
import datetime
import json
from collections.abc import Sequence
from pathlib import Path

import torch

from mkd_core.bundle import save_bundle
from mkd_core.structures import STRUCTURES
from mkd_core.training import localiser
from mkd_core.training.mkd import MKDConfig
from mkd_core.training.run import DEFAULT_STAGES, NORMALISATION

_TRAINING_DATA = (
    "190 computer-made hearts deformed from a published statistical shape model (Rodero et al. 2021, PLOS Computational Biology 17(4): e1008851; "
    "MaciejPMarciniak/CardiacMeshConstruction) and 30 hearts of mkd_core.synthesis.anatomy, put into bodies and rendered as CT and MR by "
    "mkd_core.synthesis. No image of a person was used for training."
)
_INTENDED_USE = (
    "Research on contrast-enhanced cardiac CT (and bright-blood cardiac MR) of adults. Not a medical device; not for clinical decisions."
)


def networks_of_run(run: Path) -> tuple[dict[str, dict], dict]:
    """State dictionaries by bundle part, and how far the run got, from ``networks.pt`` or else ``checkpoint.pt``."""
    checkpoint = torch.load(run / "checkpoint.pt", weights_only=True)
    if (run / "networks.pt").exists():
        return torch.load(run / "networks.pt", weights_only=True), checkpoint["done"]
    parts: dict[str, dict] = {}
    for name, tensor in checkpoint["model"]["networks"].items():
        part, _, parameter = name.partition(".")
        if part in ("generator_a2t", "generator_t2a", "segmentor_real", "segmentor_syn"):
            parts.setdefault(part, {})[parameter] = tensor
    return parts, checkpoint["done"]


def make_bundle(
    run: Path, localiser_run: Path, out: Path, *, name: str, version: str, alignment: str = "cycle", quality: dict | None = None
) -> None:
    """Write a bundle.

    Args:
        run: folder of :mod:`mkd_core.training.run`.
        localiser_run: folder of :mod:`mkd_core.training.localiser`.
        out: file to write.
        name, version: of the bundle.
        alignment: what S_syn sees of a CT: ``"cycle"``, ``"none"`` or ``"mean"``.
        quality: measured figures to store with the weights.
    """
    config = MKDConfig()
    parts, done = networks_of_run(run)
    parts["localiser"] = torch.load(localiser_run / "localiser.pt", weights_only=True)
    metadata = {
        "format": 1,
        "name": name,
        "version": version,
        "created": datetime.date.today().isoformat(),
        "target": "CT",
        "assistant": "MR",
        "structures": [s.key for s in STRUCTURES],
        "networks": {
            "localiser": localiser.ARCHITECTURE,
            "generator_a2t": config.generator,
            "generator_t2a": config.generator,
            "segmentor_real": config.segmentor,
            "segmentor_syn": config.segmentor,
        },
        "localiser": {"spacing_mm": localiser.SPACING, "min_heart_ml": 150.0, "margin_mm": 20.0},
        "segmentor": {"spacing_mm": DEFAULT_STAGES[-1].spacing, "max_box_mm": [256.0, 256.0, 320.0]},
        "normalisation": NORMALISATION,
        "alignment": {"target": alignment, "assistant": "translate"},
        "training": {
            "data": _TRAINING_DATA,
            "scheme": "online mutual knowledge distillation, Li, Yu, Wang, Heng, AAAI 2020",
            "steps": done["step"],
            "distillation_images": config.distillation_images,
            "distillation_weight": config.distillation_weight,
        },
        "quality": quality or {},
        "licence": "Apache-2.0; cite the shape model named under training data",
        "intended_use": _INTENDED_USE,
    }
    save_bundle(out, metadata, parts, dtype="float16")


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of bundle making."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--localiser", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--name", default="Rendered hearts")
    parser.add_argument("--version", default="0.1")
    parser.add_argument("--alignment", choices=("cycle", "none", "mean"), default="cycle")
    parser.add_argument("--quality", type=Path, help="JSON of measured figures to store (Testing/benchmarks/accuracy.py --json)")
    options = parser.parse_args(arguments)
    quality = json.loads(options.quality.read_text()) if options.quality else None
    make_bundle(
        options.run,
        options.localiser,
        options.out,
        name=options.name,
        version=options.version,
        alignment=options.alignment,
        quality=quality,
    )
    print(f"{options.out}: {options.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
