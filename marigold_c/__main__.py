"""python -m marigold_c: the command `marigold`."""

import sys

from .commands.cli import main

sys.exit(main())
