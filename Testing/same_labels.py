"""Compare the labels that another Python environment gives with those of this one.

Usage: python -m Testing.same_labels OTHER_PYTHON [--least 0.999]

Makes a heart CT and a heart MR, segments each with the weights that come with the package in both environments, in
float32 and bfloat16, and prints versions and how many voxels have other labels. Exits with 1 if fewer labels of the
heart than `--least` agree. The order in which PyTorch adds up changes from version to version, so a few voxels of a
border may differ.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk

ROOT = Path(__file__).resolve().parents[1]
SPACING_MM = 2.0
#: In a process, so that this one's versions are never mistaken for the other's.
VERSIONS = "import numpy, torch; print('PyTorch', torch.__version__, 'NumPy', numpy.__version__)"


def main() -> int:
    """Compare; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m Testing.same_labels", description=__doc__.split("\n")[0])
    parser.add_argument("other", help="the other environment's Python")
    parser.add_argument(
        "--least", type=float, default=0.999, help="share of the heart's voxels whose labels must agree"
    )
    arguments = parser.parse_args()
    # The other environment alone may be told to look elsewhere for its packages.
    here = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    print(f"here: {run(sys.executable, here, '-c', VERSIONS)}; there: {run(arguments.other, None, '-c', VERSIONS)}")
    worst = 1.0
    with tempfile.TemporaryDirectory() as folder:
        for modality in ("CT", "MR"):
            volume = Path(folder, f"{modality}.nrrd")
            run(
                sys.executable,
                here,
                *("-m", "mkd_core", "synthesize", "--modality", modality, "--seed", "3"),
                *("--spacing", str(SPACING_MM), str(volume)),
            )
            for precision in ("float32", "bfloat16"):
                found = [
                    labels(python, environment, volume, modality, precision)
                    for python, environment in ((sys.executable, here), (arguments.other, None))
                ]
                heart = (found[0] > 0) | (found[1] > 0)
                agreement = float((found[0] == found[1])[heart].mean())
                worst = min(worst, agreement)
                differing, all_of_it = np.count_nonzero(found[0] != found[1]), np.count_nonzero(heart)
                print(f"{modality} {precision}: {differing} of {all_of_it} voxels differ, {agreement:.3%} agree")
    return 0 if worst >= arguments.least else 1


def labels(python: str, environment: dict[str, str] | None, volume: Path, modality: str, precision: str) -> np.ndarray:
    """Segment a volume with the command of an environment."""
    target = volume.with_name("labels.nrrd")
    run(
        python,
        environment,
        *("-m", "mkd_core", "segment", "--quiet", "--overwrite", "--device", "cpu", "--threads", "1"),
        *("--modality", modality, "--precision", precision, str(volume), str(target)),
    )
    return sitk.GetArrayFromImage(sitk.ReadImage(str(target)))


def run(python: str, environment: dict[str, str] | None, *arguments: str) -> str:
    """Run a Python in the project's folder; returns what it printed."""
    done = subprocess.run(
        [python, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1800, check=False
    )
    if done.returncode != 0:
        raise SystemExit(f"{python} {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
