"""Helpers of the producer tests: both ends of the queue and the inbox, and every kind of connection."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import redis
from sqlalchemy import Engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from afterword.reading import connect
from tests.store.made import ENDPOINTS, accept_all, claim_one, one, rows, worker
from worker.core.lifecycle import COMPLETE, Outcome
from worker.jobs.core.message import Job, read_job
from worker.jobs.store.accept import Accepted, Entry, accept
from worker.jobs.store.inbox import take_inbox
from worker.jobs.store.record import AttemptRecord, record
from worker.queue.envelope import Envelope, decode

ROOT = Path(__file__).resolve().parent.parent.parent
CLIENT = ROOT / "api_contracts" / "python"
REQUEST = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


def read(text: str, *, default_id: str | None) -> Any:
    """Read a job message as the worker does. Return a Job, or the reason why it is refused."""
    return read_job(text, default_id=default_id, endpoints=ENDPOINTS, max_request_bytes=2**20)


def queued(redis_url: str) -> list[tuple[Envelope, Job]]:
    """Return the entries of the queue, oldest first, as the worker reads them."""
    with redis.Redis.from_url(redis_url) as client:
        entries = client.lrange("chat.intake", 0, -1)
    found = []
    for envelope in map(decode, reversed(entries)):
        assert isinstance(envelope, Envelope), envelope
        found.append((envelope, read(envelope.arguments_text, default_id=envelope.id)))
    return found


def accept_queue(redis_url: str, engine: Engine) -> list[Accepted]:
    """Accept the jobs in the queue, as a worker does."""
    return accept_all(engine, *(Entry("chat.intake", b"", job) for _, job in queued(redis_url)))


def accept_inbox(engine: Engine) -> list[Accepted]:
    """Accept the jobs in the inbox, as a worker does."""
    with engine.begin() as connection:
        taken = take_inbox(connection, limit=100_000, max_bytes=2**30)
        entries = [
            Entry("submit_v1", row.job, read(row.job.decode(), default_id=row.id), alias=row.id) for row in taken
        ]
        return accept(connection, entries, job_ttl_s=3600)


def complete(engine: Engine, job_id: str, response: dict[str, Any] | None = None, **tokens: int) -> None:
    """Claim a queued job as a worker does, and record an answer."""
    claimed = claim_one(engine, worker(engine), job_id)
    assert claimed is not None
    response = response or {"choices": [{"message": {"content": "Good day."}}]}
    usage = json.dumps(tokens)
    attempt_record = AttemptRecord(
        job_id, claimed.attempt, claimed.worker_id, COMPLETE, Outcome.completed, sent=True, counts=True,
        attempt={"billed": "yes", "usage_requested": False, **tokens},
        answer={
            "raw": b"{}", "raw_encoding": "identity", "usage_raw": usage.encode(), "usage": usage,
            "response": json.dumps(response), "content": response["choices"][0]["message"]["content"],
            "finish_reason": "stop",
        },
    )  # fmt: skip
    with engine.begin() as connection:
        assert [recorded.moved for recorded in record(connection, [attempt_record])] == [True]


def inbox(engine: Engine) -> list[Any]:
    return rows(engine, "SELECT id, job FROM submit_v1")


class Open:
    """A connection (`target`) and the functions that end its transaction."""

    def __init__(self, target: Any, commit: Callable[[], None], rollback: Callable[[], None]) -> None:
        self.target, self.commit, self.rollback = target, commit, rollback


@contextmanager
def _session(engine: Engine, url: str) -> Iterator[Open]:
    with Session(engine) as session:
        yield Open(session, session.commit, session.rollback)


@contextmanager
def _scoped_session(engine: Engine, url: str) -> Iterator[Open]:
    session = scoped_session(sessionmaker(engine))
    yield Open(session, session.commit, session.rollback)
    session.remove()


@contextmanager
def _connection(engine: Engine, url: str) -> Iterator[Open]:
    with engine.connect() as connection:
        yield Open(connection, connection.commit, connection.rollback)


def writable(url: str) -> Any:
    """Open a DB-API connection that may write: psycopg's or sqlite3's."""
    if url.startswith("sqlite"):
        import sqlite3

        return sqlite3.connect(url.removeprefix("sqlite:///"))
    return connect(url)


@contextmanager
def _dbapi(engine: Engine, url: str) -> Iterator[Open]:
    with closing(writable(url)) as connection:
        yield Open(connection, connection.commit, connection.rollback)


@contextmanager
def _cursor(engine: Engine, url: str) -> Iterator[Open]:
    with closing(writable(url)) as connection, closing(connection.cursor()) as cursor:
        yield Open(cursor, connection.commit, connection.rollback)


KINDS = {
    "session": _session, "scoped session": _scoped_session, "connection": _connection, "dbapi": _dbapi,
    "cursor": _cursor,
}  # fmt: skip


@contextmanager
def silent_server() -> Iterator[tuple[int, list[socket.socket]]]:
    """Accept connections and never answer. Yields the port and the list of connections accepted so far."""
    accepted: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def listen() -> None:
            while True:
                try:
                    accepted.append(listener.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        yield listener.getsockname()[1], accepted
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)
    for connection in accepted:
        connection.close()


__all__ = [
    "CLIENT", "KINDS", "REQUEST", "ROOT", "Open", "accept_all", "accept_inbox", "accept_queue", "complete", "inbox",
    "one", "queued", "rows", "silent_server", "writable",
]  # fmt: skip
