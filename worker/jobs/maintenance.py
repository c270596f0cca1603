"""A chore of the dispatcher: what cancellations by SQL have left to be done is done within a tick."""

import base64
import json

import structlog
from redis import Redis
from sqlalchemy import Engine

from worker.jobs.core.entry_size import HEAD_BYTES
from worker.jobs.store import orders
from worker.jobs.store.inbox import StoredEntry, write_dead_letters
from worker.queue.list_heads import ListHeads
from worker.queue.nudges import REJECTED, REJECTED_BYTES

# Marks of messages that never came may be many, and are looked at again in each round.
BATCHES_A_TICK = 20

log = structlog.get_logger()


class Marks:
    """Walks the marks, some at each tick. `keep_s`: how long a mark waits for a message of its id."""

    def __init__(self, engine: Engine, *, keep_s: float) -> None:
        self._engine, self._keep_s = engine, keep_s
        self._after = orders.FIRST

    def settle(self) -> None:
        """Number and tell the ends that the door made, and let go of the marks that have served."""
        for _ in range(BATCHES_A_TICK):
            with self._engine.begin() as connection:
                served = orders.serve(connection, after=self._after, keep_s=self._keep_s)
            self._after = served.after
            if served.cancelled or served.forgotten:
                log.info("job.cancelled", jobs=len(served.cancelled), forgotten=served.forgotten)
            if served.after == orders.FIRST:
                return


# Unusable entries that are made dead letters in one transaction.
BATCH = 100
MOST_BYTES = 8 * 1024 * 1024
# In base64, with what is beside it. What is larger is not ours.
LONGEST = 2 * REJECTED_BYTES


def write_rejected_nudges(engine: Engine, redis: Redis) -> None:
    """Keep a batch of what the windows have put aside."""
    heads = ListHeads(redis, longest=LONGEST, head=HEAD_BYTES)
    entries = [held for _, held in heads.read([REJECTED], entries=BATCH, max_bytes=MOST_BYTES)]
    if not entries:
        return
    with engine.begin() as connection:
        write_dead_letters(connection, [_letter(held.head) for held in entries])
    # By value: another leader by accident would trim what it has not read.
    for held in entries:
        heads.remove(REJECTED, held, entries=BATCH)


def _letter(entry: bytes) -> StoredEntry:
    try:
        told = json.loads(entry)
        return StoredEntry(
            str(told["queue"]), str(told["reason"]), str(told["message"]), base64.b64decode(told["entry"])
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return StoredEntry(REJECTED, "unreadable", "The entry of the list of rejected nudges is none of ours.", entry)
