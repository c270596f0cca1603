"""Explains to an operator why a delivery waits and how healthy a receiver is, from the values dispatch uses. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from worker.webhooks.core.outcome import DELIVERY_MEANINGS, OURS, DeliveryErrorCode
from worker.webhooks.core.receiver_health import ReceiverHealth
from worker.webhooks.core.retry_schedule import HOUR_S

_UNITS: Final = ((24 * HOUR_S, "d"), (HOUR_S, "h"), (60.0, "min"))
DISABLED: Final = {
    "operator": "by an operator",
    "gone": "it answered 410 Gone",
    "asked": "it requested this with the header webhook-delivery",
    "failing": "it failed for five days",
    "forbidden": "webhooks may not go to its address",
}


@dataclass(frozen=True, slots=True)
class ReceiverState:
    """A receiver at the moment `now_s` (Unix time). `tokens`: left in its rate bucket, None without a rate."""

    name: str
    status: str
    disabled_reason: str | None
    health: ReceiverHealth
    in_flight: int
    limit: int
    rate_per_s: float | None
    tokens: float | None
    now_s: float


@dataclass(frozen=True, slots=True)
class WaitingDelivery:
    """A delivery that has not ended; `due_in_s` is negative when it is due."""

    status: str
    waiting_for: str | None
    due_in_s: float
    last_http_status: int | None = None
    last_error_code: str | None = None


def why(delivery: WaitingDelivery, receiver: ReceiverState) -> str | None:
    """Return what a delivery waits for, or None when it is in flight or has ended."""
    if delivery.status == "held":
        return _held(receiver)
    if delivery.status != "queued":
        return None
    if receiver.status != "enabled":
        return f"{_disabled(receiver)}; the delivery will be put on hold"
    if delivery.waiting_for == "order":
        return "order: an earlier delivery of its key has not ended"
    if delivery.due_in_s > 0 and delivery.due_in_s >= _paused_s(receiver):
        if trouble := own_trouble(delivery.last_error_code):
            return f"{trouble}: next try in {words(delivery.due_in_s)}, no attempt is spent"
        return f"retry: next attempt in {words(delivery.due_in_s)}{_after(delivery)}"
    return rest(receiver) or "nothing: a worker takes it when it has a free slot"


def own_trouble(code: str | None) -> str | None:
    """Return an error code of our own trouble with its sentence; None for any other code."""
    if code is None or code not in OURS:
        return None
    return f"our trouble: {code} ({DELIVERY_MEANINGS[DeliveryErrorCode(code)].sentence.rstrip('.')})"


def rest(receiver: ReceiverState) -> str | None:
    """Return why no delivery to an enabled receiver can start now, or None."""
    health, now_s = receiver.health, receiver.now_s
    if health.paused_until_s > max(now_s, health.open_until_s):
        return f"Retry-After: {receiver.name} asked for no requests for {words(health.paused_until_s - now_s)} more"
    if health.open_until_s > now_s:
        return f"breaker: open; {words(health.open_until_s - now_s)} until one delivery probes {receiver.name}"
    if health.ramp and receiver.in_flight >= health.ramp:
        return f"breaker: half-open; {receiver.name} gets {health.ramp} at a time until they succeed"
    if receiver.in_flight >= receiver.limit:
        return f"in flight: {receiver.name} gets {receiver.limit} at a time, and {receiver.limit} are in flight"
    if receiver.tokens is not None and receiver.tokens < 1:
        return f"rate: {receiver.name} gets {receiver.rate_per_s:g} a second"
    return None


def health_lines(receiver: ReceiverState) -> Iterator[str]:
    """Yield sentences about a receiver's health, at least one."""
    health, now_s = receiver.health, receiver.now_s
    if receiver.status == "disabled":
        yield _disabled(receiver)
    elif reason := rest(receiver):
        yield reason
    elif health.ramp:
        yield f"breaker: half-open; {health.ramp} at a time"
    else:
        yield "breaker: closed"
    if health.failing_since_s is not None:
        yield (
            f"failing for {words(now_s - health.failing_since_s)}: {health.failed_attempts} attempts since its last "
            "success; disabled after 5 d of failures"
        )
    if health.forbidden_in_row:
        yield f"address refused {health.forbidden_in_row} times in a row; disabled when this lasts an hour"


def words(seconds: float) -> str:
    """Format a duration: `45 s`, `12 min`, `3.5 h`, `2 d`."""
    for length, unit in _UNITS:
        if seconds >= length:
            return f"{round(seconds / length, 1):g} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def _held(receiver: ReceiverState) -> str:
    if receiver.status == "enabled":
        return f"hold: still on hold although {receiver.name} is enabled; enable it once more to send this"
    if receiver.status == "disabled":
        return f"hold: {_disabled(receiver)}; enable it to send this"
    return f"hold: {_disabled(receiver)}"


def _disabled(receiver: ReceiverState) -> str:
    if receiver.status == "removed":
        return f"{receiver.name} was removed"
    reason = receiver.disabled_reason or "operator"
    return f"{receiver.name} is disabled: {DISABLED.get(reason, reason)}"


def _paused_s(receiver: ReceiverState) -> float:
    return max(receiver.health.open_until_s, receiver.health.paused_until_s) - receiver.now_s


def _after(delivery: WaitingDelivery) -> str:
    if delivery.last_http_status is not None:
        return f", after HTTP {delivery.last_http_status}"
    return f", after {delivery.last_error_code}" if delivery.last_error_code else ""
