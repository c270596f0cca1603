"""One INSERT into cancel_v1 or replay_v1 cancels or replays a job, on both databases."""

import json
import uuid

import pytest
from sqlalchemy import Engine, select, text, update

from tests.jobs.store.orders import accepted, fail, order
from tests.store.made import accept_all, claim_one, entry, job, one, rows, worker
from worker.core.failure import ErrorCode
from worker.store.clock import from_now, seconds_until
from worker.store.tables import jobs
from worker.store.transitions import error_columns

STANDS = "SELECT status, error_code, error_message, finished_at FROM jobs_v1 WHERE id = :id"


def test_a_queued_job_is_cancelled_in_the_callers_transaction(engine: Engine) -> None:
    new = accepted(engine)

    order(engine, "cancel_v1", new)

    row = one(engine, STANDS, id=new)
    assert row.status == "cancelled"
    assert row.finished_at is not None
    wanted = error_columns(ErrorCode.cancelled)
    assert (row.error_code, row.error_message) == (wanted["error_code"], wanted["error_message"])
    kept = one(engine, "SELECT error FROM afterword_jobs WHERE id = :id", id=new).error
    assert json.loads(kept) == json.loads(wanted["error"])


def test_a_rolled_back_cancellation_has_no_effect(engine: Engine) -> None:
    new = accepted(engine)

    with engine.connect() as connection:
        connection.execute(text("INSERT INTO cancel_v1 (id) VALUES (:id)"), {"id": new})
        connection.rollback()

    assert one(engine, STANDS, id=new).status == "queued"
    assert rows(engine, "SELECT id FROM cancel_v1") == []


def test_a_running_job_is_marked_for_its_holder(engine: Engine) -> None:
    new = accepted(engine)
    holder = worker(engine)
    assert claim_one(engine, holder, new) is not None

    order(engine, "cancel_v1", new)

    assert one(engine, STANDS, id=new).status == "in_progress"
    assert one(engine, "SELECT cancel_requested_at FROM afterword_jobs WHERE id = :id", id=new)[0] is not None


def test_cancelling_an_unknown_id_leaves_a_mark(engine: Engine) -> None:
    new = str(uuid.uuid4())

    order(engine, "cancel_v1", new)
    order(engine, "cancel_v1", new)

    assert [str(row.id) for row in rows(engine, "SELECT id FROM cancel_v1")] == [new]


def test_the_id_of_a_duplicate_cancels_the_job_it_became(engine: Engine) -> None:
    first, second = accepted(engine, idempotency_key="k"), str(uuid.uuid4())
    accept_all(engine, entry(job(idempotency_key="k"), id=second))

    order(engine, "cancel_v1", second)

    assert one(engine, STANDS, id=first).status == "cancelled"


def test_a_failed_job_is_replayed_with_new_attempts_time_and_key(engine: Engine) -> None:
    new = accepted(engine)
    fail(engine, new)
    before = one(engine, "SELECT attempt, generation, deadline FROM afterword_jobs WHERE id = :id", id=new)

    order(engine, "replay_v1", new)

    row = one(engine, "SELECT * FROM afterword_jobs WHERE id = :id", id=new)
    assert (row.status, row.finished_at, row.error_code, row.attempts_used) == ("queued", None, None, 0)
    assert (row.attempt, row.generation) == (before.attempt, before.generation + 1)
    assert row.deadline > before.deadline
    assert claim_one(engine, worker(engine), new) is not None


def test_a_second_replay_gives_as_much_time_as_the_first(engine: Engine) -> None:
    new = accepted(engine)
    for _ in range(2):
        fail(engine, new)
        order(engine, "replay_v1", new)

    row = one(engine, "SELECT replay_time_s FROM afterword_jobs WHERE id = :id", id=new)
    assert abs(row.replay_time_s - 3600.0) < 1.0  # accept_all gives this time to a job without a deadline


@pytest.mark.parametrize("given_s", [-7200.0, 0.0, 59.0])
def test_a_job_that_came_too_late_is_replayed_with_a_days_time(engine: Engine, given_s: float) -> None:
    new = accepted(engine)
    with engine.begin() as connection:
        connection.execute(update(jobs).values(created_at=from_now(-9000.0), deadline=from_now(given_s - 9000.0)))
    fail(engine, new)

    order(engine, "replay_v1", new)

    assert 86_390 < left_s(engine) <= 86_400
    claimed = claim_one(engine, worker(engine), new)
    assert claimed is not None
    assert claimed.left_s > 86_000


def test_a_replay_far_away_ends_where_it_can_be_read(engine: Engine) -> None:
    new = accepted(engine, deadline="9999-12-31T23:59:59Z")
    with engine.begin() as connection:
        connection.execute(update(jobs).values(created_at=from_now(-1000 * 86_400.0)))
    fail(engine, new)

    order(engine, "replay_v1", new)

    assert str(one(engine, "SELECT deadline FROM jobs_v1").deadline)[:10] == "9999-12-31"


def left_s(engine: Engine) -> float:
    with engine.connect() as connection:
        return float(connection.execute(select(seconds_until(jobs.c.deadline))).scalar_one())


def test_a_replay_takes_back_a_cancellation_and_its_mark(engine: Engine) -> None:
    new = accepted(engine)
    order(engine, "cancel_v1", new)

    order(engine, "replay_v1", new)

    assert one(engine, STANDS, id=new).status == "queued"
    assert rows(engine, "SELECT id FROM cancel_v1") == []


def test_refused_running_and_completed_jobs_are_not_replayed(engine: Engine) -> None:
    refused = str(uuid.uuid4())
    accept_all(engine, entry({"request": {"model": "m"}}, id=refused))
    running = accepted(engine)
    assert claim_one(engine, worker(engine), running) is not None

    for job_id in (refused, running, str(uuid.uuid4())):
        order(engine, "replay_v1", job_id)

    assert one(engine, STANDS, id=refused).status == "failed"
    assert one(engine, STANDS, id=running).status == "in_progress"
    assert rows(engine, "SELECT id FROM replay_v1") == []


def test_the_end_of_a_replayed_job_gets_a_new_number(engine: Engine) -> None:
    new = str(uuid.uuid4())
    accept_all(engine, entry(id=new))
    fail(engine, new)
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO afterword_finished (cursor, job_id) VALUES (1, :id)"), {"id": new})

    order(engine, "replay_v1", new)

    assert rows(engine, "SELECT id FROM finished_v1") == []


def test_queued_jobs_of_a_paused_endpoint_wait_for_it(engine: Engine) -> None:
    new = accepted(engine)
    pause = (
        "INSERT INTO afterword_endpoints (name, state, cause, reason, since, probe_at) "
        "SELECT 'default', 'paused', 'trouble', 'unauthorized', created_at, deadline FROM afterword_jobs WHERE id = :id"
    )
    with engine.begin() as connection:
        connection.execute(text(pause), {"id": new})

    row = one(engine, "SELECT waiting_for, waiting_until, deadline FROM jobs_v1 WHERE id = :id", id=new)
    assert row.waiting_for == "endpoint_paused"
    assert row.waiting_until == row.deadline
