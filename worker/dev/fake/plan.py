"""Fake endpoint: make the bytes of an answer, in the pieces to write. Uses no sockets and no clock."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from worker.dev.fake.answers import chunks, completion, encode
from worker.dev.fake.presets import ERRORS
from worker.dev.fake.script import Script
from worker.dev.fake.usage import Counts

JSON = "application/json"
EVENTS = "text/event-stream"
NO_TOKENS = Counts(0, 0)


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole answer; the server writes `pieces` in order. `counts` are the tokens of a generated completion."""

    status: int
    headers: Mapping[str, str]
    pieces: tuple[bytes, ...]
    counts: Counts = NO_TOKENS

    @property
    def streamed(self) -> bool:
        return self.headers["Content-Type"].startswith(EVENTS)


def plan(request: Mapping[str, Any], script: Script, *, job: str) -> Plan:
    """Return the answer for a request and its script."""
    streamed = request.get("stream") is True
    if script.body is not None:
        plain = not streamed or script.body.lstrip().startswith("{")
        return _build(script, JSON if plain else EVENTS, [script.body.encode("utf-8", "surrogatepass")])
    if script.status >= 400:
        return _build(script, JSON, [_error(script)])
    if not streamed and script.error is not None:
        return _build(script, JSON, [encode({"error": script.error})])
    whole, counts = completion(request, script, job=job)
    if not streamed:
        return _build(script, JSON, [encode(whole)], counts)
    return _build(script, EVENTS, _events(request, script, whole), counts)


def refusal(status: int, message: str, *, code: str, param: str | None = None) -> Plan:
    """Return an error of the fake endpoint itself, in OpenAI's form."""
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    return Plan(status, {"Content-Type": JSON}, (encode({"error": error}),))


def _build(script: Script, content_type: str, pieces: list[bytes], counts: Counts = NO_TOKENS) -> Plan:
    headers = {"Content-Type": script.content_type or content_type}
    if script.retry_after is not None:
        headers["Retry-After"] = str(script.retry_after)
    headers |= {name: str(value) for name, value in script.headers.items()}
    return Plan(script.status, headers, tuple(_cut_small(pieces, script.piece)), counts)


def _cut_small(pieces: list[bytes], size: int) -> Iterator[bytes]:
    for piece in pieces:
        step = size if size > 0 else max(1, len(piece))
        for at in range(0, len(piece), step):
            yield piece[at : at + step]


def _error(script: Script) -> bytes:
    error = script.error if script.error is not None else ERRORS.get(script.status, ERRORS[500])
    return encode({"error": {"param": None, **error} if isinstance(error, Mapping) else error})


def _events(request: Mapping[str, Any], script: Script, whole: Mapping[str, Any]) -> list[bytes]:
    options = request.get("stream_options")
    include_usage = isinstance(options, dict) and options.get("include_usage") is True
    objects = [encode(chunk) for chunk in chunks(whole, script, include_usage=include_usage)]
    if script.error is not None:
        objects = [*objects[: script.error_after or 0], _error(script)]
    end = script.line_end.encode() * 2
    done = [b"data: [DONE]" + end] if script.done else []
    return [b"data: " + text + end for text in objects] + done
