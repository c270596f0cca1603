"""What an attempt to deliver a webhook came to, and what follows: delivered, another attempt, or the end. Pure.

`webhooks.net.send` fills a Sent; `run` asks `decide`, and `receiver_health` what the attempt says about the receiver.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Literal

from worker.webhooks.core.retry_schedule import LONGEST_RETRY_AFTER_S, SCHEDULE_S, postponed_s, wait_s

Variant = Literal["full", "thin"]
# What an outcome says about the receiver's breaker: it is not there, it is there, or nothing.
Receiver = Literal["down", "up", "unknown"]


class DeliveryErrorCode(StrEnum):
    """Every way a delivery attempt can fail; a contract with the readers of `webhook_deliveries_v1`. It only grows."""

    # The receiver cannot have it.
    target_forbidden = "target_forbidden"
    dns_failed = "dns_failed"
    dns_timeout = "dns_timeout"
    connect_failed = "connect_failed"
    connect_timeout = "connect_timeout"
    tls_failed = "tls_failed"
    invalid_header = "invalid_header"
    no_body = "no_body"
    # Nor can it, and the trouble is ours: it spends no attempt.
    dns_busy = "dns_busy"
    proxy_failed = "proxy_failed"
    out_of_resources = "out_of_resources"
    no_secret = "no_secret"  # noqa: S105 - the name of a failure
    internal_error = "internal_error"
    # It may have it.
    timeout = "timeout"
    connection_lost = "connection_lost"
    protocol_error = "protocol_error"
    worker_lost = "worker_lost"
    # It has it, and says no.
    redirect_not_followed = "redirect_not_followed"
    gone = "gone"
    payload_too_large = "payload_too_large"
    rate_limited = "rate_limited"
    unavailable = "unavailable"
    http_error = "http_error"


@dataclass(frozen=True, slots=True)
class DeliveryCodeMeaning:
    """What a code means. The sentence is the tenant's to read, so that it names no address."""

    receiver: Receiver
    sentence: str


DELIVERY_MEANINGS: Final[Mapping[DeliveryErrorCode, DeliveryCodeMeaning]] = {
    DeliveryErrorCode.target_forbidden: DeliveryCodeMeaning(
        "unknown", "Webhooks may not go to the receiver's address; give it a public one."
    ),
    DeliveryErrorCode.dns_failed: DeliveryCodeMeaning(
        "down", "The receiver's host name could not be resolved; check its URL and DNS."
    ),
    DeliveryErrorCode.dns_timeout: DeliveryCodeMeaning(
        "down", "The receiver's host name was not resolved in time; check its name servers."
    ),
    DeliveryErrorCode.connect_failed: DeliveryCodeMeaning(
        "down", "The receiver could not be reached: no connection was made."
    ),
    DeliveryErrorCode.connect_timeout: DeliveryCodeMeaning("down", "The receiver did not accept a connection in time."),
    DeliveryErrorCode.tls_failed: DeliveryCodeMeaning(
        "down", "No trusted TLS connection could be made; check the receiver's certificate."
    ),
    DeliveryErrorCode.invalid_header: DeliveryCodeMeaning(
        "unknown", "A header of the receiver cannot be sent; correct its headers."
    ),
    DeliveryErrorCode.no_body: DeliveryCodeMeaning(
        "unknown", "What was to be sent is no longer stored; somebody has deleted it."
    ),
    DeliveryErrorCode.dns_busy: DeliveryCodeMeaning(
        "unknown", "This service had no room to look up the receiver's host name; it tries again."
    ),
    DeliveryErrorCode.proxy_failed: DeliveryCodeMeaning(
        "unknown", "This service's own proxy led to no connection; it tries again."
    ),
    DeliveryErrorCode.out_of_resources: DeliveryCodeMeaning(
        "unknown", "This service had no room for another connection; it tries again."
    ),
    DeliveryErrorCode.no_secret: DeliveryCodeMeaning(
        "unknown", "This service could not open the receiver's secret; its operator must mend that."
    ),
    DeliveryErrorCode.internal_error: DeliveryCodeMeaning(
        "unknown", "This service failed before it sent anything; its log says how."
    ),
    DeliveryErrorCode.timeout: DeliveryCodeMeaning("down", "The receiver did not answer in time."),
    DeliveryErrorCode.connection_lost: DeliveryCodeMeaning(
        "down", "The connection was lost before the receiver answered."
    ),
    DeliveryErrorCode.protocol_error: DeliveryCodeMeaning(
        "down", "The receiver's answer breaks the rules of HTTP/1.1."
    ),
    DeliveryErrorCode.worker_lost: DeliveryCodeMeaning("unknown", "The worker that made this attempt disappeared."),
    DeliveryErrorCode.redirect_not_followed: DeliveryCodeMeaning(
        "up", "The receiver answered with a redirect, which is not followed; set its URL to the final address."
    ),
    DeliveryErrorCode.gone: DeliveryCodeMeaning("up", "The receiver answered 410 Gone, which disables it."),
    DeliveryErrorCode.payload_too_large: DeliveryCodeMeaning(
        "up", "The receiver answered 413: the body is too large for it."
    ),
    DeliveryErrorCode.rate_limited: DeliveryCodeMeaning("down", "The receiver answered 429: it takes no more for now."),
    DeliveryErrorCode.unavailable: DeliveryCodeMeaning(
        "down", "The receiver, or a gateway before it, answered 502, 503 or 504."
    ),
    DeliveryErrorCode.http_error: DeliveryCodeMeaning(
        "up", "The receiver answered with an HTTP status that is no success."
    ),
}


# Our own trouble, of which the receiver knows nothing: seconds to the first try after it, and the longest wait.
OURS: Final[Mapping[DeliveryErrorCode, tuple[float, float]]] = {
    DeliveryErrorCode.dns_busy: (2.0, 60.0),
    DeliveryErrorCode.proxy_failed: (5.0, 300.0),
    DeliveryErrorCode.out_of_resources: (2.0, 60.0),
    DeliveryErrorCode.no_secret: (60.0, 600.0),
    DeliveryErrorCode.internal_error: (60.0, 600.0),
}


class ReceiverControl(StrEnum):
    """What a receiver may say in the header `webhook-delivery`, with any status (a proposal of Standard Webhooks)."""

    disable = "disable"
    abort_message = "abort-message"


class DisableReason(StrEnum):
    """Why a receiver was disabled: it answered 410, it asked for it, it failed for days, its address is forbidden."""

    gone = "gone"
    asked = "asked"
    failing = "failing"
    forbidden = "forbidden"


@dataclass(frozen=True, slots=True)
class SendResult:
    """What one attempt came to. `error_code` None: delivered.

    `sent`: connect returned, so the receiver may have it. `retry_after_s`: None also for what is garbage or past. The
    parts of the time are milliseconds, None where there was no such part (a kept connection) or it did not end;
    `tls_ms` is a part of `connect_ms`.
    `response_body` is the start of the body as it came, `truncated` if more followed. `peer` is for the operator only.
    """

    sent: bool
    error_code: DeliveryErrorCode | None
    http_status: int | None = None
    retry_after_s: float | None = None
    control: ReceiverControl | None = None
    elapsed_s: float = 0.0
    dns_ms: int | None = None
    connect_ms: int | None = None
    tls_ms: int | None = None
    ttfb_ms: int | None = None
    response_headers: Mapping[str, str] = field(default_factory=dict)
    response_body: bytes = b""
    truncated: bool = False
    peer: str | None = None


@dataclass(frozen=True, slots=True)
class Delivered:
    """The receiver has it. `disable_reason`: it also asked to be disabled."""

    disable_reason: DisableReason | None = None


@dataclass(frozen=True, slots=True)
class Retry:
    """Try again after `delay_s` with this `variant` of the body; send the receiver nothing for `pause_receiver_s`."""

    delay_s: float
    pause_receiver_s: float
    variant: Variant


@dataclass(frozen=True, slots=True)
class Postpone:
    """Try again after `delay_s`, for the trouble was ours: no attempt is spent, the receiver is not judged."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class Give_up:
    """Fail the delivery: the schedule is used up, the next attempt would miss the deadline, or its body is gone."""

    reason: Literal["attempts", "deadline", "body"]


@dataclass(frozen=True, slots=True)
class Cancel:
    """Cancel the delivery, as the receiver wishes, and disable the receiver if there is a reason."""

    disable_reason: DisableReason | None = None


Decision = Delivered | Retry | Postpone | Give_up | Cancel


def decide(
    sent: SendResult,
    *,
    used: int,
    left_s: float,
    variant: Variant,
    jitter: float,
    schedule: Sequence[float] = SCHEDULE_S,
    postponed: int = 0,
) -> Decision:
    """Say what follows an attempt.

    `used`: attempts spent, this one included. `postponed`: attempts before it that our own trouble ended. `left_s`:
    seconds to the delivery's deadline. `variant`: the body that was sent. `jitter`: chance in [0, 1). `schedule`:
    seconds to wait after each failure but the last.
    """
    reason = disable_reason(sent)
    if sent.error_code is None:
        return Delivered(reason)
    if reason is not None or sent.control is ReceiverControl.abort_message:
        return Cancel(reason)
    if sent.error_code is DeliveryErrorCode.no_body:
        return Give_up("body")
    if sent.error_code in OURS:
        delay_s = postponed_s(*OURS[sent.error_code], postponed=postponed, jitter=jitter)
        return Postpone(delay_s) if delay_s < left_s else Give_up("deadline")
    if used > len(schedule):
        return Give_up("attempts")
    delay_s = wait_s(schedule[max(used - 1, 0)], retry_after_s=sent.retry_after_s, jitter=jitter)
    if delay_s >= left_s:
        return Give_up("deadline")
    too_large = sent.error_code is DeliveryErrorCode.payload_too_large
    return Retry(delay_s, pause_s(sent), "thin" if too_large else variant)


def disable_reason(sent: SendResult) -> DisableReason | None:
    """Return the reason to disable the receiver that this one answer gives."""
    if sent.error_code is DeliveryErrorCode.gone:
        return DisableReason.gone
    return DisableReason.asked if sent.control is ReceiverControl.disable else None


def pause_s(sent: SendResult) -> float:
    """Return for how long nothing should go to the receiver: what it asked for with a failure, at most 24 h."""
    asked = None if sent.error_code is None else sent.retry_after_s
    return min(LONGEST_RETRY_AFTER_S, asked or 0.0)


def http_code(status: int) -> DeliveryErrorCode | None:
    """Return the code of the status of a final response; None for success, which is 2xx and nothing else."""
    match status:
        case 410:
            return DeliveryErrorCode.gone
        case 413:
            return DeliveryErrorCode.payload_too_large
        case 429:
            return DeliveryErrorCode.rate_limited
        case 502 | 503 | 504:
            return DeliveryErrorCode.unavailable
    if 200 <= status < 300:
        return None
    if status < 200:
        return DeliveryErrorCode.protocol_error
    return DeliveryErrorCode.redirect_not_followed if status < 400 else DeliveryErrorCode.http_error
