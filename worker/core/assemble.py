"""A streamed answer, put together: pieces of the body in, one chat.completion out. `net` feeds it while it reads.

Providers differ in what they stream. The rules, by the numbers that comments here and in the tests use:

R1   Data that is no JSON object is a fault; an object without choices, usage and error says nothing.
R2   A truthy `error`, or `object: "error"`, fails the stream; the choices beside it still count.
R3   id, created, model: the first that is not empty. system_fingerprint, service_tier: the last that is not null.
R4   A missing index is 0, a null delta is empty, a choice that says nothing is none.
R5   Texts are concatenated: null if none came, "" if only "" came. Role: the first. A content list is split by kind.
R6   Tool calls are told apart by index and id (see `toolcalls`).            R7   function_call likewise.
R8   Audio: data joined as bytes, transcript as text (see `audio`).          R9, R10   Lists are extended.
R11  finish_reason: the last that is not empty, as it came.
R12  Usage: the last object, never a sum (see `reported`).
R13  A whole `message` after deltas repeats them; without deltas it is the answer.
R14  Complete is what has a finish_reason in every choice, and as many choices as asked for. [DONE] proves nothing:
     gateways write it after a stream that was cut, and some servers never do.
R15  A connection lost after the last finish_reason leaves a complete answer, perhaps without usage.
R16  JSON in answer to a request for a stream is read by `answer.read_body`.
"""

from typing import Any

from worker.core.answer import Answer, Kind, error_of
from worker.core.choice import Choice
from worker.core.reported import Reported
from worker.core.sse import Events
from worker.core.wirejson import TooManyParts, read, whole_number


class Assembler:
    """Assembles one stream. No bytes make it raise; what it holds is bounded by a multiple of `max_bytes`.

    `n` is the number of choices asked for, if known; `max_bytes` counts every byte of the body, comments too. `done`:
    the `[DONE]` event was seen, nothing more is taken. After an error only usage is.
    """

    __slots__ = ("_choices", "_events", "_fault", "_n", "_names", "_open", "_provider", "_reported", "_room", "done")

    def __init__(self, *, n: int | None = None, max_bytes: int) -> None:
        self.done = False
        self._n = n or 1
        self._room = max_bytes
        self._events = Events()
        self._reported = Reported()
        self._choices: dict[int, Choice] = {}
        self._open = 0
        self._names: dict[str, Any] = dict.fromkeys(("id", "created", "model", "system_fingerprint", "service_tier"))
        self._fault: Kind | None = None
        self._provider: Any = None

    @property
    def finished(self) -> bool:
        """Every choice seen has its finish_reason, and there are as many as asked for: the text is complete (R14)."""
        return not self._open and len(self._choices) >= self._n

    @property
    def failed(self) -> bool:
        """A fault is certain: an error event, an unreadable event, or more bytes than allowed before the end."""
        return self._fault is not None or (self._room < 0 and not self.finished)

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
        fault = self._fault or self._shortfall()
        flags = ("reset_after_finish",) if reset and fault is None else ()
        report = self._reported.chosen()
        return Answer(
            completion=self._completion(report.value if report else None) if self._choices else None,
            fault=fault,
            provider=self._provider,
            usage=report.exact() if report else None,
            usage_source=report.source if report else None,
            usage_flags=self._reported.flags + flags,
        )

    def _take(self, data: bytes) -> bool:
        """Take the data of one event; say whether it belongs to an answer."""
        text = data.decode("utf-8", "replace")
        try:
            chunk = read(text)
        except TooManyParts:
            self._fail(Kind.answer_too_large)
            return True
        except ValueError:
            return self._take_unreadable(text.strip())
        if type(chunk) is not dict:
            self._fail(Kind.invalid_chunk)
            return True
        error = error_of(chunk)
        if "choices" not in chunk and not error and not chunk.get("usage"):
            return False
        self._reported.note(chunk, text)
        if self._fault is None:
            self._take_chunk(chunk)
            if error:
                self._fail(Kind.provider_error, error)
        return True

    def _take_unreadable(self, text: str) -> bool:
        if text == "[DONE]":
            self.done = True
        elif text:
            self._fail(Kind.invalid_chunk)
        return bool(text)

    def _take_chunk(self, chunk: dict[str, Any]) -> None:
        names = self._names
        for name in ("id", "created", "model"):
            if not names[name]:
                names[name] = chunk.get(name)
        for name in ("system_fingerprint", "service_tier"):
            if (value := chunk.get(name)) is not None:
                names[name] = value
        choices = chunk.get("choices")
        if type(choices) is list:
            for item in choices:
                if type(item) is dict:
                    self._take_choice(item)

    def _take_choice(self, item: dict[str, Any]) -> None:
        index = item.get("index", 0)
        if type(index) is not int:
            index = whole_number(index) or 0
        choice = self._choices.get(index)
        if choice is None:
            # Azure's filter results come as a choice that says nothing (R4).
            if not (type(item.get("delta")) is dict or type(item.get("message")) is dict or item.get("finish_reason")):
                return
            choice = self._choices[index] = Choice()
            self._open += 1
        was_open = not choice.finish_reason
        choice.take(item)
        if was_open and choice.finish_reason:
            self._open -= 1

    def _fail(self, fault: Kind, provider: Any = None) -> None:
        if self._fault is None:
            self._fault, self._provider = fault, provider

    def _shortfall(self) -> Kind | None:
        if self.finished:
            return None
        if self._room < 0:
            return Kind.answer_too_large
        if not self._choices:
            return Kind.empty_stream
        return Kind.missing_finish_reason if self.done else Kind.stream_truncated

    def _completion(self, usage: dict[str, Any] | None) -> dict[str, Any]:
        names = self._names
        return {
            "id": names["id"] or None,
            "object": "chat.completion",
            "created": names["created"] or None,
            "model": names["model"] or None,
            "choices": [self._choices[index].build(index) for index in sorted(self._choices)],
            "usage": usage,
            **{name: names[name] for name in ("system_fingerprint", "service_tier") if names[name] is not None},
        }
