"""Reasoning in every spelling, as one text. Used by `answer` for the column `reasoning_content`."""

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
"""The members of a message that hold reasoning, in the order in which they are asked: many servers fill two alike."""

_WITHIN: Final = ("text", "thinking", "content", "reasoning", "summary")


def reasoning_of(message: Mapping[str, Any]) -> str | None:
    """Return the reasoning of a message outside its content, None if there is none."""
    return next((text for name in SPELLINGS if (text := said(message.get(name)))), None)


def said(value: Any) -> str:
    """Return the text of a string, of an object such as `{"text"}` or `{"summary": [...]}`, or of a list of them.

    The pieces of a list are joined; where each repeats the one before it and adds to it (MiniMax), the last is all.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return next((text for name in _WITHIN if (text := said(value.get(name)))), "")
    if not isinstance(value, list):
        return ""
    pieces = [text for piece in value if (text := said(piece))]
    if len(pieces) > 1 and all(
        len(after) > len(before) and after.startswith(before) for before, after in pairwise(pieces)
    ):
        return pieces[-1]
    return "".join(pieces)


def is_reasoning(part: Mapping[str, Any]) -> bool:
    """Say whether a part of a content list is reasoning: by its type, or Gemini's mark `thought`."""
    kind = part.get("type")
    return part.get("thought") is True or (
        isinstance(kind, str) and any(word in kind.lower() for word in ("reasoning", "thinking", "thought"))
    )
