"""Celery workers forked from one process that has imported the libraries: a start takes 0.1 s of a core, not 0.9.

    the tests ── order: arguments, environment, log ──▶ python -m tests.pool.forks ── fork ──▶ celery worker
              ◀── process id, exit code ───────────────

The child does what `python -m celery` does after its imports: it reads its own environment, loads the application,
runs as a process of its own and ends as any Python process ends. Module state is that of a fresh start: the libraries
and the modules of the worker are imported before the fork, an application or settings never are.
"""

import atexit
import contextlib
import functools
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, TextIO

ROOT = Path(__file__).parents[2]
# All that a worker imports, but for worker.app: that one reads the environment.
IMPORTS = (
    "celery.__main__", "celery.apps.worker", "celery.backends.base", "celery.bin.celery", "celery.fixups.django",
    "celery.loaders.app", "celery.worker.autoscale", "celery.worker.components", "celery.worker.consumer",
    "billiard.dummy", "billiard.pool", "certifi", "encodings.idna", "kombu.transport.redis", "psycopg",
    "sqlalchemy.dialects.postgresql.psycopg", "sqlalchemy.dialects.sqlite.pysqlite", "worker.celeryconfig",
    "worker.deliver", "worker.process.worker_process", "worker.log", "worker.webhooks.key_rotation", "worker.run",
)  # fmt: skip


class Forked:
    """One forked process: what the tests use of subprocess.Popen."""

    def __init__(self, arguments: list[str], *, log: Path, environment: dict[str, str]) -> None:
        self.returncode: int | None = None
        self.pid: int = _server().ask(arguments=arguments, log=str(log), environment=environment)

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = _server().ask(ended=self.pid)
        return self.returncode

    def wait(self, timeout: float) -> int:
        give_up = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > give_up:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
            time.sleep(0.01)
        return code

    def send_signal(self, number: signal.Signals) -> None:
        # Until poll() has seen its end, no other process can have its id.
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class _Server:
    """The other side of the socket: one question, one answer."""

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair()
        with theirs:
            # -u: what a worker prints is in its log at once.
            self._process = subprocess.Popen(
                [sys.executable, "-u", "-m", "tests.pool.forks", str(theirs.fileno())],
                cwd=ROOT, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()],
            )  # fmt: skip
        self._answers = self._ours.makefile()
        atexit.register(self._end)

    def ask(self, **question: Any) -> Any:
        self._ours.sendall(json.dumps(question).encode() + b"\n")
        answer = self._answers.readline()
        assert answer, "the process that forks workers has ended; see its error above"
        return json.loads(answer)

    def _end(self) -> None:
        # The end of file ends it, and whatever it still runs.
        self._ours.shutdown(socket.SHUT_RDWR)
        self._process.wait()


@functools.cache
def _server() -> _Server:
    return _Server()


def _serve(questions: TextIO, ours: socket.socket) -> dict[str, Any] | None:
    """Answer questions; return the order in each child, None when the tests have ended."""
    living: set[int] = set()
    for line in questions:
        question = json.loads(line)
        if pid := question.get("ended"):
            ended, status = os.waitpid(pid, os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if ended else None
            living -= {ended}
        else:
            answer = os.fork()
            if not answer:
                return dict(question)
            living.add(answer)
        ours.sendall(json.dumps(answer).encode() + b"\n")
    for pid in living:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return None


def _run_celery(order: dict[str, Any]) -> None:
    """Become `python -m celery ARGUMENTS`."""
    from celery.__main__ import main

    signal.signal(signal.SIGINT, signal.default_int_handler)
    log = os.open(order["log"], os.O_WRONLY)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    os.environ.clear()
    os.environ.update(order["environment"])
    sys.argv = ["celery", *order["arguments"]]
    main()


def _main() -> None:
    for module in IMPORTS:
        __import__(module)
    gc.collect()
    gc.freeze()
    # Ctrl-C is for the tests; this process ends when they do.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(fileno=int(sys.argv[1])) as ours, ours.makefile() as questions:
        order = _serve(questions, ours)
    if order is not None:
        _run_celery(order)


if __name__ == "__main__":
    _main()
