"""``python -m mkd_core`` is the command ``mkd``."""

from mkd_core.isolation import forget_current_folder

forget_current_folder()  # before any other import

import sys

from mkd_core.cli import main

sys.exit(main())
