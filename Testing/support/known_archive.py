"""Python for the panel's batch of a folder, with known networks: python known_archive.py -P -m mkd_core archive ..."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from mkd_core.cli import main
    from Testing.support.archive_faults import dask_setup

    dask_setup(None)
    sys.exit(main(sys.argv[sys.argv.index("mkd_core") + 1 :]))
