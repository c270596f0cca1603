"""Keeps the unknown members of a streamed answer, in the form of an answer without streaming.

Used by `stream` for the answer and by `choice` for a choice and its message.
"""

from functools import lru_cache
from typing import Any, Final

from worker.chat.growing_text import GrowingText

# `obfuscation` is padding: it hides the length of tokens from eavesdroppers.
OF_ANSWER: Final = frozenset(
    """id object created model choices usage error obfuscation system_fingerprint service_tier""".split()  # noqa: SIM905
)
OF_CHOICE: Final = frozenset({"index", "delta", "message", "finish_reason", "logprobs"})
"""The known members of a chunk (OF_ANSWER) and of an entry in its `choices` (OF_CHOICE)."""

# `usage_report` reads the usage in a choice, `provider_error` its error.
MOVED: Final = OF_CHOICE | {"usage", "error"}

# A string with one of these words in its name comes in pieces, unless the name also has a word of _WHOLE. All other
# strings (a signature, an id, the name of a provider) come whole.
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
    """Add the members `new` to `held`, in place, and return `held`.

    Texts grow, lists are extended, objects are merged; for other values the last counts. A null or empty value does not
    replace a held value.
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
    """Add the members `new` from the top of a chunk to `held`, in place; the last value counts.

    Nothing is joined, because each chunk repeats these lists and texts as a whole.
    """
    for name, value in new.items():
        before = held.get(name)
        if isinstance(value, dict) and isinstance(before, dict):
            held[name] = {**before, **value}
        elif value not in (None, "", [], {}) or name not in held:
            held[name] = value


def plain(held: dict[str, Any]) -> dict[str, Any]:
    """Return the members as JSON values: each GrowingText becomes a string."""
    return {name: _plain(value) for name, value in held.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, GrowingText):
        return str(value)
    return plain(value) if isinstance(value, dict) else value


@lru_cache(maxsize=1024)
def _grows(name: str) -> bool:
    name = name.lower()
    return any(word in name for word in _GROWING) and not any(word in name for word in _WHOLE)
