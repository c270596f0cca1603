"""Fake endpoint: the script of a request, from its model's preset and the fields of the request itself."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import Any, Literal

from worker.dev.fake.presets import preset

HEADER = "X-Fake-Script"
FIELD = "fake"


class BadScript(ValueError):
    """An invalid script; the message names the fault."""


@dataclass(frozen=True, slots=True)
class Script:
    """The behaviour for one request. Times are in seconds, positions in bytes; defaults give a healthy endpoint."""

    text: str | None = None  # None: an echo of the last user message
    size: int = 0  # length of an answer of filler text, in characters
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: tuple[Mapping[str, Any], ...] = ()  # {"name": …, "arguments": …}; "" as name: the request's first tool
    finish_reason: str | None = None  # "": no finish_reason is sent
    usage: str | Mapping[str, Any] = "openai"  # a shape of worker.dev.fake.usage, or the object to send
    cached_tokens: int = 0
    status: int = 200
    error: Mapping[str, Any] | str | None = None  # the value of "error" in the body
    error_after: int | None = None  # in a stream: the error is an event after so many other events
    retry_after: float | str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str | None = None  # sent unchanged instead of an answer
    content_type: str | None = None
    latency_s: float = 0.0  # before the status line
    chunk_s: float = 0.0  # before each piece of the body
    chunks: int = 0  # pieces of text in a stream; 0: a piece for each word
    stall_after: int | None = None  # after so many events the stream pauses for stall_s
    stall_s: float = 0.0
    ping_s: float = 0.0  # seconds between comments during a pause
    no_answer: bool = False  # the request is read, then the connection closes
    cut_at: int | None = None  # the connection closes after so many bytes of the body
    reset: bool = False  # closes with RST instead of FIN
    framing: Literal["chunked", "length", "close"] | None = None
    piece: int = 0  # bytes written at once; 0: an event, or a whole plain body
    line_end: Literal["\n", "\r\n", "\r"] = "\n"
    done: bool = True  # [DONE] ends a stream
    billed: bool | None = None  # None: billed once an answer below 400 has started
    idempotency: Literal["ignored", "honoured"] = "ignored"


KINDS: dict[str, tuple[type, ...]] = {
    "text": (str,), "size": (int,), "reasoning": (str,), "refusal": (str,), "tool_calls": (list,),
    "finish_reason": (str,), "usage": (str, dict), "cached_tokens": (int,), "status": (int,), "error": (dict, str),
    "error_after": (int,), "retry_after": (int, float, str), "headers": (dict,), "body": (str,), "content_type": (str,),
    "latency_s": (int, float), "chunk_s": (int, float), "chunks": (int,), "stall_after": (int,),
    "stall_s": (int, float), "ping_s": (int, float), "no_answer": (bool,), "cut_at": (int,), "reset": (bool,),
    "framing": (str,), "piece": (int,), "line_end": (str,), "done": (bool,), "billed": (bool,), "idempotency": (str,),
}  # fmt: skip
WORDS: dict[str, tuple[str, ...]] = {
    "framing": ("chunked", "length", "close"),
    "line_end": ("\n", "\r\n", "\r"),
    "idempotency": ("ignored", "honoured"),
}


def controls(request: Mapping[str, Any], header: str | None) -> dict[str, Any]:
    """Return the script's fields for a request. Raises BadScript.

    Later sources win: the model's preset, `metadata.fake`, the field `fake`, the header.
    """
    metadata = request.get("metadata")
    texts = [metadata.get(FIELD) if isinstance(metadata, dict) else None, header]
    from_metadata, from_header = (_parse(text) for text in texts)
    direct = request.get(FIELD) or {}
    if not isinstance(direct, dict):
        raise BadScript(f"fake is {direct!r}; it must be an object such as {{'status': 429}}")
    return {**preset(str(request.get("model"))), **from_metadata, **direct, **from_header}


def _parse(text: str | None) -> dict[str, Any]:
    if not text:
        return {}
    try:
        value = json.loads(text)
    except ValueError as error:
        raise BadScript(f"the script {text!r} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise BadScript(f"the script {text!r} is not a JSON object")
    return value


def choose(given: Mapping[str, Any], *, turn: int, weather: Mapping[str, Any] | None = None) -> Script:
    """Return the script of the `turn`-th request (from 1) of a job. Raises BadScript.

    `attempts` has a script for each request; the last repeats. The fields of `weather`, the endpoint's present state,
    win.
    """
    attempts = given.get("attempts", [{}])
    if not isinstance(attempts, list) or not attempts or not all(isinstance(attempt, dict) for attempt in attempts):
        raise BadScript(f"attempts is {attempts!r}; it must be a list of scripts, one for each request")
    merged = {name: value for name, value in given.items() if name != "attempts"}
    return _make(merged | attempts[min(turn, len(attempts)) - 1] | dict(weather or {}))


def _make(given: Mapping[str, Any]) -> Script:
    known = [known_field.name for known_field in fields(Script)]
    for name, value in given.items():
        if name not in known:
            close = get_close_matches(name, known, n=1)
            remedy = f"did you mean {close[0]}?" if close else f"known are attempts, {', '.join(known)}"
            raise BadScript(f"{name} is no field of a script; {remedy}")
        kinds = KINDS[name]
        if value is not None and (not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)):
            raise BadScript(f"{name} is {value!r}; it must be {' or '.join(kind.__name__ for kind in kinds)}")
        if value not in WORDS.get(name, (value,)):
            raise BadScript(f"{name} is {value!r}; it must be one of {', '.join(map(repr, WORDS[name]))}")
    checked: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    return Script(**checked | ({"tool_calls": tuple(checked["tool_calls"])} if "tool_calls" in checked else {}))


def job_of(idempotency_key: str | None, body: bytes) -> str:
    """Return the name of a request's job: its Idempotency-Key, else the hash of its body."""
    return idempotency_key or f"body:{hashlib.sha256(body).hexdigest()[:32]}"
