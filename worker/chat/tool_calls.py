"""The tool calls of one choice, put together from fragments (rule R6). Used by `choice`."""

from typing import Any

from worker.chat.growing_text import GrowingText
from worker.core.lenient_json import compact, read, whole_number
from worker.core.storable_text import rejoin

# What a call of each kind holds: the member of the call, and the text in it that comes in fragments.
_TEXTS = {"function": "arguments", "custom": "input"}
# A name that comes in pieces is no longer than this; and a call is looked at so often for whether it is whole.
_LONGEST_NAME = 256
_MOST_LOOKS = 32


class _Call:
    __slots__ = ("_looks", "extra", "id", "index", "kind", "name", "text", "type")

    def __init__(self, index: int) -> None:
        self.index = index
        self.id: str | None = None
        self.type: str | None = None
        self.kind = "function"
        self.name: str | None = None
        self.text: GrowingText | None = None
        self.extra: dict[str, Any] | None = None
        self._looks = 0

    def take(self, fragment: dict[str, Any]) -> None:
        """Add a fragment. id and type: the first that is not empty stays; the name may come in pieces."""
        for key, value in fragment.items():
            if key in _TEXTS:
                self._take_body(key, value)
            elif key == "id":
                self.id = self.id or _text(value)
            elif key == "type":
                self.type = self.type or _text(value)
            elif key != "index" and value is not None:
                # Vendor fields, such as the thought signatures that must be sent back with the call.
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
        """Add a name, or a piece of it before the arguments begin. After them, or where it is equal, it repeats."""
        if not self.name:
            self.name = name
        elif not self.text and name != self.name and len(self.name) <= _LONGEST_NAME:
            self.name = name if name.startswith(self.name) else self.name + name

    def is_whole(self) -> bool:
        """Say whether the arguments that have come are a whole JSON object. Few looks: each reads all of them."""
        if self.text is None or not self.text.is_between(b"{", b"}") or self._looks > _MOST_LOOKS:
            return False
        self._looks += 1
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
    """Finds the call each fragment belongs to. Providers number calls from 1, with gaps, all 0, or not at all."""

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
        """Return the calls in the order of their indexes, without them."""
        return [call.build() for call in sorted(self._calls, key=lambda call: call.index)]

    def fragments(self) -> list[dict[str, Any]]:
        """Return the calls as fragments that make the same calls elsewhere."""
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
        # Some providers invent an id for every fragment, others number all calls 0: only a name begins a new call.
        return None if name else latest

    def _unnumbered(self, call_id: str | None, name: str | None) -> _Call | None:
        if call_id:
            return self._by_id.get(call_id)
        last = self._calls[-1] if self._calls else None
        # Neither number nor id, but another name than that of the last call: it cannot continue that one.
        return None if last and name and last.name and name != last.name else last

    def _new(self, index: int) -> _Call:
        call = _Call(index)
        self._calls.append(call)
        self._latest[index] = call
        self._next_index = max(self._next_index, index + 1)
        return call


def _follows_a_whole_call(call: _Call, name: str, body: Any) -> bool:
    """Say whether a named fragment without an id begins another call: parallel calls under one number (Gemini).

    The call before it has whole arguments, and the fragment has some too, or another name.
    """
    has_arguments = any(body.get(text) for text in _TEXTS.values())
    return (has_arguments or name != call.name) and call.is_whole()


def _text(value: object) -> str | None:
    """Return a string that is not empty, a number as its digits, else None."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:#x}" if value.bit_length() > 4096 else str(value)
    return value or None if isinstance(value, str) else None
