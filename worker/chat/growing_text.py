"""Text that grows by a token at a time. What `choice`, `toolcalls` and `audio` collect fragments in."""

from worker.core.storable_text import rejoin


class GrowingText:
    """Joins strings as they come. Held as UTF-8: a list of tokens, as io.StringIO keeps it, costs 60 bytes for each."""

    __slots__ = ("_utf8",)

    def __init__(self) -> None:
        self._utf8 = bytearray()

    def add(self, text: str) -> None:
        """Append a fragment; halves of surrogate pairs may come apart."""
        self._utf8 += text.encode("utf-8", "surrogatepass")

    def is_between(self, first: bytes, last: bytes) -> bool:
        """Say whether the text begins and ends with these letters; costs nothing, whatever its length."""
        return self._utf8.startswith(first) and self._utf8.endswith(last)

    def __bool__(self) -> bool:
        return bool(self._utf8)

    def __str__(self) -> str:
        return rejoin(self._utf8.decode("utf-8", "surrogatepass"))
