"""What stood in the lists of nudges and nobody could use becomes dead letters; a chore of the dispatcher."""

import base64
import json

from redis import Redis
from sqlalchemy import Engine

from worker.jobs.core.entry_size import HEAD_BYTES
from worker.jobs.store.inbox import Letter, bury
from worker.queue.list_heads import Heads
from worker.queue.nudges import REJECTED, REJECTED_BYTES

# Unusable entries that are made dead letters in one transaction.
BATCH = 100
MOST_BYTES = 8 * 1024 * 1024
# In base64, with what is beside it. What is larger is not ours.
LONGEST = 2 * REJECTED_BYTES


def bury_rejects(engine: Engine, redis: Redis) -> None:
    """Keep a batch of what the windows have put aside."""
    heads = Heads(redis, longest=LONGEST, head=HEAD_BYTES)
    entries = [held for _, held in heads.read([REJECTED], entries=BATCH, max_bytes=MOST_BYTES)]
    if not entries:
        return
    with engine.begin() as connection:
        bury(connection, [_letter(held.head) for held in entries])
    # By value: another leader by accident would trim what it has not read.
    for held in entries:
        heads.remove(REJECTED, held, entries=BATCH)


def _letter(entry: bytes) -> Letter:
    try:
        told = json.loads(entry)
        return Letter(str(told["queue"]), str(told["reason"]), str(told["message"]), base64.b64decode(told["entry"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        return Letter(REJECTED, "unreadable", "The entry of the list of rejected nudges is none of ours.", entry)
