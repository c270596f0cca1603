"""Real worker processes for tests: started, watched through their output, and always ended by process id."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from redis import Redis, RedisError

from tests.pool.forks import ROOT, Forked
from worker.queue.nudges import nudge, push_nudges

UVLOOP = pytest.mark.skipif(find_spec("uvloop") is None, reason="uvloop is optional and not installed")
PATIENCE_S = 60.0


def until(condition: Callable[[], Any], *, what: str = "the condition", seconds: float = PATIENCE_S) -> Any:
    """Return the first true value of `condition`, or fail after `seconds`."""
    began = time.monotonic()
    while (waited_s := time.monotonic() - began) < seconds:
        if value := condition():
            return value
        # Most conditions are queries: ask less often as time passes, and be at most a tenth late.
        time.sleep(min(max(0.005, waited_s / 10), 0.03))
    raise AssertionError(f"{what} did not happen within {seconds} s")


class Toy:
    """Redis of the toy application (parts, log, queues) and the worker processes that a test starts."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.redis = Redis.from_url(url)
        self.children: list[Child] = []
        # A client of the same exchanges, like `celery -A worker.app`.
        self.app = Celery(broker=url, set_as_current=False)
        self.app.conf.control_exchange = "afterword"

    def start(self, *arguments: str, module: str = "tests.pool.toy", ready: bool = True, **environment: str) -> "Child":
        """Start `celery -A tests.pool.toy worker ARGUMENTS` and return when it is ready."""
        before, listeners = (len(self.events("ready")), self.redis.pubsub_numpat()) if ready else (0, 0)
        settings = {f"TOY_{name}": value for name, value in environment.items()}
        child = celery_worker(
            module,
            "-l",
            "INFO",
            *arguments,
            log=self.folder / f"worker-{len(self.children)}.log",
            environment={**self.environment(), **settings},
            # A foreign application has none of our modules loaded.
            forked=module == "tests.pool.toy",
        )
        self.children.append(child)
        if ready:
            until(lambda: len(self.events("ready")) > before or child.ended(), what="the worker's start")
            # The worker subscribes to the control exchange at the first turn of the hub, after Celery's "ready".
            until(lambda: self.redis.pubsub_numpat() > listeners or child.ended(), what="the control exchange")
            assert not child.ended(), child.text()
        return child

    def environment(self) -> dict[str, str]:
        return {**os.environ, "TOY_REDIS": self.url, "PYTHONUNBUFFERED": "1"}

    def row(self, **part: Any) -> str:
        """Return the id of a new row that plays `part`."""
        row = str(uuid.uuid4())
        if part:
            self.redis.hset("toy:parts", row, json.dumps(part))
        return row

    def push(self, *rows: str, queue: str = "chat.run", priority: int = 5) -> list[str]:
        """Push nudges for rows; return the Celery ids."""
        entries = [nudge(row, 1) for row in rows]
        assert push_nudges(self.redis, queue, [(priority, entry) for entry in entries], room=1_000_000) == len(rows)
        return [entry.decode() for entry in entries]

    def open(self, gate: str) -> None:
        """Let all rows that wait at this gate go on."""
        self.redis.set(gate, 1)

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.redis.lrange("toy:log", 0, -1)]

    def events(self, event: str) -> list[dict[str, Any]]:
        return [entry for entry in self.log() if entry["event"] == event]

    def await_events(self, event: str, count: int, *, seconds: float = PATIENCE_S) -> list[dict[str, Any]]:
        """Return the events of this kind when there are at least `count`."""
        until(lambda: len(self.events(event)) >= count, what=f"{count} x {event!r}", seconds=seconds)
        return self.events(event)

    def inspected(self, question: str) -> Any:
        """Return a worker's answer to `celery inspect`; ask again if Celery's client lost its connection."""
        answers: list[Any] = []

        def answered() -> bool:
            # A new connection: the server may have closed a connection in Celery's pool.
            with self.app.connection_for_write() as connection:
                try:
                    ask = self.app.control.inspect(timeout=5, limit=1, connection=connection)
                    answers.append(getattr(ask, question)())
                except RedisError:
                    return False
            return answers[-1] is not None

        until(answered, what=f"an answer to {question}")
        return answers[-1]

    def rejected(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.redis.lrange("afterword:rejected", 0, -1)]

    def close(self) -> None:
        """End all processes that still run."""
        for child in self.children:
            child.kill()
        self.app.close()
        self.redis.close()


def celery_worker(
    application: str,
    *arguments: str,
    log: Path,
    environment: dict[str, str],
    forked: bool = True,
    folder: Path = ROOT,
) -> "Child":
    """Start `celery -A APPLICATION worker ARGUMENTS`, forked with its libraries loaded or as a new Python.

    `folder` is the working directory of a new Python; it decides which release is imported.
    """
    words = ["-A", application, "worker", *arguments]
    if forked:
        return ForkedChild(words, log=log, environment=environment)
    return Child([sys.executable, "-m", "celery", *words], log=log, environment=environment, folder=folder)


class Child:
    """One process."""

    process: "subprocess.Popen[bytes] | Forked"

    def __init__(self, command: list[str], *, log: Path, environment: dict[str, str], folder: Path = ROOT) -> None:
        self.log = log
        with log.open("wb") as stream:
            self.process = subprocess.Popen(
                command, cwd=folder, env=environment, stdout=stream, stderr=stream, stdin=subprocess.DEVNULL
            )

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def ended(self) -> bool:
        return self.process.poll() is not None

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float = PATIENCE_S) -> int:
        """Return the exit code."""
        return self.process.wait(seconds)

    def kill(self) -> None:
        if not self.ended():
            self.process.kill()
            self.process.wait(10)


class ForkedChild(Child):
    """A forked `celery` process, see forks.py."""

    def __init__(self, arguments: list[str], *, log: Path, environment: dict[str, str]) -> None:
        self.log = log
        log.write_bytes(b"")
        self.process = Forked(arguments, log=log, environment=environment)
