"""The spoken answer of one choice, put together from fragments (rule R8). Used by `choice`."""

from base64 import b64decode, b64encode
from binascii import Error
from typing import Any

from worker.chat.growing_text import GrowingText


class Audio:
    """Collects `{"id", "data", "transcript", "expires_at"}`: the first id, all data and transcript, the last rest."""

    __slots__ = ("_data", "_rest", "_transcript")

    def __init__(self) -> None:
        self._rest: dict[str, Any] = {}
        self._data: list[str] = []
        self._transcript: GrowingText | None = None

    def take(self, fragment: dict[str, Any]) -> None:
        """Add the audio of one delta."""
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
    """Join base64 text. Fragments that each end in padding would, joined as text, decode to the first of them only."""
    text = "".join(fragments)
    if "=" not in text or any(len(fragment) % 4 for fragment in fragments):
        return text
    try:
        return b64encode(b"".join(b64decode(fragment, validate=True) for fragment in fragments)).decode("ascii")
    except (Error, ValueError):
        return text
