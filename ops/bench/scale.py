"""Cost of a claim and of a dispatch tick with a million rows in the table, and its ratio to the cost with a thousand.

PostgreSQL runs in its own process, so the figure is elapsed time: the best of many rounds, each rolled back. A tick is
the dispatcher's SQL: paused endpoints, the lanes of the other endpoints, the best due rows of each lane, the next
start, expired jobs, and a probe for each paused endpoint.
"""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from parts import Parts, load
from sqlalchemy import Connection, Engine, text
from sqlalchemy import insert as insert_into

from worker.jobs.core.endpoint_health import Cause, State
from worker.jobs.store import due as dispatch
from worker.jobs.store import endpoints
from worker.jobs.store.claim import claim
from worker.store import leases
from worker.store.clock import from_now
from worker.store.engine import open_engine
from worker.store.tables import endpoints as endpoints_table
from worker.store.transitions import ClaimRequest

WORKER = "00000000-0000-4000-8000-000000000001"
FEW, MANY = 1_000, 1_000_000
CLAIMED, WINDOW, ROUNDS = 100, 400, 40

INSERT = """
INSERT INTO afterword_jobs (id, tenant, status, endpoint, priority, run_at, deadline, created_at, max_attempts,
                            timeout_s, streamed, fingerprint)
SELECT gen_random_uuid(), :tenant, 'queued', :endpoint, 5,
       now() + make_interval(secs => :from_now_s) + n * interval '1 ms',
       now() + interval '10 days', now(), 5, 600, false, md5(n::text)
FROM generate_series(1, :rows) AS n
"""
BODIES = """
INSERT INTO afterword_requests (job_id, body)
SELECT id, '{"model":"m","messages":[{"role":"user","content":"hello"}]}' FROM afterword_jobs WHERE tenant = 'default'
"""
PAUSED = "a paused one"  # sorts before `default`, so every walk meets it
LONG_AGO_S, LATER_S = -86_400.0, 86_400.0


PAUSE = insert_into(endpoints_table).values(
    name=PAUSED, state=State.paused, cause=Cause.trouble, since=from_now(-60.0), probe_at=from_now(86_400.0)
)


@dataclass(frozen=True, slots=True)
class Filling:
    """`due`: due rows of lane `default`. `beside…`: the number of other rows, the time they are due, their lane."""

    name: str
    due: int
    beside: int = 0
    beside_from_now_s: float = LONG_AGO_S
    beside_tenant: str = "default"
    beside_endpoint: str = "default"


FILLINGS = (
    Filling("1,000 due", FEW),
    Filling("1,000,000 due", MANY),
    Filling("1,000 due, 1,000,000 not yet due", FEW, MANY, LATER_S),
    Filling("1,000 due, 1,000,000 due in another lane", FEW, MANY, LONG_AGO_S, "other"),
    Filling("1,000 due, 1,000,000 of a paused endpoint", FEW, MANY, LONG_AGO_S, "other", PAUSED),
)


@dataclass(frozen=True, slots=True)
class Costs:
    """Milliseconds of one claim in a transaction of a hundred, and of one tick."""

    filling: Filling
    claim_ms: float
    tick_ms: float
    loaded: str


def measure(parts: Parts, filling: Filling) -> Costs:
    with _filled(parts, filling) as engine, engine.connect() as connection:
        due = text("SELECT id FROM afterword_jobs WHERE tenant = 'default' AND run_at < now() LIMIT 100000")
        ids = [str(row.id) for row in connection.execute(due)]
        connection.rollback()

        def claim_some() -> None:
            claimed = claim(connection, [ClaimRequest(job_id, WORKER) for job_id in random.sample(ids, CLAIMED)])
            assert all(claimed)

        claim_s = _best(connection, claim_some)
        tick_s = _best(connection, lambda: _tick(connection))
    return Costs(filling, claim_s / CLAIMED * 1e3, tick_s * 1e3, load())


def _tick(connection: Connection) -> None:
    dispatch.expire(connection)
    seen = endpoints.read_all(connection).values()
    paused = {endpoint.name for endpoint in seen if endpoint.state is State.paused}
    for name in paused:
        dispatch.probe(connection, name, after=dispatch.FIRST, last=None)
    lanes, _ = dispatch.lanes(connection, skipped=paused)
    for lane in lanes:
        assert dispatch.due(connection, lane, limit=WINDOW)
    dispatch.next_start_s(connection)


@contextmanager
def _filled(parts: Parts, filling: Filling) -> Iterator[Engine]:
    with parts.database("postgresql") as (url, _):
        engine = open_engine(url)
        with engine.begin() as connection:
            leases.register(connection, WORKER, name="bench", slots=200, lease_s=86_400.0)
            insert = text(INSERT)
            due = {"tenant": "default", "endpoint": "default", "rows": filling.due, "from_now_s": LONG_AGO_S}
            connection.execute(insert, due)
            beside = {"tenant": filling.beside_tenant, "endpoint": filling.beside_endpoint, "rows": filling.beside}
            connection.execute(insert, beside | {"from_now_s": filling.beside_from_now_s})
            connection.execute(PAUSE)
            connection.execute(text(BODIES))
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            # Autovacuum does this within minutes.
            connection.execute(text("VACUUM ANALYZE"))
        yield engine
        engine.dispose()


def _best(connection: Connection, work: Callable[[], None]) -> float:
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - began)
        connection.rollback()
    return best
