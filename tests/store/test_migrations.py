"""Migrations make the schema of the tables, up and down, and leave foreign tables alone."""

import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, inspect, text

from tests.jobs.store.attempts import completed, started, write
from tests.store.made import accept_all, entry, rows, worker
from tests.store.receiving import receiver
from worker.jobs.store import endpoints
from worker.store import migrate, version
from worker.store.engine import open_engine
from worker.store.tables import VIEW_INDEXES
from worker.webhooks.store.tables import metadata

ROOT = Path(__file__).parents[2]


# SQLAlchemy's warning about an index on an expression in SQLite.
no_expressions = pytest.mark.filterwarnings("ignore:Skipped unsupported reflection of expression-based index")


def ours(name: str | None, kind: str, parents: object) -> bool:
    if kind == "index":
        return not (name or "").startswith(VIEW_INDEXES)
    return kind != "table" or (name or "").startswith("afterword_")


@no_expressions
def test_the_migrated_schema_equals_the_tables(engine: Engine) -> None:
    with engine.connect() as connection:
        options = {"compare_type": True, "include_name": ours, "version_table": version.VERSION_TABLE}
        context = MigrationContext.configure(connection, opts=options)

        assert compare_metadata(context, metadata) == []


@no_expressions
def test_the_migrated_constraints_equal_the_tables(engine: Engine) -> None:
    looker = inspect(engine)
    for table in metadata.sorted_tables:
        wanted = {str(c.name) for c in table.constraints if type(c).__name__ == "CheckConstraint"}
        found = {str(check["name"]) for check in looker.get_check_constraints(table.name)}
        assert found == wanted, table.name
        indexes = {index["name"] for index in looker.get_indexes(table.name) if "duplicates_constraint" not in index}
        tables_own = {name for name in indexes if not str(name).startswith(VIEW_INDEXES)}
        assert tables_own == {index.name for index in table.indexes}, table.name


def test_going_down_leaves_nothing_of_ours_and_going_up_again_works(engine: Engine) -> None:
    migrate.downgrade(engine)

    looker = inspect(engine)
    assert [name for name in looker.get_table_names() if name != version.VERSION_TABLE] == []
    assert looker.get_view_names() == []
    migrate.upgrade(engine)
    assert version.state(engine)[0] == version.state(engine)[1]


def test_another_applications_tables_are_left_alone(engine: Engine) -> None:
    migrate.downgrade(engine)
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE afterword_alembic_version"))
        connection.execute(text("CREATE TABLE jobs (id integer PRIMARY KEY, status text)"))
        connection.execute(text("INSERT INTO jobs VALUES (1, 'theirs')"))
        connection.execute(text("CREATE TABLE alembic_version (version_num varchar(32) NOT NULL)"))
        connection.execute(text("INSERT INTO alembic_version VALUES ('their_revision')"))

    migrate.upgrade(engine)
    migrate.downgrade(engine)

    with engine.connect() as connection:
        assert connection.execute(text("SELECT id, status FROM jobs")).all() == [(1, "theirs")]
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar() == "their_revision"


def test_everything_fits_into_a_schema_of_its_own(postgresql_url: str) -> None:
    plain = open_engine(postgresql_url)
    migrate.downgrade(plain)

    migrate.upgrade(plain, schema="after words")

    looker = inspect(plain)
    assert set(looker.get_table_names("after words")) == {t.name for t in metadata.sorted_tables} | {
        version.VERSION_TABLE
    }
    assert looker.get_table_names("public") == [version.VERSION_TABLE]
    assert version.state(plain, schema="after words")[0] == version.known()[-1]
    migrate.downgrade(plain, schema="after words")
    plain.dispose()


@pytest.mark.parametrize("command", [["upgrade", "head"], ["check"], ["current"]])
def test_alembic_works_from_the_root_without_an_ini_file(database_url: str, command: list[str]) -> None:
    environment = {**os.environ, "AFTERWORD_DATABASE_URL": database_url}

    ended = subprocess.run(
        [sys.executable, "-m", "alembic", *command], cwd=ROOT, env=environment, capture_output=True, text=True
    )

    assert ended.returncode == 0, ended.stderr


def test_the_downgrade_of_every_migration_undoes_its_upgrade(engine: Engine) -> None:
    before = sorted(inspect(engine).get_table_names())

    migrate.downgrade(engine, revision="base")
    migrate.upgrade(engine, revision="head")

    assert sorted(inspect(engine).get_table_names()) == before


def test_jobs_outlive_every_step_down_and_up_again(engine: Engine) -> None:
    mine = worker(engine)
    receiver(engine)
    claim = started(engine, mine, webhook={"to": "billing"})
    write(engine, completed(claim))
    (waits,) = accept_all(engine, entry())
    assert waits.job_id
    with engine.begin() as connection:
        endpoints.pause(connection, "default")
        connection.execute(text("INSERT INTO cancel_v1 (id) VALUES (:id)"), {"id": waits.job_id})

    for revision in reversed(version.known()[:-1]):
        migrate.downgrade(engine, revision=revision)
        assert statuses(engine) == {claim.job_id: "completed", waits.job_id: "cancelled"}, revision
    for revision in version.known()[1:]:
        migrate.upgrade(engine, revision=revision)
        assert statuses(engine) == {claim.job_id: "completed", waits.job_id: "cancelled"}, revision


def test_an_unreadable_instant_is_moved_to_a_readable_one(engine: Engine) -> None:
    accept_all(engine, entry())
    migrate.downgrade(engine, revision="0005")
    far = "'10000-01-01 00:00:00+00'" if engine.dialect.name == "postgresql" else "253402300800000000"
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE afterword_jobs SET deadline = {far}"))

    migrate.upgrade(engine)

    (row,) = rows(engine, "SELECT deadline, not_before FROM jobs_v1")
    assert (str(row.deadline)[:10], row.not_before) == ("9999-12-31", None)


def statuses(engine: Engine) -> dict[str, str]:
    return {str(row.id): row.status for row in rows(engine, "SELECT id, status FROM jobs_v1")}


def test_the_columns_that_views_gain_cost_no_reader_its_rights(postgresql_url: str) -> None:
    engine = open_engine(postgresql_url)
    migrate.downgrade(engine, revision="0007")
    reader = f"reader_{uuid.uuid4().hex}"
    with engine.begin() as connection:
        connection.execute(text(f"CREATE ROLE {reader}"))
        connection.execute(text(f"GRANT SELECT ON jobs_v1, finished_v1 TO {reader}"))

    migrate.upgrade(engine)

    with engine.begin() as connection:
        for view in ("jobs_v1", "finished_v1"):
            may = text("SELECT has_table_privilege(:reader, :view, 'SELECT')")
            assert connection.execute(may, {"reader": reader, "view": view}).scalar()
        connection.execute(text(f"DROP OWNED BY {reader}"))
        connection.execute(text(f"DROP ROLE {reader}"))
    engine.dispose()
