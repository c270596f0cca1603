"""The jobs of `afterword demo`: the request, the way to submit it, and the expected end of each."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Way = Literal["celery", "submit", "enqueue", "sql"]
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


@dataclass(frozen=True, slots=True)
class Case:
    """Jobs with one expected end; None means that the column is not compared."""

    name: str
    way: Way
    request: Mapping[str, Any]
    times: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)
    status: str = "completed"
    attempts: int | None = 1
    finish_reason: str | None = "stop"
    error_code: str | None = None
    usage: bool = True
    after: str | None = None  # send it once this job has a row: two ways keep no order


def user_request(model: str, text: str, **more: Any) -> dict[str, Any]:
    """Return a request with one user message."""
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


def refused_case(name: str, way: Way, request: Mapping[str, Any], **more: Any) -> Case:
    """Return a case whose job fails before any request is sent."""
    return Case(name, way, request, status="failed", attempts=0, finish_reason=None, usage=False, **more)


def fake_cases() -> list[Case]:
    """Return the jobs for the fake endpoint: every way to submit, every kind of answer, the common failures."""
    echo = "fake-echo"
    hello = user_request(echo, "What is an afterword?")
    return [
        Case("plain", "celery", hello, times=8),
        Case("stream", "submit", user_request(echo, "Tell me slowly.", stream=True), times=8),
        Case("enqueue", "enqueue", hello, times=3),
        Case("sql alone", "sql", hello, times=3),
        Case("tools", "submit", user_request("fake-tools", "Weather?", tools=[TOOL]), finish_reason="tool_calls"),
        Case(
            "tools, stream",
            "celery",
            user_request("fake-tools", "Weather?", tools=[TOOL], stream=True),
            finish_reason="tool_calls",
        ),
        Case("three choices", "submit", user_request(echo, "Say it three ways.", n=3)),
        Case("three choices, stream", "celery", user_request(echo, "Say it three ways.", n=3, stream=True)),
        Case("reasoning, stream", "submit", user_request("fake-reasoning", "Think.", stream=True)),
        Case("token limit", "submit", user_request(echo, "A long story.", max_tokens=2), finish_reason="length"),
        Case("429 once", "celery", user_request("fake-429-once", "Busy?"), times=2, attempts=2),
        Case("500 twice", "submit", user_request("fake-500-twice", "Ill?"), attempts=3),
        Case("stream cut once", "submit", user_request("fake-cut-once", "Broken?", stream=True), attempts=2),
        refused_case("bad request", "submit", user_request(echo, "Hot!", temperature=3), error_code="invalid_request"),
        Case(
            "fails for good",
            "celery",
            user_request("fake-400", "Nonsense."),
            status="failed",
            finish_reason=None,
            error_code="bad_request",
            usage=False,
        ),
        Case("key", "submit", hello, options={"idempotency_key": "one"}),
        Case("key, same again", "celery", hello, options={"idempotency_key": "one"}, after="key"),
        refused_case(
            "key, other request",
            "submit",
            user_request(echo, "Another question."),
            options={"idempotency_key": "one"},
            error_code="idempotency_conflict",
            after="key",
        ),
    ]


def real_cases(model: str) -> list[Case]:
    """Return a few cheap jobs for a real endpoint."""
    short = user_request(model, "Say hello in one word.")
    return [
        Case("plain", "celery", short, attempts=None, finish_reason=None),
        Case("stream", "submit", {**short, "stream": True}, attempts=None, finish_reason=None),
        Case("sql alone", "sql", short, attempts=None, finish_reason=None),
        refused_case("bad request", "submit", user_request(model, "Hot!", temperature=3), error_code="invalid_request"),
    ]
