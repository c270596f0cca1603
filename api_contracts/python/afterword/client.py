"""The producer's one object: two doors in, the results, and orders."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

from afterword import orders
from afterword.errors import NotConfigured, WaitTimeout
from afterword.inbox import Inbox
from afterword.job import Job
from afterword.message import compose, hints, job_id
from afterword.queue import Queue
from afterword.reading import Results

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine
    from typing_extensions import Unpack

    from afterword.message import Options

Request = Mapping[str, Any]
Item = Union[Request, tuple[Request, Mapping[str, Any]]]

FIRST_LOOK_S = 0.02
LOOK_S = 1.0


class Afterword:
    """Submits jobs and reads results. Threads may share one; it holds no connection but the one to Redis.

    `database` is a URL (`postgresql://…`, `sqlite:////path`) or a SQLAlchemy Engine, whose pool is then used; `schema`
    the PostgreSQL schema of Afterword's views. What is not given comes from AFTERWORD_REDIS_URL,
    AFTERWORD_DATABASE_URL (or the files named by these with _FILE) and AFTERWORD_DATABASE_SCHEMA, and is asked for
    only when a call needs it. `timeout_s` bounds the wait for Redis in `submit`.
    """

    def __init__(
        self,
        redis_url: str | None = None,
        database: str | Engine | None = None,
        *,
        schema: str | None = None,
        timeout_s: float = 3.0,
    ) -> None:
        self._redis_url = redis_url
        self._database = database
        self._schema = schema
        self._timeout_s = timeout_s
        self._queue: Queue | None = None
        self._inbox = Inbox()
        self._lock = threading.Lock()

    def submit(self, request: Request, **options: Unpack[Options]) -> str:
        """Send a job to the queue and return its id; a worker makes it a row within milliseconds.

        Needs Redis only. Raises SubmitError if Redis does not confirm; it carries the id for another try.
        """
        new_id, text = compose(request, options)
        self._open_queue().push(new_id, text)
        return new_id

    def enqueue(self, connection: object, request: Request, **options: Unpack[Options]) -> str:
        """Insert a job through your own connection and return its id; it runs once you commit, never if you do not.

        `connection` is a SQLAlchemy Session or Connection, Django's connection, or a DB-API connection or cursor, to
        the database that Afterword uses. Nothing is committed, and Redis is not needed.
        """
        job = _row(request, options)
        self._inbox.insert(connection, [job], schema=self._schema_name())
        return job["id"]

    def enqueue_many(self, connection: object, requests: Iterable[Item], **options: Unpack[Options]) -> list[str]:
        """Insert many jobs as `enqueue` does and return their ids in order.

        An item is a request, or a pair of a request and its own options, which win over those of the call. All are
        checked before the first is inserted.
        """
        if shared := {"id", "idempotency_key"} & options.keys():
            raise TypeError(f"{shared.pop()} names one job; give it with each request: (request, options)")
        jobs = [_row(*_with_options(item, options)) for item in requests]
        self._inbox.insert(connection, jobs, schema=self._schema_name())
        return [job["id"] for job in jobs]

    def get(self, id: str | uuid.UUID) -> Job | None:
        """Return the job, or None if no worker has accepted this id yet.

        Every id that was ever used leads to its job, one that met an earlier job by its idempotency key too.
        """
        return self._results().job(job_id(id))

    def wait(self, id: str | uuid.UUID, timeout_s: float = 60.0) -> Job:
        """Look until the job has ended, every 20 ms at first and every second later, and return it.

        Raises WaitTimeout after `timeout_s`; the job goes on. No connection is held between two looks.
        """
        results, wanted = self._results(), job_id(id)
        until = time.monotonic() + timeout_s
        pause_s = FIRST_LOOK_S
        while not results.ended(wanted):
            left_s = until - time.monotonic()
            if left_s <= 0:
                raise WaitTimeout.of(wanted, results.job(wanted), timeout_s)
            time.sleep(min(pause_s, left_s))
            pause_s = min(pause_s * 1.5, LOOK_S)
        job = results.job(wanted)
        if job is None:
            raise LookupError(f"job {wanted} ended and was deleted while it was awaited; look for it sooner")
        return job

    def cancel(self, id: str | uuid.UUID) -> str | None:
        """Cancel a job that has not ended; return its status after that.

        `cancelled`; `in_progress`: its call is ended within about two seconds, and what had come of the answer is kept;
        `completed`, `failed` or `expired`: too late. None: no worker has accepted the id yet, and its job is cancelled
        when one does.
        """
        return orders.cancel(self._database_for("cancel is written to"), job_id(id), schema=self._schema_name())

    def replay(self, id: str | uuid.UUID) -> Job | None:
        """Queue a job that failed, expired or was cancelled again, with new attempts and as much time as it once had.

        Return it as it stands then, as is one that was queued anyway; None if no worker has accepted the id yet.
        ValueError says why a job cannot be replayed: it runs, is completed, or was refused when it came.
        """
        return orders.replay(self._database_for("replay is written to"), job_id(id), schema=self._schema_name())

    def close(self) -> None:
        """Close the connection to Redis; a later call opens it again."""
        with self._lock:
            if self._queue is not None:
                self._queue.close()

    def __enter__(self) -> Afterword:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _open_queue(self) -> Queue:
        with self._lock:
            if self._queue is None:
                url = self._redis_url or _setting("AFTERWORD_REDIS_URL")
                if not url:
                    raise NotConfigured("submit needs Redis: set AFTERWORD_REDIS_URL, or give Afterword a redis_url")
                self._queue = Queue(url, timeout_s=self._timeout_s)
            return self._queue

    def _results(self) -> Results:
        return Results(self._database_for("results are read from"), schema=self._schema_name())

    def _database_for(self, purpose: str) -> str | Engine:
        database = self._database or _setting("AFTERWORD_DATABASE_URL")
        if not database:
            raise NotConfigured(f"{purpose} the database: set AFTERWORD_DATABASE_URL, or give Afterword a database")
        return database

    def _schema_name(self) -> str | None:
        return self._schema or os.environ.get("AFTERWORD_DATABASE_SCHEMA") or None


def _row(request: Request, options: Mapping[str, Any]) -> dict[str, str]:
    """Return what submit_v1 takes of a job."""
    new_id, text = compose(request, options)
    return {"id": new_id, "job": text, **hints(options)}


def _with_options(item: Item, options: Mapping[str, Any]) -> tuple[Request, Mapping[str, Any]]:
    if isinstance(item, tuple):
        request, own = item
        return request, {**options, **own}
    return item, options


def _setting(name: str) -> str | None:
    """Read a variable, or the file that the variable with _FILE names, as the worker does."""
    if text := os.environ.get(name, "").strip():
        return text
    path = os.environ.get(f"{name}_FILE")
    return Path(path).read_text(encoding="utf-8").strip() if path else None
