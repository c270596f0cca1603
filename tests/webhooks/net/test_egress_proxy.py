"""Webhooks through an egress proxy: the proxy resolves and guards, and its failures do not count against receivers."""

import asyncio
import socket
import ssl
from urllib.parse import quote

import pytest

from tests.net.raw_server import Peer, RawServer
from tests.webhooks.net.connect_proxy import PASSWORD, USER, connect_proxy
from tests.webhooks.net.receiver import BODY, LOOPBACK, PUBLIC_ONLY, SIGNED, hook, names_of, outcome, reply
from worker.webhooks.core.outcome import OURS, SendResult
from worker.webhooks.net.address_policy import Policy
from worker.webhooks.net.resolver import Resolver
from worker.webhooks.net.send import WebhookClient, WebhookRequest, send

OUR_TROUBLE = ("proxy_failed", None, False)


def serves(peer: Peer) -> None:
    while peer.read_request():
        peer.send(reply())


def answers(response: bytes) -> RawServer:
    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(response)

    return RawServer(script)


def through(
    proxy: str, url: str, *, ca_file: str | None = None, under: Policy = LOOPBACK, timeout_s: float = 10.0
) -> SendResult:
    async def run() -> SendResult:
        # Our own resolver would not find the name.
        async with WebhookClient(under, names=Resolver(names_of()), ca_file=ca_file, proxy=proxy) as client:
            return await send(client, WebhookRequest(url, BODY, SIGNED, timeout_s))

    return asyncio.run(run())


def at(proxy: RawServer, password: str = PASSWORD) -> str:
    return f"http://{USER}:{quote(password)}@127.0.0.1:{proxy.port}"


def test_a_tunnel_leads_to_the_receiver_and_the_proxy_resolves_its_name(
    server_tls: ssl.SSLContext, ca_file: str
) -> None:
    asked: list[bytes] = []
    with RawServer(serves, context=server_tls) as server, connect_proxy(asked) as proxy:
        sent = through(at(proxy), hook(server, "localhost"), ca_file=ca_file)
    assert outcome(sent) == (None, 200, True)
    assert asked == [b"CONNECT localhost:%d HTTP/1.1" % server.port]
    # They would describe the proxy.
    assert (sent.peer, sent.dns_ms) == (None, None)


def test_plain_http_is_forwarded() -> None:
    with answers(reply()) as proxy:
        assert outcome(through(at(proxy), "http://hooks.example.com/in")) == (None, 200, True)


def test_a_proxy_that_does_not_know_us_is_our_trouble(server_tls: ssl.SSLContext) -> None:
    with RawServer(serves, context=server_tls) as server, connect_proxy([]) as proxy:
        assert outcome(through(at(proxy, "wrong"), hook(server, "localhost"))) == OUR_TROUBLE
    assert server.connections == 0


def test_it_is_our_trouble_for_plain_http_too() -> None:
    with answers(reply("407 Proxy Authentication Required")) as proxy:
        assert outcome(through(at(proxy), "http://hooks.example.com/in")) == ("proxy_failed", 407, False)


@pytest.mark.parametrize("status", ["500 Internal Server Error", "502 Bad Gateway", "503 Service Unavailable"])
def test_a_tunnel_the_proxy_cannot_make_is_our_trouble(status: str) -> None:
    with answers(reply(status)) as proxy:
        sent = through(at(proxy), "https://hooks.example.com/in")
    assert outcome(sent) == OUR_TROUBLE
    assert sent.error_code in OURS


@pytest.mark.parametrize("scheme", ["https", "http"])
def test_a_proxy_that_is_down_is_our_trouble(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert outcome(through(f"http://127.0.0.1:{port}", f"{scheme}://hooks.example.com/in")) == OUR_TROUBLE


def test_a_silent_proxy_is_our_trouble() -> None:
    with RawServer(lambda peer: peer.ended() and None) as proxy:
        assert outcome(through(at(proxy), "https://hooks.example.com/in", timeout_s=0.2)) == OUR_TROUBLE


def test_a_proxy_whose_head_has_no_end_is_our_trouble() -> None:
    sent: list[int] = []

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(b"HTTP/1.1 200 Connection established\r\n")
        sent.append(peer.drip(b"X-Filler: " + b"x" * 8000 + b"\r\n", every_s=0.0))

    with RawServer(script) as proxy:
        assert outcome(through(at(proxy), "https://hooks.example.com/in")) == OUR_TROUBLE
    assert sent[0] < 10_000, "the client closed the connection"


def test_a_target_that_the_proxy_forbids_is_forbidden() -> None:
    with answers(reply("403 Forbidden")) as proxy:
        assert outcome(through(at(proxy), "https://hooks.example.com/in")) == ("target_forbidden", None, False)


def test_a_certificate_is_the_receivers_through_a_tunnel_too(server_tls: ssl.SSLContext) -> None:
    with RawServer(serves, context=server_tls) as server, connect_proxy([]) as proxy:
        assert outcome(through(at(proxy), hook(server, "localhost"))) == ("tls_failed", None, False)


@pytest.mark.parametrize(
    "url", ["https://127.0.0.1/", "https://10.0.0.1/", "https://localhost/", "https://a.example:6379/"]
)
def test_a_forbidden_url_is_not_sent_to_the_proxy(url: str) -> None:
    with connect_proxy([]) as proxy:
        assert outcome(through(at(proxy), url, under=PUBLIC_ONLY)) == ("target_forbidden", None, False)
    assert proxy.connections == 0
