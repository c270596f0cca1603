"""The reason why a delivery waits: a table of situations and sentences."""

from typing import Any

import pytest

from worker.webhooks.core.explain import ReceiverState, WaitingDelivery, health_lines, why, words
from worker.webhooks.core.receiver_health import ReceiverHealth

NOW = 1_800_000_000.0


def receiver_state(health: ReceiverHealth | None = None, **values: Any) -> ReceiverState:
    plain: dict[str, Any] = {
        "name": "billing", "status": "enabled", "disabled_reason": None, "in_flight": 0, "limit": 10,
        "rate_per_s": None, "tokens": None, "now_s": NOW,
    }  # fmt: skip
    return ReceiverState(health=health or ReceiverHealth(), **(plain | values))


def queued(waiting_for: str | None = None, due_in_s: float = -1.0, **last: Any) -> WaitingDelivery:
    return WaitingDelivery("queued", waiting_for, due_in_s, **last)


OPEN = ReceiverHealth(ramp=1, open_until_s=NOW + 90)
PAUSED = ReceiverHealth(paused_until_s=NOW + 7200)
DISABLED = {"status": "disabled", "disabled_reason": "failing"}
CASES = {
    "nothing": (queued(), receiver_state(), "nothing: a worker takes it when it has a free slot"),
    "retry": (
        queued("retry", 300.0, last_http_status=503),
        receiver_state(),
        "retry: next attempt in 5 min, after HTTP 503",
    ),
    "retry-code": (
        queued("retry", 30.0, last_error_code="dns_failed"),
        receiver_state(),
        "retry: next attempt in 30 s, after dns_failed",
    ),
    "our-trouble": (
        queued("retry", 60.0, last_error_code="no_secret"),
        receiver_state(),
        "our trouble: no_secret (This service could not open the receiver's secret; its operator must mend that): "
        "next try in 1 min, no attempt is spent",
    ),
    "order": (queued("order", 9.0), receiver_state(), "order: an earlier delivery of its key has not ended"),
    "breaker": (queued(), receiver_state(OPEN), "breaker: open; 1.5 min until one delivery probes billing"),
    "half-open": (
        queued(),
        receiver_state(ReceiverHealth(ramp=2, open_until_s=NOW - 1), in_flight=2),
        "breaker: half-open; billing gets 2 at a time until they succeed",
    ),
    "retry-after": (queued(), receiver_state(PAUSED), "Retry-After: billing asked for no requests for 2 h more"),
    "the-longer": (
        queued("retry", 60.0),
        receiver_state(OPEN),
        "breaker: open; 1.5 min until one delivery probes billing",
    ),
    "the-later": (queued("retry", 600.0), receiver_state(OPEN), "retry: next attempt in 10 min"),
    "in-flight": (
        queued(),
        receiver_state(in_flight=10),
        "in flight: billing gets 10 at a time, and 10 are in flight",
    ),
    "rate": (queued(), receiver_state(rate_per_s=2.0, tokens=0.4), "rate: billing gets 2 a second"),
    "rate-left": (
        queued(),
        receiver_state(rate_per_s=2.0, tokens=1.4),
        "nothing: a worker takes it when it has a free slot",
    ),
    "disabled": (
        queued("order"),
        receiver_state(**DISABLED),
        "billing is disabled: it failed for five days; the delivery will be put on hold",
    ),
    "held": (
        WaitingDelivery("held", None, 0.0),
        receiver_state(status="disabled", disabled_reason="maintenance"),
        "hold: billing is disabled: maintenance; enable it to send this",
    ),
    "forgotten": (
        WaitingDelivery("held", None, 0.0),
        receiver_state(),
        "hold: still on hold although billing is enabled; enable it once more to send this",
    ),
    "removed": (WaitingDelivery("held", None, 0.0), receiver_state(status="removed"), "hold: billing was removed"),
    "on-its-way": (WaitingDelivery("in_progress", None, 0.0), receiver_state(OPEN), None),
    "over": (WaitingDelivery("delivered", None, 0.0), receiver_state(), None),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_sentence_gives_the_reason_of_a_deliverys_wait(
    case: tuple[WaitingDelivery, ReceiverState, str | None],
) -> None:
    delivery, receiver, said = case
    assert why(delivery, receiver) == said


@pytest.mark.parametrize(
    ("receiver", "lines"),
    [
        (receiver_state(), ["breaker: closed"]),
        (receiver_state(**DISABLED), ["billing is disabled: it failed for five days"]),
        (receiver_state(ReceiverHealth(ramp=4, open_until_s=NOW - 1)), ["breaker: half-open; 4 at a time"]),
        (
            receiver_state(ReceiverHealth(failing_since_s=NOW - 86400 * 2, failed_attempts=7, forbidden_in_row=2)),
            [
                "breaker: closed",
                "failing for 2 d: 7 attempts since its last success; disabled after 5 d of failures",
                "address refused 2 times in a row; disabled when this lasts an hour",
            ],
        ),
    ],
    ids=["well", "disabled", "half-open", "failing"],
)
def test_it_is_said_how_a_receiver_is(receiver: ReceiverState, lines: list[str]) -> None:
    assert list(health_lines(receiver)) == lines


@pytest.mark.parametrize(
    ("seconds", "text"), [(-1, "0 s"), (59, "59 s"), (60, "1 min"), (5400, "1.5 h"), (1e6, "11.6 d")]
)
def test_a_span_of_time_is_short(seconds: float, text: str) -> None:
    assert words(seconds) == text
