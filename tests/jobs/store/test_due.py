"""DISPATCH: the best due rows of each lane, the rows that wait, and the rows past their deadline."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, text, update

from tests.store.made import accept_all, entry, job, one, rows, worker
from tests.store.statements import FILL
from worker.jobs.store import due as dispatch
from worker.jobs.store.due import FIRST, JobLane
from worker.store import leases
from worker.store.clock import POSTGRESQL_NOW, SQLITE_NOW, from_now
from worker.store.engine import open_engine
from worker.store.tables import jobs

LANE = JobLane("default", "default", (0, 5, 9))


def due(engine: Engine, lane: JobLane = LANE, *, limit: int = 10) -> list[str]:
    with engine.begin() as connection:
        return [row.row_id for row in dispatch.due(connection, lane, limit=limit)]


def test_lanes_are_the_pairs_that_have_queued_rows(engine: Engine) -> None:
    accept_all(engine, *(entry(job(tenant=tenant)) for tenant in ("b", "a", "b", "c")), entry(job(request={})))
    accept_all(engine, entry(job(tenant="b", priority=1)))
    with engine.begin() as connection:
        found, on = dispatch.lanes(connection)

    assert found == [("default", "a", (5,)), ("default", "b", (1, 5)), ("default", "c", (5,))]
    assert on == FIRST


def test_due_rows_come_by_priority_and_then_by_age(engine: Engine) -> None:
    low, high, late, middle = (entry(job(priority=priority)) for priority in (9, 0, 0, 5))
    for each in (low, high, late, middle):
        accept_all(engine, each)
    waiting = entry(job(priority=0, not_before="2999-01-01T00:00:00Z"))
    accept_all(engine, waiting)

    assert set(due(engine, limit=2)) == {high.job.id, late.job.id}
    assert due(engine)[2:] == [middle.job.id, low.job.id]


def test_a_due_row_names_the_attempt_its_claim_will_give_it(engine: Engine) -> None:
    accept_all(engine, entry())
    with engine.begin() as connection:
        (row,) = dispatch.due(connection, LANE, limit=10)

    assert (row.attempt, row.priority) == (1, 5)


def test_a_due_row_has_the_time_since_it_became_due(engine: Engine) -> None:
    accept_all(engine, entry())
    with engine.begin() as connection:
        connection.execute(update(jobs).values(run_at=from_now(-3600.0)))
        (row,) = dispatch.due(connection, LANE, limit=10)

    assert 3599 < row.age_s < 3700


def test_a_start_in_the_year_one_is_due_wherever_the_database_lives(postgresql_url: str) -> None:
    admin = open_engine(postgresql_url)
    with admin.begin() as connection:
        connection.execute(text(f"ALTER DATABASE \"{admin.url.database}\" SET timezone = 'America/New_York'"))
    admin.dispose()
    engine = open_engine(postgresql_url)
    accept_all(engine, entry())
    with engine.begin() as connection:
        connection.execute(text("UPDATE afterword_jobs SET run_at = '0001-01-01T00:00:00Z'"))

    assert len(due(engine)) == 1
    engine.dispose()


def test_a_round_over_the_lanes_begins_where_the_last_one_ended(engine: Engine) -> None:
    accept_all(engine, *(entry(job(tenant=tenant)) for tenant in "abcd"), entry(job(tenant="b", priority=9)))
    seen, place = [], FIRST
    with engine.begin() as connection:
        for _ in range(3):
            found, place = dispatch.lanes(connection, after=place, limit=2)
            seen.append([(lane.tenant, lane.priorities) for lane in found])
        everything, on = dispatch.lanes(connection, after=("default", "b", 5), limit=9)

    assert seen == [[("a", (5,)), ("b", (5,))], [("b", (9,)), ("c", (5,))], [("d", (5,)), ("a", (5,))]]
    assert [(lane.tenant, lane.priorities) for lane in everything] == [
        ("b", (5, 9)), ("c", (5,)), ("d", (5,)), ("a", (5,)),
    ]  # fmt: skip
    assert on == FIRST


def test_the_next_start_of_all_lanes_is_known_in_seconds(engine: Engine) -> None:
    with engine.begin() as connection:
        assert dispatch.next_start_s(connection) is None
    for start in ("2999-01-01T00:00:00Z", "2998-01-01T00:00:00Z"):
        accept_all(engine, entry(job(not_before=start, deadline="3000-01-01T00:00:00Z", tenant=start)), entry())
    with engine.begin() as connection:
        wait_s = dispatch.next_start_s(connection)

    assert wait_s is not None
    assert 9e9 < wait_s < 971.5 * 365.25 * 86_400


def test_queued_jobs_past_their_deadline_end_and_others_do_not(engine: Engine) -> None:
    over, alive = entry(job(deadline="2020-01-01T00:00:00Z")), entry()
    accept_all(engine, over, alive)
    with engine.begin() as connection:
        assert dispatch.expire(connection) == {over.job.id}
        assert dispatch.expire(connection) == set()

    row = one(engine, "SELECT id, error_code, cursor FROM jobs_v1 WHERE status = 'expired'")
    assert (str(row.id), row.error_code, row.cursor) == (over.job.id, "expired", 1)
    assert len(rows(engine, "SELECT 1 FROM jobs_v1 WHERE status = 'queued'")) == 1


def test_a_leader_that_steps_down_is_followed_at_once(engine: Engine) -> None:
    first, second = worker(engine), worker(engine)

    def leads(worker_id: str) -> bool:
        with engine.begin() as connection:
            return leases.lead(connection, worker_id, name="dispatch", lease_s=60.0)

    assert leads(first)
    with engine.begin() as connection:
        dispatch.step_down(connection, second, name="dispatch")
    assert not leads(second), "a worker that does not lead cannot give up the leadership"
    with engine.begin() as connection:
        dispatch.step_down(connection, first, name="dispatch")

    assert leads(second)


ID = "printf('00000000-0000-4000-8000-%012d', n)"
READS: list[tuple[Callable[[Connection], Any], str]] = [
    (lambda connection: dispatch.due(connection, LANE, limit=20), "run_at"),
    (dispatch.next_start_s, "run_at"),
    (dispatch.expire, "deadline"),
    (lambda connection: dispatch.lanes(connection, after=("default", "a", 0)), "endpoint"),
    (lambda connection: connection.execute(dispatch._NEXT_ENDPOINT, {"endpoint": "a"}), "endpoint"),
    (dispatch.urgent, "deadline"),
]
NAMES = ["due", "next_start", "expire", "lanes", "behind_an_endpoint", "urgent"]


def filled(engine: Engine) -> None:
    """Insert thousands of waiting rows, so that a full scan is a bad plan, and update the planner's statistics."""
    postgresql = engine.dialect.name == "postgresql"
    values = ("gen_random_uuid()", POSTGRESQL_NOW, "interval '1 s'") if postgresql else (ID, SQLITE_NOW, "1000000")
    with engine.begin() as connection:
        connection.execute(text(FILL.format(id=values[0], now=values[1], second=values[2])))
        connection.execute(text("ANALYZE afterword_jobs"))


def plan(engine: Engine, read: Callable[[Connection], Any]) -> str:
    """Return the database's query plan for the first statement of `read`."""
    seen: list[tuple[str, Any]] = []

    def see(connection: Any, cursor: Any, statement: str, parameters: Any, *rest: Any) -> None:
        if statement.startswith("SELECT"):
            seen.append((statement, parameters))

    word = "EXPLAIN" if engine.dialect.name == "postgresql" else "EXPLAIN QUERY PLAN"
    with engine.begin() as connection:
        event.listen(connection, "before_cursor_execute", see)
        read(connection)
        statement, parameters = seen[0]
        lines = connection.exec_driver_sql(f"{word} {statement}", parameters).all()
        connection.rollback()
    return "\n".join(str(line[-1]) for line in lines)


@pytest.mark.parametrize(("read", "column"), READS, ids=NAMES)
def test_an_index_range_ends_at_the_present_on_postgresql(
    postgresql_url: str, read: Callable[[Connection], Any], column: str
) -> None:
    engine = open_engine(postgresql_url)
    filled(engine)

    lines = plan(engine, read).splitlines()

    assert any("Index Cond" in line and column in line for line in lines), lines
    assert not any("Filter" in line and column in line for line in lines), lines
    assert not any("Seq Scan on" in line for line in lines), lines
    engine.dispose()


@pytest.mark.parametrize(("read", "column"), READS, ids=NAMES)
def test_an_index_range_ends_at_the_present_on_sqlite(
    sqlite_url: str, read: Callable[[Connection], Any], column: str
) -> None:
    engine = open_engine(sqlite_url)
    filled(engine)

    lines = [line for line in plan(engine, read).splitlines() if "afterword_jobs" in line]

    assert lines
    assert all("USING INDEX" in line or "USING COVERING INDEX" in line for line in lines), lines
    assert all(column in line and ("<" in line or ">" in line) for line in lines), lines
    engine.dispose()


def test_urgent_jobs_of_a_paused_endpoint_do_not_crowd_out_others(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "URGENT_A_TICK", 2)
    accept_all(engine, *(entry(job(endpoint="down")) for _ in range(3)))
    near = entry()
    accept_all(engine, near)
    with engine.begin() as connection:
        connection.execute(update(jobs).where(jobs.c.endpoint == "down").values(deadline=from_now(10.0)))
        connection.execute(update(jobs).where(jobs.c.id == near.job.id).values(deadline=from_now(20.0)))
        found = dispatch.urgent(connection, skipped={"down"})

    assert [row.row_id for _, _, row in found] == [near.job.id]
