"""Loaded into the Dask workers of a test: networks that know the heart instead of weights, and studies that hold their
worker or take more memory than it has.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from pathlib import Path

import numpy as np

from mkd_core.archive import study
from mkd_core.io import bundle
from Testing.support.known_heart import KnownBundle

#: Files whose names begin so do what their names say, and are read only when it is over.
HOLDING, HUNGRY = "holding", "hungry"

#: A study that holds its worker does so as long as a file of this name lies beside it.
HOLD = "hold"

_HUNGER = 2600 << 20


def known_bundle(path: Path | str, **_) -> KnownBundle:
    """The known networks, under the check sum of the file."""
    known = KnownBundle()
    object.__setattr__(known, "sha256", hashlib.sha256(Path(path).read_bytes()).hexdigest())
    return known


def dask_setup(worker) -> None:
    """Called by Dask in every worker."""
    read = study._volume

    @contextlib.contextmanager
    def faulty(source):
        path = Path(source["path"])
        while path.name.startswith(HOLDING) and (path.parent / HOLD).exists():
            time.sleep(0.05)
        if path.name.startswith(HUNGRY):
            taken = np.ones(_HUNGER, np.uint8)
            while taken.any():  # until the worker is ended
                time.sleep(0.05)
        with read(source) as volume:
            yield volume

    study._volume = faulty
    bundle.load_bundle = known_bundle
