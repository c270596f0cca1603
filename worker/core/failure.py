"""Every way a job can fail, with its meaning: retried or not, trouble of the job or the endpoint, billed or not.

`jobs.net` and `run` build every Failure with the constructors here and in `chat.error_response`; `jobs.core.retry`
decides from it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final, Literal

Trouble = Literal["job", "endpoint"]
Billed = Literal["yes", "no", "unknown"]


class ErrorCode(StrEnum):
    """Every failure code. Readers of `jobs_v1.error_code` rely on them: codes are added, never changed or removed."""

    # At intake, and by the job's own lifecycle.
    invalid_request = "invalid_request"
    idempotency_conflict = "idempotency_conflict"
    unknown_endpoint = "unknown_endpoint"
    cancelled = "cancelled"
    expired = "expired"
    worker_lost = "worker_lost"
    internal_error = "internal_error"
    # Before the endpoint can see the request.
    connect_failed = "connect_failed"
    connect_timeout = "connect_timeout"
    dns_failed = "dns_failed"
    tls_failed = "tls_failed"
    proxy_failed = "proxy_failed"
    misconfigured = "misconfigured"
    out_of_resources = "out_of_resources"
    # After the request was sent, before an answer began.
    connection_lost = "connection_lost"
    first_byte_timeout = "first_byte_timeout"
    total_timeout = "total_timeout"
    protocol_error = "protocol_error"
    # While the answer arrived.
    idle_timeout = "idle_timeout"
    body_truncated = "body_truncated"
    invalid_encoding = "invalid_encoding"
    answer_too_large = "answer_too_large"
    provider_error = "provider_error"
    stream_truncated = "stream_truncated"
    missing_finish_reason = "missing_finish_reason"
    empty_stream = "empty_stream"
    invalid_chunk = "invalid_chunk"
    unexpected_content_type = "unexpected_content_type"
    # The endpoint refused the request.
    redirected = "redirected"
    bad_request = "bad_request"
    content_refused = "content_refused"
    context_too_long = "context_too_long"
    model_not_found = "model_not_found"
    not_found = "not_found"
    request_too_large = "request_too_large"
    unauthorized = "unauthorized"
    forbidden = "forbidden"
    quota_exhausted = "quota_exhausted"
    rate_limited = "rate_limited"
    request_timeout = "request_timeout"
    conflict = "conflict"
    overloaded = "overloaded"
    bad_gateway = "bad_gateway"
    server_error = "server_error"
    http_error = "http_error"


@dataclass(frozen=True, slots=True)
class CodeMeaning:
    """The meaning of a code on its own. `trouble` is "endpoint" if other jobs can be expected to fail there too."""

    retryable: bool
    trouble: Trouble
    billed: Billed
    sentence: str


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed attempt, or a refused job. `message` is a sentence of ours: it has no wire bytes and no secrets.

    `provider` is the endpoint's own error value as received (an object or a string). `retry_after_s` is the wait that
    the endpoint asks for. `tries` limits the requests of a job for this failure, even if `max_attempts` is higher.
    `names_our_usage`: the refusal mentions `stream_options`.
    """

    code: ErrorCode
    message: str
    retryable: bool
    trouble: Trouble
    billed: Billed
    http_status: int | None = None
    provider: Any = None
    retry_after_s: float | None = None
    tries: int | None = None
    names_our_usage: bool = False


def _job(sentence: str, *, retryable: bool, billed: Billed = "no") -> CodeMeaning:
    return CodeMeaning(retryable, "job", billed, sentence)


def _endpoint(sentence: str, *, retryable: bool = True) -> CodeMeaning:
    return CodeMeaning(retryable, "endpoint", "no", sentence)


MEANINGS: Final[Mapping[ErrorCode, CodeMeaning]] = {
    ErrorCode.invalid_request: _job("The job is not valid; each fault is listed with its path.", retryable=False),
    ErrorCode.idempotency_conflict: _job(
        "The idempotency key already belongs to another request; use a new key for a new request.", retryable=False
    ),
    ErrorCode.unknown_endpoint: _job(
        "The job names an endpoint this worker does not know; configure it or submit the job to another.",
        retryable=False,
    ),
    ErrorCode.cancelled: _job("The job was cancelled.", retryable=False),
    ErrorCode.expired: _job("The job's deadline passed before it was done.", retryable=False),
    ErrorCode.worker_lost: _job("The worker that ran this attempt disappeared.", retryable=True, billed="unknown"),
    ErrorCode.internal_error: _job(
        "The worker met an unexpected error; its log has the details.", retryable=True, billed="unknown"
    ),
    ErrorCode.connect_failed: _endpoint("The endpoint could not be reached: no connection was made."),
    ErrorCode.connect_timeout: _endpoint("The endpoint did not accept a connection in time (connect_s)."),
    ErrorCode.dns_failed: _endpoint(
        "The endpoint's host name could not be resolved; check the endpoint's URL and DNS."
    ),
    ErrorCode.tls_failed: _endpoint(
        "No trusted TLS connection could be made; check the endpoint's certificate, ca_file and cert_file."
    ),
    ErrorCode.proxy_failed: _endpoint("The endpoint's proxy could not be reached or refused the connection."),
    ErrorCode.misconfigured: _endpoint(
        "No request can be made from the endpoint's settings; check its url and headers.", retryable=False
    ),
    ErrorCode.out_of_resources: _job(
        "This worker has no file descriptors, ports or memory left for a connection; raise its limits (ulimit -n) or "
        "lower its concurrency.",
        retryable=True,
    ),
    ErrorCode.connection_lost: _job(
        "The connection was lost after the request was sent and before the answer began.",
        retryable=True,
        billed="unknown",
    ),
    ErrorCode.first_byte_timeout: _job(
        "The endpoint did not begin to answer in time (first_byte_s).", retryable=True, billed="unknown"
    ),
    ErrorCode.total_timeout: _job("The call did not end in time (timeout_s).", retryable=True, billed="unknown"),
    ErrorCode.protocol_error: _job(
        "The endpoint's answer breaks the rules of HTTP/1.1.", retryable=True, billed="unknown"
    ),
    ErrorCode.idle_timeout: _job(
        "The answer stopped: no data came for too long (idle_s).", retryable=True, billed="unknown"
    ),
    ErrorCode.body_truncated: _job(
        "The connection ended before the whole answer had come.", retryable=True, billed="unknown"
    ),
    ErrorCode.invalid_encoding: _job(
        "The answer's compression is unknown or its compressed bytes are damaged.",
        retryable=False,
        billed="unknown",
    ),
    ErrorCode.answer_too_large: _job(
        "The answer is larger than the endpoint's max_response_bytes allows, or has more parts than can be read.",
        retryable=False,
        billed="yes",
    ),
    ErrorCode.provider_error: _job(
        "The endpoint reported an error inside its answer.", retryable=True, billed="unknown"
    ),
    ErrorCode.stream_truncated: _job(
        "The stream ended before every choice had finished.", retryable=True, billed="unknown"
    ),
    ErrorCode.missing_finish_reason: _job(
        "The stream said [DONE] before every choice had a finish reason.", retryable=True, billed="unknown"
    ),
    ErrorCode.empty_stream: _job("The stream ended without a single choice.", retryable=True, billed="unknown"),
    ErrorCode.invalid_chunk: _job("A part of the answer is not a JSON object.", retryable=True, billed="unknown"),
    ErrorCode.unexpected_content_type: _job(
        "The endpoint answered with something that is not a chat completion; check the endpoint's URL.",
        retryable=False,
        billed="unknown",
    ),
    ErrorCode.redirected: _job(
        "The endpoint answered with a redirect; set its URL to the final address.", retryable=False
    ),
    ErrorCode.bad_request: _job("The endpoint refused the request as invalid.", retryable=False),
    ErrorCode.content_refused: _job("The endpoint refused the content of the request.", retryable=False),
    ErrorCode.context_too_long: _job("The request is longer than the model's context allows.", retryable=False),
    ErrorCode.model_not_found: _job("The endpoint does not know or does not offer the model.", retryable=False),
    ErrorCode.not_found: _job("The endpoint's address does not exist; check the endpoint's URL.", retryable=False),
    ErrorCode.request_too_large: _job("The request is larger than the endpoint accepts.", retryable=False),
    ErrorCode.unauthorized: _endpoint("The endpoint refused our key; check or renew it.", retryable=False),
    ErrorCode.forbidden: _job("The endpoint does not allow this request with our key.", retryable=False),
    ErrorCode.quota_exhausted: _endpoint("The endpoint's quota or credit is used up; top it up.", retryable=False),
    ErrorCode.rate_limited: _job("The endpoint's rate limit is reached.", retryable=True),
    ErrorCode.request_timeout: _job("The endpoint gave up waiting for the request.", retryable=True, billed="unknown"),
    ErrorCode.conflict: _job(
        "The endpoint says the request conflicts with one that is running.", retryable=True, billed="unknown"
    ),
    ErrorCode.overloaded: _job("The endpoint is overloaded or unavailable.", retryable=True),
    ErrorCode.bad_gateway: _job(
        "A gateway before the endpoint got no answer from it in time.", retryable=True, billed="unknown"
    ),
    ErrorCode.server_error: _job("The endpoint failed while it worked on the request.", retryable=True),
    ErrorCode.http_error: _job("The endpoint answered with an HTTP status that is no answer.", retryable=False),
}


def failure(code: ErrorCode, *, sent: bool = True, produced: bool = False) -> Failure:
    """Build the failure of a code, with the meaning from MEANINGS.

    `sent`: the endpoint may have seen the request; if not, nothing was billed. `produced`: a part of the answer or its
    usage arrived, so the attempt was billed.
    """
    meaning = MEANINGS[code]
    billed: Billed = "no" if not sent else "yes" if produced else meaning.billed
    return Failure(code, meaning.sentence, meaning.retryable, meaning.trouble, billed)


def interrupted(
    code: Literal[ErrorCode.cancelled, ErrorCode.expired, ErrorCode.worker_lost], *, sent: bool, produced: bool
) -> Failure:
    """Build the failure of a call that we ended. After the request was sent, `billed` is "yes" or "unknown"."""
    found = failure(code, sent=sent, produced=produced)
    return replace(found, billed="unknown") if sent and not produced else found


def under_policy(found: Failure, *, retry_partial: bool, retry_ambiguous: bool) -> Failure:
    """Apply the endpoint's two settings about paying twice.

    Without `retry_partial` a billed failure is not retried; without `retry_ambiguous` a failure with an unknown bill.
    """
    barred = (found.billed == "yes" and not retry_partial) or (found.billed == "unknown" and not retry_ambiguous)
    return replace(found, retryable=False) if barred else found
