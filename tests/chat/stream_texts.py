"""Streams for the tests: the shared case file, and functions that build a stream."""

import json
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import Any

from worker.chat.answer import Answer, read_body
from worker.chat.stream import Assembler

CASES = [
    json.loads(line) for line in (Path(__file__).parents[1] / "cases" / "stream_cases.jsonl").read_text().splitlines()
]
PLENTY = 64 * 1024 * 1024


def event(value: Any) -> bytes:
    return f"data: {value if isinstance(value, str) else json.dumps(value)}\n\n".encode()


def chunk(delta: Any = None, **rest: Any) -> bytes:
    """Return one chunk: `chunk({"content": "a"}, finish_reason="stop", usage={...}, index=1)`."""
    choice = {
        "index": rest.pop("index", 0),
        "delta": delta if delta is not None else {},
        "finish_reason": rest.pop("finish_reason", None),
        **rest.pop("choice", {}),
    }
    return event({"id": "c1", "created": 7, "model": "m", "choices": [choice], **rest})


def said(*deltas: Any, finish_reason: str = "stop") -> bytes:
    """Return a whole stream with these deltas for choice 0."""
    return b"".join(map(chunk, deltas)) + chunk(finish_reason=finish_reason) + event("[DONE]")


def assemble(stream: bytes | Iterable[bytes], *, n: int | None = None, reset: bool = False) -> Answer:
    assembler = Assembler(n=n, max_bytes=PLENTY)
    for piece in [stream] if isinstance(stream, bytes) else stream:
        assembler.feed(piece)
    return assembler.finish(reset=reset)


def message(stream: bytes) -> dict[str, Any]:
    """Return the message of choice 0; the stream must be a complete answer."""
    answer = assemble(stream)
    assert answer.fault is None
    assert answer.completion is not None
    return dict(answer.completion["choices"][0]["message"])


def read_case(case: dict[str, Any], pieces: Iterable[bytes]) -> Answer:
    """Read a case of the file according to its content type."""
    if case.get("content_type", "text/event-stream") != "text/event-stream":
        return read_body(b"".join(pieces))
    return assemble(pieces, n=case.get("request", {}).get("n"), reset=case.get("end") == "reset")


def in_pieces(body: bytes, random: Random, longest: int) -> list[bytes]:
    pieces = []
    while body:
        size = random.randint(1, longest)
        pieces.append(body[:size])
        body = body[size:]
    return pieces


def same(left: Any, right: Any) -> bool:
    """Compare JSON values; an absent member equals null."""
    if isinstance(left, dict) and isinstance(right, dict):
        return all(same(left.get(key), right.get(key)) for key in left.keys() | right.keys())
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)
