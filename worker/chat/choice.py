"""Assembles one choice of a streamed answer from its deltas (rules R4 to R13 in `stream`)."""

from typing import Any

from worker.chat.audio import Audio
from worker.chat.growing_text import GrowingText
from worker.chat.reasoning import is_reasoning, reasoning_text
from worker.chat.tool_calls import ToolCalls
from worker.chat.unknown_members import MOVED, merge, plain

_TEXTS = frozenset({"content", "refusal", "reasoning_content", "reasoning", "reasoning_text", "thinking"})


class Choice:
    """One choice, chunk by chunk. `finish_reason` is the last value that was not empty, unchanged."""

    __slots__ = (
        "_audio", "_calls", "_choice_extra", "_function", "_lists", "_logprobs", "_message_extra", "_role", "_texts",
        "finish_reason",
    )  # fmt: skip

    def __init__(self) -> None:
        self.finish_reason: Any = None
        self._role: str | None = None
        self._texts: dict[str, GrowingText] = {}
        self._calls: ToolCalls | None = None
        self._function: ToolCalls | None = None
        self._audio: Audio | None = None
        self._lists: dict[str, list[Any]] | None = None
        self._logprobs: dict[str, list[Any]] | None = None
        # Unknown members of the message, and of the choice itself.
        self._message_extra: dict[str, Any] | None = None
        self._choice_extra: dict[str, Any] | None = None

    def take(self, item: dict[str, Any]) -> None:
        """Add one entry of a chunk's `choices`."""
        finish_reason = item.get("finish_reason")
        if finish_reason:
            self.finish_reason = finish_reason
        delta = item.get("delta")
        if type(delta) is dict:
            self._merge(delta)
        elif type(message := item.get("message")) is dict:
            # A whole message after its deltas repeats them (MiniMax); without deltas it is the answer.
            if self._has_output():
                return
            self._merge_message(message)
        logprobs = item.get("logprobs")
        if type(logprobs) is dict:
            self._logprobs = _extended(self._logprobs, logprobs)

    def note(self, item: dict[str, Any]) -> None:
        """Keep the unknown members of an entry, such as `stop_reason`; `take` ignores them."""
        unknown = {name: value for name, value in item.items() if name not in MOVED}
        self._choice_extra = merge(self._choice_extra, unknown)

    def absorb(self, other: "Choice") -> None:
        """Append another choice to this choice."""
        self.take({"delta": other._delta(), "finish_reason": other.finish_reason, "logprobs": other._logprobs})
        self.note(other._choice_extra or {})

    def build(self, index: int) -> dict[str, Any]:
        """Return the choice in the form of an answer without streaming; finish_reason None means unfinished."""
        choice: dict[str, Any] = {"index": index, "message": self._message(), "finish_reason": self.finish_reason}
        if self._logprobs is not None:
            choice["logprobs"] = {"content": None, "refusal": None, **self._logprobs}
        return {**plain(self._choice_extra or {}), **choice}

    def _merge(self, delta: dict[str, Any]) -> None:
        for key, value in delta.items():
            if key in _TEXTS and type(value) is str:
                text = self._texts.get(key)
                if text is None:
                    text = self._texts[key] = GrowingText()
                text.add(value)
            elif value is not None:
                self._merge_other(key, value)

    def _merge_other(self, key: str, value: Any) -> None:
        if key == "role":
            self._role = self._role or (value if isinstance(value, str) else None)
        elif key == "content" and isinstance(value, list):
            self._merge_parts(value)
        elif key == "tool_calls":
            self._calls = self._calls or ToolCalls()
            self._calls.take(value)
        elif key == "function_call":
            self._function = self._function or ToolCalls()
            self._function.take({"index": 0, "function": value})
        elif key == "audio" and isinstance(value, dict):
            self._audio = self._audio or Audio()
            self._audio.take(value)
        elif isinstance(value, list):
            # `annotations`, and the lists of vendors: `images`, `reasoning_details`.
            self._lists = _extended(self._lists, {key: value})
        elif key not in ("content", "refusal", "tool_calls", "audio"):
            self._message_extra = merge(self._message_extra, {key: value})

    def _merge_parts(self, parts: list[Any]) -> None:
        for kind, text in text_parts(parts):
            self._merge({kind: text})

    def _merge_message(self, message: dict[str, Any]) -> None:
        calls = message.get("tool_calls")
        if isinstance(calls, list):
            # In a whole message each entry is a separate call, even if two entries have the same index.
            calls = [{**call, "index": place} for place, call in enumerate(calls) if isinstance(call, dict)]
        self._merge({**message, "tool_calls": calls})

    def _has_output(self) -> bool:
        return bool(
            any(self._texts.values())
            or self._calls
            or self._function
            or self._audio
            or any(self._lists.values() if self._lists else ())
        )

    def _delta(self) -> dict[str, Any]:
        delta = self._message()
        return {**delta, "tool_calls": self._calls.fragments() if self._calls else None}

    def _message(self) -> dict[str, Any]:
        message: dict[str, Any] = {"role": self._role or "assistant", "content": None}
        message.update((key, str(text)) for key, text in self._texts.items())
        if "reasoning" in message:
            message.setdefault("reasoning_content", message["reasoning"])
        if self._calls:
            message["tool_calls"] = self._calls.build()
        if self._function:
            message["function_call"] = self._function.build()[0]["function"]
        if self._audio:
            message["audio"] = self._audio.build()
        return {**plain(self._message_extra or {}), **message, **(self._lists or {})}


def join_counted(choices: dict[int, Choice]) -> dict[int, Choice]:
    """Join all choices to one if their indexes count tokens: in order, with a finish_reason in the last at most.

    Else return `choices` unchanged.
    """
    indexes = list(choices)
    first, *others = choices.values()
    if indexes != sorted(indexes) or any(choice.finish_reason for choice in (first, *others[:-1])):
        return choices
    for other in others:
        first.absorb(other)
    return {indexes[0]: first}


def text_parts(parts: list[Any]) -> list[tuple[str, str]]:
    """Split a content list into ("content", text) and ("reasoning_content", text); skip all other parts.

    `[{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "Hi"}]` (Mistral)
    gives `[("reasoning_content", "hm"), ("content", "Hi")]`; so does `{"type": "reasoning", "summary": [...]}`.
    """
    found: list[tuple[str, str]] = []
    for part in parts:
        if isinstance(part, str):
            found.append(("content", part))
        elif isinstance(part, dict):
            if is_reasoning(part) or isinstance(part.get("thinking"), list | str):
                if reasoning := reasoning_text(part):
                    found.append(("reasoning_content", reasoning))
            elif isinstance(text := part.get("text"), str):
                found.append(("content", text))
    return found


def _extended(lists: dict[str, list[Any]] | None, new: dict[str, Any]) -> dict[str, list[Any]] | None:
    """Append each list in `new` to the list of the same name in `lists`; ignore values that are not lists."""
    for name, values in new.items():
        if isinstance(values, list):
            lists = {} if lists is None else lists
            lists.setdefault(name, []).extend(values)
    return lists
