"""Helpers for tests of the wire: answers as bytes, an endpoint with short deadlines, one call."""

import asyncio
import json
from dataclasses import replace
from typing import Any

from worker.core.endpoint import Endpoint
from worker.jobs.net.call import TransportKind, WireRequest, call, open_client
from worker.jobs.net.progress import Progress, Reply

KEY = "sk-wire-secret-0123456789"
COMPLETION = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
}
JSON = json.dumps(COMPLETION).encode()


def event(value: Any) -> bytes:
    """Return one server-sent event."""
    return b"data: " + (value if isinstance(value, bytes) else json.dumps(value).encode()) + b"\n\n"


def delta(text: str, finish: str | None = None) -> bytes:
    """Return the event for one piece of text."""
    return event({"id": "c", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]})


USAGE = event({"id": "c", "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}})
DONE = event(b"[DONE]")


def head(status: str = "200 OK", *headers: str, length: int | None = None, chunked: bool = False) -> bytes:
    """Return the head of an answer."""
    lines = [f"HTTP/1.1 {status}", *headers]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    if chunked:
        lines.append("Transfer-Encoding: chunked")
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def answer(body: bytes = JSON, status: str = "200 OK", *headers: str) -> bytes:
    """Return a whole answer with its length."""
    return head(status, "Content-Type: application/json", *headers, length=len(body)) + body


def chunk(data: bytes) -> bytes:
    """Return one chunk of the chunked transfer coding; empty data gives the last chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


STREAM_HEAD = head("200 OK", "Content-Type: text/event-stream", chunked=True)
OPEN_STREAM_HEAD = head("200 OK", "Content-Type: text/event-stream", "Connection: close")


def endpoint(url: str, **changes: Any) -> Endpoint:
    """Return an endpoint with deadlines for tests: long, unless the test changes them."""
    settings: dict[str, Any] = {"connect_s": 5.0, "first_byte_s": 5.0, "idle_s": 5.0, "total_s": 10.0, "key": KEY}
    return Endpoint("test", url, **(settings | changes))


WIRE = WireRequest(
    body=b'{"model": "m", "messages": []}',
    streamed=False,
    n=None,
    idempotency_key="5d1a0f6e-0000-4000-8000-000000000001",
    attempt_id="5d1a0f6e-0000-4000-8000-000000000001.1",
    timeout_s=10.0,
)
STREAMED = replace(WIRE, streamed=True)


def once(where: Endpoint, kind: TransportKind, wire: WireRequest = WIRE, progress: Progress | None = None) -> Reply:
    """Make one call with a new client."""

    async def run() -> Reply:
        async with open_client(where, kind=kind) as client:
            return await call(client, where, wire, progress)

    return asyncio.run(run())


def code(reply: Reply) -> str | None:
    """Return the failure's code."""
    return None if reply.failure is None else str(reply.failure.code)
