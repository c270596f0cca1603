"""Server-sent events: bytes in, in any split, the data of whole events out. First stage of a streamed answer.

The rules are the HTML standard's (https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream).
Work is done on bytes: in UTF-8 no byte of a longer character looks like a line end.

Beyond the standard, because servers do it: events without a blank line between them, where each data line is whole
JSON; an `error:` field; and JSON without any framing, which is an error that a server or a gateway adds.
"""

from worker.core.lenient_json import read

_BOM = b"\xef\xbb\xbf"
_JSON = (b"{", b"[{")


class ErrorData(bytes):
    """The data of an event that is called an error: by `event: error`, or by its field `error`."""

    __slots__ = ()


class Events:
    """Cuts one stream into events. Only `data` fields matter to a chat completion, and whether the event is an error.

    Holds no more than the bytes of one unfinished event; who feeds it sets the limit.
    """

    __slots__ = ("_after_cr", "_begun", "_buffer", "_head", "_is_joined", "_is_single", "_searched")

    def __init__(self) -> None:
        self._begun = False
        self._head = b""
        self._after_cr = False
        self._buffer = bytearray()
        self._searched = 0
        # What is known of the block that has begun: its data lines are one event; of the stream: each line is an event.
        self._is_joined = False
        self._is_single = False

    def feed(self, piece: bytes) -> list[bytes]:
        """Return the data of each event that `piece` completes, lines joined by LF. Events without data are skipped.

        What is unfinished when the stream ends is not returned, as the standard says; see `flush`.
        """
        if (
            piece[:6] == b"data: "
            and piece[-2:] == b"\n\n"
            and len(piece) > 8
            and not self._buffer
            and not self._head
            and piece.count(b"\n") == 2
            and b"\r" not in piece
        ):
            # The usual case, exact for itself: one piece is one event of one line.
            self._begun, self._after_cr = True, False
            return [piece[6:-2]]
        piece = self._with_plain_line_ends(piece if self._begun else self._without_bom(piece))
        found: list[bytes] = []
        for block in self._blocks(piece):
            if block[:6] == b"data: " and b"\n" not in block:
                if len(block) > 6:
                    found.append(block[6:])
            elif block:
                found += _events(block)
        return found

    def flush(self) -> list[bytes]:
        """Return what the end of the stream leaves, if it is whole JSON and an error or a line that is an event."""
        block = bytes(self._buffer).rstrip(b"\n")
        self._buffer.clear()
        self._searched = 0
        return [
            data
            for data in (_events(block) if block else ())
            if (self._is_single or isinstance(data, ErrorData) or block.startswith(_JSON)) and _is_whole(data)
        ]

    def _without_bom(self, piece: bytes) -> bytes:
        head = self._head + piece
        if len(head) < len(_BOM) and _BOM.startswith(head):
            self._head = head
            return b""
        self._begun, self._head = True, b""
        return head.removeprefix(_BOM)

    def _with_plain_line_ends(self, piece: bytes) -> bytes:
        """Make every CRLF and CR an LF. A CR counts at once; an LF after it in the next piece is its second half."""
        if not piece:
            return piece
        if self._after_cr and piece[:1] == b"\n":
            piece = piece[1:]
        self._after_cr = piece[-1:] == b"\r"
        if b"\r" in piece:
            piece = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return piece

    def _blocks(self, piece: bytes) -> list[bytes]:
        """Return what stands between blank lines; keep the unfinished rest."""
        buffer = self._buffer
        if not buffer and piece[-2:] == b"\n\n":
            return piece.split(b"\n\n")
        buffer += piece
        searched = self._searched
        end = buffer.rfind(b"\n\n", searched)
        # The next search begins at the last byte: it may be the first half of a blank line.
        if end < 0:
            self._searched = max(len(buffer) - 1, 0)
            if self._is_joined or buffer.find(b"\ndata:", max(searched - 5, 0)) < 0:
                return []
            return self._single_lines()
        self._is_joined = False
        whole = bytes(buffer[:end])
        del buffer[: end + 2]
        self._searched = max(len(buffer) - 1, 0)
        return whole.split(b"\n\n")

    def _single_lines(self) -> list[bytes]:
        """Return the lines up to the last data line but one, if each data line is whole: no blank line will come."""
        buffer = self._buffer
        last = buffer.rfind(b"\ndata:")
        first = 0 if buffer.startswith(b"data:") else buffer.find(b"\ndata:") + 1
        if first > last:
            return []
        if not _is_whole(bytes(buffer[first + 5 : buffer.find(b"\n", first)])):
            self._is_joined = True
            return []
        self._is_single = True
        # The fields between the two data lines belong to the one that follows.
        end = buffer.find(b"\n", max(buffer.rfind(b"\ndata:", 0, last), 0) + 1)
        block = bytes(buffer[:end])
        del buffer[: end + 1]
        self._searched = max(len(buffer) - 1, 0)
        return [block]


def _events(block: bytes) -> list[bytes]:
    """Return the data of the events in a block: of one, its data lines joined, unless the first is whole by itself.

    A comment line has the empty name and is ignored like every unknown one.
    """
    if block.startswith(_JSON):
        return [block]
    lines: list[tuple[bytes, bool]] = []
    errors: list[bytes] = []
    is_error = was_error = False
    for line in block.split(b"\n"):
        name, _, value = line.partition(b":")
        if name == b"data":
            lines.append((value.removeprefix(b" "), is_error))
            is_error = False
        elif name == b"error":
            errors.append(ErrorData(value.removeprefix(b" ")))
        elif name == b"event" and value.strip() == b"error":
            is_error = was_error = True
    if len(lines) < 2 or not _is_whole(lines[0][0]):
        lines = [(b"\n".join(value for value, _ in lines), was_error)]
    found = [ErrorData(value) if called_error else value for value, called_error in lines]
    return [data for data in (*found, *errors) if data]


def _is_whole(data: bytes) -> bool:
    """Say whether a data line is an event without the lines after it."""
    data = data.strip()
    if data == b"[DONE]" or data[:1] == b":":
        return True
    if data[:1] + data[-1:] not in (b"{}", b"[]"):
        return False
    try:
        read(data.decode("utf-8", "replace"))
    except ValueError:
        return False
    return True
