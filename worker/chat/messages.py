"""Rules for the `messages` of a chat request: roles, contents, content parts and tool calls."""

from collections.abc import Iterator
from typing import Any

from worker.chat.schema_rules import Rule, array, json_object, optional, required, text
from worker.core.faults import Fault, describe_value

# A message of the assistant needs no content if it has one of these.
_INSTEAD_OF_CONTENT = ("tool_calls", "function_call", "audio", "refusal", "reasoning_content")

_PLAIN_ROLES = ("user", "assistant", "system", "developer")

_string = text(empty=True)
_name = text()


def messages(path: str, value: Any, *, parts_too: bool) -> Iterator[Fault]:
    """Yield the faults of `messages`. `parts_too`: also check content parts of the types that OpenAI describes.

    Unknown roles and part types pass, because the endpoint may know them.
    """
    if type(value) is not list or not value:
        yield Fault(path, f"is {describe_value(value)}; send an array of at least one message")
        return
    for position, message in enumerate(value):
        if not _is_plain(message):
            yield from _message(f"{path}[{position}]", message, _part if parts_too else _bare_part)


def _is_plain(message: Any) -> bool:
    """Say whether a message has only a known role and a string. Most messages do, and need no other check."""
    return (
        type(message) is dict
        and len(message) == 2
        and message.get("role") in _PLAIN_ROLES
        and type(message.get("content")) is str
    )


def _message(path: str, message: Any, part: Rule) -> Iterator[Fault]:
    if type(message) is not dict:
        yield Fault(
            path, f'is {describe_value(message)}; send an object such as {{"role": "user", "content": "hello"}}'
        )
        return
    role = message.get("role")
    if type(role) is not str or not role:
        yield from required(path, message, "role", _name)
    yield from _content(path, message, part)
    yield from _other_members(path, message)
    if role == "tool":
        yield from required(path, message, "tool_call_id", _name)
    elif role == "function":
        yield from required(path, message, "name", _name)


def _content(path: str, message: dict[str, Any], part: Rule) -> Iterator[Fault]:
    content = message.get("content")
    if type(content) is str:
        return
    role = message.get("role")
    if type(content) is list:
        for position, element in enumerate(content):
            yield from part(f"{path}.content[{position}]", element)
    elif content is not None:
        yield Fault(f"{path}.content", f"is {describe_value(content)}; send a string or an array of content parts")
    elif role in ("system", "developer", "user", "tool"):
        yield from required(path, message, "content", _string)
    elif role == "function" and "content" not in message:
        yield Fault(f"{path}.content", "is missing; send a string or null")
    elif role == "assistant" and "content" not in message and not any(name in message for name in _INSTEAD_OF_CONTENT):
        yield Fault(f"{path}.content", "is missing; an assistant's message needs content or tool_calls")


def _other_members(path: str, message: dict[str, Any]) -> Iterator[Fault]:
    yield from optional(path, message, "name", _string)
    yield from optional(path, message, "tool_calls", _tool_calls)
    yield from optional(path, message, "function_call", _function_call)
    yield from optional(path, message, "refusal", _string)
    yield from optional(path, message, "audio", json_object)


def _function_call(path: str, value: Any) -> Iterator[Fault]:
    yield from json_object(path, value)
    if type(value) is dict:
        yield from required(path, value, "name", _name)
        yield from required(path, value, "arguments", _string)


def _tool_call(path: str, value: Any) -> Iterator[Fault]:
    yield from json_object(path, value)
    if type(value) is dict:
        yield from optional(path, value, "id", _string)
        yield from optional(path, value, "type", _string)
        if value.get("type") in (None, "function"):
            yield from required(path, value, "function", _function_call)


_tool_calls = array(_tool_call)


def _bare_part(path: str, part: Any) -> Iterator[Fault]:
    if type(part) is not dict:
        yield Fault(path, f'is {describe_value(part)}; send a content part such as {{"type": "text", "text": "hello"}}')
    elif type(part.get("type")) is not str or not part["type"]:
        yield from required(path, part, "type", _name)


def _part(path: str, part: Any) -> Iterator[Fault]:
    yield from _bare_part(path, part)
    match part:
        case {"type": "text"}:
            yield from required(path, part, "text", _string)
        case {"type": "refusal"}:
            yield from required(path, part, "refusal", _string)
        case {"type": "image_url"}:
            yield from required(path, part, "image_url", _image_url)
        case {"type": "input_audio"}:
            yield from required(path, part, "input_audio", _input_audio)
        case {"type": "file"}:
            yield from required(path, part, "file", _file)


def _image_url(path: str, value: Any) -> Iterator[Fault]:
    yield from json_object(path, value)
    if type(value) is dict:
        yield from required(path, value, "url", _name)
        yield from optional(path, value, "detail", _string)


def _input_audio(path: str, value: Any) -> Iterator[Fault]:
    yield from json_object(path, value)
    if type(value) is dict:
        yield from required(path, value, "data", _name)
        yield from required(path, value, "format", _name)


def _file(path: str, value: Any) -> Iterator[Fault]:
    yield from json_object(path, value)
    if type(value) is dict:
        for name in ("file_data", "file_id", "filename"):
            yield from optional(path, value, name, _string)
