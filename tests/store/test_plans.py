"""Moves by id look rows up by id, even if the planner's statistics on statuses are stale."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from sqlalchemy import Connection, event, text

from tests.store.made import worker
from tests.store.statements import FILL
from worker.core.failure import ErrorCode
from worker.core.lifecycle import CANCEL_QUEUED
from worker.jobs.store.claim import claim
from worker.store import transitions
from worker.store.clock import POSTGRESQL_NOW
from worker.store.engine import open_engine
from worker.store.transitions import ClaimRequest, error_columns

Step = Callable[[Connection, Sequence[str], str], Any]
STEPS: list[Step] = [
    lambda connection, ids, mine: claim(connection, [ClaimRequest(one, mine) for one in ids]),
    lambda connection, ids, mine: transitions.apply(
        connection, CANCEL_QUEUED, [(one, 0) for one in ids], changes=error_columns(ErrorCode.cancelled)
    ),
]


@pytest.mark.parametrize("step", STEPS, ids=["claim", "move"])
def test_a_backlog_unknown_to_the_planner_is_not_scanned(postgresql_url: str, step: Step) -> None:
    engine = open_engine(postgresql_url)
    mine = worker(engine)
    with engine.begin() as connection:
        # A burst follows millions of ended jobs: new statistics come minutes later, or after a tenth of the rows has
        # changed.
        connection.execute(text("ALTER TABLE afterword_jobs SET (autovacuum_enabled = false)"))
        connection.execute(
            text(
                FILL.format(id="gen_random_uuid()", now=POSTGRESQL_NOW, second="interval '-1 s'").replace(
                    "5000", "50000"
                )
            )
        )
        connection.execute(text("UPDATE afterword_jobs SET deadline = clock_timestamp() + interval '1 day'"))
        connection.execute(
            text("INSERT INTO afterword_requests (job_id, body) SELECT id, '\\x7b7d' FROM afterword_jobs LIMIT 100")
        )
    with engine.begin() as connection:
        ids = [str(one) for one in connection.scalars(text("SELECT job_id FROM afterword_requests ORDER BY 1"))]
        seen: list[tuple[str, Any]] = []
        event.listen(
            connection,
            "before_cursor_execute",
            lambda c, cursor, statement, values, *rest: seen.append((statement, values)),
        )
        step(connection, ids, mine)
        connection.rollback()
    statement, values = next(one for one in seen if "UPDATE afterword_jobs" in one[0])
    with engine.begin() as connection:
        lines = [str(row[0]) for row in connection.exec_driver_sql(f"EXPLAIN {statement}", values)]

    assert [line for line in lines if "afterword_jobs_start" in line or "Seq Scan on afterword_jobs" in line] == []
    engine.dispose()
