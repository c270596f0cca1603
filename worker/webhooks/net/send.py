"""One delivery attempt: sends a signed body to a receiver and returns a SendResult. Called by `deliver`.

Always uses the guarded aiohttp transport, because only there can we refuse names and addresses; the setting
AFTERWORD_HTTP_TRANSPORT applies to calls, not to webhooks. Without an httpx client there are no redirects and no
cookies.

With an egress proxy, the proxy is the guard: we check the URL's text and resolve nothing. A failure before the
connection to the receiver is the proxy's, so it counts as our trouble; the exceptions are a bad certificate, an
invalid header and a lack of resources.
"""

import asyncio
from asyncio.trsock import TransportSocket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Final, Self

import httpx

from worker.core import failure
from worker.net.exceptions import WIRE, code_of, refused_by_proxy
from worker.net.tls import trusting_context
from worker.net.transport import AiohttpTransport
from worker.webhooks.core.outcome import DeliveryErrorCode, SendResult
from worker.webhooks.net.address_guard import OUTGOING, Guard, OutgoingRequest
from worker.webhooks.net.address_policy import Policy
from worker.webhooks.net.own_servers import OwnServers
from worker.webhooks.net.progress import DeliveryProgress
from worker.webhooks.net.resolver import Resolver
from worker.webhooks.net.url import UnusableUrl, WebhookUrl, check

DNS_S: Final = 3.0
CONNECT_S: Final = 5.0
TOTAL_S: Final = 15.0
PROXY_AUTHENTICATION_REQUIRED: Final = 407


def _user_agent() -> str:
    try:
        return f"afterword-webhooks/{version('afterword')}"
    except PackageNotFoundError:  # a checkout that was not installed
        return "afterword-webhooks"


USER_AGENT: Final = _user_agent()
# A receiver's custom headers cannot set these: they define the message, its length and its destination.
_OURS: Final = frozenset(
    {"host", "content-length", "content-type", "content-encoding", "transfer-encoding", "connection", "accept-encoding"}
)
_OF_WIRE: Final[Mapping[failure.ErrorCode, DeliveryErrorCode]] = {
    failure.ErrorCode.connect_failed: DeliveryErrorCode.connect_failed,
    failure.ErrorCode.connect_timeout: DeliveryErrorCode.connect_timeout,
    failure.ErrorCode.dns_failed: DeliveryErrorCode.dns_failed,
    failure.ErrorCode.tls_failed: DeliveryErrorCode.tls_failed,
    failure.ErrorCode.out_of_resources: DeliveryErrorCode.out_of_resources,
    failure.ErrorCode.misconfigured: DeliveryErrorCode.invalid_header,
    failure.ErrorCode.connection_lost: DeliveryErrorCode.connection_lost,
    failure.ErrorCode.protocol_error: DeliveryErrorCode.protocol_error,
    failure.ErrorCode.first_byte_timeout: DeliveryErrorCode.timeout,
}


@dataclass(frozen=True, slots=True)
class WebhookRequest:
    """The request of one attempt. `headers` include the signatures, but not the headers of the HTTP message itself.

    `timeout_s` is wall-clock time for the whole attempt. `owner` is the tenant; each has its share of name lookups.
    """

    url: str = field(repr=False)
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    timeout_s: float = TOTAL_S
    owner: str = ""


class WebhookClient:
    """Connections to all receivers under one policy, pooled by origin and kept for some seconds."""

    def __init__(
        self,
        policy: Policy,
        *,
        names: Resolver | None = None,
        own: OwnServers | None = None,
        ca_file: str | None = None,
        proxy: str | None = None,
    ) -> None:
        """Trust the authority in `ca_file`, else the system's. Raises ValueError, naming the file, if unreadable."""
        self.guard = Guard(policy, Resolver() if names is None else names, own)
        trusted = trusting_context(ca_file, setting="ca_file of webhooks")
        self.is_proxied = proxy is not None
        self.transport = (
            AiohttpTransport(trusted, proxy=proxy)
            if self.is_proxied
            else AiohttpTransport(trusted, socket_factory=self.guard.open_socket, resolver=self.guard)
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        self.guard.own.close()
        await self.transport.aclose()


async def send(client: WebhookClient, request: WebhookRequest, progress: DeliveryProgress | None = None) -> SendResult:
    """POST `request` to its receiver and return the result; errors of the network are part of it and do not raise.

    Three wall-clock deadlines, which also stop slow and endless answers: DNS 3 s, connect and TLS 5 s, `timeout_s` for
    the whole attempt. They begin with the lookup, not before, because the wait for a free thread is not the receiver's
    fault. The status line of the final response decides success. Cancelling aborts the connection at once; `progress`
    then says whether there was a connection.
    """
    progress = progress or DeliveryProgress()
    try:
        target = check(request.url, client.guard.policy)
    except UnusableUrl:
        return progress.close(DeliveryErrorCode.target_forbidden)
    if client.guard.own.is_named(target.host, target.port):
        return progress.close(DeliveryErrorCode.target_forbidden)
    if client.is_proxied:
        return await _send_by_proxy(client, target, request, progress)
    await client.guard.own.renew()
    limits = _Limits(request.timeout_s, first_s=CONNECT_S if target.literal else None)

    def looking() -> None:
        progress.note_lookup()
        limits.begin()

    def found() -> None:
        progress.note_resolved()
        limits.connecting()

    outgoing = OutgoingRequest(request.owner, looking=looking, found=found)
    token = OUTGOING.set(outgoing)
    broken = None
    try:
        async with limits.timeout:
            wire = _wire_request(target, request, progress, limits, check_peer=client.guard.check_peer)
            await _exchange(client, wire, progress)
    except TimeoutError:
        broken = progress.overdue()
    except WIRE as error:
        broken = _OF_WIRE[code_of(error, sent=progress.sent)]
    finally:
        OUTGOING.reset(token)
    if outgoing.forbidden or outgoing.crowded:
        broken = DeliveryErrorCode.target_forbidden if outgoing.forbidden else DeliveryErrorCode.dns_busy
    return progress.close(broken)


async def _exchange(client: WebhookClient, wire: httpx.Request, progress: DeliveryProgress) -> None:
    response = await client.transport.handle_async_request(wire)
    try:
        progress.note_head(response)
        assert isinstance(response.stream, httpx.AsyncByteStream)
        async for piece in response.stream:
            progress.take(piece)
            if progress.is_full:
                return
        progress.note_end()
    finally:
        await response.aclose()


async def _send_by_proxy(
    client: WebhookClient, target: WebhookUrl, request: WebhookRequest, progress: DeliveryProgress
) -> SendResult:
    progress.note_resolved()
    limits = _Limits(request.timeout_s, first_s=DNS_S + CONNECT_S)
    broken = None
    try:
        async with limits.timeout:
            await _exchange(client, _wire_request(target, request, progress, limits), progress)
    except TimeoutError:
        broken = progress.overdue() if progress.sent else DeliveryErrorCode.proxy_failed
    except WIRE as error:
        broken = _OF_WIRE.get(code_of(error, sent=progress.sent), DeliveryErrorCode.proxy_failed)
        if refused_by_proxy(error):
            broken = DeliveryErrorCode.target_forbidden
        elif not progress.sent and broken not in (
            DeliveryErrorCode.tls_failed,
            DeliveryErrorCode.invalid_header,
            DeliveryErrorCode.out_of_resources,
        ):
            broken = DeliveryErrorCode.proxy_failed
    sent = progress.close(broken)
    # An http URL has no tunnel, so the proxy's own answer looks like the receiver's.
    is_from_proxy = target.url.scheme == "http" and sent.http_status == PROXY_AUTHENTICATION_REQUIRED
    return replace(sent, sent=False, error_code=DeliveryErrorCode.proxy_failed) if is_from_proxy else sent


def _wire_request(
    target: WebhookUrl,
    request: WebhookRequest,
    progress: DeliveryProgress,
    limits: "_Limits",
    *,
    check_peer: Callable[[TransportSocket], str] | None = None,
) -> httpx.Request:
    def peer(sock: TransportSocket) -> None:
        if check_peer is not None:
            progress.peer = check_peer(sock)

    def connected() -> None:
        progress.note_connected()
        limits.connected()

    headers = {
        "host": target.url.netloc.decode("ascii"),
        "content-length": str(len(request.body)),
        "content-type": "application/json",
        # Only the start of an answer is kept; if it were compressed, it would be unreadable.
        "accept-encoding": "identity",
        "user-agent": USER_AGENT,
    }
    headers |= {name.lower(): value for name, value in request.headers.items() if name.lower() not in _OURS}
    return httpx.Request(
        "POST",
        target.url,
        headers=[(name.encode(), value.encode("utf-8", "replace")) for name, value in headers.items()],
        stream=httpx.ByteStream(request.body),
        extensions={"peer": peer, "secured": progress.note_tls, "connected": connected},
    )


class _Limits:
    """The deadlines of one attempt on one timer: DNS, then connect, then the rest of the total."""

    def __init__(self, total_s: float, *, first_s: float | None) -> None:
        """Begin with the deadline `first_s`; None: a lookup comes first and may wait for a thread."""
        self._loop = asyncio.get_running_loop()
        self._total_s = total_s
        self._end = self._loop.time() + total_s
        # While a lookup waits for a thread, only PATIENCE_S of `webhooks.net.resolver` limits it.
        self.timeout = asyncio.timeout_at(None if first_s is None else self._within(first_s))

    def begin(self) -> None:
        """Start the deadlines of the lookup and of the whole attempt."""
        self._end = self._loop.time() + self._total_s
        self.timeout.reschedule(self._within(DNS_S))

    def connecting(self) -> None:
        """Start the deadline of TCP and TLS. An aiohttp task calls this, maybe just after the last deadline passed."""
        if not self.timeout.expired():
            self.timeout.reschedule(self._within(CONNECT_S))

    def connected(self) -> None:
        """Keep only the deadline of the whole attempt."""
        self.timeout.reschedule(self._end)

    def _within(self, seconds: float) -> float:
        return min(self._end, self._loop.time() + seconds)
