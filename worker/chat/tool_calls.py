"""Assembles the tool calls of one choice from fragments (rule R6 in `stream`)."""

from typing import Any

from worker.chat.growing_text import GrowingText
from worker.core.lenient_json import compact, read, whole_number
from worker.core.storable_text import rejoin

# For each kind of call: its member, and the text in that member that comes in fragments.
_TEXTS = {"function": "arguments", "custom": "input"}
# Characters: a longer name gets no more pieces.
_LONGEST_NAME = 256
# How often the arguments of one call are parsed, because each time reads all of them.
_MOST_PARSES = 32


class _Call:
    __slots__ = ("_parses", "extra", "id", "index", "kind", "name", "text", "type")

    def __init__(self, index: int) -> None:
        self.index = index
        self.id: str | None = None
        self.type: str | None = None
        self.kind = "function"
        self.name: str | None = None
        self.text: GrowingText | None = None
        self.extra: dict[str, Any] | None = None
        self._parses = 0

    def take(self, fragment: dict[str, Any]) -> None:
        """Add a fragment. The first non-empty `id` and `type` count; the name may come in pieces."""
        for key, value in fragment.items():
            if key in _TEXTS:
                self._take_body(key, value)
            elif key == "id":
                self.id = self.id or _text(value)
            elif key == "type":
                self.type = self.type or _text(value)
            elif key != "index" and value is not None:
                # Fields of vendors, such as thought signatures: the next request must return them with the call.
                self.extra = {**(self.extra or {}), key: value}

    def _take_body(self, kind: str, body: object) -> None:
        if not isinstance(body, dict):
            return
        self.kind = kind
        if name := _text(body.get("name")):
            self._take_name(name)
        text = body.get(_TEXTS[kind])
        if text is not None:
            if self.text is None:
                self.text = GrowingText()
            self.text.add(text if isinstance(text, str) else compact(text))

    def _take_name(self, name: str) -> None:
        """Add a name or a piece of a name. After the arguments began, or if it is equal, it is a repetition."""
        if not self.name:
            self.name = name
        elif not self.text and name != self.name and len(self.name) <= _LONGEST_NAME:
            self.name = name if name.startswith(self.name) else self.name + name

    def is_whole(self) -> bool:
        """Say whether the arguments so far are a whole JSON object. Always false after _MOST_PARSES tries."""
        if self.text is None or not self.text.is_between(b"{", b"}") or self._parses > _MOST_PARSES:
            return False
        self._parses += 1
        try:
            read(str(self.text))
        except ValueError:
            return False
        return True

    def build(self) -> dict[str, Any]:
        text = str(self.text or "")
        name = self.name and rejoin(self.name)
        return {
            "id": self.id,
            "type": self.type or self.kind,
            self.kind: {"name": name, _TEXTS[self.kind]: text},
            **(self.extra or {}),
        }


class ToolCalls:
    """Assigns each fragment to its call. Providers number calls from 0 or 1, with gaps, all as 0, or not at all."""

    __slots__ = ("_by_id", "_calls", "_latest", "_next_index")

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._latest: dict[int, _Call] = {}
        self._by_id: dict[str, _Call] = {}
        self._next_index = 0

    def take(self, fragments: object) -> None:
        """Add the fragments of one delta: `[{"index": 0, "function": {"arguments": "{"}}]`."""
        for fragment in fragments if isinstance(fragments, list) else [fragments]:
            if isinstance(fragment, dict):
                call = self._call_of(fragment)
                call.take(fragment)
                if call.id:
                    self._by_id.setdefault(call.id, call)

    def __bool__(self) -> bool:
        return bool(self._calls)

    def build(self) -> list[dict[str, Any]]:
        """Return the calls in the order of their indexes: `[{"id": …, "type": "function", "function": {…}}]`."""
        return [call.build() for call in sorted(self._calls, key=lambda call: call.index)]

    def fragments(self) -> list[dict[str, Any]]:
        """Return the calls as fragments with an index, to add them to another ToolCalls."""
        return [{"index": call.index, **call.build()} for call in self._calls]

    def _call_of(self, fragment: dict[str, Any]) -> _Call:
        index = whole_number(fragment.get("index"))
        call_id = _text(fragment.get("id"))
        body = fragment.get("function") or fragment.get("custom")
        name = _text(body.get("name")) if isinstance(body, dict) else None
        found = self._unnumbered(call_id, name) if index is None else self._numbered(index, call_id, name)
        if found is not None and name and (not call_id or not found.id) and _follows_a_whole_call(found, name, body):
            found = None
        return found or self._new(self._next_index if index is None else index)

    def _numbered(self, index: int, call_id: str | None, name: str | None) -> _Call | None:
        latest = self._latest.get(index)
        if latest is None or not call_id or not latest.id or latest.id == call_id:
            return latest
        known = self._by_id.get(call_id)
        if known is not None and known.index == index:
            return known
        # Some providers make a new id for every fragment, others number all calls 0: only a name starts a new call.
        return None if name else latest

    def _unnumbered(self, call_id: str | None, name: str | None) -> _Call | None:
        if call_id:
            return self._by_id.get(call_id)
        last = self._calls[-1] if self._calls else None
        # Without index and id, a fragment with another name than the last call cannot continue that call.
        return None if last and name and last.name and name != last.name else last

    def _new(self, index: int) -> _Call:
        call = _Call(index)
        self._calls.append(call)
        self._latest[index] = call
        self._next_index = max(self._next_index, index + 1)
        return call


def _follows_a_whole_call(call: _Call, name: str, body: Any) -> bool:
    """Say whether a fragment with a name starts another call: Gemini sends parallel calls with the same index.

    It does if the arguments of the call before it are whole, and the fragment has arguments or another name.
    """
    has_arguments = any(body.get(text) for text in _TEXTS.values())
    return (has_arguments or name != call.name) and call.is_whole()


def _text(value: object) -> str | None:
    """Return a non-empty string, or the digits of an integer; else None."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:#x}" if value.bit_length() > 4096 else str(value)
    return value or None if isinstance(value, str) else None
