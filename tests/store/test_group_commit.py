"""Group commit: items that arrive together commit together, and one bad item never fails its neighbours."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, select, text
from sqlalchemy.exc import IntegrityError, OperationalError

from tests.jobs.store.attempts import completed, started
from tests.pool.workers import until
from tests.store.made import accept_all, entry, rows, worker
from tests.store.statements import WAITS_FOR_A_LOCK
from worker.core.failure import ErrorCode
from worker.jobs.core.endpoint_health import FailureOwner
from worker.jobs.store import endpoint_trouble, endpoints
from worker.jobs.store.cancel import cancel
from worker.jobs.store.record import record
from worker.store.engine import describe, open_engine, sqlstate
from worker.store.group_commit import Batcher, BatcherClosed
from worker.store.tables import counters

BAD = 13
sizes: list[int] = []


def add(connection: Connection, items: Sequence[int]) -> list[int]:
    """Write numbers; BAD breaks the transaction."""
    sizes.append(len(items))
    for item in items:
        statement = "INSERT INTO afterword_counters (name, value) VALUES (:name, :value)"
        connection.execute(text(statement), {"name": None if item == BAD else f"n{item}", "value": item})
    return [item * 2 for item in items]


@pytest.fixture
def batcher(engine: Engine) -> Iterator[Batcher]:
    sizes.clear()
    made = Batcher(engine, max_items=10)
    made.start()
    yield made
    made.close(timeout_s=10)


def numbers(engine: Engine) -> set[int]:
    with engine.connect() as connection:
        return set(connection.scalars(text("SELECT value FROM afterword_counters WHERE name LIKE 'n%'")))


def test_items_that_arrive_together_commit_together(engine: Engine, batcher: Batcher) -> None:
    async def run() -> list[Any]:
        return await asyncio.gather(*(batcher.submit(add, n) for n in range(100, 150)))

    assert asyncio.run(run()) == [n * 2 for n in range(100, 150)]
    assert numbers(engine) == set(range(100, 150))
    assert max(sizes) > 1
    assert max(sizes) <= 10


def test_a_bad_item_fails_alone(engine: Engine, batcher: Batcher) -> None:
    async def run() -> list[Any]:
        return await asyncio.gather(*(batcher.submit(add, n) for n in range(20)), return_exceptions=True)

    results = asyncio.run(run())

    assert [n for n, result in enumerate(results) if isinstance(result, Exception)] == [BAD]
    assert numbers(engine) == set(range(20)) - {BAD}


def test_a_batch_ends_at_its_bytes(engine: Engine) -> None:
    sizes.clear()
    small = Batcher(engine, max_items=100, max_bytes=100)
    futures = [small.put(add, n, size=60) for n in range(4)]
    small.start()
    for future in futures:
        future.result(10)
    small.close(timeout_s=10)

    assert sizes == [1, 1, 1, 1]


def test_a_cancelled_caller_is_cancelled_after_the_write(engine: Engine, batcher: Batcher) -> None:
    gate, seen = threading.Event(), []

    def waiting(connection: Connection, items: Sequence[int]) -> list[int]:
        gate.wait(10)
        return add(connection, items)

    async def caller() -> None:
        seen.append(await batcher.submit(waiting, 7))
        await asyncio.sleep(0)
        seen.append("not reached")

    async def run() -> None:
        task = asyncio.create_task(caller())
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.sleep(0.05)
        gate.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert seen == [14]
    assert numbers(engine) == {7}


def test_closing_writes_the_waiting_items_and_takes_no_more(engine: Engine) -> None:
    made = Batcher(engine)
    futures = [made.put(add, n) for n in range(5)]
    made.start()

    assert made.close(timeout_s=10)

    assert [future.result(0) for future in futures] == [0, 2, 4, 6, 8]
    with pytest.raises(BatcherClosed):
        made.put(add, 6)


def nothing(connection: Connection, items: Sequence[Any]) -> list[None]:
    return [None] * len(items)


def sleep_a_second(connection: Connection, items: Sequence[Any]) -> list[None]:
    connection.execute(text("SELECT pg_sleep(1)"))
    return [None] * len(items)


def test_a_statement_that_times_out_delays_no_other_write(postgresql_url: str) -> None:
    plain = open_engine(postgresql_url)
    with plain.begin() as connection:
        connection.execute(text(f"ALTER DATABASE \"{plain.url.database}\" SET statement_timeout = '200ms'"))
    plain.dispose()
    engine = open_engine(postgresql_url)
    batcher = Batcher(engine)
    slow = batcher.put(sleep_a_second, 1)
    batcher.start()

    batcher.put(nothing, 2).result(20)

    assert not slow.done()
    batcher.close(timeout_s=0)
    engine.dispose()


def test_a_batch_that_lost_a_deadlock_is_repeated(postgresql_url: str) -> None:
    engine = open_engine(postgresql_url)
    first = "UPDATE afterword_counters SET value = value + 1 WHERE name = 'a'"
    second = first.replace("'a'", "'b'")
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO afterword_counters (name, value) VALUES ('a', 0), ('b', 0)"))
    begun, tries = threading.Event(), []

    def crosswise(connection: Connection, items: Sequence[int]) -> list[None]:
        tries.append(1)
        connection.execute(text(second))
        begun.set()
        connection.execute(text(first))
        return [None] * len(items)

    batcher = Batcher(engine)
    with engine.begin() as other:
        # PostgreSQL aborts the transaction that notices the deadlock first, after one second by default. This one
        # notices late, so it survives.
        other.execute(text("SET LOCAL deadlock_timeout = '20s'"))
        other.execute(text("SET LOCAL lock_timeout = 0"))
        other.execute(text(first))
        batcher.start()
        done = batcher.put(crosswise, 1)
        assert begun.wait(20)
        other.execute(text(second))

    done.result(30)
    assert len(tries) > 1
    found = rows(engine, "SELECT value FROM afterword_counters WHERE name IN ('a', 'b')")
    assert [row.value for row in found] == [2, 2]
    batcher.close(timeout_s=10)
    engine.dispose()


@pytest.mark.parametrize("items", [1, 2])
def test_a_batch_with_a_serialization_failure_is_repeated(postgresql_url: str, items: int) -> None:
    other = open_engine(postgresql_url)
    strict = other.execution_options(isolation_level="REPEATABLE READ")
    increase = "UPDATE afterword_counters SET value = value + 1 WHERE name = 'a'"
    with other.begin() as connection:
        connection.execute(text("INSERT INTO afterword_counters (name, value) VALUES ('a', 0)"))
    begun, gone_on, states = threading.Event(), threading.Event(), []

    def late(connection: Connection, items: Sequence[int]) -> list[None]:
        connection.execute(text("SELECT value FROM afterword_counters"))  # the snapshot is taken here
        begun.set()
        assert gone_on.wait(20)
        try:
            connection.execute(text(increase))
        except OperationalError as error:
            states.append(sqlstate(error))
            raise
        return [None] * len(items)

    batcher = Batcher(strict)
    done = [batcher.put(late, number) for number in range(items)]
    batcher.start()
    assert begun.wait(20)
    with other.begin() as connection:
        connection.execute(text(increase))
    gone_on.set()

    assert [one.result(30) for one in done] == [None] * items
    assert states == ["40001"]
    (row,) = rows(other, "SELECT value FROM afterword_counters WHERE name = 'a'")
    assert row.value == 2
    batcher.close(timeout_s=10)
    other.dispose()


@pytest.mark.parametrize("default", ["repeatable read", "serializable"])
def test_the_databases_default_isolation_does_not_apply(postgresql_url: str, default: str) -> None:
    plain = open_engine(postgresql_url)
    with plain.begin() as connection:
        name = plain.url.database
        connection.execute(text(f"ALTER DATABASE \"{name}\" SET default_transaction_isolation = '{default}'"))
    plain.dispose()
    engine = open_engine(postgresql_url)

    assert rows(engine, "SHOW transaction_isolation")[0][0] == "read committed"
    engine.dispose()


def test_a_row_left_locked_delays_only_its_own_write(postgresql_url: str) -> None:
    engine = open_engine(postgresql_url)
    mine = worker(engine)
    locked, free = started(engine, mine), started(engine, mine)
    batcher = Batcher(engine)
    with engine.connect() as console:
        console.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        console.execute(text("SELECT 1 FROM afterword_jobs WHERE id = :id FOR UPDATE"), {"id": locked.job_id})
        batcher.start()
        waits = batcher.put(record, completed(locked))

        assert batcher.put(record, completed(free)).result(30).moved
        assert not waits.done()
        console.rollback()
    assert waits.result(30).moved
    batcher.close(timeout_s=10)
    engine.dispose()


def test_no_error_of_the_database_quotes_the_written_values(engine: Engine) -> None:
    with pytest.raises(IntegrityError) as caught, engine.begin() as connection:
        for _ in range(2):
            statement = text("INSERT INTO afterword_requests (job_id, body) VALUES (:id, :body)")
            connection.execute(statement, {"id": "00000000-0000-4000-8000-000000000000", "body": b"the prompt"})

    assert "the prompt" not in str(caught.value)
    assert "the prompt" not in repr(describe(caught.value))


def test_the_feeds_counter_is_locked_by_the_last_step_of_a_batch(postgresql_url: str) -> None:
    engine, other = open_engine(postgresql_url), open_engine(postgresql_url)
    (accepted,) = accept_all(engine, entry())
    assert accepted.job_id
    met = endpoint_trouble.Trouble("default", accepted.job_id, 1, ErrorCode.unauthorized, 1.0, None)
    batcher = Batcher(engine, last=(cancel,))
    cancelled = batcher.put(cancel, accepted.job_id)
    judged = batcher.put(endpoint_trouble.note_troubles, met)
    with other.begin() as holder:
        endpoints.pause(holder, "default")
        batcher.start()
        until(lambda: bool(rows(other, WAITS_FOR_A_LOCK)), what="the batch waits for the endpoint's row")

        # The holder of the endpoint's row may end a job next, which locks the counter. Had the batch locked the counter
        # first, the two would deadlock.
        with other.begin() as connection:
            connection.execute(select(counters).with_for_update(nowait=True))

    assert (cancelled.result(10), judged.result(10).owner) == ("queued", FailureOwner.endpoint)
    batcher.close(timeout_s=10)
    engine.dispose()
    other.dispose()
