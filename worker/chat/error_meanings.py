"""Finds the ErrorCode of an endpoint's error from its names, then from its words. Used by `chat.error_response`.

Names go before the HTTP status, because gateways send permanent errors with 500 and used-up quotas with 403 or 429.
Words are ambiguous: rate limits mention a quota, and a 402 may concern a single request.
"""

import re
from typing import Final

from worker.chat.error_names import code_by_name, code_by_vague_name, is_resource_exhausted
from worker.chat.error_words import code_by_words
from worker.chat.provider_error import ProviderError
from worker.chat.rate_limit_headers import words_s
from worker.core.failure import ErrorCode

# Rate limits that mention a quota: Gemini's free tier, DashScope's tokens per minute.
_is_throttle: Final = re.compile(
    r"per[ _-]?(?:minute|second|min\b|sec\b)|\b[tr]p[ms]\b|error-code#(?:token|rate)-limit|throttl|ai\.google\.dev"
    r"|allocated quota exceeded|每分钟"
).search
# A quota that renews at the end of the day: Google's by its id, OpenRouter's free models.
_is_daily: Final = re.compile(r"per[ _-]?day|daily|free-models-per-day").search
# The credit does not cover this request, but may cover a smaller request (OpenRouter, Gatewayz), or the budget of the
# request's `user` is used up.
_for_this_request: Final = re.compile(
    r"fewer max_tokens\b(?!.{0,120}afford 0\b)|prompt tokens limit exceeded|credits? for this request"
    r"|end user=\S+ over budget"
).search
_mentions_money: Final = re.compile("credit|balance|fund|budget|spend|arrear|overdue|prepa").search
_is_out_of_money: Final = re.compile("insufficient|deplet|too low|arrear|overdue|suspended|used up|余额|欠费").search
_limit_and_requested: Final = re.compile(r"limit:? ([\d,]+)[^.]{0,60}?requested:? ([\d,]+)").search


def meaning(error: ProviderError, status: int) -> ErrorCode | None:
    """Return the code of an error by its names and words; None if only its status remains. `status` 0: unknown."""
    code = code_by_name(error.names)
    if (
        code is ErrorCode.quota_exhausted
        and status in (0, 403, 429)
        and _is_throttle(error.text)
        and not _renews_daily(error)
    ):
        code = ErrorCode.rate_limited
    if code is None:
        code = _by_words(error, status)
    if status == 402 and code in (None, ErrorCode.quota_exhausted) and (error.wait_s or words_s(error.text)):
        code = ErrorCode.rate_limited
    if code is ErrorCode.rate_limited and (status == 413 or _never_fits(error.text)):
        code = ErrorCode.request_too_large
    return code or code_by_vague_name(error.names, status)


def concerns_one_request(error: ProviderError) -> bool:
    """Say whether the missing credit concerns this request only: a smaller request, or another user's, would pass."""
    return _for_this_request(error.text) is not None


def _by_words(error: ProviderError, status: int) -> ErrorCode | None:
    code = code_by_words(error.text, status)
    if _renews_daily(error):
        is_limit = code is ErrorCode.rate_limited or (code is None and status == 429)
        return ErrorCode.quota_exhausted if is_limit else code
    return ErrorCode.rate_limited if code is ErrorCode.quota_exhausted and _comes_back_soon(error) else code


def _renews_daily(error: ProviderError) -> bool:
    return any(map(_is_daily, (error.text, *error.names)))


def _comes_back_soon(error: ProviderError) -> bool:
    """Say whether words about a quota mean a rate limit: by "per minute", a wait, or Google's RESOURCE_EXHAUSTED."""
    if _is_throttle(error.text):
        return True
    if error.wait_s or words_s(error.text):
        return not _is_out_of_money(error.text)
    return is_resource_exhausted(error.names) and not _mentions_money(error.text)


def _never_fits(text: str) -> bool:
    found = _limit_and_requested(text)
    if found is not None:
        return int(found[2].replace(",", "") or 0) > int(found[1].replace(",", "") or 0)
    return "request too large" in text
