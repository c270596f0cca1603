"""Fake endpoint: write a plan to the client, with the pauses and the faults of its script."""

import asyncio
import hashlib
import socket
import struct

from aiohttp import web

from worker.dev.fake.plan import Plan
from worker.dev.fake.script import Script

RST = struct.pack("ii", 1, 0)  # SO_LINGER of 0 s: close discards unsent bytes and sends RST


class _UntilClose(web.StreamResponse):
    """A body that ends with the connection, without Content-Length or chunks."""

    _length_check = False  # as aiohttp's own WebSocket response does, to omit the framing


async def write(request: web.Request, answer_plan: Plan, script: Script) -> web.StreamResponse:
    """Send an answer; cut it where the script says."""
    response = _begin(request, answer_plan, script)
    await response.prepare(request)
    room = sum(map(len, answer_plan.pieces)) + 1 if script.cut_at is None else script.cut_at
    for number, piece in enumerate(answer_plan.pieces):
        await _pause(response, script, number, streamed=answer_plan.streamed)
        await response.write(piece[:room])
        room -= len(piece)
        if room <= 0:
            await _drained(request)
            hang_up(request, reset=script.reset)
            return response
    await response.write_eof()
    return response


def _begin(request: web.Request, answer_plan: Plan, script: Script) -> web.StreamResponse:
    framing = script.framing or ("chunked" if answer_plan.streamed else "length")
    kind = _UntilClose if framing == "close" else web.StreamResponse
    response = kind(status=answer_plan.status, headers=answer_plan.headers)
    if framing == "length":
        response.content_length = sum(map(len, answer_plan.pieces))
    elif framing == "close":
        response.force_close()
    asked = request.headers.get("X-Oneapi-Request-Id")  # kept, as gateways of that family do
    response.headers["X-Request-Id"] = f"req_{hashlib.sha256((asked or str(id(request))).encode()).hexdigest()[:16]}"
    if asked:
        response.headers["X-Oneapi-Request-Id"] = asked
    return response


async def _pause(response: web.StreamResponse, script: Script, number: int, *, streamed: bool) -> None:
    left = script.chunk_s + (script.stall_s if number == script.stall_after else 0.0)
    while script.ping_s > 0 and left > script.ping_s:
        await asyncio.sleep(script.ping_s)
        left -= script.ping_s
        await response.write(b": PING\n\n" if streamed else b"\n")
    if left > 0:
        await asyncio.sleep(left)


async def _drained(request: web.Request) -> None:
    # RST discards bytes that the kernel does not have yet, and a cut must be at the exact byte.
    while request.transport is not None and request.transport.get_write_buffer_size():  # noqa: ASYNC110  there is no event for it
        await asyncio.sleep(0.001)


def hang_up(request: web.Request, *, reset: bool) -> None:
    """Close the connection, with RST instead of FIN if `reset`."""
    # aiohttp may still write after this. It finds a closed transport, as if the client had left.
    transport = request.transport
    if transport is not None and reset:
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
        transport.abort()
    elif transport is not None:
        transport.close()
