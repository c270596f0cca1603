"""Latency of an idle worker: from `submit` to the request on the wire, and from the answer's last byte to the row.

The fake endpoint runs in this process, so both ends are read from one clock.
"""

import random
import threading
import time
from dataclasses import dataclass, field

from aiohttp import web
from parts import Parts, load, quantiles, request
from sqlalchemy import Engine, text

from afterword import Afterword
from worker.dev.fake.server import FakeServer
from worker.dev.fake_endpoint import FakeEndpoint

IDLE_S = 10.0
SEEN = text("SELECT 1 FROM afterword_jobs WHERE id = :id AND status = 'completed'")


@dataclass(slots=True)
class NotingEndpoint(FakeServer):
    """A fake endpoint that stores the arrival time of each job's request and the departure time of its answer."""

    came_at: dict[str, float] = field(default_factory=dict)
    left_at: dict[str, float] = field(default_factory=dict)
    left: threading.Event = field(default_factory=threading.Event)

    async def answer(self, asked: web.Request) -> web.StreamResponse:
        self.came_at[asked.headers["Idempotency-Key"]] = time.perf_counter()
        made = await super(NotingEndpoint, self).answer(asked)  # bare super() fails: slots=True makes a new class
        self.left_at[asked.headers["Idempotency-Key"]] = time.perf_counter()
        self.left.set()
        return made


@dataclass(frozen=True, slots=True)
class Latencies:
    """p50 and p99 in milliseconds."""

    to_wire: tuple[float, float]
    to_row: tuple[float, float]
    loaded: str


def idle(parts: Parts, kind: str, *, jobs: int) -> Latencies:
    """Submit one job at a time to an idle worker, after ten idle seconds."""
    fake = FakeEndpoint()
    endpoint = fake.endpoint = NotingEndpoint()
    with fake, parts.database(kind) as (url, engine), parts.worker(url, endpoint=fake.url):
        client = Afterword(parts.redis_server.url)
        _one(client, endpoint, engine)
        time.sleep(IDLE_S)
        pairs = [_one(client, endpoint, engine) for _ in range(jobs)]
        client.close()
    parts.redis.flushall()
    return Latencies(quantiles([p[0] for p in pairs]), quantiles([p[1] for p in pairs]), load())


def _one(client: Afterword, endpoint: NotingEndpoint, engine: Engine) -> tuple[float, float]:
    # A random moment: not in step with a timer of the worker.
    time.sleep(random.uniform(0.1, 0.3))
    endpoint.left.clear()
    began = time.perf_counter()
    job_id = client.submit(request(0.05))
    if not endpoint.left.wait(30.0):
        raise TimeoutError(f"job {job_id} did not reach the endpoint within 30 s")
    with engine.connect() as connection:
        # Each new statement sees newer commits.
        while connection.execute(SEEN, {"id": job_id}).first() is None:
            connection.rollback()
        seen_at = time.perf_counter()
    return endpoint.came_at[job_id] - began, seen_at - endpoint.left_at[job_id]
