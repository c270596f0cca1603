"""Settings of a role or a database do not reach our sessions; a setting that we cannot override is refused."""

import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC

import pytest
from sqlalchemy import Engine, make_url, text
from sqlalchemy.exc import DBAPIError

from afterword import Afterword
from tests.jobs.store.attempts import completed, write
from tests.pool.workers import until
from tests.store.made import accept_all, claim_one, entry, job, one, rows, worker
from worker.settings import child_environment
from worker.store import migrate, version
from worker.store.engine import UnusableDatabase, open_engine
from worker.store.fatal_errors import is_hopeless

TEXT = "日本 🙂 \\ ' é"
ODD = {
    "datestyle": "SQL, DMY",
    "timezone": "Asia/Kathmandu",
    "client_encoding": "LATIN1",
    "standard_conforming_strings": "off",
}


def execute(url: str, *statements: str) -> None:
    engine = open_engine(url, reading=True)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


@pytest.fixture
def odd_url(postgresql_url: str) -> str:
    name = make_url(postgresql_url).database
    execute(postgresql_url, *(f"ALTER DATABASE \"{name}\" SET {setting} = '{value}'" for setting, value in ODD.items()))
    return postgresql_url


@pytest.fixture
def fresh(postgres_url: str) -> Iterator[str]:
    """Yield an empty database."""
    yield from made(postgres_url)


def made(server: str, options: str = "") -> Iterator[str]:
    name = f"t_{uuid.uuid4().hex}"
    execute(server, f"CREATE DATABASE {name} {options}")
    yield make_url(server).set(database=name).render_as_string(hide_password=False)
    execute(server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.parametrize("reading", [False, True])
def test_sessions_have_the_settings_that_the_code_relies_on(odd_url: str, reading: bool) -> None:
    engine = open_engine(odd_url, reading=reading)

    found = {setting: rows(engine, f"SHOW {setting}")[0][0] for setting in (*ODD, "application_name")}

    assert found == {
        "datestyle": "ISO, MDY",
        "timezone": "UTC",
        "client_encoding": "UTF8",
        "standard_conforming_strings": "on",
        "application_name": "afterword",
    }
    engine.dispose()


def test_the_urls_own_name_of_the_application_stays(postgresql_url: str) -> None:
    engine = open_engine(f"{postgresql_url}&application_name=mine")

    assert rows(engine, "SHOW application_name")[0][0] == "mine"
    engine.dispose()


def test_a_job_runs_under_any_settings_of_the_database(odd_url: str) -> None:
    engine = open_engine(odd_url)
    mine = worker(engine)
    (accepted,) = accept_all(engine, entry(job(custom_id=TEXT, not_before="2020-01-02T03:04:05Z")))
    claimed = claim_one(engine, mine, str(accepted.job_id))
    assert claimed is not None
    assert write(engine, completed(claimed)) == [True]

    row = one(engine, "SELECT * FROM jobs_v1")
    read = Afterword(database=odd_url).get(str(accepted.job_id))

    assert (row.custom_id, row.not_before.isoformat()) == (TEXT, "2020-01-02T03:04:05+00:00")
    assert read is not None
    assert (read.status, read.custom_id) == ("completed", TEXT)
    assert read.finished_at is not None
    assert read.finished_at.astimezone(UTC) == row.finished_at
    engine.dispose()


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_that_cannot_hold_every_character_is_refused_before_the_first_table(
    postgres_url: str, encoding: str
) -> None:
    for url in made(postgres_url, f"ENCODING '{encoding}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"):
        engine = open_engine(url)
        with pytest.raises(UnusableDatabase, match=f"has the encoding {encoding}.*ENCODING 'UTF8'"):
            migrate.upgrade(engine)
        engine.dispose()


@pytest.mark.parametrize("kind", ["postgresql", "sqlite"])
def test_four_migrations_at_once_are_one(request: pytest.FixtureRequest, kind: str) -> None:
    url = (
        request.getfixturevalue("fresh")
        if kind == "postgresql"
        else f"sqlite:///{request.getfixturevalue('tmp_path')}/a.db"
    )
    # Alembic has one context per process, so each run gets its own process.
    environment = child_environment({"AFTERWORD_DATABASE_URL": url})
    command = [sys.executable, "-m", "worker.cli", "db", "upgrade"]
    runs = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(4)
    ]
    said = [run.communicate(timeout=100)[0] for run in runs]

    assert [run.returncode for run in runs] == [0] * 4, said
    engine = open_engine(url)
    assert version.current(engine) == version.known()[-1]
    engine.dispose()


def test_a_migration_runs_in_a_schema_that_was_given(fresh: str) -> None:
    role = f"given_{uuid.uuid4().hex[:8]}"
    address = make_url(fresh)
    execute(
        fresh,
        f"CREATE ROLE {role} LOGIN",
        f'REVOKE ALL ON DATABASE "{address.database}" FROM PUBLIC',
        f'GRANT CONNECT ON DATABASE "{address.database}" TO {role}',
        f"CREATE SCHEMA jobs AUTHORIZATION {role}",
    )
    engine = open_engine(address.set(username=role).render_as_string(hide_password=False), schema="jobs")

    for _ in range(2):
        migrate.upgrade(engine, schema="jobs")

    assert version.current(engine, schema="jobs") == version.known()[-1]
    migrate.downgrade(engine, schema="jobs")
    engine.dispose()
    execute(fresh, f"DROP OWNED BY {role} CASCADE", f"DROP ROLE {role}")


def test_a_migration_waits_for_another_longer_than_any_limit_for_statements(fresh: str) -> None:
    execute(fresh, f"ALTER DATABASE \"{make_url(fresh).database}\" SET statement_timeout = '300ms'")
    engine, other = open_engine(fresh), open_engine(fresh, reading=True)
    waited = (
        "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'"
        " AND query_start < clock_timestamp() - interval '1 s'"
    )
    with other.connect() as first, ThreadPoolExecutor(1) as threads:
        first.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": int.from_bytes(b"afterwrd")})
        migration = threads.submit(migrate.upgrade, engine)
        until(lambda: rows(other, waited) or migration.done(), what="the migration waits for the lock")
        first.rollback()
        migration.result(30)

    assert version.current(engine) == version.known()[-1]
    for each in (engine, other):
        each.dispose()


@pytest.mark.parametrize(
    ("change", "hopeless"),
    [
        ({"database": "no_such"}, True),
        ({"username": "no_such"}, True),
        ({"query": {"host": "no-such-host.invalid"}}, True),
        ({"query": {"host": "127.0.0.1", "port": "1", "options": "-cno_such=1"}}, False),
        ({"query": {"host": "127.0.0.1", "port": "1"}}, False),
        # One of the hosts may only be down.
        ({"query": {"host": "no-such-host.invalid,127.0.0.1", "port": "1,1"}}, False),
        ({"query": {"host": "/nonexistent"}}, False),
    ],
)
def test_a_wrong_name_is_distinguished_from_a_server_that_is_down(
    postgresql_url: str, change: dict[str, object], hopeless: bool
) -> None:
    engine = open_engine(make_url(postgresql_url).set(**change).render_as_string(hide_password=False))  # type: ignore[arg-type]

    with pytest.raises(DBAPIError) as caught:
        engine.connect()

    assert is_hopeless(caught.value) is hopeless, caught.value
    engine.dispose()


def test_a_missing_folder_is_distinguished_from_a_full_disk(tmp_path: object) -> None:
    engine: Engine = open_engine(f"sqlite:///{tmp_path}/away/a.db")

    with pytest.raises(DBAPIError) as caught:
        engine.connect()

    assert is_hopeless(caught.value)
    engine.dispose()
