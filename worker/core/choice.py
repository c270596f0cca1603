"""One choice of a streamed answer, put together from its deltas (rules R4 to R13). Used by `assemble`."""

from typing import Any

from worker.core.audio import Audio
from worker.core.growing import GrowingText
from worker.core.toolcalls import ToolCalls

_TEXTS = frozenset({"content", "refusal", "reasoning_content", "reasoning"})


class Choice:
    """Takes what one choice says, chunk by chunk. `finish_reason` is the last that was not empty, as it came."""

    __slots__ = ("_audio", "_calls", "_extra", "_function", "_lists", "_logprobs", "_role", "_texts", "finish_reason")

    def __init__(self) -> None:
        self.finish_reason: Any = None
        self._role: str | None = None
        self._texts: dict[str, GrowingText] = {}
        self._calls: ToolCalls | None = None
        self._function: ToolCalls | None = None
        self._audio: Audio | None = None
        self._lists: dict[str, list[Any]] | None = None
        self._logprobs: dict[str, list[Any]] | None = None
        self._extra: dict[str, Any] | None = None

    def take(self, item: dict[str, Any]) -> None:
        """Add one entry of a chunk's `choices`."""
        finish_reason = item.get("finish_reason")
        if finish_reason:
            self.finish_reason = finish_reason
        delta = item.get("delta")
        if type(delta) is dict:
            self._merge(delta)
        elif type(message := item.get("message")) is dict:
            # A whole message after its deltas says the same again (MiniMax); without deltas it is the answer.
            if self._has_output():
                return
            self._merge_message(message)
        logprobs = item.get("logprobs")
        if type(logprobs) is dict:
            self._logprobs = _extended(self._logprobs, logprobs)

    def build(self, index: int) -> dict[str, Any]:
        """Return the choice as in an answer that was not streamed; finish_reason None means unfinished."""
        choice: dict[str, Any] = {"index": index, "message": self._message(), "finish_reason": self.finish_reason}
        if self._logprobs is not None:
            choice["logprobs"] = {"content": None, "refusal": None, **self._logprobs}
        return choice

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
            # annotations, and what vendors stream the same way: images, reasoning_details.
            self._lists = _extended(self._lists, {key: value})

    def _merge_parts(self, parts: list[Any]) -> None:
        for kind, text in text_parts(parts):
            self._merge({kind: text})

    def _merge_message(self, message: dict[str, Any]) -> None:
        calls = message.get("tool_calls")
        if isinstance(calls, list):
            # In a whole message each entry is a call of its own, whatever its index says.
            calls = [{**call, "index": place} for place, call in enumerate(calls) if isinstance(call, dict)]
        self._merge({**message, "tool_calls": calls})
        merged = {*_TEXTS, "role", "tool_calls", "function_call", "audio"}
        rest = {key: value for key, value in message.items() if key not in merged and not isinstance(value, list)}
        self._extra = {**(self._extra or {}), **rest}

    def _has_output(self) -> bool:
        return bool(
            any(self._texts.values())
            or self._calls
            or self._function
            or self._audio
            or any(self._lists.values() if self._lists else ())
            or self._extra
        )

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
        return {**(self._extra or {}), **message, **(self._lists or {})}


def text_parts(parts: list[Any]) -> list[tuple[str, str]]:
    """Split a content list into ("content", text) and ("reasoning_content", text); parts that are neither are left out.

    `[{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "Hi"}]` (Mistral)
    gives `[("reasoning_content", "hm"), ("content", "Hi")]`.
    """
    found: list[tuple[str, str]] = []
    for part in parts:
        if isinstance(part, str):
            found.append(("content", part))
        elif isinstance(part, dict):
            thinking = part.get("thinking")
            if isinstance(thinking, list):
                found += [("reasoning_content", text) for _, text in text_parts(thinking)]
            elif isinstance(thinking, str):
                found.append(("reasoning_content", thinking))
            elif isinstance(text := part.get("text"), str):
                found.append(("content", text))
    return found


def _extended(lists: dict[str, list[Any]] | None, new: dict[str, Any]) -> dict[str, list[Any]] | None:
    """Append each list in `new` to the list of the same name; values that are no lists say nothing."""
    for name, values in new.items():
        if isinstance(values, list):
            lists = {} if lists is None else lists
            lists.setdefault(name, []).extend(values)
    return lists
