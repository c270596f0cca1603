"""Measure webhooks: `python ops/bench/webhooks.py [--samples N] [--jobs N] [--dead N]`.

- Idle: the time from the last byte of an endpoint's answer to the webhook at its receiver, on this process's clock.
- Isolation: webhooks to a healthy receiver, first alone, then beside a dead receiver with pending events.
- Backlog: webhooks per second from the queue of one healthy receiver.
"""

import argparse
import contextlib
import json
import random
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cryptography.fernet import Fernet
from latency import NotingEndpoint
from parts import Parts, load, parts, quantiles, request, scalar, until
from sqlalchemy import Engine, insert, update

from afterword import Afterword
from worker.dev.fake_endpoint import FakeEndpoint
from worker.dev.receiver import Received, ReceiverAnswer, WebhookReceiver
from worker.store.clock import now
from worker.store.engine import open_engine
from worker.webhooks.store.tables import receivers

PACE_PER_S = 40
SETTINGS = {
    "secret_keys": Fernet.generate_key().decode(),
    "webhook_allow_http": "true",
    "webhook_allow_cidrs": "127.0.0.0/8",
}
QUEUED = "SELECT count(*) FROM afterword_deliveries WHERE status = 'queued'"


@dataclass
class Noting:
    """Answers 200 and stores the arrival time of each job's webhook."""

    came_at: dict[str, float]
    came: threading.Event

    def __call__(self, got: Received) -> ReceiverAnswer:
        self.came_at[json.loads(got.body)["data"]["id"]] = time.perf_counter()
        self.came.set()
        return ReceiverAnswer(200)


def register(engine: Engine, url: str, name: str, **changes: object) -> str:
    """Insert a receiver like one from a job's address; its first delivery makes its keys."""
    row = {
        "id": str(uuid.uuid4()), "tenant": "default", "name": name, "url": url, "is_default": False,
        "events": '["job.*"]', "payload": "auto", "profile": "afterword", "timeout_s": 15.0, "in_flight": 10,
        "ordering": "none", "on_exhausted": "skip", "status": "enabled", **changes,
    }  # fmt: skip
    with engine.begin() as connection:
        connection.execute(insert(receivers).values(created_at=now()), [row])
    return str(row["id"])


@contextlib.contextmanager
def dead() -> Iterator[str]:
    """Yield the address of a receiver that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"


def idle(parts: Parts, kind: str, *, jobs: int) -> tuple[float, float]:
    """Submit one job at a time to an idle worker; return p50 and p99 of last byte → webhook, in ms."""
    fake = FakeEndpoint()
    endpoint = fake.endpoint = NotingEndpoint()
    noting = Noting({}, threading.Event())
    with fake, WebhookReceiver(answer=noting) as to, parts.database(kind) as (url, _reader):
        engine = open_engine(url)
        register(engine, to.url, "healthy", is_default=True)
        with parts.worker(url, endpoint=fake.url, **SETTINGS):
            client = Afterword(parts.redis_server.url)
            taken = [_one(client, endpoint, noting) for _ in range(jobs + 1)][1:]
            client.close()
        engine.dispose()
    parts.redis.flushall()
    return quantiles(taken)


def _one(client: Afterword, endpoint: NotingEndpoint, noting: Noting) -> float:
    time.sleep(random.uniform(0.1, 0.3))
    noting.came.clear()
    job_id = client.submit(request(0.05))
    if not noting.came.wait(30.0):
        raise TimeoutError(f"no webhook of job {job_id} came within 30 s")
    return noting.came_at[job_id] - endpoint.left_at[job_id]


@dataclass(frozen=True)
class Isolation:
    """`latency_ms`: p50 and p99 of last byte → webhook. `pending`: queued deliveries when the last webhook came."""

    latency_ms: tuple[float, float]
    jobs_per_s: float
    pending: int


def beside(parts: Parts, kind: str, *, jobs: int, pending: int) -> Isolation:
    """Run jobs with webhooks to a healthy receiver while `pending` events are queued for a dead receiver."""
    fake = FakeEndpoint()
    endpoint = fake.endpoint = NotingEndpoint()
    noting = Noting({}, threading.Event())
    with fake, WebhookReceiver(answer=noting) as to, dead() as nowhere, parts.database(kind) as (url, reader):
        engine = open_engine(url)
        register(engine, to.url, "healthy", in_flight=50)
        register(engine, nowhere, "dead")
        with parts.worker(url, endpoint=fake.url, **SETTINGS):
            done: Callable[[], int] = lambda: int(scalar(reader, "SELECT count(*) FROM afterword_finished"))  # noqa: E731
            if pending:
                parts.submit(pending, request(0.0), webhook={"to": "dead"})
                until(lambda: done() == pending, "the jobs of the dead receiver")
            began = time.perf_counter()
            ids = []
            while len(ids) < jobs:  # at a fixed pace, or the figure would measure the queue
                ids += parts.submit(1, request(0.2), webhook={"to": "healthy"})
                time.sleep(max(0.0, began + len(ids) / PACE_PER_S - time.perf_counter()))
            until(lambda: done() == pending + jobs, "all jobs")
            took_s = time.perf_counter() - began
            until(lambda: len(noting.came_at) == jobs, "all webhooks")
            left = int(scalar(reader, QUEUED))
        latencies = [noting.came_at[job_id] - endpoint.left_at[job_id] for job_id in ids]
        engine.dispose()
    parts.redis.flushall()
    return Isolation(quantiles(latencies), jobs / took_s, left)


def backlog(parts: Parts, kind: str, *, jobs: int) -> float:
    """Pause a receiver, let jobs end, end the pause; return the webhooks/s that are then sent."""
    noting = Noting({}, threading.Event())
    with WebhookReceiver(answer=noting) as to, parts.database(kind) as (url, reader):
        engine = open_engine(url)
        # Resting, not disabled: its deliveries stay queued, as after an outage of the receiver.
        mine = register(engine, to.url, "healthy", is_default=True, health='{"paused_until_s": 4e9}')
        with parts.worker(url, **SETTINGS):
            parts.submit(jobs, request(0.0))
            until(lambda: scalar(reader, QUEUED) == jobs, "the events")
            with engine.begin() as connection:
                connection.execute(update(receivers).where(receivers.c.id == mine).values(health=None))
            began = time.perf_counter()
            until(lambda: len(noting.came_at) == jobs, "all webhooks")
            took_s = time.perf_counter() - began
        engine.dispose()
    parts.redis.flushall()
    return jobs / took_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=100, help="jobs submitted one by one")
    parser.add_argument("--jobs", type=int, default=1000, help="jobs with webhooks to the healthy receiver")
    parser.add_argument("--dead", type=int, default=1000, help="events pending to the dead receiver")
    parser.add_argument("--kinds", nargs="+", default=["postgresql", "sqlite"])
    parser.add_argument("--only", nargs="+", default=["idle", "isolation", "backlog"])
    args = parser.parse_args()
    with parts() as here:
        for kind in args.kinds:
            if "idle" in args.only:
                p50, p99 = idle(here, kind, jobs=args.samples)
                print(f"idle, {kind}: last byte → webhook p50 {p50:.1f} ms, p99 {p99:.1f} ms   {load()}", flush=True)
            for pending in (0, args.dead) if "isolation" in args.only else ():
                found = beside(here, kind, jobs=args.jobs, pending=pending)
                p50, p99 = found.latency_ms
                latency = f"last byte → webhook p50 {p50:.0f} ms, p99 {p99:.0f} ms"
                rest = f"{found.jobs_per_s:.0f} jobs/s, {found.pending} pending at the end   {load()}"
                print(f"{pending} pending to a dead receiver, {kind}: {latency}, {rest}", flush=True)
            if "backlog" in args.only:
                rate = backlog(here, kind, jobs=min(args.jobs, 500))
                print(f"backlog of one receiver, {kind}: {rate:.0f} webhooks/s   {load()}", flush=True)


if __name__ == "__main__":
    main()
