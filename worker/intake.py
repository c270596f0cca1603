"""INTAKE: reads the list `chat.intake` and the SQL inbox, in batches, in a thread of its own.

One atomic move takes up to a batch of entries into a list of this worker's; they are decoded by pure functions,
committed as rows and dead letters in one transaction, and only then deleted. Nothing goes through Celery's consumer:
running calls cannot slow it, and no entry can stop it. Lists of workers that died are given back by the dispatcher.
"""

import sqlite3
import threading
from collections.abc import Callable
from typing import Any, cast
from uuid import UUID

import structlog
from redis import Redis, RedisError
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from worker.core.envelope import decode
from worker.core.message import DeadLetter, read_job
from worker.nudge import nudge, priority_lists, push_nudges
from worker.settings import Settings
from worker.store import leases
from worker.store.accept import Accepted, Entry, accept
from worker.store.doors import Submitted, take_inbox
from worker.store.engine import is_away, is_busy

QUEUE = "chat.intake"
TASK = "chat.submit"
INBOX = "submit_v1"
RUN_QUEUE = "chat.run"
# Every worker that has a list of its own; Redis cannot list keys of one prefix without walking all of them.
OWNERS = "afterword:intakes"
MOVE_BYTES = 8 * 1024 * 1024
DOORBELL_S = 1
PAUSE_S = (0.05, 2.0)
INBOX_BATCH = 500

# KEYS: our list, then the source lists, best priority first. ARGV: entries, bytes. Returns our list, oldest first.
_TAKE = """
local left, bytes = tonumber(ARGV[1]) - redis.call('LLEN', KEYS[1]), tonumber(ARGV[2])
for source = 2, #KEYS do
    while left > 0 and bytes > 0 do
        local entry = redis.call('LMOVE', KEYS[source], KEYS[1], 'RIGHT', 'LEFT')
        if not entry then break end
        left, bytes = left - 1, bytes - #entry
    end
end
local entries = redis.call('LRANGE', KEYS[1], 0, -1)
local oldest_first = {}
for place = #entries, 1, -1 do oldest_first[#oldest_first + 1] = entries[place] end
return oldest_first
"""

# KEYS: a dead worker's list, the source, the set of owners. ARGV: the worker. Oldest first again at the source's end.
_GIVE_BACK = """
local moved = 0
while redis.call('LMOVE', KEYS[1], KEYS[2], 'LEFT', 'RIGHT') do moved = moved + 1 end
redis.call('SREM', KEYS[3], ARGV[1])
return moved
"""

log = structlog.get_logger()


def own_list(worker_id: str) -> str:
    """Return the Redis list that holds what a worker has taken and not yet committed."""
    return f"afterword:intake:{worker_id}"


def _uuid(text: str | None) -> str | None:
    """Return a UUID's text in lower case, None for what is none."""
    try:
        return str(UUID(text)) if text is not None and len(text) == 36 else None
    except ValueError:
        return None


class Intake:
    """The reader of one worker process. `room` is how many nudges may stand in Redis before it stops adding to them."""

    def __init__(
        self, engine: Engine, redis: Redis, settings: Settings, *, worker_id: Callable[[], str], room: int
    ) -> None:
        self._engine, self._redis, self._settings, self.room = engine, redis, settings, room
        self._worker_id = worker_id
        self._sources = priority_lists(QUEUE)
        # Where the last entry came from: a blocking move watches one list only.
        self._doorbell = self._sources[0]
        self._take = redis.register_script(_TAKE)
        self._give_back = redis.register_script(_GIVE_BACK)
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, name="afterword-intake", daemon=True)]
        if engine.dialect.name == "sqlite":
            self._threads.append(threading.Thread(target=self._watch, name="afterword-inbox", daemon=True))

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop taking; give back to the queue what was taken and not committed."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(10.0)
        try:
            self._return(self._worker_id())
        except RedisError as error:
            log.warning("intake.not_returned", error=type(error).__name__)

    def _run(self) -> None:
        pause_s = PAUSE_S[0]
        while not self._stopping.is_set():
            try:
                if entries := self._pop():
                    self.accept(entries)
                pause_s = PAUSE_S[0]
                continue
            except RedisError as error:
                log.warning("intake.redis_away", error=type(error).__name__, pause_s=pause_s)
            except SQLAlchemyError as error:
                if not (is_away(error) or is_busy(error)):
                    log.exception("intake.failed")
                log.warning("intake.database_away", error=type(error).__name__, pause_s=pause_s)
            except Exception:
                log.exception("intake.failed")
            self._stopping.wait(pause_s)
            pause_s = min(pause_s * 2, PAUSE_S[1])

    def _pop(self) -> list[bytes]:
        """Return the oldest entries, held in our own list; wait for one when there is none."""
        own = own_list(self._worker_id())
        entries = self._taken(own)
        if entries:
            return entries
        self._redis.sadd(OWNERS, self._worker_id())
        if self._redis.blmove(self._doorbell, own, DOORBELL_S, "RIGHT", "LEFT") is None:
            return self._any_other(own)
        return self._taken(own)

    def _taken(self, own: str) -> list[bytes]:
        limits = [self._settings.intake_batch, MOVE_BYTES]
        entries: list[bytes] = self._take(keys=[own, *self._sources], args=limits)
        return entries

    def _any_other(self, own: str) -> list[bytes]:
        """Look at all lists once, and watch the one that has something."""
        for source in self._sources:
            if self._redis.llen(source):
                self._doorbell = source
                return self._taken(own)
        return []

    def accept(self, raw: list[bytes]) -> None:
        """Commit entries of the queue as rows, delete them from our list, and nudge what may start."""
        own = own_list(self._worker_id())
        entries = [self._read(one) for one in raw]
        with self._engine.begin() as connection:
            accepted = accept(connection, entries, job_ttl_s=self._settings.job_ttl_s)
        self._redis.delete(own)
        self._announce(entries, accepted)

    def drain_inbox(self) -> None:
        """Accept all that stands in the SQL inbox; each batch leaves it in the transaction that makes its rows."""
        while not self._stopping.is_set():
            with self._engine.begin() as connection:
                rows = take_inbox(connection, limit=INBOX_BATCH, max_bytes=MOVE_BYTES)
                entries = [self._submitted(row) for row in rows]
                accepted = accept(connection, entries, job_ttl_s=self._settings.job_ttl_s) if entries else []
            self._announce(entries, accepted)
            if not rows:
                return

    def return_lists(self) -> None:
        """Give the lists of workers that are no more back to the queue; a chore of the dispatcher."""
        owners = {bytes(owner).decode() for owner in cast("set[bytes]", self._redis.smembers(OWNERS))}
        if not owners:
            return
        with self._engine.begin() as connection:
            living = leases.living(connection)
        for owner in sorted(owners - living.keys()):
            if moved := self._return(owner):
                log.warning("intake.returned", worker=owner, messages=moved)

    def _return(self, owner: str) -> int:
        return int(self._give_back(keys=[own_list(owner), self._sources[0], OWNERS], args=[owner]))

    def _read(self, raw: bytes) -> Entry:
        # Base64 makes a third more of a body, and what surrounds it is small.
        envelope = decode(raw, max_bytes=4 * self._settings.max_request_bytes)
        if isinstance(envelope, DeadLetter):
            return Entry(QUEUE, raw, envelope)
        if envelope.task != TASK:
            reason = f"The task is {envelope.task!r}; this queue takes {TASK} only."
            return Entry(QUEUE, raw, DeadLetter("unknown_task", reason, envelope.id))
        return self._entry(QUEUE, raw, envelope.arguments_text, envelope.id, envelope.ignored)

    def _submitted(self, row: Submitted) -> Entry:
        try:
            return self._entry(INBOX, row.job, row.job.decode(), row.id)
        except UnicodeDecodeError as error:
            reason = f"The job's text is not UTF-8 at byte {error.start}; insert JSON text."
            return Entry(INBOX, row.job, DeadLetter("not_json", reason, row.id))

    def _entry(self, queue: str, raw: bytes, text: str, given_id: str | None, ignored: tuple[str, ...] = ()) -> Entry:
        read = read_job(
            text,
            default_id=given_id,
            endpoints=self._settings.endpoints,
            max_request_bytes=self._settings.max_request_bytes,
            ignored=ignored,
        )
        return Entry(queue, raw, read, alias=_uuid(given_id))

    def _announce(self, entries: list[Entry], accepted: list[Accepted]) -> None:
        due = [
            (one.priority, nudge(one.job_id, 1))
            for one in accepted
            if one.job_id and one.due and one.outcome == "queued"
        ]
        for one in accepted:
            if one.outcome == "dead":
                log.warning("message.buried", job_id=one.job_id)
            else:
                log.debug("job.accepted", job_id=one.job_id, outcome=one.outcome)
        for entry in entries:
            if not isinstance(entry.read, DeadLetter) and entry.job.ignored:
                log.info("job.options_ignored", job_id=entry.job.id, ignored=list(entry.job.ignored))
        if due:
            try:
                push_nudges(self._redis, RUN_QUEUE, due, room=self.room)
            except RedisError as error:
                # The rows are there: the dispatcher finds them.
                log.warning("nudge.postponed", error=type(error).__name__, jobs=len(due))

    def _watch(self) -> None:
        """Notice rows that other processes put into a SQLite inbox: its version changes with each of their commits."""
        connection = self._engine.raw_connection()
        seen: Any = None
        while not self._stopping.wait(0.02):
            try:
                version = connection.execute("PRAGMA data_version").fetchone()
                if version == seen:
                    continue
                seen = version
                # A look without a lock; taking the rows needs one.
                if connection.execute("SELECT 1 FROM afterword_inbox LIMIT 1").fetchone():
                    self.drain_inbox()
            except (sqlite3.Error, SQLAlchemyError) as error:
                log.warning("inbox.not_read", error=type(error).__name__)
        connection.close()
