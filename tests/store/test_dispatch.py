"""DISPATCH: the best due rows of each lane, what waits, and what is over."""

from sqlalchemy import Engine

from tests.store.made import accept_all, entry, job, one, rows
from worker.store import dispatch

LANE = ("default", "default")


def due(engine: Engine, lane: tuple[str, str] = LANE, *, limit: int = 10) -> list[str]:
    with engine.begin() as connection:
        return [row.job_id for row in dispatch.due(connection, lane, limit=limit)]


def test_lanes_are_the_pairs_that_have_queued_rows(engine: Engine) -> None:
    accept_all(engine, *(entry(job(tenant=tenant)) for tenant in ("b", "a", "b", "c")), entry(job(request={})))
    with engine.begin() as connection:
        assert dispatch.lanes(connection) == [("default", "a"), ("default", "b"), ("default", "c")]


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


def test_the_next_start_is_known_in_seconds(engine: Engine) -> None:
    with engine.begin() as connection:
        assert dispatch.next_start_s(connection, LANE) is None
    accept_all(engine, entry(job(not_before="2999-01-01T00:00:00Z")), entry())
    with engine.begin() as connection:
        wait_s = dispatch.next_start_s(connection, LANE)

    assert wait_s is not None
    assert wait_s > 9e9


def test_queued_jobs_past_their_deadline_end_and_others_do_not(engine: Engine) -> None:
    over, alive = entry(job(deadline="2020-01-01T00:00:00Z")), entry()
    accept_all(engine, over, alive)
    with engine.begin() as connection:
        assert dispatch.expire(connection) == {over.job.id}
        assert dispatch.expire(connection) == set()

    row = one(engine, "SELECT id, error_code, cursor FROM jobs_v1 WHERE status = 'expired'")
    assert (str(row.id), row.error_code, row.cursor) == (over.job.id, "expired", 1)
    assert len(rows(engine, "SELECT 1 FROM jobs_v1 WHERE status = 'queued'")) == 1
