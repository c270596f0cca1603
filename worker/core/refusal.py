"""Classifies what an endpoint says when it refuses: an HTTP status with a body, or an error inside an answer.

In this order: `x-should-retry`, the error's own code and type, the status. A code comes before the status because
gateways send permanent errors under 500 and exhausted quotas under 403 or 429.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from worker.core.failure import FATES, Code, Failure, failure
from worker.core.hints import rate_limits, retry_after_s

# new-api answers 503 model_not_found while its channels are being switched: two more requests are worth it.
MODEL_NOT_FOUND_TRIES: Final = 3

_NAMED: Final[Mapping[str, Code]] = {
    "invalid_api_key": Code.unauthorized,
    "authentication_error": Code.unauthorized,
    "access_denied": Code.forbidden,
    "model_not_found": Code.model_not_found,
    "rate_limit_exceeded": Code.rate_limited,
    "rate_limit_error": Code.rate_limited,
    "slow_down": Code.rate_limited,
    "overloaded_error": Code.overloaded,
    **dict.fromkeys(
        (
            "insufficient_quota",
            "insufficient_user_quota",
            "pre_consume_token_quota_failed",
            "credit_balance_exhausted",
            "organization_spend_limit_exceeded",
            "project_spend_limit_exceeded",
            "organization_usage_limit_exceeded",
            "billing_hard_limit_reached",
        ),
        Code.quota_exhausted,
    ),
    **dict.fromkeys(
        ("context_length_exceeded", "exceed_context_size_error", "string_above_max_length"), Code.context_too_long
    ),
    **dict.fromkeys(
        ("content_policy_violation", "content_filter", "sensitive_words_detected", "prompt_blocked"),
        Code.content_refused,
    ),
    **dict.fromkeys(
        ("unsupported_parameter", "bad_request_body", "convert_request_failed", "model_price_error"), Code.bad_request
    ),
}
_BAD_REQUEST_PREFIXES: Final = ("invalid_request", "invalid_parameter", "unknown_parameter")

_STATUS: Final[Mapping[int, Code]] = {
    400: Code.bad_request,
    401: Code.unauthorized,
    402: Code.quota_exhausted,
    403: Code.forbidden,
    404: Code.not_found,
    405: Code.bad_request,
    408: Code.request_timeout,
    409: Code.conflict,
    413: Code.request_too_large,
    415: Code.bad_request,
    422: Code.bad_request,
    425: Code.request_timeout,
    429: Code.rate_limited,
    502: Code.bad_gateway,
    503: Code.overloaded,
    504: Code.bad_gateway,
    529: Code.overloaded,
}
# Statuses that say more than the vague type "invalid_request_error", which OpenAI sends with all of them.
_TELLING: Final = frozenset({401, 402, 403, 404, 408, 409, 413, 425, 429})


@dataclass(frozen=True, slots=True)
class ProviderError:
    """An endpoint's error: `value` is its own JSON value or text, `code` and `type` lower-case names out of it."""

    value: Any
    code: str | None
    type: str | None


def from_response(status: int, headers: Mapping[str, str], body: bytes, *, now: datetime) -> Failure:
    """Classify a refusal by HTTP status; `headers` have lower-case names, `body` may be cut, empty or HTML."""
    error = read_error(body)
    code = _by_name(error, status) or _by_status(status)
    found = replace(
        failure(code),
        message=f"HTTP {status}: {FATES[code].sentence}",
        http_status=status,
        provider=error.value,
        retry_after_s=_wait_s(status, headers, now),
    )
    if code is Code.model_not_found and status >= 500:
        found = replace(found, retryable=True, tries=MODEL_NOT_FOUND_TRIES)
    should = headers.get("x-should-retry", "").strip().lower()
    return replace(found, retryable=should == "true") if should in ("true", "false") else found


def refuses_our_usage(found: Failure | None) -> bool:
    """Say whether an endpoint refuses `stream_options`, which we have added to ask for the usage of a stream."""
    if found is None or found.http_status not in (400, 422):
        return False
    told = found.provider
    if not isinstance(told, dict):
        return isinstance(told, str) and "stream_options" in told
    said = [told.get(name) for name in ("message", "detail")]
    return told.get("param") == "stream_options" or any(
        isinstance(one, str) and "stream_options" in one for one in said
    )


def from_answer(kind: str, provider: Any, *, produced: bool) -> Failure:
    """Build the failure of an answer under 2xx that is no complete answer.

    `kind` is one of `core.answer.Kind`, each also a Code. `provider` is the error value found inside; what it says
    decides the retry. `produced`: a part of the answer or its usage came.
    """
    found = replace(failure(Code(kind), produced=produced), provider=provider)
    if found.code is not Code.provider_error:
        return found
    error = _named(provider)
    status = int(error.code) if error.code and error.code.isascii() and error.code.isdecimal() else 0
    code = _by_name(error, 0) or (_by_status(status) if 400 <= status < 600 else None)
    if code is None:
        return found
    fate = FATES[code]
    return replace(found, message=f"{found.message} {fate.sentence}", retryable=fate.retryable, trouble=fate.trouble)


def read_error(body: bytes) -> ProviderError:
    """Read an error body of any shape: `{"error": {...}}` or a string, the fields at the top, `{"detail"}`, a list."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return ProviderError(None, None, None)  # HTML, empty, cut: the raw body is kept elsewhere
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, dict) and value.get("error"):
        inner = value["error"]
        # {"error": "text", "message", "status"} says more at the top than in the string.
        return _named(inner) if isinstance(inner, dict) else replace(_named(value), value=inner)
    return _named(value)


def _named(value: Any) -> ProviderError:
    if not isinstance(value, dict):
        return ProviderError(value, None, None)
    return ProviderError(value, _name(value.get("code")), _name(value.get("type")))


def _name(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    try:
        return str(value).strip().lower() or None
    except ValueError:  # an integer of more digits than Python turns into text
        return None


def _by_name(error: ProviderError, status: int) -> Code | None:
    for name in (error.code, error.type):
        if name is not None and name in _NAMED:
            return _NAMED[name]
    if error.code and error.code.startswith(_BAD_REQUEST_PREFIXES):
        return _by_status(status) if status in (401, 402, 403, 404, 413) else Code.bad_request
    if error.type and error.type.startswith(_BAD_REQUEST_PREFIXES) and status not in _TELLING:
        return Code.bad_request
    return None


def _by_status(status: int) -> Code:
    if status in _STATUS:
        return _STATUS[status]
    if 300 <= status < 400:
        return Code.redirected
    if 520 <= status < 530:  # Cloudflare's: the origin did not answer
        return Code.bad_gateway
    return Code.server_error if status >= 500 else Code.http_error


def _wait_s(status: int, headers: Mapping[str, str], now: datetime) -> float | None:
    """Return Retry-After, else for a 429 the longest reset among the buckets that are empty."""
    asked = retry_after_s(headers, now=now)
    if asked is not None or status != 429:
        return asked
    resets = [limit.reset_s for limit in rate_limits(headers) if limit.remaining == 0 and limit.reset_s is not None]
    return max(resets, default=None)
