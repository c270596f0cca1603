"""Bulk orders reach every job that matches and may change, once, and no other job."""

import threading
import uuid

import pytest
from sqlalchemy import Engine

from tests.jobs.store.attempts import completed, started, write
from tests.jobs.store.orders import accepted, by_status, counted, fail, give
from tests.store.made import REQUEST, accept_all, claim_one, entry, job, one, rows, worker
from worker.jobs.core.filter import parse
from worker.jobs.store import bulk_update, cancel
from worker.jobs.store.bulk_update import BulkAction


def test_all_waiting_and_running_jobs_of_a_batch_are_cancelled_and_no_other(engine: Engine) -> None:
    for _ in range(3):
        accepted(engine, batch="b")
    running = started(engine, worker(engine), batch="b")
    write(engine, completed(started(engine, worker(engine), batch="b")))
    accepted(engine)

    assert counted(engine, "cancel", "batch=b") == 4
    assert give(engine, "cancel", "batch=b") == 4
    assert give(engine, "cancel", "batch=b") == 0

    assert by_status(engine, "batch = 'b'") == {"cancelled": 3, "in_progress": 1, "completed": 1}
    assert by_status(engine, "batch IS NULL") == {"queued": 1}
    with engine.begin() as connection:
        assert len(cancel.apply_cancel_requests(connection, keep_s=60.0).cancelled) == 3
    row = one(engine, "SELECT cancel_requested_at FROM afterword_jobs WHERE id = :id", id=running.job_id)
    assert row.cancel_requested_at is not None


def test_failed_jobs_are_replayed_and_refused_ones_are_not(engine: Engine) -> None:
    again = [accepted(engine, tenant="t") for _ in range(3)]
    for job_id in again:
        fail(engine, job_id)
    refused = entry({"request": {"model": 1}, "tenant": "t"})
    accept_all(engine, refused)

    assert counted(engine, "replay", "status=failed tenant=t") == 3
    assert give(engine, "replay", "status=failed tenant=t") == 3

    assert by_status(engine) == {"queued": 3, "failed": 1}
    assert give(engine, "replay", "tenant=t") == 0


def test_more_jobs_than_a_transaction_takes_are_all_reached_once(engine: Engine) -> None:
    number = 2 * bulk_update.BATCH + 7
    accept_all(engine, *(entry(job(batch="b")) for _ in range(number)))

    steps = list(bulk_update.apply(engine, BulkAction.update, parse(["batch=b"]), changes={"priority": 1}))

    assert steps == [bulk_update.BATCH, bulk_update.BATCH, 7]
    assert one(engine, "SELECT count(*) FROM jobs_v1 WHERE priority = 1")[0] == number


def test_only_waiting_jobs_change_their_priority_and_deadline(engine: Engine) -> None:
    waiting = accepted(engine)
    running = started(engine, worker(engine))
    (condition,) = parse(["deadline_before=2040-01-01T00:00:00Z"])

    assert give(engine, "update", "tenant=default", priority=0, deadline=condition.values[0]) == 1

    row = one(engine, "SELECT priority, deadline FROM jobs_v1 WHERE id = :id", id=waiting)
    assert (row.priority, str(row.deadline)[:4]) == (0, "2040")
    assert one(engine, "SELECT priority FROM jobs_v1 WHERE id = :id", id=running.job_id).priority == 5


@pytest.mark.parametrize(
    ("where", "reached"),
    [
        ("status=queued", 2),
        ("status=completed", 0),
        ("endpoint=default", 2),
        ("endpoint=other", 0),
        ("model=m custom_id=c", 1),
        ("model=m model=n custom_id=c", 1),
        ("priority=5 priority=7", 2),
        ("priority=7", 1),
        ("created_after=2020-01-01T00:00:00Z", 2),
        ("created_before=2020-01-01T00:00:00Z", 0),
        ("deadline_after=2999-01-01T00:00:00Z", 1),
        ("finished_before=2999-01-01T00:00:00Z", 0),
        ("tenant='; DROP TABLE afterword_jobs; --'", 0),
    ],
)
def test_every_condition_is_asked_of_its_column(engine: Engine, where: str, reached: int) -> None:
    accept_all(engine, entry(job(custom_id="c", priority=7)), entry(job(deadline="3000-01-01T00:00:00Z")))

    assert counted(engine, "update", where) == reached


def test_a_bulk_cancellation_beside_claims_ends_or_asks_every_job(engine: Engine) -> None:
    mine = worker(engine)
    ids = [str(uuid.uuid4()) for _ in range(40)]
    accept_all(engine, *(entry({"request": REQUEST}, id=job_id) for job_id in ids))

    def claim_all() -> None:
        for job_id in ids:
            claim_one(engine, mine, job_id)

    claims = threading.Thread(target=claim_all)
    claims.start()
    give(engine, "cancel", "status=queued status=in_progress")
    claims.join()
    give(engine, "cancel", "status=in_progress")

    left = rows(engine, "SELECT id FROM afterword_jobs WHERE status <> 'cancelled' AND cancel_requested_at IS NULL")
    assert left == []
