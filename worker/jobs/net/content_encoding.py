"""Decompresses bodies that servers and gateways compress unasked; looks at the bytes first, then at the label.

Content-Encoding may be wrong either way: one gateway unpacks a body and keeps the label, another packs it and sets no
label. Bytes that begin like gzip or zlib are packed, and text is not; the label decides only the other cases. Used by
`jobs.net.progress`.
"""

import codecs
import re
import zlib
from collections.abc import Iterator
from typing import Final, Protocol

# The most output of one step. The caller checks the answer's byte budget after each step, which stops a zip bomb.
STEP_BYTES: Final = 64 * 1024
# Two layers exist (a gateway behind a gateway); more is an attack.
MOST_LAYERS: Final = 2
_GZIP_OR_ZLIB: Final = 47
_RAW_DEFLATE: Final = -15
# RFC 1952, section 2.3.1; RFC 1950, section 2.2, at its four levels. No JSON and no event stream begins like this.
_MARKS: Final = (b"\x1f\x8b", b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")
_CONTROL: Final = re.compile(rb"[\0-\x08\x0e-\x1f\x7f]")
_SAMPLE_BYTES: Final = 64


class DecodingError(Exception):
    """The encoding is unknown, or the compressed bytes are damaged."""


class Decoder(Protocol):
    """Turns the bytes of the wire into the bytes of the body."""

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """Yield the decoded bytes of `piece`, at most STEP_BYTES at a time. Raises DecodingError."""
        ...


def decoder(content_encoding: str) -> Decoder:
    """Return the decoder for a body with this Content-Encoding header ("" if there is none)."""
    names = {name.strip().lower() for name in content_encoding.split(",")} - {"", "identity"}
    return _Detector(names, MOST_LAYERS)


class _Detector:
    """Chooses a decoder by the first two bytes."""

    def __init__(self, names: set[str], layers: int) -> None:
        self._names = names
        self._layers = layers
        self._held = b""
        self._chosen: Decoder | None = None

    def feed(self, piece: bytes) -> Iterator[bytes]:
        if self._chosen is None:
            piece = self._held + piece
            # A single byte of text is passed on at once, so an event never waits for its next byte.
            if len(piece) < 2 and (self._names or piece in (b"", b"\x1f", b"\x78")):
                self._held = piece
                return iter(())
            self._held = b""
            self._chosen = self._choose(piece)
        return self._chosen.feed(piece)

    def _choose(self, piece: bytes) -> Decoder:
        if piece.startswith(_MARKS) and self._layers:
            return _Inflate(_GZIP_OR_ZLIB, _Detector(set(), self._layers - 1))
        if not self._names or _is_text(piece[:_SAMPLE_BYTES]):
            return _Identity()
        if self._names == {"deflate"}:
            # "deflate" means zlib (RFC 9110, section 8.4.1.2), but some servers send raw deflate or other window sizes.
            is_zlib = piece[0] & 15 == 8 and int.from_bytes(piece[:2], "big") % 31 == 0
            return _Inflate(_GZIP_OR_ZLIB if is_zlib else _RAW_DEFLATE, _Identity())
        raise DecodingError("the encoding is unknown")


def _is_text(start: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start)  # incremental: the last character may be cut
    except UnicodeDecodeError:
        return False
    return _CONTROL.search(start) is None


class _Identity:
    def feed(self, piece: bytes) -> Iterator[bytes]:
        if len(piece) <= STEP_BYTES:
            return iter((piece,))
        return iter([piece[start : start + STEP_BYTES] for start in range(0, len(piece), STEP_BYTES)])


class _Inflate:
    def __init__(self, window_bits: int, inner: Decoder) -> None:
        self._window_bits = window_bits
        self._inner = inner
        self._ended = False
        self._inflate = zlib.decompressobj(window_bits)

    def feed(self, piece: bytes) -> Iterator[bytes]:
        while piece:
            if self._ended:
                # More gzip members may follow, and padding of zeros.
                piece = piece.lstrip(b"\0")
                if not piece:
                    return
                self._inflate = zlib.decompressobj(self._window_bits)
            try:
                part = self._inflate.decompress(piece, STEP_BYTES)
            except zlib.error as error:
                raise DecodingError("the compressed bytes are damaged") from error
            self._ended = self._inflate.eof
            piece = self._inflate.unused_data if self._ended else self._inflate.unconsumed_tail
            if part:
                yield from self._inner.feed(part)
