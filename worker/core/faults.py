"""What is wrong with a job or a request, in words: a path and a sentence's end, one for each fault."""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

# More than this nobody reads, and a message of a million bad members must not cost a worker seconds.
FAULT_LIMIT = 100

_SHOWN_CHARACTERS = 60
_plain_name = re.compile(r"[A-Za-z0-9_-]{1,64}").fullmatch
_lone_surrogate = re.compile("[\ud800-\udfff]").search


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: `Fault("request.temperature", "is 3; the document allows 0 to 2")` reads as a sentence."""

    path: str
    message: str


def shown(value: Any) -> str:
    """Show a wrong value in a few characters: scalars as JSON, containers by kind and size only."""
    match value:
        case dict():
            return f"an object of {len(value)} members"
        case list():
            return f"an array of {len(value)} elements"
        case str():
            cut = value if len(value) <= _SHOWN_CHARACTERS else value[:_SHOWN_CHARACTERS] + "…"
            return json.dumps(cut.encode("utf-8", "replace").decode(), ensure_ascii=False)
        case int() if not isinstance(value, bool) and value.bit_length() > 64 * 3:
            return f"an integer of {value.bit_length()} bits"
    return json.dumps(value)


def member_path(path: str, name: str) -> str:
    """Give the path of a member: `request.user`, or `metadata["a b"]` where the name is no plain word."""
    return f"{path}.{name}" if _plain_name(name) else f"{path}[{shown(name)}]"


def unsendable(path: str, value: Any) -> Iterator[Fault]:
    """Find what JSON cannot carry, each with its path: NaN, infinities, lone surrogates (also in names)."""
    match value:
        case float() if not math.isfinite(value):
            yield Fault(
                path, "is a number that JSON or a double cannot hold (NaN, infinite or too large); send a finite one"
            )
        case str() if _lone_surrogate(value):
            yield Fault(path, "holds half of a surrogate pair, which UTF-8 cannot encode; send whole characters")
        case dict():
            for name, inner in value.items():
                if _lone_surrogate(name):
                    yield Fault(
                        path, f"has a name, {shown(name)}, with half of a surrogate pair; send whole characters"
                    )
                yield from unsendable(member_path(path, name), inner)
        case list():
            for position, inner in enumerate(value):
                yield from unsendable(f"{path}[{position}]", inner)
