"""Orders while workers run: cancelled calls end, deadlines hold even without a worker, replays run again."""

import datetime
import json
import signal
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import text

from afterword import Afterword
from tests.flow.system import System, request
from tests.pool.workers import until

SHORT = {"lease_s": 4.0, "beat_s": 0.2, "tick_s": 0.2}


def unfinished() -> dict[str, Any]:
    """Return a request whose stream sends its usage and half of its answer, then nothing for ten minutes."""
    return request("half", stream=True, n=2, fake={"usage": "moonshot", "stall_after": 9, "stall_s": 600})


@pytest.fixture
def client(system: System) -> Iterator[Afterword]:
    with Afterword(redis_url=system.redis_url, database=system.database_url) as made:
        yield made


def cancel_requests(system: System) -> list[Any]:
    return system.rows("SELECT id FROM cancel_v1")


def soon(seconds: float) -> str:
    return (datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)).isoformat()


def begun(system: System, job_id: str) -> None:
    """Wait until the endpoint has the job's request and has begun its answer."""
    system.await_status(job_id, "in_progress")
    until(lambda: system.fake.stats()["billed"] == 1, what="the answer has begun")


def assert_partial(system: System, job_id: str, outcome: str) -> None:
    (attempt,) = system.attempts(job_id)
    assert (attempt.outcome, attempt.billed) == (outcome, "yes")
    partial = attempt.partial if isinstance(attempt.partial, dict) else json.loads(attempt.partial)
    assert "You said" in partial["choices"][0]["message"]["content"]
    assert attempt.prompt_tokens is not None and attempt.completion_tokens is not None
    (spent,) = system.rows("SELECT prompt_tokens FROM usage_v1")
    assert spent.prompt_tokens == attempt.prompt_tokens


def test_a_cancelled_call_is_ended_and_its_partial_answer_is_kept(system: System, client: Afterword) -> None:
    worker = system.start()
    job_id = system.send(unfinished())
    begun(system, job_id)

    assert client.cancel(job_id) == "in_progress"

    row = system.await_status(job_id)
    assert (row.status, row.error_code) == ("cancelled", "cancelled")
    until(lambda: system.fake.stats()["abandoned"] == 1, what="the closed connection at the endpoint")
    assert_partial(system, job_id, "cancelled")
    until(lambda: not cancel_requests(system), what="the removal of the request")
    assert system.job(job_id).cursor == 1
    assert not worker.ended()


def test_a_waiting_job_is_cancelled_and_reported_once(system: System, client: Afterword) -> None:
    system.start()
    job_id = system.send(not_before="2099-01-01T00:00:00Z", deadline="2099-01-02T00:00:00Z")
    system.await_status(job_id, "queued")

    assert client.cancel(job_id) == "cancelled"

    until(lambda: system.job(job_id).cursor == 1, what="the job's number in the feed")
    assert cancel_requests(system) == []
    assert system.fake.stats()["requests"] == 0


@pytest.mark.parametrize("way", ["queue", "sql"])
def test_a_job_that_was_cancelled_before_it_came_never_runs(system: System, client: Afterword, way: str) -> None:
    job_id = str(uuid.uuid4())
    assert client.cancel(job_id) is None
    system.start()

    if way == "queue":
        client.submit(request(), id=job_id)
    else:
        system.insert(request(), id=job_id)

    row = system.await_status(job_id)
    assert (row.status, row.attempts) == ("cancelled", 0)
    assert row.cursor == 1
    assert cancel_requests(system) == []
    assert system.fake.stats()["requests"] == 0


def test_a_replayed_job_runs_again_under_another_key(system: System, client: Afterword) -> None:
    system.start()
    job_id = system.send(request(fake={"status": 400}))
    assert system.await_status(job_id).error_code == "bad_request"

    job = client.replay(job_id)

    assert job is not None and job.status == "queued"
    row = until(lambda: system.job(job_id) if system.job(job_id).attempts == 2 else None, what="the second attempt")
    row = system.await_status(job_id)
    assert (row.status, row.cursor) == ("failed", 2)
    keys = [one["headers"].get("idempotency-key") for one in system.fake.requests()]
    assert keys == [job_id, f"{job_id}-1"]


def test_a_running_call_ends_at_its_deadline_with_its_usage(postgres_system: System) -> None:
    system = postgres_system
    system.start()
    job_id = system.send(unfinished(), deadline=soon(3))

    row = system.await_status(job_id)

    assert (row.status, row.error_code) == ("expired", "expired")
    assert_partial(system, job_id, "expired")


def test_the_job_of_a_dead_worker_ends_at_its_deadline(postgres_system: System) -> None:
    system = postgres_system
    first = system.start(**SHORT)
    job_id = system.send(unfinished())
    begun(system, job_id)
    first.signal(signal.SIGKILL)
    first.wait(10)
    with system.engine.begin() as connection:
        connection.execute(text("UPDATE afterword_jobs SET deadline = created_at"))

    system.start(**SHORT)

    row = system.await_status(job_id)
    assert (row.status, row.attempts, row.cursor) == ("expired", 1, 1)
    (attempt,) = system.attempts(job_id)
    assert (attempt.outcome, attempt.billed) == ("unknown", "unknown")


def test_the_job_of_a_dead_worker_is_cancelled_once_its_lease_has_ended(postgres_system: System) -> None:
    system = postgres_system
    first = system.start(**SHORT)
    job_id = system.send(unfinished())
    begun(system, job_id)
    first.signal(signal.SIGKILL)
    first.wait(10)
    with Afterword(database=system.database_url) as client:
        assert client.cancel(job_id) == "in_progress"

    system.start(**SHORT)

    row = system.await_status(job_id)
    assert (row.status, row.cursor, row.attempts) == ("cancelled", 1, 1)
    until(lambda: not cancel_requests(system), what="the removal of the request")
