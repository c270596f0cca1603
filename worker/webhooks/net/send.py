"""One delivery attempt: a signed body out to a receiver, a Sent back, whatever happened on the wire. Called by `run`.

Always over the guarded aiohttp transport, whatever AFTERWORD_HTTP_TRANSPORT says of calls: only there are names and
numeric addresses ours to refuse. No redirect and no cookie exists on this way: no httpx client is between.

With an egress proxy, that is the guard: we read the URL's text and resolve nothing. What goes wrong before a connection
to the receiver stands is the proxy's, and so our trouble, but for a certificate.
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
from worker.net.tls import trusting
from worker.net.transport import AiohttpTransport
from worker.webhooks.core.outcome import DeliveryErrorCode, SendResult
from worker.webhooks.net.address_guard import PASSAGE, Guard, OutgoingRequest
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
    except PackageNotFoundError:  # a checkout that nobody installed
        return "afterword-webhooks"


USER_AGENT: Final = _user_agent()
# Never a receiver's to say: what the message is, where it ends, and to whom it goes.
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
    """One attempt as it goes out. `headers` are all but those of the HTTP message itself, signatures included.

    `timeout_s` is wall-clock time for everything. Lookups of names are shared fairly between `owner`s (tenants).
    """

    url: str = field(repr=False)
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    timeout_s: float = TOTAL_S
    owner: str = ""


class WebhookClient:
    """The connections to all receivers under one policy, pooled by origin and kept for seconds."""

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
        trusted = trusting(ca_file, setting="ca_file of webhooks")
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
        """Close every connection."""
        self.guard.own.close()
        await self.transport.aclose()


async def send(client: WebhookClient, request: WebhookRequest, receipt: DeliveryProgress | None = None) -> SendResult:
    """POST `request` to its receiver and say what came of it; nothing of the wire raises.

    Three deadlines in wall-clock time, against drips and floods too: DNS 3 s, connect and TLS 5 s, `timeout_s` for
    everything. All begin with the lookup: the time it waited for a thread of ours is not the receiver's. Success is
    decided at the status line of the final response. Cancelling aborts the connection at once; `receipt` then says
    whether there was one.
    """
    receipt = receipt or DeliveryProgress()
    try:
        target = check(request.url, client.guard.policy)
    except UnusableUrl:
        return receipt.close(DeliveryErrorCode.target_forbidden)
    if client.guard.own.is_named(target.host, target.port):
        return receipt.close(DeliveryErrorCode.target_forbidden)
    if client.is_proxied:
        return await _sent_by_proxy(client, target, request, receipt)
    await client.guard.own.renew()
    limits = _Limits(request.timeout_s, first_s=CONNECT_S if target.literal else None)

    def looking() -> None:
        receipt.note_looking()
        limits.begin()

    def found() -> None:
        receipt.note_found()
        limits.connecting()

    passage = OutgoingRequest(request.owner, looking=looking, found=found)
    token = PASSAGE.set(passage)
    broken = None
    try:
        async with limits.timeout:
            wire = _wire_request(target, request, receipt, limits, check_peer=client.guard.check_peer)
            await _exchange(client, wire, receipt)
    except TimeoutError:
        broken = receipt.overdue()
    except WIRE as error:
        broken = _OF_WIRE[code_of(error, sent=receipt.sent)]
    finally:
        PASSAGE.reset(token)
    if passage.forbidden or passage.crowded:
        broken = DeliveryErrorCode.target_forbidden if passage.forbidden else DeliveryErrorCode.dns_busy
    return receipt.close(broken)


async def _exchange(client: WebhookClient, wire: httpx.Request, receipt: DeliveryProgress) -> None:
    response = await client.transport.handle_async_request(wire)
    try:
        receipt.note_head(response)
        assert isinstance(response.stream, httpx.AsyncByteStream)
        async for piece in response.stream:
            receipt.take(piece)
            if receipt.is_full:
                return
        receipt.note_end()
    finally:
        await response.aclose()


async def _sent_by_proxy(
    client: WebhookClient, target: WebhookUrl, request: WebhookRequest, receipt: DeliveryProgress
) -> SendResult:
    receipt.note_found()
    limits = _Limits(request.timeout_s, first_s=DNS_S + CONNECT_S)
    broken = None
    try:
        async with limits.timeout:
            await _exchange(client, _wire_request(target, request, receipt, limits), receipt)
    except TimeoutError:
        broken = receipt.overdue() if receipt.sent else DeliveryErrorCode.proxy_failed
    except WIRE as error:
        broken = _OF_WIRE.get(code_of(error, sent=receipt.sent), DeliveryErrorCode.proxy_failed)
        if refused_by_proxy(error):
            broken = DeliveryErrorCode.target_forbidden
        elif not receipt.sent and broken not in (
            DeliveryErrorCode.tls_failed,
            DeliveryErrorCode.invalid_header,
            DeliveryErrorCode.out_of_resources,
        ):
            broken = DeliveryErrorCode.proxy_failed
    sent = receipt.close(broken)
    # Without a tunnel its own answers stand where the receiver's would.
    is_its_own = target.url.scheme == "http" and sent.http_status == PROXY_AUTHENTICATION_REQUIRED
    return replace(sent, sent=False, error_code=DeliveryErrorCode.proxy_failed) if is_its_own else sent


def _wire_request(
    target: WebhookUrl,
    request: WebhookRequest,
    receipt: DeliveryProgress,
    limits: "_Limits",
    *,
    check_peer: Callable[[TransportSocket], str] | None = None,
) -> httpx.Request:
    def peer(sock: TransportSocket) -> None:
        if check_peer is not None:
            receipt.peer = check_peer(sock)

    def connected() -> None:
        receipt.note_connected()
        limits.connected()

    headers = {
        "host": target.url.netloc.decode("ascii"),
        "content-length": str(len(request.body)),
        "content-type": "application/json",
        # Compressed, the little that is kept of an answer could not be read by anybody.
        "accept-encoding": "identity",
        "user-agent": USER_AGENT,
    }
    headers |= {name.lower(): value for name, value in request.headers.items() if name.lower() not in _OURS}
    return httpx.Request(
        "POST",
        target.url,
        headers=[(name.encode(), value.encode("utf-8", "replace")) for name, value in headers.items()],
        stream=httpx.ByteStream(request.body),
        extensions={"peer": peer, "secured": receipt.note_secured, "connected": connected},
    )


class _Limits:
    """The deadlines of one attempt on one timer: DNS, then connect, then what is left of the total."""

    def __init__(self, total_s: float, *, first_s: float | None) -> None:
        """Begin with the deadline `first_s`; None: a lookup comes first, and waits for its turn."""
        self._loop = asyncio.get_running_loop()
        self._total_s = total_s
        self._end = self._loop.time() + total_s
        # While a lookup waits no deadline runs but the patience of `webhooks.net.resolver`.
        self.timeout = asyncio.timeout_at(None if first_s is None else self._within(first_s))

    def begin(self) -> None:
        """Put the deadlines for the lookup and for everything in force."""
        self._end = self._loop.time() + self._total_s
        self.timeout.reschedule(self._within(DNS_S))

    def connecting(self) -> None:
        """Put the deadline for TCP and TLS in force. Called by a task of aiohttp's, perhaps just after the last one."""
        if not self.timeout.expired():
            self.timeout.reschedule(self._within(CONNECT_S))

    def connected(self) -> None:
        """Leave only the total."""
        self.timeout.reschedule(self._end)

    def _within(self, seconds: float) -> float:
        return min(self._end, self._loop.time() + seconds)
