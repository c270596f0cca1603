"""Decide the next step of a delivery after an attempt: delivered, another attempt, or the end. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from worker.core.lifecycle import CANCEL_DELIVERY, DELIVER, FAIL_DELIVERY, RETRY_DELIVERY, DeliveryOutcome, Move
from worker.webhooks.core.outcome import OURS, DeliveryErrorCode, ReceiverControl, SendResult, disable_reason
from worker.webhooks.core.payload import Variant
from worker.webhooks.core.retry_schedule import SCHEDULE_S, postponed_s, wait_s

# Seconds until a delivery starts again that a stopping worker gave back.
RELEASE_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class DeliveryDecision:
    """The next step of a delivery.

    `move` None: the lease is lost, so the delivery's row stays as it is and only the attempt's row is closed.
    `counts`: the attempt spends a step of the schedule. `delay_s`: seconds until the next attempt. `variant`: the body
    of the next attempt; None: as before. `affects_health`: the attempt is evidence about the receiver.
    """

    move: Move | None
    outcome: DeliveryOutcome
    counts: bool = True
    delay_s: float = 0.0
    variant: Variant | None = None
    affects_health: bool = True


DELIVERED: Final = DeliveryDecision(DELIVER, DeliveryOutcome.delivered)
FAILED: Final = DeliveryDecision(FAIL_DELIVERY, DeliveryOutcome.failed)
CANCELLED: Final = DeliveryDecision(CANCEL_DELIVERY, DeliveryOutcome.failed)


def decide(
    result: SendResult,
    *,
    used: int,
    left_s: float,
    variant: Variant,
    jitter: float,
    schedule: Sequence[float] = SCHEDULE_S,
    postponed: int = 0,
) -> DeliveryDecision:
    """Decide the next step of a delivery.

    `used`: attempts spent, this one included. `postponed`: earlier attempts that failed by our own fault. `left_s`:
    seconds to the delivery's deadline. `variant`: the body that was sent. `jitter`: a random number in [0, 1).
    `schedule`: seconds to wait after each failure but the last.
    """
    if result.error_code is None:
        return DELIVERED
    if disable_reason(result) is not None or result.control is ReceiverControl.abort_message:
        return CANCELLED
    if result.error_code is DeliveryErrorCode.no_body:
        return FAILED
    if result.error_code in OURS:
        delay_s = postponed_s(*OURS[result.error_code], postponed=postponed, jitter=jitter)
        return _postpone(delay_s) if delay_s < left_s else FAILED
    if used > len(schedule):
        return FAILED
    delay_s = wait_s(schedule[max(used - 1, 0)], retry_after_s=result.retry_after_s, jitter=jitter)
    if delay_s >= left_s:
        return FAILED
    too_large = result.error_code is DeliveryErrorCode.payload_too_large
    following = Variant.thin if too_large and variant is not Variant.openai else variant
    return DeliveryDecision(RETRY_DELIVERY, DeliveryOutcome.failed, delay_s=delay_s, variant=following)


def release(*, sent: bool, lease_lost: bool) -> DeliveryDecision:
    """Decide the next step of a delivery whose attempt we cut off: another attempt soon.

    The attempt spends a step of the schedule only if it was sent: the receiver may have the event.
    """
    return DeliveryDecision(
        None if lease_lost else RETRY_DELIVERY,
        DeliveryOutcome.unknown if sent else DeliveryOutcome.released,
        counts=sent,
        delay_s=RELEASE_S,
        affects_health=False,
    )


def _postpone(delay_s: float) -> DeliveryDecision:
    """Return the decision after a fault of ours: no step is spent, and the receiver's health stays as it is."""
    return DeliveryDecision(
        RETRY_DELIVERY, DeliveryOutcome.released, counts=False, delay_s=delay_s, affects_health=False
    )
