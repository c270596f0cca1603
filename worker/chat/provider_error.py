"""Reads an endpoint's error of any shape, from the body of an error status or from inside an answer with status 2xx.

The shapes, each seen at a provider or a gateway: `{"error": {...}}` or a string, `[{"error": ...}]`, the members at
the top, `{"detail": ...}` (FastAPI), `{"base_resp": {"status_code", "status_msg"}}` (MiniMax), Google's `status` and
`details[].reason`, Azure's `innererror`, OpenRouter's `metadata.raw`, and any of these as JSON text inside a message.
`chat.error_meanings` maps the names and words to codes.
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
# Members with more of the error inside. `input`, `failed_generation` and similar members are left out, because the
# words of a user must not decide.
_INSIDE: Final = _TEXTS | {
    "errors", "innererror", "inner_error", "metadata", "base_resp", "violations", "response", "cause", "loc",
}  # fmt: skip
# Limits on the levels, values and characters of an error that are read: the errors of all known providers are smaller.
_DEPTH: Final = 8
_VALUES: Final = 200
_TEXT: Final = 4096

_SUCCESS: Final = frozenset({"", "0", "200", "ok", "success", "none", "null"})
_embedded: Final = re.compile(r'[\[{]\s*[{"]').search
_decode: Final = json.JSONDecoder().raw_decode


@dataclass(frozen=True, slots=True)
class ProviderError:
    """An endpoint's error: `value` is its own JSON value or text.

    `names` has its codes, types and reasons in lower case, the outermost first; a MiniMax code is "base_resp.1008".
    `text` has its sentences in lower case. `status` is the HTTP status among its names, else 0. `wait_s` is the wait in
    a member such as `retryDelay`.
    """

    value: Any
    names: tuple[str, ...] = ()
    text: str = ""
    status: int = 0
    wait_s: float | None = None


def read_error(body: bytes) -> ProviderError:
    """Read the body of an error response. It may be cut, empty, HTML or plain text; plain text gives `text` only."""
    text = body.decode("utf-8", "replace").strip()
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return ProviderError(None, text="" if text.startswith("<") else text[:_TEXT].lower())
    return describe(_inner(value), value)


def describe(value: Any, whole: Any = None) -> ProviderError:
    """Collect names, text and wait of an error value, then those of `whole`, the object around it."""
    found = _Collected()
    found.walk("error", value, 0)
    if whole is not None and whole is not value:
        found.walk("", whole, 0)
    names = tuple(dict.fromkeys(found.names))
    status = next((int(name) for name in names if re.fullmatch("[45][0-9][0-9]", name)), 0)
    return ProviderError(value, names, "\n".join(dict.fromkeys(found.texts)), status, found.wait_s)


def error_of(chunk: Mapping[str, Any], *, named: bool = False) -> Any:
    """Return the error in a chunk or body with status 2xx, None if there is none. `named`: the SSE event is `error`.

    The error may be in a choice (OpenRouter) or in `base_resp` (MiniMax: code 0 means success). Other providers put its
    members at the top; that counts only without choices.
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
    """Say whether a whole body without choices is an error: any member with a message is enough."""
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

    `{"type": "ping"}`, `{"code": 0, "message": "Success"}` and `{"message": "working"}` are not errors.
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
    return isinstance(code, str | int) and not isinstance(code, bool) and _name(code) not in _SUCCESS


def _inner(value: Any) -> Any:
    """Return the member `error` of a body, else the object itself, else the body if it is not an object."""
    found = object_in(value)
    if found is None:
        return value
    return found.get("error") or found


class _Collected:
    """Collects names, texts and the first wait of an error."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.texts: list[str] = []
        self.wait_s: float | None = None
        self._left = _VALUES

    def walk(self, name: str, value: Any, depth: int) -> None:
        """Collect from a member of the error and, recursively, from the values inside it."""
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
        # Codes first: they are more precise than types.
        for _, lower, inner in sorted(members, key=lambda member: member[1] not in _CODES):
            if lower in _NAMES and (text := _name(inner)) is not None and text not in _SUCCESS:
                self.names.append(prefix + text)
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
    except ValueError:  # Python does not convert an integer of more than 4,300 digits
        return None
