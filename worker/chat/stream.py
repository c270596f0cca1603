"""A streamed answer, put together: pieces of the body in, one chat.completion out. `net` feeds it while it reads.

Providers differ in what they stream. The rules, by the numbers that comments here and in the tests use:

R1   Data that is no JSON object is a fault; a comment, or an object without choices, usage and error, says nothing.
R2   An error (see `errors`) fails the stream; the choices beside it still count. After every finish_reason an error or
     junk does not undo the answer: the first fact over a later fault. If more text follows, it was no end.
R3   id, created, model: the first that is not empty. system_fingerprint, service_tier: the last that is not null.
     Members that are not known stay: of the answer, its choices and their messages (see `unknown`).
R4   A missing index is 0, a null delta is empty, a choice that says nothing is none.
R5   Texts are concatenated: null if none came, "" if only "" came. Role: the first. A content list is split by kind.
R6   Tool calls are kept apart by index and id (see `toolcalls`).             R7   function_call likewise.
R8   Audio: data joined as bytes, transcript as text (see `audio`).          R9, R10   Lists are extended.
R11  finish_reason: the last that is not empty, as it came.
R12  Usage: the last object, never a sum (see `reported`).
R13  A whole `message` after deltas repeats them; without deltas it is the answer.
R14  Complete is what has a finish_reason in every choice. [DONE] proves nothing: gateways write it after a stream that
     was cut, and some servers never do. Fewer choices than asked for are an answer if the stream ended by itself: many
     servers ignore `n`. Where one choice was asked for, an index may count tokens.
R15  A connection lost after the last finish_reason leaves a complete answer, perhaps without usage.
R16  JSON in answer to a request for a stream is read by `answer.read_body`.
"""

from typing import Any

from worker.chat.answer import Answer, AnswerKind, failed_end, has_output_in, is_failing
from worker.chat.choice import Choice, join_counted
from worker.chat.provider_error import error_of
from worker.chat.sse import ErrorData, Events
from worker.chat.unknown_members import OF_ANSWER, OF_CHOICE, keep_last
from worker.chat.usage_report import Reported
from worker.core.lenient_json import TooManyParts, object_in, read, whole_number

# What gateways send as data to keep a connection alive, beside comments.
_KEEP_ALIVE = frozenset({"ping", "[ping]", "keep-alive", "keepalive", "heartbeat"})


class Assembler:
    """Assembles one stream. No bytes make it raise; what it holds is bounded by a multiple of `max_bytes`.

    `n` is the number of choices asked for, if known; `max_bytes` counts every byte of the body, comments too. `done`:
    the `[DONE]` event was seen, nothing more is taken. After an error only usage is.
    """

    __slots__ = (
        "_choices", "_events", "_extra", "_fault", "_late", "_latest", "_n", "_names", "_open", "_provider",
        "_reported", "_returned", "_room", "done",
    )  # fmt: skip

    def __init__(self, *, n: int | None = None, max_bytes: int) -> None:
        self.done = False
        self._n = n or 1
        self._room = max_bytes
        self._events = Events()
        self._reported = Reported()
        self._choices: dict[int, Choice] = {}
        self._open = 0
        self._names: dict[str, Any] = dict.fromkeys(("id", "created", "model", "system_fingerprint", "service_tier"))
        self._extra: dict[str, Any] = {}
        self._fault: AnswerKind | None = None
        self._provider: Any = None
        # What went wrong after every finish_reason, with the provider's error.
        self._late: tuple[AnswerKind, Any] | None = None
        # The index of the choice last seen; whether one came again after another.
        self._latest: int | None = None
        self._returned = False

    @property
    def finished(self) -> bool:
        """Every choice seen has its finish_reason, and there are as many as asked for: the text is complete (R14)."""
        return not self._open and len(self._choices) >= self._n

    @property
    def failed(self) -> bool:
        """A fault is certain: an error event, an unreadable event, or more bytes than allowed before the end."""
        return self._fault is not None or self._late is not None or (self._room < 0 and not self.finished)

    def feed(self, piece: bytes) -> int:
        """Take a piece of the body. Return how many events it completed that belong to an answer.

        Comments, blank data and JSON that says nothing about an answer (`{"type": "ping"}`) are not counted, so that a
        gateway's keep-alive does not hide a silent model.
        """
        if self.done or self._room < 0:
            return 0
        self._room -= len(piece)
        if self._room < 0:
            piece = piece[: self._room]
        counted = 0
        for data in self._events.feed(piece):
            counted += self._take(data)
            if self.done:
                break
        return counted

    def finish(self, *, reset: bool = False) -> Answer:
        """Say what came, at the end of the body; `reset` if the connection broke instead.

        A connection that breaks after every finish_reason costs the usage at most: the answer is complete (R15).
        """
        if not self.done:
            for data in self._events.flush():
                self._take(data)
        if self._n == 1 and len(self._choices) > 1 and not self._returned:
            self._choices = join_counted(self._choices)
            self._open = sum(not choice.finish_reason for choice in self._choices.values())
        fault, provider = self._fault or self._shortfall(reset=reset), self._provider
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
        """Say what is missing of an answer that is complete."""
        found = {
            "choices_missing": len(self._choices) < self._n,
            "error_after_finish": self._late is not None,
            "reset_after_finish": reset,
        }
        return tuple(flag for flag, holds in found.items() if holds)

    def _take(self, data: bytes) -> bool:
        """Take the data of one event; say whether it belongs to an answer."""
        text = data.decode("utf-8", "replace")
        try:
            chunk = read(text)
        except TooManyParts:
            self._fail(AnswerKind.answer_too_large)
            return True
        except ValueError:
            return self._take_unreadable(text.strip(), is_error=isinstance(data, ErrorData))
        if type(chunk) is not dict and (chunk := object_in(chunk)) is None:
            self._fail(AnswerKind.invalid_chunk)
            return True
        error, choices, usage = chunk.get("error"), chunk.get("choices"), chunk.get("usage")
        # Most chunks hold a delta and nothing else: what is rare is looked for in one step.
        is_rare = not choices or type(data) is ErrorData or not OF_ANSWER.issuperset(chunk)
        if is_rare:
            error = error_of(chunk, named=type(data) is ErrorData)
            if not error and not usage and "choices" not in chunk:
                return False
        is_taken = self._fault is None and (not (error or self._late) or self._weigh(error, choices))
        if is_taken:
            if is_rare and choices is not None:
                keep_last(self._extra, {name: value for name, value in chunk.items() if name not in OF_ANSWER})
            is_rare = self._take_chunk(chunk, choices) or is_rare
        if is_rare or not is_taken:
            self._reported.note(chunk, text)
        elif usage:
            self._reported.note_top(usage, text, is_closing=False)
        return True

    def _weigh(self, error: Any, choices: Any) -> bool:
        """Note an error, or text after what seemed to be the end; say whether the choices still count."""
        if self._late is not None and has_output_in(choices):
            self._fault, self._provider = self._late
            return False
        if error:
            self._fail(AnswerKind.provider_error, error)
        return True

    def _take_unreadable(self, text: str, *, is_error: bool) -> bool:
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
        """Take what a chunk says; say whether any of its choices has members that we do not know, such as usage."""
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
            # Azure's filter results come as a choice that says nothing (R4).
            if not (type(item.get("delta")) is dict or type(item.get("message")) is dict or item.get("finish_reason")):
                return has_more
            choice = self._choices[index] = Choice()
            self._open += 1
        elif index != self._latest:
            self._returned = True
        self._latest = index
        if has_more:
            choice.note(item)
        was_open = not choice.finish_reason
        choice.take(item)
        if was_open and choice.finish_reason:
            self._open -= 1
        return has_more

    def _fail(self, fault: AnswerKind, provider: Any = None) -> None:
        if self._fault is not None or self._late is not None:
            return
        if self.finished and not any(is_failing(choice.finish_reason) for choice in self._choices.values()):
            self._late = fault, provider
        else:
            self._fault, self._provider = fault, provider

    def _shortfall(self, *, reset: bool) -> AnswerKind | None:
        if self.finished:
            return None
        if self._room < 0:
            return AnswerKind.answer_too_large
        if not self._choices:
            return AnswerKind.empty_stream
        if not self._open and (self.done or not reset):
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
