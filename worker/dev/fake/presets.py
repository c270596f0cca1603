"""Fake endpoint: scripts by model name, for jobs that choose a fault with the field `model` only."""

import re
from typing import Any

ERRORS: dict[int, dict[str, Any]] = {
    400: {"message": "Invalid value for 'messages'.", "type": "invalid_request_error", "code": "invalid_value"},
    401: {"message": "Incorrect API key provided.", "type": "authentication_error", "code": "invalid_api_key"},
    402: {"message": "Insufficient balance.", "type": "billing_error", "code": "insufficient_balance"},
    403: {"message": "Access denied.", "type": "permission_error", "code": "access_denied"},
    404: {"message": "The model does not exist.", "type": "invalid_request_error", "code": "model_not_found"},
    408: {"message": "Request timed out.", "type": "timeout", "code": "timeout"},
    409: {"message": "Conflict.", "type": "conflict", "code": "conflict"},
    413: {"message": "Request too large.", "type": "invalid_request_error", "code": "request_too_large"},
    422: {"message": "Unprocessable.", "type": "invalid_request_error", "code": "unprocessable"},
    429: {"message": "Rate limit reached.", "type": "requests", "code": "rate_limit_exceeded"},
    500: {"message": "The server had an error.", "type": "server_error", "code": None},
    502: {"message": "Bad gateway.", "type": "server_error", "code": None},
    503: {"message": "The engine is overloaded.", "type": "server_error", "code": "overloaded"},
    504: {"message": "Gateway timeout.", "type": "server_error", "code": None},
    529: {"message": "Overloaded.", "type": "overloaded_error", "code": None},
}
QUOTA = {
    "message": "You exceeded your current quota.", "type": "insufficient_quota", "code": "insufficient_quota",
}  # fmt: skip
NO_MODEL = {"message": "No channel for the model.", "type": "new_api_error", "code": "model_not_found"}
HTML = "<html><head><title>502</title></head><body><h1>Bad gateway</h1></body></html>"

# The descriptions are those of ops/fake_endpoint.md. preset() adds `fake-<status>`, `-once` and `-twice`.
NAMED: dict[str, tuple[str, dict[str, Any]]] = {
    "fake-echo": ("Echoes the last user message; any name that is not listed does the same.", {}),
    "fake-slow": ("Echoes after two seconds of silence.", {"latency_s": 2.0}),
    "fake-drip": ("Streams a word every 0.2 s.", {"chunk_s": 0.2}),
    "fake-long": ("Answers 2,000 characters.", {"size": 2000}),
    "fake-reasoning": ("Thinks before it answers.", {"reasoning": "First I read it. Then I repeat it."}),
    "fake-refusal": ("Refuses.", {"refusal": "I cannot help with that."}),
    "fake-tools": ("Calls the request's first tool.", {"tool_calls": [{"name": "", "arguments": '{"city": "Lima"}'}]}),
    "fake-length": ("Is cut by the token limit.", {"finish_reason": "length"}),
    "fake-filter": ("Is stopped by the content filter.", {"finish_reason": "content_filter"}),
    "fake-no-finish": ("Ends without a finish_reason.", {"finish_reason": ""}),
    "fake-no-usage": ("Reports no usage.", {"usage": "none"}),
    "fake-empty": ("Streams nothing but [DONE].", {"body": "data: [DONE]\n\n"}),
    "fake-quota": ("429 that no waiting cures: insufficient_quota.", {"status": 429, "error": QUOTA}),
    "fake-no-model": (
        "503 model_not_found, as gateways say it.",
        {"status": 503, "error": NO_MODEL},
    ),
    "fake-400-as-500": ("A bad request under HTTP 500.", {"status": 500, "error": ERRORS[400]}),
    "fake-error-200": ("HTTP 200 with an error as its body.", {"body": '{"error": {"message": "Overloaded."}}'}),
    "fake-error-event": ("A stream that breaks off with an error event.", {"error": ERRORS[500], "error_after": 3}),
    "fake-html": ("HTTP 200 with a page of HTML.", {"body": HTML, "content_type": "text/html"}),
    "fake-garbage": ("Sends something that is not JSON.", {"body": "data: {oops\n\n"}),
    "fake-no-answer": ("Reads the request and closes the connection.", {"no_answer": True}),
    "fake-cut": ("Closes the connection in the middle of the answer.", {"cut_at": 460}),
    "fake-reset": ("Resets the connection in the middle of the answer.", {"cut_at": 460, "reset": True}),
    "fake-stall": ("Falls silent for an hour after two events, but keeps pinging.",
                   {"stall_after": 2, "stall_s": 3600.0, "ping_s": 1.0}),
}  # fmt: skip
TIMES = {"-once": 1, "-twice": 2}


def preset(model: str) -> dict[str, Any]:
    """Return the script of a model name: a name of NAMED or `fake-<status>`, also with `-once` or `-twice` at its end.

    An unknown name gets the echo, because users may try the names of real models.
    """
    for ending, times in TIMES.items():
        if model.endswith(ending) and (fault := _single(model.removesuffix(ending))):
            return {"attempts": [fault] * times + [{}]}
    return _single(model)


def _single(model: str) -> dict[str, Any]:
    if model in NAMED:
        return NAMED[model][1]
    if (match := re.fullmatch(r"fake-([45]\d\d)", model)) is None:
        return {}
    status = int(match[1])
    script: dict[str, Any] = {"status": status, "error": ERRORS.get(status, ERRORS[500])}
    return script | ({"retry_after": 1} if status == 429 else {})
