"""A TCP server on loopback that follows a script exactly, down to single bytes, FIN and RST."""

import contextlib
import fcntl
import select
import socket
import ssl
import struct
import termios
import threading
import time
from collections.abc import Callable, Iterator
from typing import Self

PATIENCE_S = 10.0


class Peer:
    """One accepted connection, handled by one thread."""

    def __init__(self, sock: socket.socket, number: int) -> None:
        self.sock = sock
        self.number = number
        self._unread = b""

    def read_request(self) -> bytes:
        """Return one whole request, head and body; b"" if the client closed instead."""
        head = self._read_until(b"\r\n\r\n")
        if head is None:
            return b""
        return head + self._read(content_length(head))

    def read_head(self) -> bytes:
        """Return the head of a request and leave the body in the kernel."""
        return self._read_until(b"\r\n\r\n") or b""

    def send(self, *pieces: bytes) -> None:
        """Send pieces, each in its own packet."""
        for count, piece in enumerate(pieces):
            if count:
                self.settle()
            self.sock.sendall(piece)

    def reset(self) -> None:
        """Close with RST."""
        raw = self.sock.detach() if isinstance(self.sock, ssl.SSLSocket) else None
        sock = socket.socket(fileno=raw) if raw is not None else self.sock
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()

    def settle(self) -> None:
        """Wait until the client's kernel has received all sent bytes and its process had a moment to read them."""
        unsent = bytearray(4)
        deadline = time.monotonic() + 0.5  # a client that has closed acknowledges nothing
        while time.monotonic() < deadline and (
            fcntl.ioctl(self.sock.fileno(), termios.TIOCOUTQ, unsent) or any(unsent)
        ):
            time.sleep(0.001)
        self.wait(0.02)

    def wait(self, for_s: float) -> None:
        """Wait without a word: the test needs a peer that does nothing."""
        time.sleep(for_s)

    def ended(self) -> str:
        """Wait until the client ends the connection; return "fin" or "rst"."""
        try:
            while self.sock.recv(65536):
                pass
        except (ConnectionError, ssl.SSLError):
            return "rst"
        return "fin"

    def drip(self, *pieces: bytes, every_s: float, at_most: int = 10_000) -> int:
        """Repeat pieces at an interval until the client closes; return the number of sent pieces."""
        for count in range(at_most):
            readable, _, _ = select.select([self.sock], [], [], every_s)
            if readable:
                return count
            try:
                self.send(pieces[count % len(pieces)])
            except OSError:
                return count
        return at_most

    def _read_until(self, mark: bytes) -> bytes | None:
        while mark not in self._unread:
            piece = self.sock.recv(65536)
            if not piece:
                return None
            self._unread += piece
        head, _, self._unread = self._unread.partition(mark)
        return head + mark

    def _read(self, size: int) -> bytes:
        while len(self._unread) < size:
            piece = self.sock.recv(65536)
            if not piece:
                raise ConnectionError(f"the client sent {len(self._unread)} of {size} bytes")
            self._unread += piece
        body, self._unread = self._unread[:size], self._unread[size:]
        return body


class RawServer:
    """Runs `script(peer)` for every connection. Leaving the context raises the error of a script again."""

    def __init__(self, script: Callable[[Peer], None], *, context: ssl.SSLContext | None = None) -> None:
        self._script = script
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self._errors: list[BaseException] = []

    @property
    def url(self) -> str:
        """The URL for a POST; the test certificate names its host."""
        return f"{'https' if self._context else 'http'}://localhost:{self.port}/v1/chat/completions"

    def __enter__(self) -> Self:
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join(PATIENCE_S)
        for thread in self._threads:
            thread.join(PATIENCE_S)
        for sock in self._sockets:
            sock.close()
        if self._errors and kind is None:
            raise self._errors[0]

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            sock.settimeout(PATIENCE_S)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            thread = threading.Thread(target=self._serve, args=(sock, self.connections), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket, number: int) -> None:
        try:
            if self._context is not None:
                sock = self._context.wrap_socket(sock, server_side=True)
            self._sockets.append(sock)
            self._script(Peer(sock, number))
        except (ssl.SSLError, ConnectionError):
            pass  # the client refused us or closed; the tests check the client's side
        except BaseException as error:
            self._errors.append(error)
        finally:
            with contextlib.suppress(OSError):
                sock.close()


def content_length(head: bytes) -> int:
    """Return the Content-Length of a head, 0 without one."""
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Wait until `condition` holds, at most PATIENCE_S."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {PATIENCE_S} s"
        time.sleep(0.002)


@contextlib.contextmanager
def full_backlog() -> Iterator[str]:
    """Yield the URL of a server whose backlog is full: further connections get no answer."""
    with contextlib.ExitStack() as open_sockets:
        listener = open_sockets.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        # A backlog of 0 holds one connection.
        for _ in range(3):
            filler = open_sockets.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
