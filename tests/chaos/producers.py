"""Well-behaved producers: they send in every way, keep a ledger, and repeat unconfirmed sends under the same id.

They also repeat sends that Redis may have lost (it was flushed or came back empty), and no others: a message that the
product itself loses stays lost and is found.
"""

import json
import random
import threading
import time
from collections.abc import Callable

from celery import Celery
from sqlalchemy import bindparam, text

from afterword import Afterword
from tests.chaos import jobs
from tests.chaos.ledger import Book, Junk, Submission
from tests.chaos.parts import Parts
from worker.store.engine import open_engine
from worker.store.types import Id

QUEUE_WAYS = ("celery", "submit")
AGAIN_S = 0.5
# After Redis lost everything, entries held by a worker that is just committing may still appear.
LOSS_S = 2.0
INSERT = text("INSERT INTO submit_v1 (id, job) VALUES (:id, :job)").bindparams(bindparam("id", type_=Id))
REPLAYABLE = text("SELECT id FROM replay_v1")
SEEN = text("SELECT id FROM job_ids_v1 WHERE id IN :ids").bindparams(bindparam("ids", expanding=True, type_=Id))


class Producers:
    """One thread for each way, one thread for jobs that are not accepted yet, one thread that cancels."""

    def __init__(self, parts: Parts, book: Book, *, seed: int, rate: float) -> None:
        self._parts, self._book, self._seed = parts, book, seed
        self._pause_s = len(jobs.WAYS) / rate
        self._stopping, self._settled = threading.Event(), threading.Event()
        # A separate engine, as any team has.
        self._engine = open_engine(parts.database.url)
        self._client = Afterword(redis_url=parts.server.url, database=self._engine)
        self._celery = Celery(broker=parts.server.url, set_as_current=False)
        self._celery.conf.broker_transport_options = {"socket_timeout": 3.0, "socket_connect_timeout": 3.0}
        self._chance = random.Random(f"{seed} replay")
        self._cancels: list[tuple[float, str]] = []
        self._threads = [
            threading.Thread(target=self._produce, args=(way,), name=f"producer {way}") for way in jobs.WAYS
        ]
        self._keepers = [
            threading.Thread(target=self._keep_doing, args=(step,), name=step.__name__)
            for step in (self._look_after, self._cancel_some, self._replay_some)
        ]

    def start(self) -> None:
        for thread in (*self._threads, *self._keepers):
            thread.start()

    def finish(self) -> None:
        """Send no new jobs; open ones are still checked."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def close(self) -> None:
        self.finish()
        self._settled.set()
        for thread in self._keepers:
            thread.join()
        self._client.close()
        self._celery.close()
        self._engine.dispose()

    def _produce(self, way: str) -> None:
        chance = random.Random(f"{self._seed} {way}")
        while not self._stopping.wait(chance.expovariate(1 / self._pause_s)):
            wanted = [one for _ in range(5 if way == "enqueue_many" else 1) for one in jobs.draw(chance, way)]
            if way == "enqueue_many":
                self._stopping.wait(4 * self._pause_s)
            for one in wanted:
                self._book.add(one)
            if way == "enqueue_many":
                self._send("enqueue_many", wanted)
            else:
                for one in wanted:
                    self._send(one.way, [one])
            if chance.random() < 0.1:
                self._send(chance.choice(jobs.WAYS), wanted[:1])
            self._cancels += [(time.time() + one.cancel_after_s, one.id) for one in wanted if one.cancel_after_s]
            if way == "submit" and chance.random() < 0.15:
                self._push_junk(chance)

    def _push_junk(self, chance: random.Random) -> None:
        entry = Junk(jobs.junk(chance))
        self._book.add_junk(entry)
        self._push(entry)
        try:
            self._parts.redis.lpush("chat.run", jobs.stray_nudge(chance))
        except Exception as error:
            self._book.note("nudge", error)

    def _push(self, junk: Junk) -> None:
        junk.sent_at = time.time()
        try:
            self._parts.redis.lpush("chat.intake", junk.entry)
            junk.confirmed = True
        except Exception as error:
            self._book.note("junk", error)

    def _send(self, way: str, wanted: list[Submission]) -> None:
        """Send in one way and record the result in the ledger."""
        try:
            for group in [wanted] if way == "enqueue_many" else [[one] for one in wanted]:
                began = time.time()
                self._way(way)(group)
                for one in group:
                    one.sends += 1
                    one.committed = one.committed or way not in QUEUE_WAYS
                    one.queued_at = began if way in QUEUE_WAYS else one.queued_at
        except Exception as error:
            self._book.note(way, error)

    def _way(self, way: str) -> Callable[[list[Submission]], None]:
        return {
            "celery": self._by_celery,
            "submit": self._by_submit,
            "enqueue": self._by_enqueue,
            "enqueue_many": self._by_enqueue,
            "sql": self._by_sql,
        }[way]

    def _by_celery(self, wanted: list[Submission]) -> None:
        (one,) = wanted
        self._celery.send_task("chat.submit", args=[one.job], queue="chat.intake", task_id=one.id, retry=False)

    def _by_submit(self, wanted: list[Submission]) -> None:
        (one,) = wanted
        options = dict(one.job)
        self._client.submit(options.pop("request"), id=one.id, **options)

    def _by_enqueue(self, wanted: list[Submission]) -> None:
        pairs = [(one.job["request"], {"id": one.id, **one.job}) for one in wanted]
        for _, options in pairs:
            options.pop("request")
        with self._engine.begin() as connection:
            if len(pairs) == 1:
                self._client.enqueue(connection, pairs[0][0], **pairs[0][1])
            else:
                self._client.enqueue_many(connection, pairs)

    def _by_sql(self, wanted: list[Submission]) -> None:
        with self._engine.begin() as connection:
            for one in wanted:
                connection.execute(INSERT, {"id": one.id, "job": json.dumps(one.job)})

    def _keep_doing(self, step: Callable[[], None]) -> None:
        while not self._settled.wait(AGAIN_S):
            try:
                step()
            except Exception as error:
                self._book.note(step.__name__, error)

    def _look_after(self) -> None:
        """Record accepted jobs; repeat sends that were not confirmed or that Redis lost."""
        self._note_seen()
        for one in self._book.open():
            if not one.committed and (one.queued_at is None or self._may_be_lost(one.queued_at)):
                self._send(one.way, [one])
        for junk in self._book.open_junk():
            if not junk.confirmed or self._may_be_lost(junk.sent_at):
                self._push(junk)

    def _may_be_lost(self, sent_at: float) -> bool:
        return any(sent_at <= until and time.time() > until + LOSS_S for _, until in self._parts.losses)

    def _note_seen(self) -> None:
        waiting = self._book.open()
        with self._engine.connect() as connection:
            for first in range(0, len(waiting), 500):
                some = {one.id: one for one in waiting[first:][:500]}
                for (found,) in connection.execute(SEEN, {"ids": sorted(some)}):
                    some[str(found)].seen = True
            if junk := {one.entry: one for one in self._book.open_junk()}:
                buried = text("SELECT entry FROM afterword_dead_letters WHERE queue = 'chat.intake'")
                for (entry,) in connection.execute(buried):
                    if bytes(entry) in junk:
                        junk[bytes(entry)].seen = True

    def _cancel_some(self) -> None:
        due = [pair for pair in list(self._cancels) if pair[0] <= time.time()]
        for pair in due:
            # Cancel once, even if no worker has accepted the id yet.
            self._client.cancel(pair[1])
            self._cancels.remove(pair)

    def _replay_some(self) -> None:
        """Replay some jobs that ended without an answer, once each; none after the run has begun to stop."""
        with self._engine.connect() as connection:
            ended = [str(one) for one in connection.scalars(REPLAYABLE)]
        for job_id in ended:
            if self._stopping.is_set():
                return
            if job_id in self._book.replayed or not self._chance.random() < 0.3:
                # Recorded, so that it is never replayed later.
                self._book.replayed.setdefault(job_id, 0)
                continue
            self._book.replayed[job_id] = 1
            self._client.replay(job_id)
