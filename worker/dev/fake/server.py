"""Fake endpoint: the HTTP server; it sends plans to clients and keeps the ledger."""

import asyncio
import hashlib
import json
import socket
import ssl
import struct
from dataclasses import dataclass, field
from typing import Any, Literal

from aiohttp import web

from worker.dev.fake.ledger import Ledger, Row
from worker.dev.fake.plan import Plan, plan, refusal
from worker.dev.fake.presets import NAMED
from worker.dev.fake.script import HEADER, BadScript, Script, choose, controls, job_of
from worker.dev.fake.usage import SHAPES

BIGGEST = 256 * 1024 * 1024
MOST_CHOICES = 128  # OpenAI's limit for a request
BACKLOG = 4096
RST = struct.pack("ii", 1, 0)  # SO_LINGER of 0 s: close discards unsent bytes and sends RST
MODELS = [{"id": name, "object": "model", "owned_by": "fake"} for name in NAMED]


class _UntilClose(web.StreamResponse):
    """A body that ends with the connection, without Content-Length or chunks."""

    _length_check = False  # as aiohttp's own WebSocket response does, to omit the framing


@dataclass(slots=True)
class FakeServer:
    """A fake endpoint: its demands, its ledger, and the saved answers of Idempotency-Keys."""

    key: str | None = None  # the only accepted Bearer key; None: no key is checked
    idempotency: Literal["ignored", "honoured"] = "ignored"
    outage: Script | None = None  # while set, every request gets this script
    ledger: Ledger = field(default_factory=Ledger)
    saved: dict[str, Plan] = field(default_factory=dict)
    # Fields of a script that win over every request's own script, for simulated trouble of the endpoint.
    weather: dict[str, Any] = field(default_factory=dict)

    def reset(self) -> None:
        """Delete the counters and the saved answers."""
        self.ledger, self.saved = Ledger(), {}

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer a chat completion."""
        body = await request.read()
        job = job_of(request.headers.get("Idempotency-Key"), body)
        asked = _object(body)
        ledger = self.ledger
        row = ledger.open(job, str(asked.get("model")) if asked else "")
        ledger.keep(job=job, headers=dict(request.headers), body=body)
        try:
            return await self._play(request, row, asked, job=job, body=body)
        except asyncio.CancelledError:
            ledger.abandoned += 1
            raise
        finally:
            ledger.close(row)

    async def _play(
        self, request: web.Request, row: Row, asked: dict[str, Any] | None, *, job: str, body: bytes
    ) -> web.StreamResponse:
        answer_plan, script = self._decide(request, row, asked, job=job, body=body)
        await asyncio.sleep(script.latency_s)
        if script.billed is True:
            row.billed += 1
        if script.no_answer:
            self.ledger.statuses["no_answer"] += 1
            _hang_up(request, reset=script.reset)
            return web.Response()
        self.ledger.statuses[str(answer_plan.status)] += 1
        kept = self.saved.get(job) is answer_plan
        if script.billed is None and answer_plan.status < 400 and not kept:
            row.billed += 1
        if kept:
            self.ledger.replayed += 1
        elif self._honours(script) and answer_plan.status < 400:
            self.saved[job] = answer_plan
        return await _write(request, answer_plan, script)

    def _honours(self, script: Script) -> bool:
        return "honoured" in (self.idempotency, script.idempotency)

    def _decide(
        self, request: web.Request, row: Row, asked: dict[str, Any] | None, *, job: str, body: bytes
    ) -> tuple[Plan, Script]:
        fault = self._fault(request, asked)
        if fault is not None or asked is None:
            return fault or refusal(400, "The body is not a JSON object.", code="bad_json"), Script()
        if self.outage is not None:
            return plan(asked, self.outage, job=job), self.outage
        try:
            given = controls(asked, request.headers.get(HEADER))
            script = choose(given, turn=row.requests, weather=self.weather)
            if isinstance(script.usage, str) and script.usage not in (*SHAPES, "none"):
                raise BadScript(f"usage is {script.usage!r}; known shapes are none, {', '.join(SHAPES)}")
        except BadScript as error:
            return refusal(400, str(error), code="bad_fake_script", param="fake"), Script()
        if self._honours(script) and (repeated := self._repeated(row, job=job, body=body)) is not None:
            return repeated, Script()
        return plan(asked, script, job=job), script

    def _fault(self, request: web.Request, asked: dict[str, Any] | None) -> Plan | None:
        if self.key is not None and request.headers.get("Authorization") != f"Bearer {self.key}":
            return refusal(401, "Incorrect API key provided.", code="invalid_api_key")
        if asked is not None and not isinstance(asked.get("model"), str):
            return refusal(400, "'model' is required.", code="missing_required_parameter", param="model")
        if asked is not None and not (isinstance(asked.get("messages"), list) and asked["messages"]):
            return refusal(400, "'messages' is required.", code="missing_required_parameter", param="messages")
        n = None if asked is None else asked.get("n")
        if isinstance(n, int) and n > MOST_CHOICES:
            return refusal(400, f"'n' is above {MOST_CHOICES}.", code="integer_above_max_value", param="n")
        return None

    def _repeated(self, row: Row, *, job: str, body: bytes) -> Plan | None:
        fingerprint = hashlib.sha256(body).hexdigest()
        row.fingerprint = row.fingerprint or fingerprint
        if row.fingerprint != fingerprint:
            return refusal(422, "This Idempotency-Key came with another request.", code="idempotency_mismatch")
        if row.running > 1:
            return refusal(409, "The first request with this Idempotency-Key still runs.", code="idempotency_busy")
        return self.saved.get(job)


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(body)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


async def _write(request: web.Request, answer_plan: Plan, script: Script) -> web.StreamResponse:
    response = _begin(request, answer_plan, script)
    await response.prepare(request)
    room = sum(map(len, answer_plan.pieces)) + 1 if script.cut_at is None else script.cut_at
    for number, piece in enumerate(answer_plan.pieces):
        await _pause(response, script, number, streamed=answer_plan.streamed)
        await response.write(piece[:room])
        room -= len(piece)
        if room <= 0:
            await _drained(request)
            _hang_up(request, reset=script.reset)
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


def _hang_up(request: web.Request, *, reset: bool) -> None:
    # aiohttp may still write after this. It finds a closed transport, as if the client had left.
    transport = request.transport
    if transport is not None and reset:
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
        transport.abort()
    elif transport is not None:
        transport.close()


def application(endpoint: FakeServer) -> web.Application:
    """Return the aiohttp application of a fake endpoint."""

    async def stats(request: web.Request) -> web.Response:
        job = request.query.get("key")
        return web.json_response(endpoint.ledger.stats() if job is None else endpoint.ledger.job(job))

    async def recent(request: web.Request) -> web.Response:
        job = request.query.get("key")
        return web.json_response([kept for kept in endpoint.ledger.recent if job in (None, kept["job"])])

    async def reset(_: web.Request) -> web.Response:
        endpoint.reset()
        return web.json_response({})

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": MODELS})

    app = web.Application(client_max_size=BIGGEST)
    app.router.add_post("/v1/chat/completions", endpoint.answer)
    app.router.add_post("/chat/completions", endpoint.answer)
    app.router.add_get("/v1/models", models)
    app.router.add_get("/__stats", stats)
    app.router.add_get("/__requests", recent)
    app.router.add_post("/__reset", reset)
    return app


async def listen(endpoint: FakeServer, *, host: str, port: int, tls: ssl.SSLContext | None = None) -> web.AppRunner:
    """Start serving and return the runner; its `addresses` have host and port.

    If a client leaves, its answer is cancelled, as at a real provider's gateway.
    """
    runner = web.AppRunner(
        application(endpoint), access_log=None, handler_cancellation=True, shutdown_timeout=0.2, max_line_size=65536
    )
    await runner.setup()
    site = web.TCPSite(runner, host, port, ssl_context=tls, backlog=BACKLOG, reuse_address=True)
    await site.start()
    return runner


async def stop(runner: web.AppRunner) -> None:
    """Close the port and every connection."""
    # asyncio drops a new connection if its server closes in the same turn of the loop.
    await asyncio.sleep(0.01)
    await runner.cleanup()
