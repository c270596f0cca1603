"""The memory of one worker process with two thousand calls in flight."""

from pathlib import Path
from statistics import median

import pytest

from tests.flow.system import System, request
from tests.pool.workers import until

CALLS = 2000
MOST_MB = 200


def resident_mb(pid: int, *, peak: bool = False) -> float:
    name = "VmHWM" if peak else "VmRSS"
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith(name)]
    return int(line.split()[1]) / 1024


@pytest.mark.timeout(300)
def test_two_thousand_calls_are_in_flight_in_one_process(
    postgres_system: System, capsys: pytest.CaptureFixture[str]
) -> None:
    system = postgres_system
    worker = system.start(forked=False, concurrency=CALLS)
    idle_mb = resident_mb(worker.process.pid)
    body = request(stream=True, fake={"size": 2000, "chunks": 40, "chunk_s": 1.0})

    ids = [system.send(body) for _ in range(CALLS)]

    until(lambda: system.fake.stats()["in_flight"] == CALLS, what="all calls in flight", seconds=120)
    count = "SELECT count(*) FROM jobs_v1 WHERE status = 'completed'"
    seen_mb: list[float] = []

    def is_one_whole() -> bool:
        seen_mb.append(resident_mb(worker.process.pid))
        return bool(system.rows(count)[0][0])

    until(is_one_whole, what="the first answer is whole", seconds=120)
    # Measured while half of each answer is held; writing two thousand answers at one moment costs more.
    in_flight_mb = median(seen_mb)
    until(lambda: system.rows(count)[0][0] == CALLS, what="all jobs completed", seconds=120)
    assert {system.fake.job(job_id)["requests"] for job_id in ids} == {1}
    peak_mb = resident_mb(worker.process.pid, peak=True)
    with capsys.disabled():
        print(
            f"\nmemory: {idle_mb:.0f} MB idle, {in_flight_mb:.0f} MB with {CALLS} streams of 2 KB in flight, "
            f"{peak_mb:.0f} MB while all of them end at once"
        )
    assert in_flight_mb < MOST_MB
    assert peak_mb < MOST_MB * 1.1
