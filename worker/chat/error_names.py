"""Maps the names of errors to ErrorCodes, in one table for all providers. Used by `chat.error_meanings`.

Case, underscores, hyphens and spaces are ignored: `InvalidApiKey`, `invalid_api_key` and `INVALID_API_KEY` are the same
name. In a dotted name (`InternalError.Algo.DataInspectionFailed`, `Throttling.RateQuota`) the last known part counts.
Sources: the providers' published lists of codes, and response bodies quoted in public issues.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final

from worker.core.failure import ErrorCode

# Names with the same meaning under every status.
_CLEAR: Final[Mapping[ErrorCode, str]] = {
    ErrorCode.unauthorized: """
        invalid_api_key authentication_error invalid_authentication_error incorrect_api_key_error api_key_invalid
        invalid_iam_token invalid_token token_invalid token_expired expired_api_key api_key_expired invalid_access_token
        access_token_expired credentials_missing unauthenticated unrecognized_client_exception expired_token_exception
        invalid_signature_exception missing_authentication_token token_not_found_in_db expired_key
        api_key_service_blocked api_key_http_referrer_blocked api_key_ip_address_blocked consumer_suspended
        consumer_invalid account_state_invalid service_disabled user_deactivated account_deactivated
        organization_deactivated organization_restricted api_key_disabled key_disabled
        1110 1111 1112 1121 base_resp.1004 base_resp.2049
        """,
    ErrorCode.quota_exhausted: """
        insufficient_quota insufficient_user_quota pre_consume_token_quota_failed token_quota_exhausted
        credit_balance_exhausted credit_balance_too_low organization_spend_limit_exceeded
        project_spend_limit_exceeded organization_usage_limit_exceeded billing_hard_limit_reached billing_not_active
        billing_error billing_disabled payment_required payment_required_error insufficient_balance
        insufficient_balance_error insufficient_credits insufficient_credit insufficient_funds credit_limit
        credit_exhausted credits_exhausted not_enough_credits balance_not_enough no_quota
        quota_exceeded quota_exhausted quota_exceeded_error exceeded_current_quota exceeded_current_quota_error
        resource_quota_exceeded usage_limit_reached usage_limit_exceeded spend_limit_exceeded spending_limit_exceeded
        budget_exceeded budget_exceeded_error exceeded_budget arrearage account_overdue account_overdue_error
        service_overdue prepaid_bill_overdue postpaid_bill_overdue set_limit_exceeded free_tier_only
        subscription_required subscription_expired blocked_api_access
        1113 1304 1308 1309 1310 30001 base_resp.1008 base_resp.2056
        """,
    ErrorCode.rate_limited: """
        rate_limit_exceeded rate_limit_error rate_limit_reached_error rate_limit_reached rate_limited slow_down
        too_many_requests_exception user_rate_limit_exceeded requests_limit_exceeded throttling
        throttling_exception throttled rate_quota allocation_quota limit_requests
        limit_burst_rate burst_rate concurrency_limit_exceeded in_flight_budget_exhausted
        1302 1303 1305 base_resp.1002 base_resp.1039 base_resp.1041 base_resp.2045
        """,
    ErrorCode.overloaded: """
        overloaded_error overloaded engine_overloaded engine_overloaded_error server_overloaded server_is_overloaded
        model_overloaded capacity_exceeded no_capacity service_unavailable_error service_unavailable
        service_unavailable_exception model_not_ready_exception model_unavailable unavailable server_busy
        get_channel_failed 1312 50505 50603
        """,
    ErrorCode.model_not_found: """
        model_not_found model_not_found_error model_not_exist invalid_model model_not_supported deployment_not_found
        unknown_model model_not_open model_decommissioned invalid_endpoint_or_model 1211 20012
        """,
    ErrorCode.context_too_long: """
        context_length_exceeded context_window_exceeded context_window_exceeded_error exceed_context_size_error
        string_above_max_length model_max_prompt_tokens_exceeded prompt_too_long input_too_long
        max_tokens_exceeded token_limit_exceeded 1261
        """,
    ErrorCode.content_refused: """
        content_policy_violation content_policy_violation_error content_filter content_filter_error
        content_filtered sensitive_words_detected prompt_blocked prompt_filtered data_inspection_failed
        responsible_ai_policy_violation moderation_blocked content_moderation content_blocked safety
        sensitive_content_detected input_text_sensitive_content_detected output_text_sensitive_content_detected
        input_image_sensitive_content_detected prohibited_content faq_rule_blocked custom_role_blocked
        image_content_policy_violation invalid_prompt_policy 1301 base_resp.1026 base_resp.1027
        """,
    ErrorCode.bad_request: """
        unsupported_parameter unsupported_value missing_required_parameter bad_request_body convert_request_failed
        model_price_error tool_use_failed json_validate_failed validation_exception extra_forbidden
        unsupported_operation invalid_schema 1210 1212 1213 1214 1215 base_resp.1042 base_resp.2013
        """,
    ErrorCode.request_too_large: "request_too_large too_large payload_too_large read_request_body_failed",
    ErrorCode.forbidden: "access_denied model_access_denied unpurchased base_resp.2061",
    ErrorCode.server_error: "base_resp.1000 base_resp.1013 base_resp.1024 base_resp.1033 1234",
    ErrorCode.bad_gateway: "base_resp.1001 do_request_failed",
}  # fmt: skip

# Names that providers use for many errors: words and some statuses are more precise.
_VAGUE: Final[Mapping[ErrorCode, str]] = {
    ErrorCode.bad_request: "bad_request_error invalid_argument failed_precondition unprocessable_entity_error",
    ErrorCode.rate_limited: "resource_exhausted too_many_requests",
    ErrorCode.unauthorized: "unauthorized unauthorized_error authentication_failed",
    ErrorCode.forbidden: "permission_denied permission_error permission_denied_error forbidden access_denied_exception",
    ErrorCode.not_found: "not_found not_found_error resource_not_found_error",
    ErrorCode.server_error: """
        internal internal_error internal_server_error server_error api_error internal_server_exception
        backend_error model_error_exception system_error
        """,
    ErrorCode.bad_gateway: "deadline_exceeded timeout_error upstream_timeout bad_gateway",
}  # fmt: skip
_BAD_REQUEST_PREFIXES: Final = ("invalidrequest", "invalidparameter", "unknownparameter")


def _without_separators(name: str) -> str:
    return re.sub(r"[_\s-]", "", name)


def _table(groups: Mapping[ErrorCode, str]) -> dict[str, ErrorCode]:
    return {_without_separators(name): code for code, names in groups.items() for name in names.split()}


_NAMED: Final = _table(_CLEAR)
_NAMED_VAGUELY: Final = _table(_VAGUE)

# Statuses more precise than a type such as "invalid_request_error": OpenAI sends that type with all of these.
_PRECISE: Final = frozenset({401, 402, 403, 404, 408, 409, 413, 425, 429})


def code_by_name(names: Iterable[str]) -> ErrorCode | None:
    """Return the code of the first name in the table of clear names; None if there is none."""
    return next((code for name in names for part in _parts(name) if (code := _NAMED.get(part))), None)


def code_by_vague_name(names: Iterable[str], status: int) -> ErrorCode | None:
    """Return the code of a vague name, None if the status is more precise. `status` 0: unknown."""
    if status in _PRECISE:
        return None
    for name in names:
        for part in _parts(name):
            if part.startswith(_BAD_REQUEST_PREFIXES):
                return ErrorCode.bad_request
            if status in (0, 400, 500) and (code := _NAMED_VAGUELY.get(part)):
                return code
    return None


def is_resource_exhausted(names: Iterable[str]) -> bool:
    """Say whether Google's RESOURCE_EXHAUSTED is among the names: it means a rate limit or a used-up quota."""
    return any("resourceexhausted" in _parts(name) for name in names)


def _parts(name: str) -> list[str]:
    """Return the keys to look up: `"A.Bc_D"` (in lower case) gives `["a.bcd", "bcd", "a"]`."""
    name = _without_separators(name)
    return [name, *reversed(name.split("."))] if "." in name else [name]
