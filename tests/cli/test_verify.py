"""verify: its messages for a sound and for a broken database."""

import json
from pathlib import Path

import pytest
from sqlalchemy import Engine, delete

from tests.cli.conftest import Command
from tests.jobs.store.attempts import started
from tests.store.made import accept_all, entry, worker
from worker.store import migrate, version
from worker.store.engine import open_engine
from worker.store.tables import requests, workers


def test_a_sound_database_is_called_sound(afterword: Command, database_url: str, engine: Engine) -> None:
    accept_all(engine, entry(), entry())

    result = afterword("verify", settings={"AFTERWORD_DATABASE_URL": database_url})

    assert result.exit_code == 0
    assert result.stdout.startswith("2 jobs; all ")


def test_a_broken_rule_is_named_with_its_jobs(afterword: Command, database_url: str, engine: Engine) -> None:
    kept, lost = entry(), entry()
    accept_all(engine, kept, lost)
    with engine.begin() as connection:
        connection.execute(delete(requests).where(requests.c.job_id == lost.job.id))

    result = afterword("verify", settings={"AFTERWORD_DATABASE_URL": database_url})
    script = afterword("verify", "--json")

    assert (result.exit_code, script.exit_code) == (1, 1)
    assert f"request_is_kept: 1. Every job has its request.\n  {lost.job.id}  status is queued\n" in result.stdout
    report = json.loads(script.stdout)
    assert (report["ok"], report["jobs"]) == (False, 2)
    (found,) = [one for one in report["checks"] if one["broken"]]
    assert (found["name"], found["first"]) == ("request_is_kept", [[lost.job.id, "status is queued"]])


def test_a_job_whose_worker_is_gone_is_named_after_the_grace(
    afterword: Command, database_url: str, engine: Engine
) -> None:
    claimed = started(engine, worker(engine))
    with engine.begin() as connection:
        connection.execute(delete(workers))

    result = afterword("verify", "--grace", "0", settings={"AFTERWORD_DATABASE_URL": database_url})

    assert result.exit_code == 1
    assert f"holder_lives: 1. The worker of a job in progress has a valid lease.\n  {claimed.job_id}" in (result.stdout)


ID = "018f4a5e-7c1b-7d2e-9a53-0242ac120002"
LOOKING = [
    ["verify"], ["jobs"], ["status", ID], ["wait", ID], ["cancel", ID], ["replay", ID], ["endpoints", "list"],
    ["dead-letters", "list"], ["dead-letters", "show", "1"],
]  # fmt: skip


@pytest.mark.parametrize("command", LOOKING, ids=" ".join)
def test_a_database_without_our_tables_is_a_sentence(afterword: Command, tmp_path: Path, command: list[str]) -> None:
    result = afterword(*command, settings={"AFTERWORD_DATABASE_URL": f"sqlite:///{tmp_path}/empty.db"})

    assert result.exit_code == 1
    assert result.stderr == "Error: the database has no tables of Afterword yet; run: afterword db upgrade\n"


@pytest.mark.parametrize("command", LOOKING, ids=" ".join)
def test_a_database_of_an_older_release_is_a_sentence(afterword: Command, sqlite_url: str, command: list[str]) -> None:
    engine = open_engine(sqlite_url)
    migrate.downgrade(engine, revision="0001")
    engine.dispose()

    result = afterword(*command, settings={"AFTERWORD_DATABASE_URL": sqlite_url})

    assert result.exit_code == 1
    assert result.stderr == (
        f"Error: the database is at migration 0001, this release needs {version.known()[-1]}; "
        "run: afterword db upgrade\n"
    )


def test_dead_letters_are_looked_at_while_another_writes(afterword: Command, sqlite_url: str) -> None:
    engine = open_engine(sqlite_url)
    with engine.begin() as connection:  # holds SQLite's only write lock
        connection.execute(delete(workers))

        result = afterword("dead-letters", "list", settings={"AFTERWORD_DATABASE_URL": sqlite_url})

    assert (result.exit_code, result.stdout) == (0, "no dead letters\n")
    engine.dispose()
