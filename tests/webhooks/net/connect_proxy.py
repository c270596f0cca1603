"""A small CONNECT proxy with a password, like the proxy between a company's servers and the internet."""

import base64
import contextlib
import socket
import threading
from collections.abc import Callable

from tests.net.raw_server import Peer, RawServer

USER, PASSWORD = "worker", "p@ss word"
_EXPECTED = b"proxy-authorization: basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).lower()


def connect_proxy(asked: list[bytes]) -> RawServer:
    """Return a proxy that opens tunnels for clients with the password and appends each request line to `asked`."""

    def script(peer: Peer) -> None:
        head = peer.read_head()
        asked.append(head.split(b"\r\n")[0])
        if _EXPECTED not in head.lower():
            peer.send(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            return
        host, _, port = head.split(b" ")[1].decode().rpartition(":")
        with socket.create_connection((host, int(port))) as upstream:
            peer.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=_pump, args=(upstream.recv, peer.sock.sendall, peer.sock), daemon=True)
            back.start()
            _pump(peer.sock.recv, upstream.sendall, upstream)
            back.join()

    return RawServer(script)


def _pump(receive: Callable[[int], bytes], send: Callable[[bytes], object], to: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := receive(65536):
            send(piece)
        to.shutdown(socket.SHUT_WR)
