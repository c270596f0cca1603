"""Assembles the spoken answer of one choice from fragments (rule R8 in `stream`)."""

from base64 import b64decode, b64encode
from binascii import Error
from typing import Any

from worker.chat.growing_text import GrowingText


class Audio:
    """Collects `{"id", "data", "transcript", "expires_at"}`.

    The first `id` counts; `data` and `transcript` are joined; for all other members the last value counts.
    """

    __slots__ = ("_data", "_rest", "_transcript")

    def __init__(self) -> None:
        self._rest: dict[str, Any] = {}
        self._data: list[str] = []
        self._transcript: GrowingText | None = None

    def take(self, fragment: dict[str, Any]) -> None:
        """Add the `audio` object of one delta."""
        for key, value in fragment.items():
            if value is None or (key == "id" and self._rest.get("id")):
                continue
            if key == "data" and isinstance(value, str):
                self._data.append(value)
            elif key == "transcript" and isinstance(value, str):
                self._transcript = self._transcript or GrowingText()
                self._transcript.add(value)
            else:
                self._rest[key] = value

    def build(self) -> dict[str, Any]:
        """Return the whole audio object."""
        audio = dict(self._rest)
        if self._data:
            audio["data"] = _joined(self._data)
        if self._transcript is not None:
            audio["transcript"] = str(self._transcript)
        return audio


def _joined(fragments: list[str]) -> str:
    """Join fragments of base64. Padded fragments are decoded first: joined as text, only the first would decode."""
    text = "".join(fragments)
    if "=" not in text or any(len(fragment) % 4 for fragment in fragments):
        return text
    try:
        return b64encode(b"".join(b64decode(fragment, validate=True) for fragment in fragments)).decode("ascii")
    except (Error, ValueError):
        return text
