"""Reads an answer from a JSON body and picks its columns for SQL. `stream.Assembler` builds answers from streams."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from json import JSONDecodeError
from typing import Any

from worker.chat.choice import text_parts
from worker.chat.provider_error import error_of, is_error_body
from worker.chat.reasoning import reasoning_of
from worker.chat.usage_report import UsageReports
from worker.core.lenient_json import TooManyParts, compact, object_in, read, read_first
from worker.core.storable_text import clean_text, clean_value

# Matches the rest of a cut JSON text where the parser stopped: nothing, or the start of a word, an escape or the end
# of a number.
_cut_token = re.compile(r"-|t|tr|tru|f|fa|fal|fals|n|nu|nul|N|Na|-?I[infity]{0,7}|\.|[eE][+-]?|\\?u[0-9a-fA-F]{0,4}|")


class AnswerKind(StrEnum):
    """Faults of an answer with HTTP status 200. Each is also an ErrorCode."""

    provider_error = "provider_error"
    stream_truncated = "stream_truncated"
    missing_finish_reason = "missing_finish_reason"
    empty_stream = "empty_stream"
    invalid_chunk = "invalid_chunk"
    unexpected_content_type = "unexpected_content_type"
    answer_too_large = "answer_too_large"


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer and its usage: complete (`fault` is None), or the part that arrived.

    `completion` is a chat.completion object, None without any choice. `provider` is the endpoint's own error value, an
    object or a string, unchanged. `usage` is the exact text of the usage object that counts; `usage_source` is its
    place: "top", "choice" or "x_groq". `usage_flags`: "multiple_usage"; "choices_missing" (fewer choices than
    requested); "reset_after_finish" and "error_after_finish" (a fault after the last finish_reason: the text is
    complete, the usage may be missing).
    """

    completion: dict[str, Any] | None
    fault: AnswerKind | None = None
    provider: Any = None
    usage: bytes | None = None
    usage_source: str | None = None
    usage_flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Columns:
    """Columns of choice 0 and of the answer, storable as SQL text. `tool_calls` is a JSON array without spaces."""

    content: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: str | None = None
    finish_reason: str | None = None
    response_id: str | None = None
    response_model: str | None = None
    system_fingerprint: str | None = None


def read_body(body: bytes) -> Answer:
    """Read an answer from a JSON body, also if the request asked for a stream. Never raises; see `Answer.fault`.

    Only a non-empty `choices` is required. Ids, usage, texts and finish reasons may be missing, blank lines may come
    first (DeepSeek's keep-alive), and the object may be inside an array (Gemini's errors). The content type is ignored,
    because a paid answer must not be lost for a wrong label. The object stays unchanged, except that tool arguments
    sent as an object become JSON text.
    """
    text = body.decode("utf-8", "replace").removeprefix("\ufeff").strip()
    if not text:
        return Answer(None, AnswerKind.empty_stream)
    try:
        value = read(text)
    except TooManyParts:
        return Answer(None, AnswerKind.answer_too_large)
    except ValueError as error:
        return _before_junk(text) or Answer(None, _unreadable(text, error))
    whole = object_in(value)
    if whole is None:
        return Answer(None, AnswerKind.invalid_chunk)
    return _read_object(whole, text if whole is value else compact(whole))


def columns(completion: Mapping[str, Any] | None) -> Columns:
    """Return the columns of an answer, from the choice with index 0, else from the first choice.

    The text parts of a content list are joined. Every spelling of reasoning counts as `reasoning_content`. Missing
    values are None.
    """
    if completion is None:
        return Columns()
    choice = _first_choice(completion)
    message = _object(choice.get("message"))
    content, reasoning = _texts(message.get("content"))
    calls = message.get("tool_calls")
    return Columns(
        content=content,
        reasoning_content=_text(reasoning_of(message)) or reasoning,
        refusal=_text(message.get("refusal")),
        tool_calls=clean_value(calls) if isinstance(calls, list) and calls else None,
        finish_reason=_text(choice.get("finish_reason")) or None,
        response_id=_name(completion.get("id")),
        response_model=_name(completion.get("model")),
        system_fingerprint=_name(completion.get("system_fingerprint")),
    )


def has_output(completion: Mapping[str, Any] | None) -> bool:
    """Say whether any choice has generated output: text, reasoning, a refusal, a tool call or audio."""
    return any(_has_output(choice) for choice in _choices(completion or {}))


def has_output_in(choices: object) -> bool:
    """Say whether any delta in a chunk's `choices` has generated output."""
    found = choices if isinstance(choices, list) else []
    return any(_has_output({"message": item.get("delta")}) for item in found if isinstance(item, dict))


def failed_end(completion: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the finish reasons of the first choice if every choice ended in an error without output; else None.

    Example: `{"finish_reason": "error", "native_finish_reason": "MALFORMED_FUNCTION_CALL"}`.
    """
    choices = _choices(completion or {})
    if not choices or any(_has_output(choice) or not is_failing(choice.get("finish_reason")) for choice in choices):
        return None
    return {name: value for name, value in choices[0].items() if name.endswith("finish_reason")}


def is_failing(finish_reason: object) -> bool:
    """Say whether a finish_reason reports a failure: `error`, `network_error`, or a word of DeepSeek or Google."""
    reason = finish_reason.lower() if isinstance(finish_reason, str) else ""
    return "error" in reason or reason in _FAILING


def _has_output(choice: Mapping[str, Any]) -> bool:
    message = _object(choice.get("message"))
    return any(value for key, value in message.items() if key not in ("role", "name"))


def _before_junk(text: str) -> Answer | None:
    """Read an answer or an error with junk after it; the junk becomes a flag. None if there is neither."""
    try:
        value, whole = read_first(text)
    except ValueError:
        return None
    if not isinstance(value, dict):
        return None
    found = _read_object(value, whole)
    if found.fault is None:
        return replace(found, usage_flags=(*found.usage_flags, "error_after_finish"))
    return found if found.fault is AnswerKind.provider_error else None


_FAILING = frozenset({"insufficient_system_resource", "malformed_function_call", "abort", "aborted"})


def _unreadable(text: str, error: ValueError) -> AnswerKind:
    if text[0] != "{":
        return AnswerKind.unexpected_content_type
    # HTTP cannot show that a body without a length was cut. Only the parser can: it stopped at the end of the text.
    return AnswerKind.stream_truncated if text[-1] != "}" and _is_cut(text, error) else AnswerKind.invalid_chunk


def _is_cut(text: str, error: ValueError) -> bool:
    """Say whether a text is the start of valid JSON. A text that nests too deeply counts as cut."""
    if not isinstance(error, JSONDecodeError) or error.msg.startswith("Unterminated string"):
        return True
    return _cut_token.fullmatch(text, error.pos) is not None


def _read_object(completion: dict[str, Any], text: str) -> Answer:
    reported = UsageReports()
    reported.note(completion, text)
    choices = _choices(completion)
    error = error_of(completion) or (
        completion if not choices and is_error_body(completion) else failed_end(completion)
    )
    for choice in choices:
        _write_arguments(_object(choice.get("message")))
    report = reported.chosen()
    return Answer(
        completion=completion if choices else None,
        fault=AnswerKind.provider_error if error else None if choices else AnswerKind.empty_stream,
        provider=error,
        usage=report.exact() if report else None,
        usage_source=report.source if report else None,
        usage_flags=reported.flags,
    )


def _write_arguments(message: dict[str, Any]) -> None:
    calls = message.get("tool_calls")
    for call in calls if isinstance(calls, list) else ():
        function = _object(_object(call).get("function"))
        if isinstance(function.get("arguments"), dict | list):
            function["arguments"] = compact(function["arguments"])


def _choices(completion: Mapping[str, Any]) -> list[dict[str, Any]]:
    choices = completion.get("choices")
    return [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []


def _first_choice(completion: Mapping[str, Any]) -> dict[str, Any]:
    choices = _choices(completion)
    return next((choice for choice in choices if choice.get("index") == 0), choices[0] if choices else {})


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _texts(content: object) -> tuple[str | None, str | None]:
    """Return the text and the reasoning in a message's content."""
    if not isinstance(content, list):
        return _text(content), None
    found: dict[str, str] = {}
    for kind, text in text_parts(content):
        found[kind] = found.get(kind, "") + text
    return _text(found.get("content")), _text(found.get("reasoning_content"))


def _text(value: object) -> str | None:
    return clean_text(value) if isinstance(value, str) else None


def _name(value: object) -> str | None:
    """Return an id or a model's name as text, also of a number; None if it is empty."""
    if value is None or value == "":
        return None
    return clean_text(value if isinstance(value, str) else clean_value(value))
