"""The breaker opens when half of twenty calls fail, of ten different jobs, within half a minute."""

import pytest

from worker.core.breaker import Breaker


def fed(answers: int, sick_jobs: int, *, at: float = 100.0) -> bool:
    """Say whether the last of so many calls opened a new breaker."""
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


def test_what_was_half_a_minute_ago_is_forgotten() -> None:
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


def test_what_lies_before_the_endpoints_last_change_counts_no_more() -> None:
    breaker = Breaker()
    for number in range(19):
        breaker.sick(f"old {number}", 100.0)

    assert not breaker.sick("new", 110.0, after=105.0)
    assert breaker.sick("newer", 110.0) is False, "forgotten for good"


def test_it_begins_anew_when_cleared() -> None:
    breaker = Breaker()
    for number in range(19):
        breaker.sick(f"old {number}", 100.0)
    breaker.clear()

    assert not breaker.sick("new", 100.0)
