"""Collects the exact bytes of an answer in little memory. `jobs.net` fills it, SQL stores the result."""

import zlib

_MEMBER_BYTES = 4 * 1024
_GZIP = 31
_FAST, _STORED = 1, 0


class RawLog:
    """Collects the pieces of one body. A large body becomes a series of gzip members, each compressed at once.

    An open compressor would cost 256 KiB per stream; a finished member costs only its output, and a gzip file may have
    any number of members (RFC 1952, section 2.2). Event streams shrink to about a tenth.
    """

    __slots__ = ("_level", "_members", "_plain")

    def __init__(self) -> None:
        self._plain = bytearray()
        self._members = bytearray()
        self._level = _FAST

    def add(self, piece: bytes) -> None:
        """Append a piece of the body."""
        self._plain += piece
        if len(self._plain) >= _MEMBER_BYTES:
            self._compress()

    def close(self) -> tuple[bytes, str]:
        """Return the body and its encoding: "identity" below 4 KiB, else "gzip"."""
        if not self._members:
            return bytes(self._plain), "identity"
        if self._plain:
            self._compress()
        return bytes(self._members), "gzip"

    def _compress(self) -> None:
        member = zlib.compress(self._plain, self._level, wbits=_GZIP)
        # Audio and images do not shrink: store the rest without compression, to save CPU for other streams.
        if len(member) > 0.6 * len(self._plain):
            self._level = _STORED
        self._members += member
        self._plain = bytearray()
