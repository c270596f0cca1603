"""Server-sent events: bytes in, in any split, the data of whole events out. First stage of a streamed answer.

The rules are the HTML standard's (https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream).
Work is done on bytes: in UTF-8 no byte of a longer character looks like a line end.
"""

_BOM = b"\xef\xbb\xbf"


class Events:
    """Cuts one stream into events. Only `data` fields matter to a chat completion; names, ids and retries are dropped.

    Holds no more than the bytes of one unfinished event; who feeds it sets the limit.
    """

    __slots__ = ("_after_cr", "_begun", "_buffer", "_head", "_searched")

    def __init__(self) -> None:
        self._begun = False
        self._head = b""
        self._after_cr = False
        self._buffer = bytearray()
        self._searched = 0

    def feed(self, piece: bytes) -> list[bytes]:
        """Return the data of each event that `piece` completes, lines joined by LF. Events without data are skipped.

        What is unfinished when the stream ends is never returned, as the standard says.
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
        return [data for block in self._blocks(piece) if (data := _data(block))]

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
        end = buffer.rfind(b"\n\n", self._searched)
        # The next search begins at the last byte: it may be the first half of a blank line.
        if end < 0:
            self._searched = max(len(buffer) - 1, 0)
            return []
        whole = bytes(buffer[:end])
        del buffer[: end + 2]
        self._searched = max(len(buffer) - 1, 0)
        return whole.split(b"\n\n")


def _data(block: bytes) -> bytes:
    """Join the data lines of one event. A comment line has the empty name and is ignored like every unknown one."""
    if block[:6] == b"data: " and b"\n" not in block:
        return block[6:]
    values = []
    for line in block.split(b"\n"):
        name, _, value = line.partition(b":")
        if name == b"data":
            values.append(value.removeprefix(b" "))
    return b"\n".join(values)
