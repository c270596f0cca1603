"""A database that refuses the writes of every job: no call is made twice, no job is given up, no entry is blamed."""

import pytest
from sqlalchemy import text

from tests.flow.system import System, request
from tests.pool.workers import until
from tests.store.broken import refusing

JOBS = 5
pytestmark = pytest.mark.timeout(120)


def test_answers_wait_in_the_worker_until_the_database_takes_them(system: System) -> None:
    system.start()
    with refusing(system.engine, "afterword_answers", "INSERT"):
        sent = [system.send(request(f"words {number}")) for number in range(JOBS)]
        until(lambda: system.fake.stats()["requests"] == JOBS, what="all requests")
        until(lambda: len(system.lines("writer.postponed")) > 2 * JOBS, what="the writer's tries")

    rows = system.await_all(sent)
    assert {(row.status, row.attempts) for row in rows.values()} == {("completed", 1)}
    assert system.fake.stats()["requests"] == JOBS


def test_entries_wait_until_the_database_takes_any_job(system: System) -> None:
    system.start()
    with refusing(system.engine, "afterword_jobs", "INSERT"):
        sent = [system.send(request(f"words {number}")) for number in range(JOBS)]
        system.insert(request("from the inbox"), custom_id="inbox")
        until(lambda: len(system.lines("intake.postponed")) > 2, what="the intake's tries")

    rows = system.await_all(sent)
    assert {(row.status, row.attempts) for row in rows.values()} == {("completed", 1)}
    until(
        lambda: system.rows("SELECT 1 FROM jobs_v1 WHERE custom_id = 'inbox' AND status = 'completed'"),
        what="the inbox's job",
    )
    assert not system.rows("SELECT 1 FROM afterword_dead_letters")


def test_an_answer_that_alone_is_refused_ends_its_job_and_keeps_its_bytes(postgres_system: System) -> None:
    system = postgres_system

    with system.engine.begin() as connection:
        connection.execute(
            text("ALTER TABLE afterword_answers ADD CONSTRAINT no_poison CHECK (content NOT LIKE '%the poison%')")
        )
    system.start()
    bad, good = system.send(request("the poison")), [system.send(request(f"words {n}")) for n in range(JOBS)]

    row = system.await_status(bad)
    assert (row.status, row.error_code, row.attempts) == ("failed", "internal_error", 1)
    assert {one.status for one in system.await_all(good).values()} == {"completed"}
    (kept,) = system.rows("SELECT raw FROM afterword_answers WHERE job_id = :id", id=bad)
    assert b"the poison" in bytes(kept.raw)
    assert system.fake.stats()["requests"] == JOBS + 1
