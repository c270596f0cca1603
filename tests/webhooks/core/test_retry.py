"""The step after a delivery attempt: the schedule, Retry-After, and status codes with a special meaning."""

import math
from dataclasses import replace
from typing import Any

import pytest

from worker.core.lifecycle import RETRY_DELIVERY, DeliveryOutcome
from worker.webhooks.core.outcome import (
    DELIVERY_MEANINGS,
    OURS,
    DeliveryErrorCode,
    DisableReason,
    ReceiverControl,
    SendResult,
    disable_reason,
    http_code,
    pause_s,
)
from worker.webhooks.core.payload import Variant
from worker.webhooks.core.retry import CANCELLED, DELIVERED, FAILED, RELEASE_S, DeliveryDecision, decide, release
from worker.webhooks.core.retry_schedule import HOUR_S, SCHEDULE_S, schedule_fault, wait_s

OK = SendResult(sent=True, error_code=None, http_status=200)
DAY_S = 24 * HOUR_S


def answered(status: int, **more: Any) -> SendResult:
    return SendResult(sent=True, error_code=http_code(status), http_status=status, **more)


def after(
    sent: SendResult, *, used: int = 1, left_s: float = 7 * DAY_S, variant: Variant = Variant.full, jitter: float = 0.0
) -> DeliveryDecision:
    return decide(sent, used=used, left_s=left_s, variant=variant, jitter=jitter)


def retry(delay_s: float, variant: Variant = Variant.full) -> DeliveryDecision:
    return DeliveryDecision(RETRY_DELIVERY, DeliveryOutcome.failed, counts=True, delay_s=delay_s, variant=variant)


def postponed(delay_s: float) -> DeliveryDecision:
    return DeliveryDecision(
        RETRY_DELIVERY, DeliveryOutcome.released, counts=False, delay_s=delay_s, affects_health=False
    )


def test_eleven_attempts_within_seventy_six_hours() -> None:
    waits = [after(answered(500), used=used) for used in range(1, 12)]
    assert waits[:10] == [retry(delay_s) for delay_s in SCHEDULE_S]
    assert waits[10] == FAILED
    assert SCHEDULE_S == (5, 30, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400)
    assert sum(SCHEDULE_S) / HOUR_S == pytest.approx(75.6, abs=0.01)


@pytest.mark.parametrize(
    ("step_s", "most_s"),
    [
        (1.0, 2.0),
        (5.0, 6.0),
        (30.0, 36.0),
        (1800.0, 2160.0),
        (9000.0, 10800.0),
        (7200.0, 8640.0),
        (DAY_S, DAY_S + 1800),
    ],
)
def test_jitter_adds_a_fifth_at_least_a_second_at_most_half_an_hour(step_s: float, most_s: float) -> None:
    assert wait_s(step_s, retry_after_s=None, jitter=0.0) == step_s
    assert wait_s(step_s, retry_after_s=None, jitter=1.0) == pytest.approx(most_s)


@pytest.mark.parametrize(
    ("asked_s", "delay_s", "pause_receiver_s"),
    [
        (None, 30.0, 0.0),
        (10.0, 30.0, 10.0),
        (120.0, 120.0, 120.0),
        (DAY_S, DAY_S, DAY_S),
        (10 * 365 * DAY_S, DAY_S, DAY_S),
    ],
)
def test_retry_after_delays_the_delivery_and_pauses_the_receiver(
    asked_s: float | None, delay_s: float, pause_receiver_s: float
) -> None:
    for status in (429, 503, 500, 404, 302):
        sent = answered(status, retry_after_s=asked_s)
        assert after(sent, used=2) == retry(delay_s)
        assert pause_s(sent) == pause_receiver_s


def test_jitter_never_undercuts_a_retry_after() -> None:
    assert wait_s(5.0, retry_after_s=100.0, jitter=0.0) == 100.0
    assert wait_s(5.0, retry_after_s=100.0, jitter=0.5) == pytest.approx(110.0)


def test_success_with_a_retry_after_pauses_no_receiver() -> None:
    assert pause_s(replace(OK, retry_after_s=60.0)) == 0.0


def test_a_wait_beyond_the_deadline_is_given_up() -> None:
    assert after(answered(500), left_s=5.0) == FAILED
    assert after(answered(500), left_s=5.1) == retry(5.0)
    assert after(answered(503, retry_after_s=DAY_S), left_s=HOUR_S) == FAILED


def test_a_schedule_of_the_receivers_own() -> None:
    found = [
        decide(answered(500), used=used, left_s=DAY_S, variant=Variant.full, jitter=0.0, schedule=[1, 2])
        for used in (1, 2, 3)
    ]
    assert found == [retry(1), retry(2), FAILED]


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (101, DeliveryErrorCode.protocol_error),
        (200, None),
        (202, None),
        (204, None),
        (299, None),
        (301, DeliveryErrorCode.redirect_not_followed),
        (304, DeliveryErrorCode.redirect_not_followed),
        (307, DeliveryErrorCode.redirect_not_followed),
        (400, DeliveryErrorCode.http_error),
        (401, DeliveryErrorCode.http_error),
        (404, DeliveryErrorCode.http_error),
        (410, DeliveryErrorCode.gone),
        (413, DeliveryErrorCode.payload_too_large),
        (429, DeliveryErrorCode.rate_limited),
        (500, DeliveryErrorCode.http_error),
        (501, DeliveryErrorCode.http_error),
        (502, DeliveryErrorCode.unavailable),
        (503, DeliveryErrorCode.unavailable),
        (504, DeliveryErrorCode.unavailable),
        (599, DeliveryErrorCode.http_error),
        (999, DeliveryErrorCode.http_error),
    ],
)
def test_only_2xx_is_success(status: int, code: DeliveryErrorCode | None) -> None:
    assert http_code(status) is code


@pytest.mark.parametrize(
    ("sent", "decision", "disabled"),
    [
        (OK, DELIVERED, None),
        (replace(OK, control=ReceiverControl.disable), DELIVERED, DisableReason.asked),
        (replace(OK, control=ReceiverControl.abort_message), DELIVERED, None),
        (answered(410), CANCELLED, DisableReason.gone),
        (answered(410, retry_after_s=60.0), CANCELLED, DisableReason.gone),
        (answered(410, control=ReceiverControl.disable), CANCELLED, DisableReason.gone),
        (answered(500, control=ReceiverControl.disable), CANCELLED, DisableReason.asked),
        (answered(500, control=ReceiverControl.abort_message), CANCELLED, None),
        (answered(302, control=ReceiverControl.abort_message), CANCELLED, None),
    ],
)
def test_a_receivers_request_about_itself_is_obeyed(
    sent: SendResult, decision: DeliveryDecision, disabled: DisableReason | None
) -> None:
    assert disable_reason(sent) is disabled
    assert after(sent) == decision
    assert after(sent, used=99) == decision  # the receiver's request does not depend on our budget


def test_a_body_too_large_is_sent_thin_the_next_time() -> None:
    assert after(answered(413)) == retry(5.0, Variant.thin)
    assert after(answered(413), variant=Variant.thin, used=2) == retry(30.0, Variant.thin)
    assert after(answered(500), variant=Variant.thin) == retry(5.0, Variant.thin)


@pytest.mark.parametrize("status", [413, 500])
def test_the_body_of_openai_has_no_thin_form(status: int) -> None:
    assert after(answered(status), variant=Variant.openai) == retry(5.0, Variant.openai)


@pytest.mark.parametrize(
    "code",
    [code for code in DeliveryErrorCode if code not in {*OURS, DeliveryErrorCode.gone, DeliveryErrorCode.no_body}],
)
def test_every_other_failure_is_tried_again_on_schedule(code: DeliveryErrorCode) -> None:
    found = after(SendResult(sent=False, error_code=code))
    assert (found.move, found.outcome, found.delay_s) == (RETRY_DELIVERY, DeliveryOutcome.failed, 5.0)
    assert (found.counts, found.affects_health) == (True, True)


def test_every_code_has_a_sentence() -> None:
    assert set(DELIVERY_MEANINGS) == set(DeliveryErrorCode)
    assert all(fate.sentence.endswith(".") for fate in DELIVERY_MEANINGS.values())


def test_failures_that_count_against_a_receiver() -> None:
    """429, 502, 503, 504, and every failure to connect or to get an answer count; our own trouble does not."""
    down = {code for code in DeliveryErrorCode if DELIVERY_MEANINGS[code].receiver == "down"}
    assert down == {
        DeliveryErrorCode.rate_limited,
        DeliveryErrorCode.unavailable,
        DeliveryErrorCode.dns_failed,
        DeliveryErrorCode.dns_timeout,
        DeliveryErrorCode.connect_failed,
        DeliveryErrorCode.connect_timeout,
        DeliveryErrorCode.tls_failed,
        DeliveryErrorCode.timeout,
        DeliveryErrorCode.connection_lost,
        DeliveryErrorCode.protocol_error,
    }
    assert {code for code in DeliveryErrorCode if DELIVERY_MEANINGS[code].receiver == "unknown"} == {
        DeliveryErrorCode.target_forbidden,
        DeliveryErrorCode.invalid_header,
        DeliveryErrorCode.no_secret,
        DeliveryErrorCode.no_body,
        DeliveryErrorCode.dns_busy,
        DeliveryErrorCode.proxy_failed,
        DeliveryErrorCode.out_of_resources,
        DeliveryErrorCode.internal_error,
        DeliveryErrorCode.worker_lost,
    }
    assert all(DELIVERY_MEANINGS[code].receiver == "unknown" for code in OURS)


def ours(
    code: DeliveryErrorCode, *, used: int = 1, left_s: float = DAY_S, before: int = 0, jitter: float = 0.0
) -> DeliveryDecision:
    sent = SendResult(sent=False, error_code=code)
    return decide(sent, used=used, left_s=left_s, variant=Variant.full, jitter=jitter, postponed=before)


@pytest.mark.parametrize("code", OURS)
@pytest.mark.parametrize("used", [1, 11, 12, 100])
def test_trouble_of_ours_never_ends_a_delivery_by_its_attempts(code: DeliveryErrorCode, used: int) -> None:
    assert ours(code, used=used) == postponed(OURS[code][0])


@pytest.mark.parametrize(
    ("code", "waits"),
    [
        (DeliveryErrorCode.no_secret, [60, 120, 240, 480, 600, 600]),
        (DeliveryErrorCode.internal_error, [60, 120, 240, 480, 600, 600]),
        (DeliveryErrorCode.dns_busy, [2, 4, 8, 16, 32, 60]),
    ],
)
def test_trouble_of_ours_that_lasts_is_tried_less_often(code: DeliveryErrorCode, waits: list[float]) -> None:
    assert [ours(code, before=count) for count in range(6)] == [postponed(wait) for wait in waits]
    assert ours(code, before=10_000, jitter=1.0) == postponed(waits[-1] * 1.2)


def test_trouble_of_ours_is_bounded_by_the_deadline() -> None:
    assert ours(DeliveryErrorCode.no_secret, left_s=60.1) == postponed(60.0)
    assert ours(DeliveryErrorCode.no_secret, left_s=60.0) == FAILED


def test_a_delivery_without_its_body_is_not_tried_again() -> None:
    assert ours(DeliveryErrorCode.no_body) == FAILED


@pytest.mark.parametrize("steps", [[1], [1.5, 2], (86400,), [86400] * 7, [1] * 20, list(SCHEDULE_S)])
def test_a_schedule_that_is_taken(steps: Any) -> None:
    assert schedule_fault(steps) is None


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        (None, "no list of 1 to 20"),
        ("5,30", "no list of 1 to 20"),
        ([], "no list of 1 to 20"),
        ([1] * 21, "no list of 1 to 20"),
        ([5, 0], "Step 2 of the schedule is 0;"),
        ([-5], "Step 1 of the schedule is -5;"),
        ([86401], "Step 1 of the schedule is 86401; a wait is 1 to 86400 seconds"),
        ([True], "Step 1 of the schedule is True;"),
        (["5"], "Step 1 of the schedule is '5';"),
        ([math.nan], "Step 1 of the schedule is nan;"),
        ([math.inf], "Step 1 of the schedule is inf;"),
        ([86400] * 7 + [1], "add up to 604801 s; 604800 s (7 days) are allowed"),
    ],
)
def test_a_schedule_that_is_refused_in_a_sentence(steps: Any, says: str) -> None:
    fault = schedule_fault(steps)
    assert fault is not None
    assert says in fault


@pytest.mark.parametrize("lease_lost", [True, False])
@pytest.mark.parametrize("sent", [True, False])
def test_an_attempt_that_was_cut_off_counts_where_it_was_sent_and_moves_where_the_lease_is_ours(
    sent: bool, lease_lost: bool
) -> None:
    assert release(sent=sent, lease_lost=lease_lost) == DeliveryDecision(
        None if lease_lost else RETRY_DELIVERY,
        DeliveryOutcome.unknown if sent else DeliveryOutcome.released,
        counts=sent,
        delay_s=RELEASE_S,
        affects_health=False,
    )
