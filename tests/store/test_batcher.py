"""Group commit: what arrives together commits together, and one bad item never fails its neighbours."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from worker.store.batcher import Batcher, BatcherClosed

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


def test_what_arrives_together_commits_together(engine: Engine, batcher: Batcher) -> None:
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


def test_a_cancelled_caller_learns_of_it_after_the_write(engine: Engine, batcher: Batcher) -> None:
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


def test_closing_writes_what_waits_and_takes_nothing_more(engine: Engine) -> None:
    made = Batcher(engine)
    futures = [made.put(add, n) for n in range(5)]
    made.start()

    assert made.close(timeout_s=10)

    assert [future.result(0) for future in futures] == [0, 2, 4, 6, 8]
    with pytest.raises(BatcherClosed):
        made.put(add, 6)
