"""Starts, stops and deaths: no job is lost, and every repeated call has its own attempt row."""

import signal
import subprocess
import sys
import time
import uuid
from typing import Any

import pytest

from afterword import Afterword
from tests.flow.system import System, request
from tests.pool.workers import ROOT, until
from worker.queue.keys import OWNERS, own_list

# Long enough that a slow machine does not look like a blocked worker.
SHORT = {"lease_s": 4.0, "beat_s": 0.2, "tick_s": 0.2}


def slow(seconds: float = 60.0) -> dict:  # type: ignore[type-arg]
    return request(fake={"latency_s": seconds})


def test_the_intake_waits_for_no_slot(system: System) -> None:
    system.start(concurrency=3)
    busy = [system.send(slow(600)) for _ in range(3)]
    for job_id in busy:
        system.await_status(job_id, "in_progress")
    with Afterword(redis_url=system.redis_url, database=system.database_url) as client:
        waiting = [client.submit(request()) for _ in range(20)]

    for job_id in waiting:
        assert system.await_status(job_id, "queued").attempts == 0

    assert all(system.job(job_id).status == "in_progress" for job_id in busy)


def test_the_intake_of_a_dead_worker_is_given_back(system: System) -> None:
    gone = str(uuid.uuid4())
    first = system.send()
    system.redis.lmove("chat.intake", own_list(gone), "RIGHT", "LEFT")
    system.redis.sadd(OWNERS, gone)

    system.start(**SHORT)

    assert system.await_status(first).status == "completed"
    until(lambda: not system.redis.exists(own_list(gone)), what="the removal of the dead worker's list")


def test_an_own_list_left_by_a_failed_commit_is_accepted_first(system: System) -> None:
    # If a worker takes a message and dies before the commit, the message is still in Redis.
    worker = system.start(**SHORT)
    (owner,) = until(lambda: system.redis.smembers(OWNERS), what="the owner of the worker's list")
    worker.signal(signal.SIGKILL)
    worker.wait(10)
    first = system.send()
    system.redis.lmove("chat.intake", own_list(owner.decode()), "RIGHT", "LEFT")

    system.start(**SHORT)

    assert system.await_status(first).status == "completed"


def test_a_killed_workers_jobs_are_queued_again_and_its_attempts_are_unknown(system: System) -> None:
    first = system.start(**SHORT)
    job_id = system.send(request(fake={"attempts": [{"latency_s": 60}, {}]}))
    system.await_status(job_id, "in_progress")
    until(lambda: system.fake.stats()["requests"] == 1, what="the request is on the wire")
    system.start(**SHORT)

    first.signal(signal.SIGKILL)

    row = system.await_status(job_id)
    assert (row.status, row.attempts) == ("completed", 2)
    attempts = system.attempts(job_id)
    assert [(a.outcome, a.billed) for a in attempts] == [("unknown", "unknown"), ("completed", "yes")]
    assert attempts[0].worker != attempts[1].worker


def test_a_warm_stop_lets_calls_finish(system: System) -> None:
    worker = system.start()
    job_id = system.send(slow(1.5))
    system.await_status(job_id, "in_progress")

    worker.signal(signal.SIGTERM)

    assert worker.wait(30) == 0, worker.text()
    row = system.job(job_id)
    assert (row.status, row.attempts) == ("completed", 1)
    assert system.rows("SELECT 1 FROM afterword_workers") == []


def test_a_warm_stop_gives_back_calls_that_outlive_the_drain_and_another_worker_goes_on(system: System) -> None:
    worker = system.start(drain_s=0.3)
    job_id = system.send(request(fake={"attempts": [{"latency_s": 60}, {}]}))
    system.await_status(job_id, "in_progress")
    until(lambda: system.fake.stats()["requests"] == 1, what="the request is on the wire")
    system.start()

    worker.signal(signal.SIGTERM)

    # Well within the lease of 30 s: the worker gave the job back itself.
    row = system.await_status(job_id, seconds=10)
    assert (row.status, row.attempts) == ("completed", 2)
    assert worker.wait(30) == 0, worker.text()
    first = system.attempts(job_id)[0]
    assert (first.outcome, first.billed, first.error_code) == ("unknown", "unknown", "worker_lost")


def test_a_cold_stop_gives_back_at_once(postgres_system: System) -> None:
    system = postgres_system
    worker = system.start()
    job_id = system.send(request(fake={"attempts": [{"latency_s": 60}, {}]}))
    system.await_status(job_id, "in_progress")
    until(lambda: system.fake.stats()["requests"] == 1, what="the request is on the wire")

    worker.signal(signal.SIGQUIT)
    worker.wait(30)

    row = system.job(job_id)
    assert (row.status, row.attempts) == ("queued", 1), worker.text()
    system.start()
    assert system.await_status(job_id).attempts == 2


def test_a_flushed_redis_loses_no_row(system: System) -> None:
    system.start(concurrency=2)
    ids = [system.send(request(f"{n}", fake={"latency_s": 0.3})) for n in range(20)]
    for job_id in ids:
        until(lambda job_id=job_id: system.job(job_id), what="accepted")

    system.redis.flushall()

    rows = system.await_all(ids, seconds=30)
    assert {row.status for row in rows.values()} == {"completed"}
    assert system.fake.stats()["requests"] == 20


def revoked(system: System, job_id: str) -> Any:
    """Revoke a job's nudge until the worker obeys: it may not listen yet, and broadcasts are not stored."""
    give_up = time.monotonic() + 30
    while time.monotonic() < give_up:
        system.celery.control.revoke(f"{job_id}.1", terminate=True)
        row = system.job(job_id)
        if row.status not in ("queued", "in_progress"):
            return row
        time.sleep(0.2)
    raise AssertionError(f"the job is {system.job(job_id).status}; the worker said: {system.said()}")


def test_revoking_a_running_nudge_cancels_its_job(postgres_system: System) -> None:
    system = postgres_system
    system.start()
    system.celery.conf.control_exchange = "afterword"
    job_id = system.send(request(stream=True, fake={"chunk_s": 0.1, "chunks": 600, "size": 6000}))
    system.await_status(job_id, "in_progress")

    row = revoked(system, job_id)

    assert (row.status, row.error_code) == ("cancelled", "cancelled")
    assert system.attempts(job_id)[0].outcome == "cancelled"
    # Celery logs exceptions of its signal receivers and goes on.
    assert "Signal handler" not in system.said()


def test_revoking_a_waiting_nudge_cancels_its_job(postgres_system: System) -> None:
    system = postgres_system
    system.start(concurrency=1)
    system.celery.conf.control_exchange = "afterword"
    system.await_status(system.send(slow(2)), "in_progress")
    waiting = system.send()
    system.await_status(waiting, "queued")

    assert revoked(system, waiting).status == "cancelled"
    assert system.attempts(waiting) == []


@pytest.mark.parametrize("application", ["worker.app", "worker"])
def test_the_worker_starts_by_either_name_and_inspection_shows_the_work(
    postgres_system: System, application: str
) -> None:
    system = postgres_system
    system.start(application=application)
    job_id = system.send(slow(20))
    system.await_status(job_id, "in_progress")

    shown = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "worker.app", "inspect", "active"],
        cwd=ROOT, env=system.environment(), capture_output=True, text=True, timeout=60,
    )  # fmt: skip

    assert shown.returncode == 0, shown.stderr
    assert f"{job_id}.1" in shown.stdout


def test_roles_are_picked_by_queue(postgres_system: System) -> None:
    system = postgres_system
    system.start("-Q", "chat.run")
    job_id = system.send()
    assert system.redis.llen("chat.intake") == 1

    system.start("-Q", "chat.intake")

    system.await_status(job_id, "completed")


def test_a_worker_on_an_unmigrated_database_stops_with_a_sentence(postgres_system: System) -> None:
    system = postgres_system
    environment = system.environment(database_url=f"sqlite:///{system.folder / 'empty.db'}")

    ended = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "worker.app", "worker"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip

    assert ended.returncode != 0
    assert "afterword db upgrade" in ended.stderr
    assert "Traceback" not in ended.stderr
