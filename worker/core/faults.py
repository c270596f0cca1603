"""Faults of a job or a request: each has a path and a sentence with the wrong value and the remedy."""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

# People do not read more, and a message with a million bad members must not occupy a worker for seconds.
FAULT_LIMIT = 100

_SHOWN_CHARACTERS = 60
_plain_name = re.compile(r"[A-Za-z0-9_-]{1,64}").fullmatch
_lone_surrogate = re.compile("[\ud800-\udfff]").search


@dataclass(frozen=True, slots=True)
class Fault:
    """Path and message form one sentence: `Fault("request.temperature", "is 3; the document allows 0 to 2")`."""

    path: str
    message: str


def describe_value(value: Any) -> str:
    """Return a wrong value as short text: `"abc…"`, `3`, `null`, `an array of 2 elements`, `an object of 1 members`."""
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
    """Return the path of a member: `request.user`, or `metadata["a b"]` if the name is not a plain word."""
    return f"{path}.{name}" if _plain_name(name) else f"{path}[{describe_value(name)}]"


def unsendable_faults(path: str, value: Any) -> Iterator[Fault]:
    """Yield a fault for each value or name that JSON in UTF-8 cannot carry: NaN, infinities, lone surrogates."""
    match value:
        case float() if not math.isfinite(value):
            yield Fault(path, "is NaN, infinite or too large; JSON and a double cannot hold that; send a finite number")
        case str() if _lone_surrogate(value):
            yield Fault(path, "has half of a surrogate pair; UTF-8 cannot encode it; send whole characters")
        case dict():
            for name, inner in value.items():
                if _lone_surrogate(name):
                    yield Fault(
                        path,
                        f"has a name, {describe_value(name)}, with half of a surrogate pair; send whole characters",
                    )
                yield from unsendable_faults(member_path(path, name), inner)
        case list():
            for position, inner in enumerate(value):
                yield from unsendable_faults(f"{path}[{position}]", inner)
