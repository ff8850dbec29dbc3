"""``python -m mkd_core`` is the command ``mkd``."""

import sys

from mkd_core.cli import main

sys.exit(main())
