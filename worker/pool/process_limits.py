"""What the operating system gives one worker process: open files, which bound its slots. Used by `pool`."""

import resource
from collections.abc import Mapping
from typing import Final

import structlog

# Each call in flight needs one file descriptor. These are for all the rest: Redis, the database's pool, log files,
# pipes, the event loop.
RESERVED: Final = 64

log = structlog.get_logger(__name__)


def raise_limit() -> int:
    """Raise this process's limit of open files (RLIMIT_NOFILE) as far as it may be raised; return the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (ValueError, OSError):  # macOS refuses "unlimited"
            return soft
    return hard


def fitting(slots: Mapping[str, int], *, limit: int) -> dict[str, int]:
    """Return the slots of each queue that fit into `limit` open files, in proportion to the slots asked for.

    `fitting({"chat.run": 400, "webhooks": 100}, limit=164)` is `{"chat.run": 80, "webhooks": 20}`. Each queue keeps
    one slot at least. A limit below 0 is no limit.
    """
    wanted = sum(slots.values())
    room = max(limit - RESERVED, 0)
    if limit < 0 or wanted <= room:
        return dict(slots)
    kept = {queue: max(1, number * room // wanted) for queue, number in slots.items()}
    log.warning("pool.slots_reduced", open_files=limit, asked=dict(slots), kept=kept, remedy="raise ulimit -n")
    return kept
