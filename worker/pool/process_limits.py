"""The limit of open files of a worker process, because each slot may need one. Used by `pool`."""

import resource
from collections.abc import Mapping
from typing import Final

import structlog

# Each call in flight needs one file descriptor. These are for everything else: Redis, the database's pool, log files,
# pipes, the event loop.
RESERVED: Final = 64

log = structlog.get_logger(__name__)


def raise_limit() -> int:
    """Raise this process's limit of open files (RLIMIT_NOFILE) to the hard limit; return the new limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (ValueError, OSError):  # macOS refuses "unlimited"
            return soft
    return hard


def fit_slots(slots: Mapping[str, int], *, limit: int) -> dict[str, int]:
    """Return the slots of each queue, reduced in proportion if `limit` open files are too few for all.

    `fit_slots({"chat.run": 400, "webhooks": 100}, limit=164)` is `{"chat.run": 80, "webhooks": 20}`. Each queue keeps
    at least one slot. A negative limit means no limit.
    """
    asked = sum(slots.values())
    room = max(limit - RESERVED, 0)
    if limit < 0 or asked <= room:
        return dict(slots)
    kept = {queue: max(1, number * room // asked) for queue, number in slots.items()}
    log.warning("pool.slots_reduced", open_files=limit, asked=dict(slots), kept=kept, remedy="raise ulimit -n")
    return kept
