"""endpoints list, pause, resume: on a running stack, and on a database alone."""

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, insert, update

from tests.cli.conftest import Command
from tests.jobs.store.attempts import attempt_record, write
from tests.pool.workers import until
from tests.store.made import accept_all, claim_one, entry, job, one, worker
from worker.core.failure import ErrorCode, failure
from worker.core.lifecycle import HOLD, Outcome
from worker.dev.fake_endpoint import FakeEndpoint
from worker.dev.stack import Stack
from worker.jobs.core.endpoint_health import Cause, State
from worker.store.clock import from_now
from worker.store.tables import endpoints as table
from worker.store.tables import jobs


@pytest.fixture
def alone(database_url: str) -> dict[str, str]:
    """Return settings with a database without a worker, and one endpoint."""
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
        until(lambda: listed(afterword, settings)["default"]["queued"] == 1, what="the queued job")
        job = json.loads(afterword("status", job_id, "--json").stdout)
        assert (job["status"], job["waiting_for"], job["attempts"]) == ("queued", "endpoint_paused", 0)
        row = listed(afterword, settings)["default"]
        assert (row["state"], row["cause"], row["next_probe"]) == ("paused", "operator", None)
    finally:
        resumed = afterword("endpoints", "resume", "default", settings=settings)

    assert resumed.stdout == "default is open\n"
    assert afterword("wait", job_id, "--timeout", "30").exit_code == 0


def test_the_list_gives_the_reason_of_a_pause(afterword: Command, engine: Engine, alone: dict[str, str]) -> None:
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
    assert f"default: paused by trouble since {row['since']}: unauthorized: The endpoint refused our key" in text


def test_the_list_quotes_the_failure_of_the_latest_probe(
    afterword: Command, engine: Engine, alone: dict[str, str]
) -> None:
    (accepted,) = accept_all(engine, entry())
    resting(engine, Cause.trouble)
    with engine.begin() as connection:
        connection.execute(update(jobs).values(error_message="Inside its answer: the quota is used up."))
        connection.execute(update(table).values(reason="provider_error", probe_job=accepted.job_id))

    text = afterword("endpoints", "list", settings=alone).stdout

    assert "provider_error: Inside its answer: the quota is used up. next try" in text


def held_alone(engine: Engine, *, attempts: int = 7, answered_ago_s: float | None = None) -> str:
    """Return a job that has failed `attempts` times, alone at an open endpoint; it waits a minute."""
    mine = worker(engine)
    (accepted,) = accept_all(engine, entry(job()))
    job_id = str(accepted.job_id)
    error = {"error_code": "unauthorized", "error_message": failure(ErrorCode.unauthorized).message, "error": None}
    for _ in range(attempts):
        claimed = claim_one(engine, mine, job_id)
        assert claimed is not None
        held = attempt_record(
            claimed, HOLD, Outcome.failed, counts=False, waiting_for="endpoint_paused", **error, answer=None
        )
        write(engine, held)
    suspicion = {"suspect_job": job_id, "suspect_at": from_now(-30.0), "troubled_at": from_now(-90.0)}
    alive_at = None if answered_ago_s is None else from_now(-answered_ago_s)
    row = {"name": "default", "state": State.open, "since": from_now(-120.0), "alive_at": alive_at, **suspicion}
    with engine.begin() as connection:
        connection.execute(insert(table).values(row))
        connection.execute(update(jobs).where(jobs.c.id == job_id).values(run_at=from_now(60.0)))
    return job_id


def test_an_open_endpoint_whose_only_job_meets_trouble_is_listed_with_the_cause(
    afterword: Command, engine: Engine, alone: dict[str, str]
) -> None:
    job_id = held_alone(engine)

    row = listed(afterword, alone)["default"]
    text = afterword("endpoints", "list").stdout

    assert (row["state"], row["cause"], row["reason"], row["suspect_job"]) == (
        "open", "trouble", "unauthorized", job_id,
    )  # fmt: skip
    assert row["since"] < row["next_probe"]
    assert f"default: open, but job {job_id} meets trouble since {row['since']}" in text
    assert f"unauthorized: The endpoint refused our key; check or renew it. next try {row['next_probe']}" in text


@pytest.mark.parametrize("over", ["another was answered", "the job has ended"])
def test_trouble_that_is_over_is_not_listed(
    afterword: Command, engine: Engine, alone: dict[str, str], over: str
) -> None:
    job_id = held_alone(engine, answered_ago_s=1.0 if over == "another was answered" else None)
    if over == "the job has ended":
        afterword("cancel", job_id, settings=alone)

    row = listed(afterword, alone)["default"]

    assert (row["state"], row["cause"], row["reason"], row["suspect_job"]) == ("open", None, None, None)


def test_a_doctor_does_not_find_an_endpoint_well_that_refuses_our_only_job(
    afterword: Command, engine: Engine, alone: dict[str, str]
) -> None:
    job_id = held_alone(engine)

    result = afterword("doctor", "--json", settings=alone)

    (found,) = [part for part in json.loads(result.stdout) if part["part"] == "endpoint"]
    assert (result.exit_code, found["state"]) == (1, "failed")
    assert f"open, but job {job_id} meets trouble" in found["text"]
    assert "unauthorized: The endpoint refused our key; check or renew it." in found["text"]
    assert found["text"].endswith("; 1 queued")


@pytest.mark.parametrize(
    ("cause", "state", "said"),
    [
        (Cause.trouble, "failed", "paused by trouble since"),
        (Cause.breaker, "warning", "paused by breaker since"),
        (Cause.operator, "warning", "to end it: afterword endpoints resume default"),
    ],
)
def test_a_doctor_gives_the_reason_of_a_pause(
    afterword: Command, engine: Engine, alone: dict[str, str], cause: Cause, state: str, said: str
) -> None:
    resting(engine, cause)
    with FakeEndpoint() as fake:
        result = afterword("doctor", "--json", settings=alone | {"AFTERWORD_ENDPOINT_URL": fake.url})

    (found,) = [part for part in json.loads(result.stdout) if part["part"] == "endpoint"]
    assert found["state"] == state
    assert said in found["text"]


def test_a_doctor_knows_endpoints_of_other_workers_settings(
    afterword: Command, engine: Engine, alone: dict[str, str]
) -> None:
    resting(engine, Cause.trouble)

    result = afterword("doctor", settings={"AFTERWORD_DATABASE_URL": alone["AFTERWORD_DATABASE_URL"]})

    assert "failed  endpoint  default: not configured here; paused by trouble since" in result.stdout


def test_a_waiting_job_shows_its_reason_and_the_attempts_it_spent(
    afterword: Command, engine: Engine, alone: dict[str, str]
) -> None:
    job_id = held_alone(engine)

    status = json.loads(afterword("status", job_id, "--json", settings=alone).stdout)
    text = afterword("status", job_id).stdout
    (row,) = json.loads(afterword("jobs", "--json").stdout)
    table_of_jobs = afterword("jobs").stdout
    waited = afterword("wait", job_id, "--timeout", "0.1")

    assert (status["attempts"], status["attempts_used"], status["max_attempts"]) == (7, 0, 5)
    assert (row["attempts"], row["attempts_used"], row["waiting_for"]) == (7, 0, "endpoint_paused")
    assert "7, 0 of 5 spent" in text
    assert f"the job waits for endpoint_paused after unauthorized: {failure(ErrorCode.unauthorized).message}" in text
    assert "7, 0 of 5 spent  endpoint_paused" in table_of_jobs
    assert "unauthorized" in table_of_jobs
    assert waited.exit_code == 4
    assert "still queued, waiting for: endpoint_paused (unauthorized: The endpoint refused our key" in waited.stderr
    assert "after 0.1 s" in waited.stderr


def test_a_wait_shows_its_reason_before_it_ends(
    afterword: Command, engine: Engine, alone: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = held_alone(engine)
    monkeypatch.setattr("worker.cli.wait.LOOK_S", 0.05)

    waited = afterword("wait", job_id, "--timeout", "0.3", settings=alone)

    lines = waited.stderr.splitlines()
    assert len(lines) == 2, "each reason is listed once"
    assert lines[0].startswith(f"job {job_id} waits for endpoint_paused after unauthorized: The endpoint refused")
    assert "after 0.3 s" in lines[1]


def test_attempts_that_all_counted_are_a_plain_number(
    afterword: Command, engine: Engine, alone: dict[str, str]
) -> None:
    accept_all(engine, entry())

    assert " 0  slot\n" in afterword("jobs", settings=alone).stdout


def test_an_unused_endpoint_is_listed_as_open(afterword: Command, alone: dict[str, str]) -> None:
    row = listed(afterword, alone)["default"]

    assert (row["state"], row["since"], row["queued"], row["configured"]) == ("open", None, 0, True)


def test_an_endpoint_is_shown_as_it_is_listed(afterword: Command, engine: Engine, alone: dict[str, str]) -> None:
    resting(engine, Cause.trouble)

    row = json.loads(afterword("endpoints", "show", "default", "--json", settings=alone).stdout)
    text = afterword("endpoints", "show", "default").stdout

    assert row == listed(afterword, alone)["default"]
    assert "reason       unauthorized\n" in text
    assert f"default: paused by trouble since {row['since']}: unauthorized: The endpoint refused our key" in text


@pytest.mark.parametrize("cause", list(Cause))
def test_resume_opens_at_once_after_any_pause(
    afterword: Command, engine: Engine, alone: dict[str, str], cause: Cause
) -> None:
    resting(engine, cause)

    first = afterword("endpoints", "resume", "default", "--json", settings=alone)

    assert json.loads(first.stdout) == {"name": "default", "state": "open"}
    assert one(engine, "SELECT state FROM afterword_endpoints").state == "open"
    assert afterword("endpoints", "resume", "default").stdout == "default is open already\n"


@pytest.mark.parametrize("command", ["pause", "resume", "show"])
def test_an_unknown_name_is_a_sentence(afterword: Command, alone: dict[str, str], command: str) -> None:
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
