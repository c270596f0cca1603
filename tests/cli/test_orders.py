"""cancel, replay, jobs update: one job or all jobs of a filter, on a database without a worker."""

import json
import uuid

import pytest
from sqlalchemy import Engine

from afterword import Afterword
from tests.cli.conftest import Command
from tests.jobs.store.attempts import completed, started, write
from tests.jobs.store.orders import accepted, fail
from tests.store.made import accept_all, entry, job, one, rows, worker


@pytest.fixture
def settings(database_url: str) -> dict[str, str]:
    return {"AFTERWORD_DATABASE_URL": database_url}


def test_jobs_are_cancelled_by_their_ids(afterword: Command, settings: dict[str, str], engine: Engine) -> None:
    waiting, running, unknown = accepted(engine), started(engine, worker(engine)).job_id, str(uuid.uuid4())

    result = afterword("cancel", waiting, running, unknown, settings=settings)

    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        f"{waiting} cancelled",
        f"{running} in_progress; its call is ended within two seconds",
        f"{unknown} no worker has accepted it yet; it will be cancelled at acceptance",
    ]


def test_a_cancellation_that_came_too_late_has_a_code(
    afterword: Command, settings: dict[str, str], engine: Engine
) -> None:
    ended = started(engine, worker(engine))
    write(engine, completed(ended))

    assert afterword("cancel", ended.job_id, settings=settings).stdout == f"{ended.job_id} completed; too late\n"
    result = afterword("cancel", ended.job_id, "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (3, [{"id": ended.job_id, "status": "completed"}])


def test_jobs_are_replayed_by_their_ids_and_each_that_cannot_be_says_why(
    afterword: Command, settings: dict[str, str], engine: Engine
) -> None:
    failed, running, unknown = accepted(engine), started(engine, worker(engine)).job_id, str(uuid.uuid4())
    fail(engine, failed)

    result = afterword("replay", failed, running, unknown, settings=settings)

    assert result.exit_code == 3
    assert result.stdout == f"{failed} queued\n"
    assert f"job {running} cannot be replayed: it is running; cancel it first" in result.stderr
    assert f"{unknown} no worker has accepted it yet" in result.stderr
    assert [found["status"] for found in json.loads(afterword("replay", failed, running, "--json").stdout)] == [
        "queued", None,
    ]  # fmt: skip


def test_a_dry_run_shows_the_effect_on_each_id_and_changes_nothing(
    afterword: Command, settings: dict[str, str], engine: Engine
) -> None:
    mine, unknown, refused = worker(engine), str(uuid.uuid4()), str(uuid.uuid4())
    waiting, running, failed, done = (
        accepted(engine),
        started(engine, mine).job_id,
        accepted(engine),
        started(engine, mine),
    )
    accept_all(engine, entry({"request": {"model": "m"}}, id=refused))
    fail(engine, failed)
    write(engine, completed(done))
    ids = [waiting, running, failed, done.job_id, refused, unknown]
    before = rows(engine, "SELECT * FROM afterword_jobs ORDER BY id")

    cancelled = afterword("cancel", *ids, "--dry-run", "--json", settings=settings)
    replayed = afterword("replay", *ids, "--dry-run", "--json")
    dry_runs = afterword("cancel", waiting, running, unknown, "--dry-run"), afterword("replay", failed, "--dry-run")

    assert rows(engine, "SELECT * FROM afterword_jobs ORDER BY id") == before
    assert rows(engine, "SELECT id FROM cancel_v1") == []
    assert dry_runs[0].stdout.splitlines() == [
        f"{waiting} would be cancelled",
        f"{running} in_progress; its call would be ended within two seconds",
        f"{unknown} no worker has accepted it yet; it would be cancelled at acceptance",
    ]
    assert dry_runs[1].stdout == f"{failed} would be queued\n"
    assert [one.exit_code for one in (cancelled, replayed, *dry_runs)] == [3, 3, 0, 0]
    would = json.loads(cancelled.stdout), json.loads(replayed.stdout)
    assert all(one["dry_run"] is True for one in (*would[0], *would[1]))
    for order, predicted in zip(("cancel", "replay"), would, strict=True):
        if order == "replay":
            afterword("replay", waiting)  # the job is cancelled by now; restore the first state
        real = json.loads(afterword(order, *ids, "--json").stdout)
        assert [one | {"dry_run": True} for one in real] == predicted


def test_a_filter_first_shows_the_number_of_jobs_it_matches(
    afterword: Command, settings: dict[str, str], engine: Engine
) -> None:
    for job_id in [accepted(engine, tenant="t") for _ in range(3)]:
        fail(engine, job_id)
    where = ["--where", "status=failed tenant=t"]

    assert afterword("replay", *where, "--dry-run", settings=settings).stdout == "3 jobs would be queued again\n"
    assert one(engine, "SELECT count(*) FROM jobs_v1 WHERE status = 'failed'")[0] == 3
    assert json.loads(afterword("replay", *where, "--json").stdout) == {"order": "replay", "jobs": 3, "dry_run": False}
    assert afterword("cancel", "--where", "tenant=t", "--dry-run").stdout == "3 jobs would be cancelled\n"
    assert afterword("cancel", "--where", "tenant=t").stdout == "3 jobs cancelled\n"

    assert {row.status for row in rows(engine, "SELECT status FROM jobs_v1")} == {"cancelled"}


def test_a_filter_reaches_jobs_that_no_worker_has_read(
    afterword: Command, settings: dict[str, str], engine: Engine
) -> None:
    accept_all(engine, entry(job(batch="b")))
    with engine.begin() as connection:
        new = Afterword().enqueue(connection, {}, batch="b")
    update = ["jobs", "update", "--where", "batch=b", "--priority", "1"]
    more = "1 more match, but no worker has read them yet; repeat the command later\n"

    listed = json.loads(afterword("jobs", "--batch", "b", "--json", settings=settings).stdout)
    assert new in [row["id"] for row in listed]
    assert afterword(*update, "--dry-run").stdout == f"1 jobs would be changed\n{more}"
    assert afterword(*update).stdout == f"1 jobs changed\n{more}"
    assert json.loads(afterword(*update, "--json").stdout)["unread"] == 1
    assert afterword("cancel", new, "--dry-run").stdout.startswith(f"{new} no worker has accepted it yet")
    assert afterword("cancel", "--where", "batch=b", "--dry-run").stdout == "2 jobs would be cancelled\n"
    assert afterword("cancel", "--where", "batch=b").stdout == "2 jobs cancelled\n"
    assert json.loads(afterword(*update, "--json").stdout) == {
        "order": "update", "jobs": 0, "dry_run": False, "unread": 0,
    }  # fmt: skip


def test_waiting_jobs_change_their_priority_and_deadline(
    afterword: Command, settings: dict[str, str], engine: Engine
) -> None:
    accept_all(engine, entry(job(batch="b")), entry(job(batch="b")), entry())
    changed = ["jobs", "update", "--where", "batch=b", "--priority", "1", "--deadline", "2999-01-01T00:00:00Z"]

    assert afterword(*changed, "--dry-run", settings=settings).stdout == "2 jobs would be changed\n"
    assert afterword(*changed).stdout == "2 jobs changed\n"

    found = rows(engine, "SELECT priority, deadline FROM jobs_v1 WHERE batch = 'b'")
    assert {(row.priority, str(row.deadline)[:4]) for row in found} == {(1, "2999")}
    assert len(json.loads(afterword("jobs", "--status", "queued", "--json").stdout)) == 3
    assert len(json.loads(afterword("jobs", "--json").stdout)) == 3


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["cancel"], "give either the ids of jobs or --where"),
        (["replay", "x", "--where", "status=failed"], "give either the ids of jobs or --where"),
        (["replay", "--where", "state=failed"], "did you mean status?"),
        (["replay", "--where", ""], "the filter is empty"),
        (["jobs", "update", "--where", "batch=b"], "give a new --priority or --deadline"),
        (["jobs", "update", "--priority", "1"], "choose the jobs with --where"),
        (["jobs", "update", "--where", "batch=b", "--deadline", "soon"], "--deadline is 'soon'; write a time"),
    ],
)
def test_an_unclear_command_line_is_refused(
    afterword: Command, sqlite_url: str, arguments: list[str], sentence: str
) -> None:
    result = afterword(*arguments, settings={"AFTERWORD_DATABASE_URL": sqlite_url})

    assert result.exit_code == 2
    assert sentence in " ".join(result.stderr.split())


def test_an_id_that_is_none_is_a_sentence(afterword: Command, sqlite_url: str) -> None:
    settings = {"AFTERWORD_DATABASE_URL": sqlite_url}

    assert "give a UUID" in afterword("cancel", "x", settings=settings).stderr
    assert "give a UUID" in afterword("replay", "x").stderr


def test_an_unmigrated_database_is_a_sentence(afterword: Command, tmp_path: object) -> None:
    result = afterword(
        "replay", "--where", "status=failed", settings={"AFTERWORD_DATABASE_URL": f"sqlite:///{tmp_path}/x.db"}
    )

    assert result.exit_code == 1
    assert "run: afterword db upgrade" in result.stderr
