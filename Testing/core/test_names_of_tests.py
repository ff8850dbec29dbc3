"""What pytest takes for granted of its files."""

from collections import Counter
from pathlib import Path

TESTING = Path(__file__).resolve().parents[1]


def test_no_two_test_files_have_one_name():
    """Pytest imports them as modules without a package: of two with one name it collects only one, and stops."""
    names = Counter(path.name for path in TESTING.rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []
