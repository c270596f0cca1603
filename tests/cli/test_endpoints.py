"""endpoints list, pause, resume: against a running stack, and against a database alone."""

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, insert

from tests.cli.conftest import Command
from tests.pool.workers import until
from tests.store.made import accept_all, entry, one
from worker.core.health import Cause, State
from worker.dev.stack import Stack
from worker.store.clock import from_now
from worker.store.tables import endpoints as table


@pytest.fixture
def alone(database_url: str) -> dict[str, str]:
    """A database without a worker, and one endpoint in the settings."""
    return {"AFTERWORD_DATABASE_URL": database_url, "AFTERWORD_ENDPOINT_URL": "http://127.0.0.1:9"}


def listed(afterword: Command, settings: dict[str, str]) -> dict[str, Any]:
    rows = json.loads(afterword("endpoints", "list", "--json", settings=settings).stdout)
    return {row["name"]: row for row in rows}


def resting(engine: Engine, cause: Cause) -> None:
    with engine.begin() as connection:
        row = {"name": "default", "state": State.paused, "cause": cause, "reason": "unauthorized"}
        connection.execute(insert(table).values(**row, since=from_now(-60.0), probe_at=from_now(3.0)))


def test_a_paused_endpoint_starts_nothing_until_it_is_resumed(afterword: Command, stack: Stack) -> None:
    settings = stack.exports()
    assert "afterword endpoints resume default" in afterword("endpoints", "pause", "default", settings=settings).stdout
    try:
        job_id = afterword("submit", "--model", "fake-echo", "--message", "x", settings=settings).stdout.strip()
        until(lambda: listed(afterword, settings)["default"]["queued"] == 1, what="the job is queued")
        job = json.loads(afterword("status", job_id, "--json").stdout)
        assert (job["status"], job["waiting_for"], job["attempts"]) == ("queued", "endpoint_paused", 0)
        row = listed(afterword, settings)["default"]
        assert (row["state"], row["cause"], row["next_probe"]) == ("paused", "operator", None)
    finally:
        resumed = afterword("endpoints", "resume", "default", settings=settings)

    assert resumed.stdout == "default is open\n"
    assert afterword("wait", job_id, "--timeout", "30").exit_code == 0


def test_the_list_says_why_an_endpoint_rests(afterword: Command, engine: Engine, alone: dict[str, str]) -> None:
    accept_all(engine, entry())
    resting(engine, Cause.trouble)

    row = listed(afterword, alone)["default"]
    text = afterword("endpoints", "list").stdout

    assert (row["state"], row["cause"], row["reason"], row["queued"], row["in_progress"]) == (
        "paused", "trouble", "unauthorized", 1, 0,
    )  # fmt: skip
    assert row["since"] < row["next_probe"]
    assert text.splitlines()[0].split() == [
        "name", "state", "cause", "reason", "since", "next_probe", "queued", "in_progress",
    ]  # fmt: skip
    assert "default  paused  trouble  unauthorized" in text


def test_an_endpoint_nobody_used_yet_is_listed_as_open(afterword: Command, alone: dict[str, str]) -> None:
    row = listed(afterword, alone)["default"]

    assert (row["state"], row["since"], row["queued"], row["configured"]) == ("open", None, 0, True)


@pytest.mark.parametrize("cause", list(Cause))
def test_resume_opens_at_once_whoever_paused_it(
    afterword: Command, engine: Engine, alone: dict[str, str], cause: Cause
) -> None:
    resting(engine, cause)

    first = afterword("endpoints", "resume", "default", "--json", settings=alone)

    assert json.loads(first.stdout) == {"name": "default", "state": "open"}
    assert one(engine, "SELECT state FROM afterword_endpoints").state == "open"
    assert afterword("endpoints", "resume", "default").stdout == "default is open already\n"


@pytest.mark.parametrize("command", ["pause", "resume"])
def test_a_name_nobody_knows_is_a_sentence(afterword: Command, alone: dict[str, str], command: str) -> None:
    result = afterword("endpoints", command, "defualt", settings=alone)

    assert result.exit_code == 1
    assert "no endpoint 'defualt' is configured here or known to the database; known: default" in result.stderr


@pytest.mark.parametrize("order", ["pause", "resume"])
def test_a_database_without_our_tables_is_said_to_need_an_upgrade(
    afterword: Command, tmp_path: Path, order: str
) -> None:
    settings = {
        "AFTERWORD_DATABASE_URL": f"sqlite:///{tmp_path}/new.db",
        "AFTERWORD_ENDPOINT_URL": "http://127.0.0.1:9",
        "AFTERWORD_ENDPOINT_KEY": "k",
    }

    result = afterword("endpoints", order, "default", settings=settings)

    assert result.exit_code == 1
    assert "run: afterword db upgrade" in result.stderr
