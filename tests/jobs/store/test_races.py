"""Concurrent changes on both databases: one end wins, one key is one job, and every end has one number."""

import json
import threading
import uuid
from collections.abc import Callable, Sequence

import redis
from sqlalchemy import Engine, text

from afterword import Afterword
from tests.jobs.store.attempts import attempt_record, completed, started, write
from tests.jobs.store.orders import accepted, cancel_one, order
from tests.pool.workers import until
from tests.producers.made import accept_inbox, accept_queue
from tests.store.made import REQUEST, one, rows, worker
from worker.core.lifecycle import RETRY, Outcome
from worker.jobs.store import cancel, due
from worker.store.engine import open_engine

OVERLOADED = {"error_code": "overloaded", "error_message": "m", "error": '{"code": "overloaded"}'}


def at_once(*works: Callable[[], object]) -> None:
    """Run all functions at the same moment, each in a thread; raise the first failure."""
    start, failures = threading.Barrier(len(works)), []

    def run(work: Callable[[], object]) -> None:
        start.wait()
        try:
            work()
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def serve(engine: Engine) -> None:
    with engine.begin() as connection:
        cancel.apply_cancel_requests(connection, keep_s=3600.0)


def expire(engine: Engine) -> None:
    with engine.begin() as connection:
        due.expire(connection)


def ends(engine: Engine, job_id: str) -> tuple[str, int]:
    """Return a job's status and the number of its rows in the feed."""
    row = one(engine, "SELECT status FROM afterword_jobs WHERE id = :id", id=job_id)
    numbers = one(engine, "SELECT count(*) FROM afterword_finished WHERE job_id = :id", id=job_id)
    return row.status, int(numbers[0])


def test_of_an_answer_and_many_cancellations_by_every_door_exactly_one_wins(engine: Engine) -> None:
    mine = worker(engine)
    for _ in range(8):
        claimed = started(engine, mine)
        job_id, won = claimed.job_id, []

        at_once(
            lambda claimed=claimed, won=won: won.extend(write(engine, completed(claimed))),
            *[lambda job_id=job_id: order(engine, "cancel_v1", job_id)] * 3,
            *[lambda job_id=job_id: cancel_one(engine, job_id)] * 3,
            lambda: serve(engine),
        )
        serve(engine)

        assert won == [True]
        assert ends(engine, job_id) == ("completed", 1)
    assert rows(engine, "SELECT id FROM cancel_v1") == []


def test_a_retry_beside_cancellations_is_cancelled_and_numbered_once(engine: Engine) -> None:
    mine = worker(engine)
    for _ in range(8):
        claimed = started(engine, mine)
        job_id = claimed.job_id
        again = attempt_record(claimed, RETRY, Outcome.failed, **OVERLOADED)

        at_once(
            lambda again=again: write(engine, again),
            *[lambda job_id=job_id: order(engine, "cancel_v1", job_id)] * 3,
            lambda job_id=job_id: cancel_one(engine, job_id),
            *[lambda: serve(engine)] * 2,
        )
        serve(engine)

        assert ends(engine, job_id) == ("cancelled", 1)
    assert rows(engine, "SELECT id FROM cancel_v1") == []


def test_of_a_deadline_and_cancellations_exactly_one_ends_a_waiting_job(engine: Engine) -> None:
    for _ in range(8):
        job_id = accepted(engine)
        with engine.begin() as connection:
            connection.execute(text("UPDATE afterword_jobs SET deadline = created_at"))

        at_once(
            lambda: expire(engine),
            *[lambda job_id=job_id: order(engine, "cancel_v1", job_id)] * 3,
            lambda job_id=job_id: cancel_one(engine, job_id),
            *[lambda: serve(engine)] * 2,
        )
        serve(engine)

        status, numbers = ends(engine, job_id)
        assert status in ("cancelled", "expired")
        assert numbers == 1


def test_concurrent_replays_and_cancellations_leave_a_consistent_job(engine: Engine) -> None:
    for _ in range(8):
        job_id = accepted(engine)
        order(engine, "cancel_v1", job_id)

        at_once(
            *[lambda job_id=job_id: order(engine, "replay_v1", job_id)] * 3,
            *[lambda job_id=job_id: order(engine, "cancel_v1", job_id)] * 3,
            *[lambda: serve(engine)] * 2,
        )
        serve(engine)

        assert ends(engine, job_id) in (("cancelled", 1), ("queued", 0))
        assert rows(engine, "SELECT id FROM cancel_v1") == []


def test_a_replay_of_a_waiting_job_does_not_lose_a_concurrent_cancellation(postgresql_url: str) -> None:
    engine = open_engine(postgresql_url)
    job_id = accepted(engine)
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO afterword_cancellations VALUES (:id, clock_timestamp())"), {"id": job_id})
    works = [lambda view=view: order(engine, view, job_id) for view in ("replay_v1", "cancel_v1")]
    threads = [threading.Thread(target=work) for work in works]
    waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"

    with engine.begin() as connection:
        # The locked request holds the replay between reading the job and deleting the request.
        connection.execute(text("SELECT 1 FROM afterword_cancellations FOR UPDATE"))
        threads[0].start()
        until(lambda: rows(engine, waiting), what="the replay waits for the lock")
        threads[1].start()
        until(
            lambda: not threads[1].is_alive() or len(rows(engine, waiting)) == 2,
            what="the cancellation ends or waits",
        )
    for thread in threads:
        thread.join()
    serve(engine)

    assert ends(engine, job_id) == ("cancelled", 1)
    engine.dispose()


def test_an_id_that_is_accepted_while_it_is_cancelled_is_cancelled(redis_url: str, engine: Engine) -> None:
    client = Afterword(redis_url, engine)
    for _ in range(8):
        job_id = client.submit(REQUEST)

        at_once(
            lambda: accept_queue(redis_url, engine),
            *[lambda job_id=job_id: order(engine, "cancel_v1", job_id)] * 3,
            lambda: serve(engine),
        )
        serve(engine)

        assert ends(engine, job_id) == ("cancelled", 1)
        client.close()
        _forget(redis_url)


def _forget(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as connection:
        connection.delete("chat.intake")


def test_sixty_four_submissions_of_one_key_by_mixed_doors_are_one_job(
    redis_url: str, database_url: str, engine: Engine
) -> None:
    client = Afterword(redis_url, database_url)
    ids: list[str] = []

    def submit() -> None:
        ids.append(client.submit(REQUEST, idempotency_key="order-7"))

    def enqueue() -> None:
        with engine.begin() as connection:
            ids.append(client.enqueue(connection, REQUEST, idempotency_key="order-7"))

    def insert() -> None:
        new = str(uuid.uuid4())
        with engine.begin() as connection:
            values = {"id": new, "job": json.dumps({"request": REQUEST, "idempotency_key": "order-7"})}
            connection.execute(text("INSERT INTO submit_v1 (id, job) VALUES (:id, :job)"), values)
        ids.append(new)

    ways: Sequence[Callable[[], None]] = [submit, enqueue, insert, submit]
    # Two workers accept the jobs while they arrive, and once more afterwards.
    accepting = [lambda: accept_inbox(engine), lambda: accept_queue(redis_url, engine)] * 2
    at_once(*(ways[number % 4] for number in range(64)), *accepting)
    at_once(*accepting)
    client.close()

    (row,) = rows(engine, "SELECT id, status FROM jobs_v1")
    assert row.status == "queued"
    assert len(set(ids)) == 64
    assert {found.id for job_id in ids if (found := client.get(job_id))} == {str(row.id)}
    resolved = rows(engine, "SELECT id FROM job_ids_v1")
    assert {str(found.id) for found in resolved} >= set(ids)
    assert rows(engine, "SELECT reason FROM afterword_dead_letters") == []
