"""What people are told: exceptions in one line, and the word that was probably meant."""

from __future__ import annotations

from collections.abc import Iterable


def explain(error: BaseException) -> str:
    """What went wrong, in one line."""
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    elif isinstance(error, MemoryError):
        text = f"out of memory: {error}" if str(error) else "out of memory"
    else:
        text = str(error) or type(error).__name__
    return " ".join(text.split())


def explain_for(name: str, error: BaseException) -> str:
    """explain(error) with the file or image that it is about in front, unless it stands there already."""
    text = explain(error)
    return text if text.startswith(f"{name}: ") else f"{name}: {text}"


def suggestion(word: str, known: Iterable[str]) -> str:
    """ "; did you mean WORD?" of the known word that is nearest, "" where none is near."""
    import difflib  # for the rare case

    by_folded = {one.casefold(): one for one in known}
    nearest = difflib.get_close_matches(word.casefold(), by_folded, 1)
    return f"; did you mean {by_folded[nearest[0]]}?" if nearest else ""
