"""One delivery attempt against receivers of every kind: the request, the answer, and the outcome's name."""

import asyncio
import gzip
import socket
import ssl
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from importlib.metadata import version

import pytest

from tests.net.raw_server import Peer, RawServer, wait_for
from tests.webhooks.net.receiver import BODY, LOOPBACK, SIGNED, deliver, hook, names_of, outcome, reply
from worker.webhooks.core.outcome import ReceiverControl, SendResult
from worker.webhooks.net import send as webhook
from worker.webhooks.net.progress import MAX_KEPT_BYTES
from worker.webhooks.net.resolver import Resolver
from worker.webhooks.net.send import WebhookClient, WebhookRequest, send


def answers(*pieces: bytes) -> Callable[[Peer], None]:
    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(*pieces)

    return script


def result(script: Callable[[Peer], None], *, timeout_s: float = 10.0) -> SendResult:
    with RawServer(script) as server:
        return deliver(hook(server), timeout_s=timeout_s)


def asked_with(headers: dict[str, str], body: bytes = BODY) -> bytes:
    seen: list[bytes] = []

    def script(peer: Peer) -> None:
        seen.append(peer.read_request())
        peer.send(reply())

    with RawServer(script) as server:
        assert deliver(hook(server), headers=headers, body=body).error_code is None
    return seen[0]


def test_the_request_is_the_body_as_it_is_with_the_callers_headers() -> None:
    head, _, body = asked_with(SIGNED | {"X-Team": "blue"}).partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"POST /hooks/x?a=1 HTTP/1.1"
    assert body == BODY
    assert {
        b"content-type: application/json",
        b"accept-encoding: identity",
        b"content-length: %d" % len(BODY),
        b"webhook-id: msg_1",
        b"webhook-timestamp: 1",
        b"webhook-signature: v1,c2ln",
        b"x-team: blue",
    } <= set(lines)


def test_the_user_agent_names_the_product_and_its_version() -> None:
    head = asked_with(SIGNED).partition(b"\r\n\r\n")[0].decode()
    (agent,) = [line.partition(": ")[2] for line in head.split("\r\n") if line.startswith("user-agent: ")]
    assert agent == f"afterword-webhooks/{version('afterword')}"


def test_headers_cannot_change_the_message() -> None:
    hostile = {
        "Host": "evil.example",
        "Content-Length": "1",
        "Transfer-Encoding": "chunked",
        "Connection": "upgrade",
        "Content-Type": "text/html",
        "Content-Encoding": "gzip",
        "Accept-Encoding": "gzip",
    }
    request = asked_with(SIGNED | hostile)
    assert not any(value.encode() + b"\r\n" in request for value in hostile.values() if value != "1")
    assert request.count(b"content-length: ") == 1
    assert request.endswith(BODY)


@pytest.mark.parametrize("value", ["a\r\nHost: evil", "a\nb", "a\rb", "a\0b"])
def test_a_header_that_would_break_out_of_its_line_is_not_sent(value: str) -> None:
    with RawServer(answers(reply())) as server:
        assert outcome(deliver(hook(server), headers={"X-Team": value})) == ("invalid_header", None, False)
    assert server.connections == 0


def test_a_body_of_a_quarter_megabyte_arrives_whole() -> None:
    body = b"x" * 256 * 1024
    assert asked_with(SIGNED, body).endswith(b"\r\n\r\n" + body)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("200 OK", None),
        ("201 Created", None),
        ("204 No Content", None),
        ("299 Fine", None),
        ("304 Not Modified", "redirect_not_followed"),
        ("308 Permanent Redirect", "redirect_not_followed"),
        ("400 Bad Request", "http_error"),
        ("410 Gone", "gone"),
        ("413 Content Too Large", "payload_too_large"),
        ("429 Too Many Requests", "rate_limited"),
        ("500 Internal Server Error", "http_error"),
        ("503 Service Unavailable", "unavailable"),
    ],
)
def test_the_status_of_the_final_response_decides(status: str, code: str | None) -> None:
    body = b"" if status[:3] in ("204", "304") else b"ok"
    sent = result(answers(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", reply(status, body=body)))
    assert outcome(sent) == (code, int(status[:3]), True)
    assert sent.response_body == body
    assert not sent.truncated
    assert sent.peer == "127.0.0.1"
    assert sent.ttfb_ms is not None


@pytest.mark.parametrize(
    ("ahead", "least_s", "most_s"),
    [(timedelta(hours=2), 7000.0, 7200.0), (timedelta(days=30), 2.5e6, 2.6e6)],
    ids=["hours", "days"],
)
def test_a_retry_after_is_read_as_a_date(ahead: timedelta, least_s: float, most_s: float) -> None:
    text = format_datetime(datetime.now(UTC) + ahead, usegmt=True)

    sent = result(answers(reply("503 Service Unavailable", f"Retry-After: {text}")))

    assert sent.retry_after_s is not None
    assert least_s <= sent.retry_after_s <= most_s


def test_a_retry_after_of_years_is_not_believed() -> None:
    text = format_datetime(datetime.now(UTC) + timedelta(days=3650), usegmt=True)

    assert result(answers(reply("503 Service Unavailable", f"Retry-After: {text}"))).retry_after_s is None


def test_a_retry_after_is_read_as_seconds() -> None:
    assert result(answers(reply("503 Service Unavailable", "Retry-After: 120"))).retry_after_s == 120.0


@pytest.mark.parametrize(
    "text",
    [
        "-5",
        "0",
        "1e99",
        "9" * 400,
        "soon",
        "",
        "Mon, 23 Nov 2020 12:00:00 GMT",
        "Mon, 23 Nov 99999999999999999999 12:00:00 GMT",
        "\x7f\x80",
    ],
    ids=["negative", "zero", "exponent", "long", "word", "empty", "past", "overflow", "bytes"],
)
def test_a_retry_after_that_is_garbage_or_past_is_ignored(text: str) -> None:
    sent = result(answers(reply("429 Too Many Requests", f"Retry-After: {text}")))
    assert (sent.retry_after_s, sent.http_status) == (None, 429)


@pytest.mark.parametrize(
    ("text", "control"),
    [
        ("disable", ReceiverControl.disable),
        (" Abort-Message ", ReceiverControl.abort_message),
        ("enable", None),
        ("", None),
    ],
)
@pytest.mark.parametrize("status", ["200 OK", "500 Internal Server Error"])
def test_the_receivers_wish_is_read_with_any_status(text: str, control: ReceiverControl | None, status: str) -> None:
    assert result(answers(reply(status, f"Webhook-Delivery: {text}"))).control is control


def test_few_headers_are_kept_cut_and_clean() -> None:
    sent = result(
        answers(reply("200 OK", "Content-Type: text/plain", "Set-Cookie: a=b", "X-Request-Id: \x1b[31m" + "r" * 9000))
    )
    assert sent.response_headers.keys() == {"content-type", "x-request-id"}
    assert sent.response_headers["x-request-id"] == "[31m" + "r" * 252


def test_the_start_of_a_long_body_is_kept_and_the_connection_left() -> None:
    """The receiver announces a gigabyte; the client reads a bounded part."""
    sent_bytes = 0

    def script(peer: Peer) -> None:
        nonlocal sent_bytes
        peer.read_request()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        block = b"x" * 65536
        try:
            while sent_bytes < 1_000_000_000:
                peer.send(block)
                sent_bytes += len(block)
        except OSError:
            return

    sent = result(script)
    assert outcome(sent) == (None, 200, True)
    assert sent.response_body == b"x" * MAX_KEPT_BYTES
    assert sent.truncated
    assert sent_bytes < 50_000_000  # two kernels on loopback buffer the difference


def test_a_compressed_body_is_not_unfolded() -> None:
    bomb = gzip.compress(b"\0" * 10_000_000)
    sent = result(answers(reply("200 OK", "Content-Encoding: gzip", body=bomb)))
    assert outcome(sent) == (None, 200, True)
    assert sent.response_body == bomb[:MAX_KEPT_BYTES]


@pytest.mark.parametrize(
    "pieces",
    [
        (b"garbage\r\n\r\n",),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 1_000_000 + b"\r\n\r\n",),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000 + b"\r\n",),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",),
    ],
    ids=["no HTTP", "a header of 1 MB", "1000 headers", "two lengths", "an upgrade"],
)
def test_an_answer_that_breaks_http_is_a_protocol_error(pieces: tuple[bytes, ...]) -> None:
    sent = result(answers(*pieces))
    assert str(sent.error_code) == "protocol_error"
    assert sent.sent


@pytest.mark.parametrize(
    "rest",
    [b"zz\r\nhello\r\n", b"5\r\nhel", b"5\r\nhello\r\n"],
    ids=["bad chunk", "cut chunk", "no last chunk"],
)
def test_a_body_that_breaks_off_does_not_undo_the_status(rest: bytes) -> None:
    head = b"HTTP/1.1 %b\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert outcome(result(answers(head % b"200 OK", rest))) == (None, 200, True)
    assert outcome(result(answers(head % b"500 Oh", rest))) == ("http_error", 500, True)


def closes_at_once(peer: Peer) -> None:
    pass


def reads_and_closes(peer: Peer) -> None:
    peer.read_request()


def reads_and_resets(peer: Peer) -> None:
    peer.read_request()
    peer.reset()


def half_a_head(peer: Peer) -> None:
    peer.read_request()
    peer.send(b"HTTP/1.1 200 O")


@pytest.mark.parametrize("script", [closes_at_once, reads_and_closes, reads_and_resets, half_a_head])
def test_a_lost_connection_is_ambiguous(script: Callable[[Peer], None]) -> None:
    assert outcome(result(script)) == ("connection_lost", None, True)


def test_a_refused_connection_was_not_sent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert outcome(deliver(f"http://127.0.0.1:{port}/")) == ("connect_failed", None, False)


def drips_head(peer: Peer) -> None:
    peer.read_request()
    peer.drip(*(bytes([byte]) for byte in b"HTTP/1.1 200 OK\r\n" + b"X-Slow: y\r\n" * 1000), every_s=0.02)


def floods_with_1xx(peer: Peer) -> None:
    peer.read_request()
    peer.drip(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 10, every_s=0.001)


def says_nothing(peer: Peer) -> None:
    peer.read_request()
    peer.ended()


def reads_nothing(peer: Peer) -> None:
    peer.wait(0.5)


@pytest.mark.parametrize("script", [drips_head, floods_with_1xx, says_nothing])
def test_the_total_deadline_holds_until_the_final_head(script: Callable[[Peer], None]) -> None:
    sent = result(script, timeout_s=0.3)
    assert outcome(sent) == ("timeout", None, True)


def test_the_total_deadline_holds_while_the_receiver_does_not_read() -> None:
    with RawServer(reads_nothing) as server:
        sent = deliver(hook(server), body=b"x" * 20_000_000, timeout_s=0.2)
    assert outcome(sent) == ("timeout", None, True)


@pytest.mark.parametrize(("status", "code"), [("200 OK", None), ("500 Oh", "http_error")])
def test_a_dripped_body_ends_by_the_total_deadline_and_the_status_counts(status: str, code: str | None) -> None:
    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(f"HTTP/1.1 {status}\r\nContent-Length: 100000\r\n\r\n".encode())
        peer.drip(b"x", every_s=0.02)

    sent = result(script, timeout_s=0.3)
    assert outcome(sent) == (code, int(status[:3]), True)
    assert sent.truncated
    assert sent.response_body.startswith(b"x")


def test_a_full_backlog_is_a_connect_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        address = listener.getsockname()
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(address)
        sent = deliver(f"http://127.0.0.1:{address[1]}/", timeout_s=0.2)
        for filler in fillers:
            filler.close()
    assert outcome(sent) == ("connect_timeout", None, False)


def test_connecting_has_a_deadline_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "CONNECT_S", 0.1)
    with RawServer(lambda peer: peer.ended()) as server:
        sent = deliver(hook(server).replace("http:", "https:"), timeout_s=60.0)
    assert outcome(sent) == ("connect_timeout", None, False)
    assert sent.elapsed_s < 30


def test_a_lookup_has_a_deadline_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "DNS_S", 0.1)
    release = threading.Event()

    def silent(host: str, port: int) -> list[str]:
        release.wait(30)
        return ["127.0.0.1"]

    sent = deliver("http://a.internal/", resolver=silent, timeout_s=60.0)
    release.set()
    assert outcome(sent) == ("dns_timeout", None, False)
    assert sent.elapsed_s < 30


def test_a_silent_tls_peer_is_a_connect_timeout() -> None:
    with RawServer(lambda peer: peer.ended()) as server:
        sent = deliver(hook(server).replace("http:", "https:"), timeout_s=0.2)
    assert outcome(sent) == ("connect_timeout", None, False)


def test_a_peer_without_tls_is_a_tls_failure() -> None:
    with RawServer(lambda peer: peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as server:
        assert outcome(deliver(hook(server).replace("http:", "https:"))) == ("tls_failed", None, False)


def test_a_cancelled_delivery_leaves_its_connection_at_once() -> None:
    began, left = threading.Event(), threading.Event()

    def script(peer: Peer) -> None:
        peer.read_request()
        began.set()
        peer.ended()
        left.set()

    async def run(url: str) -> None:
        async with WebhookClient(LOOPBACK) as client:
            task = asyncio.create_task(send(client, WebhookRequest(url, BODY, SIGNED, 60.0)))
            await asyncio.to_thread(wait_for, began.is_set, "the request")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.to_thread(wait_for, left.is_set, "the end of the connection")

    with RawServer(script) as server:
        asyncio.run(run(hook(server)))


def test_a_kept_connection_that_has_died_costs_no_attempt() -> None:
    closed = threading.Event()

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(reply())
        if peer.number == 1:
            peer.sock.close()
            closed.set()

    async def twice(url: str) -> list[SendResult]:
        async with WebhookClient(LOOPBACK) as client:
            first = await send(client, WebhookRequest(url, BODY, SIGNED))
            closed.wait(10)  # blocks the loop, so it has read nothing when the second delivery begins
            return [first, await send(client, WebhookRequest(url, BODY, SIGNED))]

    with RawServer(script) as server:
        assert [outcome(sent) for sent in asyncio.run(twice(hook(server)))] == [(None, 200, True)] * 2
        assert server.connections == 2


def test_the_time_of_tls_is_a_part_of_the_connects(server_tls: ssl.SSLContext, ca_file: str) -> None:
    def slow_handshake(peer: Peer) -> None:
        peer.wait(0.2)
        with server_tls.wrap_socket(peer.sock, server_side=True) as peer.sock:
            for _ in range(2):
                peer.read_request()
                peer.send(reply())

    async def twice(url: str) -> list[SendResult]:
        async with WebhookClient(
            LOOPBACK, names=Resolver(names_of(localhost=["127.0.0.1"])), ca_file=ca_file
        ) as client:
            return [await send(client, WebhookRequest(url, BODY, SIGNED)) for _ in range(2)]

    with RawServer(slow_handshake) as server:
        first, kept = asyncio.run(twice(f"https://localhost:{server.port}/"))
    assert first.connect_ms is not None
    assert first.tls_ms is not None
    assert 200 <= first.tls_ms <= first.connect_ms
    assert (kept.http_status, kept.connect_ms, kept.tls_ms) == (200, None, None)


def test_without_tls_no_time_of_tls_is_kept() -> None:
    sent = result(answers(reply()))
    assert (sent.connect_ms is None, sent.tls_ms) == (False, None)


def test_an_unreadable_ca_file_is_named() -> None:
    with pytest.raises(ValueError, match=r"ca_file of webhooks is /no/such/file\.pem"):
        WebhookClient(LOOPBACK, ca_file="/no/such/file.pem")


def test_nothing_secret_is_in_the_repr_of_a_request() -> None:
    request = WebhookRequest("https://example.com/?token=hunter2", b"hunter2", {"Authorization": "hunter2"})
    assert "hunter2" not in repr(request)
