"""The upgrade contract: the database names the releases that it serves, and migrations honour it."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, inspect, text

from tests.cli.conftest import Command, afterword, run
from tests.pool.workers import until
from tests.release_before import NUMBER
from tests.store.made import one, rows, worker
from tests.store.statements import WAITS_FOR_A_LOCK
from worker.store import leases, migrate, version
from worker.store.engine import UnusableDatabase, open_engine

__all__ = ["afterword", "run"]
LATER = "9999"
# A migration of a later release may do this once no worker needs the column.
CONTRACTS = f"""
from alembic import op
revision, down_revision = "{LATER}", "{version.newest()}"

def upgrade() -> None:
    op.execute("UPDATE afterword_contract SET serves_from = '{LATER}'")
    op.drop_column("afterword_endpoints", "sick_jobs")
"""


def set_revision(engine: Engine, revision: str) -> None:
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE {version.VERSION_TABLE} SET version_num = :one"), {"one": revision})


def serve_from(engine: Engine, release: str) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE afterword_contract SET serves_from = :one"), {"one": release})


# The contract in the database.


def test_the_database_serves_the_release_before(engine: Engine) -> None:
    assert one(engine, "SELECT serves_from FROM afterword_contract").serves_from <= NUMBER


def test_a_release_works_on_its_own_schema_and_on_a_later_one_that_serves_it(engine: Engine) -> None:
    assert version.fault(engine) is None
    set_revision(engine, LATER)
    assert version.fault(engine) is None


def test_a_release_refuses_an_older_schema_and_says_the_remedy(engine: Engine) -> None:
    migrate.downgrade(engine, revision=NUMBER)

    assert version.fault(engine) == (
        f"the database is at migration {NUMBER}, this release needs {version.newest()}; run: afterword db upgrade"
    )


def test_a_release_refuses_a_schema_that_does_not_serve_it_and_says_the_remedy(engine: Engine) -> None:
    set_revision(engine, LATER)
    serve_from(engine, LATER)

    assert version.fault(engine) == (
        f"the database serves releases from migration {LATER} on, this release ends at migration {version.newest()}; "
        "install a newer release of Afterword"
    )


def test_commands_refuse_a_schema_that_does_not_serve_them_and_doctor_says_so(run: Command, engine: Engine) -> None:
    set_revision(engine, LATER)
    serve_from(engine, LATER)

    for command in (["jobs"], ["verify"], ["db", "upgrade"], ["endpoints", "list"]):
        refused = run(*command)
        assert (refused.exit_code, refused.stderr) == (1, f"Error: {version.unserved_fault(LATER)}\n"), command
    assert f"failed  database  {engine.dialect.name}: {version.unserved_fault(LATER)}" in run("doctor").stdout


def test_commands_work_on_a_later_schema_that_serves_them(run: Command, engine: Engine) -> None:
    set_revision(engine, LATER)

    upgraded = run("db", "upgrade")
    assert (upgraded.exit_code, upgraded.stdout) == (
        0,
        f"the database is at {LATER} of a newer release and serves this one; nothing to do\n",
    )
    assert run("jobs").stdout == "no jobs\n"
    found = run("doctor").stdout
    assert f"warning database  {engine.dialect.name}, at migration {LATER} of a newer release" in found
    assert "ok      delivered" in found


# A migration that ends the service of a release.


@pytest.fixture
def later(postgres_url: str, sqlite_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Use the migrations of a later release that removes a column; all test templates were made before."""
    scripts = tmp_path / "migrations"
    shutil.copytree(version.scripts(), scripts, ignore=shutil.ignore_patterns("__pycache__"))
    (scripts / "versions" / f"{LATER}_contracts.py").write_text(CONTRACTS)
    monkeypatch.setattr(migrate, "scripts", lambda: scripts)
    yield


def columns(engine: Engine) -> set[str]:
    return {column["name"] for column in inspect(engine).get_columns("afterword_endpoints")}


@pytest.mark.usefixtures("later")
@pytest.mark.parametrize("release", [None, version.newest()], ids=["the release before", "this release"])
def test_a_contracting_migration_waits_until_no_worker_needs_the_removed_column(
    engine: Engine, release: str | None
) -> None:
    lives = worker(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE afterword_workers SET release = :release"), {"release": release})

    with pytest.raises(UnusableDatabase, match="workers of older ones run: test; stop them and repeat this"):
        migrate.upgrade(engine)

    assert (version.fault(engine), "sick_jobs" in columns(engine)) == (None, True)
    with engine.begin() as connection:
        leases.resign(connection, lives)
    migrate.upgrade(engine)
    assert (version.fault(engine), "sick_jobs" in columns(engine)) == (version.unserved_fault(LATER), False)


@pytest.mark.usefixtures("later")
def test_workers_whose_lease_has_ended_do_not_hold_a_migration_up(engine: Engine) -> None:
    worker(engine, lease_s=-1.0)

    migrate.upgrade(engine)

    assert version.fault(engine) == version.unserved_fault(LATER)


def test_an_upgrade_that_another_transaction_was_in_the_way_of_is_done_again(postgresql_url: str) -> None:
    engine = open_engine(postgresql_url)
    migrate.downgrade(engine, revision=NUMBER)
    with engine.connect() as busy, ThreadPoolExecutor(1) as pool:
        busy.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        busy.execute(text("LOCK TABLE afterword_workers IN ROW EXCLUSIVE MODE"))
        upgraded = pool.submit(migrate.upgrade, engine)
        until(lambda: rows(engine, WAITS_FOR_A_LOCK), what="the upgrade waits")
        until(lambda: not rows(engine, WAITS_FOR_A_LOCK), what="the upgrade gives up after its lock timeout")
        assert not upgraded.done()
        busy.rollback()
        upgraded.result(60)

    assert version.fault(engine) is None
    engine.dispose()


# Migrations only expand.


def schema_of(engine: Engine) -> dict[str, dict[str, Any]]:
    """Return the columns of every table and view of ours."""
    looker = inspect(engine)
    names = [name for name in looker.get_table_names() if name.startswith("afterword_")] + looker.get_view_names()
    return {name: {str(column["name"]): column for column in looker.get_columns(name)} for name in names}


def unique_of(engine: Engine) -> dict[str, set[tuple[str, ...]]]:
    """Return the unique column sets of each table."""
    looker = inspect(engine)
    return {
        name: {
            *(tuple(one["column_names"]) for one in looker.get_unique_constraints(name)),
            *(tuple(map(str, one["column_names"])) for one in looker.get_indexes(name) if one["unique"]),
        }
        for name in looker.get_table_names()
        if name.startswith("afterword_")
    }


def narrowed(before: dict[str, dict[str, Any]], after: dict[str, dict[str, Any]]) -> list[str]:
    """Return what code written for schema `before` would miss in `after`, and the new columns that refuse its rows."""
    found = [name for name in before if name not in after]
    for name in before.keys() & after.keys():
        old, new = before[name], after[name]
        found += [f"{name}.{column} is gone" for column in old if column not in new]
        for column in old.keys() & new.keys():
            if repr(old[column]["type"]) != repr(new[column]["type"]):
                found.append(f"{name}.{column} has another type")
            if old[column]["nullable"] and not new[column]["nullable"]:
                found.append(f"{name}.{column} must now be given")
            if old[column]["default"] is not None and new[column]["default"] is None:
                found.append(f"{name}.{column} has no default any more")
        for column in new.keys() - old.keys():
            if not new[column]["nullable"] and new[column]["default"] is None:
                found.append(f"{name}.{column} is new and must be given")
    return found


# SQLAlchemy reports only the name of an index on an expression; none of these is unique.
@pytest.mark.filterwarnings("ignore:Skipped unsupported reflection of expression-based index")
def test_every_migration_since_the_release_before_only_expands(engine: Engine) -> None:
    migrate.downgrade(engine, revision=NUMBER)
    before, unique_before = schema_of(engine), unique_of(engine)

    for revision in [later for later in version.known_revisions() if later > NUMBER]:
        migrate.upgrade(engine, revision=revision)
        after, unique_after = schema_of(engine), unique_of(engine)
        assert narrowed(before, after) == [], revision
        for name in unique_before:
            new = set(after[name]) - set(before[name])
            assert all(set(one) & new for one in unique_after[name] - unique_before[name]), (revision, name)
        before, unique_before = after, unique_after


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("ALTER TABLE afterword_endpoints DROP COLUMN sick_jobs", ["afterword_endpoints.sick_jobs is gone"]),
        ("DROP VIEW usage_v1", ["usage_v1"]),
        ("DROP TABLE afterword_recoveries", ["afterword_recoveries"]),
        (
            "ALTER TABLE afterword_leaders RENAME COLUMN lease_until TO until",
            ["afterword_leaders.lease_until is gone", "afterword_leaders.until is new and must be given"],
        ),
    ],
)
def test_the_comparison_finds_narrowing_changes(engine: Engine, statement: str, says: list[str]) -> None:
    before = schema_of(engine)
    with engine.begin() as connection:
        connection.execute(text(statement))

    assert narrowed(before, schema_of(engine)) == says
