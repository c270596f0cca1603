"""Undoes a Content-Encoding that we did not ask for but servers and gateways apply anyway. Used by `net.progress`."""

import zlib
from collections.abc import Iterator
from typing import Final, Protocol

# What one step may unfold to: a bomb meets the answer's byte budget between two steps.
STEP_BYTES: Final = 64 * 1024
_GZIP_OR_ZLIB: Final = 47
_RAW_DEFLATE: Final = -15


class Damaged(Exception):
    """The encoding is not one we know, or the bytes do not follow it."""


class Decoder(Protocol):
    """Turns the bytes of the wire into the bytes of the body."""

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """Yield what `piece` unfolds to, at most STEP_BYTES at a time if compressed. Raises Damaged."""
        ...


def decoder(content_encoding: str) -> Decoder:
    """Return the decoder for a Content-Encoding header ("" if there is none). Raises Damaged for an unknown one."""
    names = [name.strip().lower() for name in content_encoding.split(",")]
    names = [name for name in names if name not in ("", "identity")]
    if not names:
        return _Identity()
    if names in (["gzip"], ["x-gzip"], ["deflate"]):
        return _Inflate(raw_is_possible=names == ["deflate"])
    raise Damaged("the encoding is unknown")


class _Identity:
    def feed(self, piece: bytes) -> Iterator[bytes]:
        yield piece


class _Inflate:
    def __init__(self, *, raw_is_possible: bool) -> None:
        self._raw_is_possible = raw_is_possible
        self._held = b""
        self._ended = False
        self._inflate = zlib.decompressobj(_GZIP_OR_ZLIB)

    def feed(self, piece: bytes) -> Iterator[bytes]:
        if self._raw_is_possible:
            piece = self._held = self._held + piece
            if len(piece) < 2:  # zlib's header, which tells it from bare deflate
                return
        while piece:
            if self._ended:
                # Gzip members may follow one another, and zeros fill up blocks.
                piece = piece.lstrip(b"\0")
                if not piece:
                    return
                self._inflate = zlib.decompressobj(_GZIP_OR_ZLIB)
            part = self._step(piece)
            self._ended = self._inflate.eof
            piece = self._inflate.unused_data if self._ended else self._inflate.unconsumed_tail
            if part:
                yield part

    def _step(self, piece: bytes) -> bytes:
        first, self._raw_is_possible = self._raw_is_possible, False
        try:
            return self._inflate.decompress(piece, STEP_BYTES)
        except zlib.error as error:
            if not first:
                raise Damaged("the compressed bytes are damaged") from error
        # "deflate" means zlib (RFC 9110, section 8.4.1.2), but some servers send it bare.
        self._inflate = zlib.decompressobj(_RAW_DEFLATE)
        return self._step(piece)
