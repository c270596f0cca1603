"""The number of slots respects the limit of open files of the process."""

import resource

import pytest

from worker.pool.process_limits import RESERVED, fit_slots, raise_limit


@pytest.mark.parametrize(
    ("calls", "webhooks", "limit", "kept"),
    [
        (400, 100, 500 + RESERVED, (400, 100)),
        (400, 100, 100 + RESERVED, (80, 20)),
        (400, 100, resource.RLIM_INFINITY, (400, 100)),
        (400, 100, RESERVED, (1, 1)),
        (400, 100, 0, (1, 1)),
        (3, 1, 2 + RESERVED, (1, 1)),
    ],
)
def test_slots_are_reduced_in_proportion(calls: int, webhooks: int, limit: int, kept: tuple[int, int]) -> None:
    assert tuple(fit_slots({"chat.run": calls, "webhooks": webhooks}, limit=limit).values()) == kept


def test_the_limit_is_raised_as_far_as_allowed() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, hard), hard))
    try:
        assert raise_limit() == hard
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
