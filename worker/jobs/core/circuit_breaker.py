"""When so many calls fail that asking on makes it worse. Pure; counted in `health` and `jobs.store.endpoint_breaker`.

Two rules: half of one process's calls of the last half minute; and, where calls are few or fail slowly, so many jobs in
a row, by all processes together, however long that takes.
"""

import math
from collections import deque
from typing import Final

WINDOW_S: Final = 30.0
FEWEST_CALLS: Final = 20
# A prompt that crashes its endpoint is asked for a few times; it must not close the endpoint to others.
FEWEST_SICK_JOBS: Final = 10
SICK_SHARE: Final = 0.5
# An answer of one process is known to all others within a second or two; before that nothing is in a row.
QUIET_S: Final = 3.0


def in_a_row(sick_jobs: tuple[str, ...], job_id: str, *, quiet_s: float) -> tuple[tuple[str, ...], bool]:
    """Add a job to those that the endpoint failed since it last answered; say whether it should rest.

    `quiet_s`: seconds since the last answer to anybody, or since the endpoint's last change where that is less.
    """
    known = job_id in sick_jobs or len(sick_jobs) >= FEWEST_SICK_JOBS
    jobs = sick_jobs if known else (*sick_jobs, job_id)
    return jobs, len(jobs) >= FEWEST_SICK_JOBS and quiet_s >= QUIET_S


class Breaker:
    """Counts how the calls of an endpoint ended; `at` is a monotonic time in seconds."""

    def __init__(self) -> None:
        # By the second, oldest first: the second, calls that were answered, calls that were sick.
        self._seconds: deque[tuple[int, int, int]] = deque()
        self._sick_jobs: dict[str, float] = {}  # when last, oldest first

    def answered(self, at: float) -> None:
        """Count an answer."""
        self._count(at, answered=1, sick=0)

    def sick(self, job_id: str, at: float, *, after: float = -math.inf) -> bool:
        """Count a call that failed by the endpoint's weakness; say whether the endpoint should rest.

        What lies before `after`, the endpoint's last change, counts no more.
        """
        self._sick_jobs.pop(job_id, None)
        self._sick_jobs[job_id] = at
        self._count(at, answered=0, sick=1)
        self._forget(max(at - WINDOW_S, after))
        sick = sum(second[2] for second in self._seconds)
        total = sick + sum(second[1] for second in self._seconds)
        return total >= FEWEST_CALLS and sick >= SICK_SHARE * total and len(self._sick_jobs) >= FEWEST_SICK_JOBS

    def clear(self) -> None:
        """Begin anew."""
        self._seconds.clear()
        self._sick_jobs.clear()

    def _count(self, at: float, *, answered: int, sick: int) -> None:
        second = int(at)
        if self._seconds and self._seconds[-1][0] == second:
            _, before, sick_before = self._seconds[-1]
            self._seconds[-1] = (second, before + answered, sick_before + sick)
            return
        self._seconds.append((second, answered, sick))
        self._forget(at - WINDOW_S)

    def _forget(self, before: float) -> None:
        while self._seconds and self._seconds[0][0] + 1 <= before:
            self._seconds.popleft()
        while self._sick_jobs and self._sick_jobs[oldest := next(iter(self._sick_jobs))] < before:
            del self._sick_jobs[oldest]
