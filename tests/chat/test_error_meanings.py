"""The owner of the trouble, from the errors that providers and gateways send: keys, money, throttles, lengths,
contents.

Each body was seen in public or is a provider's published example. `status` 200 is an error inside an answer.
"""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from worker.chat.error_response import from_answer, from_response
from worker.chat.provider_error import error_of

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
GEMINI_QUOTA = "You exceeded your current quota, please check your plan and billing details."


def err(message: str | None = None, code: Any = None, type: Any = None, **rest: Any) -> dict[str, Any]:
    return {"error": {"message": message, "type": type, "code": code, **rest}}


def google(code: int, message: str, status: str, *details: dict[str, Any]) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "status": status, "details": list(details)}}


def quota(*ids: str) -> dict[str, Any]:
    return {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": name} for name in ids]}


def info(reason: str) -> dict[str, Any]:
    return {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "googleapis.com"}


def delay(text: str) -> dict[str, Any]:
    return {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": text}


def minimax(code: int, message: str) -> dict[str, Any]:
    return {"base_resp": {"status_code": code, "status_msg": message}}


KEY: dict[str, tuple[int, Any]] = {
    "gemini, reason": (400, [google(400, "API key not valid.", "INVALID_ARGUMENT", info("API_KEY_INVALID"))]),
    "gemini, words": (400, google(400, "API key expired. Please renew the API key.", "INVALID_ARGUMENT")),
    "gemini, wrapped": (
        400,
        err(json.dumps(google(400, "no", "INVALID_ARGUMENT", info("API_KEY_INVALID"))), 400, status="Bad Request"),
    ),
    "gemini, leaked": (403, google(403, "Your API key was reported as leaked.", "PERMISSION_DENIED")),
    "dashscope": (401, {"code": "InvalidApiKey", "message": "Invalid API-key provided."}),
    "dashscope under 400": (400, {"code": "InvalidApiKey", "message": "no"}),
    "moonshot": (401, err("Invalid Authentication", type="invalid_authentication_error")),
    "litellm": (400, err("Authentication Error, Invalid proxy server token passed", "401", "auth_error")),
    "xai": (400, {"code": "Client specified an invalid argument", "error": "Incorrect API key provided: xa***"}),
    "new-api": (500, err("无效的令牌 (request id: 2026)", "", "new_api_error")),
    "bedrock": (403, {"__type": "UnrecognizedClientException", "message": "The security token is invalid."}),
    "minimax": (200, minimax(2049, "invalid api key")),
    "minimax, old": (200, minimax(1004, "login fail")),
    "inside an answer": (200, err("Incorrect API key provided", "invalid_api_key", "invalid_request_error")),
    "key before billing": (403, err("Invalid API key. Check your billing settings.")),
    "groq, restricted": (400, err("Organization has been restricted.", "organization_restricted")),
    "deactivated": (403, err("Your account is deactivated", "account_deactivated")),
}
QUOTA: dict[str, tuple[int, Any]] = {
    "openai": (429, err("You exceeded your current quota", "insufficient_quota", "insufficient_quota")),
    "openai, billing": (
        429,
        err("Your account is not active, please check your billing details", "billing_not_active"),
    ),
    "openai, words": (429, err(GEMINI_QUOTA, "bad_response_status_code", "upstream_error")),
    "openai, upper case": (429, err("no", "INSUFFICIENT_QUOTA")),
    "xai": (403, {"code": "The caller does not have permission", "error": "Your team doesn't have any credits yet."}),
    "xai, spent": (429, {"code": "Some resource has been exhausted", "error": "Your team has run out of credits."}),
    "moonshot": (
        429,
        err("Your account is suspended due to insufficient balance", type="exceeded_current_quota_error"),
    ),
    "zhipu": (429, err("余额不足或无可用资源包,请充值。", "1113")),
    "zhipu, number": (429, err("Insufficient balance or no resource package. Please recharge.", 1113)),
    "zhipu, in the type": (429, {"type": "error", "error": {"type": "1113", "message": "Insufficient balance"}}),
    "zhipu, week": (429, err("Weekly/Monthly Limit Exhausted", "1310")),
    "minimax": (500, {"type": "error", "error": {"type": "api_error", "message": "insufficient balance (1008)"}}),
    "minimax, envelope": (200, minimax(1008, "insufficient balance")),
    "deepseek": (402, err("Insufficient Balance", "invalid_request_error", "unknown_error")),
    "dashscope": (400, {"code": "Arrearage", "message": "Access denied, make sure your account is in good standing."}),
    "dashscope, bill": (429, {"code": "PostpaidBillOverdue", "message": "The postpaid bill is overdue."}),
    "dashscope, free tier": (403, err("The free tier is used up", "AllocationQuota.FreeTierOnly")),
    "volcengine": (403, err("The request failed because your account has an overdue balance.", "AccountOverdueError")),
    "volcengine, trial": (429, err("free trial", "QuotaExceeded", "TooManyRequests")),
    "siliconflow": (403, {"code": 30001, "message": "Sorry, your account balance is insufficient", "data": None}),
    "sub2api": (403, {"code": "INSUFFICIENT_BALANCE", "message": "Insufficient account balance"}),
    "new-api": (403, err("用户额度不足, 剩余额度: ＄0.000000", "insufficient_user_quota", "new_api_error")),
    "one-api under 500": (500, err("user quota is not enough", None, "one_api_error")),
    "litellm": (400, err("Budget has been exceeded! Current cost: 76.16, Max budget: 10.0", "400", "budget_exceeded")),
    "litellm, words": (400, err("ExceededBudget: Team over budget. Spend=1, Budget=0.5", "400", "auth_error")),
    "anthropic": (400, err("Your credit balance is too low to access the API.", type="invalid_request_error")),
    "anthropic, limit": (400, err("You have reached your specified API usage limits.", type="invalid_request_error")),
    "anthropic, billing": (403, err("no", type="billing_error")),
    "together": (402, err("Credit limit exceeded.", None, "credit_limit")),
    "fireworks": (
        412,
        err("Account x is suspended, possibly due to reaching the monthly spending limit", "PRECONDITION_FAILED"),
    ),
    "huggingface": (402, {"error": "You have exceeded your monthly included credits for Inference Providers."}),
    "perplexity": (401, err("You exceeded your current quota", 401, "insufficient_quota")),
    "ai/ml": (403, {"statusCode": 403, "message": "You've run out of funds. Please top up your balance."}),
    "copilot": (402, err("You have no quota", "quota_exceeded")),
    "openrouter": (402, err("Insufficient credits. Add more using https://openrouter.ai/settings/credits", 402)),
    "openrouter, nothing left": (402, err("requires more credits, or fewer max_tokens. can only afford 0.", 402)),
    "openrouter, relayed": (
        429,
        err("Provider returned error", 429, metadata={"raw": json.dumps(err("low", type="credit_balance_exhausted"))}),
    ),
    "openrouter, free a day": (429, err("Rate limit exceeded: free-models-per-day. Add 10 credits", 429)),
    "gemini, a day": (
        429,
        google(
            429, GEMINI_QUOTA, "RESOURCE_EXHAUSTED", quota("GenerateRequestsPerDayPerProjectPerModel"), delay("36s")
        ),
    ),
    "gemini, prepaid": (429, google(429, "Your prepayment credits are depleted.", "RESOURCE_EXHAUSTED")),
    "gemini, billing": (403, google(403, "no", "PERMISSION_DENIED", info("BILLING_DISABLED"))),
    "cohere, trial": (429, {"message": "You are using a Trial key, which is limited to 1000 API calls / month."}),
    "groq, blocked": (400, err("API access is blocked", "blocked_api_access")),
    "ollama": (429, {"error": "you have reached your weekly usage limit, upgrade for higher limits"}),
    "a page": (402, "<html>Payment Required</html>"),
    "plain text": (403, "Insufficient balance"),
    "fastapi": (403, {"detail": "Insufficient credits"}),
    "fastapi, object": (400, {"detail": err("no money", "insufficient_credits")}),
    "inside an answer": (200, err("quota", type="insufficient_quota")),
    "inside an answer, words": (200, {"error": "Insufficient balance"}),
}
THROTTLED: dict[str, tuple[int, Any, float | None]] = {
    "gemini, a minute": (
        429,
        [google(429, GEMINI_QUOTA, "RESOURCE_EXHAUSTED", quota("GenerateRequestsPerMinutePerProject"), delay("2.5s"))],
        2.5,
    ),
    "gemini, words": (429, google(429, GEMINI_QUOTA + " Please retry in 33.5s.", "RESOURCE_EXHAUSTED"), 33.5),
    "gemini, no details": (
        429,
        google(429, "Resource has been exhausted (e.g. check quota).", "RESOURCE_EXHAUSTED"),
        None,
    ),
    "vertex": (
        429,
        google(429, "Quota exceeded for x.com/generate_content_requests_per_minute", "RESOURCE_EXHAUSTED"),
        None,
    ),
    "openai": (
        429,
        err("Rate limit reached. Limit: 3 / min. Please try again in 20s. Add a payment method", None),
        20.0,
    ),
    "groq, a day": (
        429,
        err(
            "on tokens per day (TPD): Limit 100000, Used 99336, Requested 1500. Please try again in 12m3.5s.",
            "rate_limit_exceeded",
            "tokens",
        ),
        723.5,
    ),
    "azure": (
        429,
        err("have exceeded token rate limit of your current S0 tier. Please retry after 20 seconds.", "429"),
        20.0,
    ),
    "dashscope": (429, err(GEMINI_QUOTA + " See https://x/error-code#token-limit", "insufficient_quota"), None),
    "dashscope, native": (429, {"code": "Throttling.AllocationQuota", "message": "Allocated quota exceeded"}, None),
    "moonshot": (
        429,
        err(
            "request reached max organization RPM: 3, please try again after 1 seconds", type="rate_limit_reached_error"
        ),
        1.0,
    ),
    "zhipu": (429, err("您当前使用该API的并发数过高，请降低并发", "1302"), None),
    "siliconflow": (429, {"message": "Request was rejected due to rate limiting. Details: TPM limit reached."}, None),
    "new-api, saturated": (
        429,
        err("当前分组上游负载已饱和，请稍后再试", "bad_response_status_code", "upstream_error"),
        None,
    ),
    "bedrock through litellm": (400, err("ThrottlingException: Too many requests, please wait", None), None),
    "github": (403, {"message": "API rate limit exceeded for user ID 1."}, None),
    "github models": (
        429,
        err("Rate limit of 10 per 60s exceeded. Please wait 43 seconds before retrying.", "RateLimitReached"),
        43.0,
    ),
    "openrouter, in flight": (
        402,
        err("Too many requests in flight for your balance", "in_flight_budget_exhausted"),
        None,
    ),
    "a 402 that asks to wait": (402, err("Server busy, retry in 5 s"), 5.0),
    "cohere": (429, {"message": "a Trial key, which is limited to 10 API calls / minute."}, None),
    "litellm": (429, err("No deployments available for selected model, Try again in 5 seconds.", "429"), 5.0),
    "bedrock": (400, {"__type": "ThrottlingException", "message": "Too many tokens per day, please wait"}, None),
    "a member": (429, err("slow", retry_after=7), 7.0),
    "beside the error": (429, {"error": "slow", "retry_after_ms": 1500}, 1.5),
    "inside an answer": (200, err("Rate limit exceeded, try again in 3s", 429), 3.0),
    "minimax": (200, minimax(1002, "rate limit"), None),
}
FINAL: dict[str, tuple[int, Any, str]] = {
    "groq, never fits": (
        413,
        err(
            "Request too large on tokens per minute (TPM): Limit 6000, Requested 12328", "rate_limit_exceeded", "tokens"
        ),
        "request_too_large",
    ),
    "openai, never fits": (
        429,
        err("Request too large for gpt-4 on TPM: Limit 10000, Requested 12000.", "rate_limit_exceeded", "tokens"),
        "request_too_large",
    ),
    "openai": (400, err("too long", "context_length_exceeded", "invalid_request_error"), "context_too_long"),
    "upper case": (500, err("Context length exceeded", "CONTEXT_LENGTH_EXCEEDED"), "context_too_long"),
    "vllm": (
        400,
        {
            "object": "error",
            "message": "This model's maximum context length is 4096 tokens.",
            "type": "BadRequestError",
            "code": 400,
        },
        "context_too_long",
    ),
    "llama.cpp": (500, err("the request exceeds the available context size", 500, "server_error"), "context_too_long"),
    "tgi": (
        422,
        {"error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096"},
        "context_too_long",
    ),
    "siliconflow": (
        400,
        {"code": 20015, "message": "length of prompt_tokens (68957) must be less than max_seq_len (65536)."},
        "context_too_long",
    ),
    "gemini": (
        400,
        google(400, "The input token count (9) exceeds the maximum number of tokens allowed (8).", "INVALID_ARGUMENT"),
        "context_too_long",
    ),
    "anthropic": (
        400,
        err("prompt is too long: 208310 tokens > 200000 maximum", type="invalid_request_error"),
        "context_too_long",
    ),
    "dashscope, length": (
        400,
        err("Range of input length should be [1, 30720]", "invalid_parameter_error"),
        "context_too_long",
    ),
    "zhipu, length": (400, err("Prompt 超长", "1261"), "context_too_long"),
    "dashscope, content": (
        400,
        err("Input may contain inappropriate content.", "data_inspection_failed"),
        "content_refused",
    ),
    "dashscope, in a dotted name": (
        400,
        {"code": "InternalError.Algo.DataInspectionFailed", "message": "x"},
        "content_refused",
    ),
    "azure": (
        400,
        err("The response was filtered", "content_filter", None, innererror={"code": "ResponsibleAIPolicyViolation"}),
        "content_refused",
    ),
    "openai, policy": (
        400,
        err("flagged as potentially violating our usage policy", "invalid_prompt"),
        "content_refused",
    ),
    "zhipu, content": (400, err("系统检测到输入可能包含不安全或敏感内容", "1301"), "content_refused"),
    "openrouter, moderation": (
        403,
        err("Your chosen model requires moderation and your input was flagged", 403),
        "content_refused",
    ),
    "minimax, content": (200, minimax(1026, "input new_sensitive"), "content_refused"),
    "deepseek, content": (400, err("Content Exists Risk", "invalid_request_error"), "content_refused"),
    "xai, content": (403, {"code": "x", "error": "Content violates usage guidelines."}, "content_refused"),
    "deepseek, model": (400, err("Model Not Exist", "invalid_request_error"), "model_not_found"),
    "volcengine, model": (404, err("no", "InvalidEndpointOrModel.NotFound", "NotFound"), "model_not_found"),
    "groq, gone": (400, err("no", "model_decommissioned"), "model_not_found"),
    "ollama": (404, err('model "gpt-4o" not found, try pulling it first', None, "api_error"), "model_not_found"),
    "ollama, plain": (404, {"error": "model 'x' not found"}, "model_not_found"),
    "vllm, model": (
        404,
        {"object": "error", "message": "The model `x` does not exist.", "type": "NotFoundError", "code": 404},
        "model_not_found",
    ),
    "openrouter, model": (400, err("x/y is not a valid model ID", 400), "model_not_found"),
    "copilot, model": (400, err("The requested model is not supported.", "model_not_supported"), "model_not_found"),
    "not the model": (
        400,
        err("Unsupported parameter: 'max_tokens' is not supported with this model.", "unsupported_parameter"),
        "bad_request",
    ),
    "gemini, bad": (400, google(400, "Invalid value at 'x'", "INVALID_ARGUMENT"), "bad_request"),
    "bedrock": (500, {"__type": "ValidationException", "message": "bad"}, "bad_request"),
    "groq, tools": (200, err("Failed to call a function.", "tool_use_failed", status_code=400), "bad_request"),
    "a user's words decide nothing": (
        400,
        {
            "detail": [
                {
                    "type": "extra_forbidden",
                    "loc": ["body", "x"],
                    "msg": "Extra inputs are not permitted",
                    "input": {"messages": [{"content": "insufficient balance, invalid api key"}]},
                }
            ]
        },
        "bad_request",
    ),
    "permission": (403, err("You do not have access to this model", "permission_denied"), "forbidden"),
    "anthropic, permission": (403, err("no", type="permission_error"), "forbidden"),
}
PASSING: dict[str, tuple[int, Any, str]] = {
    "tgi": (
        424,
        {"error": "Request failed during generation: CUDA out of memory", "error_type": "generation"},
        "server_error",
    ),
    "gemini, cancelled": (499, [google(499, "The operation was cancelled.", "CANCELLED")], "bad_gateway"),
    "gemini, overloaded": (
        503,
        google(503, "The model is overloaded. Please try again later.", "UNAVAILABLE"),
        "overloaded",
    ),
    "groq, flex": (498, err("capacity", "capacity_exceeded"), "overloaded"),
    "anthropic": (529, err("Overloaded", type="overloaded_error"), "overloaded"),
    "moonshot": (
        429,
        err("The engine is currently overloaded, please try again later", type="engine_overloaded_error"),
        "overloaded",
    ),
    "new-api, in a 200": (200, err("Our servers are currently overloaded.", "server_is_overloaded"), "overloaded"),
    "loading": (503, {"error": "Model m is currently loading", "estimated_time": 20.0}, "overloaded"),
    "bedrock": (424, {"__type": "ModelErrorException", "message": "x"}, "server_error"),
    "no channel": (503, err("当前分组 default 下对于模型 x 无可用渠道", "", "new_api_error"), "model_not_found"),
    "an error we do not know": (500, err("Internal error encountered.", "500", "api_error"), "server_error"),
}


def found_of(status: int, body: Any) -> Any:
    if status == 200:
        error = error_of(body)
        assert error
        return from_answer("provider_error", error, produced=False)
    text = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)
    return from_response(status, {}, text.encode(), now=NOW)


def code_of(status: int, code: str) -> str:
    return "provider_error" if status == 200 else code


@pytest.mark.parametrize(("status", "body"), KEY.values(), ids=KEY)
def test_a_key_that_is_refused_is_the_endpoints_trouble(status: int, body: Any) -> None:
    found = found_of(status, body)
    assert (found.code, found.trouble, found.retryable) == (code_of(status, "unauthorized"), "endpoint", False)


@pytest.mark.parametrize(("status", "body"), QUOTA.values(), ids=QUOTA)
def test_money_that_is_used_up_is_the_endpoints_trouble(status: int, body: Any) -> None:
    found = found_of(status, body)
    assert (found.code, found.trouble, found.retryable) == (code_of(status, "quota_exhausted"), "endpoint", False)


@pytest.mark.parametrize(
    "message",
    [
        "Requires more credits, or fewer max_tokens. You requested up to 6553 tokens, but can only afford 9.",
        "Prompt tokens limit exceeded: 64128 > 6964. To increase, visit https://openrouter.ai/settings/credits",
        "Insufficient credits for this request. Maximum possible cost: $0.20. Available balance: $0.05.",
        "ExceededBudget: End User=ishaan3 over budget. Spend=0.0009, Budget=0.0001",
    ],
)
def test_money_that_is_missing_for_one_request_is_the_jobs_trouble(message: str) -> None:
    for status in (402, 200):
        found = found_of(status, err(message, 402))
        assert (found.code, found.trouble) == (code_of(status, "quota_exhausted"), "job")
        assert not found.retryable


@pytest.mark.parametrize(("status", "body", "wait_s"), THROTTLED.values(), ids=THROTTLED)
def test_a_throttle_is_no_exhausted_quota_in_any_wording(status: int, body: Any, wait_s: float | None) -> None:
    found = found_of(status, body)
    assert (found.code, found.trouble, found.retryable) == (code_of(status, "rate_limited"), "job", True)
    assert found.retry_after_s == (None if wait_s is None else pytest.approx(wait_s))


@pytest.mark.parametrize(("status", "body", "code"), FINAL.values(), ids=FINAL)
def test_a_request_that_is_refused_is_not_sent_again(status: int, body: Any, code: str) -> None:
    found = found_of(status, body)
    assert (found.code, found.trouble, found.retryable) == (code_of(status, code), "job", False)


@pytest.mark.parametrize(("status", "body", "code"), PASSING.values(), ids=PASSING)
def test_a_failure_of_the_server_is_tried_again(status: int, body: Any, code: str) -> None:
    found = found_of(status, body)
    assert (found.code, found.trouble, found.retryable) == (code_of(status, code), "job", True)


@pytest.mark.parametrize(
    ("status", "body", "wait_s"),
    [
        (400, err("bad request; retry in 5 s", "invalid_request"), None),
        (503, err("overloaded, retry in 5 s"), 5.0),
        (429, google(429, "x", "RESOURCE_EXHAUSTED", quota("RequestsPerDay"), delay("36s")), 36.0),
    ],
)
def test_a_wait_counts_where_the_failure_passes(status: int, body: Any, wait_s: float | None) -> None:
    assert found_of(status, body).retry_after_s == wait_s


def test_the_header_comes_before_the_body() -> None:
    found = from_response(429, {"retry-after": "2"}, json.dumps(err("try again in 20s")).encode(), now=NOW)
    assert found.retry_after_s == 2.0


@pytest.mark.parametrize(
    ("chunk", "is_error"),
    [
        ({"error": "x"}, True),
        ({"object": "error", "message": "m"}, True),
        ({"type": "error", "code": "server_error", "message": "m"}, True),
        ({"type": "error"}, True),
        ({"code": "DataInspectionFailed", "message": "m", "request_id": "r"}, True),
        ({"code": 500, "msg": "404 NOT_FOUND", "success": False}, True),
        ({"error_code": 17, "error_msg": "Open api daily request limit reached"}, True),
        ({"detail": "Not Found"}, True),
        ({"status": 429, "title": "Too Many Requests"}, True),
        ({"__type": "ThrottlingException", "message": "m"}, True),
        ({"errors": [{"message": "m"}]}, True),
        ({"base_resp": {"status_code": 1008, "status_msg": "m"}}, True),
        ({"base_resp": {"status_code": 1027, "status_msg": "m"}, "choices": [{"index": 0}]}, True),
        ({"choices": [{"index": 0, "error": {"code": 502}}]}, True),
        ({"base_resp": {"status_code": 0, "status_msg": ""}, "choices": [{"index": 0}]}, False),
        ({"base_resp": {"status_code": 0, "status_msg": "success"}}, False),
        ({"code": 0, "message": "Success", "sid": "x", "choices": [{"index": 0}]}, False),
        ({"code": 0, "message": "Success"}, False),
        ({"code": "200", "msg": "ok"}, False),
        ({"code": 10013, "message": "m", "choices": [{"index": 0}]}, False),
        ({"type": "ping"}, False),
        ({"message": "working"}, False),
        ({"status": "processing", "message": "working"}, False),
        ({"error": None}, False),
        ({}, False),
    ],
)
def test_an_error_inside_an_answer_is_known_by_its_shape(chunk: dict[str, Any], is_error: bool) -> None:
    assert bool(error_of(chunk)) is is_error
