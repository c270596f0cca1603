"""Messages per second that become rows: many `chat.submit` for a worker that only accepts, and enqueue_many."""

import signal
import time

from parts import Parts, load, request, scalar, until
from sqlalchemy import text

from afterword import Afterword

ROWS = "SELECT count(*) FROM afterword_jobs"


def flood(parts: Parts, kind: str, *, messages: int) -> tuple[float, float, str]:
    """Return the messages/s that one worker (`-Q chat.intake`) accepts, its CPU ms a message, and the load."""
    with parts.database(kind) as (url, engine), parts.worker(url, "-Q", "chat.intake") as worker:
        parts.submit(200, request())
        until(lambda: scalar(engine, ROWS) == 200, "the first messages")
        worker.signal(signal.SIGSTOP)
        try:
            parts.submit(messages, request())
            cpu_s = worker.cpu_s()
        finally:
            began = time.perf_counter()
            worker.signal(signal.SIGCONT)
        until(lambda: scalar(engine, ROWS) == 200 + messages, "all messages")
        took = time.perf_counter() - began
        used = worker.cpu_s() - cpu_s
    parts.redis.flushall()
    return messages / took, used / messages * 1e3, load()


def enqueue_many(parts: Parts, *, jobs: int, rounds: int = 3) -> tuple[float, float, str]:
    """Return jobs/s of enqueue_many with its commit, jobs/s that a worker then takes from the inbox, and the load."""
    best = 0.0
    with parts.database("postgresql") as (url, engine):
        for _ in range(rounds):
            with engine.begin() as connection:
                connection.execute(text("TRUNCATE afterword_inbox"))
            began = time.perf_counter()
            with engine.begin() as connection:
                Afterword().enqueue_many(connection, [request()] * jobs)
            best = max(best, jobs / (time.perf_counter() - began))
        with parts.worker(url, "-Q", "chat.intake"):
            began = time.perf_counter()
            until(lambda: scalar(engine, ROWS) == jobs, "the inbox drained")
            drained = jobs / (time.perf_counter() - began)
    parts.redis.flushall()
    return best, drained, load()
