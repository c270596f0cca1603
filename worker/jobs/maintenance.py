"""Tasks of the leader: apply the cancel requests of `cancel_v1`, and keep unreadable nudges as dead letters."""

import base64
import json

import structlog
from redis import Redis
from sqlalchemy import Engine

from worker.jobs.core.entry_size import HEAD_BYTES
from worker.jobs.store import cancel
from worker.jobs.store.inbox import StoredEntry, write_dead_letters
from worker.queue.list_heads import ListHeads
from worker.queue.nudges import REJECTED, REJECTED_BYTES

# Limits a tick: many requests may wait for a message that never comes, and each round reads them all.
BATCHES_A_TICK = 20

log = structlog.get_logger()


class CancelRequests:
    """Applies the cancel requests, a part at each tick. `keep_s`: how long a request waits for its message."""

    def __init__(self, engine: Engine, *, keep_s: float) -> None:
        self._engine, self._keep_s = engine, keep_s
        self._after = cancel.FIRST

    def apply_cancel_requests(self) -> None:
        """Append cancelled jobs to the feed, with their webhooks, and delete the requests that are done."""
        for _ in range(BATCHES_A_TICK):
            with self._engine.begin() as connection:
                applied = cancel.apply_cancel_requests(connection, after=self._after, keep_s=self._keep_s)
            self._after = applied.after
            if applied.cancelled or applied.forgotten:
                log.info("job.cancelled", jobs=len(applied.cancelled), forgotten=applied.forgotten)
            if applied.after == cancel.FIRST:
                return


# Entries that become dead letters in one transaction.
BATCH = 100
MOST_BYTES = 8 * 1024 * 1024
# The length of an entry in base64, with its other fields. A longer entry is not ours.
LONGEST = 2 * REJECTED_BYTES


def write_rejected_nudges(engine: Engine, redis: Redis) -> None:
    """Move a batch of unreadable nudges from Redis to the dead-letter table."""
    heads = ListHeads(redis, longest=LONGEST, head=HEAD_BYTES)
    entries = [held for _, held in heads.read([REJECTED], entries=BATCH, max_bytes=MOST_BYTES)]
    if not entries:
        return
    with engine.begin() as connection:
        write_dead_letters(connection, [_dead_letter(held.head) for held in entries])
    # By value: two leaders at the same moment must not remove entries that they have not read.
    for held in entries:
        heads.remove(REJECTED, held, entries=BATCH)


def _dead_letter(entry: bytes) -> StoredEntry:
    try:
        fields = json.loads(entry)
        return StoredEntry(
            str(fields["queue"]), str(fields["reason"]), str(fields["message"]), base64.b64decode(fields["entry"])
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return StoredEntry(
            REJECTED, "unreadable", "This entry of the list of rejected nudges was not written by Afterword.", entry
        )
