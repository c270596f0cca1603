"""Reads every chunk and body from an endpoint: as JSON with lenient numbers, and with limits on depth and size."""

import re
from json import JSONDecodeError, JSONDecoder, JSONEncoder
from math import isfinite
from typing import Any

from worker.core.exact_json import deeper_than

MAX_DEPTH = 200
"""Levels of nesting. Writing or comparing deeper JSON could raise RecursionError, and SQLite stops at 1,000 levels."""

MOST_CONTAINERS = 2 * 1024 * 1024
"""Objects and arrays in one text: enough for the log probabilities of 50,000 tokens with 20 alternatives each.

An object takes up to 240 bytes of memory.
"""
_FREE_CONTAINERS = 128 * 1024
# The densest real JSON, a log probability with its bytes, has one container in 20 characters; `[],` has one in three.
_CHARACTERS_A_CONTAINER = 16
_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
# Up to 4,096 strings in one match, because other threads can run only between two matches.
_RUN = re.compile(rf"(?:[^\"]*+{_STRING.pattern}){{1,4096}}", re.DOTALL)


class TooManyParts(ValueError):
    """The text has more objects and arrays than any real answer. Parsing it would delay every other call."""


def read(text: str) -> Any:
    """Parse the JSON value in `text`; spaces around it are allowed. Raises ValueError only.

    Doubles and databases cannot hold some numbers: NaN and infinities become None (JavaScript writes them as null),
    `1e400` and integers of more than 4,300 digits become strings of their digits.
    """
    # Counting brackets is cheap, even with those in strings; only a text with many brackets is examined further.
    brackets = _brackets(text)
    if brackets > _FREE_CONTAINERS:
        _check_parts(text, brackets)
    try:
        value = _parse(text)
    except RecursionError as error:
        raise ValueError("The JSON text nests too deeply to read.") from error
    if brackets > MAX_DEPTH and deeper_than(value, MAX_DEPTH):
        raise ValueError(f"The JSON text nests deeper than {MAX_DEPTH} levels.")
    return value


def _check_parts(text: str, brackets: int) -> None:
    """Raise TooManyParts if there are too many brackets outside of strings. Inside strings any number is fine."""
    most = min(_FREE_CONTAINERS + len(text) // _CHARACTERS_A_CONTAINER, MOST_CONTAINERS)
    if brackets <= most:
        return
    found = at = 0
    while found <= most and (run := _RUN.match(text, at)):
        found += _brackets(_STRING.sub("", run[0]))
        at = run.end()
    if found > most or found + _brackets(text[at:]) > most:
        raise TooManyParts("The JSON text has too many objects and arrays to read.")


def _brackets(text: str) -> int:
    return text.count("[") + text.count("{")


def read_first(text: str) -> tuple[Any, str]:
    """Parse the JSON value a text starts with: `{"a":1}xyz` gives `({"a": 1}, '{"a":1}')`. Raises ValueError only."""
    try:
        end = _decode(text)[1]
    except RecursionError as error:
        raise ValueError("The JSON text nests too deeply to read.") from error
    return read(text[:end]), text[:end]


def object_in(value: Any) -> dict[str, Any] | None:
    """Return `value` if it is an object, or the object in an array of one (Gemini's errors); else None."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value if isinstance(value, dict) else None


def whole_number(value: object) -> int | None:
    """Read an index in the spellings of providers: 1, 1.0 and "1" give 1; anything else gives None."""
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


# Two decoders, because the C scanner reads integers itself only with the standard parse_int. The second decoder reads
# texts with an integer of more than 4,300 digits.
_decode = JSONDecoder(parse_float=_finite, parse_constant=_none).raw_decode
_decode_long = JSONDecoder(parse_float=_finite, parse_constant=_none, parse_int=_short).decode


def _parse(text: str) -> Any:
    try:
        value, end = _decode(text)
        if end == len(text):
            return value
    except JSONDecodeError:
        pass  # raw_decode also refuses spaces before the value: the full decoder decides
    except ValueError:
        pass  # an integer of more than 4,300 digits
    return _decode_long(text)


compact = JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":")).encode
"""Write a parsed value without spaces: `{"a": [1]}` gives `{"a":[1]}`. Never raises for a value from `read`."""
