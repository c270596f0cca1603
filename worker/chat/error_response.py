"""Classifies an endpoint's errors: an HTTP status with a body, or an error inside an answer.

The order of precedence: `x-should-retry`, the error's names and words (`chat.error_meanings`), the status.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from worker.chat.error_meanings import concerns_one_request, meaning
from worker.chat.provider_error import ProviderError, describe, read_error
from worker.chat.rate_limit_headers import rate_limits, retry_after_s, words_s
from worker.core.failure import MEANINGS, Billed, ErrorCode, Failure, failure
from worker.core.storable_text import clean_json

# Requests. new-api answers 503 model_not_found while it switches channels: two more requests are worth it.
MODEL_NOT_FOUND_TRIES: Final = 3

_STATUS: Final[Mapping[int, ErrorCode]] = {
    400: ErrorCode.bad_request,
    401: ErrorCode.unauthorized,
    402: ErrorCode.quota_exhausted,
    403: ErrorCode.forbidden,
    404: ErrorCode.not_found,
    405: ErrorCode.bad_request,
    407: ErrorCode.proxy_failed,
    408: ErrorCode.request_timeout,
    409: ErrorCode.conflict,
    413: ErrorCode.request_too_large,
    415: ErrorCode.bad_request,
    422: ErrorCode.bad_request,
    424: ErrorCode.server_error,  # TGI: the generation failed
    425: ErrorCode.request_timeout,
    429: ErrorCode.rate_limited,
    451: ErrorCode.content_refused,
    460: ErrorCode.bad_gateway,  # Amazon's load balancer: its client, here the gateway, closed the connection
    498: ErrorCode.overloaded,  # Groq: no capacity for the flex tier
    499: ErrorCode.bad_gateway,  # Google under load, nginx
    502: ErrorCode.bad_gateway,
    503: ErrorCode.overloaded,
    504: ErrorCode.bad_gateway,
    529: ErrorCode.overloaded,
    530: ErrorCode.bad_gateway,
    598: ErrorCode.bad_gateway,
    599: ErrorCode.bad_gateway,
}
# 425 Too Early: the server did not process the request.
_BILLED: Final[Mapping[int, Billed]] = {425: "no"}
# Temporary errors: a wait in the body of another error is ignored.
_TEMPORARY: Final = frozenset(
    {
        ErrorCode.rate_limited,
        ErrorCode.overloaded,
        ErrorCode.server_error,
        ErrorCode.bad_gateway,
        ErrorCode.quota_exhausted,
    }
)
_OUR_FIELD: Final = "stream_options"


def from_response(status: int, headers: Mapping[str, str], body: bytes, *, now: datetime) -> Failure:
    """Classify a response with an error status. `headers` have lower-case names, `body` may be cut, empty or HTML."""
    error = read_error(body)
    found = _failure_of(error, meaning(error, status) or _by_status(status), status)
    found = replace(
        found,
        message=f"HTTP {status}: {MEANINGS[found.code].sentence}",
        http_status=status,
        billed=_BILLED.get(status, found.billed),
        retry_after_s=_wait_s(found.code, status, headers, error, now),
        names_our_usage=(400 <= status < 500 or found.code is ErrorCode.bad_request) and _OUR_FIELD.encode() in body,
    )
    should = headers.get("x-should-retry", "").strip().lower()
    return replace(found, retryable=should == "true") if should in ("true", "false") else found


def refuses_our_usage(found: Failure | None) -> bool:
    """Say whether an endpoint refuses `stream_options`; we add that field to get the usage of a stream."""
    return found is not None and found.names_our_usage


def from_answer(kind: str, provider: Any, *, produced: bool) -> Failure:
    """Build the failure of an incomplete answer with HTTP status 2xx.

    `kind` is an AnswerKind; each is also an ErrorCode. `provider` is the error value inside the answer, if any: its
    names and words decide the retry. `produced`: a part of the answer or its usage arrived.
    """
    found = replace(failure(ErrorCode(kind), produced=produced), provider=provider)
    if found.code is not ErrorCode.provider_error:
        return found
    error = describe(provider)
    code = meaning(error, error.status) or (_by_status(error.status) if error.status else None)
    if code is None:
        return found
    meant = _failure_of(error, code, error.status)
    return replace(
        found,
        message=f"{found.message} {MEANINGS[code].sentence}",
        retryable=meant.retryable,
        trouble=meant.trouble,
        tries=meant.tries,
        retry_after_s=_wait_in(error, code),
        names_our_usage=not meant.retryable and not produced and _OUR_FIELD in clean_json([provider]),
    )


def _failure_of(error: ProviderError, code: ErrorCode, status: int) -> Failure:
    """Build the failure of a code, with exceptions for this error."""
    found = replace(failure(code), provider=error.value)
    if code is ErrorCode.model_not_found and status >= 500:
        return replace(found, retryable=True, tries=MODEL_NOT_FOUND_TRIES)
    if code is ErrorCode.quota_exhausted and concerns_one_request(error):
        return replace(found, trouble="job")
    return found


def _by_status(status: int) -> ErrorCode:
    if status in _STATUS:
        return _STATUS[status]
    if 300 <= status < 400:
        return ErrorCode.redirected
    if 520 <= status < 530:  # Cloudflare: the origin did not answer
        return ErrorCode.bad_gateway
    return ErrorCode.server_error if status >= 500 else ErrorCode.http_error


def _wait_s(
    code: ErrorCode, status: int, headers: Mapping[str, str], error: ProviderError, now: datetime
) -> float | None:
    """Return Retry-After in seconds, else the wait in the body, else for 429 the longest reset of an empty bucket."""
    wait_s = retry_after_s(headers, now=now)
    if wait_s is None:
        wait_s = _wait_in(error, code)
    if wait_s is not None or status != 429:
        return wait_s
    limits = rate_limits(headers, now=now)
    resets = [limit.reset_s for limit in limits if limit.remaining == 0 and limit.reset_s is not None]
    return max(resets, default=None)


def _wait_in(error: ProviderError, code: ErrorCode) -> float | None:
    """Return the wait in seconds that an error names, in a member or in words."""
    if code not in _TEMPORARY:
        return None
    return error.wait_s if error.wait_s is not None else words_s(error.text)
