"""The rule of each request field, for each value of the endpoint's setting `validation`."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from worker.chat.messages import messages
from worker.chat.schema_rules import Rule, array, boolean, integer, json_object, number, optional, required, text
from worker.chat.tools import response_format, tool_choice, tools
from worker.core.endpoint import Validation
from worker.core.faults import Fault, describe_value

_DOCUMENT = "the document"
_OPENAI = "OpenAI"
_EFFORTS = ("low", "medium", "high")
_OPENAI_EFFORTS = ("none", "minimal", *_EFFORTS, "xhigh", "max")
_STOP_LIMIT = 4

_any_string = text(empty=True)
_bias = number(-100, 100, authority=_OPENAI)


def _stop(path: str, value: Any) -> Iterator[Fault]:
    if type(value) is list:
        yield from array(_any_string)(path, value)
    elif type(value) is not str:
        yield Fault(path, f"is {describe_value(value)}; send a string or an array of strings")


def _openai_stop(path: str, value: Any) -> Iterator[Fault]:
    if type(value) is list and not 1 <= len(value) <= _STOP_LIMIT:
        message = f"is {describe_value(value)}; OpenAI allows 1 to {_STOP_LIMIT} strings"
        yield Fault(path, f'{message}; an endpoint whose setting validation is "document" has no limit')
    else:
        yield from _stop(path, value)


def _stream_options(path: str, value: Any) -> Iterator[Fault]:
    yield from json_object(path, value)
    if type(value) is dict:
        yield from optional(path, value, "include_usage", boolean)


def _openai_logit_bias(path: str, value: Any) -> Iterator[Fault]:
    yield from json_object(path, value)
    if type(value) is dict:
        for token, bias in value.items():
            if not (token.isascii() and token.isdigit()):
                yield Fault(path, f"has the name {describe_value(token)}; a name must be a token id in decimal digits")
            yield from _bias(f"{path}[{describe_value(token)}]", bias)


def _document_effort(path: str, value: Any) -> Iterator[Fault]:
    if value not in _EFFORTS:
        hint = 'an endpoint whose setting validation is "openai" takes'
        yield Fault(
            path,
            f"is {describe_value(value)}; the document allows {_listed(_EFFORTS)}; {hint} {_listed(_OPENAI_EFFORTS)}",
        )


def _openai_effort(path: str, value: Any) -> Iterator[Fault]:
    if value not in _OPENAI_EFFORTS:
        hint = 'an endpoint whose setting validation is "shape" takes any string'
        yield Fault(path, f"is {describe_value(value)}; OpenAI allows {_listed(_OPENAI_EFFORTS)}; {hint}")


def _listed(words: tuple[str, ...]) -> str:
    return ", ".join(words[:-1]) + " and " + words[-1]


def _audio(path: str, value: Any) -> Iterator[Fault]:
    yield from json_object(path, value)
    if type(value) is dict:
        yield from required(path, value, "voice", _voice)
        yield from required(path, value, "format", text())


def _voice(path: str, value: Any) -> Iterator[Fault]:
    if type(value) is not dict:
        yield from text()(path, value)


def _openai_n(path: str, value: Any) -> Iterator[Fault]:
    for fault in integer(1, 128, authority=_OPENAI)(path, value):
        yield Fault(path, f'{fault.message}; an endpoint whose setting validation is "document" has no upper limit')


def _text_or(kind: type, kind_in_words: str) -> Rule:
    def rule(path: str, value: Any) -> Iterator[Fault]:
        if type(value) not in (str, kind):
            yield Fault(path, f"is {describe_value(value)}; send a string or {kind_in_words}")

    return rule


_document: dict[str, Rule] = {
    "model": text(),
    "messages": partial(messages, parts_too=True),
    "temperature": number(0, 2, authority=_DOCUMENT),
    "top_p": number(0, 1, authority=_DOCUMENT),
    "n": integer(1, authority=_DOCUMENT),
    "stream": boolean,
    "stream_options": _stream_options,
    "stop": _stop,
    "max_tokens": integer(),
    "max_completion_tokens": integer(),
    "presence_penalty": number(-2, 2, authority=_DOCUMENT),
    "frequency_penalty": number(-2, 2, authority=_DOCUMENT),
    "logit_bias": json_object,
    "user": _any_string,
    "tools": tools(named=False),
    "tool_choice": partial(tool_choice, worded=False),
    "response_format": partial(response_format, named=False),
    "seed": integer(),
    "reasoning_effort": _document_effort,
    "modalities": array(text()),
    "audio": _audio,
}

_shape: dict[str, Rule] = {
    "model": text(),
    "messages": partial(messages, parts_too=False),
    "temperature": number(),
    "top_p": number(),
    "n": integer(),
    "stream": boolean,
    "stream_options": json_object,
    "stop": _text_or(list, "an array of strings"),
    "max_tokens": integer(),
    "max_completion_tokens": integer(),
    "presence_penalty": number(),
    "frequency_penalty": number(),
    "logit_bias": json_object,
    "user": _any_string,
    "tools": array(json_object),
    "tool_choice": _text_or(dict, "an object"),
    "response_format": json_object,
    "seed": integer(),
    "reasoning_effort": _any_string,
    "modalities": array(_any_string),
    "audio": json_object,
}

# Limits of OpenAI that the document does not have: other servers accept -1 tokens or the choice "any".
_openai: dict[str, Rule] = {
    "n": _openai_n,
    "stop": _openai_stop,
    "max_tokens": integer(1, authority=_OPENAI),
    "max_completion_tokens": integer(1, authority=_OPENAI),
    "logit_bias": _openai_logit_bias,
    "tools": tools(named=True),
    "tool_choice": partial(tool_choice, worded=True),
    "response_format": partial(response_format, named=True),
    "seed": integer(-(2**63), 2**63 - 1, authority=_OPENAI),
    "reasoning_effort": _openai_effort,
}

RULES: Mapping[Validation, Mapping[str, Rule]] = {
    "document": _document,
    "openai": _document | _openai,
    "shape": _shape,
}
