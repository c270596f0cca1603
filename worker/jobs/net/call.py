"""One call of one endpoint: a request out, a Reply back, whatever happened on the wire. Called by `run`."""

import asyncio
import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from http.cookiejar import CookieJar
from typing import Any, Final, Literal

import httpx

from worker.core.endpoint import Endpoint
from worker.core.failure import ErrorCode
from worker.jobs.net.content_encoding import Damaged
from worker.jobs.net.deadlines import Deadlines, Overdue
from worker.jobs.net.progress import Progress, Reply
from worker.net.exceptions import WIRE, code_of
from worker.net.httpx_transport import OneShotTransport
from worker.net.tls import Contexts
from worker.net.transport import AiohttpTransport

# How long the end of a body may take once the answer is settled: long enough to reuse the connection, to take usage
# that follows an error, and no reason to keep a slot.
SETTLE_S: Final = 0.1
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
# What the length of a message depends on is not for settings to say.
_FRAMING: Final = frozenset({"content-length", "transfer-encoding", "connection"})
Clients = dict[str, httpx.AsyncClient]  # by the name of the endpoint
_address = functools.lru_cache(maxsize=256)(httpx.URL)


@dataclass(frozen=True, slots=True)
class WireRequest:
    """One request as it goes out. `body` is JSON; `n` the choices it asks for; `timeout_s` bounds the whole call.

    `idempotency_key` is the same on every attempt of a job, `attempt_id` on none.
    """

    body: bytes
    streamed: bool
    n: int | None
    idempotency_key: str
    attempt_id: str
    timeout_s: float
    traceparent: str | None = None


async def call(
    client: httpx.AsyncClient, endpoint: Endpoint, wire: WireRequest, progress: Progress | None = None
) -> Reply:
    """POST `wire` to `endpoint` and return what came of it; nothing of the wire raises.

    Cancelling the task that awaits this aborts the connection at once; `progress.cut` then says what had come.
    """
    progress = Progress() if progress is None else progress
    progress.begin(endpoint, n=wire.n)
    try:
        with Deadlines(wire.timeout_s) as deadlines:
            broken = await _exchange(client, endpoint, wire, progress, deadlines)
    except Overdue as overdue:
        broken = None if progress.is_settled else overdue.code
    except Damaged:
        broken = ErrorCode.invalid_encoding
    except WIRE as error:
        broken = ErrorCode.body_truncated if progress.http_status is not None else code_of(error, sent=progress.sent)
    await progress.finish(reset=broken is not None)
    return progress.reply(broken)


async def _exchange(
    client: httpx.AsyncClient, endpoint: Endpoint, wire: WireRequest, progress: Progress, deadlines: Deadlines
) -> ErrorCode | None:
    def connected() -> None:
        progress.sent = True
        deadlines.expect(ErrorCode.first_byte_timeout, endpoint.first_byte_s)

    url = _address(endpoint.url)
    # A stream given whole, since httpx looks through the headers of a request with `content` a dozen times.
    request = httpx.Request(
        "POST",
        url,
        headers=_headers(endpoint, wire, host=url.netloc),
        stream=httpx.ByteStream(wire.body),
        extensions={"connected": connected, "timeout": {"connect": endpoint.connect_s}},
    )
    response = await client.send(request, stream=True)
    try:
        progress.note_head(response)
        deadlines.expect(ErrorCode.idle_timeout, endpoint.idle_s)
        return await _read(response, progress, deadlines, idle_s=endpoint.idle_s)
    finally:
        await response.aclose()


async def _read(
    response: httpx.Response, progress: Progress, deadlines: Deadlines, *, idle_s: float
) -> ErrorCode | None:
    """Read the body to its end, or to where it cannot matter any more."""
    assert isinstance(response.stream, httpx.AsyncByteStream)
    settled = False
    # Not aiter_raw: one generator less for every piece of every stream.
    async for piece in response.stream:
        for count, part in enumerate(progress.decoded(piece)):
            if count:
                await asyncio.sleep(0)  # a little compressed data can be a lot of work
            data = await progress.take_in_thread(part) if progress.is_heavy else progress.take(part)
            if data and not settled:
                deadlines.expect(ErrorCode.idle_timeout, idle_s)
            if progress.is_full:
                return ErrorCode.answer_too_large
        part = piece = b""  # thousands of silent streams would each hold their last one
        if not settled and progress.is_settled:
            settled = True
            deadlines.expect(ErrorCode.idle_timeout, SETTLE_S)
    return None


def _headers(endpoint: Endpoint, wire: WireRequest, *, host: bytes) -> list[tuple[bytes, bytes]]:
    """Return the headers of a request; those of the endpoint's settings replace ours."""
    headers = {
        "host": host.decode(),
        "content-length": str(len(wire.body)),
        "content-type": "application/json",
        "accept": "text/event-stream" if wire.streamed else "application/json",
        # A compressed stream is held back until the compressor has enough.
        "accept-encoding": "identity",
        "user-agent": "afterword",
        "idempotency-key": wire.idempotency_key,
        # new-api adopts it as its own request id, others ignore it.
        "x-oneapi-request-id": wire.attempt_id,
    }
    if endpoint.key is not None:
        headers["authorization"] = f"Bearer {endpoint.key}"
    if wire.traceparent is not None and _TRACEPARENT.match(wire.traceparent):
        headers["traceparent"] = wire.traceparent
    headers |= {name.lower(): value for name, value in endpoint.headers.items() if name.lower() not in _FRAMING}
    return [(name.encode(), value.encode()) for name, value in headers.items()]


TransportKind = Literal["aiohttp", "httpx"]


class _NoCookies(CookieJar):
    """Keeps nothing: a cookie of one tenant's answer must not travel with another's request."""

    def extract_cookies(self, response: Any, request: Any) -> None:
        """Ignore the cookies of `response`."""


def open_clients(endpoints: Iterable[Endpoint], *, kind: TransportKind) -> dict[str, httpx.AsyncClient]:
    """Open the client of each endpoint, by the endpoint's name; equal TLS settings share one context.

    Raises ValueError if a TLS file of an endpoint cannot be read.
    """
    contexts = Contexts()
    return {endpoint.name: open_client(endpoint, kind=kind, contexts=contexts) for endpoint in endpoints}


def open_client(
    endpoint: Endpoint, *, kind: TransportKind = "aiohttp", contexts: Contexts | None = None
) -> httpx.AsyncClient:
    """Open a client for one endpoint; close it with `aclose`. Nothing is read from the environment.

    It holds no limit: slots bound the calls in flight. `contexts` shares TLS contexts between endpoints. Raises
    ValueError if a TLS file of the endpoint cannot be read.
    """
    trusted = (contexts or Contexts()).of(endpoint)
    transport = (
        OneShotTransport(trusted, proxy=endpoint.proxy)
        if kind == "httpx"
        else AiohttpTransport(trusted, proxy=endpoint.proxy)
    )
    return httpx.AsyncClient(transport=transport, timeout=None, trust_env=False, cookies=_NoCookies())  # noqa: S113
