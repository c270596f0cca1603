"""A clock step is distinguished from a slow answer."""

import pytest

from worker.core.clock_offset import TOLERANCE_S, Offset

AT_START = Offset.seen(1000.0, asked_at=0.0, answered_at=0.5)


@pytest.mark.parametrize(
    ("other_s", "asked_at", "answered_at", "step_s"),
    [
        (1010.0, 10.0, 10.5, 0.0),
        (1011.0, 10.0, 10.5, 0.0),  # the clock drifts, or the first answer was as late as possible
        (1610.0, 10.0, 10.5, 599.5),
        (410.0, 10.0, 10.5, -599.5),
        # The question waited for a minute: the answer may be of any moment in between.
        (1070.0, 10.0, 70.0, 0.0),
        (1011.0, 10.0, 70.0, 0.0),
        (1672.0, 10.0, 70.0, 602.0),
    ],
)
def test_a_step_is_a_difference_that_no_delay_explains(
    other_s: float, asked_at: float, answered_at: float, step_s: float
) -> None:
    later = Offset.seen(other_s, asked_at=asked_at, answered_at=answered_at)

    assert AT_START.step_s(later) == pytest.approx(step_s)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_step_within_the_tolerance_is_none(sign: int) -> None:
    exact = Offset(0.0, 0.0)

    assert exact.step_s(Offset(sign * TOLERANCE_S, sign * TOLERANCE_S)) == 0.0
    assert exact.step_s(Offset(sign * 1.1, sign * 1.1)) == pytest.approx(sign * 1.1)
