"""A local receiver of webhooks: keeps requests, gives configurable answers, verifies signatures with given secrets."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from afterword import WebhookVerificationError, verify_webhook


@dataclass(frozen=True, slots=True)
class Received:
    """A request; header names are lower-case. `event` is None without a secret or with a wrong signature."""

    path: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    event: Mapping[str, Any] | None
    fault: str | None


@dataclass(frozen=True, slots=True)
class ReceiverAnswer:
    """The answer to a request."""

    status: int = 204
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


class WebhookReceiver:
    """A server on a loopback port from `start` to `stop`. `answer(received)` returns the answer, or None to hang up.

    `secrets`: a list of `whsec_…` or `whpk_…` to verify each request on arrival.
    """

    def __init__(
        self, *, answer: Callable[[Received], ReceiverAnswer | None] = lambda _: ReceiverAnswer(), port: int = 0
    ) -> None:
        self.answer = answer
        self.secrets: tuple[str, ...] = ()
        self.received: list[Received] = []
        self._lock = threading.Lock()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                length = int(self.headers.get("content-length", 0))
                received = receiver._receive(self.path, dict(self.headers.items()), self.rfile.read(length))
                answer = receiver.answer(received)
                if answer is None:
                    self.close_connection = True
                    return
                self.send_response(answer.status)
                for name, value in {"content-length": str(len(answer.body)), **answer.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer.body)

            def log_message(self, *_: object) -> None:
                """Log nothing, because `received` keeps the requests."""

        class Server(ThreadingHTTPServer):
            # The backlog of new connections; all workers may connect at once.
            request_queue_size = 256

            def handle_error(self, *_: object) -> None:
                """Log nothing if a caller did not wait for its answer."""

        self._server = Server(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/hooks"

    def start(self) -> Self:
        """Start listening."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _receive(self, path: str, headers: Mapping[str, str], body: bytes) -> Received:
        named = {name.lower(): value for name, value in headers.items()}
        event, fault = None, None
        if self.secrets:
            try:
                event = verify_webhook(body, named, self.secrets)
            except WebhookVerificationError as error:
                fault = str(error)
        received = Received(path, named, body, event, fault)
        with self._lock:
            self.received.append(received)
        return received
