"""What the tests do not take over from whoever starts them: a shell ignores Ctrl-C in background jobs, and so would the
processes that the tests start and interrupt."""

from __future__ import annotations

import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
