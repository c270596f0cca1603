"""CLAIM and RECORD: one holder at a time, a fence on every write, and every paid answer is kept."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Engine, delete, text

from tests.jobs.store.attempts import attempt_record, completed, end_lease, started, write
from tests.store.made import accept_all, claim_one, entry, job, one, rows, worker
from worker.core.lifecycle import CANCEL, COMPLETE, EXPIRE, FAIL, HOLD, RELEASE, RETRY, Outcome
from worker.jobs.store import reclaim
from worker.jobs.store.claim import Claim, claim
from worker.jobs.store.record import AttemptRecord
from worker.store import leases
from worker.store.clock import from_now, now
from worker.store.tables import jobs, requests
from worker.store.transitions import ClaimRequest


def test_a_bare_answer_takes_no_column_of_another(engine: Engine) -> None:
    mine = worker(engine)
    bare, whole = started(engine, mine), started(engine, mine)
    kept = {"raw": b"what came", "raw_encoding": "identity"}

    assert write(engine, attempt_record(bare, FAIL, Outcome.failed, answer=kept), completed(whole)) == [True, True]

    row = one(engine, "SELECT * FROM jobs_v1 WHERE status = 'completed'")
    assert (row.content, row.finish_reason) == ("hi", "stop")
    assert row.response is not None
    assert row.usage is not None


def test_a_claim_opens_an_attempt_row_before_the_wire(engine: Engine) -> None:
    mine = worker(engine)

    claimed = started(engine, mine)

    row = one(engine, "SELECT * FROM attempts_v1")
    assert (row.attempt, row.outcome, row.billed, str(row.worker)) == (1, None, "unknown", mine)
    assert row.sent_at is not None
    assert claimed.body == '{"model": "m", "messages": [{"role": "user", "content": "hello"}]}'
    assert 3590 < claimed.left_s <= 3600


def test_a_job_is_claimed_once(engine: Engine) -> None:
    claimed = started(engine, worker(engine))

    assert claim_one(engine, worker(engine), claimed.job_id) is None


def test_a_job_requested_twice_in_one_batch_is_claimed_once(engine: Engine) -> None:
    mine = worker(engine)
    (accepted,) = accept_all(engine, entry())
    assert accepted.job_id
    with engine.begin() as connection:
        given = claim(connection, [ClaimRequest(accepted.job_id, mine), ClaimRequest(accepted.job_id, mine)])

    assert [one_claim is None for one_claim in given] == [False, True]


def test_a_job_that_is_not_due_or_too_late_is_not_claimed(engine: Engine) -> None:
    mine = worker(engine)
    later = entry(job(not_before="2999-01-01T00:00:00Z"))
    over = entry(job(deadline="2020-01-01T00:00:00Z"))
    accept_all(engine, later, over)

    assert claim_one(engine, mine, later.job.id) is None
    assert claim_one(engine, mine, over.job.id) is None


def refused(claimed: Claim, refusals: int, **changes: Any) -> AttemptRecord:
    error = {"error_code": "rate_limited", "error_message": "full", "error": None, "waiting_for": "limit"}
    return attempt_record(claimed, HOLD, Outcome.failed, counts=False, refusals=refusals, **error | changes)


def again(engine: Engine, claimed: Claim) -> Claim:
    found = claim_one(engine, worker(engine), claimed.job_id)
    assert found is not None
    return found


def test_refusals_are_counted_as_long_as_they_come_in_a_row(engine: Engine) -> None:
    first = started(engine, worker(engine))
    write(engine, refused(first, 1))
    second = again(engine, first)
    write(engine, refused(second, 2, error_code="overloaded"))
    third = again(engine, second)
    write(engine, attempt_record(third, RETRY, Outcome.failed, error_code="server_error", waiting_for="retry"))
    fourth = again(engine, third)

    assert [one_claim.refusals for one_claim in (first, second, third, fourth)] == [0, 1, 2, 0]
    assert (fourth.attempt, fourth.attempts_used) == (4, 2)


def lost(engine: Engine, claimed: Claim) -> None:
    with engine.begin() as connection:
        assert reclaim.give_back(connection, claimed.worker_id, [(claimed.job_id, claimed.attempt)]).queued


def replayed(engine: Engine, claimed: Claim) -> None:
    write(engine, replace(refused(claimed, 10), move=FAIL))
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO replay_v1 (id) VALUES (:id)"), {"id": claimed.job_id})


@pytest.mark.parametrize("between", [lost, replayed])
def test_another_end_between_two_refusals_resets_their_count(
    engine: Engine, between: Callable[[Engine, Claim], None]
) -> None:
    first = started(engine, worker(engine))
    write(engine, refused(first, 9))
    second = again(engine, first)
    between(engine, second)

    assert (second.refusals, again(engine, second).refusals) == (9, 0)


def test_the_view_shows_attempts_and_spent_attempts(engine: Engine) -> None:
    claimed = started(engine, worker(engine), max_attempts=2)
    for number in range(1, 4):
        write(engine, refused(claimed, number))
        claimed = again(engine, claimed)
    write(engine, refused(claimed, 4, delay_s=60.0))

    row = one(engine, "SELECT * FROM jobs_v1")
    assert (row.attempts, row.attempts_used, row.max_attempts, row.waiting_for) == (4, 0, 2, "limit")
    submitted = {"job": "{}"}
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO submit_v1 (job) VALUES (:job)"), submitted)
    assert {row.attempts_used for row in rows(engine, "SELECT attempts_used FROM jobs_v1")} == {0}


def test_a_worker_without_a_lease_claims_nothing(engine: Engine) -> None:
    (accepted,) = accept_all(engine, entry())
    assert accepted.job_id

    assert claim_one(engine, worker(engine, lease_s=-1.0), accepted.job_id) is None


def test_an_answer_its_usage_and_the_status_commit_together(engine: Engine) -> None:
    claimed = started(engine, worker(engine))

    assert write(engine, completed(claimed)) == [True]

    row = one(engine, "SELECT * FROM jobs_v1")
    assert (row.status, row.content, row.finish_reason, row.prompt_tokens) == ("completed", "hi", "stop", 3)
    assert (row.completion_tokens, row.cursor, row.attempts) == (None, 1, 1)
    attempt = one(engine, "SELECT * FROM attempts_v1")
    assert (attempt.outcome, attempt.billed, attempt.partial) == ("completed", "yes", None)
    assert one(engine, "SELECT prompt_tokens FROM usage_v1").prompt_tokens == 3


def test_a_retry_waits_and_the_next_attempt_has_the_next_number(engine: Engine) -> None:
    mine = worker(engine)
    claimed = started(engine, mine)

    write(
        engine,
        attempt_record(claimed, RETRY, Outcome.failed, delay_s=60.0, waiting_for="retry", error_code="overloaded"),
    )

    row = one(engine, "SELECT status, waiting_for, error_code, attempts FROM jobs_v1")
    assert (row.status, row.waiting_for, row.error_code, row.attempts) == ("queued", "retry", "overloaded", 1)
    assert claim_one(engine, mine, claimed.job_id) is None
    rows_due(engine)
    again = claim_one(engine, mine, claimed.job_id)
    assert again is not None
    assert (again.attempt, again.attempts_used) == (2, 2)


def rows_due(engine: Engine) -> None:
    """Make every waiting job due."""
    with engine.begin() as connection:
        connection.execute(jobs.update().values(run_at=from_now(-1.0)))


def test_a_hold_and_an_unsent_release_spend_no_budget(engine: Engine) -> None:
    mine = worker(engine)
    claimed = started(engine, mine)
    write(engine, attempt_record(claimed, HOLD, Outcome.failed, counts=False, waiting_for="endpoint_paused"))
    again = claim_one(engine, mine, claimed.job_id)
    assert again is not None
    assert (again.attempt, again.attempts_used) == (2, 1)

    write(engine, attempt_record(again, RELEASE, Outcome.released, counts=False, sent=False, answer=None))

    last = claim_one(engine, mine, claimed.job_id)
    assert last is not None
    assert (last.attempt, last.attempts_used) == (3, 1)
    sent = [row.sent_at for row in rows(engine, "SELECT sent_at FROM attempts_v1 ORDER BY attempt")]
    assert [at is None for at in sent] == [False, True, False]


def test_a_stale_attempt_changes_nothing_but_its_own_row(engine: Engine) -> None:
    slow, other = worker(engine, lease_s=30.0), worker(engine)
    claimed = started(engine, slow)
    end_lease(engine, slow)
    with engine.begin() as connection:
        reclaim.take_back(connection)
    again = claim_one(engine, other, claimed.job_id)
    assert again is not None and again.attempt == 2

    assert write(engine, completed(claimed)) == [False]

    row = one(engine, "SELECT status, attempts FROM jobs_v1")
    assert (row.status, row.attempts) == ("in_progress", 2)
    first = one(engine, "SELECT outcome, prompt_tokens FROM attempts_v1 WHERE attempt = 1")
    assert (first.outcome, first.prompt_tokens) == ("completed", 3)


def test_a_late_answer_completes_its_job_if_no_worker_has_claimed_it_since(engine: Engine) -> None:
    slow = worker(engine)
    claimed = started(engine, slow)
    end_lease(engine, slow)
    with engine.begin() as connection:
        back = reclaim.take_back(connection)
    assert back.queued == {claimed.job_id}

    assert write(engine, completed(claimed)) == [True]

    assert one(engine, "SELECT status FROM jobs_v1").status == "completed"


def test_a_job_whose_budget_is_spent_fails_when_its_worker_is_lost(engine: Engine) -> None:
    slow = worker(engine)
    claimed = started(engine, slow, max_attempts=1)
    end_lease(engine, slow)
    with engine.begin() as connection:
        back = reclaim.take_back(connection)

    assert back.failed == {claimed.job_id}
    row = one(engine, "SELECT status, error_code, cursor FROM jobs_v1")
    assert (row.status, row.error_code, row.cursor) == ("failed", "worker_lost", 1)
    attempt = one(engine, "SELECT outcome, billed FROM attempts_v1")
    assert (attempt.outcome, attempt.billed) == ("unknown", "unknown")


def test_a_living_worker_keeps_its_jobs(engine: Engine) -> None:
    started(engine, worker(engine))
    with engine.begin() as connection:
        back = reclaim.take_back(connection)

    assert (back.workers, back.queued, back.failed) == (0, frozenset(), frozenset())


def test_every_end_is_final(engine: Engine) -> None:
    mine = worker(engine)
    for move, outcome in ((FAIL, Outcome.failed), (CANCEL, Outcome.cancelled), (EXPIRE, Outcome.expired)):
        claimed = started(engine, mine)
        ended = attempt_record(claimed, move, outcome, error_code=outcome.value, error_message="m", error="{}")
        assert write(engine, ended, ended) == [True, True]
        assert write(engine, completed(claimed)) == [False]
        row = one(engine, "SELECT status, error_code FROM jobs_v1 WHERE id = :id", id=claimed.job_id)
        assert (row.status, row.error_code) == (move.target, outcome)
        partial = one(engine, "SELECT partial FROM attempts_v1 WHERE job_id = :id", id=claimed.job_id).partial
        assert "x" in str(partial)


def test_a_mixed_batch_moves_each_as_it_should(engine: Engine) -> None:
    mine = worker(engine)
    claims = [started(engine, mine) for _ in range(6)]
    moves = [COMPLETE, FAIL, RETRY, COMPLETE, CANCEL, RETRY]
    outcomes = [Outcome.completed, Outcome.failed, Outcome.failed, Outcome.completed, Outcome.cancelled, Outcome.failed]

    done = [
        attempt_record(c, m, o, delay_s=float(i))
        for i, (c, m, o) in enumerate(zip(claims, moves, outcomes, strict=True))
    ]

    assert write(engine, *done) == [True] * 6
    found = {str(r.id): r.status for r in rows(engine, "SELECT id, status FROM jobs_v1")}
    assert [found[c.job_id] for c in claims] == [m.target for m in moves]


def test_cancellations_are_found_by_the_holder_only(engine: Engine) -> None:
    mine, other = worker(engine), worker(engine)
    claimed = started(engine, mine)
    with engine.begin() as connection:
        connection.execute(jobs.update().values(cancel_requested_at=now()))
        assert reclaim.cancellations(connection, mine) == [claimed.job_id]
        assert reclaim.cancellations(connection, other) == []


def test_one_worker_leads_and_another_follows_when_its_lease_ends(engine: Engine) -> None:
    first, second = worker(engine), worker(engine)

    def lead(worker_id: str, lease_s: float) -> bool:
        with engine.begin() as connection:
            return leases.lead(connection, worker_id, name="dispatch", lease_s=lease_s)

    assert lead(first, 30.0)
    assert not lead(second, 30.0)
    assert lead(first, -1.0)
    assert lead(second, 30.0)
    assert not lead(first, 30.0)


def test_a_job_without_its_request_delays_no_other_claim(engine: Engine) -> None:
    mine = worker(engine)
    gone, fine = (str(one.job_id) for one in accept_all(engine, entry(), entry()))
    with engine.begin() as connection:
        connection.execute(delete(requests).where(requests.c.job_id == gone))

    with engine.begin() as connection:
        claims = claim(connection, [ClaimRequest(gone, mine), ClaimRequest(fine, mine)])

    assert [None if one is None else (one.job_id, one.body is None) for one in claims] == [(gone, True), (fine, False)]
