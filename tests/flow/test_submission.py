"""Submitting in every way: one job per message, visible at once, found by every id used."""

import json
import sqlite3
import uuid
from contextlib import closing

import psycopg
from sqlalchemy import make_url, text

from afterword import Afterword
from tests.flow.system import System, request
from tests.pool.workers import until
from worker.store import migrate


def test_a_bare_celery_client_submits_and_plain_sql_reads(system: System) -> None:
    system.start()

    job_id = system.send()

    system.await_status(job_id, "completed")
    url = make_url(system.database_url)
    question = "SELECT status, content, total_tokens FROM jobs_v1 WHERE id = "
    if url.get_backend_name() == "sqlite":
        with closing(sqlite3.connect(str(url.database))) as plain:
            row = plain.execute(f"{question}?", (job_id,)).fetchone()
    else:
        with psycopg.connect(system.database_url) as plain_pg:
            row = plain_pg.execute(f"{question}%s", (job_id,)).fetchone()
    assert row == ("completed", "You said: hello", 4)


def test_a_row_is_queued_while_its_job_waits(system: System) -> None:
    system.start(concurrency=1)
    first = system.send(request(fake={"latency_s": 2}))
    system.await_status(first, "in_progress")

    second = system.send()

    row = system.await_status(second, "queued", "in_progress", seconds=1.0)
    assert (row.status, row.waiting_for, row.attempts) == ("queued", "slot", 0)
    system.await_all([first, second])


def test_a_job_inserted_by_sql_alone_runs(system: System) -> None:
    system.start()
    mine = str(uuid.uuid4())

    system.insert(request("by sql"), id=mine)

    assert system.await_status(mine).content == "You said: by sql"
    assert system.rows("SELECT 1 FROM afterword_inbox") == []


def test_the_inbox_shows_as_queued_before_any_worker_lives(system: System) -> None:
    with Afterword(redis_url=system.redis_url, database=system.database_url) as client:
        with system.engine.begin() as connection:
            job_id = client.enqueue(connection, request())

        assert system.job(job_id).status == "queued"
        system.start()
        assert client.wait(job_id, timeout_s=30).text == "You said: hello"


def test_nothing_runs_when_the_caller_rolls_back(system: System) -> None:
    system.start()
    with Afterword(redis_url=system.redis_url, database=system.database_url) as client:
        connection = system.engine.connect()
        lost = client.enqueue(connection, request("never"))
        connection.rollback()
        connection.close()
        kept = system.send(request("kept"))
        system.await_status(kept)

        assert client.get(lost) is None
    assert system.fake.stats()["requests"] == 1


def test_the_producer_submits_waits_and_reads(system: System) -> None:
    system.start()
    with Afterword(redis_url=system.redis_url, database=system.database_url) as client:
        job_id = client.submit(request("hi"), idempotency_key="order-1", metadata={"order": "1"})
        job = client.wait(job_id, timeout_s=30)
        again = client.submit(request("hi"), idempotency_key="order-1")
        same = client.wait(again, timeout_s=30)

    assert (job.status, job.text) == ("completed", "You said: hi")
    assert same.id == job_id
    assert system.fake.stats()["requests"] == 1


def test_another_request_under_a_used_key_is_a_visible_failure(system: System) -> None:
    system.start()
    first = system.send(request("a"), idempotency_key="k")
    system.await_status(first)

    second = system.send(request("b"), idempotency_key="k")

    row = system.await_status(second)
    assert (row.status, row.error_code) == ("failed", "idempotency_conflict")
    assert first in row.error_message


def test_a_bad_request_fails_with_every_fault_and_is_never_sent(system: System) -> None:
    system.start()

    job_id = system.send({"model": "m", "messages": [], "temperature": 9, "n": 0})

    row = system.await_status(job_id)
    assert (row.status, row.error_code, row.attempts) == ("failed", "invalid_request", 0)
    faults = row.error if isinstance(row.error, dict) else json.loads(row.error)
    assert [fault["path"] for fault in faults["faults"]] == ["request.messages", "request.temperature", "request.n"]
    assert system.fake.stats()["requests"] == 0


def test_an_entry_that_is_no_job_becomes_a_dead_letter_and_its_neighbours_run(system: System) -> None:
    system.start()
    first = system.send()
    system.redis.lpush("chat.intake", b"\xff\x00 not json", b"[]", b'{"body": 3}', json.dumps({"headers": {}}))
    last = system.send()

    assert [row.status for row in system.await_all([first, last]).values()] == ["completed", "completed"]
    letters = until(lambda: found if len(found := _letters(system)) == 4 else None, what="four dead letters")
    assert all(letter.reason and letter.message for letter in letters)
    assert b"\xff\x00 not json" in [bytes(letter.entry) for letter in letters]


def _letters(system: System) -> list:  # type: ignore[type-arg]
    return system.rows("SELECT reason, message, entry FROM afterword_dead_letters")


def test_entries_of_every_priority_list_are_accepted(system: System) -> None:
    system.start()
    ids = [
        system.celery.send_task("chat.submit", args=[{"request": request()}], queue="chat.intake", priority=priority).id
        for priority in (0, 3, 6, 9)
    ]

    assert {row.status for row in system.await_all(ids).values()} == {"completed"}


def test_many_jobs_by_mixed_doors_are_each_done_once(system: System) -> None:
    system.start()
    with Afterword(redis_url=system.redis_url, database=system.database_url) as client:
        ids = [system.send(request(f"celery {n}")) for n in range(40)]
        ids += [client.submit(request(f"redis {n}")) for n in range(40)]
        with system.engine.begin() as connection:
            ids += client.enqueue_many(connection, [request(f"sql {n}") for n in range(40)])

        rows = system.await_all(ids)

    assert {row.status for row in rows.values()} == {"completed"}
    assert sorted(row.cursor for row in rows.values()) == list(range(1, 121))
    assert system.fake.stats()["requests"] == 120
    assert {system.fake.job(job_id)["requests"] for job_id in ids} == {1}
    with system.engine.connect() as connection:
        total = connection.execute(text("SELECT sum(total_tokens) FROM usage_v1")).scalar()
    assert int(total) == sum(row.total_tokens for row in rows.values())


def test_a_worker_serves_a_schema_of_its_own(postgres_system: System) -> None:
    system = postgres_system
    migrate.downgrade(system.engine)
    migrate.upgrade(system.engine, schema="words")
    with system.engine.begin() as connection:
        name = connection.engine.url.database
        connection.execute(text(f'ALTER DATABASE "{name}" SET search_path TO words'))
    system.engine.dispose()  # from here on, readers that use plain names look there
    system.start(database_schema="words")
    with Afterword(redis_url=system.redis_url, database=system.database_url, schema="words") as client:
        ids = [client.submit(request())]
        with system.engine.begin() as connection:
            ids.append(client.enqueue(connection, request()))

        assert [client.wait(job_id, timeout_s=30).text for job_id in ids] == ["You said: hello"] * 2
