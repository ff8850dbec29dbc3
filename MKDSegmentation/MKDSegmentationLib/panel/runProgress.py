"""How far a run is: stage, fraction, time spent and time to come; and its log, one fold away."""

import time

import qt
from slicer.i18n import tr as _

_REFRESH_MS = 500
SILENCE_S = 60.0  # without any news; more than a stage takes on a usual computer


def clock(seconds: float) -> str:
    """Return a duration as minutes and seconds."""
    whole = max(0, round(seconds))
    return f"{whole // 60}:{whole % 60:02d}"


class RunProgress:
    """Shows a run while it is under way.

    :param ui: the panel's widgets: progressBar (0 to 100), statusLabel, timeLabel, logTextEdit.
    :param now: function that returns the time in seconds, on a clock that nobody sets.
    """

    def __init__(self, ui, now=time.monotonic) -> None:
        self._progressBar, self._statusLabel, self._timeLabel, self._logTextEdit = (
            ui.progressBar,
            ui.statusLabel,
            ui.timeLabel,
            ui.logTextEdit,
        )
        self._now = now
        ui.logTextEdit.maximumBlockCount = 1000
        self._start, self._fraction, self._expected, self._stage = 0.0, 0.0, 0.0, ""
        self._heard = 0.0  # when something was last heard of the run
        self._timer = qt.QTimer()
        self._timer.setInterval(_REFRESH_MS)
        self._timer.connect("timeout()", self._showTimes)

    def begin(self, text: str, expectedSeconds: float) -> None:
        """A run begins.

        :param text: what happens first.
        :param expectedSeconds: how long the run will probably take.
        """
        self._start, self._expected, self._stage = self._now(), expectedSeconds, ""
        self.update(text, 0.0)
        self._timer.start()

    def update(self, text: str, fraction: float) -> None:
        """The run has come to a stage, and to a fraction (0 to 1) of the whole."""
        self._fraction, self._heard = fraction, self._now()
        self._progressBar.value = round(100 * fraction)
        self._statusLabel.text = text
        if text != self._stage:
            self._stage = text
            self.log(text)
        self._showTimes()

    def end(self, text: str) -> None:
        """The run is over; the text says how."""
        if self._timer.active:
            self.log(text)
        self._timer.stop()
        self._progressBar.value = 0
        self._timeLabel.text = ""

    def log(self, text: str) -> None:
        """Add a line to the log, with the time since the run began."""
        self._heard = self._now()
        since = f"{self._now() - self._start:.1f} s\t" if self._start else ""
        self._logTextEdit.appendPlainText(since + text)

    def _showTimes(self) -> None:
        elapsed, silence = self._now() - self._start, self._now() - self._heard
        if silence > SILENCE_S:  # a slow computer and a stuck process look alike from here: the user decides
            self._timeLabel.text = _(
                "{elapsed} elapsed, no news for {silence}. If this computer is slow, wait; else click Cancel."
            ).format(elapsed=clock(elapsed), silence=clock(silence))
            return
        left = max(0.0, self._expected - elapsed)
        if self._fraction > 0:  # the further the run is, the more its own pace tells
            atThisPace = elapsed * (1.0 - self._fraction) / self._fraction
            left += self._fraction * (atThisPace - left)
        self._timeLabel.text = _("{elapsed} elapsed, about {left} left").format(
            elapsed=clock(elapsed), left=clock(max(1.0, left))
        )
