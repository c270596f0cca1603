"""The health of a receiver: its breaker, its warnings, and the rules that disable it. Pure.

The store keeps a ReceiverHealth in the column `receivers.health`, applies each result with `health_after`, and calls
`room` before it claims.
"""

from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from worker.webhooks.core.outcome import (
    DELIVERY_MEANINGS,
    OURS,
    DeliveryErrorCode,
    DisableReason,
    SendResult,
    disable_reason,
    pause_s,
)
from worker.webhooks.core.retry_schedule import HOUR_S

OPENS_AT_IN_ROW: Final = 5
# The window slides by one bucket: it holds all results of the last 50 s and none older than 60 s.
WINDOW_BUCKETS: Final = 6
BUCKET_S: Final = 10.0
WINDOW_RESULTS: Final = 20
WINDOW_SHARE: Final = 0.5
FIRST_OPEN_S: Final = 30.0
LONGEST_OPEN_S: Final = 600.0
FULL_RAMP: Final = 4
WARNINGS_H: Final = (24, 72)
DISABLED_AFTER_S: Final = 5 * 24 * HOUR_S
DISABLED_AFTER_ATTEMPTS: Final = 10
EVENTS_APART_S: Final = 12 * HOUR_S
FORBIDDEN_IN_ROW: Final = 3
FORBIDDEN_FOR_S: Final = HOUR_S


class Bucket(NamedTuple):
    """The results of ten seconds. `number`: Unix time divided by BUCKET_S. `down`: results against the receiver."""

    number: int
    results: int
    down: int


@dataclass(frozen=True, slots=True)
class ReceiverHealth:
    """The history of a receiver's attempts. New and re-enabled receivers have the defaults.

    `_until_s`, `_since_s` and `_event_s`: Unix time by the database's clock. `ramp` 0: the breaker is closed; 1, 2 or
    4: it is open until `open_until_s`, and then allows that many deliveries in flight. `window`: results of the last
    minute while the breaker is closed, oldest bucket first. `oldest_event_s` and `newest_event_s`: creation of the
    first and the last event that failed since the last success. `warned_h` becomes 24, then 72; `disabled` is the
    reason. The caller reports a change of either.
    """

    down_in_row: int = 0
    window: tuple[Bucket, ...] = ()
    ramp: int = 0
    open_until_s: float = 0.0
    open_s: float = 0.0
    paused_until_s: float = 0.0
    failing_since_s: float | None = None
    failed_attempts: int = 0
    oldest_event_s: float | None = None
    newest_event_s: float | None = None
    warned_h: int = 0
    forbidden_in_row: int = 0
    forbidden_since_s: float | None = None
    disabled: DisableReason | None = None


def health_after(health: ReceiverHealth, result: SendResult, *, now_s: float, event_at_s: float) -> ReceiverHealth:
    """Return the health after an attempt that ended at `now_s` for an event made at `event_at_s`."""
    health = _move_breaker(health, result.error_code, now_s)
    health = _update_failing_span(health, result.error_code, now_s, event_at_s)
    health = _count_forbidden(health, result.error_code, now_s)
    if pause := pause_s(result):
        health = replace(health, paused_until_s=max(health.paused_until_s, now_s + pause))
    return replace(health, disabled=health.disabled or disable_reason(result) or _failed_for_days(health, now_s))


def room(health: ReceiverHealth, *, limit: int, in_flight: int, now_s: float) -> int:
    """Return how many more deliveries to the receiver may start. `limit`: the most in flight."""
    if health.disabled is not None or now_s < resting_until_s(health):
        return 0
    return max(0, (min(limit, health.ramp) if health.ramp else limit) - in_flight)


def resting_until_s(health: ReceiverHealth) -> float:
    """Return the instant before which no delivery may start: the breaker is open, or a Retry-After lasts."""
    return max(health.open_until_s, health.paused_until_s)


def _move_breaker(health: ReceiverHealth, code: DeliveryErrorCode | None, now_s: float) -> ReceiverHealth:
    """Return the health with the breaker moved: closed, open, or half-open (open, and its time has passed)."""
    evidence = "up" if code is None else DELIVERY_MEANINGS[code].receiver
    if evidence == "unknown":
        return health
    if health.ramp == 0:
        return _count_result(health, now_s, down=evidence == "down")
    if evidence == "down":
        # A failure before `open_until_s` is of a delivery that began before the breaker opened: it does not count.
        return _open_breaker(health, now_s) if now_s >= health.open_until_s else health
    if now_s < health.open_until_s and code is not None:
        return health
    if health.ramp < FULL_RAMP:
        return replace(health, ramp=health.ramp * 2, open_until_s=min(health.open_until_s, now_s))
    return replace(health, ramp=0, open_until_s=0.0, open_s=0.0)


def _count_result(health: ReceiverHealth, now_s: float, *, down: bool) -> ReceiverHealth:
    """Return the health of a closed breaker with one more result in its window."""
    window = _slide_window(health.window, now_s, down=down)
    counted = replace(health, down_in_row=health.down_in_row + 1 if down else 0, window=window)
    results, failed = sum(bucket.results for bucket in window), sum(bucket.down for bucket in window)
    failing = results >= WINDOW_RESULTS and failed >= WINDOW_SHARE * results
    return _open_breaker(counted, now_s) if down and (failing or counted.down_in_row >= OPENS_AT_IN_ROW) else counted


def _slide_window(window: tuple[Bucket, ...], now_s: float, *, down: bool) -> tuple[Bucket, ...]:
    """Return the window with one more result and without buckets that are too old."""
    last = window[-1] if window else None
    # Results may be written out of order: a late one counts in the latest bucket.
    number = int(now_s // BUCKET_S) if last is None else max(last.number, int(now_s // BUCKET_S))
    current = last if last is not None and last.number == number else Bucket(number, 0, 0)
    kept = (bucket for bucket in window if number - WINDOW_BUCKETS < bucket.number < number)
    return (*kept, Bucket(number, current.results + 1, current.down + down))


def _open_breaker(health: ReceiverHealth, now_s: float) -> ReceiverHealth:
    open_s = min(LONGEST_OPEN_S, health.open_s * 2 or FIRST_OPEN_S)
    return replace(
        health,
        ramp=1,
        open_s=open_s,
        open_until_s=now_s + open_s,
        down_in_row=0,
        window=(),
    )


def _update_failing_span(
    health: ReceiverHealth, code: DeliveryErrorCode | None, now_s: float, event_at_s: float
) -> ReceiverHealth:
    """Return the health with the span of failures updated, and the warning that is due."""
    if code is None:
        return replace(
            health, failing_since_s=None, failed_attempts=0, oldest_event_s=None, newest_event_s=None, warned_h=0
        )
    if DELIVERY_MEANINGS[code].receiver == "unknown":  # our own fault
        return health
    since = now_s if health.failing_since_s is None else health.failing_since_s
    due = [hours for hours in WARNINGS_H if now_s - since >= hours * HOUR_S]
    return replace(
        health,
        failing_since_s=since,
        failed_attempts=health.failed_attempts + 1,
        oldest_event_s=event_at_s if health.oldest_event_s is None else min(health.oldest_event_s, event_at_s),
        newest_event_s=event_at_s if health.newest_event_s is None else max(health.newest_event_s, event_at_s),
        warned_h=max([health.warned_h, *due]),
    )


def _count_forbidden(health: ReceiverHealth, code: DeliveryErrorCode | None, now_s: float) -> ReceiverHealth:
    if code is not DeliveryErrorCode.target_forbidden:
        is_ours = code in (
            *OURS,
            DeliveryErrorCode.worker_lost,
            DeliveryErrorCode.invalid_header,
            DeliveryErrorCode.no_body,
        )
        return health if is_ours else replace(health, forbidden_in_row=0, forbidden_since_s=None)
    since = now_s if health.forbidden_since_s is None else health.forbidden_since_s
    in_row = health.forbidden_in_row + 1
    lasting = in_row >= FORBIDDEN_IN_ROW and now_s - since > FORBIDDEN_FOR_S
    disabled = health.disabled or (DisableReason.forbidden if lasting else None)
    return replace(health, forbidden_in_row=in_row, forbidden_since_s=since, disabled=disabled)


def _failed_for_days(health: ReceiverHealth, now_s: float) -> DisableReason | None:
    """Return `failing` after days of failures with many attempts, for events of different times; never by count alone.

    The failed events must be at least 12 hours apart: one burst that fails for days disables no receiver.
    """
    if health.failing_since_s is None or health.oldest_event_s is None or health.newest_event_s is None:
        return None
    lasting = now_s - health.failing_since_s >= DISABLED_AFTER_S
    apart = health.newest_event_s - health.oldest_event_s >= EVENTS_APART_S
    return DisableReason.failing if lasting and apart and health.failed_attempts >= DISABLED_AFTER_ATTEMPTS else None
