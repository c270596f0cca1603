"""Text that grows token by token: `choice`, `tool_calls` and `audio` collect fragments in it."""

from worker.core.storable_text import rejoin


class GrowingText:
    """Joins fragments of text. It stores UTF-8, because a list of tokens (io.StringIO) costs 60 bytes per token."""

    __slots__ = ("_utf8",)

    def __init__(self) -> None:
        self._utf8 = bytearray()

    def add(self, text: str) -> None:
        """Append a fragment. The halves of a surrogate pair may be in two fragments."""
        self._utf8 += text.encode("utf-8", "surrogatepass")

    def is_between(self, first: bytes, last: bytes) -> bool:
        """Say whether the text starts with `first` and ends with `last`. Cheap for a text of any length."""
        return self._utf8.startswith(first) and self._utf8.endswith(last)

    def __bool__(self) -> bool:
        return bool(self._utf8)

    def __str__(self) -> str:
        return rejoin(self._utf8.decode("utf-8", "surrogatepass"))
