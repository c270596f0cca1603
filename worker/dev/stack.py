"""Run all parts of Afterword on this machine: Redis, SQLite with its tables, a fake endpoint, a worker."""

import contextlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from typing import IO
from urllib.parse import quote

from worker.dev.fake_endpoint import FakeEndpoint
from worker.dev.redis import RedisServer
from worker.settings import Settings, child_environment
from worker.settings.sources import PREFIX
from worker.store import leases, migrate
from worker.store.engine import open_engine
from worker.webhooks.vault import new_master_key

READY_S = 30.0
STOP_S = 15.0


class DidNotStart(RuntimeError):
    """A part did not start; the message names the part and ends with its log."""


@dataclass
class Stack:
    """The parts that `start` starts and `stop` stops. `given` has the settings of parts that exist already.

    With a `folder`, the database and Redis stay there; without, they are in a temporary folder that `stop` deletes.
    """

    given: Settings = field(default_factory=Settings)
    folder: Path | None = None
    fake: FakeEndpoint = field(default_factory=FakeEndpoint)
    redis: RedisServer | None = None
    worker: "subprocess.Popen[bytes] | None" = None
    _home: Path = field(default_factory=Path)

    def start(self) -> "Stack":
        """Start the parts that are not given, and migrate the database."""
        self._home = self.folder or Path(tempfile.mkdtemp(prefix="afterword-"))
        self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.given.redis_url is None:
            is_kept = self.folder is not None
            self.redis = RedisServer(folder=self._home / "redis", appendonly=is_kept, password=token_hex(16)).start()
        if self.given.endpoint is None:
            self.fake.start()
        self._make_private()
        engine = open_engine(self.database_url, schema=self.given.database_schema)
        try:
            migrate.upgrade(engine, schema=self.given.database_schema)
        finally:
            engine.dispose()
        return self

    def _make_private(self) -> None:
        """Let only the owner read files with prompts, answers and log lines, also in a folder of an earlier run."""
        for path in (self._home / "afterword.db", self.log):
            path.touch(mode=0o600)
            path.chmod(0o600)

    @property
    def database_url(self) -> str:
        return self.given.database_url or f"sqlite:///{quote(str(self._home / 'afterword.db'))}"

    @property
    def redis_url(self) -> str:
        return self.given.redis_url or (self.redis.url if self.redis else "")

    @property
    def log(self) -> Path:
        """The worker's log file, unless the worker logs to the terminal."""
        return self._home / "worker.log"

    def exports(self) -> dict[str, str]:
        """Return the environment variables with which another process can use these parts."""
        variables = {f"{PREFIX}DATABASE_URL": self.database_url, f"{PREFIX}REDIS_URL": self.redis_url}
        if self.given.endpoint is None:
            variables |= {f"{PREFIX}ENDPOINT_URL": self.fake.url, f"{PREFIX}ENDPOINT_KEY": "sk-fake"}
        if not self.given.secret_keys:
            variables[f"{PREFIX}SECRET_KEYS"] = self._master_key()
        # Allow receivers on this machine, because users try those first.
        variables |= {f"{PREFIX}WEBHOOK_ALLOW_HTTP": "true", f"{PREFIX}WEBHOOK_ALLOW_CIDRS": "127.0.0.0/8"}
        return variables | {f"{PREFIX}WEBHOOK_ALLOW_URLS": "true"}

    def _master_key(self) -> str:
        """Return the master key of the receivers' secrets, from a file beside the database."""
        path = self._home / "secret.key"
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text(new_master_key(), encoding="ascii")
        return path.read_text(encoding="ascii")

    def start_worker(self, *, keep: tuple[str, ...] = (), out: IO[bytes] | None = None, **settings: str) -> None:
        """Start a worker and wait until its lease is in the database. Raises DidNotStart with the end of its log.

        The worker inherits our settings with a prefix of `keep`; `settings` are additional settings.
        """
        changes = self.exports() | {f"{PREFIX}{name.upper()}": text for name, text in settings.items()}
        with contextlib.ExitStack() as files:
            sink = out or files.enter_context(self.log.open("ab"))
            # A new session, because Ctrl-C must reach only this process; it stops the parts in order.
            self.worker = subprocess.Popen(
                [sys.executable, "-m", "worker.cli", "worker"],
                env=child_environment(changes, keep=keep),
                cwd=self._home,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                start_new_session=True,
                umask=0o077,
            )
        self._await_lease(self.worker)

    def _await_lease(self, worker: "subprocess.Popen[bytes]") -> None:
        engine = open_engine(self.database_url, schema=self.given.database_schema)
        give_up = time.monotonic() + READY_S
        try:
            while time.monotonic() < give_up and worker.poll() is None:
                with engine.connect() as connection:
                    if leases.living_workers(connection):
                        return
                time.sleep(0.05)
        finally:
            engine.dispose()
        raise DidNotStart(f"the worker did not start; the end of its log:\n{self.log_end()}")

    def worker_lives(self) -> bool:
        """Return whether the worker still runs."""
        return self.worker is not None and self.worker.poll() is None

    def log_end(self, lines: int = 20) -> str:
        """Return the last lines of the worker's log."""
        text = self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def stop(self) -> None:
        """Stop the started parts, the worker first, and delete the temporary folder."""
        if self.worker is not None:
            _end(self.worker)
            self.worker = None
        self.fake.stop()
        if self.redis is not None:
            self.redis.stop(kill=self.folder is None)
        if self.folder is None:
            shutil.rmtree(self._home, ignore_errors=True)


def _end(child: "subprocess.Popen[bytes]") -> None:
    child.terminate()
    try:
        child.wait(timeout=STOP_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


@contextlib.contextmanager
def running_stack(stack: Stack) -> Iterator[Stack]:
    """Start a stack and always stop it, also after SIGTERM or a closed terminal."""
    before = {number: signal.signal(number, _leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield stack.start()
    finally:
        for number in before:
            signal.signal(number, signal.SIG_IGN)  # a second signal must not interrupt the cleanup
        interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
        stack.stop()
        for number, former in (*before.items(), (signal.SIGINT, interrupt)):
            signal.signal(number, former)


def _leave(number: int, _: object) -> None:
    raise SystemExit(128 + number)
