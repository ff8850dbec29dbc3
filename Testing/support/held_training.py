"""The command mkd, whose training comes to a stand before a step and waits there to be ended:
python -m Testing.support.held_training STEP train run.toml

A test that kills a run in its middle can then be as slow as it likes.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from mkd_core.cli import main
from mkd_core.training.mkd import MutualDistillation

_step = MutualDistillation.step


def _held(method: MutualDistillation, *given: Any) -> Any:
    plan = given[4]
    while plan.step >= int(sys.argv[1]):
        time.sleep(0.05)
    return _step(method, *given)


if __name__ == "__main__":
    MutualDistillation.step = _held
    sys.exit(main(sys.argv[2:]))
