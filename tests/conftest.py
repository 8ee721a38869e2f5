"""What the tests do not take over from whoever starts them: a shell ignores Ctrl-C in background jobs, and so would the
processes that the tests start and interrupt.

The checkpoints are the tests' own, which stay when the package's are trained anew: stored references are theirs.
test_shipped.py looks at the package's.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ["MARIGOLD_CHECKPOINTS"] = str(Path(__file__).parent / "checkpoints")
