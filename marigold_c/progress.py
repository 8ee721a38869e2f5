"""Progress: tqdm, as a widget in notebooks that have ipywidgets, else as text; and what commands say meanwhile."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any


@cache
def tqdm_class() -> Any:
    """tqdm's class, imported when a bar is first wanted: asyncio and email come with it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of notebooks without ipywidgets, where its text bar does as well
        from tqdm.auto import tqdm
    return tqdm


class CommandProgress:
    """A bar on a terminal, plain lines elsewhere, nothing with --quiet. Errors always show. total 0: nobody knows how
    many there will be."""

    def __init__(self, title: str, total: int, quiet: bool, unit: str = "image") -> None:
        self.total = total
        self.on_terminal = sys.stderr.isatty() and not quiet
        self.plain = not quiet and not self.on_terminal
        self._bar = tqdm_class()(total=total or None, desc=title, unit=unit, disable=not self.on_terminal)

    def say(self, text: str) -> None:
        if self.on_terminal:
            tqdm_class().write(text, file=sys.stderr)
        elif self.plain:
            print(text, file=sys.stderr, flush=True)

    def complain(self, text: str) -> None:
        tqdm_class().write(text, file=sys.stderr)

    def start(self, name: str) -> None:
        self._bar.set_postfix_str(name)

    def skip(self, count: int) -> None:
        """So many are not to be waited for."""
        self._bar.update(count)

    def done(self, label: str, number: int, seconds: float) -> None:
        self._bar.update(1)
        if self.plain:
            place = f"{number}/{self.total}" if self.total else str(number)
            self.say(f"[{place}] {label} ({seconds:.1f} s)")

    def close(self) -> None:
        self._bar.close()

    def move(self, number: int, text: str) -> None:
        """The bar stands at `number`, with `text` after it; what was done before the first call took no time."""
        if self._bar.n == 0:
            self._bar.initial = number - 1
        self._bar.n = number
        self._bar.set_postfix_str(text)

    @contextmanager
    def warnings_as_lines(self) -> Iterator[None]:
        """What is warned of, without the places in the code that Python names."""

        def show(message: Warning | str, *_args: Any, **_options: Any) -> None:
            self.say(f"marigold: warning: {' '.join(str(message).split())}")

        with warnings.catch_warnings():
            warnings.showwarning = show
            yield
