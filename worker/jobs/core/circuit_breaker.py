"""Decides when so many calls to an endpoint fail that it should rest. Pure.

Two rules. `Breaker`, used by `jobs.endpoint_monitor`: half of one process's calls in 30 seconds failed (at least 20
calls, and failures of at least 10 jobs). `in_a_row`, used by `jobs.store.endpoint_breaker`: 10 jobs in a row failed,
counted over all processes and without a time limit; it helps where calls are few or fail slowly.
"""

import math
from collections import deque
from typing import Final

WINDOW_S: Final = 30.0
FEWEST_CALLS: Final = 20
# One prompt that crashes the endpoint is retried a few times; those failures must not pause it for other jobs.
FEWEST_SICK_JOBS: Final = 10
SICK_SHARE: Final = 0.5
# Other processes learn of an answer within a second or two; until then failures may not be in a row.
QUIET_S: Final = 3.0


class Breaker:
    """Counts one endpoint's calls by outcome: answered or sick (failed, and the endpoint may be the cause).

    `at` is a monotonic time in seconds.
    """

    def __init__(self) -> None:
        # (second, answered calls, sick calls), oldest first.
        self._seconds: deque[tuple[int, int, int]] = deque()
        self._sick_jobs: dict[str, float] = {}  # job id: time of its last sick call; oldest first

    def answered(self, at: float) -> None:
        """Count an answered call."""
        self._count(at, answered=1, sick=0)

    def sick(self, job_id: str, at: float, *, after: float = -math.inf) -> bool:
        """Count a sick call; return whether the endpoint should rest.

        Calls before `after`, the endpoint's last change, no longer count.
        """
        self._sick_jobs.pop(job_id, None)
        self._sick_jobs[job_id] = at
        self._count(at, answered=0, sick=1)
        self._forget(max(at - WINDOW_S, after))
        sick = sum(second[2] for second in self._seconds)
        total = sick + sum(second[1] for second in self._seconds)
        return total >= FEWEST_CALLS and sick >= SICK_SHARE * total and len(self._sick_jobs) >= FEWEST_SICK_JOBS

    def clear(self) -> None:
        """Forget all calls."""
        self._seconds.clear()
        self._sick_jobs.clear()

    def _count(self, at: float, *, answered: int, sick: int) -> None:
        second = int(at)
        if self._seconds and self._seconds[-1][0] == second:
            _, answered_before, sick_before = self._seconds[-1]
            self._seconds[-1] = (second, answered_before + answered, sick_before + sick)
            return
        self._seconds.append((second, answered, sick))
        self._forget(at - WINDOW_S)

    def _forget(self, before: float) -> None:
        while self._seconds and self._seconds[0][0] + 1 <= before:
            self._seconds.popleft()
        while self._sick_jobs and self._sick_jobs[oldest := next(iter(self._sick_jobs))] < before:
            del self._sick_jobs[oldest]


def in_a_row(sick_jobs: tuple[str, ...], job_id: str, *, quiet_s: float) -> tuple[tuple[str, ...], bool]:
    """Add a job to `sick_jobs`, the jobs with a sick call since the last answer; return them, and whether to rest.

    `quiet_s`: seconds since the endpoint last answered any job, or since its last change if that was later.
    """
    known = job_id in sick_jobs or len(sick_jobs) >= FEWEST_SICK_JOBS
    jobs = sick_jobs if known else (*sick_jobs, job_id)
    return jobs, len(jobs) >= FEWEST_SICK_JOBS and quiet_s >= QUIET_S
