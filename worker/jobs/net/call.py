"""One call of one endpoint: sends a request and returns a Reply, also after an error on the wire. Called by `run`."""

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

# The time that a body may take to end once the answer is settled. It is long enough to reuse the connection and to
# read usage after an error, and too short to waste a slot.
SETTLE_S: Final = 0.1
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
# Settings may not change the headers that delimit the message.
_FRAMING: Final = frozenset({"content-length", "transfer-encoding", "connection"})
TransportKind = Literal["aiohttp", "httpx"]
Clients = dict[str, httpx.AsyncClient]  # by the name of the endpoint
_address = functools.lru_cache(maxsize=256)(httpx.URL)


@dataclass(frozen=True, slots=True)
class WireRequest:
    """One request to send. `body`: JSON; `n`: the number of choices it asks for; `timeout_s`: limit of the whole call.

    All attempts of a job share its `idempotency_key`; each attempt has its own `attempt_id`.
    """

    body: bytes
    streamed: bool
    n: int | None
    idempotency_key: str
    attempt_id: str
    timeout_s: float
    traceparent: str | None = None


class _NoCookies(CookieJar):
    """Stores no cookies: a cookie from one tenant's answer must not go out with another tenant's request."""

    def extract_cookies(self, response: Any, request: Any) -> None:
        """Ignore the cookies of `response`."""


def open_clients(endpoints: Iterable[Endpoint], *, kind: TransportKind) -> dict[str, httpx.AsyncClient]:
    """Open a client for each endpoint; return them by endpoint name. Equal TLS settings share one context.

    Raises ValueError if a TLS file of an endpoint cannot be read.
    """
    contexts = Contexts()
    return {endpoint.name: open_client(endpoint, kind=kind, contexts=contexts) for endpoint in endpoints}


def open_client(
    endpoint: Endpoint, *, kind: TransportKind = "aiohttp", contexts: Contexts | None = None
) -> httpx.AsyncClient:
    """Open a client for one endpoint; close it with `aclose`. It ignores environment variables such as HTTP_PROXY.

    It has no connection limit, because slots bound the calls in flight. `contexts` shares TLS contexts between
    endpoints. Raises ValueError if a TLS file of the endpoint cannot be read.
    """
    trusted = (contexts or Contexts()).of(endpoint)
    transport = (
        OneShotTransport(trusted, proxy=endpoint.proxy)
        if kind == "httpx"
        else AiohttpTransport(trusted, proxy=endpoint.proxy)
    )
    return httpx.AsyncClient(transport=transport, timeout=None, trust_env=False, cookies=_NoCookies())  # noqa: S113


async def call(
    client: httpx.AsyncClient, endpoint: Endpoint, wire: WireRequest, progress: Progress | None = None
) -> Reply:
    """POST `wire` to `endpoint` and return the Reply; network errors become a failure in it and are not raised.

    Cancelling the awaiting task aborts the connection at once; `progress.cut` then returns the partial Reply.
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
    # `stream=`, because with `content=` httpx searches the headers a dozen times.
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
    """Read the body to its end, but no longer than SETTLE_S once the answer is settled."""
    assert isinstance(response.stream, httpx.AsyncByteStream)
    settled = False
    # Not `aiter_raw`, which adds a generator to every stream.
    async for piece in response.stream:
        for count, part in enumerate(progress.decoded(piece)):
            if count:
                await asyncio.sleep(0)  # let others run: a small piece can unpack to many parts
            data = await progress.take_in_thread(part) if progress.is_heavy else progress.take(part)
            if data and not settled:
                deadlines.expect(ErrorCode.idle_timeout, idle_s)
            if progress.is_full:
                return ErrorCode.answer_too_large
        part = piece = b""  # free the memory: thousands of silent streams would each keep their last piece
        if not settled and progress.is_settled:
            settled = True
            deadlines.expect(ErrorCode.idle_timeout, SETTLE_S)
    return None


def _headers(endpoint: Endpoint, wire: WireRequest, *, host: bytes) -> list[tuple[bytes, bytes]]:
    """Return the headers of a request; headers from the endpoint's settings replace ours."""
    headers = {
        "host": host.decode(),
        "content-length": str(len(wire.body)),
        "content-type": "application/json",
        "accept": "text/event-stream" if wire.streamed else "application/json",
        # Compressed events would arrive late: a compressor waits until it has enough data.
        "accept-encoding": "identity",
        "user-agent": "afterword",
        "idempotency-key": wire.idempotency_key,
        # new-api uses it as its own request id; other servers ignore it.
        "x-oneapi-request-id": wire.attempt_id,
    }
    if endpoint.key is not None:
        headers["authorization"] = f"Bearer {endpoint.key}"
    if wire.traceparent is not None and _TRACEPARENT.match(wire.traceparent):
        headers["traceparent"] = wire.traceparent
    headers |= {name.lower(): value for name, value in endpoint.headers.items() if name.lower() not in _FRAMING}
    return [(name.encode(), value.encode()) for name, value in headers.items()]
