"""Exchanges seen at real providers run through the whole product, and each must give the expected result.

One worker serves all cases at once; a case that may pause its endpoint has a separate endpoint.
"""

import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from tests.flow.exchanges import Case, Script, differences, read_cases
from tests.flow.system import FINAL, System
from tests.net.raw_server import RawServer
from tests.pool.workers import until

CASES = read_cases()
PATIENCE_S = 150.0

# Cases that do not hold yet, each with its reason; the test does not wait for their end. A case that holds must leave
# this list.


def test_there_are_cases_to_check() -> None:
    assert len(CASES) == len({case.id for case in CASES}) == 77


@pytest.mark.timeout(300)
def test_each_exchange_gives_its_result(system: System, tmp_path: Path) -> None:
    script = Script(CASES)
    with RawServer(script) as server:
        config = tmp_path / "endpoints.toml"
        names = sorted({case.endpoint for case in CASES})
        config.write_text("".join(f'[endpoints.{name}]\nurl = "{server.url}"\n' for name in names))
        system.start(config=config, concurrency=len(CASES))
        with system.engine.begin() as connection:
            for case in CASES:
                connection.execute(text("INSERT INTO submit_v1 (job) VALUES (:job)"), {"job": case.message})
        waiting = {case.id: case for case in CASES}
        give_up = time.monotonic() + PATIENCE_S
        until(
            lambda: not _drop_settled(system, waiting) or time.monotonic() > give_up,
            what="the end of every case",
            seconds=PATIENCE_S + 30,
        )
        assert not waiting, f"not ended: {sorted(waiting)}, worker said: {system.said()}"
        jobs, firsts = _jobs(system), _first_attempts(system)

    found = {case.id: differences(case, jobs[case.id], firsts.get(case.id), script.bodies(case)) for case in CASES}
    failing = [f"{case_id}: {line}" for case_id, lines in found.items() for line in lines]
    assert not failing, "\n".join(failing)


def _drop_settled(system: System, waiting: dict[str, Case]) -> dict[str, Case]:
    """Remove the cases that have ended: the job, or its first attempt where the job itself may wait."""
    assert not system.workers[0].ended(), system.said()
    jobs, firsts = _jobs(system), _first_attempts(system)
    for case_id, case in list(waiting.items()):
        job, first = jobs.get(case_id), firsts.get(case_id)
        if case.expect.get("settle") == "attempt1":
            ended = first is not None and first.finished_at is not None
        else:
            ended = job is not None and job.status in FINAL
        if ended:
            del waiting[case_id]
    return waiting


def _jobs(system: System) -> dict[str, Any]:
    return {row.custom_id: row for row in system.rows("SELECT * FROM jobs_v1")}


def _first_attempts(system: System) -> dict[str, Any]:
    """Return the first attempt of each case's job."""
    rows = system.rows(
        "SELECT j.custom_id, a.* FROM attempts_v1 a JOIN jobs_v1 j ON j.id = a.job_id WHERE a.attempt = 1"
    )
    return {row.custom_id: row for row in rows}
