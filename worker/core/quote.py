"""What an endpoint said about a failure, as part of our sentence about it."""

import re
import unicodedata
from typing import Any, Final

from worker.core.failure import Failure
from worker.core.storable_text import clean_text, clean_value

# A reader of a table sees the reason; the whole is in `error`.
LONGEST: Final = 300
# Where endpoints put their words, the most telling first.
_NAMES: Final = ("message", "detail", "msg", "error", "error_description", "reason")
_spaces = re.compile(r"\s+")


def sentence(found: Failure) -> str:
    """Return the failure's message with the endpoint's own words: `HTTP 400: The endpoint …: "No such parameter.".`

    One line without control characters, whatever the endpoint sent.
    """
    words = _words(found.provider) or (clean_value(found.provider) if found.provider else "")
    line = _shown(words)
    message = clean_text(found.message)
    return f'{message.removesuffix(".")}: "{line}".' if line else message


def _words(value: Any, depth: int = 4) -> str:
    """Return the first text where endpoints put their words in an object, or in the first of a list of objects."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and depth:
        return _words(value[0], depth - 1)
    if isinstance(value, dict) and depth:
        return next((words for name in _NAMES if (words := _words(value.get(name), depth - 1))), "")
    return ""


def _shown(text: str) -> str:
    """Make a text one short line that no terminal takes for a command."""
    # More than is kept, because what is taken out makes it shorter; a body may be megabytes.
    beginning = clean_text(text[: 4 * LONGEST])
    plain = "".join(" " if unicodedata.category(one) in ("Cc", "Cf", "Zl", "Zp") else one for one in beginning)
    line = _spaces.sub(" ", plain).strip()
    return line if len(line) <= LONGEST else f"{line[:LONGEST].rstrip()}…"
