"""What a run shows of itself: a bar on the terminal, ``log.jsonl``, and TensorBoard."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

import numpy as np

from mkd_core.errors import InputError
from mkd_core.io.atomic import write_text
from mkd_core.io.preview import write_png

#: Time between lines where the output is no terminal, s.
_LINE_SECONDS = 60.0

#: Height of a panel's row on disk, pixels.
_PANEL_ROW = 192


class Progress:
    """Shows and records a run.

    Args:
        out: folder of the run; gets ``log.jsonl``, ``panels`` and ``tensorboard``.
        steps: length of the run.
        done: steps that an earlier start made.
        stream: where the bar goes.
        enabled: False records nothing and shows nothing, for all but the first process.

    Raises:
        InputError: tqdm or TensorBoard are not installed.
    """

    def __init__(self, out: Path, steps: int, done: int, stream: TextIO, enabled: bool = True) -> None:
        self._enabled = enabled
        if not enabled:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
            from tqdm import tqdm
        except ImportError as error:
            raise InputError(
                "tqdm and TensorBoard, which show a run, are not installed.",
                "Install them by pip install 'mkd-core[train]'.",
            ) from error
        self._out = out
        self._stream = stream
        self._log = _open_log(out / "log.jsonl", done)
        self._writer = SummaryWriter(str(out / "tensorboard"), purge_step=done, flush_secs=30)
        terminal = stream.isatty()
        self._bar = tqdm(
            total=steps,
            initial=done,
            unit="step",
            file=stream,
            dynamic_ncols=True,
            disable=not terminal,
            smoothing=0.05,
        )
        self._terminal = terminal
        self._begun, self._said, self._first, self._steps = time.monotonic(), 0.0, done, steps
        self._done = done
        self._dice: float | None = None

    def step(self, done: int) -> None:
        """One more step is done."""
        if self._enabled:
            self._done = done
            self._bar.update(done - self._bar.n if self._terminal else 0)

    def terms(self, step: int, rate: float, terms: Mapping[str, float]) -> None:
        """Mean of the loss terms of the last steps."""
        if not self._enabled:
            return
        rounded = {name: round(value, 4) for name, value in terms.items()}
        self._record({"step": step, "rate": round(rate, 4), **rounded})
        for name, value in terms.items():
            self._writer.add_scalar(f"loss/{name}", value, step)
        self._writer.add_scalar("rate", rate, step)
        dice = "" if self._dice is None else f"Dice {self._dice:.3f}  "
        shown = dice + "  ".join(f"{name} {value:.3g}" for name, value in rounded.items())
        self._bar.set_postfix_str(shown, refresh=False)
        if not self._terminal and (now := time.monotonic()) - self._said > _LINE_SECONDS:
            self._said = now
            self.say(f"step {step} of {self._steps}, {self._left(step, now)} left  {shown}")

    def _left(self, step: int, now: float) -> str:
        seconds = (now - self._begun) / max(1, step - self._first) * (self._steps - step)
        return f"{seconds / 3600:.1f} h" if seconds > 5400 else f"{seconds / 60:.0f} min"

    def dice(self, step: int, dice: Mapping[str, float], best: bool) -> None:
        """Dice of a validation."""
        if not self._enabled:
            return
        self._dice = dice["mean"]
        self._record({"step": step, "dice": dict(dice), "best": best})
        for name, value in dice.items():
            self._writer.add_scalar(f"dice/{name}", value, step)
        self.say(
            f"step {step}: Dice {dice['mean']:.4f}{' (best so far)' if best else ''}  "
            + "  ".join(f"{name} {value:.3f}" for name, value in dice.items() if name != "mean")
        )

    def panel(self, step: int, pixels: np.ndarray) -> None:
        """Picture of what the networks do, ``(H, W, 3)``, uint8."""
        if not self._enabled:
            return
        (self._out / "panels").mkdir(exist_ok=True)
        larger = max(1, round(_PANEL_ROW / (pixels.shape[0] / 2)))
        write_png(pixels.repeat(larger, axis=0).repeat(larger, axis=1), self._out / "panels" / f"step_{step:07d}.png")
        self._writer.add_image("panel", pixels, step, dataformats="HWC")

    def notice(self, text: str, fraction: float) -> None:
        """What is being done before the first step."""
        if self._enabled and self._terminal:
            self._bar.set_description_str(f"{text} ({fraction:.0%})")

    def say(self, text: str) -> None:
        """A line that stays."""
        if self._enabled:
            self._bar.write(text, file=self._stream)

    def stage(self, number: int, description: str) -> None:
        """A stage begins; the time left is estimated from its steps alone."""
        if self._enabled:
            self._begun, self._first = time.monotonic(), self._done
            self._bar.set_description_str(f"stage {number + 1}")
            self.say(description)

    def close(self) -> None:
        """Finish the files."""
        if self._enabled:
            self._bar.close()
            self._writer.close()
            self._log.close()

    def _record(self, entry: Mapping) -> None:
        self._log.write(json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%S"), **entry}) + "\n")


def _open_log(path: Path, done: int) -> TextIO:
    """The log, without what an earlier start wrote after its last checkpoint."""
    if path.exists():
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if _step_of(line) <= done]
        write_text(path, "".join(line + "\n" for line in lines))
    return path.open("a", buffering=1, encoding="utf-8")


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError):
        return float("inf")  # cut short when the run was killed
