"""Assembles a streamed answer: takes pieces of the body, returns one chat.completion. `jobs.net` feeds it.

Providers stream in different ways. Comments here and in the tests use the numbers of these rules:

R1   Data that is not a JSON object is a fault. A comment, or an object without choices, usage and error, is ignored.
R2   An error (see `provider_error`) fails the stream; the choices beside it still count. If every choice already has a
     finish_reason, a later error or junk does not fail the answer, unless more text follows.
R3   id, created, model: the first that is not empty. system_fingerprint, service_tier: the last that is not null.
     Unknown members of the answer, its choices and their messages are kept (see `unknown_members`).
R4   A missing index is 0, a null delta is empty, a choice without a delta, message or finish_reason is ignored.
R5   Texts are concatenated: null if none came, "" if only "" came. Role: the first. A content list is split by kind.
R6   Tool calls are separated by index and id (see `tool_calls`).            R7   function_call in the same way.
R8   Audio: data joined as bytes, transcript as text (see `audio`).          R9, R10   Lists are extended.
R11  finish_reason: the last that is not empty, unchanged.
R12  Usage: the last object, never a sum (see `usage_report`).
R13  A whole `message` after deltas repeats them; without deltas it is the answer.
R14  An answer is complete if every choice has a finish_reason. [DONE] proves nothing: gateways write it after a cut
     stream, and some servers never write it. Fewer choices than requested are an answer if the stream ended normally,
     because many servers ignore `n`. If one choice was requested, an index may count tokens.
R15  A connection lost after the last finish_reason leaves a complete answer, perhaps without usage.
R16  `answer.read_body` reads the answer if the server sends JSON instead of a stream.
"""

from typing import Any

from worker.chat.answer import Answer, AnswerKind, failed_end, has_output_in, is_failing
from worker.chat.choice import Choice, join_counted
from worker.chat.provider_error import error_of
from worker.chat.sse import ErrorData, Events
from worker.chat.unknown_members import OF_ANSWER, OF_CHOICE, keep_last
from worker.chat.usage_report import Reported
from worker.core.lenient_json import TooManyParts, compact, object_in, read, whole_number

# Gateways send these as data, besides comments, to keep a connection open.
_KEEP_ALIVE = frozenset({"ping", "[ping]", "keep-alive", "keepalive", "heartbeat"})


class Assembler:
    """Assembles one stream. Never raises, for any bytes; its memory is bounded by a multiple of `max_bytes`.

    `n` is the number of requested choices, if known. `max_bytes` counts every byte of the body, also comments. `done`:
    the `[DONE]` event arrived, later data is ignored. After an error, only usage is read.
    """

    __slots__ = (
        "_bytes_left", "_choices", "_events", "_extra", "_fault", "_interleaved", "_late_fault", "_latest", "_n",
        "_names", "_provider", "_reported", "_unfinished", "done",
    )  # fmt: skip

    def __init__(self, *, n: int | None = None, max_bytes: int) -> None:
        self.done = False
        self._n = n or 1
        self._bytes_left = max_bytes
        self._events = Events()
        self._reported = Reported()
        self._choices: dict[int, Choice] = {}
        self._unfinished = 0
        self._names: dict[str, Any] = dict.fromkeys(("id", "created", "model", "system_fingerprint", "service_tier"))
        self._extra: dict[str, Any] = {}
        self._fault: AnswerKind | None = None
        self._provider: Any = None
        # A fault after every choice had its finish_reason, with the provider's error.
        self._late_fault: tuple[AnswerKind, Any] | None = None
        # The index of the latest choice; whether a choice continued after another choice.
        self._latest: int | None = None
        self._interleaved = False

    @property
    def finished(self) -> bool:
        """True if all requested choices arrived and each has its finish_reason: the text is complete (R14)."""
        return not self._unfinished and len(self._choices) >= self._n

    @property
    def failed(self) -> bool:
        """True after a fault: an error event, an unreadable event, or too many bytes before the end."""
        return self._fault is not None or self._late_fault is not None or (self._bytes_left < 0 and not self.finished)

    def feed(self, piece: bytes) -> int:
        """Take a piece of the body. Return the number of completed events that belong to an answer.

        Comments, blank data and JSON without an answer (`{"type": "ping"}`) do not count, because a gateway's
        keep-alive must not hide a silent model.
        """
        if self.done or self._bytes_left < 0:
            return 0
        self._bytes_left -= len(piece)
        if self._bytes_left < 0:
            piece = piece[: self._bytes_left]
        counted = 0
        for data in self._events.feed(piece):
            counted += self._take(data)
            if self.done:
                break
        return counted

    def finish(self, *, reset: bool = False) -> Answer:
        """Return the answer at the end of the body; `reset`: the connection broke before the end.

        If it broke after the last finish_reason, the answer is complete; only usage can be missing (R15).
        """
        if not self.done:
            for data in self._events.flush():
                self._take(data)
        if self._n == 1 and len(self._choices) > 1 and not self._interleaved:
            self._choices = join_counted(self._choices)
            self._unfinished = sum(not choice.finish_reason for choice in self._choices.values())
        fault, provider = self._fault or self._incompleteness(reset=reset), self._provider
        flags = self._flags(reset=reset) if fault is None else ()
        report = self._reported.chosen()
        completion = self._completion(report.value if report else None) if self._choices else None
        if fault is None and (end := failed_end(completion)):
            fault, provider = AnswerKind.provider_error, end
        return Answer(
            completion=completion,
            fault=fault,
            provider=provider,
            usage=report.exact() if report else None,
            usage_source=report.source if report else None,
            usage_flags=self._reported.flags + flags,
        )

    def _flags(self, *, reset: bool) -> tuple[str, ...]:
        """Return the usage_flags of a complete answer."""
        found = {
            "choices_missing": len(self._choices) < self._n,
            "error_after_finish": self._late_fault is not None,
            "reset_after_finish": reset,
        }
        return tuple(flag for flag, is_set in found.items() if is_set)

    def _take(self, data: bytes) -> bool:
        """Take the data of one event; return whether it belongs to an answer."""
        text = data.decode("utf-8", "replace")
        try:
            chunk = read(text)
        except TooManyParts:
            self._fail(AnswerKind.answer_too_large)
            return True
        except ValueError:
            return self._take_text(text.strip(), is_error=isinstance(data, ErrorData))
        if type(chunk) is not dict:
            if (chunk := object_in(chunk)) is None:
                self._fail(AnswerKind.invalid_chunk)
                return True
            # The object without its array; the exact text of its usage is taken from here.
            text = compact(chunk).encode("utf-8", "replace").decode()
        return self._take_object(chunk, text, is_error=type(data) is ErrorData)

    def _take_object(self, chunk: dict[str, Any], text: str, *, is_error: bool) -> bool:
        error, choices, usage = chunk.get("error"), chunk.get("choices"), chunk.get("usage")
        # Most chunks have only a delta: one test finds all rare members.
        is_rare = not choices or is_error or not OF_ANSWER.issuperset(chunk)
        if is_rare:
            error = error_of(chunk, named=is_error)
            if not error and not usage and "choices" not in chunk:
                return False
        is_taken = self._fault is None and (not (error or self._late_fault) or self._note_error(error, choices))
        if is_taken:
            if is_rare and choices is not None:
                keep_last(self._extra, {name: value for name, value in chunk.items() if name not in OF_ANSWER})
            is_rare = self._take_chunk(chunk, choices) or is_rare
        if is_rare or not is_taken:
            self._reported.note(chunk, text)
        elif usage:
            self._reported.note_top(usage, text, is_closing=False)
        return True

    def _note_error(self, error: Any, choices: Any) -> bool:
        """Record an error, or text after the seeming end; return whether the choices of this chunk count."""
        if self._late_fault is not None and has_output_in(choices):
            self._fault, self._provider = self._late_fault
            return False
        if error:
            self._fail(AnswerKind.provider_error, error)
        return True

    def _take_text(self, text: str, *, is_error: bool) -> bool:
        if text == "[DONE]":
            self.done = True
        elif is_error and text:
            self._fail(AnswerKind.provider_error, text)
        elif text[:1] == ":" or text.lower() in _KEEP_ALIVE:
            return False
        elif text:
            self._fail(AnswerKind.invalid_chunk)
        return bool(text)

    def _take_chunk(self, chunk: dict[str, Any], choices: Any) -> bool:
        """Take the names and choices of a chunk; return whether a choice has unknown members, such as usage."""
        names = self._names
        if not (names["id"] and names["created"] and names["model"]):
            for name in ("id", "created", "model"):
                names[name] = names[name] or chunk.get(name)
        if (value := chunk.get("system_fingerprint")) is not None:
            names["system_fingerprint"] = value
        if (value := chunk.get("service_tier")) is not None:
            names["service_tier"] = value
        has_more = False
        for item in choices if type(choices) is list else ():
            if type(item) is dict:
                has_more = self._take_choice(item) or has_more
        return has_more

    def _take_choice(self, item: dict[str, Any]) -> bool:
        index = item.get("index", 0)
        if type(index) is not int:
            index = whole_number(index) or 0
        has_more = not OF_CHOICE.issuperset(item)
        if has_more and (error := item.get("error")):
            self._fail(AnswerKind.provider_error, error)
        choice = self._choices.get(index)
        if choice is None:
            # Azure sends filter results as a choice without a delta, message or finish_reason (R4).
            if not (type(item.get("delta")) is dict or type(item.get("message")) is dict or item.get("finish_reason")):
                return has_more
            choice = self._choices[index] = Choice()
            self._unfinished += 1
        elif index != self._latest:
            self._interleaved = True
        self._latest = index
        if has_more:
            choice.note(item)
        was_open = not choice.finish_reason
        choice.take(item)
        if was_open and choice.finish_reason:
            self._unfinished -= 1
        return has_more

    def _fail(self, fault: AnswerKind, provider: Any = None) -> None:
        if self._fault is not None or self._late_fault is not None:
            return
        if self.finished and not any(is_failing(choice.finish_reason) for choice in self._choices.values()):
            self._late_fault = fault, provider
        else:
            self._fault, self._provider = fault, provider

    def _incompleteness(self, *, reset: bool) -> AnswerKind | None:
        if self.finished:
            return None
        if self._bytes_left < 0:
            return AnswerKind.answer_too_large
        if not self._choices:
            return AnswerKind.empty_stream
        if not self._unfinished and (self.done or not reset):
            return None
        return AnswerKind.missing_finish_reason if self.done else AnswerKind.stream_truncated

    def _completion(self, usage: dict[str, Any] | None) -> dict[str, Any]:
        names = self._names
        return {
            **self._extra,
            "id": names["id"] or None,
            "object": "chat.completion",
            "created": names["created"] or None,
            "model": names["model"] or None,
            "choices": [self._choices[index].build(index) for index in sorted(self._choices)],
            "usage": usage,
            **{name: names[name] for name in ("system_fingerprint", "service_tier") if names[name] is not None},
        }
