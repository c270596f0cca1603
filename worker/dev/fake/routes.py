"""Fake endpoint: its HTTP routes, and the start and stop of its port."""

import asyncio
import ssl

from aiohttp import web

from worker.dev.fake.answers import encode
from worker.dev.fake.limits import BadLimits, limits_of_json
from worker.dev.fake.plan import JSON, refusal
from worker.dev.fake.presets import NAMED
from worker.dev.fake.server import FakeServer

BIGGEST = 256 * 1024 * 1024
BACKLOG = 4096
LINES_AT_ONCE = 500
MODELS = [{"id": name, "object": "model", "owned_by": "fake"} for name in NAMED]


class ControlRoutes:
    """The routes that read and change the endpoint itself."""

    def __init__(self, endpoint: FakeServer) -> None:
        self.endpoint = endpoint

    async def stats(self, request: web.Request) -> web.Response:
        job = request.query.get("key")
        ledger = self.endpoint.ledger
        return web.json_response(ledger.stats() if job is None else ledger.job(job))

    async def requests(self, request: web.Request) -> web.Response:
        job = request.query.get("key")
        return web.json_response([kept for kept in self.endpoint.ledger.recent if job in (None, kept["job"])])

    async def ledger(self, request: web.Request) -> web.StreamResponse:
        """Send the lines as NDJSON, in parts, because other requests are answered in between."""
        after = request.query.get("after", "0")
        if not after.isdecimal():
            return _bad_request(f"after is {after!r}; it must be the number of a line", code="bad_after")
        lines = self.endpoint.ledger.lines(int(after))
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        for first in range(0, len(lines), LINES_AT_ONCE):
            part = lines[first : first + LINES_AT_ONCE]
            await response.write(b"".join(encode(line.written()) + b"\n" for line in part))
            await asyncio.sleep(0)
        await response.write_eof()
        return response

    async def limits(self, _: web.Request) -> web.Response:
        return web.json_response([limit.described() for limit in self.endpoint.limiter.limits])

    async def set_limits(self, request: web.Request) -> web.Response:
        try:
            self.endpoint.limiter.replace(limits_of_json(await request.read()))
        except BadLimits as error:
            return _bad_request(str(error), code="bad_limits")
        return await self.limits(request)

    async def reset(self, _: web.Request) -> web.Response:
        self.endpoint.reset()
        return web.json_response({})

    async def models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": MODELS})


def _bad_request(message: str, *, code: str) -> web.Response:
    return web.Response(status=400, body=refusal(400, message, code=code).pieces[0], content_type=JSON)


def application(endpoint: FakeServer) -> web.Application:
    """Return the aiohttp application of a fake endpoint."""
    control = ControlRoutes(endpoint)
    app = web.Application(client_max_size=BIGGEST)
    app.add_routes(
        [
            web.post("/v1/chat/completions", endpoint.answer),
            web.post("/chat/completions", endpoint.answer),
            web.get("/v1/models", control.models),
            web.get("/__stats", control.stats),
            web.get("/__requests", control.requests),
            web.get("/__ledger", control.ledger),
            web.get("/__limits", control.limits),
            web.post("/__limits", control.set_limits),
            web.post("/__reset", control.reset),
        ]
    )
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
