"""The breaker opens when half of twenty calls fail within 30 s, or when ten jobs in a row fail at any speed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.jobs.core.circuit_breaker import FEWEST_SICK_JOBS, QUIET_S, Breaker, in_a_row


def fed(answers: int, sick_jobs: int, *, at: float = 100.0) -> bool:
    """Return whether the last of these calls opened a new breaker."""
    breaker = Breaker()
    for _ in range(answers):
        breaker.answered(at)
    return [breaker.sick(f"job {number}", at) for number in range(sick_jobs)][-1]


@pytest.mark.parametrize(
    ("answers", "sick_jobs", "opens"),
    [(0, 19, False), (0, 20, True), (10, 10, True), (11, 10, False), (1000, 999, False), (1000, 1000, True)],
)
def test_half_of_twenty_calls_open_it(answers: int, sick_jobs: int, opens: bool) -> None:
    assert fed(answers, sick_jobs) is opens


def test_one_prompt_that_crashes_its_endpoint_opens_nothing() -> None:
    breaker = Breaker()

    assert not any(breaker.sick(f"job {number % 9}", 1.0) for number in range(1000))


def test_calls_of_half_a_minute_ago_are_forgotten() -> None:
    breaker = Breaker()
    for number in range(19):
        breaker.sick(f"old {number}", 100.0)

    assert not breaker.sick("new", 131.5)
    assert not any(breaker.sick(f"later {number}", 132.0) for number in range(18))
    assert breaker.sick("last", 132.0)


def test_answers_of_half_a_minute_ago_hide_nothing() -> None:
    breaker = Breaker()
    for _ in range(1000):
        breaker.answered(100.0)
    for _ in range(20):
        breaker.answered(131.5)

    assert [breaker.sick(f"job {number}", 132.0) for number in range(20)][-1]


def test_calls_before_the_endpoints_last_change_do_not_count() -> None:
    breaker = Breaker()
    for number in range(19):
        breaker.sick(f"old {number}", 100.0)

    assert not breaker.sick("new", 110.0, after=105.0)
    assert breaker.sick("newer", 110.0) is False, "the change resets the count for good"


def test_it_starts_from_zero_when_cleared() -> None:
    breaker = Breaker()
    for number in range(19):
        breaker.sick(f"old {number}", 100.0)
    breaker.clear()

    assert not breaker.sick("new", 100.0)


# Ended calls of an endpoint: the number of the failed job, or None for an answer; and the seconds since the call
# before.
ENDS = st.lists(st.tuples(st.none() | st.integers(0, 15), st.sampled_from([0.0, 0.1, 1.0, QUIET_S])), max_size=60)


def opened(ends: list[tuple[int | None, float]]) -> list[bool]:
    """Return, per ended call, whether it pauses the endpoint if all workers learn of every answer at once."""
    jobs: tuple[str, ...] = ()
    quiet_s, found = 0.0, []
    for job, after_s in ends:
        quiet_s += after_s
        opens = False
        if job is None:
            jobs, quiet_s = (), 0.0
        else:
            jobs, opens = in_a_row(jobs, f"job {job}", quiet_s=quiet_s)
        found.append(opens)
    return found


@given(ENDS)
def test_an_endpoint_is_paused_after_ten_failed_jobs_in_a_row_without_a_recent_answer(
    ends: list[tuple[int | None, float]],
) -> None:
    for at, opens in enumerate(opened(ends)):
        since = next((back for back in range(at, -1, -1) if ends[back][0] is None), -1) + 1
        row = ends[since : at + 1]
        quiet_s = sum(after_s for _, after_s in row)
        assert opens is (len({job for job, _ in row}) >= FEWEST_SICK_JOBS and quiet_s >= QUIET_S)


@given(st.lists(st.integers(0, 10**6), min_size=FEWEST_SICK_JOBS, unique=True), st.floats(1.0, 600.0))
def test_an_endpoint_without_answers_is_paused_by_the_tenth_job_however_slowly_they_fail(
    jobs: list[int], apart_s: float
) -> None:
    assert opened([(job, apart_s) for job in jobs]).index(True) == FEWEST_SICK_JOBS - 1


@given(st.lists(st.lists(st.integers(0, 100), max_size=FEWEST_SICK_JOBS - 1)))
def test_answers_among_slow_jobs_keep_it_open_for_ever(rows: list[list[int]]) -> None:
    ends = [end for row in rows for end in [*((job, 600.0) for job in row), (None, 1.0)]]

    assert not any(opened(ends))


@given(st.lists(st.integers(0, FEWEST_SICK_JOBS - 2)))
def test_nine_jobs_that_fail_for_ever_are_their_own_trouble(jobs: list[int]) -> None:
    assert not any(opened([(job, 600.0) for job in jobs]))
