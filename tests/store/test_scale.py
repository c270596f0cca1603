"""What a tick and a claim read, by the database's own count: with a million rows beside as with none.

PostgreSQL counts pages, SQLite the steps of its virtual machine. The short form of the suite has 20,000 rows, which a
plan that reads them shows as well; the long form has the million.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event

from tests.store.made import worker
from tests.store.receiving import receiver
from worker.jobs.store import due, endpoints, reclaim
from worker.jobs.store.claim import claim
from worker.store.clock import POSTGRESQL_NOW, SQLITE_NOW
from worker.store.transitions import ClaimRequest
from worker.webhooks.store import claim as deliveries_of
from worker.webhooks.store import due as webhook_lanes
from worker.webhooks.store import expire, recover

FEW = 1_000
SIZES = [pytest.param(20_000, id="20,000"), pytest.param(1_000_000, id="1,000,000", marks=pytest.mark.long)]
CLAIMED, WINDOW = 50, 400
LONG_AGO_S, AGO_S, LATER_S = -3_000_000, -1_500_000, 86_400
# A tree of a million rows is a page or two deeper than one of a thousand, and each step over an index goes down it; one
# lane more is a few steps more. Reading the rows would be hundreds of pages, a hundred thousand steps.
DEEPER, MORE = 2.0, {"postgresql": 50, "sqlite": 1000}

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
    """Rows beside those that are due: when they start, of whom, in which status."""

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


def settle(engine: Engine) -> None:
    """Let the planner know, and the pages be clean: what autovacuum does within minutes."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE" if engine.dialect.name == "postgresql" else "ANALYZE")


Step = Callable[[Connection], Any]


def cost(engine: Engine, step: Step) -> int:
    """Return what the statements of a step read, and undo it."""
    return _pages(engine, step) if engine.dialect.name == "postgresql" else _instructions(engine, step)


def _pages(engine: Engine, step: Step) -> int:
    seen: list[tuple[str, Any]] = []

    def see(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        if not statement.startswith("SET"):
            seen.append((statement, parameters[0] if many else parameters))

    read = 0
    with engine.connect() as connection:
        event.listen(connection, "before_cursor_execute", see)
        step(connection)
        event.remove(connection, "before_cursor_execute", see)
        connection.rollback()
        for statement, parameters in seen:
            found = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", parameters)
            plan = json.loads(found.scalar_one())[0]["Plan"]
            read += plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
            connection.rollback()
    return read


def _instructions(engine: Engine, step: Step) -> int:
    ran = 0

    def count() -> int:
        nonlocal ran
        ran += 10
        return 0

    with engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        driver.set_progress_handler(count, 10)
        step(connection)
        driver.set_progress_handler(None, 0)
        connection.rollback()
    return ran


def tick(connection: Connection) -> list[str]:
    """Ask what the dispatcher asks; return the ids of what may start."""
    reclaim.take_back(connection)
    due.expire(connection)
    paused = {one.name for one in endpoints.read_all(connection).values() if one.state == "paused"}
    for name in paused:
        due.probe(connection, name, after=due.FIRST, last=None)
    lanes, _ = due.lanes(connection, skipped=paused)
    due.next_start_s(connection)
    return [row.row_id for lane in lanes if lane.tenant == "default" for row in due.due(connection, lane, limit=WINDOW)]


def webhook_tick(connection: Connection) -> list[str]:
    """The same for deliveries."""
    expire.give_up(connection)
    expire.take_back(connection)
    recover.step(connection)
    expire.next_start_s(connection)
    lanes, _ = webhook_lanes.lanes(connection)
    most = {lane.receiver_id: lane.free for lane in lanes if lane.free}
    return [row.row_id for rows in webhook_lanes.due(connection, most).values() for row in rows]


def claiming(take: Callable[[Connection, Sequence[ClaimRequest]], Any], ids: Sequence[str], mine: str) -> Step:
    def step(connection: Connection) -> None:
        assert all(take(connection, [ClaimRequest(one, mine) for one in ids]))

    return step


def assert_no_dearer(engine: Engine, steps: Sequence[Step], crowd: Callable[[], None]) -> None:
    """Compare what each step reads before and after `crowd` has put its rows beside."""
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
