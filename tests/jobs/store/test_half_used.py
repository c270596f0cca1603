"""An exception during a database call closes the connection or leaves it clean: no statement gets another's rows.

SQLAlchemy guarantees it for both drivers; these tests check it.
"""

import sqlite3
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

ERRORS = [MemoryError, RecursionError, KeyboardInterrupt, SystemExit]


class Boom(Exception):
    """An exception that no library raises."""


def sent_and_left(self: Any, generator: Any, *args: Any, **kwargs: Any) -> Any:
    """Wait, as psycopg does, until the statement is sent, and do not wait for its answer."""
    next(generator)
    raise self.boom


@pytest.fixture
def one(engine: Engine) -> Iterator[Engine]:
    """Yield an engine with one connection in its pool."""
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
    yield engine


def ask(engine: Engine, number: int) -> int:
    with engine.begin() as connection:
        return int(connection.execute(text("SELECT :number"), {"number": number}).scalar_one())


@pytest.mark.parametrize("error", [*ERRORS, Boom])
def test_after_an_exception_while_postgresql_answers_every_answer_is_its_own_statements(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    from worker.store.engine import open_engine

    engine = open_engine(postgresql_url)
    for number in range(3):
        assert ask(engine, 7) == 7
        monkeypatch.setattr(psycopg.Connection, "boom", error("somewhere inside"), raising=False)
        with monkeypatch.context() as broken, pytest.raises((error, SQLAlchemyError)):
            broken.setattr(psycopg.Connection, "wait", sent_and_left)
            with engine.begin() as connection:
                connection.execute(text("SELECT 1, 2, 3 FROM pg_sleep(0.05)"))
        assert ask(engine, number) == number
        assert ask(engine, 10 + number) == 10 + number
    # A connection that could not be returned must not count as checked out forever.
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    engine.dispose()


@pytest.mark.parametrize("error", [*ERRORS, Boom])
def test_after_an_exception_while_rows_are_fetched_nothing_is_left_of_the_transaction(
    one: Engine, error: type[BaseException]
) -> None:
    def fail(*_: Any) -> int:
        raise error("somewhere inside")

    for number in range(3):
        with pytest.raises((error, SQLAlchemyError)), one.begin() as connection:
            driver = connection.connection.dbapi_connection
            connection.execute(text("INSERT INTO submit_v1 (job) VALUES ('half')"))
            if isinstance(driver, sqlite3.Connection):
                driver.create_function("fail", 0, fail)
                connection.execute(text("SELECT seq, fail() FROM afterword_inbox")).all()
            fail()
        assert ask(one, number) == number
    with one.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM afterword_inbox")).scalar_one() == 0
