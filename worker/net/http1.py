"""Parse HTTP/1.1 answers: read the head leniently, decode the chunked coding. Used by `net.protocol`.

A bad header must not cost a paid answer, so this module accepts all that curl and browsers accept. RFC 9112 decides
where a body ends. Any other oddity costs only the connection: it then serves no other request.
"""

import re
from dataclasses import dataclass
from typing import Final

HEAD_BYTES: Final = 64 * 1024
HEADER_LINES: Final = 256
# Informational answers are dropped at once and use no memory. A server may send them every second for hours.
INFORMATIONAL_BYTES: Final = 1024 * 1024
_LONGEST_SIZE_LINE: Final = 4 * 1024
# As in Go's net/http/internal/chunked.go: bytes that a chunk may add to its data, and the excess of all chunks.
_COST_OF_A_CHUNK, _EXCESS_BYTES = 16, 16 * 1024

_HEAD_END = re.compile(rb"\n\r?\n")
_STATUS = re.compile(rb"HTTP/(\d)(?:\.(\d))?[ \t]+([1-9]\d\d)(?!\d)")
# RFC 9110, section 5.5: a recipient may replace these characters by spaces.
_UNSAFE = re.compile(rb"\0|\r(?!\n)")
_PLAIN_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})\r\n")
_SIZE = re.compile(rb"(?:\r?\n)?[ \t]*([0-9a-fA-F]{1,15})[ \t]*(?:;[^\n]*)?\r?\n")
_START_OF_SIZE = re.compile(rb"\r?\n?[ \t]*[0-9a-fA-F]{0,15}[ \t]*(?:;[^\n]*)?\r?")
_TRAILERS = re.compile(rb"(?:[^\r\n:]+:[^\r\n]*\r?\n)*\r?\n")


class MalformedResponse(Exception):
    """The bytes are no HTTP answer, or the head is longer than HEAD_BYTES."""


@dataclass(frozen=True, slots=True)
class Head:
    """The head of an answer. `length` is the Content-Length, if any.

    If `chunked`, `length` counts only for a body that is not chunked in fact. Without both, the body ends with the
    connection. `persistent`: the connection may serve another request after this answer.
    """

    code: int
    headers: tuple[tuple[bytes, bytes], ...]
    length: int | None
    chunked: bool
    persistent: bool


class HeadReader:
    """Collects the head of the final answer, up to HEAD_BYTES; drops informational heads (1xx) before it."""

    __slots__ = ("_held", "_left")

    def __init__(self) -> None:
        self._held = b""
        self._left = INFORMATIONAL_BYTES

    def feed(self, data: bytes) -> tuple[Head, bytes] | None:
        """Add bytes; return the head and the bytes after it if the head is complete. Raises MalformedResponse."""
        searched = max(0, len(self._held) - 2)
        data = self._held + data if self._held else data
        while True:
            # RFC 9112, section 2.2: blank lines may come before the first line.
            start = len(data) - len(data.lstrip(b"\r\n"))
            if not b"HTTP/".startswith(data[start : start + 5]):
                raise MalformedResponse
            end = _HEAD_END.search(data, max(start, searched))
            dropped = start if end is None else end.end()
            if dropped > self._left or (len(data) if end is None else end.end()) - start > HEAD_BYTES:
                raise MalformedResponse
            self._left -= dropped
            if end is None:
                self._held = data[start:]
                return None
            head = read_head(data[start : end.start()])
            data, searched = data[end.end() :], 0
            if head.code >= 200 or head.code == 101:
                return head, data


def read_head(block: bytes) -> Head:
    """Parse a head, given without the empty line at its end. Raises MalformedResponse.

    Lines may end with LF alone and may be folded; a line without a colon is skipped. The chunked coding wins over a
    length (RFC 9112, section 6.3).
    """
    first, *lines = _UNSAFE.sub(b" ", block).split(b"\n")
    status = _STATUS.match(first)
    if status is None or len(lines) > HEADER_LINES:
        raise MalformedResponse
    version, code = (status[1], status[2]), int(status[3])
    headers = tuple(_fields(lines))
    codings = [coding for coding in _items(headers, b"transfer-encoding") if coding != b"identity"]
    chunked = b"chunked" in codings
    length = _length(_items(headers, b"content-length"), strict=not chunked)
    if code in (204, 304) or code < 200:
        chunked, length = False, 0
    options = _items(headers, b"connection")
    keeps = b"close" not in options if version == (b"1", b"1") else b"keep-alive" in options
    clean = length is None if codings == [b"chunked"] else length is not None and not codings
    return Head(code, headers, length, chunked, keeps and clean and code != 101)


class Chunks:
    """Decodes the chunked coding. `ended`: the last chunk arrived. `failed`: the bytes break the coding.

    `plain`: the body was never chunked, because a gateway removed the coding and left the header. The answer ends with
    the last chunk; only `is_clean` checks the trailers.
    """

    __slots__ = ("_excess", "_left", "_tail", "ended", "failed", "plain")

    def __init__(self) -> None:
        self.ended = self.failed = False
        self.plain: bool | None = None
        self._left = 0
        self._tail = b""
        self._excess = 0

    @property
    def is_clean(self) -> bool:
        """The whole answer arrived, and nothing after it."""
        return self.ended and len(self._tail) <= HEAD_BYTES and _TRAILERS.fullmatch(self._tail) is not None

    def feed(self, data: bytes) -> bytes:
        """Add bytes of the wire; return the bytes of the body in them."""
        if self.ended:
            self._tail = (self._tail + data)[: HEAD_BYTES + 1]
            return b""
        if self._tail == b"\r\n" and data[-2:] == b"\r\n":
            # The usual packet of a stream: one whole chunk, after another whole chunk.
            size = _PLAIN_SIZE.match(data)
            if size is not None and 0 < int(size[1], 16) == len(data) - 2 - size.end():
                return data[size.end() : -2]
        if self._tail:
            data, self._tail = self._tail + data, b""
        at, pieces = 0, []
        while at < len(data) and not self.plain:
            if self._left:
                piece = data[at : at + self._left]
                at += len(piece)
                self._left -= len(piece)
                pieces.append(piece)
                continue
            size = _SIZE.match(data, at)
            if size is None:
                self._note_rest(data[at:])
                break
            self.plain = False
            self._left = int(size[1], 16)
            self._excess = max(0, self._excess + size.end() - at - _COST_OF_A_CHUNK - 2 * self._left)
            at = size.end()
            if self._excess > _EXCESS_BYTES:
                self.failed = True
                break
            if not self._left:
                self.ended, self._tail = True, data[at : at + HEAD_BYTES + 1]
                break
        return data if self.plain else pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _note_rest(self, rest: bytes) -> None:
        # The usual case first: the line end of a chunk that fills its packet.
        if rest == b"\r\n" or (len(rest) <= _LONGEST_SIZE_LINE and _START_OF_SIZE.fullmatch(rest)):
            self._tail = rest
        elif self.plain is None:
            self.plain = True
        else:
            self.failed = True


def _fields(lines: list[bytes]) -> list[tuple[bytes, bytes]]:
    fields: list[tuple[bytes, bytes]] = []
    for line in lines:
        if line[:1] in (b" ", b"\t"):
            if fields:  # RFC 9112, section 5.2: obsolete line folding
                name, value = fields[-1]
                fields[-1] = name, value + b" " + line.strip()
            continue
        name, colon, value = line.partition(b":")
        name = name.strip()
        if colon and name:
            fields.append((name, value.strip()))
    return fields


def _items(headers: tuple[tuple[bytes, bytes], ...], wanted: bytes) -> list[bytes]:
    """Return the members of a list header, in lower case."""
    values = [value for name, value in headers if len(name) == len(wanted) and name.lower() == wanted]
    return [item for value in values for part in value.lower().split(b",") if (item := part.strip())]


def _length(items: list[bytes], *, strict: bool) -> int | None:
    """Return the length, if all `items` are equal. If `strict`, others raise MalformedResponse (RFC 9112, 6.3)."""
    lengths = {int(item) if item.isdigit() and len(item) <= 20 else None for item in items}
    if len(lengths) == 1 and None not in lengths:
        return lengths.pop()
    if lengths and strict:
        raise MalformedResponse
    return None
