"""JSON as endpoints send it: read leniently in numbers, strictly in shape. Every chunk and every body passes here."""

from json import JSONDecodeError, JSONDecoder, JSONEncoder
from math import isfinite
from typing import Any

from worker.core.jsontext import deeper_than

MAX_DEPTH = 200
"""Deeper JSON is not read: to write it again or compare it could end in a RecursionError, SQLite stops at 1,000."""


def read(text: str) -> Any:
    """Parse one JSON text that fills `text`; spaces around it are allowed.

    What doubles and databases cannot hold is kept as far as it can be: NaN and infinities become None (as JavaScript
    writes them), `1e400` and integers of more than 4,300 digits stay as their text. Errors: ValueError only.
    """
    try:
        value = _parse(text)
    except RecursionError as error:
        raise ValueError("The text nests too deeply to be read.") from error
    # Counting brackets, those in strings too, is cheap; only a text with many of them is measured.
    if text.count("[") + text.count("{") > MAX_DEPTH and deeper_than(value, MAX_DEPTH):
        raise ValueError(f"The text nests deeper than {MAX_DEPTH} levels.")
    return value


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
