"""The cost of a step: pages that PostgreSQL reads, instructions that SQLite runs."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event

from worker.jobs.store import due, endpoints, reclaim, tenant_usage
from worker.webhooks.store import due as webhook_lanes
from worker.webhooks.store import expire, recover
from worker.webhooks.store import reclaim as reclaim_deliveries

SIZES = [pytest.param(20_000, id="20,000"), pytest.param(1_000_000, id="1,000,000", marks=pytest.mark.long)]
WINDOW = 400
# The index of a million rows is a page or two deeper than the index of a thousand, and each lookup reads that depth.
# One more lane costs a few lookups. Reading all rows would cost hundreds of pages or a hundred thousand instructions.
DEEPER, MORE = 2.0, {"postgresql": 50, "sqlite": 1000}

Step = Callable[[Connection], Any]


def cost(engine: Engine, step: Step) -> int:
    """Return how much the statements of a step read; roll the step back."""
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
    """Run the dispatcher's queries for jobs; return the ids of the jobs that may start."""
    reclaim.take_back(connection)
    due.expire(connection)
    paused = {one.name for one in endpoints.read_all(connection).values() if one.state == "paused"}
    for name in paused:
        due.probe(connection, name, after=due.FIRST, last=None)
    lanes, _ = due.lanes(connection, skipped=paused)
    due.next_start_s(connection)
    tenant_usage.in_progress(connection)
    tenant_usage.finished_jobs(connection, after=0)
    due.urgent(connection)
    return [row.row_id for lane in lanes if lane.tenant == "default" for row in due.due(connection, lane, limit=WINDOW)]


def webhook_tick(connection: Connection) -> list[str]:
    """Run the dispatcher's queries for deliveries; return the ids of the deliveries that may start."""
    expire.give_up(connection)
    reclaim_deliveries.take_back(connection)
    recover.step(connection)
    expire.next_start_s(connection)
    lanes, _ = webhook_lanes.lanes(connection)
    most = {lane.receiver_id: lane.free for lane in lanes if lane.free}
    return [row.row_id for rows in webhook_lanes.due(connection, most).values() for row in rows]
