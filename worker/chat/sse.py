"""Parses server-sent events: takes bytes in pieces of any size, returns the data of whole events.

The rules are the HTML standard's (https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream).
The parser works on bytes, because in UTF-8 no byte of a longer character looks like a line end.

Servers also send, beyond the standard: events without a blank line between them (each data line is whole JSON), an
`error:` field, and bare JSON without any field, which is an error from a server or a gateway.
"""

from worker.core.lenient_json import read

_BOM = b"\xef\xbb\xbf"
_JSON = (b"{", b"[{")


class ErrorData(bytes):
    """The data of an error event: of an event with `event: error`, or of a field `error`."""

    __slots__ = ()


class Events:
    """Splits one stream into events. It reads the `data` fields and marks errors; other fields are ignored.

    It keeps only the bytes of one unfinished event; the caller limits the size.
    """

    __slots__ = ("_after_cr", "_begun", "_buffer", "_head", "_is_joined", "_is_single", "_searched")

    def __init__(self) -> None:
        self._begun = False
        self._head = b""
        self._after_cr = False
        self._buffer = bytearray()
        self._searched = 0
        # True if the data lines of the current block form one event; true if each data line of the stream is an event.
        self._is_joined = False
        self._is_single = False

    def feed(self, piece: bytes) -> list[bytes]:
        """Return the data of each event that `piece` completes: `b"data: a\\ndata: b\\n\\n"` gives `[b"a\\nb"]`.

        Events without data are skipped. By the standard, an unfinished event at the end is dropped; see `flush`.
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
            # A shortcut with the same result for the usual case: one piece is one event of one line.
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
        """Return the unfinished rest at the end of the stream, if it is whole JSON and either an error or an event."""
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
        """Replace CRLF and CR by LF. A CR at the end of a piece counts at once; an LF right after it is skipped."""
        if not piece:
            return piece
        if self._after_cr and piece[:1] == b"\n":
            piece = piece[1:]
        self._after_cr = piece[-1:] == b"\r"
        if b"\r" in piece:
            piece = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return piece

    def _blocks(self, piece: bytes) -> list[bytes]:
        """Return the blocks between blank lines; keep the unfinished rest."""
        buffer = self._buffer
        if not buffer and piece[-2:] == b"\n\n":
            return piece.split(b"\n\n")
        buffer += piece
        searched = self._searched
        end = buffer.rfind(b"\n\n", searched)
        # The next search starts at the last byte, because it may be the first half of a blank line.
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
        """If each data line is whole JSON, no blank line follows: return the lines up to the second-last data line."""
        buffer = self._buffer
        last = buffer.rfind(b"\ndata:")
        first = 0 if buffer.startswith(b"data:") else buffer.find(b"\ndata:") + 1
        if first > last:
            return []
        if not _is_whole(bytes(buffer[first + 5 : buffer.find(b"\n", first)])):
            self._is_joined = True
            return []
        self._is_single = True
        # Fields between two data lines belong to the second.
        end = buffer.find(b"\n", max(buffer.rfind(b"\ndata:", 0, last), 0) + 1)
        block = bytes(buffer[:end])
        del buffer[: end + 1]
        self._searched = max(len(buffer) - 1, 0)
        return [block]


def _events(block: bytes) -> list[bytes]:
    """Return the data of the events in a block. It is one event with joined data lines, unless the first line is whole.

    Unknown fields are ignored; a comment line counts as a field with an empty name.
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
    """Say whether a data line is a whole event: JSON, `[DONE]` or a comment."""
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
