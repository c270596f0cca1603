"""The guard on the wire: a forbidden address is never connected to, by any name, form or redirect."""

import asyncio
import socket
import ssl
from asyncio.trsock import TransportSocket
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
import trustme

from tests.net.raw_server import Peer, RawServer
from tests.webhooks.net.receiver import (
    BODY,
    LOOPBACK,
    PUBLIC_ONLY,
    SIGNED,
    deliver,
    hook,
    names_of,
    outcome,
    reply,
    shown,
)
from worker.net.transport import AiohttpTransport
from worker.webhooks.core.outcome import SendResult
from worker.webhooks.net.address_guard import OUTGOING, Forbidden, Guard, OutgoingRequest
from worker.webhooks.net.address_policy import Policy, policy
from worker.webhooks.net.resolver import Resolver, look_up
from worker.webhooks.net.send import WebhookClient, WebhookRequest, send

FORBIDDEN = ("target_forbidden", None, False)
# Allows internal names and all ports, but not loopback: the guard refuses by address.
ELSEWHERE = policy(allow_http=True, allow_cidrs=["10.200.0.0/16"])


def serves(peer: Peer) -> None:
    while peer.read_request():
        peer.send(reply())


def with_ports(server: RawServer) -> Policy:
    """Return a policy that allows a raw server's scheme and port, so only its address can be refused."""
    return policy(allow_http=True, ports=[server.port])


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "127.0.1",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "017700000001",
        "127.0.0.1.",
        "\uff11\uff12\uff17.0.0.1",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[::ffff:0:127.0.0.1]",
        "[64:ff9b::127.0.0.1]",
        "[2002:7f00:1::]",
        "[::1]",
        "0.0.0.0",
        "localhost",
        "LOCALHOST",
        "localhost.",
        "a.localhost",
        "example.com@127.0.0.1",
        "127.0.0.1%2f",
    ],
    ids=shown,
)
def test_loopback_in_any_spelling_is_not_connected_to(host: str) -> None:
    with RawServer(serves) as server:
        assert outcome(deliver(hook(server, host), under=with_ports(server))) == FORBIDDEN
    assert server.connections == 0


@pytest.mark.parametrize("host", ["localhost", "ip6-loopback", "receiver"])
def test_names_of_the_inside_are_refused_by_address_where_their_text_is_not(host: str) -> None:
    known = names_of(localhost=["127.0.0.1"], **{"ip6-loopback": ["::1"], "receiver": ["127.0.0.1"]})
    with RawServer(serves) as server:
        assert outcome(deliver(hook(server, host), under=ELSEWHERE, resolver=known)) == FORBIDDEN
    assert server.connections == 0


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "0.0.0.0",
        "::1",
        "::",
        "::ffff:127.0.0.1",
        "::7f00:1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "2001:0:7f00:1::",
        "fe80::1%1",
        "10.0.0.1",
        "169.254.169.254",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "fd00:ec2::254",
        "255.255.255.255",
    ],
)
def test_a_public_name_that_leads_inside_is_refused(address: str) -> None:
    with RawServer(serves) as server:
        resolver = names_of(hooks_example_com=[address])
        sent = deliver(hook(server, "hooks.example.com"), under=with_ports(server), resolver=resolver)
    assert outcome(sent) == FORBIDDEN
    assert server.connections == 0


@pytest.mark.parametrize("order", [1, -1], ids=["public first", "private first"])
def test_one_forbidden_address_among_public_ones_refuses_them_all(order: int) -> None:
    addresses = ["192.0.2.1", "127.0.0.1"][::order]
    with RawServer(serves) as server:
        # 192.0.2.1 plays a public address and is never reached. The policy allows it, because it would be refused
        # itself.
        under = policy(allow_http=True, ports=[server.port], allow_cidrs=["192.0.2.0/24"])
        sent = deliver(hook(server, "a.example.com"), under=under, resolver=names_of(a_example_com=addresses))
    assert outcome(sent) == FORBIDDEN
    assert server.connections == 0


def test_a_name_is_resolved_once_for_a_connection_and_rebinding_changes_nothing() -> None:
    """The first answer is allowed. All later answers are 127.0.0.2, an address that this policy refuses."""
    answers = iter([["127.0.0.1"]])
    asked: list[str] = []

    def rebinding(host: str, port: int) -> list[str]:
        asked.append(host)
        return next(answers, ["127.0.0.2"])

    under = policy(allow_http=True, allow_cidrs=["127.0.0.1"])
    with RawServer(serves) as server:
        where = hook(server, "rebind.internal")
        assert outcome(deliver(where, under=under, resolver=rebinding)) == (None, 200, True)
        assert asked == ["rebind.internal"]
        assert outcome(deliver(where, under=under, resolver=rebinding)) == FORBIDDEN
    assert server.connections == 1


def test_an_answer_is_not_kept_for_the_next_connection() -> None:
    answers = iter([["127.0.0.1"], ["127.0.0.2"]])

    def closes(peer: Peer) -> None:
        peer.read_request()
        peer.send(reply("200 OK", "Connection: close"))

    async def twice(url: str) -> list[SendResult]:
        names = Resolver(lambda host, port: next(answers))
        async with WebhookClient(policy(allow_http=True, allow_cidrs=["127.0.0.1"]), names=names) as client:
            return [await send(client, WebhookRequest(url, BODY, SIGNED)) for _ in range(2)]

    with RawServer(closes) as server:
        first, second = asyncio.run(twice(hook(server, "rebind.internal")))
    assert (outcome(first), outcome(second)) == ((None, 200, True), FORBIDDEN)


def test_a_kept_connection_is_reused_without_another_lookup() -> None:
    asked: list[str] = []

    def counting(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]

    async def twice(url: str) -> list[SendResult]:
        async with WebhookClient(LOOPBACK, names=Resolver(counting)) as client:
            return [await send(client, WebhookRequest(url, BODY, SIGNED)) for _ in range(2)]

    with RawServer(serves) as server:
        first, second = asyncio.run(twice(hook(server, "receiver")))
    assert first.error_code is second.error_code is None
    assert (server.connections, len(asked)) == (1, 1)
    assert first.dns_ms is not None
    assert (second.dns_ms, second.connect_ms) == (None, None)


@pytest.mark.parametrize("status", ["301 Moved Permanently", "302 Found", "303 See Other", "307 Temporary Redirect"])
def test_a_redirect_to_the_inside_is_not_followed(status: str) -> None:
    with RawServer(serves) as inside:

        def redirects(peer: Peer) -> None:
            peer.read_request()
            peer.send(reply(status, f"Location: {hook(inside)}"))

        with RawServer(redirects) as server:
            sent = deliver(hook(server))
    assert outcome(sent) == ("redirect_not_followed", int(status[:3]), True)
    assert inside.connections == 0


def test_a_port_that_is_not_for_public_addresses_is_not_connected_to() -> None:
    """The name is internal and all ports are open for it; its address is public."""
    with RawServer(serves) as server:
        sent = deliver(hook(server, "receiver"), under=ELSEWHERE, resolver=names_of(receiver=["8.8.8.8"]))
    assert outcome(sent) == FORBIDDEN


def test_proxies_and_netrc_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[bytes] = []

    def script(peer: Peer) -> None:
        seen.append(peer.read_request())
        peer.send(reply())

    with RawServer(serves) as proxy, RawServer(script) as server:
        netrc = tmp_path / "netrc"
        netrc.write_text("machine 127.0.0.1 login user password hunter2\n")
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("NO_PROXY", "")
        monkeypatch.setenv("NETRC", str(netrc))
        assert outcome(deliver(hook(server))) == (None, 200, True)
    assert proxy.connections == 0
    assert b"authorization" not in seen[0].lower()


def test_a_receivers_cookies_are_not_sent_back() -> None:
    seen: list[bytes] = []

    def script(peer: Peer) -> None:
        while request := peer.read_request():
            seen.append(request)
            peer.send(reply("200 OK", "Set-Cookie: session=1; Path=/"))

    async def twice(url: str) -> None:
        async with WebhookClient(LOOPBACK) as client:
            for _ in range(2):
                await send(client, WebhookRequest(url, BODY, SIGNED))

    with RawServer(script) as server:
        asyncio.run(twice(hook(server)))
    assert len(seen) == 2
    assert not any(b"cookie" in request.lower() for request in seen)


def test_the_socket_factory_refuses_by_numeric_address_alone() -> None:
    guard = Guard(PUBLIC_ONLY, Resolver())
    passage = OutgoingRequest("", looking=lambda: None, found=lambda: None)
    token = OUTGOING.set(passage)
    with pytest.raises(Forbidden):
        guard.open_socket((socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", 443)))
    OUTGOING.reset(token)
    assert passage.forbidden


def test_the_peer_of_a_connection_is_judged_too() -> None:
    guard = Guard(PUBLIC_ONLY, Resolver())
    passage = OutgoingRequest("", looking=lambda: None, found=lambda: None)
    token = OUTGOING.set(passage)
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as sock:
        assert Guard(LOOPBACK, Resolver()).check_peer(TransportSocket(sock)) == "127.0.0.1"
        with pytest.raises(Forbidden):
            guard.check_peer(TransportSocket(sock))
    OUTGOING.reset(token)
    assert passage.forbidden


def test_a_refused_peer_gets_no_byte(server_tls: ssl.SSLContext) -> None:
    seen: list[bytes] = []

    def refuse(sock: object) -> None:
        raise Forbidden

    async def run(url: str) -> None:
        transport = AiohttpTransport(server_tls)
        with pytest.raises(httpx.ReadError):
            await transport.handle_async_request(httpx.Request("POST", url, extensions={"peer": refuse}))
        await transport.aclose()

    with RawServer(lambda peer: seen.append(peer.read_request())) as server:
        asyncio.run(run(hook(server)))
    assert seen in ([b""], [])  # the server may instead see a reset


def test_a_refusal_shows_nothing_of_the_network() -> None:
    """An open port, a closed port and an unknown host get the same code and no detail."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with RawServer(serves) as server:
        refusals = [
            deliver(f"http://{host}:{number}/", under=ELSEWHERE, resolver=names_of(inside=["127.0.0.1"]))
            for host, number in (("inside", server.port), ("inside", port), ("127.0.0.1", server.port))
        ]
    outcomes = {(*outcome(sent), sent.peer, sent.response_body, sent.connect_ms) for sent in refusals}
    assert outcomes == {(*FORBIDDEN, None, b"", None)}


def test_the_certificate_and_the_host_header_are_those_of_the_name(server_tls: ssl.SSLContext, ca_file: str) -> None:
    seen: list[bytes] = []

    def script(peer: Peer) -> None:
        seen.append(peer.read_request())
        peer.send(reply())

    resolver = names_of(localhost=["127.0.0.1"])
    with RawServer(script, context=server_tls) as server:
        sent = deliver(hook(server, "localhost"), ca_file=ca_file, resolver=resolver)
    assert outcome(sent) == (None, 200, True)
    assert sent.peer == "127.0.0.1"
    assert b"\r\nhost: localhost:%d\r\n" % server.port in seen[0]


@pytest.mark.parametrize("host", ["127.0.0.1", "other.internal"])
def test_a_certificate_for_another_name_is_refused(host: str, server_tls: ssl.SSLContext, ca_file: str) -> None:
    with RawServer(serves, context=server_tls) as server:
        resolver = names_of(other_internal=["127.0.0.1"])
        assert outcome(deliver(hook(server, host), ca_file=ca_file, resolver=resolver)) == ("tls_failed", None, False)


def test_a_self_signed_certificate_is_refused(server_tls: ssl.SSLContext) -> None:
    with RawServer(serves, context=server_tls) as server:
        resolver = names_of(localhost=["127.0.0.1"])
        assert outcome(deliver(hook(server, "localhost"), resolver=resolver)) == ("tls_failed", None, False)


def test_an_expired_certificate_is_refused(authority: trustme.CA, ca_file: str) -> None:
    expired = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost", not_after=datetime(2020, 1, 1, tzinfo=UTC)).configure_cert(expired)
    with RawServer(serves, context=expired) as server:
        sent = deliver(hook(server, "localhost"), ca_file=ca_file, resolver=names_of(localhost=["127.0.0.1"]))
    assert outcome(sent) == ("tls_failed", None, False)


def test_an_international_name_is_looked_up_and_asked_for_in_one_form() -> None:
    seen: list[str] = []

    def script(peer: Peer) -> None:
        seen.append(peer.read_request().decode())
        peer.send(reply())

    def resolver(host: str, port: int) -> list[str]:
        seen.append(host)
        return ["127.0.0.1"]

    with RawServer(script) as server:
        assert deliver(hook(server, "faß.internal"), resolver=resolver).error_code is None
    assert seen[0] == "xn--fa-hia.internal"
    assert f"host: xn--fa-hia.internal:{server.port}\r\n" in seen[1]


def test_the_systems_resolver_gives_numeric_addresses() -> None:
    assert "127.0.0.1" in look_up("localhost", 80)
    assert look_up("2130706433", 80) == ["127.0.0.1"]  # the reason to check resolved addresses only
    with pytest.raises(OSError):
        look_up("no-such-host.invalid", 80)
