"""How long what was lost takes to come back: FLUSHALL with a backlog, SIGKILL of a worker while another lives."""

import time

from parts import Parts, load, request, scalar, until

SLOTS = 200
LEASE_S = 5.0
QUEUED = "SELECT count(*) FROM afterword_jobs WHERE status = 'queued'"
RUNNING = "SELECT count(*) FROM afterword_jobs WHERE status = 'in_progress'"


def flushall(parts: Parts, *, rows: int) -> tuple[float, str]:
    """Return the seconds from FLUSHALL until all 200 slots are busy with calls begun after it; `rows` rows are queued.

    That contains up to one second in which the calls under way end, since a call takes one second.
    """
    with parts.database("postgresql") as (url, engine):
        with parts.worker(url, "-Q", "chat.intake"):
            parts.submit(rows, request(1.0))
            until(lambda: scalar(engine, QUEUED) == rows, "all rows")
        parts.redis.flushall()
        with parts.worker(url, concurrency=SLOTS):
            until(lambda: parts.endpoint_stats()["in_flight"] == SLOTS, "all slots busy", every_s=0.01)
            before = parts.endpoint_stats()["requests"]
            began = time.perf_counter()
            parts.redis.flushall()
            until(lambda: _refilled(parts, before), "all slots busy after the flush", every_s=0.01)
            took = time.perf_counter() - began
    parts.redis.flushall()
    return took, load()


def _refilled(parts: Parts, before: int) -> bool:
    stats = parts.endpoint_stats()
    return stats["requests"] - before >= SLOTS and stats["in_flight"] == SLOTS


def sigkill(parts: Parts) -> tuple[float, str]:
    """Return the seconds beyond the lease until all jobs of a killed worker are queued again; another lives."""
    with parts.database("postgresql") as (url, engine):
        lease = {"lease_s": LEASE_S, "concurrency": SLOTS}
        with parts.worker(url, **lease) as doomed:
            parts.submit(SLOTS, request(60.0))
            until(lambda: scalar(engine, RUNNING) == SLOTS, "all jobs running")
            with parts.worker(url, "-Q", "chat.intake", **lease):
                # It must have beaten for a whole lease before it takes anything back.
                time.sleep(LEASE_S + 1.0)
                doomed.end(kill=True)
                began = time.perf_counter()
                until(lambda: scalar(engine, QUEUED) == SLOTS, "all jobs queued again", every_s=0.01)
                took = time.perf_counter() - began - LEASE_S
    parts.redis.flushall()
    return took, load()
