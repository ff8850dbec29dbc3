"""Long work on the application's own thread, in steps so short that nobody notices."""

import qt


class IncrementalTask:
    """Runs a generator, one step at each turn of the event loop.

    :param steps: generator; its steps should take a few hundredths of a second at most.
    :param onDone: called with the value that the generator returned.
    :param onError: called with the exception that ended it.
    :param onStep: called with what each step yields.
    """

    def __init__(self, steps, onDone, onError, onStep=None) -> None:
        self._steps, self._onDone, self._onError, self._onStep = steps, onDone, onError, onStep
        self._timer = qt.QTimer()
        self._timer.setInterval(0)
        self._timer.connect("timeout()", self._step)
        self._timer.start()

    def stop(self) -> None:
        """Leave the rest undone; nothing is called any more."""
        self._end()
        self._steps.close()
        self._onDone = self._onError = self._onStep = None

    def _step(self) -> None:
        try:
            value = next(self._steps)
        except StopIteration as end:
            self._finish(self._onDone, end.value)
        except Exception as error:
            self._finish(self._onError, error)
        else:
            if self._onStep is not None:
                self._onStep(value)

    @property
    def isOver(self) -> bool:
        """True once it is done, has failed or was stopped."""
        return self._timer is None

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer.deleteLater()  # drops its connection to this object, which would keep both alive
            self._timer = None

    def _finish(self, callback, value) -> None:
        self._end()
        if callback is not None:
            callback(value)
