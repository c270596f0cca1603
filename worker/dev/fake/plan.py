"""Fake endpoint: make the bytes of an answer, in the pieces to write. Uses no sockets and no clock."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from worker.dev.fake.answers import chunks, completion, encode
from worker.dev.fake.presets import ERRORS
from worker.dev.fake.script import Script

JSON = "application/json"
EVENTS = "text/event-stream"


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole answer; the server writes `pieces` in order."""

    status: int
    headers: Mapping[str, str]
    pieces: tuple[bytes, ...]

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
    if not streamed:
        whole = completion(request, script, job=job) if script.error is None else {"error": script.error}
        return _build(script, JSON, [encode(whole)])
    return _build(script, EVENTS, _events(request, script, job=job))


def refusal(status: int, message: str, *, code: str, param: str | None = None) -> Plan:
    """Return an error of the fake endpoint itself, in OpenAI's form."""
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    return Plan(status, {"Content-Type": JSON}, (encode({"error": error}),))


def _build(script: Script, content_type: str, pieces: list[bytes]) -> Plan:
    headers = {"Content-Type": script.content_type or content_type}
    if script.retry_after is not None:
        headers["Retry-After"] = str(script.retry_after)
    headers |= {name: str(value) for name, value in script.headers.items()}
    return Plan(script.status, headers, tuple(_cut_small(pieces, script.piece)))


def _cut_small(pieces: list[bytes], size: int) -> Iterator[bytes]:
    for piece in pieces:
        step = size if size > 0 else max(1, len(piece))
        for at in range(0, len(piece), step):
            yield piece[at : at + step]


def _error(script: Script) -> bytes:
    error = script.error if script.error is not None else ERRORS.get(script.status, ERRORS[500])
    return encode({"error": {"param": None, **error} if isinstance(error, Mapping) else error})


def _events(request: Mapping[str, Any], script: Script, *, job: str) -> list[bytes]:
    options = request.get("stream_options")
    include_usage = isinstance(options, dict) and options.get("include_usage") is True
    objects = [encode(chunk) for chunk in _chunks(request, script, job=job, include_usage=include_usage)]
    if script.error is not None:
        objects = [*objects[: script.error_after or 0], _error(script)]
    end = script.line_end.encode() * 2
    done = [b"data: [DONE]" + end] if script.done else []
    return [b"data: " + text + end for text in objects] + done


def _chunks(request: Mapping[str, Any], script: Script, *, job: str, include_usage: bool) -> list[dict[str, Any]]:
    return chunks(completion(request, script, job=job), script, include_usage=include_usage)
