"""A receiver's breaker, warnings and disabling depend on time and on its answers, never on a count alone."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.webhooks.core.outcome import OURS, DeliveryErrorCode, DisableReason, ReceiverControl, SendResult
from worker.webhooks.core.receiver_health import ReceiverHealth, health_after, resting_until_s, room
from worker.webhooks.core.retry_schedule import HOUR_S

OK = SendResult(sent=True, error_code=None, http_status=200)
DOWN = SendResult(sent=True, error_code=DeliveryErrorCode.unavailable, http_status=503)
ERROR = SendResult(sent=True, error_code=DeliveryErrorCode.http_error, http_status=500)
LOST = SendResult(sent=True, error_code=DeliveryErrorCode.worker_lost)
FORBIDDEN = SendResult(sent=False, error_code=DeliveryErrorCode.target_forbidden)
NOW_S = 1_800_000_000.0


def after_outcomes(
    outcomes: Iterable[SendResult], health: ReceiverHealth | None = None, *, at_s: float = NOW_S, every_s: float = 0.0
) -> ReceiverHealth:
    """Return the health after these outcomes, `every_s` apart, all of one event."""
    health = ReceiverHealth() if health is None else health
    for count, sent in enumerate(outcomes):
        health = health_after(health, sent, now_s=at_s + count * every_s, event_at_s=NOW_S)
    return health


def free(health: ReceiverHealth, now_s: float = NOW_S, *, in_flight: int = 0) -> int:
    return room(health, limit=10, in_flight=in_flight, now_s=now_s)


def opened() -> ReceiverHealth:
    return after_outcomes([DOWN] * 5)


def test_a_healthy_receiver_has_room_up_to_its_limit() -> None:
    assert [free(ReceiverHealth(), in_flight=count) for count in (0, 3, 10, 12)] == [10, 7, 0, 0]


def test_five_failures_in_a_row_open_the_breaker() -> None:
    assert free(after_outcomes([DOWN] * 4)) == 10
    assert free(opened()) == 0
    assert resting_until_s(opened()) == NOW_S + 30


@pytest.mark.parametrize("between", [OK, ERROR], ids=["success", "an answer"])
def test_any_sign_of_life_breaks_the_row(between: SendResult) -> None:
    assert free(after_outcomes([DOWN] * 4 + [between] + [DOWN] * 4)) == 10


def test_a_receiver_that_answers_500_to_everything_opens_no_breaker_and_is_disabled_after_five_days() -> None:
    health = ReceiverHealth()
    for hour in range(5 * 24 + 1):
        at_s = NOW_S + hour * HOUR_S
        assert health.disabled is None
        assert free(health, at_s) == 10
        health = health_after(health, ERROR, now_s=at_s, event_at_s=at_s)
    assert (health.ramp, health.disabled) == (0, DisableReason.failing)


def test_our_own_trouble_says_nothing_of_the_receiver() -> None:
    assert free(after_outcomes([LOST, FORBIDDEN] * 20)) == 10
    assert free(after_outcomes([DOWN] * 4 + [LOST, DOWN])) == 0


@pytest.mark.parametrize("code", [*OURS, DeliveryErrorCode.no_body])
def test_trouble_of_ours_leaves_a_receivers_health_as_it_is(code: DeliveryErrorCode) -> None:
    failing = after_outcomes([FORBIDDEN, DOWN, DOWN, FORBIDDEN])
    assert after_outcomes([SendResult(sent=False, error_code=code)] * 100, failing, every_s=HOUR_S) == failing


def test_answers_that_are_failures_never_open_it() -> None:
    assert free(after_outcomes([ERROR] * 100)) == 10


def test_half_of_twenty_within_a_minute_open_it() -> None:
    assert free(after_outcomes([OK, DOWN] * 9 + [OK], every_s=1)) == 10
    assert free(after_outcomes([OK, DOWN] * 10, every_s=1), NOW_S + 19) == 0
    assert free(after_outcomes([OK, OK, DOWN] * 20, every_s=0.5), NOW_S + 30) == 10


def test_a_minute_later_the_share_is_counted_from_zero() -> None:
    assert free(after_outcomes([OK, DOWN] * 30, every_s=4), NOW_S + 240) == 10


def test_the_minute_slides() -> None:
    """Ten failures at the end of one minute and ten at the start of the next are twenty within a few seconds."""
    quiet = after_outcomes([OK] * 2, at_s=NOW_S)
    late = after_outcomes([OK, DOWN] * 5, quiet, at_s=NOW_S + 55, every_s=0.4)
    assert free(after_outcomes([OK, DOWN] * 5, late, at_s=NOW_S + 61, every_s=0.4), NOW_S + 65) == 0


@given(
    steps=st.lists(
        st.tuples(st.sampled_from([0.0, 0.1, 1.0, 3.0, 9.9, 10.0, 25.0, 61.0]), st.booleans()), min_size=1, max_size=80
    ),
    start_s=st.floats(0.0, 60.0),
)
def test_it_opens_by_a_share_of_the_last_minute_and_of_nothing_older(
    steps: list[tuple[float, bool]], start_s: float
) -> None:
    health, now_s, past = ReceiverHealth(), NOW_S + start_s, []
    for wait_s, is_down in steps:
        now_s += wait_s
        past.append((now_s, is_down))
        health = after_outcomes([DOWN if is_down else OK], health, at_s=now_s)
        in_row = all(down for _, down in past[-5:]) and len(past) >= 5
        # The oldest counted results are 50 to 60 s old.
        shares = [
            [down for at_s, down in past if at_s >= since_s]
            for since_s, _ in past
            if now_s - 60 < since_s <= now_s - 50
        ]
        shares += [
            [down for at_s, down in past if at_s > now_s - 50],
            [down for at_s, down in past if at_s > now_s - 60],
        ]
        crowded = [len(share) >= 20 and 2 * sum(share) >= len(share) for share in shares]
        if health.ramp:
            assert is_down
            assert in_row or any(crowded)
            return
        assert len(health.window) <= 6
        assert not (is_down and (in_row or all(crowded)))


def test_after_the_opening_one_probe_then_two_then_four_then_all() -> None:
    health, now_s = opened(), NOW_S + 30
    assert (free(health, now_s - 1), free(health, now_s), free(health, now_s, in_flight=1)) == (0, 1, 0)
    rooms = []
    for _ in range(3):
        health = health_after(health, OK, now_s=now_s, event_at_s=NOW_S)
        rooms.append(free(health, now_s))
    assert rooms == [2, 4, 10]
    assert health == ReceiverHealth()


def test_a_probe_that_fails_doubles_the_opening_up_to_ten_minutes() -> None:
    health, lengths = opened(), []
    for _ in range(7):
        now_s = health.open_until_s
        health = health_after(health, DOWN, now_s=now_s, event_at_s=NOW_S)
        lengths.append(health.open_until_s - now_s)
        assert free(health, now_s) == 0
    assert lengths == [60, 120, 240, 480, 600, 600, 600]


def test_after_a_recovery_the_first_opening_is_short_again() -> None:
    long = health_after(opened(), DOWN, now_s=NOW_S + 30, event_at_s=NOW_S)
    recovered = after_outcomes([OK] * 3, long, at_s=NOW_S + 90)
    assert resting_until_s(after_outcomes([DOWN] * 5, recovered, at_s=NOW_S + 100)) == NOW_S + 130


def test_a_failure_in_the_ramp_opens_again_once() -> None:
    half = after_outcomes([OK, OK], opened(), at_s=NOW_S + 30)
    again = after_outcomes([DOWN] * 4, half, at_s=NOW_S + 31)
    assert resting_until_s(again) == NOW_S + 31 + 60


def test_a_call_begun_before_the_opening_does_not_prolong_it() -> None:
    assert resting_until_s(after_outcomes([DOWN] * 20, opened(), at_s=NOW_S + 10)) == NOW_S + 30


def test_a_success_that_comes_late_ends_the_opening() -> None:
    assert free(after_outcomes([OK], opened(), at_s=NOW_S + 5), NOW_S + 5) == 2
    assert free(after_outcomes([ERROR], opened(), at_s=NOW_S + 5), NOW_S + 5) == 0


def test_a_probe_that_says_nothing_is_followed_by_another() -> None:
    assert free(after_outcomes([LOST], opened(), at_s=NOW_S + 30), NOW_S + 30) == 1


def test_a_limit_below_the_ramp_holds() -> None:
    half = after_outcomes([OK, OK], opened(), at_s=NOW_S + 30)
    assert room(half, limit=1, in_flight=0, now_s=NOW_S + 30) == 1


def test_a_retry_after_pauses_the_receiver_for_at_most_a_day() -> None:
    def asks(wait_s: float, status: int = 429) -> SendResult:
        return SendResult(
            sent=True, error_code=DeliveryErrorCode.rate_limited, http_status=status, retry_after_s=wait_s
        )

    paused = after_outcomes([asks(100.0), asks(50.0)])
    assert (free(paused, NOW_S + 99), free(paused, NOW_S + 100)) == (0, 10)
    assert resting_until_s(after_outcomes([asks(1e9)])) == NOW_S + 24 * HOUR_S


def days_of(sent: SendResult, *, days: float, attempts: int, events_apart_h: float) -> ReceiverHealth:
    """Return the health after failures spread evenly over days, for two events `events_apart_h` hours apart."""
    health = ReceiverHealth()
    for count in range(attempts):
        now_s = NOW_S + days * 24 * HOUR_S * count / (attempts - 1)
        event_at_s = NOW_S + (events_apart_h * HOUR_S if count % 2 else 0.0)
        health = health_after(health, sent, now_s=now_s, event_at_s=event_at_s)
    return health


@pytest.mark.parametrize(
    ("days", "attempts", "events_apart_h", "disabled"),
    [
        (5.0, 10, 12.0, DisableReason.failing),
        (4.99, 10, 12.0, None),
        (4.99, 10_000, 12.0, None),
        (5.0, 9, 12.0, None),
        (5.0, 10, 11.9, None),
        (30.0, 100, 0.0, None),
    ],
)
def test_a_receiver_is_disabled_by_days_of_failures_and_all_three_conditions(
    days: float, attempts: int, events_apart_h: float, disabled: DisableReason | None
) -> None:
    for sent in (ERROR, DOWN):
        assert days_of(sent, days=days, attempts=attempts, events_apart_h=events_apart_h).disabled is disabled


def test_a_burst_to_a_dead_receiver_does_not_disable_it() -> None:
    assert after_outcomes([DOWN] * 1000).disabled is None


def test_any_success_restarts_the_days() -> None:
    almost = days_of(ERROR, days=4.9, attempts=20, events_apart_h=24.0)
    recovered = health_after(almost, OK, now_s=NOW_S + 118 * HOUR_S, event_at_s=NOW_S)
    assert recovered == ReceiverHealth(window=recovered.window)
    later = after_outcomes([ERROR] * 20, recovered, at_s=NOW_S + 121 * HOUR_S)
    assert later.disabled is None


def test_our_own_trouble_disables_no_receiver() -> None:
    assert days_of(LOST, days=30.0, attempts=100, events_apart_h=24.0) == ReceiverHealth()


def test_it_is_warned_about_after_one_day_and_after_three() -> None:
    health, warned = ReceiverHealth(), []
    for hours in (0, 23, 24, 30, 71, 72, 100):
        health = health_after(health, ERROR, now_s=NOW_S + hours * HOUR_S, event_at_s=NOW_S)
        warned.append(health.warned_h)
    assert warned == [0, 0, 24, 24, 24, 72, 72]
    assert health_after(health, OK, now_s=NOW_S + 101 * HOUR_S, event_at_s=NOW_S).warned_h == 0


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (SendResult(sent=True, error_code=DeliveryErrorCode.gone, http_status=410), DisableReason.gone),
        (SendResult(sent=True, error_code=None, http_status=200, control=ReceiverControl.disable), DisableReason.asked),
        (
            SendResult(
                sent=True, error_code=DeliveryErrorCode.http_error, http_status=500, control=ReceiverControl.disable
            ),
            DisableReason.asked,
        ),
    ],
)
def test_it_is_disabled_at_once_by_its_own_word(sent: SendResult, reason: DisableReason) -> None:
    health = after_outcomes([sent])
    assert health.disabled is reason
    assert free(health, NOW_S + 1e6) == 0
    assert after_outcomes([ERROR, OK], health).disabled is reason


def test_an_abort_of_one_message_disables_no_receiver() -> None:
    aborted = SendResult(
        sent=True, error_code=DeliveryErrorCode.http_error, http_status=400, control=ReceiverControl.abort_message
    )
    assert after_outcomes([aborted]).disabled is None


@pytest.mark.parametrize(
    ("outcomes", "every_s", "disabled"),
    [
        ([FORBIDDEN] * 3, 1801.0, DisableReason.forbidden),
        ([FORBIDDEN] * 3, 1800.0, None),
        ([FORBIDDEN] * 2, 7200.0, None),
        ([FORBIDDEN] * 100, 10.0, None),
        ([FORBIDDEN, FORBIDDEN, OK, FORBIDDEN, FORBIDDEN], 3601.0, None),
        ([FORBIDDEN, LOST, FORBIDDEN, FORBIDDEN], 1201.0, DisableReason.forbidden),
    ],
)
def test_a_forbidden_address_disables_after_three_in_a_row_and_an_hour(
    outcomes: list[SendResult], every_s: float, disabled: DisableReason | None
) -> None:
    assert after_outcomes(outcomes, every_s=every_s).disabled is disabled
