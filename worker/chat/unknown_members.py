"""Members of a streamed answer that we do not know, kept as an answer that is not streamed has them.

Used by `assemble` for the answer and by `choice` for a choice and its message.
"""

from functools import lru_cache
from typing import Any, Final

from worker.chat.growing_text import GrowingText

# `obfuscation` is padding against eavesdroppers who count bytes.
OF_ANSWER: Final = frozenset(
    """id object created model choices usage error obfuscation system_fingerprint service_tier""".split()  # noqa: SIM905
)
OF_CHOICE: Final = frozenset({"index", "delta", "message", "finish_reason", "logprobs"})
"""The members that we know of a chunk and of an entry of its choices."""

# Usage in a choice is moved to where usage belongs, an error is the answer's.
MOVED: Final = OF_CHOICE | {"usage", "error"}

# A string of such a name comes in pieces; any other (a signature, an id, a provider's name) comes whole.
_GROWING = ("text", "content", "reasoning", "thinking", "thought", "summary", "transcript", "analysis")
_WHOLE = (
    "signature",
    "opaque",
    "encrypted",
    "redacted",
    "context",
    "type",
    "format",
    "_id",
    "effort",
    "filter",
    "reason_",
)


def merge(held: dict[str, Any] | None, new: dict[str, Any]) -> dict[str, Any]:
    """Add members to those held, in place: texts grow, lists are extended, objects merged, of the rest the last counts.

    What is null or empty says nothing where something is held.
    """
    held = {} if held is None else held
    for name, value in new.items():
        before = held.get(name)
        if isinstance(value, str) and _grows(name):
            if not isinstance(before, GrowingText):
                before = held[name] = GrowingText()
            before.add(value)
        elif isinstance(value, dict):
            held[name] = merge(before if isinstance(before, dict) else None, value)
        elif isinstance(value, list) and isinstance(before, list):
            before.extend(value)
        elif isinstance(value, list):
            held[name] = list(value)
        elif value not in (None, "") or name not in held:
            held[name] = value
    return held


def keep_last(held: dict[str, Any], new: dict[str, Any]) -> None:
    """Add members to those held, in place, of an answer's top: each chunk repeats its lists and texts whole."""
    for name, value in new.items():
        before = held.get(name)
        if isinstance(value, dict) and isinstance(before, dict):
            held[name] = {**before, **value}
        elif value not in (None, "", [], {}) or name not in held:
            held[name] = value


def plain(held: dict[str, Any]) -> dict[str, Any]:
    """Return the members as JSON values."""
    return {name: _plain(value) for name, value in held.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, GrowingText):
        return str(value)
    return plain(value) if isinstance(value, dict) else value


@lru_cache(maxsize=1024)
def _grows(name: str) -> bool:
    name = name.lower()
    return any(word in name for word in _GROWING) and not any(word in name for word in _WHOLE)
