"""CANCEL: a queued job ends at once, a running job through its holder, and no request is lost in between."""

import threading

from sqlalchemy import Engine

from tests.jobs.store.attempts import attempt_record, completed, end_lease, started, write
from tests.jobs.store.orders import cancel_one
from tests.store.made import claim_one, one, worker
from worker.core.lifecycle import RETRY, Outcome
from worker.jobs.store import reclaim

OVERLOADED = {"error_code": "overloaded", "error_message": "m", "error": '{"code": "overloaded"}'}


def test_a_waiting_job_is_cancelled_at_once_and_its_row_shows_no_other_error(engine: Engine) -> None:
    claimed = started(engine, worker(engine))
    write(engine, attempt_record(claimed, RETRY, Outcome.failed, delay_s=60.0, **OVERLOADED))

    assert cancel_one(engine, claimed.job_id) == "queued"

    row = one(engine, "SELECT status, error_code, error, cursor FROM jobs_v1")
    assert (row.status, row.error_code, row.cursor) == ("cancelled", "cancelled", 1)
    assert "overloaded" not in str(row.error)


def test_a_running_job_is_marked_and_a_final_or_unknown_one_is_left(engine: Engine) -> None:
    claimed = started(engine, worker(engine))

    assert cancel_one(engine, claimed.job_id) == "in_progress"
    write(engine, completed(claimed))

    assert cancel_one(engine, claimed.job_id) == "completed"
    assert cancel_one(engine, "00000000-0000-4000-8000-000000000000") is None
    assert one(engine, "SELECT status FROM jobs_v1").status == "completed"


def test_a_marked_job_that_would_be_tried_again_is_cancelled(engine: Engine) -> None:
    claimed = started(engine, worker(engine))
    cancel_one(engine, claimed.job_id)

    write(engine, attempt_record(claimed, RETRY, Outcome.failed, **OVERLOADED))

    row = one(engine, "SELECT status, cursor FROM jobs_v1")
    assert (row.status, row.cursor) == ("cancelled", 1)


def test_a_marked_job_whose_worker_is_lost_is_cancelled(engine: Engine) -> None:
    mine = worker(engine)
    claimed = started(engine, mine)
    cancel_one(engine, claimed.job_id)
    end_lease(engine, mine)

    with engine.begin() as connection:
        back = reclaim.take_back(connection)

    assert (back.cancelled, back.queued) == ({claimed.job_id}, frozenset())
    assert one(engine, "SELECT status FROM jobs_v1").status == "cancelled"


def test_a_forgotten_job_is_given_back_within_its_budget(engine: Engine) -> None:
    mine = worker(engine)
    claimed = started(engine, mine, max_attempts=2)

    def give_back(number: int) -> None:
        with engine.begin() as connection:
            reclaim.give_back(connection, mine, [(claimed.job_id, number)])

    give_back(1)
    again = claim_one(engine, mine, claimed.job_id)
    assert again is not None
    give_back(2)

    row = one(engine, "SELECT status, error_code FROM jobs_v1")
    assert (row.status, row.error_code) == ("failed", "worker_lost")


def test_exactly_one_of_an_answer_and_a_cancellation_wins(engine: Engine) -> None:
    mine = worker(engine)
    for _ in range(10):
        claimed = started(engine, mine)
        start, won = threading.Barrier(2), []

        def answer(claimed=claimed, start=start, won=won) -> None:  # type: ignore[no-untyped-def]
            start.wait()
            won.extend(write(engine, completed(claimed)))

        thread = threading.Thread(target=answer)
        thread.start()
        start.wait()
        cancel_one(engine, claimed.job_id)
        thread.join()

        row = one(engine, "SELECT status FROM jobs_v1 WHERE id = :id", id=claimed.job_id)
        assert (won, row.status) == ([True], "completed")


def test_a_lost_workers_job_fails_if_requests_may_be_made_only_once(engine: Engine) -> None:
    mine = worker(engine)
    claimed = started(engine, mine)
    end_lease(engine, mine)

    with engine.begin() as connection:
        back = reclaim.take_back(connection, once_only={"default"})

    assert (back.failed, back.queued) == ({claimed.job_id}, frozenset())
    assert one(engine, "SELECT error_code FROM jobs_v1").error_code == "worker_lost"
