"""A receiver of webhooks on a raw socket. It stops a worker before the TLS handshake or before the answer."""

import ssl
import threading
from collections.abc import Callable
from typing import Self

from tests.net.raw_server import Peer, RawServer
from worker.dev.receiver import Received

PATIENCE_S = 30.0
ANSWER = "HTTP/1.1 {} Said\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok"


class RawReceiver:
    """Answers with the status that `says` returns and lets the worker close; then `read` counts one more answer read.

    With `tls` it speaks TLS, but its first `shut` connections get no byte before `open()`. The first `holds` requests
    are read and answered only after `open()`.
    """

    def __init__(
        self,
        *,
        tls: ssl.SSLContext | None = None,
        shut: int = 0,
        holds: int = 0,
        says: Callable[[Received], int] = lambda _: 200,
    ) -> None:
        self._tls, self._shut, self._holds, self._says = tls, shut, holds, says
        self._opened, self._lock = threading.Event(), threading.Lock()
        self._server = RawServer(self._serve)
        self.received: list[Received] = []
        self.read = 0

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._server.port}/hooks"

    @property
    def connections(self) -> int:
        """The number of accepted connections, served or not."""
        return self._server.connections

    def open(self) -> None:
        """Let all waiting connections go on, and stop no more."""
        self._opened.set()

    def __enter__(self) -> Self:
        self._server.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self.open()
        self._server.__exit__(kind, *rest)

    def _serve(self, peer: Peer) -> None:
        if peer.number <= self._shut:
            self._opened.wait(PATIENCE_S)
        if self._tls is None:
            self._answer(peer)
            return
        with self._tls.wrap_socket(peer.sock, server_side=True) as sock:
            self._answer(Peer(sock, peer.number))

    def _answer(self, peer: Peer) -> None:
        wire = peer.read_request()
        if not wire:
            return  # the worker closed the connection
        got = _received(wire)
        with self._lock:
            self.received.append(got)
            held = len(self.received) <= self._holds
        if held:
            self._opened.wait(PATIENCE_S)
        peer.send(ANSWER.format(self._says(got)).encode())
        if peer.ended() == "fin":
            with self._lock:
                self.read += 1


def _received(wire: bytes) -> Received:
    head, _, body = wire.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Received(first.split()[1], headers, body, None, None)
