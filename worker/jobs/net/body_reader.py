"""Chooses how an answer under 2xx is read: as a stream of events or as one JSON object. Used by `jobs.net.progress`."""

from typing import Final, Protocol

from worker.chat.answer import Answer, read_body
from worker.chat.stream import Assembler

_BOM: Final = b"\xef\xbb\xbf"
_EVENT_FIELDS: Final = (b"data", b":", b"event", b"id", b"retry")


class BodyReader(Protocol):
    """What takes the pieces of an answer: `chat.stream.Assembler`, or WholeBody below."""

    done: bool

    @property
    def failed(self) -> bool:
        """A fault is certain, whatever follows."""
        ...

    def feed(self, piece: bytes) -> int:
        """Take a piece; return how much *data* it held: keep-alives are none."""
        ...

    def finish(self, *, reset: bool = False) -> Answer:
        """Say what came; `reset` if the body did not end by itself."""
        ...


class WholeBody:
    """Collects a body that is read when it has ended. Every byte counts as data: blank lines are DeepSeek's way to say
    that it works on a request that is not streamed.
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
        """Read what came; a body that broke off after its last brace is whole."""
        return read_body(bytes(self._body))

    def body(self) -> bytes:
        """Return what came."""
        return bytes(self._body)


def start_of(first: bytes) -> bytes:
    """Return the first bytes of an answer without what may stand before it: a byte order mark, blank lines."""
    return first.removeprefix(_BOM).lstrip()


def choose(start: bytes, *, is_labelled: bool, n: int | None, max_bytes: int) -> BodyReader | None:
    """Choose by the answer's first bytes, then by its label (text/event-stream); None while they are too few to tell.

    JSON comes to requests that asked for a stream, events come labelled as text/plain or not at all; an object never
    begins like an event's field, nor an event stream with a brace.
    """
    if not start or (not is_labelled and any(start in _beginnings(field) for field in _EVENT_FIELDS)):
        return None
    if not start.startswith(b"{") and (is_labelled or start.startswith(_EVENT_FIELDS)):
        return Assembler(n=n, max_bytes=max_bytes)
    return WholeBody()


def _beginnings(field: bytes) -> tuple[bytes, ...]:
    return tuple(field[:length] for length in range(1, len(field)))
