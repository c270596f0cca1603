"""Text and JSON made storable: what PostgreSQL's text and jsonb and SQLite's json all accept. Last stage before SQL.

The exact bytes are kept beside it; this is what the views show.
"""

import re
from json import detect_encoding
from math import isfinite

from worker.core.wirejson import MAX_DEPTH, compact, read

_surrogate = re.compile("[\ud800-\udfff]")
# An even number of backslashes before it: otherwise the backslash of the `\u` is itself escaped.
_escape = re.compile(
    r"(?<!\\)((?:\\\\)*)\\u(?:0000|[dD][89abAB][0-9a-fA-F]{2}(\\u[dD][c-fC-F][0-9a-fA-F]{2})?|[dD][c-fC-F][0-9a-fA-F]{2})"
)
_odd = re.compile(r"NaN|Infinity|\d{300}|[eE][+-]?\d{3}")
_token = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|-?(?:NaN|Infinity)|-?\d[\d.eE+-]*')


def clean_text(text: str) -> str:
    """Make a string storable: surrogate halves are joined to characters, U+0000 and lone halves become U+FFFD."""
    return _surrogate.sub("\ufffd", rejoin(text)).replace("\0", "\ufffd")


def rejoin(text: str) -> str:
    r"""Join surrogate halves that stand side by side: `"\ud83d" + "\ude00"` is one character. Lone halves stay."""
    if text.isascii() or not _surrogate.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def clean_json(source: object) -> str:
    """Return JSON text that every database accepts, from JSON text (str, bytes) or from a parsed value (all else).

    In text nothing is changed but what must be: `\\u0000` and lone surrogates become U+FFFD, NaN and infinities null,
    numbers that are no finite double become strings. Text that is no JSON, or nests deeper than 200 levels, becomes a
    JSON string. Never raises on what `json.loads` accepts. A *value* that is a string belongs to `clean_value`.
    """
    if isinstance(source, bytes):
        source = source.decode(detect_encoding(source), "replace")
    if not isinstance(source, str):
        return clean_value(source)
    try:
        read(source)
    except ValueError:
        return clean_value(source)
    return _storable(source)


def clean_value(value: object) -> str:
    """Write a parsed JSON value, strings included, as JSON text that every database accepts, without spaces."""
    try:
        return _storable(compact(value))
    except (RecursionError, ValueError):
        return _storable(compact(_cut(value, MAX_DEPTH // 2)))


def _cut(value: object, depth: int) -> object:
    """Replace what the encoder refuses, far too deep objects and integers of thousands of digits, by strings."""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 4096:
        return hex(value)
    if not isinstance(value, dict | list):
        return value
    if depth == 0:
        return "nested too deeply"
    if isinstance(value, dict):
        return {key: _cut(inner, depth - 1) for key, inner in value.items()}
    return [_cut(inner, depth - 1) for inner in value]


def _storable(json_text: str) -> str:
    text = _surrogate.sub("\ufffd", rejoin(json_text))
    if "\\u" in text:
        text = _escape.sub(lambda found: found[0] if found[2] else found[1] + "\\ufffd", text)
    # Words and digits inside strings bring a text here too; the slower walk over its tokens then changes nothing.
    return _token.sub(_storable_token, text) if _odd.search(text) else text


def _storable_token(found: re.Match[str]) -> str:
    token = found[0]
    if token[0] == '"':
        return token
    if token[-1] in "Ny":
        return "null"
    # jsonb could hold somewhat more; a number no double holds breaks the readers of the views instead.
    exponent = token.lower().partition("e")[2]
    small = len(token) < 300 and len(exponent) < 6 and abs(int(exponent or 0)) < 400 and isfinite(float(token))
    return token if small else f'"{token}"'
