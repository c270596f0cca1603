"""Old and new together: the release before on today's schema, and a worker that its database does not serve."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from tests.flow.receivers import ALLOWED, register
from tests.flow.system import System, request
from tests.pool.workers import ROOT, until
from tests.release_before import NUMBER, unpack_release
from worker.dev.receiver import WebhookReceiver
from worker.store import migrate, version

SHORT = {"lease_s": 6.0, "beat_s": 0.2, "tick_s": 0.2}
# Together these make an old and a new worker write every kind of row: answers, streams, retries, holds, refusals.
LOAD = ("fake-echo", "fake-echo", "fake-503-once", "fake-400", "fake-429-once", "fake-tools", "fake-cut-once")
RELEASES = "SELECT release, count(*) FROM afterword_workers GROUP BY release ORDER BY release"
LATER = "9999"


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack_release(tmp_path_factory.mktemp("release"))


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as made:
        yield made


def run_before(system: System, packages: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run `afterword …` of the release before."""
    environment = system.environment() | {"PYTHONPATH": str(packages)}
    command = [sys.executable, "-m", "worker.cli", *arguments]
    return subprocess.run(command, cwd=packages, env=environment, capture_output=True, text=True)


def load(system: System, number: int) -> list[str]:
    return [
        system.send(request(model=LOAD[place % len(LOAD)], stream=place % 3 == 0), max_attempts=8)
        for place in range(number)
    ]


def workers_of(system: System, ids: list[str]) -> set[str]:
    rows = system.rows("SELECT job_id, worker FROM attempts_v1")
    return {str(row.worker) for row in rows if str(row.job_id) in set(ids)}


@pytest.mark.timeout(300)
@pytest.mark.xdist_group("release-before")
def test_the_release_before_goes_on_working_on_the_schema_of_today_beside_a_new_worker(
    system: System, before: Path, receiver: WebhookReceiver
) -> None:
    migrate.downgrade(system.engine)
    made = run_before(system, before, "db", "upgrade")
    assert f"the database went from nothing to {NUMBER}" in made.stdout, made.stdout + made.stderr
    receiver.secrets = (register(system.engine, receiver.url, in_flight=100),)
    old = system.start(release=before, **SHORT, **ALLOWED)

    during = load(system, 70)
    until(lambda: len(system.rows("SELECT 1 FROM afterword_finished")) > 10, what="the load")
    # The usual order: migrate the database first, while workers of the release before run.
    migrate.upgrade(system.engine)
    alone = load(system, 35)
    system.await_all(during + alone)
    old_ids = workers_of(system, during + alone)
    new = system.start(**SHORT, **ALLOWED)
    together = load(system, 70)
    system.await_all(together)
    assert {release for release, _ in system.rows(RELEASES)} == {None, version.newest()}
    assert len(workers_of(system, together) - old_ids) == 1, "the new worker ran none of these jobs"
    assert workers_of(system, together) & old_ids, "the worker of the release before ran none of these jobs"

    # The rollback: the new worker stops, the schema stays.
    new.signal(signal.SIGTERM)
    assert new.wait() == 0, new.text()
    back = load(system, 35)
    ended = system.await_all(during + alone + together + back)

    until(lambda: len({one.headers["webhook-id"] for one in receiver.received}) == len(ended), what="the webhooks")
    until(
        lambda: not system.rows("SELECT 1 FROM webhook_deliveries_v1 WHERE status <> 'delivered'"),
        what="their deliveries",
    )
    assert all(one.fault is None for one in receiver.received)
    assert {row.status for row in ended.values()} == {"completed", "failed"}
    assert {row.error_code for row in ended.values() if row.status == "failed"} == {"bad_request"}
    # The endpoint's ledger matches our rows: every request has an attempt, and only answers that were cut are bought
    # again.
    attempts = system.rows("SELECT error_code, sent_at FROM attempts_v1")
    assert system.fake.stats()["requests"] == len([one for one in attempts if one.sent_at is not None])
    cut = len([row for row in ended.values() if row.model == "fake-cut-once"])
    assert system.fake.stats()["billed_duplicates"] == cut
    assert "worker_lost" not in {one.error_code for one in attempts}
    assert not old.ended(), old.text()
    assert [line for line in system.lines("lease.failed") + system.lines("writer.failed")] == []
    system.assert_sound(lease_s=SHORT["lease_s"])


def test_a_worker_leaves_in_one_sentence_when_its_database_stops_serving_it(system: System) -> None:
    left = system.start(concurrency=1, drain_s=0.1, **SHORT)
    runs = system.send(request(fake={"latency_s": 60.0}))
    system.await_status(runs, "in_progress")
    waits = system.send()
    system.await_status(waits, "queued")

    # As a migration of a later release does it.
    with system.engine.begin() as connection:
        connection.execute(text("UPDATE afterword_contract SET serves_from = :later"), {"later": LATER})

    assert left.wait() == 1, left.text()
    # As after SIGTERM: the call that ran longer than the drain was given back, and all jobs wait for a newer release.
    assert (system.job(runs).status, system.job(waits).status) == ("queued", "queued")
    assert_left_for(system, version.unserved_fault(LATER))


def test_a_worker_leaves_in_one_sentence_when_its_schema_was_taken_back(postgres_system: System) -> None:
    left = postgres_system.start(**SHORT)

    migrate.downgrade(postgres_system.engine, revision=NUMBER)

    assert left.wait() == 1, left.text()
    assert_left_for(postgres_system, version.fault(postgres_system.engine))
    # The checks at the end of every flow test need today's columns.
    migrate.upgrade(postgres_system.engine)


def assert_left_for(system: System, reason: str | None) -> None:
    """Assert that the worker logged this once and gave up its lease, and that another worker is refused in the same
    words.
    """
    assert [line["reason"] for line in system.lines("worker.not_served")] == [reason]
    assert system.rows("SELECT 1 FROM afterword_workers") == []
    command = [sys.executable, "-m", "celery", "-A", "worker.app", "worker"]
    again = subprocess.run(command, cwd=ROOT, env=system.environment(), capture_output=True, text=True)
    assert (again.returncode, again.stderr.splitlines()[-1]) == (1, f"afterword: {reason}")
