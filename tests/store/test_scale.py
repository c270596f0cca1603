"""A tick and a claim read as much beside a million rows as beside none, by the database's own count.

PostgreSQL counts pages, SQLite the instructions of its virtual machine. The short form inserts 20,000 rows, enough to
expose a plan that reads them; the long form inserts a million.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, Engine

from tests.store.costs import DEEPER, MORE, SIZES, Step, cost, tick, webhook_tick
from tests.store.made import worker
from tests.store.reads import settle
from tests.store.receiving import receiver
from worker.jobs.store import endpoints
from worker.jobs.store.claim import claim
from worker.store.clock import POSTGRESQL_NOW, SQLITE_NOW
from worker.store.transitions import ClaimRequest
from worker.webhooks.store import claim as deliveries_of

FEW, CLAIMED = 1_000, 50
LONG_AGO_S, AGO_S, LATER_S = -3_000_000, -1_500_000, 86_400

ROWS = "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {rows})"
JOBS = f"""
INSERT INTO afterword_jobs (id, tenant, status, endpoint, priority, run_at, deadline, created_at, max_attempts,
                            timeout_s, streamed, fingerprint)
{ROWS}
SELECT {{id}}, '{{tenant}}', 'queued', '{{endpoint}}', 5, {{now}} + {{second}} * ({{start}} + n),
       {{now}} + {{second}} * 9000000, {{now}}, 5, 60, false, 'x' FROM n
"""
BODIES = "INSERT INTO afterword_requests (job_id, body) SELECT id, {empty} FROM afterword_jobs WHERE tenant = 'default'"
EVENTS = f"""
INSERT INTO afterword_events (id, tenant, type, created_at, thin)
{ROWS}
SELECT {{id}}, 'default', 'job.completed', {{now}}, {{empty}} FROM n
"""
DELIVERIES = """
INSERT INTO afterword_deliveries (id, event_id, receiver_id, tenant, event_type, status, run_at, deadline, created_at,
                                  finished_at, variant, origin, sequence)
SELECT e.id, e.id, '{receiver}', 'default', 'job.completed', '{status}',
       {now} + {second} * ({start} + row_number() OVER (ORDER BY e.id)), {now} + {second} * 9000000, {now},
       CASE WHEN '{status}' = 'delivered' THEN {now} END, 'thin', 'event', 1
FROM afterword_events e WHERE NOT EXISTS (SELECT 1 FROM afterword_deliveries d WHERE d.event_id = e.id)
"""


@dataclass(frozen=True, slots=True)
class Beside:
    """Rows beside the due rows: their start, tenant, endpoint and status."""

    name: str
    start_s: int = AGO_S
    tenant: str = "default"
    endpoint: str = "default"
    status: str = "queued"


JOBS_BESIDE = [
    Beside("due"),
    Beside("not yet due", LATER_S),
    Beside("due in another lane", tenant="other"),
    Beside("of a paused endpoint", tenant="other", endpoint="a paused one"),
]
DELIVERIES_BESIDE = [
    Beside("due"),
    Beside("not yet due", LATER_S),
    Beside("due of another receiver", tenant="other"),
    Beside("on hold", status="held"),
    Beside("delivered", status="delivered"),
]


def write(engine: Engine, statement: str, *, tag: int = 1, **values: Any) -> None:
    if engine.dialect.name == "postgresql":
        words = {"now": POSTGRESQL_NOW, "second": "interval '1 s'", "id": "gen_random_uuid()", "empty": "'\\x7b7d'"}
    else:
        words = {
            "now": SQLITE_NOW, "second": "1000000", "id": f"printf('{tag:08d}-0000-4000-8000-%012d', n)",
            "empty": "x'7b7d'",
        }  # fmt: skip
    with engine.begin() as connection:
        connection.exec_driver_sql(statement.format(**words, **values))


def claiming(take: Callable[[Connection, Sequence[ClaimRequest]], Any], ids: Sequence[str], mine: str) -> Step:
    def step(connection: Connection) -> None:
        assert all(take(connection, [ClaimRequest(one, mine) for one in ids]))

    return step


def assert_no_dearer(engine: Engine, steps: Sequence[Step], crowd: Callable[[], None]) -> None:
    """Compare each step's cost before and after `crowd` inserts its rows."""
    alone = [cost(engine, step) for step in steps]
    crowd()
    settle(engine)
    crowded = [cost(engine, step) for step in steps]
    for few, many in zip(alone, crowded, strict=True):
        assert many < few * DEEPER + MORE[engine.dialect.name]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("beside", JOBS_BESIDE, ids=lambda beside: beside.name)
def test_jobs_beside_those_that_are_due_cost_a_tick_and_a_claim_nothing(
    engine: Engine, beside: Beside, size: int
) -> None:
    mine = worker(engine, lease_s=3600.0)
    with engine.begin() as connection:
        endpoints.pause(connection, "a paused one")
    write(engine, JOBS, rows=FEW, start=LONG_AGO_S, tenant="default", endpoint="default")
    write(engine, BODIES)
    settle(engine)
    with engine.begin() as connection:
        ids = tick(connection)[:CLAIMED]

    def crowd() -> None:
        write(engine, JOBS, tag=2, rows=size, start=beside.start_s, tenant=beside.tenant, endpoint=beside.endpoint)

    assert_no_dearer(engine, (tick, claiming(claim, ids, mine)), crowd)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("beside", DELIVERIES_BESIDE, ids=lambda beside: beside.name)
def test_deliveries_beside_those_that_are_due_cost_a_tick_and_a_claim_nothing(
    engine: Engine, beside: Beside, size: int
) -> None:
    mine, healthy = worker(engine, lease_s=3600.0), receiver(engine)
    other = receiver(engine, "other") if beside.tenant == "other" else healthy
    write(engine, EVENTS, rows=FEW)
    write(engine, DELIVERIES, receiver=healthy.id, status="queued", start=LONG_AGO_S)
    settle(engine)
    with engine.begin() as connection:
        ids = webhook_tick(connection)
    assert len(ids) == healthy.registration.in_flight

    def crowd() -> None:
        write(engine, EVENTS, tag=2, rows=size)
        write(engine, DELIVERIES, receiver=other.id, status=beside.status, start=beside.start_s)

    assert_no_dearer(engine, (webhook_tick, claiming(partial(deliveries_of.claim, slots=100), ids, mine)), crowd)
