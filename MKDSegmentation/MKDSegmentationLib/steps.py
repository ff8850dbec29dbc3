"""Long work is written as generators of short steps: see run/incrementalTask.py."""


def allAtOnce(steps):
    """Take all steps of a generator without a break and return its value."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value
