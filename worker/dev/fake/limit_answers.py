"""Fake endpoint: the rate-limit headers and the 429 bodies of providers, in the words that their users report."""

import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from worker.dev.fake.answers import encode
from worker.dev.fake.limiter import Demand, LimitCounters, LimitRefusal, ShownAllowance
from worker.dev.fake.plan import JSON, Plan

WORDS: Mapping[str, tuple[str, str]] = {
    "requests_per_minute": ("requests per min (RPM)", "requests"),
    "tokens_per_minute": ("tokens per min (TPM)", "tokens"),
    "input_tokens_per_minute": ("input tokens per min (ITPM)", "input_tokens"),
    "output_tokens_per_minute": ("output tokens per min (OTPM)", "output_tokens"),
    "max_in_flight": ("concurrent requests", "requests"),
}
HELP = "Visit https://platform.openai.com/account/rate-limits to learn more."
DETAILS = "For details, refer to: https://docs.claude.com/en/api/rate-limits."
QUOTA_IDS: Mapping[str, str] = {
    "requests_per_minute": "GenerateRequestsPerMinutePerProjectPerModel",
    "output_tokens_per_minute": "GenerateContentOutputTokensPerModelPerMinute",
    "max_in_flight": "GenerateContentConcurrentRequestsPerProjectPerModel",
}
INPUT_QUOTA_ID = "GenerateContentInputTokensPerModelPerMinute"


def refused(
    refusal: LimitRefusal, demand: Demand, groups: Iterable[LimitCounters], now: float
) -> tuple[Plan, float | None]:
    """Return the 429 in the form of the limit's provider, and the wait in seconds that it asks for."""
    wait_s = _hint_s(refusal)
    headers = {"Content-Type": JSON, **limit_headers(groups, now)}
    if wait_s is not None and refusal.limit.provider != "gemini":
        is_whole = wait_s == int(wait_s)
        headers["Retry-After"] = str(int(wait_s)) if is_whole else str(wait_s)
        if refusal.limit.retry_after == "ms":
            headers |= {"Retry-After": str(math.ceil(wait_s)), "retry-after-ms": str(math.ceil(wait_s * 1000))}
    return Plan(429, headers, (encode(_body(refusal, demand, wait_s)),)), wait_s


def _hint_s(refusal: LimitRefusal) -> float | None:
    """Return the wait to ask for. None: the request never fits, or the limit gives no hint."""
    wanted = refusal.limit.retry_after
    if wanted == "none" or math.isinf(refusal.wait_s):
        return None
    if not isinstance(wanted, str):
        return float(wanted)
    is_exact = wanted == "ms" or refusal.limit.provider == "gemini"
    return math.ceil(refusal.wait_s * 1000) / 1000 if is_exact else float(math.ceil(refusal.wait_s))


def _body(refusal: LimitRefusal, demand: Demand, wait_s: float | None) -> object:
    match refusal.limit.provider:
        case "anthropic":
            return {"type": "error", "error": {"type": "rate_limit_error", "message": _anthropic(refusal)}}
        case "azure":
            return {"error": {"code": "429", "message": _azure(refusal, wait_s)}}
        case "gemini":
            return [{"error": _gemini(refusal, wait_s)}]
        case "new-api":
            message = f"您已达到请求数限制：1分钟内最多请求{refusal.allowed:.0f}次"
            return {"error": {"message": message, "type": "new_api_error", "param": "", "code": ""}}
        case _:
            kind = WORDS[refusal.name][1]
            message = _openai(refusal, demand.model, wait_s)
            return {"error": {"message": message, "type": kind, "param": None, "code": "rate_limit_exceeded"}}


def _openai(refusal: LimitRefusal, model: str, wait_s: float | None) -> str:
    # BuilderIO/micro-agent#86; for a request that never fits TheR1D/shell_gpt#653.
    place = f"{model} in organization org-fake on {WORDS[refusal.name][0]}: Limit {refusal.allowed:.0f}"
    if math.isinf(refusal.wait_s):
        remedy = "The input or output tokens must be reduced in order to run successfully."
        return f"Request too large for {place}, Requested {refusal.asked:.0f}. {remedy} {HELP}"
    again = "" if wait_s is None else f" Please try again in {_go_duration(wait_s)}."
    return f"Rate limit reached for {place}, Used {refusal.used:.0f}, Requested {refusal.asked:.0f}.{again} {HELP}"


def _anthropic(refusal: LimitRefusal) -> str:
    # OpenHands/OpenHands#9259; it says the same of a request that never fits.
    if refusal.name == "max_in_flight":
        return f"Number of concurrent connections has exceeded your rate limit. Please try again later. {DETAILS}"
    amount = WORDS[refusal.name][1].replace("_", " ")
    return (
        f"This request would exceed the rate limit for your organization (org-fake) of {refusal.allowed:,.0f} {amount} "
        f"per minute. {DETAILS} You can see the response headers for current usage. "
        "Please reduce the prompt length or the maximum tokens requested, or try again later."
    )


def _azure(refusal: LimitRefusal, wait_s: float | None) -> str:
    # microsoft/sample-app-aoai-chatGPT#406; langchain-ai/langchain#12986 has the form for requests.
    what = "token" if "tokens" in refusal.name else "call"
    again = "" if wait_s is None else f" Please retry after {math.ceil(wait_s)} seconds."
    return (
        "Requests to the ChatCompletions_Create Operation under Azure OpenAI API version 2024-08-01-preview have "
        f"exceeded {what} rate limit of your current OpenAI S0 pricing tier.{again} Please go here: "
        "https://aka.ms/oai/quotaincrease if you would like to further increase the default rate limit."
    )


def _gemini(refusal: LimitRefusal, wait_s: float | None) -> dict[str, Any]:
    # dcdpr/jp#1061: no Retry-After; the wait is in the body.
    google = "type.googleapis.com/google.rpc"
    quota = {"quotaId": QUOTA_IDS.get(refusal.name, INPUT_QUOTA_ID), "quotaValue": f"{refusal.allowed:.0f}"}
    details: list[dict[str, Any]] = [{"@type": f"{google}.QuotaFailure", "violations": [quota]}]
    message = "You exceeded your current quota."
    if wait_s is not None:
        message += f" Please retry in {wait_s}s."
        details.append({"@type": f"{google}.RetryInfo", "retryDelay": f"{wait_s}s"})
    return {"code": 429, "message": message, "status": "RESOURCE_EXHAUSTED", "details": details}


def limit_headers(groups: Iterable[LimitCounters], now: float) -> dict[str, str]:
    """Return the rate-limit headers of an answer: for each allowance the limit that is used most."""
    tightest: dict[str, tuple[float, LimitCounters, ShownAllowance]] = {}
    for group in groups:
        if group.limit.headers != "none" and group.limit.provider != "gemini":
            for shown in group.show(now):
                share = shown.used / shown.limit
                if shown.name not in tightest or share > tightest[shown.name][0]:
                    tightest[shown.name] = (share, group, shown)
    headers: dict[str, str] = {}
    for _, group, shown in tightest.values():
        headers |= _three(group, shown, now)
    return headers


def _three(group: LimitCounters, shown: ShownAllowance, now: float) -> dict[str, str]:
    bucket = WORDS[shown.name][1].replace("_", "-")
    limit, left = f"{shown.limit:.0f}", f"{max(0.0, shown.limit - shown.used):.0f}"
    reset_s = shown.reset_s
    if group.limit.headers == "minus_one":  # openai/openai-dotnet#838
        limit, left, reset_s = "-1", "-1", 0.0
    if group.limit.provider == "anthropic":
        at = datetime.fromtimestamp(math.ceil(now + reset_s), UTC)
        name = f"anthropic-ratelimit-{bucket}"
        return {f"{name}-limit": limit, f"{name}-remaining": left, f"{name}-reset": f"{at:%Y-%m-%dT%H:%M:%SZ}"}
    is_seconds = group.limit.provider == "azure" or group.limit.headers == "minus_one"
    reset = str(math.ceil(reset_s)) if is_seconds else _go_duration(reset_s)
    return {
        f"x-ratelimit-limit-{bucket}": limit,
        f"x-ratelimit-remaining-{bucket}": left,
        f"x-ratelimit-reset-{bucket}": reset,
    }


def _go_duration(seconds: float) -> str:
    """Write seconds as Go does: `12ms`, `8.64s`, `6m0s`."""
    whole_ms = math.ceil(seconds * 1000 - 1e-6)
    if whole_ms < 1000:
        return f"{whole_ms}ms"
    minutes, ms = divmod(whole_ms, 60_000)
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + f"{ms / 1000:g}s"
