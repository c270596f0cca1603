"""Reads an endpoint's error, whatever its shape: from the body of a refusal or from inside an answer under 2xx.

The shapes, each seen at a provider or a gateway: `{"error": {...}}` or a string, `[{"error": ...}]`, the members at
the top, `{"detail": ...}` (FastAPI), `{"base_resp": {"status_code", "status_msg"}}` (MiniMax), Google's `status` and
`details[].reason`, Azure's `innererror`, OpenRouter's `metadata.raw`, and any of these as JSON text inside a message.
`chat.error_meanings` says what the names and words mean.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from worker.chat.rate_limit_headers import member_s
from worker.core.lenient_json import object_in

_CODES: Final = frozenset({"code", "status_code", "statuscode", "error_code", "errorcode", "errcode", "err_code"})
_NAMES: Final = _CODES | {
    "type", "error_type", "errortype", "status", "reason", "__type", "quotaid", "finish_reason", "native_finish_reason",
}  # fmt: skip
_TEXTS: Final = frozenset(
    {
        "message", "msg", "detail", "details", "error", "error_msg", "errmsg", "error_message", "errormessage",
        "error_description", "status_msg", "title", "raw", "body", "description",
    }
)  # fmt: skip
# Members that hold more of the error. Not `input`, `failed_generation` and the like: a user's words decide nothing.
_INSIDE: Final = _TEXTS | {
    "errors", "innererror", "inner_error", "metadata", "base_resp", "violations", "response", "cause", "loc",
}  # fmt: skip
# How far into an error we look: no provider's own is deeper, or has more members.
_DEPTH: Final = 8
_VALUES: Final = 200
_TEXT: Final = 4096

_FINE: Final = frozenset({"", "0", "200", "ok", "success", "none", "null"})
_embedded: Final = re.compile(r'[\[{]\s*[{"]').search
_decode: Final = json.JSONDecoder().raw_decode


@dataclass(frozen=True, slots=True)
class ProviderError:
    """An endpoint's error: `value` is its own JSON value or text.

    `names` are its codes, types and reasons in lower case, the outermost first; a MiniMax code is "base_resp.1008".
    `text` is its sentences in lower case. `status`: the HTTP status that it names. `wait_s`: the wait that it asks for
    in a member of its own.
    """

    value: Any
    names: tuple[str, ...] = ()
    text: str = ""
    status: int = 0
    wait_s: float | None = None


def read_error(body: bytes) -> ProviderError:
    """Read the body of a refusal; it may be cut, empty, HTML or plain text, which then has words only."""
    text = body.decode("utf-8", "replace").strip()
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return ProviderError(None, text="" if text.startswith("<") else text[:_TEXT].lower())
    return describe(_inner(value), value)


def describe(value: Any, whole: Any = None) -> ProviderError:
    """Collect what an error value says; `whole` is the object around it, which may say more."""
    found = _Collected()
    found.walk("error", value, 0)
    if whole is not None and whole is not value:
        found.walk("", whole, 0)
    names = tuple(dict.fromkeys(found.names))
    status = next((int(name) for name in names if re.fullmatch("[45][0-9][0-9]", name)), 0)
    return ProviderError(value, names, "\n".join(dict.fromkeys(found.texts)), status, found.wait_s)


def error_of(chunk: Mapping[str, Any], *, named: bool = False) -> Any:
    """Return the error in a chunk or body under 2xx, None if there is none; `named`: the event is called an error.

    A choice may hold it (OpenRouter); MiniMax says it in `base_resp`, whose code is 0 where all is well; others put
    its members at the top, which counts only without choices.
    """
    error = chunk.get("error")
    if error:
        return error
    if chunk.get("object") == "error":
        return chunk
    base = chunk.get("base_resp")
    if isinstance(base, dict) and _is_bad(base.get("status_code")):
        return base
    choices = chunk.get("choices")
    if choices:
        return _of_choice(choices)
    return chunk if named or _is_flat_error(chunk) else None


def is_error_body(value: Mapping[str, Any]) -> bool:
    """Say whether a whole body without choices is an error: a sentence in place of an answer is enough."""
    return _is_flat_error(value) or any(
        isinstance(text, str) and text for name, text in value.items() if name.lower() in _TEXTS
    )


def _of_choice(choices: Any) -> Any:
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict) and (error := choice.get("error")):
            return error
    return None


def _is_flat_error(value: Mapping[str, Any]) -> bool:
    """Say whether an object without choices is an error with its members at the top.

    `{"type": "ping"}`, `{"code": 0, "message": "Success"}` and `{"message": "working"}` are none.
    """
    if value.get("detail") or value.get("errors"):
        return True
    lower = {name.lower(): inner for name, inner in value.items()}
    kind = lower.get("type")
    if isinstance(kind, str) and kind.lower().endswith(("error", "exception")):
        return True
    if not any(isinstance(lower.get(name), str) and lower[name] for name in _TEXTS):
        return False
    status = lower.get("status")
    return (
        any(_is_bad(lower[name]) for name in _CODES if name in lower)
        or lower.get("success") is False
        or "__type" in lower
        or (isinstance(status, int) and status >= 400)
        or (isinstance(status, str) and status.lower() in ("error", "failed", "fail"))
    )


def _is_bad(code: Any) -> bool:
    return isinstance(code, str | int) and not isinstance(code, bool) and _name(code) not in _FINE


def _inner(value: Any) -> Any:
    """Return the error inside a body: the members at the top are one, and so is the body itself without any."""
    found = object_in(value)
    if found is None:
        return value
    return found.get("error") or found


class _Collected:
    """Names, texts and the first wait of an error, gathered while its values are walked."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.texts: list[str] = []
        self.wait_s: float | None = None
        self._left = _VALUES

    def walk(self, name: str, value: Any, depth: int) -> None:
        """Take a member of the error and what is inside it."""
        self._left -= 1
        if depth > _DEPTH or self._left < 0:
            return
        if isinstance(value, dict):
            self._walk_object(name, value, depth)
        elif isinstance(value, list):
            for inner in value[:_VALUES]:
                self.walk(name, inner, depth + 1)
        elif isinstance(value, str):
            self._take_text(value, depth)

    def _walk_object(self, name: str, value: dict[str, Any], depth: int) -> None:
        members = [(key, key.lower(), inner) for key, inner in value.items()]
        prefix = "base_resp." if name == "base_resp" or "status_msg" in value else ""
        # A code says more than a type.
        for _, lower, inner in sorted(members, key=lambda member: member[1] not in _CODES):
            if lower in _NAMES and (said := _name(inner)) is not None and said not in _FINE:
                self.names.append(prefix + said)
        for key, lower, inner in members:
            if self.wait_s is None:
                self.wait_s = member_s(key, inner)
            if lower in _INSIDE:
                self.walk(lower, inner, depth + 1)
            elif lower in _NAMES and isinstance(inner, str) and " " in inner:
                self._take_text(inner, depth)  # xAI writes sentences into `code`

    def _take_text(self, text: str, depth: int) -> None:
        text = text[: _TEXT * 4]
        found = _embedded(text)
        if found is not None:
            try:
                value, _ = _decode(text, found.start())
            except (ValueError, RecursionError):
                pass
            else:
                self.walk("", value, depth + 1)
                text = text[: found.start()]
        if text := text.strip().lower()[:_TEXT]:
            self.texts.append(text)


def _name(value: Any) -> str | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    try:
        return str(value).strip().lower() or None
    except ValueError:  # an integer of more digits than Python turns into text
        return None
