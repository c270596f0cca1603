"""Makes text and JSON storable: PostgreSQL's text and jsonb and SQLite's json accept the result. Last step before SQL.

The views show this form; the exact bytes are stored beside it.
"""

import re
from json import JSONDecoder, JSONEncoder, detect_encoding
from math import isfinite

from worker.core.exact_json import deeper_than
from worker.core.lenient_json import MAX_DEPTH, compact, read

_surrogate = re.compile("[\ud800-\udfff]")
# Matches an escaped backslash too, and keeps it, because the text after it is not an escape.
_escape = re.compile(
    r"\\(?:\\|u(?:0000|[dD][89abAB][0-9a-fA-F]{2}(?P<low>\\u[dD][c-fC-F][0-9a-fA-F]{2})?|[dD][c-fC-F][0-9a-fA-F]{2}))"
)
# Digits. The standard parser refuses longer integers; jsonb would accept some of them.
_LONGEST = 4300
_token = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|-?(?:NaN|Infinity)|-?\d[\d.eE+-]*')


def clean_text(text: str) -> str:
    """Make a string storable: join surrogate pairs to characters, replace U+0000 and lone halves by U+FFFD."""
    return _without_halves(text).replace("\0", "\ufffd")


def rejoin(text: str) -> str:
    r"""Join adjacent surrogate halves: `"\ud83d" + "\ude00"` becomes one character. Lone halves stay."""
    if _is_encodable(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def clean_json(source: object) -> str:
    """Return JSON text that every database accepts. `source` is JSON text (str, bytes) or a parsed value (all else).

    JSON text stays the same, except: `\\u0000` and lone surrogates become U+FFFD, NaN and infinities become null, and
    numbers that jsonb or a double cannot hold become strings. Text that is not JSON, or nests deeper than 200 levels,
    becomes a JSON string. Never raises for input that `json.loads` accepts. Use `clean_value` for a parsed string.
    """
    if isinstance(source, bytes):
        source = source.decode(detect_encoding(source), "replace")
    if not isinstance(source, str):
        return clean_value(source)
    if _is_plain(source):
        return _with_clean_strings(source)
    try:
        read(source)
    except ValueError:
        return clean_value(source)
    return _token.sub(_clean_token, _with_clean_strings(source))


def clean_value(value: object) -> str:
    """Write a parsed JSON value, also a string, as JSON text without spaces that every database accepts."""
    try:
        return _with_clean_strings(_strict(value))
    except (RecursionError, ValueError):
        return _token.sub(_clean_token, _with_clean_strings(compact(_cut(value, MAX_DEPTH // 2))))


def _is_encodable(text: str) -> bool:
    """Say whether a string has no surrogates. Encoding it costs a fraction of a regex search."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _without_halves(text: str) -> str:
    return text if _is_encodable(text) else _surrogate.sub("\ufffd", rejoin(text))


def _with_clean_strings(json_text: str) -> str:
    text = _without_halves(json_text)
    if "\\u0000" in text or "\\ud" in text or "\\uD" in text:
        text = _escape.sub(_clean_escape, text)
    return text


def _clean_escape(found: re.Match[str]) -> str:
    return found[0] if found["low"] or found[0] == "\\\\" else "\\ufffd"


def _clean_token(found: re.Match[str]) -> str:
    token = found[0]
    if token[0] == '"':
        return token
    if token[-1] in "Ny":
        return "null"
    return token if _is_storable(token) else f'"{token}"'


def _is_storable(number: str) -> bool:
    """Say whether jsonb (at most 16,383 decimal places) and a double, for readers of the views, can hold a number."""
    if len(number) > _LONGEST:
        return False
    if number.lstrip("-").isdigit():
        return True
    value = float(number)
    # A zero with an exponent may be a number too small for a double, such as 1e-400.
    return isfinite(value) and (value != 0 or "e" not in number.lower())


class _NotPlainError(ValueError):
    """The hooks below raise it to end the parse."""


def _plain_float(digits: str) -> float:
    if not _is_storable(digits):
        raise _NotPlainError
    return 0.0


def _no_constant(_constant: str) -> None:
    raise _NotPlainError


# The standard parse_int reads in C, and raises ValueError for more than _LONGEST digits.
_decode = JSONDecoder(parse_float=_plain_float, parse_constant=_no_constant).decode
_strict = JSONEncoder(ensure_ascii=False, check_circular=False, allow_nan=False, separators=(",", ":")).encode


def _is_plain(text: str) -> bool:
    """Say whether a text is JSON without unstorable numbers and at most MAX_DEPTH deep."""
    try:
        value = _decode(text)
    except (ValueError, RecursionError):
        return False
    return text.count("[") + text.count("{") <= MAX_DEPTH or not deeper_than(value, MAX_DEPTH)


def _cut(value: object, depth: int) -> object:
    """Replace objects nested too deeply and integers of thousands of digits by strings: the encoder refuses them."""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 13_000:
        return hex(value)
    if not isinstance(value, dict | list):
        return value
    if depth == 0:
        return "nested too deeply"
    if isinstance(value, dict):
        return {key: _cut(inner, depth - 1) for key, inner in value.items()}
    return [_cut(inner, depth - 1) for inner in value]
