"""Lines out of pieces of bytes, whatever the writer is up to."""

import pytest

from MKDSegmentationLib.run import lineBuffer
from MKDSegmentationLib.run.lineBuffer import LineBuffer


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_lines_are_the_same_in_pieces_of_any_size(size):
    data = "first\r\nétage 2\n\n  last  \nno end".encode()
    buffer, lines = LineBuffer(), []
    for start in range(0, len(data), size):
        lines += buffer.feed(data[start : start + size])
    assert lines == ["first", "étage 2", "", "last"]
    assert buffer.flush() == "no end" and buffer.flush() == ""


def test_what_is_no_utf_8_becomes_text_all_the_same():
    (line,) = LineBuffer().feed(b"caf\xe9 \xff\n")
    assert line.startswith("caf") and len(line) == 6


def test_a_line_without_end_takes_no_more_than_its_share_of_memory_and_the_next_one_is_whole(monkeypatch):
    monkeypatch.setattr(lineBuffer, "LONGEST_LINE", 1000)
    buffer = LineBuffer()
    for _ in range(100):
        assert buffer.feed(b"x" * 64) == []
    assert sum(map(len, buffer._pieces)) == 1000
    assert buffer.feed(b"rest\nnext\n") == ["x" * 1000, "next"]
