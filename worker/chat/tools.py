"""Rules for `tools`, `tool_choice` and `response_format` of a chat request."""

import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from worker.chat.schema_rules import Rule, array, json_object, optional, required, text
from worker.core.faults import Fault, describe_value

# OpenAI's form for the names of functions and response schemas.
_name_form = re.compile(r"[a-zA-Z0-9_-]{1,64}").fullmatch
_CHOICES = ("none", "auto", "required")

_type = text()
_any_name = text()


def _name(path: str, value: Any) -> Iterator[Fault]:
    if type(value) is not str or not _name_form(value):
        yield Fault(path, f"is {describe_value(value)}; send 1 to 64 letters, digits, underscores or hyphens")


def _named(path: str, value: Any, *, form: Rule = _any_name) -> Iterator[Fault]:
    yield from json_object(path, value)
    if type(value) is dict:
        yield from required(path, value, "name", form)


def _function(path: str, value: Any, *, form: Rule) -> Iterator[Fault]:
    yield from _named(path, value, form=form)
    if type(value) is dict:
        yield from optional(path, value, "parameters", json_object)


def _tool(path: str, value: Any, *, form: Rule) -> Iterator[Fault]:
    yield from json_object(path, value)
    if type(value) is dict:
        yield from required(path, value, "type", _type)
        if value.get("type") == "function":
            yield from required(path, value, "function", partial(_function, form=form))


def tools(*, named: bool) -> Rule:
    """Return the rule for `tools`; `named`: function names must have OpenAI's form."""
    return array(partial(_tool, form=_name if named else _any_name))


def tool_choice(path: str, value: Any, *, worded: bool) -> Iterator[Fault]:
    """Yield a fault unless `tool_choice` is a string or an object with a type. Unknown types pass.

    `worded`: the string must be one of OpenAI's three words.
    """
    match value:
        case str():
            if worded and value not in _CHOICES:
                yield Fault(
                    path, f'is {describe_value(value)}; send "none", "auto", "required" or an object that names a tool'
                )
        case dict():
            yield from required(path, value, "type", _type)
            if value.get("type") == "function":
                yield from required(path, value, "function", _named)
        case _:
            yield Fault(path, f"is {describe_value(value)}; send a string or an object")


def response_format(path: str, value: Any, *, named: bool) -> Iterator[Fault]:
    """Yield a fault unless `response_format` is an object with a type. `json_schema` needs a name. Unknown types pass.

    `named`: the name must have OpenAI's form.
    """
    yield from json_object(path, value)
    if type(value) is dict:
        yield from required(path, value, "type", _type)
        if value.get("type") == "json_schema":
            yield from required(path, value, "json_schema", partial(_json_schema, form=_name if named else _any_name))


def _json_schema(path: str, value: Any, *, form: Rule) -> Iterator[Fault]:
    yield from _named(path, value, form=form)
    if type(value) is dict:
        yield from optional(path, value, "schema", json_object)


def choice_needs_tools(request: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield a fault if `tool_choice` is given without tools, or names a function that is not in `tools`."""
    choice, offered = request.get("tool_choice"), request.get("tools")
    if choice is None:
        return
    if not offered:
        yield Fault("request.tool_choice", "is given without tools; send tools too, or leave tool_choice out")
        return
    match choice:
        case {"type": "function", "function": {"name": str() as name}} if isinstance(offered, list):
            names = _function_names(offered)
            if name not in names:
                known = ", ".join(describe_value(function) for function in names[:10]) or "none"
                message = f"is {describe_value(name)}; it must name a function of tools (functions there: {known})"
                yield Fault("request.tool_choice.function.name", message)


def _function_names(offered: list[Any]) -> list[str]:
    found = []
    for tool in offered:
        match tool:
            case {"type": "function", "function": {"name": str() as name}}:
                found.append(name)
    return found
