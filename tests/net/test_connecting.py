"""A failure before the connection is open never reached the endpoint; TLS and proxies are settings of the endpoint."""

import asyncio
import socket
import ssl
from pathlib import Path
from urllib.parse import quote

import pytest
import trustme

from tests.net.raw_server import Peer, RawServer
from tests.net.wire import answer, code, endpoint, once
from tests.webhooks.net.connect_proxy import PASSWORD, USER, connect_proxy
from worker.jobs.net.call import TransportKind, open_client
from worker.jobs.net.progress import Reply


def serves(peer: Peer) -> None:
    while peer.read_request():
        peer.send(answer())


def is_not_sent(reply: Reply, *codes: str) -> bool:
    failure = reply.failure
    assert failure is not None
    assert code(reply) in codes
    return (reply.sent, failure.billed, failure.trouble) == (False, "no", "endpoint")


def test_a_refused_connection_was_not_sent(kind: TransportKind) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert is_not_sent(once(endpoint(f"http://127.0.0.1:{port}/"), kind), "connect_failed")


def test_an_unknown_host_was_not_sent(kind: TransportKind) -> None:
    assert is_not_sent(once(endpoint("http://no-such-host.invalid/"), kind), "dns_failed")


def test_a_full_backlog_ends_by_the_connect_deadline(kind: TransportKind) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        address = listener.getsockname()
        # A backlog of 0 holds one connection; further connections get no answer.
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(address)
        reply = once(endpoint(f"http://127.0.0.1:{address[1]}/", connect_s=0.1), kind)
        for filler in fillers:
            filler.close()
    assert is_not_sent(reply, "connect_timeout")


def test_a_silent_tls_peer_ends_by_the_connect_deadline(kind: TransportKind) -> None:
    with RawServer(lambda peer: peer.ended()) as server:
        reply = once(endpoint(server.url.replace("http:", "https:"), connect_s=0.1), kind)
    assert is_not_sent(reply, "connect_timeout")


def test_a_peer_without_tls_was_not_sent_the_request(kind: TransportKind) -> None:
    with RawServer(lambda peer: peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as server:
        reply = once(endpoint(server.url.replace("http:", "https:")), kind)
    assert is_not_sent(reply, "tls_failed")


def test_a_reset_within_the_handshake_was_not_sent(kind: TransportKind) -> None:
    with RawServer(lambda peer: peer.reset()) as server:
        reply = once(endpoint(server.url.replace("http:", "https:")), kind)
    assert is_not_sent(reply, "connect_failed", "tls_failed")


def test_an_untrusted_certificate_was_not_sent(kind: TransportKind, server_tls: ssl.SSLContext) -> None:
    with RawServer(serves, context=server_tls) as server:
        assert is_not_sent(once(endpoint(server.url), kind), "tls_failed")


def test_a_private_authority_is_trusted_by_its_file(
    kind: TransportKind, server_tls: ssl.SSLContext, ca_file: str
) -> None:
    with RawServer(serves, context=server_tls) as server:
        assert once(endpoint(server.url, ca_file=ca_file), kind).failure is None


def test_a_certificate_for_another_name_was_not_sent(
    kind: TransportKind, server_tls: ssl.SSLContext, ca_file: str
) -> None:
    with RawServer(serves, context=server_tls) as server:
        wrong = server.url.replace("localhost", "127.0.0.1")
        assert is_not_sent(once(endpoint(wrong, ca_file=ca_file), kind), "tls_failed")


def test_a_client_certificate_is_shown(
    kind: TransportKind, authority: trustme.CA, ca_file: str, tmp_path: Path
) -> None:
    demanding = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(demanding)
    authority.configure_trust(demanding)
    demanding.verify_mode = ssl.CERT_REQUIRED
    ours = authority.issue_cert("worker@example.org")
    ours.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    ours.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    files = {"cert_file": str(tmp_path / "cert.pem"), "cert_key_file": str(tmp_path / "key.pem")}
    with RawServer(serves, context=demanding) as server:
        assert once(endpoint(server.url, ca_file=ca_file, **files), kind).failure is None
        without = once(endpoint(server.url, ca_file=ca_file), kind)
    # In TLS 1.3 a client learns only after the handshake that its certificate is missing.
    assert code(without) == "connection_lost"


@pytest.mark.parametrize("setting", ["ca_file", "cert_file"])
def test_an_unreadable_tls_file_is_named_at_start(setting: str, tmp_path: Path) -> None:
    (tmp_path / "bad.pem").write_text("no certificate")
    with pytest.raises(ValueError, match=f"{setting} of endpoint test is .*bad.pem"):
        open_client(endpoint("https://localhost/", **{setting: str(tmp_path / "bad.pem")}))


def test_https_goes_through_a_connect_proxy(kind: TransportKind, server_tls: ssl.SSLContext, ca_file: str) -> None:
    asked: list[bytes] = []
    with RawServer(serves, context=server_tls) as server, connect_proxy(asked) as proxy:
        through = f"http://{USER}:{quote(PASSWORD)}@localhost:{proxy.port}"
        reply = once(endpoint(server.url, ca_file=ca_file, proxy=through), kind)
        assert reply.failure is None
        assert reply.sent
    assert asked == [b"CONNECT localhost:%d HTTP/1.1" % server.port]


def test_a_tunnel_is_reused(server_tls: ssl.SSLContext, ca_file: str) -> None:
    async def twice(url: str, through: str) -> None:
        where = endpoint(url, ca_file=ca_file, proxy=through)
        async with open_client(where) as client:
            for _ in range(2):
                await client.post(url, content=b"{}")

    asked: list[bytes] = []
    with RawServer(serves, context=server_tls) as server, connect_proxy(asked) as proxy:
        asyncio.run(twice(server.url, f"http://{USER}:{quote(PASSWORD)}@localhost:{proxy.port}"))
    assert len(asked) == server.connections == 1


def test_plain_http_goes_to_the_proxy_with_its_whole_address(kind: TransportKind) -> None:
    seen: list[bytes] = []

    def script(peer: Peer) -> None:
        seen.append(peer.read_request())
        peer.send(answer())

    with RawServer(script) as proxy:
        reply = once(endpoint("http://api.invalid/v1/x", proxy=f"http://u:secret-pw@localhost:{proxy.port}"), kind)
    assert reply.failure is None
    assert seen[0].startswith(b"POST http://api.invalid/v1/x HTTP/1.1\r\n")
    assert b"proxy-authorization: basic dtpzzwnyzxqtchc=" in seen[0].lower()


def test_a_proxy_that_refuses_was_not_sent(kind: TransportKind, server_tls: ssl.SSLContext, ca_file: str) -> None:
    with RawServer(serves, context=server_tls) as server, connect_proxy([]) as proxy:
        wrong = f"http://{USER}:wrong-password@localhost:{proxy.port}"
        reply = once(endpoint(server.url, ca_file=ca_file, proxy=wrong), kind)
    assert is_not_sent(reply, "proxy_failed")
    assert "wrong-password" not in repr(reply)


def test_a_proxy_that_is_down_was_not_sent(kind: TransportKind) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    reply = once(endpoint("https://localhost:1/", proxy=f"http://127.0.0.1:{port}"), kind)
    assert is_not_sent(reply, "proxy_failed", "connect_failed")


def test_a_silent_proxy_ends_by_the_connect_deadline() -> None:
    with RawServer(lambda peer: peer.ended()) as proxy:
        reply = once(endpoint("https://localhost:1/", proxy=f"http://localhost:{proxy.port}", connect_s=0.1), "aiohttp")
    assert is_not_sent(reply, "connect_timeout")


@pytest.mark.parametrize("changes", [{"url": "ftp://localhost/"}, {"headers": {"X-Team": "a\r\nHost: evil"}}])
def test_settings_no_request_can_be_made_of_are_named(changes: dict[str, str], kind: TransportKind) -> None:
    seen: list[bytes] = []
    with RawServer(lambda peer: seen.append(peer.read_request())) as server:
        reply = once(endpoint(**({"url": server.url} | changes)), kind)
    assert code(reply) == "misconfigured"
    assert reply.failure is not None
    assert (reply.failure.billed, reply.failure.trouble) == ("no", "endpoint")
    assert not any(seen)


def test_a_guarding_socket_factory_sees_the_numeric_address(server_tls: ssl.SSLContext) -> None:
    import httpx

    from worker.net.transport import AiohttpTransport

    seen: list[object] = []

    def refuse(info: tuple[object, ...]) -> socket.socket:
        seen.append(info[4])
        raise OSError("not this one")

    async def run(url: str) -> None:
        async with httpx.AsyncClient(transport=AiohttpTransport(server_tls, socket_factory=refuse)) as client:
            with pytest.raises(httpx.ConnectError):
                await client.post(url)

    with RawServer(serves) as server:
        asyncio.run(run(server.url))
    assert ("127.0.0.1", server.port) in seen
    assert server.connections == 0
