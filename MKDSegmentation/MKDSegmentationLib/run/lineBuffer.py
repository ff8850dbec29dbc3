"""Lines of text out of pieces of bytes, whatever the writer is up to: broken text, pieces that end in mid-line, lines
without an end.
"""

LONGEST_LINE = 1 << 20  # bytes; a message of the worker has some thousands


class LineBuffer:
    """Cuts a stream of bytes into lines.

    Of a longer line than :data:`LONGEST_LINE` the end is dropped, so memory stays bounded.
    """

    def __init__(self) -> None:
        self._pieces = []
        self._size = 0

    def feed(self, data: bytes) -> list:
        """Take the next piece and return the lines, as texts, that it completes."""
        lines = []
        *ended, rest = data.split(b"\n")
        for part in ended:
            self._keep(part)
            lines.append(self.flush())
        self._keep(rest)
        return lines

    def flush(self) -> str:
        """Return the line that has not ended yet, and forget it."""
        line = b"".join(self._pieces).decode("utf-8", errors="replace").strip()
        self._pieces, self._size = [], 0
        return line

    def _keep(self, part: bytes) -> None:
        part = part[: LONGEST_LINE - self._size]
        if part:
            self._pieces.append(part)
            self._size += len(part)
