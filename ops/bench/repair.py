"""Recovery times: FLUSHALL with a backlog, and SIGKILL of a worker while another lives."""

import time

from parts import Parts, load, request, scalar, until

SLOTS = 200
LEASE_S = 5.0
QUEUED = "SELECT count(*) FROM afterword_jobs WHERE status = 'queued'"
RUNNING = "SELECT count(*) FROM afterword_jobs WHERE status = 'in_progress'"


def flushall(parts: Parts, *, rows: int) -> tuple[float, str]:
    """Return the seconds from the first free slot after a FLUSHALL until all slots are busy again.

    When Redis is flushed, each slot has a call of four seconds; behind them `rows` queued jobs have calls of 120 s.
    """
    with parts.database("postgresql") as (url, engine):
        with parts.worker(url, "-Q", "chat.intake"):
            parts.submit(SLOTS, request(4.0), priority=0)
            parts.submit(rows, request(120.0))
            until(lambda: scalar(engine, QUEUED) == SLOTS + rows, "all rows")
        parts.redis.flushall()
        with parts.worker(url, concurrency=SLOTS) as worker:
            first = parts.endpoint_stats()["requests"]
            until(lambda: parts.endpoint_stats()["requests"] - first == SLOTS, "all slots busy", every_s=0.01)
            parts.redis.flushall()
            until(lambda: parts.endpoint_stats()["in_flight"] < SLOTS, "a free slot", every_s=0.005)
            began = time.perf_counter()
            until(lambda: parts.endpoint_stats()["requests"] - first == 2 * SLOTS, "all slots busy again", every_s=0.01)
            took = time.perf_counter() - began
            worker.end(kill=True)
    parts.redis.flushall()
    return took, load()


def sigkill(parts: Parts) -> tuple[float, str]:
    """Return the seconds, minus the lease, until a living worker has queued all jobs of a killed one again."""
    with parts.database("postgresql") as (url, engine):
        lease = {"lease_s": LEASE_S, "concurrency": SLOTS}
        with parts.worker(url, **lease) as doomed:
            parts.submit(SLOTS, request(60.0))
            until(lambda: scalar(engine, RUNNING) == SLOTS, "all jobs running")
            with parts.worker(url, "-Q", "chat.intake", **lease):
                # A worker takes leases back only after a whole lease of its own heartbeats.
                time.sleep(LEASE_S + 1.0)
                doomed.end(kill=True)
                began = time.perf_counter()
                until(lambda: scalar(engine, QUEUED) == SLOTS, "all jobs queued again", every_s=0.01)
                took = time.perf_counter() - began - LEASE_S
    parts.redis.flushall()
    return took, load()
