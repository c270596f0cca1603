"""The result of an attempt to deliver a webhook: every error code with its meaning, and requests of the receiver. Pure.

`webhooks.net.send` returns a SendResult. `webhooks.core.retry` decides the next step, `receiver_health` updates the
receiver's health.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Literal

from worker.webhooks.core.retry_schedule import LONGEST_RETRY_AFTER_S


class DeliveryErrorCode(StrEnum):
    """Every way a delivery attempt can fail; a contract with the readers of `webhook_deliveries_v1`. It only grows."""

    # The receiver cannot have the event.
    target_forbidden = "target_forbidden"
    dns_failed = "dns_failed"
    dns_timeout = "dns_timeout"
    connect_failed = "connect_failed"
    connect_timeout = "connect_timeout"
    tls_failed = "tls_failed"
    invalid_header = "invalid_header"
    no_body = "no_body"
    # Nor in these cases, and the fault is ours: the attempt is not counted.
    dns_busy = "dns_busy"
    proxy_failed = "proxy_failed"
    out_of_resources = "out_of_resources"
    no_secret = "no_secret"  # noqa: S105 - the name of a failure
    internal_error = "internal_error"
    # The receiver may have the event.
    timeout = "timeout"
    connection_lost = "connection_lost"
    protocol_error = "protocol_error"
    worker_lost = "worker_lost"
    # The receiver has the event and refuses it.
    redirect_not_followed = "redirect_not_followed"
    gone = "gone"
    payload_too_large = "payload_too_large"
    rate_limited = "rate_limited"
    unavailable = "unavailable"
    http_error = "http_error"


@dataclass(frozen=True, slots=True)
class DeliveryCodeMeaning:
    """The meaning of a code.

    `receiver`: the evidence for the receiver's breaker: it does not answer, it answers, or none. Tenants read the
    sentence, so it contains no address.
    """

    receiver: Literal["down", "up", "unknown"]
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
        "unknown", "The body of the event is no longer stored; it was deleted."
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


# Faults of this service: seconds to the first attempt after one, and the longest wait.
OURS: Final[Mapping[DeliveryErrorCode, tuple[float, float]]] = {
    DeliveryErrorCode.dns_busy: (2.0, 60.0),
    DeliveryErrorCode.proxy_failed: (5.0, 300.0),
    DeliveryErrorCode.out_of_resources: (2.0, 60.0),
    DeliveryErrorCode.no_secret: (60.0, 600.0),
    DeliveryErrorCode.internal_error: (60.0, 600.0),
}


class ReceiverControl(StrEnum):
    """The values of a receiver's header `webhook-delivery`, with any status (a proposal of Standard Webhooks)."""

    disable = "disable"
    abort_message = "abort-message"


class DisableReason(StrEnum):
    """Why a receiver was disabled: it answered 410, it asked, it failed for days, its address is forbidden."""

    gone = "gone"
    asked = "asked"
    failing = "failing"
    forbidden = "forbidden"


@dataclass(frozen=True, slots=True)
class SendResult:
    """The reply to one attempt. `error_code` None: delivered.

    `sent`: the connection was made, so the receiver may have the event. `retry_after_s`: None also for a value that is
    unreadable or past. `dns_ms`, `connect_ms`, `tls_ms`, `ttfb_ms`: None if the step did not happen (a kept connection)
    or did not end; `tls_ms` is a part of `connect_ms`.
    `response_body`: the start of the body; `truncated`: there was more. Only the operator sees `peer`.
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


def disable_reason(result: SendResult) -> DisableReason | None:
    """Return the reason to disable the receiver, if this one answer is enough; None if not."""
    if result.error_code is DeliveryErrorCode.gone:
        return DisableReason.gone
    return DisableReason.asked if result.control is ReceiverControl.disable else None


def pause_s(result: SendResult) -> float:
    """Return for how long to send the receiver nothing: the Retry-After of a failure, at most 24 h."""
    asked_s = None if result.error_code is None else result.retry_after_s
    return min(LONGEST_RETRY_AFTER_S, asked_s or 0.0)


def http_code(status: int) -> DeliveryErrorCode | None:
    """Return the error code for the HTTP status of a final response; None for 2xx, the only success."""
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
