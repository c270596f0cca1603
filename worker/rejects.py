"""What stood in the lists of nudges and nobody could use becomes dead letters; a chore of the dispatcher."""

import base64
import json
from typing import cast

from redis import Redis
from sqlalchemy import Engine

from worker.nudge import REJECTED
from worker.store.doors import Letter, bury

# Unusable entries that are made dead letters in one transaction.
BATCH = 100


def bury_rejects(engine: Engine, redis: Redis) -> None:
    """Keep a batch of what the windows have put aside."""
    entries = cast("list[bytes]", redis.lrange(REJECTED, -BATCH, -1))
    if not entries:
        return
    with engine.begin() as connection:
        bury(connection, [_letter(entry) for entry in entries])
    # By value: another leader by accident would trim what it has not read.
    for entry in entries:
        redis.lrem(REJECTED, -1, cast("str", entry))


def _letter(entry: bytes) -> Letter:
    try:
        told = json.loads(entry)
        return Letter(str(told["queue"]), str(told["reason"]), str(told["message"]), base64.b64decode(told["entry"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        return Letter(REJECTED, "unreadable", "The entry of the list of rejected nudges is none of ours.", entry)
