"""A worker leaves a server that cannot serve it, and does not blame data for a temporary refusal."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from tests.jobs.store.attempts import completed, started
from tests.pool.workers import until
from tests.store.broken import refusing
from tests.store.made import accept_all, entry, one, rows, worker
from worker.core.lifecycle import FAIL, Outcome
from worker.jobs.outcome import plain_record
from worker.jobs.store.record import AttemptRecord, record
from worker.store.engine import describe, is_away, open_engine
from worker.store.group_commit import Batcher

PID = "SELECT pg_backend_pid()"
# A constraint, a value, exhausted transaction ids, a defect, an unsupported feature, a state, a foreign trigger, a
# missing table, a missing column.
STATES = ("23514", "22023", "54000", "XX000", "0A000", "55000", "P0001", "42P01", "42703")


def read_only(engine: Engine, value: str) -> None:
    name = engine.url.database
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f'ALTER DATABASE "{name}" SET default_transaction_read_only = {value}'))


def test_a_server_that_has_become_read_only_is_left_by_every_connection(postgresql_url: str) -> None:
    engine = open_engine(postgresql_url)
    with engine.connect() as first, engine.connect() as second:
        before = {connection.execute(text(PID)).scalar_one() for connection in (first, second)}

    with pytest.raises(DBAPIError) as caught, engine.begin() as connection:
        connection.execute(text("SET LOCAL transaction_read_only = on"))
        connection.execute(text("DELETE FROM afterword_workers"))

    assert is_away(caught.value)
    assert caught.value.connection_invalidated
    with engine.connect() as first, engine.connect() as second:
        after = {connection.execute(text(PID)).scalar_one() for connection in (first, second)}
    assert not before & after
    engine.dispose()


def test_a_writer_takes_no_connection_to_a_read_only_server_and_a_reader_does(postgresql_url: str) -> None:
    admin, writer, reader = (
        open_engine(postgresql_url, reading=True),
        open_engine(postgresql_url),
        open_engine(postgresql_url, reading=True),
    )
    read_only(admin, "on")

    with pytest.raises(DBAPIError) as caught:
        writer.connect()
    assert is_away(caught.value)
    assert "read-only" in describe(caught.value)["message"]
    with reader.connect() as connection:
        assert connection.execute(text("SHOW transaction_read_only")).scalar() == "on"

    # A URL that accepts any server gets any server.
    unasking = open_engine(f"{postgresql_url}&target_session_attrs=any")
    with unasking.connect() as connection:
        assert connection.execute(text("SHOW transaction_read_only")).scalar() == "on"
    execute_always = "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE"
    with admin.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(execute_always))
        connection.execute(text(f'ALTER DATABASE "{admin.url.database}" RESET default_transaction_read_only'))
    with writer.begin() as connection:
        connection.execute(text("DELETE FROM afterword_workers"))
    for engine in (admin, writer, reader, unasking):
        engine.dispose()


def test_a_sqlite_connection_that_takes_no_writes_is_opened_again(sqlite_url: str) -> None:
    engine = open_engine(sqlite_url)

    with pytest.raises(DBAPIError) as caught, engine.begin() as connection:
        connection.execute(text("PRAGMA query_only = ON"))  # like a file system mounted read-only
        connection.execute(text("DELETE FROM afterword_workers"))

    assert is_away(caught.value)
    assert describe(caught.value)["message"] == "attempt to write a readonly database"
    worker(engine)
    engine.dispose()


@pytest.mark.parametrize("state", STATES)
def test_a_paid_answer_waits_for_a_database_that_refuses_every_record(postgresql_url: str, state: str) -> None:
    engine = open_engine(postgresql_url)
    held_until_taken(engine, state)
    engine.dispose()


def test_a_paid_answer_waits_for_a_sqlite_file_that_refuses_every_record(sqlite_url: str) -> None:
    engine = open_engine(sqlite_url)
    held_until_taken(engine, "")
    engine.dispose()


def held_until_taken(engine: Engine, state: str) -> None:
    mine = worker(engine)
    claims = [started(engine, mine) for _ in range(3)]
    closings = [completed(claimed) for claimed in claims]
    tries: list[int] = []

    def counted(connection: Connection, items: Sequence[AttemptRecord]) -> list[object]:
        tries.append(len(items))
        return list(record(connection, items))

    batcher = Batcher(engine)
    with refusing(engine, "afterword_answers", "INSERT", state):
        written = [batcher.put(counted, each, plain=lambda each=each: plain_record(each)) for each in closings]
        batcher.start()
        # Each item is tried twice alone and twice in its plain form; other writes go on in between.
        until(lambda: len(tries) > 13, what="the tries")
        worker(engine)
        assert not any(future.done() for future in written)
    assert [future.result(30).moved for future in written] == [True] * 3
    assert {row.status for row in rows(engine, "SELECT status FROM jobs_v1")} == {"completed"}
    batcher.close(timeout_s=10)


@pytest.mark.parametrize("outcome", [Outcome.completed, Outcome.failed])
def test_a_record_that_alone_is_refused_fails_alone_and_once(engine: Engine, outcome: Outcome) -> None:
    mine = worker(engine)
    good, bad = (completed(started(engine, mine)) for _ in range(2))
    if outcome is Outcome.failed:
        bad = replace(bad, move=FAIL, outcome=outcome, error_code="internal_error")
    # Longer than the column allows, on both databases.
    bad = replace(bad, attempt={**bad.attempt, "billed": "perhaps"})
    batcher = Batcher(engine)
    harmless = replace(bad, attempt={**bad.attempt, "billed": "yes"})
    refused = batcher.put(record, bad, plain=lambda: plain_record(harmless))
    written = batcher.put(record, good, plain=lambda: plain_record(good))
    batcher.start()

    with pytest.raises(DBAPIError):
        refused.result(30)
    assert written.result(30).moved
    # The plain form was written as a test and rolled back.
    assert one(engine, "SELECT status FROM jobs_v1 WHERE id = :id", id=bad.job_id).status == "in_progress"
    batcher.close(timeout_s=10)


@pytest.mark.parametrize("outcome", list(Outcome))
def test_the_plain_form_of_every_end_can_be_written(engine: Engine, outcome: Outcome) -> None:
    mine = worker(engine)
    end = completed(started(engine, mine))
    if outcome is not Outcome.completed:
        end = replace(end, move=FAIL, outcome=outcome, error_code="internal_error", error="{}")

    with engine.begin() as connection:
        assert record(connection, [plain_record(end)])[0].moved


def test_a_claim_that_is_refused_fails_at_once(engine: Engine) -> None:
    accept_all(engine, entry())

    def refused(connection: Connection, items: Sequence[int]) -> list[None]:
        connection.execute(text("INSERT INTO afterword_counters (name, value) VALUES (NULL, 0)"))
        return [None] * len(items)

    batcher = Batcher(engine)
    future = batcher.put(refused, 1)
    batcher.start()
    with pytest.raises(DBAPIError):
        future.result(30)
    batcher.close(timeout_s=10)
