"""A refusal is classified by x-should-retry, then by the names in its error, then by its status."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from worker.chat.error_response import from_answer, from_response, refuses_our_usage
from worker.chat.provider_error import read_error
from worker.core.failure import ErrorCode

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def openai(code: Any = None, type: str | None = None) -> dict[str, Any]:
    return {"error": {"message": "no", "type": type, "param": None, "code": code}}


@pytest.mark.parametrize(
    ("status", "body", "code", "retryable", "trouble"),
    [
        (400, {}, "bad_request", False, "job"),
        (401, openai("invalid_api_key", "invalid_request_error"), "unauthorized", False, "endpoint"),
        (401, openai(type="invalid_request_error"), "unauthorized", False, "endpoint"),
        (402, {}, "quota_exhausted", False, "endpoint"),
        (403, openai("unsupported_country_region_territory"), "forbidden", False, "job"),
        (403, openai("insufficient_user_quota", "new_api_error"), "quota_exhausted", False, "endpoint"),
        (403, openai("pre_consume_token_quota_failed"), "quota_exhausted", False, "endpoint"),
        (403, openai("access_denied"), "forbidden", False, "job"),
        (404, {"detail": "Not Found"}, "not_found", False, "job"),
        (404, openai("model_not_found", "invalid_request_error"), "model_not_found", False, "job"),
        (405, {}, "bad_request", False, "job"),
        (408, {}, "request_timeout", True, "job"),
        (409, {}, "conflict", True, "job"),
        (413, openai("read_request_body_failed"), "request_too_large", False, "job"),
        (415, {}, "bad_request", False, "job"),
        (418, {}, "http_error", False, "job"),
        (422, {"detail": [{"loc": ["body"]}]}, "bad_request", False, "job"),
        (407, {}, "proxy_failed", True, "endpoint"),
        (424, {"error": "CUDA out of memory", "error_type": "generation"}, "server_error", True, "job"),
        (425, {}, "request_timeout", True, "job"),
        (451, {}, "content_refused", False, "job"),
        (460, {}, "bad_gateway", True, "job"),
        (498, {}, "overloaded", True, "job"),
        (499, {}, "bad_gateway", True, "job"),
        (520, {}, "bad_gateway", True, "job"),
        (530, {}, "bad_gateway", True, "job"),
        (599, {}, "bad_gateway", True, "job"),
        (429, openai("rate_limit_exceeded", "requests"), "rate_limited", True, "job"),
        (429, openai("", "new_api_error"), "rate_limited", True, "job"),
        (429, openai("slow_down"), "rate_limited", True, "job"),
        (429, openai("insufficient_quota", "insufficient_quota"), "quota_exhausted", False, "endpoint"),
        (429, openai(None, "insufficient_quota"), "quota_exhausted", False, "endpoint"),
        (429, openai("credit_balance_exhausted", "insufficient_quota"), "quota_exhausted", False, "endpoint"),
        (429, openai("organization_spend_limit_exceeded"), "quota_exhausted", False, "endpoint"),
        (429, openai("billing_hard_limit_reached"), "quota_exhausted", False, "endpoint"),
        (500, {}, "server_error", True, "job"),
        (500, openai("invalid_request", "new_api_error"), "bad_request", False, "job"),
        (500, openai("sensitive_words_detected"), "content_refused", False, "job"),
        (500, openai("context_length_exceeded"), "context_too_long", False, "job"),
        (500, openai("model_price_error"), "bad_request", False, "job"),
        (500, openai(None, "invalid_request_error"), "bad_request", False, "job"),
        (500, openai("bad_response_status_code"), "server_error", True, "job"),
        (502, {}, "bad_gateway", True, "job"),
        (503, {}, "overloaded", True, "job"),
        (503, openai("model_not_found"), "model_not_found", True, "job"),
        (504, {}, "bad_gateway", True, "job"),
        (524, {}, "bad_gateway", True, "job"),
        (529, openai(None, "overloaded_error"), "overloaded", True, "job"),
        (301, {}, "redirected", False, "job"),
        (308, {}, "redirected", False, "job"),
    ],
)
def test_a_status_and_an_error_have_one_code(
    status: int, body: dict[str, Any], code: str, retryable: bool, trouble: str
) -> None:
    found = from_response(status, {}, json.dumps(body).encode(), now=NOW)
    assert (found.code, found.retryable, found.trouble, found.http_status) == (code, retryable, trouble, status)
    assert found.message.startswith(f"HTTP {status}: ")


def test_a_model_that_comes_and_goes_gets_three_requests() -> None:
    body = json.dumps(openai("model_not_found")).encode()
    assert from_response(503, {}, body, now=NOW).tries == 3
    assert from_response(404, {}, body, now=NOW).tries is None


@pytest.mark.parametrize(
    ("status", "said", "retryable"),
    [(500, "false", False), (400, "true", True), (429, "FALSE", False), (500, "maybe", True), (400, "", False)],
)
def test_x_should_retry_comes_first(status: int, said: str, retryable: bool) -> None:
    assert from_response(status, {"x-should-retry": said}, b"", now=NOW).retryable is retryable


@pytest.mark.parametrize(
    ("body", "value", "names", "text"),
    [
        (b'{"error": {"message": "M", "code": "Slow_Down", "type": "t"}}', ..., ("slow_down", "t"), "m"),
        (b'{"error": {"message": "m", "code": 429}}', ..., ("429",), "m"),
        (b'{"error": {"message": "m", "code": 429.0}}', ..., ("429",), "m"),
        (b'{"error": {"message": "m", "code": ""}}', ..., (), "m"),
        (b'{"error": {"message": "m", "code": true, "type": []}}', ..., (), "m"),
        (b'{"error": "it broke", "message": "x", "status": 500}', "it broke", ("500",), "it broke\nx"),
        (b'{"message": "m", "type": "t", "code": "c"}', ..., ("c", "t"), "m"),
        (b'{"detail": "Not Found"}', {"detail": "Not Found"}, (), "not found"),
        (
            b'{"detail": [{"type": "missing", "loc": ["body", "x"], "input": {"message": "i"}}]}',
            ...,
            ("missing",),
            "body\nx",
        ),
        (b'[{"error": {"code": 400, "status": "INVALID_ARGUMENT"}}]', ..., ("400", "invalid_argument"), ""),
        (b'"just text"', "just text", (), "just text"),
        (b"plain Text", None, (), "plain text"),
        (b'{"error": null, "code": "c"}', ..., ("c",), ""),
        (b'{"base_resp": {"status_code": 1008, "status_msg": "no"}}', ..., ("base_resp.1008",), "no"),
        (b'{"error": {"message": "a: {\\"error\\": {\\"code\\": \\"x\\"}}"}}', ..., ("x",), "a:"),
        (b'{"error": {"metadata": {"raw": "{\\"type\\": \\"y\\"}"}}}', ..., ("y",), ""),
        (
            b'{"error": {"innererror": {"code": "z"}, "failed_generation": "f", "input": {"code": "i"}}}',
            ...,
            ("z",),
            "",
        ),
    ],
)
def test_an_error_of_any_shape_is_read(body: bytes, value: Any, names: tuple[str, ...], text: str) -> None:
    error = read_error(body)
    assert (error.names, error.text) == (names, text)
    assert value is ... or error.value == value


@pytest.mark.parametrize(
    "body", [b"", b"<html>502 Bad Gateway</html>", b'{"error": {"mess', b"\xff\xfe", b"[" * 100_000, b"NaN", b"[]"]
)
def test_a_body_that_says_nothing_leaves_the_status(body: bytes) -> None:
    assert from_response(502, {}, body, now=NOW).code == "bad_gateway"


def test_a_number_of_too_many_digits_is_no_name() -> None:
    assert read_error(b'{"error": {"code": 1' + b"0" * 4000 + b"}}").names
    assert not read_error(b'{"error": {"code": 1' + b"0" * 5000 + b"}}").names


@pytest.mark.parametrize("inner", ['{"error":', "[", '{"message":"{', '{"details":['])
def test_a_hostile_error_is_read_in_no_time(inner: str) -> None:
    body = (inner * (200_000 // len(inner))).encode()
    assert from_response(400, {}, body, now=NOW).code == "bad_request"
    wide = json.dumps({"error": [{"code": "x", "message": "a" * 50}] * 5000}).encode()
    assert len(read_error(wide).names) == 1


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s"}, 360.0),
        ({"x-ratelimit-remaining-requests": "3", "x-ratelimit-reset-requests": "6m0s"}, None),
        ({"retry-after": "2", "x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s"}, 2.0),
        ({}, None),
    ],
)
def test_a_rate_limit_says_when_to_come_back(headers: dict[str, str], wait_s: float | None) -> None:
    assert from_response(429, headers, b"", now=NOW).retry_after_s == wait_s


@pytest.mark.parametrize(
    ("provider", "retryable", "trouble"),
    [
        ({"message": "upstream", "code": 502}, True, "job"),
        ({"message": "bad", "code": "400"}, False, "job"),
        ({"message": "quota", "type": "insufficient_quota"}, False, "endpoint"),
        ({"message": "?", "code": "something_new"}, True, "job"),
        ({"message": "?", "code": 7}, True, "job"),
        ("it broke", True, "job"),
    ],
)
def test_an_error_inside_an_answer_decides_its_retry(provider: Any, retryable: bool, trouble: str) -> None:
    found = from_answer("provider_error", provider, produced=False)
    assert (found.code, found.retryable, found.trouble) == ("provider_error", retryable, trouble)
    assert found.provider == provider


@pytest.mark.parametrize(("produced", "billed"), [(True, "yes"), (False, "unknown")])
def test_a_cut_answer_is_billed_if_something_came(produced: bool, billed: str) -> None:
    found = from_answer("stream_truncated", None, produced=produced)
    assert (found.code, found.billed, found.retryable) == (ErrorCode.stream_truncated, billed, True)


@pytest.mark.parametrize(
    ("status", "body", "refuses"),
    [
        (400, {"error": {"code": "unknown_parameter", "param": "stream_options", "message": "no"}}, True),
        (400, {"error": {"message": "Unrecognized request argument supplied: stream_options"}}, True),
        (422, {"detail": "stream_options: extra fields not permitted"}, True),
        (400, {"error": "stream_options is not supported"}, True),
        (422, {"message": {"detail": [{"type": "extra_forbidden", "loc": ["body", "stream_options"]}]}}, True),
        (422, {"detail": [{"loc": ["body", "stream_options"], "msg": "extra fields not permitted"}]}, True),
        (422, "Failed to deserialize the JSON body: unknown field `stream_options`", True),
        (404, {"errors": [{"pointer": "/stream_options/include_usage"}]}, True),
        (403, {"error": {"message": "stream_options is not allowed for this model"}}, True),
        (500, {"error": {"message": "unknown stream_options", "code": "invalid_request"}}, True),
        (400, {"error": {"param": "temperature", "message": "no"}}, False),
        (500, {"error": {"param": "stream_options"}}, False),
        (503, {"error": {"param": "stream_options"}}, False),
    ],
)
def test_a_refusal_of_our_stream_options_is_recognised(status: int, body: object, refuses: bool) -> None:
    text = body if isinstance(body, str) else json.dumps(body)
    found = from_response(status, {}, text.encode(), now=NOW)

    assert refuses_our_usage(found) is refuses


@pytest.mark.parametrize(
    ("provider", "produced", "refuses"),
    [
        ({"code": 400, "message": "Unrecognized request argument supplied: stream_options"}, False, True),
        ({"code": 400, "message": "Unrecognized request argument supplied: stream_options"}, True, False),
        ({"code": 500, "message": "stream_options"}, False, False),
        ({"code": 400, "message": "temperature"}, False, False),
    ],
)
def test_such_a_refusal_may_come_inside_an_answer(provider: object, produced: bool, refuses: bool) -> None:
    assert refuses_our_usage(from_answer("provider_error", provider, produced=produced)) is refuses


def test_no_failure_refuses_nothing() -> None:
    assert not refuses_our_usage(None)


@pytest.mark.parametrize(
    ("status", "billed"),
    [(408, "unknown"), (425, "no"), (424, "no"), (498, "no"), (499, "unknown"), (429, "no"), (502, "unknown")],
)
def test_a_refusal_says_whether_it_may_be_billed(status: int, billed: str) -> None:
    assert from_response(status, {}, b"", now=NOW).billed == billed
