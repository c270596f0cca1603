"""Puts an endpoint's own words about a failure into our error sentence. Used by `jobs.outcome`."""

from typing import Any, Final

from worker.core.failure import Failure
from worker.core.printable import one_line
from worker.core.storable_text import clean_text, clean_value

# Characters. The reader of a table needs the reason; the column `error` has the whole text.
LONGEST: Final = 300
# Members that hold the endpoint's words, the most informative first.
_NAMES: Final = ("message", "detail", "msg", "error", "error_description", "reason")


def sentence(found: Failure) -> str:
    """Return the failure's message with the endpoint's own words: `HTTP 400: The endpoint …: "No such parameter.".`

    The result is one line without control characters.
    """
    words = _words(found.provider) or (clean_value(found.provider) if found.provider else "")
    line = _shown(words)
    message = clean_text(found.message)
    return f'{message.removesuffix(".")}: "{line}".' if line else message


def _words(value: Any, depth: int = 4) -> str:
    """Return the first text under one of _NAMES in an object, or in the first object of a list; "" if there is none."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and depth:
        return _words(value[0], depth - 1)
    if isinstance(value, dict) and depth:
        return next((words for name in _NAMES if (words := _words(value.get(name), depth - 1))), "")
    return ""


def _shown(text: str) -> str:
    """Return the start of a text as one line of at most LONGEST characters."""
    # A body may be megabytes: look at four times LONGEST, because `one_line` makes the text shorter.
    line = one_line(clean_text(text[: 4 * LONGEST]))
    return line if len(line) <= LONGEST else f"{line[:LONGEST].rstrip()}…"
