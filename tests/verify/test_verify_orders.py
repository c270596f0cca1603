"""VERIFY after orders: a replayed job, or a job that SQL has ended, breaks no rule."""

from sqlalchemy import Engine, update

from tests.jobs.store.attempts import BARE, attempt_record, started, write
from tests.jobs.store.orders import order
from tests.store.broken import broken
from tests.store.made import claim_one, worker
from worker.core.lifecycle import FAIL, Outcome
from worker.jobs.store import reclaim
from worker.store.clock import from_now
from worker.store.tables import workers


def test_a_replay_of_the_job_that_ended_last_is_sound(engine: Engine) -> None:
    claimed = started(engine, worker(engine))
    write(engine, attempt_record(claimed, FAIL, Outcome.failed, **BARE))

    order(engine, "replay_v1", claimed.job_id)

    assert broken(engine) == {}


def test_a_replay_of_a_job_whose_worker_was_lost_is_sound(engine: Engine) -> None:
    claimed = started(engine, worker(engine), max_attempts=1)
    with engine.begin() as connection:
        connection.execute(update(workers).values(lease_until=from_now(-1.0)))
        assert reclaim.take_back(connection).failed == {claimed.job_id}

    order(engine, "replay_v1", claimed.job_id)

    assert broken(engine) == {}


def test_a_replayed_job_that_failed_again_is_sound(engine: Engine) -> None:
    mine = worker(engine)
    claimed = started(engine, mine, max_attempts=1)
    write(engine, attempt_record(claimed, FAIL, Outcome.failed, **BARE))
    order(engine, "replay_v1", claimed.job_id)
    again = claim_one(engine, mine, claimed.job_id)
    assert again is not None
    write(engine, attempt_record(again, FAIL, Outcome.failed, **BARE))

    assert broken(engine) == {}
