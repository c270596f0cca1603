"""Celery workers forked from one process that has imported the libraries: a start takes 0.1 s of a core, not 0.9.

    the tests ── order: arguments, environment, log ──▶ python -m tests.pool.forks ── fork ──▶ celery worker
              ◀── process id, exit code ───────────────

The child continues like `python -m celery` after its imports: it reads its environment, loads the application, runs as
its own process and ends like any Python process. Its module state equals a fresh start: the libraries and the modules
of the worker are imported before the fork, applications and settings never.
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
# The imports of a worker, except worker.app, because that module reads the environment.
IMPORTS = (
    "celery.__main__", "celery.apps.worker", "celery.backends.base", "celery.bin.celery", "celery.fixups.django",
    "celery.loaders.app", "celery.worker.autoscale", "celery.worker.components", "celery.worker.consumer",
    "billiard.dummy", "billiard.pool", "certifi", "encodings.idna", "kombu.transport.redis", "psycopg",
    "sqlalchemy.dialects.postgresql.psycopg", "sqlalchemy.dialects.sqlite.pysqlite", "worker.celeryconfig",
    "worker.deliver", "worker.process.worker_process", "worker.log", "worker.webhooks.key_rotation", "worker.run",
)  # fmt: skip


class Forked:
    """One forked process, with the part of subprocess.Popen that the tests use."""

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
        # No other process can get its id before poll() has seen its end.
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class _Server:
    """The connection to the forking process: each question gets one answer."""

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair()
        with theirs:
            # -u: the log shows the worker's output at once.
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
        # End of file ends the process and its children.
        self._ours.shutdown(socket.SHUT_RDWR)
        self._process.wait()


@functools.cache
def _server() -> _Server:
    return _Server()


def _serve(questions: TextIO, ours: socket.socket) -> dict[str, Any] | None:
    """Answer questions; return the order in each child, and None after the tests have ended."""
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
    # Ctrl-C is meant for the tests; this process ends with them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(fileno=int(sys.argv[1])) as ours, ours.makefile() as questions:
        order = _serve(questions, ours)
    if order is not None:
        _run_celery(order)


if __name__ == "__main__":
    _main()
