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


def asked(model: str, text: str, **more: Any) -> dict[str, Any]:
    """Return a request with one user message."""
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


def refused(name: str, way: Way, request: Mapping[str, Any], **more: Any) -> Case:
    """Return a case whose job fails before any request is sent."""
    return Case(name, way, request, status="failed", attempts=0, finish_reason=None, usage=False, **more)


def fake_cases() -> list[Case]:
    """Return the jobs for the fake endpoint: every way to submit, every kind of answer, the common failures."""
    echo = "fake-echo"
    hello = asked(echo, "What is an afterword?")
    return [
        Case("plain", "celery", hello, times=8),
        Case("stream", "submit", asked(echo, "Tell me slowly.", stream=True), times=8),
        Case("enqueue", "enqueue", hello, times=3),
        Case("sql alone", "sql", hello, times=3),
        Case("tools", "submit", asked("fake-tools", "Weather?", tools=[TOOL]), finish_reason="tool_calls"),
        Case(
            "tools, stream",
            "celery",
            asked("fake-tools", "Weather?", tools=[TOOL], stream=True),
            finish_reason="tool_calls",
        ),
        Case("three choices", "submit", asked(echo, "Say it three ways.", n=3)),
        Case("three choices, stream", "celery", asked(echo, "Say it three ways.", n=3, stream=True)),
        Case("reasoning, stream", "submit", asked("fake-reasoning", "Think.", stream=True)),
        Case("token limit", "submit", asked(echo, "A long story.", max_tokens=2), finish_reason="length"),
        Case("429 once", "celery", asked("fake-429-once", "Busy?"), times=2, attempts=2),
        Case("500 twice", "submit", asked("fake-500-twice", "Ill?"), attempts=3),
        Case("stream cut once", "submit", asked("fake-cut-once", "Broken?", stream=True), attempts=2),
        refused("bad request", "submit", asked(echo, "Hot!", temperature=3), error_code="invalid_request"),
        Case(
            "fails for good",
            "celery",
            asked("fake-400", "Nonsense."),
            status="failed",
            finish_reason=None,
            error_code="bad_request",
            usage=False,
        ),
        Case("key", "submit", hello, options={"idempotency_key": "one"}),
        Case("key, same again", "celery", hello, options={"idempotency_key": "one"}, after="key"),
        refused(
            "key, other request",
            "submit",
            asked(echo, "Another question."),
            options={"idempotency_key": "one"},
            error_code="idempotency_conflict",
            after="key",
        ),
    ]


def real_cases(model: str) -> list[Case]:
    """Return a few cheap jobs for a real endpoint."""
    short = asked(model, "Say hello in one word.")
    return [
        Case("plain", "celery", short, attempts=None, finish_reason=None),
        Case("stream", "submit", {**short, "stream": True}, attempts=None, finish_reason=None),
        Case("sql alone", "sql", short, attempts=None, finish_reason=None),
        refused("bad request", "submit", asked(model, "Hot!", temperature=3), error_code="invalid_request"),
    ]
