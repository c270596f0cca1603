"""CPU of a job and jobs per second: one worker drains a queue of N jobs.

The worker is warm (it has done some jobs), and it is stopped (SIGSTOP) while the queue is filled. So the clock and the
CPU counter run from the first job to the last and include nothing of the producer. Peers are measured the same way.
"""

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from parts import Child, Parts, completed, load, request, until

OURS = "afterword"
WARM_UP = 400


@dataclass(frozen=True, slots=True)
class Drained:
    """`cpu_ms`: CPU of the worker's processes for one job. `loaded`: the machine's load at the end."""

    name: str
    cpu_ms: float
    jobs_per_s: float
    resident_mb: float
    loaded: str


def drain(name: str, worker: Child, submit: Callable[[int], object], done: Callable[[], int], *, jobs: int) -> Drained:
    """Fill the queue with `jobs` jobs while the worker is stopped, start it, and measure until all are done."""
    submit(WARM_UP)
    until(lambda: done() >= WARM_UP, f"the first {WARM_UP} jobs of {name}")
    worker.signal(signal.SIGSTOP)
    try:
        submit(jobs)
        cpu_s = worker.cpu_s()
    finally:
        began = time.perf_counter()
        worker.signal(signal.SIGCONT)
    until(lambda: done() >= WARM_UP + jobs, f"all jobs of {name}", every_s=0.05)
    took = time.perf_counter() - began
    return Drained(name, (worker.cpu_s() - cpu_s) / jobs * 1e3, jobs / took, worker.resident_mb(), load())


def ours(parts: Parts, kind: str, in_flight: int, *, jobs: int, latency_s: float = 0.2, **settings: object) -> Drained:
    """Drain through chat.submit, intake included, on a fresh database of this kind."""
    body = request(latency_s)
    with parts.database(kind) as (url, engine), parts.worker(url, concurrency=in_flight, **settings) as worker:
        name = f"{OURS}, {kind}, {in_flight}"
        drained = drain(name, worker, lambda n: parts.submit(n, body), lambda: completed(engine), jobs=jobs)
    parts.redis.flushall()
    return drained
