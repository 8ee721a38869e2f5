"""python -m marigold_c: the command `marigold`."""

import sys

from .cli import main

sys.exit(main())
