"""INTAKE: makes rows of what stands in `chat.intake` and in the SQL inbox, in batches, in a thread of its own.

Entries are taken from Redis in one atomic step (`taking`), decoded by pure functions, committed as rows and dead
letters in one transaction, and only then deleted. Nothing goes through Celery's consumer: running calls cannot slow it.
No entry can stop it: what cannot be accepted in a batch is tried alone, and alone becomes a dead letter.
"""

import logging
import threading
from collections.abc import Callable

import structlog
from redis import Redis, RedisError
from sqlalchemy import Engine

from worker.core.dead_letter import DeadLetter
from worker.jobs.entries import INBOX, EntryReader, not_accepted
from worker.jobs.inbox_watch import InboxWatch
from worker.jobs.intake_list import MOST_BYTES, IntakeList, TakenEntries
from worker.jobs.store.accept import Accepted, Entry, accept
from worker.jobs.store.inbox import Submitted, take_inbox
from worker.pool.liveness import Liveness
from worker.queue.keys import is_redis_away
from worker.queue.nudges import nudge, push_nudges
from worker.settings import Settings
from worker.store import leases
from worker.store.engine import describe, is_away, is_busy, succeeds

RUN_QUEUE = "chat.run"
PAUSE_S = (0.05, 2.0)
INBOX_BATCH = 500

log = structlog.get_logger()


class Intake:
    """The reader of one worker process.

    `room` is how many nudges may stand in Redis before it stops adding to them; `is_open` says whether the jobs of an
    endpoint may start at once, `address_fault` what is wrong with a webhook's address that a job brings.
    """

    def __init__(
        self,
        engine: Engine,
        redis: Redis,
        settings: Settings,
        *,
        worker_id: Callable[[], str],
        room: int,
        is_open: Callable[[str], bool] = lambda endpoint: True,
        address_fault: Callable[[str], str | None] = lambda url: None,
        liveness: Liveness | None = None,
    ) -> None:
        self._engine, self._redis, self._settings, self.room = engine, redis, settings, room
        liveness = liveness or Liveness()
        self._is_open, self._turned = is_open, liveness.turns("intake")
        self._reader = EntryReader(settings, address_fault)
        self._taking = IntakeList(redis, worker_id, batch=settings.intake_batch, longest=self._reader.longest)
        self._worker_id = worker_id
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, name="afterword-intake", daemon=True)]
        if engine.dialect.name == "sqlite":
            watch = InboxWatch(engine, self.drain_inbox, self._stopping, turned=liveness.turns("inbox"))
            self._threads.append(threading.Thread(target=watch.run, name="afterword-inbox", daemon=True))

    def start(self) -> None:
        self._turned()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop taking; give back to the queue what was taken and not committed."""
        self._stopping.set()
        started = [thread for thread in self._threads if thread.ident is not None]
        for thread in started:
            thread.join(10.0)
        if not started:
            return
        try:
            self._taking.give_back(self._worker_id())
        except RedisError as error:
            log.warning("intake.not_returned", error=type(error).__name__)

    def drain_inbox(self) -> None:
        """Accept all that stands in the SQL inbox; each batch leaves it in the transaction that makes its rows."""
        taken = 1
        while taken and not self._stopping.is_set():
            try:
                taken = self._drain(INBOX_BATCH, self._reader.read_row)
            except Exception as error:
                _unless_away(error)
                taken = self._drain_one()

    def return_lists(self) -> None:
        """Give the lists of workers that are no more back to the queue; a chore of the dispatcher."""
        owners = self._taking.owners()
        if not owners:
            return
        with self._engine.begin() as connection:
            living = leases.living(connection)
        for owner in sorted(owners - living.keys()):
            if moved := self._taking.give_back(owner):
                log.warning("intake.returned", worker=owner, messages=moved)

    def _run(self) -> None:
        pause_s = PAUSE_S[0]
        while not self._stopping.is_set():
            try:
                taken = self._taking.take()
                if taken.entries:
                    self._accept_taken(taken)
                elif taken.own is None:
                    self._stopping.wait(pause_s)  # nothing to wait on in a full Redis
                pause_s = PAUSE_S[0]
                self._turned()
                continue
            except Exception as error:
                if away := is_redis_away(error) or is_away(error) or is_busy(error):
                    self._turned()
                (log.warning if away else log.error)("intake.postponed", pause_s=pause_s, **describe(error))
            self._stopping.wait(pause_s)
            pause_s = min(pause_s * 2, PAUSE_S[1])

    def _accept_taken(self, taken: TakenEntries) -> None:
        entries = [self._reader.read_message(held) for held in taken.entries]
        try:
            accepted = self._accept(entries)
        except Exception as error:
            _unless_away(error)
            accepted = [one for entry in entries for one in self._accept_alone(entry)]
        # First what others wait for: should the list outlive this process, its entries are duplicates.
        self._announce(entries, accepted)
        self._taking.done(taken)

    def _accept_alone(self, entry: Entry) -> list[Accepted]:
        try:
            return self._accept([entry])
        except Exception as error:
            self._unless_its_own(error)
        try:
            return self._accept([entry])
        except Exception as error:
            self._unless_its_own(error)
            return self._accept([not_accepted(entry.queue, entry.raw)])

    def _accept(self, entries: list[Entry]) -> list[Accepted]:
        with self._engine.begin() as connection:
            return accept(connection, entries, job_ttl_s=self._settings.job_ttl_s)

    def _drain(self, limit: int, read: Callable[[Submitted], Entry]) -> int:
        """Accept up to `limit` rows of the inbox; return how many there were."""
        with self._engine.begin() as connection:
            rows = take_inbox(connection, limit=limit, max_bytes=MOST_BYTES, longest=self._reader.longest)
            entries = [read(row) for row in rows]
            accepted = accept(connection, entries, job_ttl_s=self._settings.job_ttl_s) if entries else []
        self._announce(entries, accepted)
        return len(rows)

    def _drain_one(self) -> int:
        """Accept the oldest row alone. A row that fails twice by its own fault becomes a dead letter.

        Another reader may take the row in between, so that a later transaction meets another one: it is read as usual.
        """
        tried: list[str] = []

        def read(row: Submitted) -> Entry:
            tried.append(row.id)
            return not_accepted(INBOX, row.job, row.id) if tried.count(row.id) > 2 else self._reader.read_row(row)

        for _ in range(2):
            try:
                return self._drain(1, read)
            except Exception as error:
                self._unless_its_own(error)
        return self._drain(1, read)

    def _unless_its_own(self, error: Exception) -> None:
        """Raise again what the database says to every job, which is no fault of this entry; log what it says to it."""
        plain = self._reader.plain()
        ttl_s = self._settings.job_ttl_s
        away = is_away(error) or is_busy(error)
        if away or not succeeds(self._engine, lambda connection: accept(connection, [plain], job_ttl_s=ttl_s)):
            raise error
        log.error("intake.refused", **describe(error))

    def _announce(self, entries: list[Entry], accepted: list[Accepted]) -> None:
        # Jobs of an endpoint that rests, or has just come back, start by the dispatcher's measure.
        jobs = (entry.job for entry in entries if not isinstance(entry.read, DeadLetter))
        waiting = {job.id for job in jobs if not self._is_open(job.endpoint)}
        self._nudge([one for one in accepted if one.due and one.outcome == "queued" and one.job_id not in waiting])
        if logging.getLogger().isEnabledFor(logging.DEBUG):  # a line that nobody reads costs as much as the decoding
            for one in accepted:
                log.debug("job.accepted", job_id=one.job_id, outcome=one.outcome)
        for one in accepted:
            if one.outcome == "dead":
                log.warning("message.buried", job_id=one.job_id)
        for entry in entries:
            if not isinstance(entry.read, DeadLetter) and entry.job.ignored:
                log.info("job.options_ignored", job_id=entry.job.id, ignored=list(entry.job.ignored))

    def _nudge(self, due: list[Accepted]) -> None:
        """Let the first of these start at once, as far as there is room."""
        nudges = [(one.priority, nudge(one.job_id, 1)) for one in due[: self.room] if one.job_id]
        if not nudges:
            return
        try:
            push_nudges(self._redis, RUN_QUEUE, nudges, room=self.room)
        except RedisError as error:
            # The rows are there: the dispatcher finds them.
            log.warning("nudge.postponed", error=type(error).__name__, jobs=len(nudges))


def _unless_away(error: Exception) -> None:
    """Raise again what says nothing against the entries; log what may."""
    if is_away(error) or is_busy(error):
        raise error
    log.warning("intake.split", **describe(error))
