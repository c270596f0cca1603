"""The class Afterword: submit jobs by Redis or SQL, read results, cancel and replay."""

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
    """Submits jobs, reads results, cancels and replays. Threads may share an instance.

    `redis_url`: `redis://`, `rediss://`, `unix://` or `sentinel://` (form: see `afterword.sentinel`). The connection is
    kept open; no other connection is.
    `database`: a URL (`postgresql://…`, `sqlite:////path`) or a SQLAlchemy Engine. An Engine's pool is used.
    `schema`: the PostgreSQL schema of Afterword's views.
    `timeout_s`: how long `submit` waits for Redis, in seconds.

    Missing arguments come from AFTERWORD_REDIS_URL, AFTERWORD_DATABASE_URL and AFTERWORD_DATABASE_SCHEMA; the two URLs
    may also be in files, named by AFTERWORD_REDIS_URL_FILE and AFTERWORD_DATABASE_URL_FILE. A call that needs a missing
    URL raises NotConfigured.
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
        """Send a job to the queue in Redis and return its id. A worker stores it as a row within milliseconds.

        Raises SubmitError if Redis does not confirm: try again with `id=error.id`. Raises TypeError or ValueError if
        the request or an option cannot be sent. Needs no database.
        """
        new_id, text = compose(request, options)
        self._open_queue().push(new_id, text)
        return new_id

    def enqueue(self, connection: object, request: Request, **options: Unpack[Options]) -> str:
        """Insert a job in your own transaction and return its id. The job runs after your commit, and only then.

        `connection`: a SQLAlchemy Session or Connection, Django's connection, or a DB-API connection or cursor, to the
        database that Afterword uses. This method does not commit and does not need Redis. Raises TypeError or
        ValueError if the connection, the request or an option cannot be used.
        """
        job = _row(request, options)
        self._inbox.insert(connection, [job], schema=self._schema_name())
        return job["id"]

    def enqueue_many(self, connection: object, requests: Iterable[Item], **options: Unpack[Options]) -> list[str]:
        """Insert many jobs as `enqueue` does and return their ids in the same order.

        An item is a request or a pair `(request, options)`. An item's own options override those of the call. All items
        are checked before the first row is inserted.
        """
        if shared := {"id", "idempotency_key"} & options.keys():
            raise TypeError(f"{shared.pop()} names one job; give it with each request: (request, options)")
        jobs = [_row(*_with_options(item, options)) for item in requests]
        self._inbox.insert(connection, jobs, schema=self._schema_name())
        return [job["id"] for job in jobs]

    def get(self, id: str | uuid.UUID) -> Job | None:
        """Return the job, or None if the database does not know the id: no worker has read it from the queue yet.

        A job from `enqueue` is returned from your commit on. The id of a duplicate (its idempotency key belonged to an
        earlier job) returns the earlier job.
        """
        return self._results().job(job_id(id))

    def wait(self, id: str | uuid.UUID, timeout_s: float = 60.0) -> Job:
        """Poll until the job has ended and return it. The pause between two polls grows from 20 ms to 1 s.

        Raises WaitTimeout after `timeout_s` seconds; the job goes on. Raises LookupError if the job was deleted after
        its end. No database connection is held between two polls.
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
            raise LookupError(f"job {wanted} ended and was deleted before it could be read; read it sooner")
        return job

    def cancel(self, id: str | uuid.UUID) -> str | None:
        """Cancel a job that has not ended. Return its status afterwards.

        `cancelled`: it will not run.
        `in_progress`: a worker ends its call within about two seconds and keeps the part of the answer received so far.
        `completed`, `failed` or `expired`: too late, the job had ended.
        None: no worker has accepted the id yet; the job is cancelled when a worker accepts it.
        """
        return orders.cancel(self._database_for("cancel needs"), job_id(id), schema=self._schema_name())

    def replay(self, id: str | uuid.UUID) -> Job | None:
        """Queue a failed, expired or cancelled job again. It gets new attempts and as much time as it first had.

        Return the job as it is now; None if no worker has accepted the id yet. A job that is already queued is returned
        unchanged. Raises ValueError if the job is running, is completed, or was refused at acceptance.
        """
        return orders.replay(self._database_for("replay needs"), job_id(id), schema=self._schema_name())

    def close(self) -> None:
        """Close the connection to Redis. A later call opens it again."""
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
        return Results(self._database_for("reading results needs"), schema=self._schema_name())

    def _database_for(self, purpose: str) -> str | Engine:
        database = self._database or _setting("AFTERWORD_DATABASE_URL")
        if not database:
            raise NotConfigured(f"{purpose} the database: set AFTERWORD_DATABASE_URL, or give Afterword a database")
        return database

    def _schema_name(self) -> str | None:
        return self._schema or os.environ.get("AFTERWORD_DATABASE_SCHEMA") or None


def _row(request: Request, options: Mapping[str, Any]) -> dict[str, str]:
    """Return a row for submit_v1: `id`, `job` (the message text) and the HINTS that the options give."""
    new_id, text = compose(request, options)
    return {"id": new_id, "job": text, **hints(options)}


def _with_options(item: Item, options: Mapping[str, Any]) -> tuple[Request, Mapping[str, Any]]:
    if isinstance(item, tuple):
        request, item_options = item
        return request, {**options, **item_options}
    return item, options


def _setting(name: str) -> str | None:
    """Read the variable `name`, or the file named by the variable `<name>_FILE`. The worker reads them the same way."""
    if text := os.environ.get(name, "").strip():
        return text
    path = os.environ.get(f"{name}_FILE")
    return Path(path).read_text(encoding="utf-8").strip() if path else None
