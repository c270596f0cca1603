"""The whole product behind Sentinel: queue and inbox, remote control, and a failover under load."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from afterword import Afterword, SubmitError
from tests.flow.system import System, request
from tests.pool.workers import until
from tests.sentinels import NAME, Behind
from worker.dev.fake_endpoint import FakeEndpoint
from worker.store.engine import open_engine

BACKLOG = 150
ROOT = Path(__file__).parents[2]


@pytest.fixture
def behind(tmp_path: Path) -> Iterator[Behind]:
    made = Behind(tmp_path)
    try:
        yield made.start()
    finally:
        made.remove()


@pytest.fixture
def system(behind: Behind, postgresql_url: str, fake: FakeEndpoint, tmp_path: Path) -> Iterator[System]:
    engine = open_engine(postgresql_url)
    made = System(behind.servers[0].url, postgresql_url, engine, fake, tmp_path)
    made.redis_url = behind.url
    made.celery.close()
    # Celery's own settings, as in api_contracts/README.md, without our package.
    made.celery = Celery(broker=behind.celery_url, set_as_current=False)
    made.celery.conf.broker_transport_options = {"master_name": NAME}
    made.celery.conf.control_exchange = "afterword"
    yield made
    made.close()
    engine.dispose()


def inspected(system: System) -> Any:
    with system.celery.connection_for_write() as connection:
        return system.celery.control.inspect(timeout=2, connection=connection).ping()


def test_a_failover_under_load_loses_nothing_and_all_goes_on_by_itself(system: System, behind: Behind) -> None:
    worker = system.start(concurrency=10, lease_s=10)
    with Afterword(behind.url) as client:
        made = [system.send(), client.submit(request())]
        system.await_all(made)
        until(lambda: inspected(system), what="an answer to a foreign client's inspect")
        for _ in range(BACKLOG):
            system.insert(request(fake={"latency_s": 0.3}), batch="backlog")
        until(lambda: system.rows("SELECT 1 FROM jobs_v1 WHERE status = 'in_progress'"), what="calls in flight")

        behind.kill_primary()

        def submitted() -> str | None:
            try:
                return client.submit(request())
            except SubmitError:
                return None

        made += [until(submitted, what="submit goes on"), system.send()]
        system.await_all(made)
    until(
        lambda: system.rows("SELECT count(*) FROM jobs_v1 WHERE status = 'completed'")[0][0] == BACKLOG + len(made),
        what=f"the backlog; {system.said()}",
    )
    until(lambda: inspected(system), what="an answer after the failover")
    assert not worker.ended()
    assert len(system.rows("SELECT 1 FROM attempts_v1")) == BACKLOG + len(made)
    asked = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "worker.app", "inspect", "ping"],
        cwd=ROOT, env=system.environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "1 node online" in asked.stdout, asked.stdout + asked.stderr
    found = subprocess.run(
        [sys.executable, "-m", "worker.cli", "doctor"],
        cwd=ROOT, env=system.environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "ok      redis" in found.stdout, found.stdout + found.stderr
