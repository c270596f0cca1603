"""Returns the reasoning of a message as one text, in every provider's spelling. For the column `reasoning_content`."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Final

SPELLINGS: Final = (
    "reasoning_content",
    "reasoning",
    "reasoning_text",
    "thinking",
    "thought",
    "thoughts",
    "reasoning_details",
    "thinking_blocks",
)
"""Members of a message with reasoning. The first with a text counts, because many servers put the same into two."""

_WITHIN: Final = ("text", "thinking", "content", "reasoning", "summary")


def reasoning_of(message: Mapping[str, Any]) -> str | None:
    """Return the reasoning of a message, without that in its content; None if there is none."""
    return next((text for name in SPELLINGS if (text := reasoning_text(message.get(name)))), None)


def reasoning_text(value: Any) -> str:
    """Return the text of a string, of an object such as `{"text"}` or `{"summary": [...]}`, or of a list of these.

    The pieces of a list are joined. If each piece starts with the whole piece before it (MiniMax), only the last
    counts. "" if there is no text.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return next((text for name in _WITHIN if (text := reasoning_text(value.get(name)))), "")
    if not isinstance(value, list):
        return ""
    pieces = [text for piece in value if (text := reasoning_text(piece))]
    if len(pieces) > 1 and all(
        len(after) > len(before) and after.startswith(before) for before, after in pairwise(pieces)
    ):
        return pieces[-1]
    return "".join(pieces)


def is_reasoning(part: Mapping[str, Any]) -> bool:
    """Say whether a part of a content list is reasoning: by its `type`, or by `"thought": true` (Gemini)."""
    kind = part.get("type")
    return part.get("thought") is True or (
        isinstance(kind, str) and any(word in kind.lower() for word in ("reasoning", "thinking", "thought"))
    )
