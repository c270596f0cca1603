"""Classifies what an endpoint says when it refuses: an HTTP status with a body, or an error inside an answer.

In this order: `x-should-retry`, the error's own names and words (`chat.error_meanings`), the status.
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

# new-api answers 503 model_not_found while its channels are being switched: two more requests are worth it.
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
    460: ErrorCode.bad_gateway,  # a load balancer of Amazon's: the client, here the gateway, has left
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
# Too early: it was not looked at.
_BILLED: Final[Mapping[int, Billed]] = {425: "no"}
# What may come again by itself, so that a wait asked for in the body is one.
_PASSING: Final = frozenset(
    {
        ErrorCode.rate_limited,
        ErrorCode.overloaded,
        ErrorCode.server_error,
        ErrorCode.bad_gateway,
        ErrorCode.quota_exhausted,
    }
)
_OURS: Final = "stream_options"


def from_response(status: int, headers: Mapping[str, str], body: bytes, *, now: datetime) -> Failure:
    """Classify a refusal by HTTP status; `headers` have lower-case names, `body` may be cut, empty or HTML."""
    error = read_error(body)
    found = _failure_of(error, meaning(error, status) or _by_status(status), status)
    found = replace(
        found,
        message=f"HTTP {status}: {MEANINGS[found.code].sentence}",
        http_status=status,
        billed=_BILLED.get(status, found.billed),
        retry_after_s=_wait_s(found.code, status, headers, error, now),
        names_our_usage=(400 <= status < 500 or found.code is ErrorCode.bad_request) and _OURS.encode() in body,
    )
    should = headers.get("x-should-retry", "").strip().lower()
    return replace(found, retryable=should == "true") if should in ("true", "false") else found


def refuses_our_usage(found: Failure | None) -> bool:
    """Say whether an endpoint refuses `stream_options`, which we have added to ask for the usage of a stream."""
    return found is not None and found.names_our_usage


def from_answer(kind: str, provider: Any, *, produced: bool) -> Failure:
    """Build the failure of an answer under 2xx that is no complete answer.

    `kind` is one of `chat.answer.Kind`, each also a Code. `provider` is the error value found inside; what it says
    decides the retry. `produced`: a part of the answer or its usage came.
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
        retry_after_s=_asked_in(error, code),
        names_our_usage=not meant.retryable and not produced and _OURS in clean_json([provider]),
    )


def _failure_of(error: ProviderError, code: ErrorCode, status: int) -> Failure:
    """Build the failure that a code means in this error."""
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
    if 520 <= status < 530:  # Cloudflare's: the origin did not answer
        return ErrorCode.bad_gateway
    return ErrorCode.server_error if status >= 500 else ErrorCode.http_error


def _wait_s(
    code: ErrorCode, status: int, headers: Mapping[str, str], error: ProviderError, now: datetime
) -> float | None:
    """Return Retry-After, else what the body asks for, else the longest reset among a 429's buckets that are empty."""
    asked = retry_after_s(headers, now=now)
    if asked is None:
        asked = _asked_in(error, code)
    if asked is not None or status != 429:
        return asked
    limits = rate_limits(headers, now=now)
    resets = [limit.reset_s for limit in limits if limit.remaining == 0 and limit.reset_s is not None]
    return max(resets, default=None)


def _asked_in(error: ProviderError, code: ErrorCode) -> float | None:
    """Return the wait that an error itself asks for, in a member or in words."""
    if code not in _PASSING:
        return None
    return error.wait_s if error.wait_s is not None else words_s(error.text)
