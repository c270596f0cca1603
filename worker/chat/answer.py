"""What an endpoint answered: read from one JSON body here, from a stream by `assemble`; and its columns for SQL."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from json import JSONDecodeError
from typing import Any

from worker.chat.choice import text_parts
from worker.chat.provider_error import error_of, is_error_body
from worker.chat.reasoning import reasoning_of
from worker.chat.usage_report import Reported
from worker.core.lenient_json import TooManyParts, compact, object_in, read, read_first
from worker.core.storable_text import clean_text, clean_value

# What may stand where the parser stopped, if only because the text ends: nothing, or the beginning of a word, of an
# escape or of a number's end.
_begun = re.compile(r"-|t|tr|tru|f|fa|fal|fals|n|nu|nul|N|Na|-?I[infity]{0,7}|\.|[eE][+-]?|\\?u[0-9a-fA-F]{0,4}|")


class AnswerKind(StrEnum):
    """What can be wrong with an answer whose status was 200."""

    provider_error = "provider_error"
    stream_truncated = "stream_truncated"
    missing_finish_reason = "missing_finish_reason"
    empty_stream = "empty_stream"
    invalid_chunk = "invalid_chunk"
    unexpected_content_type = "unexpected_content_type"
    answer_too_large = "answer_too_large"


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer and its usage, whole (`fault` is None) or as far as it came.

    `completion` is a chat.completion object, None if no choice came. `provider` is the endpoint's own error value as it
    came, an object or a string. `usage` is the exact text of the usage object that counts, `usage_source` the place it
    stood in ("top", "choice", "x_groq"). `usage_flags` holds what only the reader of the answer can know:
    "multiple_usage"; "choices_missing", fewer choices than asked for; and "reset_after_finish" or "error_after_finish",
    what went wrong after the last finish_reason and cost the usage at most.
    """

    completion: dict[str, Any] | None
    fault: AnswerKind | None = None
    provider: Any = None
    usage: bytes | None = None
    usage_source: str | None = None
    usage_flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Columns:
    """Choice 0 of an answer and the answer's names, storable as SQL text; `tool_calls` is JSON text without spaces."""

    content: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: str | None = None
    finish_reason: str | None = None
    response_id: str | None = None
    response_model: str | None = None
    system_fingerprint: str | None = None


def read_body(body: bytes) -> Answer:
    """Read an answer that is one JSON object, also one given to a request that asked for a stream.

    Only a non-empty `choices` is required: ids, usage, texts and finish reasons may be missing, blank lines may come
    first (DeepSeek's keep-alive), an array may be around the object (Gemini's errors). What the content type says is of
    no account, because a paid answer is not thrown away for a label. The object stays as it came, except that tool
    arguments sent as an object become their JSON text.
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
    """Pick the columns of an answer: those of the choice with index 0, else of the first.

    A content list gives its text parts joined; any spelling of reasoning counts as `reasoning_content`. What is
    missing is None.
    """
    if completion is None:
        return Columns()
    choice = _first_choice(completion)
    message = _object(choice.get("message"))
    content, thought = _texts(message.get("content"))
    calls = message.get("tool_calls")
    return Columns(
        content=content,
        reasoning_content=_text(reasoning_of(message)) or thought,
        refusal=_text(message.get("refusal")),
        tool_calls=clean_value(calls) if isinstance(calls, list) and calls else None,
        finish_reason=_text(choice.get("finish_reason")) or None,
        response_id=_name(completion.get("id")),
        response_model=_name(completion.get("model")),
        system_fingerprint=_name(completion.get("system_fingerprint")),
    )


def has_output(completion: Mapping[str, Any] | None) -> bool:
    """Say whether any choice of an answer holds anything generated: text, reasoning, a refusal, a call, audio."""
    return any(_says_something(choice) for choice in _choices(completion or {}))


def has_output_in(choices: object) -> bool:
    """Say whether the deltas of a chunk hold anything generated."""
    found = choices if isinstance(choices, list) else []
    return any(_says_something({"message": item.get("delta")}) for item in found if isinstance(item, dict))


def failed_end(completion: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the first choice's end where every choice ended in an error and holds nothing; None else.

    `{"finish_reason": "error", "native_finish_reason": "MALFORMED_FUNCTION_CALL"}`: that is no answer.
    """
    choices = _choices(completion or {})
    if not choices or any(_says_something(choice) or not is_failing(choice.get("finish_reason")) for choice in choices):
        return None
    return {name: value for name, value in choices[0].items() if name.endswith("finish_reason")}


def is_failing(finish_reason: object) -> bool:
    """Say whether a finish_reason reports a failure: `error`, `network_error`, DeepSeek's and Google's own words."""
    reason = finish_reason.lower() if isinstance(finish_reason, str) else ""
    return "error" in reason or reason in _FAILING


def _says_something(choice: Mapping[str, Any]) -> bool:
    message = _object(choice.get("message"))
    return any(value for key, value in message.items() if key not in ("role", "name"))


def _before_junk(text: str) -> Answer | None:
    """Read an answer, or an error, that has junk after it: the first fact counts. None if there is none."""
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
    # A body without a length that is cut looks like a finished one; that the parser wanted more is all that shows it.
    return AnswerKind.stream_truncated if text[-1] != "}" and _wants_more(text, error) else AnswerKind.invalid_chunk


def _wants_more(text: str, error: ValueError) -> bool:
    """Say whether a text is JSON as far as it goes. One that nests too deeply is not read so far."""
    if not isinstance(error, JSONDecodeError) or error.msg.startswith("Unterminated string"):
        return True
    return _begun.fullmatch(text, error.pos) is not None


def _read_object(completion: dict[str, Any], text: str) -> Answer:
    reported = Reported()
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
    """Return the text and the thoughts of a message's content."""
    if not isinstance(content, list):
        return _text(content), None
    found: dict[str, str] = {}
    for kind, text in text_parts(content):
        found[kind] = found.get(kind, "") + text
    return _text(found.get("content")), _text(found.get("reasoning_content"))


def _text(value: object) -> str | None:
    return clean_text(value) if isinstance(value, str) else None


def _name(value: object) -> str | None:
    """Return an id or a model's name; an empty one is none, a number is its text."""
    if value is None or value == "":
        return None
    return clean_text(value if isinstance(value, str) else clean_value(value))
