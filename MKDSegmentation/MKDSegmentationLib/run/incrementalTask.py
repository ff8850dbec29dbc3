"""Long work on the application's own thread, in steps so short that nobody notices."""

import collections

import qt

_RESTING_MS = 50  # between two looks whether a mouse button is still held


class IncrementalTask:
    """Runs a generator, one step at a turn of the event loop. All tasks share the turns: the application waits for one
    step at a time, however many tasks there are.

    :param steps: generator; its steps should take a few hundredths of a second at most.
    :param onDone: called with the value that the generator returned.
    :param onError: called with the exception that ended it.
    :param onStep: called with what each step yields.
    :param isUrgent: False for work that nobody waits for: it goes on when no urgent task is left.
    :param restsWhileDrawing: True for work that takes no step while a mouse button is held, so that strokes in the
        views stay smooth.
    """

    def __init__(
        self, steps, onDone, onError, onStep=None, isUrgent: bool = True, restsWhileDrawing: bool = False
    ) -> None:
        self._steps, self._onDone, self._onError, self._onStep = steps, onDone, onError, onStep
        self.isUrgent, self.isOver, self._isPaused = isUrgent, False, False
        self._restsWhileDrawing = restsWhileDrawing
        _turns.add(self)

    def stop(self) -> None:
        """Leave the rest undone; nothing is called any more."""
        self._end()
        self._steps.close()

    @property
    def isPaused(self) -> bool:
        """True while no step is taken."""
        return self._isPaused

    @isPaused.setter
    def isPaused(self, isPaused: bool) -> None:
        if isPaused != self._isPaused and not self.isOver:
            self._isPaused = isPaused
            (_turns.remove if isPaused else _turns.add)(self)

    @property
    def isResting(self) -> bool:
        """True while the user may be drawing, for work that waits for the end of that."""
        return self._restsWhileDrawing and bool(qt.QApplication.mouseButtons())

    def step(self) -> None:
        """Take one step."""
        try:
            value = next(self._steps)
        except StopIteration as end:
            self._finish(self._onDone, end.value)
        except Exception as error:
            self._finish(self._onError, error)
        else:
            if self._onStep is not None:
                self._onStep(value)

    def _end(self) -> None:
        self.isOver = True
        _turns.remove(self)
        self._onDone = self._onError = self._onStep = None  # who is called may hold the task: both shall be freed

    def _finish(self, callback, value) -> None:
        self._end()
        if callback is not None:
            callback(value)


class _Turns:
    """Gives each turn of the event loop to one task; without tasks there is no timer."""

    def __init__(self) -> None:
        self._tasks: collections.deque = collections.deque()
        self._timer = None

    def add(self, task: IncrementalTask) -> None:
        """Let a task take steps."""
        self._tasks.append(task)
        if self._timer is None:
            self._timer = qt.QTimer()
            self._timer.setInterval(0)
            self._timer.connect("timeout()", self._next)
            self._timer.start()

    def remove(self, task: IncrementalTask) -> None:
        """Let a task take no more steps."""
        if task in self._tasks:
            self._tasks.remove(task)
        if not self._tasks and self._timer is not None:
            self._timer.stop()
            self._timer.deleteLater()  # drops its connection to this object, which would keep both alive
            self._timer = None

    def _next(self) -> None:
        awake = [task for task in self._tasks if not task.isResting]
        self._timer.setInterval(0 if awake else _RESTING_MS)
        task = next((task for task in awake if task.isUrgent), awake[0] if awake else None)
        if task is not None:
            self._tasks.remove(task)
            self._tasks.append(task)  # the others go first next time
            task.step()


_turns = _Turns()
