"""Measure fair dispatch: `python ops/bench/limits.py [--only NAME ...] [--short] [--database KIND ...]`.

- `stranger`: tenant `deep` has thousands of queued jobs. How long does a single job of tenant `stranger` wait?
- `flood`: the same, while `deep` also submits hundreds of jobs a second.
- `shares`: three tenants with deep backlogs, weights 1, 1 and 3, and answers of different lengths. Who gets the tokens?
- `deadline`: jobs of the worst priority behind a backlog of their tenant, with a deadline long before their turn.

A wait runs from `submit` to the arrival of the request at the fake endpoint, which runs in this process.
"""

import argparse
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial

from aiohttp import web
from parts import Parts, load, parts, quantiles, request, scalar, until
from sqlalchemy import Engine, text

from afterword import Afterword
from worker.dev.fake.server import FakeServer
from worker.dev.fake_endpoint import FakeEndpoint

# Weight, and characters of an answer.
TENANTS = {"a": (1, 600), "b": (1, 6000), "c": (3, 2000)}
URGENT = 100
DEADLINE_S = 90
SHARES_S = 40.0
ENDED = "SELECT count(*) FROM afterword_jobs WHERE priority = 9 AND status NOT IN ('queued', 'in_progress')"

DATABASES = ("postgresql", "sqlite")
SLOTS = 40
QUEUED = 6000
FLOOD_PER_S = 250
# The flood is submitted in so many pushes a second.
PUSHES_PER_S = 10
LATEST_S = 120.0


@dataclass(slots=True)
class NotingEndpoint(FakeServer):
    """A fake endpoint that stores the arrival time of each job's request."""

    came_at: dict[str, float] = field(default_factory=dict)

    async def answer(self, asked: web.Request) -> web.StreamResponse:
        self.came_at.setdefault(asked.headers["Idempotency-Key"], time.perf_counter())
        return await super(NotingEndpoint, self).answer(asked)  # bare super() fails: slots=True makes a new class


def waits(here: Parts, kind: str, args: argparse.Namespace, *, flood_per_s: int) -> str:
    """Return a line with the waits of the stranger's jobs."""
    fake = FakeEndpoint()
    endpoint = fake.endpoint = NotingEndpoint()
    body = request(args.call_s)
    with fake, here.database(kind) as (url, engine):
        with here.worker(url, endpoint=fake.url, concurrency=args.slots), flooding(here, body, flood_per_s):
            if not flood_per_s:
                here.submit(args.queued, body, tenant="deep")
                until(lambda: _accepted(engine) >= args.queued, "the acceptance of the backlog")
            time.sleep(3.0)
            seconds = list(_stranger(here, endpoint, args))
        started = len(endpoint.came_at)
    here.redis.flushall()
    p50, p99 = quantiles(seconds)
    name = f"flood of {flood_per_s} a second" if flood_per_s else f"{args.queued:,} queued"
    late = sum(wait_s >= LATEST_S for wait_s in seconds)
    slots = f"{args.slots} slots, calls of {args.call_s:g} s"
    found = f"p50 {p50:6.0f} ms, p99 {p99:6.0f} ms of {len(seconds)} jobs, {late} later than {LATEST_S:g} s"
    return f"{name}, {kind}, {slots}: {found}; {started} started   {load()}"


def _stranger(here: Parts, endpoint: NotingEndpoint, args: argparse.Namespace) -> Iterator[float]:
    """Submit one job every `every_s`; yield the wait of each job, at most LATEST_S."""
    began_at: dict[str, float] = {}
    with Afterword(here.redis_server.url) as client:
        for _ in range(args.samples):
            began = time.perf_counter()
            began_at[client.submit(request(args.call_s), tenant="stranger")] = began
            time.sleep(args.every_s)
    latest = time.perf_counter() + LATEST_S
    while time.perf_counter() < latest and not began_at.keys() <= endpoint.came_at.keys():
        time.sleep(0.1)
    yield from (endpoint.came_at.get(job_id, began + LATEST_S) - began for job_id, began in began_at.items())


@contextmanager
def flooding(here: Parts, body: dict[str, object], per_s: int) -> Iterator[None]:
    """Submit `per_s` jobs of the tenant `deep` a second until the block ends."""
    ended = threading.Event()

    def submit() -> None:
        next_at = time.perf_counter()
        while not ended.wait(max(0.0, next_at - time.perf_counter())):
            next_at += 1 / PUSHES_PER_S
            here.submit(per_s // PUSHES_PER_S, body, tenant="deep")

    thread = threading.Thread(target=submit, daemon=True)
    if per_s:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        if per_s:
            thread.join()


def _accepted(engine: Engine) -> int:
    return int(scalar(engine, "SELECT count(*) FROM afterword_jobs"))


def shared(here: Parts, kind: str, args: argparse.Namespace) -> str:
    """Return a line with each tenant's part of the tokens, from `usage_v1`."""
    fake = FakeEndpoint()
    config = here.folder / "tenants.toml"
    config.write_text("".join(f"[tenants.{name}]\nweight = {weight}\n" for name, (weight, _) in TENANTS.items()))
    queued = args.queued // 2
    with (
        fake,
        here.database(kind) as (url, engine),
        here.worker(url, endpoint=fake.url, concurrency=args.slots, config=config),
    ):
        for tenant, (_, size) in TENANTS.items():
            body = request(args.call_s, fake={"latency_s": args.call_s, "size": size})
            here.submit(queued, body, tenant=tenant)
        until(lambda: _accepted(engine) >= len(TENANTS) * queued, "the acceptance of the backlogs")
        before = _tokens(engine)
        time.sleep(SHARES_S)
        after = _tokens(engine)
    here.redis.flushall()
    grown = {tenant: after[tenant] - before.get(tenant, 0) for tenant in TENANTS}
    parts_of = ", ".join(f"{tenant} {100 * tokens / sum(grown.values()):.1f} %" for tenant, tokens in grown.items())
    return f"shares, {kind}, weights 1, 1, 3: {parts_of} of {sum(grown.values()):,} tokens   {load()}"


def _tokens(engine: Engine) -> dict[str, int]:
    statement = text("SELECT tenant, sum(total_tokens) FROM usage_v1 GROUP BY tenant")
    with engine.connect() as connection:
        return {tenant: int(tokens or 0) for tenant, tokens in connection.execute(statement)}


def in_time(here: Parts, kind: str, args: argparse.Namespace) -> str:
    """Return a line with the number of urgent jobs that started before their deadline."""
    fake = FakeEndpoint()
    body = request(args.call_s)
    with fake, here.database(kind) as (url, engine), here.worker(url, endpoint=fake.url, concurrency=args.slots):
        here.submit(args.queued, body, tenant="deep")
        until(lambda: _accepted(engine) >= args.queued, "the acceptance of the backlog")
        deadline = (datetime.now(UTC) + timedelta(seconds=DEADLINE_S)).isoformat()
        here.submit(URGENT, body, tenant="deep", priority=9, deadline=deadline)
        until(lambda: scalar(engine, ENDED) >= URGENT, "the end of the urgent jobs")
        completed = scalar(engine, f"{ENDED} AND status = 'completed'")
        left = scalar(engine, "SELECT count(*) FROM afterword_jobs WHERE status = 'queued'")
    here.redis.flushall()
    found = f"{completed} of {URGENT} urgent jobs completed, {left:,} of {args.queued:,} before them still queued"
    return f"deadline in {DEADLINE_S} s, {kind}: {found}   {load()}"


FIGURES: dict[str, Callable[[Parts, str, argparse.Namespace], str]] = {
    "stranger": partial(waits, flood_per_s=0),
    "flood": partial(waits, flood_per_s=FLOOD_PER_S),
    "shares": shared,
    "deadline": in_time,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=FIGURES, default=list(FIGURES))
    parser.add_argument("--database", nargs="+", choices=DATABASES, default=list(DATABASES))
    parser.add_argument("--short", action="store_true", help="20 jobs of the stranger, one a second")
    parser.add_argument("--slots", type=int, default=SLOTS)
    parser.add_argument("--call-s", type=float, default=0.5, help="the time of one call")
    parser.add_argument("--queued", type=int, default=QUEUED, help="jobs in the backlog")
    parser.add_argument("--samples", type=int, default=100, help="jobs of the stranger")
    parser.add_argument("--every-s", type=float, default=5.0, help="time between two jobs of the stranger")
    args = parser.parse_args()
    if args.short:
        args.samples, args.every_s = 20, 1.0
    with parts() as here:
        for name in args.only:
            for kind in args.database:
                print(FIGURES[name](here, kind, args), flush=True)


if __name__ == "__main__":
    main()
