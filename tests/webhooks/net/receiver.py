"""Helpers for tests of webhooks: a policy that allows loopback, one delivery, scripts of receivers."""

import asyncio
from collections.abc import Mapping
from typing import Any

from tests.net.raw_server import RawServer
from worker.webhooks.core.outcome import SendResult
from worker.webhooks.net.address_policy import Policy, policy
from worker.webhooks.net.resolver import LookUp, Resolver, look_up
from worker.webhooks.net.send import WebhookClient, WebhookRequest, send

BODY = b'{"id":"evt_1","type":"job.completed"}'
SIGNED = {"webhook-id": "msg_1", "webhook-timestamp": "1", "webhook-signature": "v1,c2ln"}
LOOPBACK = policy(allow_http=True, allow_cidrs=["127.0.0.0/8"])
PUBLIC_ONLY = policy(allow_http=True)


def names_of(**answers: list[str]) -> LookUp:
    """Return a resolver that knows only these names (with _ for each dot)."""

    def find(host: str, port: int) -> list[str]:
        return answers.get(host.replace(".", "_"), [])

    return find


def deliver(
    url: str,
    *,
    under: Policy = LOOPBACK,
    resolver: LookUp = look_up,
    ca_file: str | None = None,
    headers: Mapping[str, str] = SIGNED,
    timeout_s: float = 10.0,
    body: bytes = BODY,
) -> SendResult:
    """Make one delivery with a new client."""

    async def run() -> SendResult:
        async with WebhookClient(under, names=Resolver(resolver), ca_file=ca_file) as client:
            return await send(client, WebhookRequest(url, body, headers, timeout_s))

    return asyncio.run(run())


def hook(server: RawServer, host: str = "127.0.0.1") -> str:
    """Return the URL of a raw server's receiver."""
    return f"{server.url.partition(':')[0]}://{host}:{server.port}/hooks/x?a=1"


def reply(status: str = "200 OK", *headers: str, body: bytes = b"ok") -> bytes:
    """Return a whole response."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def outcome(sent: SendResult) -> tuple[str | None, int | None, bool]:
    """Return an outcome's code, its status, and whether the receiver may have the delivery."""
    return (None if sent.error_code is None else str(sent.error_code), sent.http_status, sent.sent)


def shown(value: Any) -> str:
    """Return a test id of printable ASCII characters."""
    return ascii(value)[:60]
