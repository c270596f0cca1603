"""Parses JSON and keeps the position of each value in the text, to forward a request exactly as it came."""

import re
from collections.abc import Callable, Mapping
from json import JSONDecodeError, JSONDecoder
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")
Scan = Callable[[str, int], tuple[Any, int]]

# Matches a name without escapes, up to its value; the parser reads names with escapes, because they are rare.
_plain_name = re.compile(r'[ \t\n\r]*"([^"\\\x00-\x1f]*)"[ \t\n\r]*:[ \t\n\r]*').match
_space = re.compile(r"[ \t\n\r]*").match


class JsonError(ValueError):
    """The text is not JSON, or not an object or array as expected. `reason` is a short code for dead letters.

    The codes: `not_json`, `not_an_object`, `not_an_array`, `too_deep`.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


# A NamedTuple, because every member of every message makes a Member and a frozen dataclass costs three times as much.
class Member(NamedTuple):
    """One value and its span: `text[start:end]` is the value as written."""

    value: Any
    start: int
    end: int


def _int_or_infinity(digits: str) -> int | float:
    """Read an integer. Python converts at most 4,300 digits; more become an infinity, and validation refuses that."""
    try:
        return int(digits)
    except ValueError:
        return float("-inf" if digits.startswith("-") else "inf")


_scan: Scan = JSONDecoder().raw_decode
_scan_long: Scan = JSONDecoder(parse_int=_int_or_infinity).raw_decode


def load(text: str) -> Any:
    """Parse a JSON text. NaN, infinities and lone surrogates pass, as in `json.loads`; raises JsonError only."""
    return _careful(_load, text, 0)


def members(text: str, start: int = 0) -> Mapping[str, Member]:
    """Parse the JSON object in `text` from `start` to the end: `{"a": 1}` gives `{"a": Member(1, 6, 7)}`.

    If a name occurs twice, the last value counts, as in Python, JavaScript and Go. Raises JsonError only.
    """
    return _careful(_members, text, start)


def elements(text: str, start: int = 0) -> list[Member]:
    """Parse the JSON array in `text` from `start` to the end: `[1]` is `[Member(1, 1, 2)]`. Raises JsonError only."""
    return _careful(_elements, text, start)


def with_member(text: str, name: str, json_text: str) -> str:
    """Set member `name` of the JSON object `text` to `json_text`; every other character stays the same.

    An existing member keeps its place, a new member comes last: `{"a":1}` with `b` = `2` gives `{"a":1,"b":2}`.
    `name` must not need escaping.
    """
    found = members(text)
    if name in found:
        return text[: found[name].start] + json_text + text[found[name].end :]
    if found:
        end = max(member.end for member in found.values())
        return f'{text[:end]},"{name}":{json_text}{text[end:]}'
    start = text.index("{") + 1
    return f'{text[:start]}"{name}":{json_text}{text[start:]}'


def deeper_than(value: Any, limit: int) -> bool:
    """Say whether objects and arrays in a parsed value nest more than `limit` levels deep. Does not recurse."""
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(limit):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return False
    return True


def _load(text: str, start: int, scan: Scan) -> Any:
    value, end = scan(text, _after_space(text, start))
    _expect_end(text, end)
    return value


def _members(text: str, start: int, scan: Scan) -> dict[str, Member]:
    at = _open(text, start, scan, "{")
    found: dict[str, Member] = {}
    mark = text[at : at + 1]
    while mark != "}":
        plain = _plain_name(text, at)
        name, begin = (plain[1], plain.end()) if plain else _any_name(text, at, scan)
        value, end = scan(text, begin)
        found[name] = Member(value, begin, end)
        mark, at = _mark(text, end, "}")
    _expect_end(text, at if found else at + 1)
    return found


def _any_name(text: str, at: int, scan: Scan) -> tuple[str, int]:
    at = _after_space(text, at)
    if text[at : at + 1] != '"':
        raise JSONDecodeError("a name in double quotes is missing", text, at)
    name, at = scan(text, at)
    at = _after_space(text, at)
    if text[at : at + 1] != ":":
        raise JSONDecodeError("a colon is missing", text, at)
    return name, _after_space(text, at + 1)


def _elements(text: str, start: int, scan: Scan) -> list[Member]:
    at = _open(text, start, scan, "[")
    found: list[Member] = []
    mark = text[at : at + 1]
    while mark != "]":
        begin = _after_space(text, at)
        value, end = scan(text, begin)
        found.append(Member(value, begin, end))
        mark, at = _mark(text, end, "]")
    _expect_end(text, at if found else at + 1)
    return found


def _after_space(text: str, at: int) -> int:
    found = _space(text, at)
    assert found is not None  # the pattern matches the empty text
    return found.end()


def _open(text: str, start: int, scan: Scan, bracket: str) -> int:
    at = _after_space(text, start)
    if text[at : at + 1] != bracket:
        _load(text, start, scan)
        kind = "an object" if bracket == "{" else "an array"
        raise JsonError(f"not_{kind.replace(' ', '_')}", f"The text is JSON, but not {kind}.")
    return _after_space(text, at + 1)


def _mark(text: str, at: int, closing: str) -> tuple[str, int]:
    """Return the comma or closing bracket after a value, and the position after it."""
    mark = text[at : at + 1]
    if mark != "," and mark != closing:
        at = _after_space(text, at)
        mark = text[at : at + 1]
        if mark != "," and mark != closing:
            raise JSONDecodeError(f"a comma or {closing} is missing", text, at)
    return mark, at + 1


def _expect_end(text: str, at: int) -> None:
    if at != len(text) and _after_space(text, at) != len(text):
        raise JSONDecodeError("there is text after the value", text, at)


def _careful(read: Callable[[str, int, Scan], T], text: str, start: int) -> T:
    """Run a reader and turn every error of the standard parser into a JsonError."""
    try:
        try:
            return read(text, start, _scan)
        except JSONDecodeError:
            raise
        except ValueError:
            # An integer has more than 4,300 digits: read it as an infinity, because that fault can name its path.
            return read(text, start, _scan_long)
    except JSONDecodeError as error:
        raise JsonError("not_json", f"The text is not JSON: {error.msg} at character {error.pos}.") from error
    except RecursionError as error:
        raise JsonError("too_deep", "The JSON text nests too deeply to read; send flatter JSON.") from error
