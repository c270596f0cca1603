"""Reads the body of a 2xx answer as a stream of events or as one JSON object. Used by `jobs.net.progress`."""

from typing import Final, Protocol

from worker.chat.answer import Answer, read_body
from worker.chat.stream import Assembler

_BOM: Final = b"\xef\xbb\xbf"
_EVENT_FIELDS: Final = (b"data", b":", b"event", b"id", b"retry")


class BodyReader(Protocol):
    """Takes the pieces of an answer: `chat.stream.Assembler`, or WholeBody below."""

    done: bool

    @property
    def failed(self) -> bool:
        """The answer has a fault, and the rest of the body cannot change that."""
        ...

    def feed(self, piece: bytes) -> int:
        """Take a piece; return the amount of *data* in it. Keep-alives are not data."""
        ...

    def finish(self, *, reset: bool = False) -> Answer:
        """Return the answer so far. `reset`: the body did not end by itself."""
        ...


class WholeBody:
    """Collects a body and parses it at its end. Every byte counts as data: while DeepSeek works on a request that is
    not streamed, it sends blank lines.
    """

    __slots__ = ("_body", "done")

    failed = False

    def __init__(self) -> None:
        self._body = bytearray()
        self.done = False

    def feed(self, piece: bytes) -> int:
        """Take a piece of the body."""
        self._body += piece
        return len(piece)

    def finish(self, *, reset: bool = False) -> Answer:
        """Parse the body. If it broke off after its last brace, it is still complete."""
        return read_body(bytes(self._body))

    def body(self) -> bytes:
        """Return the bytes so far."""
        return bytes(self._body)


def start_of(first: bytes) -> bytes:
    """Return the first bytes of an answer without a leading byte order mark or blank lines."""
    return first.removeprefix(_BOM).lstrip()


def choose(start: bytes, *, is_labelled: bool, n: int | None, max_bytes: int) -> BodyReader | None:
    """Choose a reader by the first bytes, then by the label (text/event-stream); None if more bytes are needed.

    The label alone is not enough: some servers answer a streamed request with JSON, others label events as text/plain
    or not at all. The bytes are clear: an object never begins like an event's field, an event stream never with a
    brace.
    """
    if not start or (not is_labelled and any(start in _prefixes(field) for field in _EVENT_FIELDS)):
        return None
    if not start.startswith(b"{") and (is_labelled or start.startswith(_EVENT_FIELDS)):
        return Assembler(n=n, max_bytes=max_bytes)
    return WholeBody()


def _prefixes(field: bytes) -> tuple[bytes, ...]:
    return tuple(field[:length] for length in range(1, len(field)))
