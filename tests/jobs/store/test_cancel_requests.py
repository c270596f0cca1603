"""The requests of cancel_v1: every end is numbered once, no request is lost between two workers or outlives its use."""

import uuid
from typing import Any

from sqlalchemy import Engine, event, text

from tests.jobs.store.attempts import attempt_record, completed, end_lease, started, write
from tests.jobs.store.orders import accepted, fail, order
from tests.store.made import accept_all, claim_one, entry, job, one, rows, worker
from worker.core.lifecycle import CANCEL, FAIL, RETRY, Outcome
from worker.jobs.store import cancel, due, reclaim
from worker.store.clock import now
from worker.store.engine import open_engine
from worker.store.tables import cancellations

OVERLOADED = {"error_code": "overloaded", "error_message": "m", "error": '{"code": "overloaded"}'}


def served(engine: Engine, *, keep_s: float = 3600.0, after: str = cancel.FIRST) -> cancel.AppliedRequests:
    with engine.begin() as connection:
        return cancel.apply_cancel_requests(connection, after=after, keep_s=keep_s)


def cancel_requests(engine: Engine) -> set[str]:
    return {str(row.id) for row in rows(engine, "SELECT id FROM cancel_v1")}


def state_of(engine: Engine, job_id: str) -> Any:
    return one(engine, "SELECT status, error_code, cursor FROM jobs_v1 WHERE id = :id", id=job_id)


def request_cancel(engine: Engine, job_id: str) -> None:
    """Insert a request without a job, as when the job is accepted a moment after the INSERT into cancel_v1."""
    with engine.begin() as connection:
        connection.execute(cancellations.insert().values(id=job_id, created_at=now()))


def test_the_end_that_the_view_made_is_numbered_once_and_its_request_goes(engine: Engine) -> None:
    new = accepted(engine)
    order(engine, "cancel_v1", new)
    assert state_of(engine, new).cursor is None

    assert served(engine).cancelled == {new}
    assert served(engine) == cancel.AppliedRequests(set(), 0, cancel.FIRST)

    assert (state_of(engine, new).cursor, cancel_requests(engine)) == (1, set())


def test_a_request_stays_while_its_job_runs_and_goes_with_its_end(engine: Engine) -> None:
    claimed = started(engine, worker(engine))
    order(engine, "cancel_v1", claimed.job_id)
    assert served(engine, keep_s=-1.0) == cancel.AppliedRequests(set(), 0, cancel.FIRST)
    assert cancel_requests(engine) == {claimed.job_id}

    write(
        engine,
        attempt_record(claimed, CANCEL, Outcome.cancelled, error_code="cancelled", error_message="m", error="{}"),
    )
    order(engine, "cancel_v1", claimed.job_id)

    assert served(engine).cancelled == set()
    assert (state_of(engine, claimed.job_id).cursor, cancel_requests(engine)) == (1, set())


def test_an_earlier_answer_counts_and_the_request_is_removed(engine: Engine) -> None:
    claimed = started(engine, worker(engine))
    order(engine, "cancel_v1", claimed.job_id)
    write(engine, completed(claimed))

    assert served(engine).cancelled == set()

    row = state_of(engine, claimed.job_id)
    assert (row.status, row.cursor, cancel_requests(engine)) == ("completed", 1, set())


def test_a_running_job_that_is_queued_again_under_its_request_is_cancelled(engine: Engine) -> None:
    claimed = started(engine, worker(engine))
    order(engine, "cancel_v1", claimed.job_id)

    write(engine, attempt_record(claimed, RETRY, Outcome.failed, **OVERLOADED))

    assert served(engine).cancelled == set()
    assert (state_of(engine, claimed.job_id), cancel_requests(engine)) == (("cancelled", "cancelled", 1), set())


def test_the_request_of_a_running_job_reaches_a_holder_that_was_not_asked_yet(engine: Engine) -> None:
    claimed = started(engine, worker(engine))
    request_cancel(engine, claimed.job_id)

    served(engine)

    with engine.begin() as connection:
        assert reclaim.cancellations(connection, claimed.worker_id) == [claimed.job_id]


def test_a_job_that_came_unseen_beside_its_request_is_cancelled(engine: Engine) -> None:
    new = accepted(engine)
    request_cancel(engine, new)

    assert served(engine).cancelled == {new}

    assert (state_of(engine, new), cancel_requests(engine)) == (("cancelled", "cancelled", 1), set())


def test_the_request_of_an_id_without_a_job_expires(engine: Engine) -> None:
    new = str(uuid.uuid4())
    order(engine, "cancel_v1", new)

    assert served(engine, keep_s=3600.0).forgotten == 0
    assert cancel_requests(engine) == {new}
    assert served(engine, keep_s=-1.0).forgotten == 1
    assert cancel_requests(engine) == set()


def test_requests_that_wait_for_their_messages_hide_none_behind_them(engine: Engine) -> None:
    last = "ffffffff-ffff-4fff-bfff-ffffffffffff"
    accept_all(engine, entry(id=last))
    for _ in range(cancel.BATCH + 5):
        request_cancel(engine, str(uuid.uuid4()))
    order(engine, "cancel_v1", last)

    first = served(engine)

    assert (first.cancelled, first.after != cancel.FIRST) == (set(), True)
    assert served(engine, after=first.after) == cancel.AppliedRequests({last}, 0, cancel.FIRST)


def test_a_job_that_is_accepted_under_a_cancelled_id_is_cancelled_at_once(engine: Engine) -> None:
    own, given = str(uuid.uuid4()), str(uuid.uuid4())
    for one_id in (own, given):
        order(engine, "cancel_v1", one_id)

    accept_all(engine, entry(id=own), entry(job(), alias=given), entry())

    found = rows(engine, "SELECT status, cursor FROM jobs_v1 ORDER BY cursor")
    assert [row.status for row in found].count("cancelled") == 2
    assert {row.cursor for row in found} == {1, 2, None}
    assert cancel_requests(engine) == set()


def test_a_cancelled_id_that_becomes_a_duplicate_cancels_the_job_it_became(engine: Engine) -> None:
    first, second = accepted(engine, idempotency_key="k"), str(uuid.uuid4())
    order(engine, "cancel_v1", second)

    accept_all(engine, entry(job(idempotency_key="k"), id=second))

    assert (state_of(engine, first).status, cancel_requests(engine)) == ("cancelled", set())


def test_a_cancelled_id_whose_job_is_refused_is_a_refused_job(engine: Engine) -> None:
    new = str(uuid.uuid4())
    order(engine, "cancel_v1", new)

    accept_all(engine, entry({"request": {"model": "m"}}, id=new))

    row = state_of(engine, new)
    assert (row.status, row.error_code, row.cursor, cancel_requests(engine)) == ("failed", "invalid_request", 1, set())


def test_a_replay_before_the_tick_is_not_undone_by_it(engine: Engine) -> None:
    first, second = accepted(engine, idempotency_key="k"), str(uuid.uuid4())
    accept_all(engine, entry(job(idempotency_key="k"), id=second))
    order(engine, "cancel_v1", second)
    order(engine, "replay_v1", first)

    served(engine)

    assert (state_of(engine, first), cancel_requests(engine)) == (("queued", None, None), set())


def test_a_job_cancelled_in_the_queue_is_not_revived_by_a_late_holder(engine: Engine) -> None:
    slow = worker(engine)
    answer, failure = started(engine, slow), started(engine, slow)
    end_lease(engine, slow)
    with engine.begin() as connection:
        assert len(reclaim.take_back(connection).queued) == 2
    for claimed in (answer, failure):
        order(engine, "cancel_v1", claimed.job_id)

    assert write(engine, completed(answer)) == [False]
    assert write(engine, attempt_record(failure, FAIL, Outcome.failed, **OVERLOADED)) == [False]

    assert {state_of(engine, claimed.job_id).status for claimed in (answer, failure)} == {"cancelled"}
    kept = one(engine, "SELECT outcome, prompt_tokens FROM attempts_v1 WHERE job_id = :id", id=answer.job_id)
    assert (kept.outcome, kept.prompt_tokens) == ("completed", 3)


def lost_and_replayed(engine: Engine) -> Any:
    """Return a lost holder's claim on a job that failed and was replayed by an operator."""
    slow = worker(engine)
    claimed = started(engine, slow, max_attempts=1)
    end_lease(engine, slow)
    with engine.begin() as connection:
        assert reclaim.take_back(connection).failed == {claimed.job_id}
    order(engine, "replay_v1", claimed.job_id)
    return claimed


def test_a_late_answer_completes_a_replayed_job_that_no_worker_has_claimed_since(engine: Engine) -> None:
    claimed = lost_and_replayed(engine)

    assert write(engine, completed(claimed)) == [True]

    assert (state_of(engine, claimed.job_id).status, state_of(engine, claimed.job_id).cursor) == ("completed", 2)


def test_a_late_failure_does_not_end_a_replayed_job(engine: Engine) -> None:
    claimed = lost_and_replayed(engine)

    assert write(engine, attempt_record(claimed, FAIL, Outcome.failed, **OVERLOADED)) == [False]

    assert state_of(engine, claimed.job_id) == ("queued", None, None)


def test_the_attempt_number_fences_a_late_holder_off_a_replayed_job(engine: Engine) -> None:
    claimed = lost_and_replayed(engine)
    again = claim_one(engine, worker(engine), claimed.job_id)
    assert again is not None
    assert (again.attempt, again.attempts_used, again.generation) == (2, 1, 1)

    assert write(engine, completed(claimed)) == [False]

    assert state_of(engine, claimed.job_id).status == "in_progress"
    assert write(engine, completed(again)) == [True]


def test_a_late_failure_ends_a_job_that_was_only_taken_back(engine: Engine) -> None:
    slow = worker(engine)
    claimed = started(engine, slow)
    end_lease(engine, slow)
    with engine.begin() as connection:
        reclaim.take_back(connection)

    assert write(engine, attempt_record(claimed, FAIL, Outcome.failed, **OVERLOADED)) == [True]


def test_a_job_that_was_retried_and_replayed_is_taken_back_as_any_other(engine: Engine) -> None:
    new = accepted(engine)
    fail(engine, new)
    order(engine, "replay_v1", new)
    holder = worker(engine)
    assert claim_one(engine, holder, new) is not None
    order(engine, "cancel_v1", new)
    end_lease(engine, holder)

    with engine.begin() as connection:
        assert reclaim.take_back(connection).cancelled == {new}

    assert served(engine).cancelled == set()
    assert (state_of(engine, new), cancel_requests(engine)) == (("cancelled", "cancelled", 1), set())


def test_a_running_job_past_its_deadline_whose_holder_is_dead_expires(engine: Engine) -> None:
    holder = worker(engine)
    claimed = started(engine, holder)
    with engine.begin() as connection:
        connection.execute(text("UPDATE afterword_jobs SET deadline = created_at"))
        assert due.expire(connection) == set()
    end_lease(engine, holder)

    with engine.begin() as connection:
        reclaim.take_back(connection)
        assert due.expire(connection) == {claimed.job_id}

    assert state_of(engine, claimed.job_id) == ("expired", "expired", 1)


def test_a_replay_between_the_look_at_the_requests_and_the_lock_wins(postgresql_url: str) -> None:
    engine, other = open_engine(postgresql_url), open_engine(postgresql_url)
    new = accepted(engine)
    order(engine, "cancel_v1", new)

    @event.listens_for(engine, "before_cursor_execute")
    def replay_first(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if "SKIP LOCKED" in statement:
            order(other, "replay_v1", new)

    assert served(engine).cancelled == set()

    assert state_of(other, new) == ("queued", None, None)
    for one_engine in (engine, other):
        one_engine.dispose()
