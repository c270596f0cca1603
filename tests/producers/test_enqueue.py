"""enqueue inserts rows in the caller's transaction, through every kind of connection and without Redis."""

import asyncio
import json
import math
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from afterword import Afterword
from afterword.message import HINTS
from tests.producers.made import (
    REQUEST,
    Open,
    accept_inbox,
    inbox,
    one,
    rows,
    silent_server,
    writable,
)
from worker.dev.redis import free_port
from worker.store import migrate, version
from worker.store.engine import open_engine

Kind = Callable[[Engine, str], AbstractContextManager[Open]]


def test_a_job_runs_once_the_caller_commits(kind: Kind, engine: Engine, database_url: str) -> None:
    with kind(engine, database_url) as caller:
        job_id = Afterword().enqueue(caller.target, REQUEST, tenant="acme")
        caller.commit()

    (accepted,) = accept_inbox(engine)
    assert (accepted.job_id, accepted.outcome) == (job_id, "queued")
    row = one(engine, "SELECT tenant, request FROM jobs_v1")
    assert (row.tenant, json.loads(row.request) if isinstance(row.request, str) else row.request) == ("acme", REQUEST)


def test_a_rollback_leaves_nothing(kind: Kind, engine: Engine, database_url: str) -> None:
    with kind(engine, database_url) as caller:
        Afterword().enqueue(caller.target, REQUEST)
        Afterword().enqueue_many(caller.target, [REQUEST] * 3)
        caller.rollback()

    assert inbox(engine) == []


def test_ten_thousand_jobs_are_one_call_in_the_callers_transaction(
    kind: Kind, engine: Engine, database_url: str
) -> None:
    with kind(engine, database_url) as caller:
        ids = Afterword().enqueue_many(caller.target, [REQUEST] * 10_000)
        caller.commit()

    assert len(set(ids)) == 10_000
    assert one(engine, "SELECT count(*) AS n FROM submit_v1").n == 10_000


def test_the_job_and_the_callers_own_rows_commit_together(engine: Engine) -> None:
    with Session(engine) as session:
        session.execute(text("CREATE TABLE orders (id integer)"))
        session.commit()
        session.execute(text("INSERT INTO orders VALUES (1)"))
        Afterword().enqueue(session, REQUEST)

        with closing(_other(engine)) as other:
            assert _counts(other) == (0, 0)
        session.commit()

    with closing(_other(engine)) as other:
        assert _counts(other) == (1, 1)


def _other(engine: Engine) -> Any:
    return writable(engine.url.set(drivername=engine.dialect.name).render_as_string(hide_password=False))


def _counts(connection: Any) -> tuple[int, int]:
    cursor = connection.cursor()
    cursor.execute("SELECT (SELECT count(*) FROM orders), (SELECT count(*) FROM submit_v1)")
    found: tuple[int, int] = cursor.fetchone()
    cursor.close()
    return found


def test_what_the_callers_cursor_has_yet_to_fetch_stays(engine: Engine, database_url: str) -> None:
    with closing(writable(database_url)) as connection, closing(connection.cursor()) as cursor:
        cursor.execute("SELECT 1 UNION ALL SELECT 2")
        Afterword().enqueue(cursor, REQUEST)

        assert len(cursor.fetchall()) == 2


def test_a_dead_redis_is_never_asked(engine: Engine) -> None:
    closed = f"redis://127.0.0.1:{free_port()}/0"
    with silent_server() as (port, connections):
        for url in (closed, f"redis://127.0.0.1:{port}/0"):
            client = Afterword(url, engine)
            with engine.begin() as connection:
                job_id = client.enqueue(connection, REQUEST)
            found = client.get(job_id)
            assert found is not None
            assert found.status == "queued"

        assert connections == []


def test_many_jobs_go_in_with_one_call_and_keep_their_order(kind: Kind, engine: Engine, database_url: str) -> None:
    with kind(engine, database_url) as caller:
        ids = Afterword().enqueue_many(caller.target, ({**REQUEST, "n": n} for n in range(1, 2502)), batch="big")
        caller.commit()

    assert len(ids) == 2501
    found = rows(engine, "SELECT id, job FROM afterword_inbox ORDER BY seq")
    assert [str(row.id) for row in found] == ids
    assert [json.loads(row.job)["request"]["n"] for row in found] == list(range(1, 2502))
    assert json.loads(found[-1].job)["batch"] == "big"


def test_each_of_many_may_have_its_own_options(engine: Engine) -> None:
    chosen = str(uuid.uuid4())
    with engine.begin() as connection:
        ids = Afterword().enqueue_many(
            connection, [(REQUEST, {"id": chosen, "priority": 0}), REQUEST], priority=9, tenant="acme"
        )

    assert ids[0] == chosen
    found = {str(row.id): json.loads(row.job) for row in inbox(engine)}
    assert [(found[each]["priority"], found[each]["tenant"]) for each in ids] == [(0, "acme"), (9, "acme")]


@pytest.mark.parametrize("name", ["id", "idempotency_key"])
def test_what_names_one_job_is_not_shared_by_many(name: str, engine: Engine) -> None:
    with engine.begin() as connection, pytest.raises(TypeError, match=f"^{name} names one job; give it with each"):
        Afterword().enqueue_many(connection, [REQUEST], **{name: str(uuid.uuid4())})

    assert inbox(engine) == []


def test_one_bad_request_among_many_inserts_none(engine: Engine) -> None:
    with engine.begin() as connection, pytest.raises(ValueError, match=r"request\.temperature is nan"):
        Afterword().enqueue_many(connection, [REQUEST, {"temperature": math.nan}])

    assert inbox(engine) == []


def test_large_jobs_are_spread_over_several_statements(engine: Engine) -> None:
    large = {"model": "m", "messages": [{"role": "user", "content": "x" * 1_500_000}]}
    with engine.begin() as connection:
        ids = Afterword().enqueue_many(connection, [large] * 5)

    assert sorted(str(row.id) for row in inbox(engine)) == sorted(ids)


def test_text_of_any_kind_arrives_as_it_was(kind: Kind, engine: Engine, database_url: str) -> None:
    request = {"model": "m", "messages": [{"role": "user", "content": "日本 % :id '\" \\ \0 \ud800 \U0001f600"}]}
    with kind(engine, database_url) as caller:
        Afterword().enqueue(caller.target, request)
        caller.commit()

    (row,) = inbox(engine)
    assert json.loads(row.job)["request"] == request


def test_a_loop_over_a_batch_sees_its_jobs_from_the_commit_on(kind: Kind, engine: Engine, database_url: str) -> None:
    with kind(engine, database_url) as caller:
        items = [(REQUEST, {"custom_id": f"row-{n}", "idempotency_key": f"key-{n}"}) for n in range(3)]
        Afterword().enqueue_many(caller.target, items, batch="nightly")
        caller.commit()

    found = rows(engine, f"SELECT {', '.join(HINTS)} FROM jobs_v1 WHERE batch = 'nightly' ORDER BY custom_id")
    assert [tuple(row) for row in found] == [("default", "nightly", f"row-{n}", f"key-{n}") for n in range(3)]
    accept_inbox(engine)
    assert rows(engine, f"SELECT {', '.join(HINTS)} FROM jobs_v1 WHERE batch = 'nightly' ORDER BY custom_id") == found


@pytest.mark.parametrize("value", ["a\0b", "\ud800", 7, ["x"], "x" * 10_000])
def test_a_name_that_no_job_may_have_is_left_to_the_worker(value: Any, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE orders (id integer)"))
        Afterword().enqueue(connection, REQUEST, custom_id=value, tenant=value)

    accept_inbox(engine)
    row = one(engine, "SELECT status, error_code FROM jobs_v1")
    assert (row.status, row.error_code) == ("failed", "invalid_request")


def test_a_database_that_was_not_upgraded_yet_takes_jobs_all_the_same(
    kind: Kind, engine: Engine, database_url: str
) -> None:
    known = version.known_revisions()
    migrate.downgrade(engine, revision=known[known.index("0010") - 1])
    client = Afterword()
    with kind(engine, database_url) as caller:
        first = client.enqueue(caller.target, REQUEST, batch="b")
        caller.commit()
    migrate.upgrade(engine)
    with kind(engine, database_url) as caller:
        second = client.enqueue(caller.target, REQUEST, batch="b")
        caller.commit()

    assert sorted(str(row.id) for row in inbox(engine)) == sorted([first, second])
    assert [str(row.id) for row in rows(engine, "SELECT id FROM jobs_v1 WHERE batch = 'b'")] == [second]


def test_a_callers_own_row_factory_is_not_asked_to_make_our_rows(postgresql_url: str) -> None:
    def refuse(cursor: Any) -> Any:
        raise AssertionError("the caller's factory was asked for a row")

    with psycopg.connect(postgresql_url, row_factory=refuse) as connection:
        job_id = Afterword().enqueue(connection, REQUEST, batch="b")

    engine = open_engine(postgresql_url)
    assert [str(row.id) for row in rows(engine, "SELECT id FROM jobs_v1 WHERE batch = 'b'")] == [job_id]
    engine.dispose()


def test_a_schema_is_where_the_door_is(postgresql_url: str) -> None:
    engine = open_engine(postgresql_url)
    migrate.upgrade(engine, schema="llm")
    client = Afterword(database=engine, schema="llm")
    with engine.begin() as connection:
        job_id = client.enqueue(connection, REQUEST)

    found = client.get(job_id)
    assert found is not None
    assert found.status == "queued"
    assert one(engine, "SELECT count(*) FROM llm.submit_v1")[0] == 1
    assert one(engine, "SELECT count(*) FROM public.submit_v1")[0] == 0
    engine.dispose()


def test_a_schema_that_is_no_plain_name_is_refused(engine: Engine) -> None:
    with engine.begin() as connection, pytest.raises(ValueError, match="give a plain SQL name"):
        Afterword(schema='x"; --').enqueue(connection, REQUEST)


class Executes:
    """Looks like a connection of asyncpg. That package is not installed here."""

    async def execute(self, sql: str) -> None: ...


class Commits:
    """Looks like a connection of aiosqlite. That package is not installed here."""

    async def commit(self) -> None: ...


class Foreign:
    vendor = "mysql"

    def cursor(self) -> None: ...


@pytest.mark.parametrize(
    ("target", "says"),
    [
        (Executes(), "this connection is asynchronous; with SQLAlchemy write await session.run_sync("),
        (Commits(), "this connection is asynchronous; with SQLAlchemy write await session.run_sync("),
        (Foreign(), "this connection is to mysql; give one to Afterword's database, PostgreSQL or SQLite"),
        (None, "cannot enqueue through a builtins.NoneType; give a SQLAlchemy Session or Connection"),
        ("sqlite:///x", "cannot enqueue through a builtins.str"),
    ],
)
def test_what_is_no_connection_of_use_is_refused_with_the_remedy(target: Any, says: str) -> None:
    with pytest.raises(TypeError) as raised:
        Afterword().enqueue(target, REQUEST)

    assert says in str(raised.value)


def test_an_engine_is_refused_because_it_has_no_transaction(engine: Engine) -> None:
    with pytest.raises(TypeError, match=r"an Engine has no open transaction; give a connection"):
        Afterword().enqueue(engine, REQUEST)


async def _enqueue_asynchronously(url: str) -> str:
    engine = create_async_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    async with AsyncSession(engine) as session:
        with pytest.raises(TypeError, match="run_sync"):
            Afterword().enqueue(session, REQUEST)
        job_id = await session.run_sync(lambda session: Afterword().enqueue(session, REQUEST))
        await session.commit()
    await engine.dispose()
    return job_id


def test_an_asynchronous_session_enqueues_by_run_sync(postgresql_url: str) -> None:
    job_id = asyncio.run(_enqueue_asynchronously(postgresql_url))

    engine = open_engine(postgresql_url)
    assert [str(row.id) for row in inbox(engine)] == [job_id]
    engine.dispose()
