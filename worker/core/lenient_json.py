"""JSON as endpoints send it: read leniently in numbers, strictly in shape. Every chunk and every body passes here."""

import re
from json import JSONDecodeError, JSONDecoder, JSONEncoder
from math import isfinite
from typing import Any

from worker.core.exact_json import deeper_than

MAX_DEPTH = 200
"""Deeper JSON is not read: to write it again or compare it could end in a RecursionError, SQLite stops at 1,000."""

MOST_CONTAINERS = 2 * 1024 * 1024
"""Objects and arrays in one text: the log probabilities of 50,000 tokens with 20 alternatives each. In memory an object
takes up to 240 bytes.
"""
_FREE_CONTAINERS = 128 * 1024
# The densest real JSON, a log probability with its bytes, has one in 20 characters; `[],` has one in three.
_CHARACTERS_A_CONTAINER = 16
_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
# Some thousand strings at a time: between two matches another thread may run.
_RUN = re.compile(rf"(?:[^\"]*+{_STRING.pattern}){{1,4096}}", re.DOTALL)


class TooManyParts(ValueError):
    """The text has more objects and arrays than any answer; to parse it would hold every other call up."""


def read(text: str) -> Any:
    """Parse one JSON text that fills `text`; spaces around it are allowed.

    What doubles and databases cannot hold is kept as far as it can be: NaN and infinities become None (as JavaScript
    writes them), `1e400` and integers of more than 4,300 digits stay as their text. Errors: ValueError only.
    """
    # Counting brackets, those in strings too, is cheap; only a text with many of them is measured.
    brackets = _brackets(text)
    if brackets > _FREE_CONTAINERS:
        _check_parts(text, brackets)
    try:
        value = _parse(text)
    except RecursionError as error:
        raise ValueError("The text nests too deeply to be read.") from error
    if brackets > MAX_DEPTH and deeper_than(value, MAX_DEPTH):
        raise ValueError(f"The text nests deeper than {MAX_DEPTH} levels.")
    return value


def _check_parts(text: str, brackets: int) -> None:
    """Raise TooManyParts if too many brackets stand outside of strings; in those a long text may be full of them."""
    most = min(_FREE_CONTAINERS + len(text) // _CHARACTERS_A_CONTAINER, MOST_CONTAINERS)
    if brackets <= most:
        return
    found = at = 0
    while found <= most and (run := _RUN.match(text, at)):
        found += _brackets(_STRING.sub("", run[0]))
        at = run.end()
    if found > most or found + _brackets(text[at:]) > most:
        raise TooManyParts("The text has too many objects and arrays to be read.")


def _brackets(text: str) -> int:
    return text.count("[") + text.count("{")


def read_first(text: str) -> tuple[Any, str]:
    """Parse the JSON value that a text begins with; return it and its text. Errors: ValueError only."""
    try:
        end = _decode(text)[1]
    except RecursionError as error:
        raise ValueError("The text nests too deeply to be read.") from error
    return read(text[:end]), text[:end]


def object_in(value: Any) -> dict[str, Any] | None:
    """Return an object, also the only one of an array, as Gemini sends its errors; None for anything else."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value if isinstance(value, dict) else None


def whole_number(value: object) -> int | None:
    """Read an index as providers write it: 1, 1.0 and "1" are 1; anything else is None."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        return int(value)
    return None


def _finite(digits: str) -> float | str:
    value = float(digits)
    return value if isfinite(value) else digits


def _short(digits: str) -> int | str:
    try:
        return int(digits)
    except ValueError:
        return digits


def _none(_constant: str) -> None:
    return None


# Two decoders: with the standard parse_int the C scanner reads integers itself, and only a monster needs the second.
_decode = JSONDecoder(parse_float=_finite, parse_constant=_none).raw_decode
_decode_long = JSONDecoder(parse_float=_finite, parse_constant=_none, parse_int=_short).decode


def _parse(text: str) -> Any:
    try:
        value, end = _decode(text)
        if end == len(text):
            return value
    except JSONDecodeError:
        pass  # spaces before the value end here too: the full decoder decides
    except ValueError:
        pass  # an integer of more than 4,300 digits
    return _decode_long(text)


compact = JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":")).encode
"""Write a parsed value without spaces: `{"a": [1]}` gives `{"a":[1]}`. Values that `read` made never raise."""
